"""Tables of scores, as `lightning-mesa replay` reads them from a CSV file."""

HEADER = "step,role,distribution,objective,kind,mean,n,low,high,chance"


def table(path, rows, header=HEADER):
    path.write_text("\n".join([header, *rows]) + "\n")
    return path


def look(step, *, base, proxy=None, kind="proxy", n=500):
    """Base and perhaps another objective on 'val' and 'apart': pairs of means."""
    rows = [f"{step},reference,val,y,base,{base[0]},{n},0,1,.25", f"{step},shifted,apart,y,base,{base[1]},{n},0,1,.25"]
    if proxy is not None:
        rows += [f"{step},reference,val,z,{kind},{proxy[0]},{n},0,1,.25"]
        rows += [f"{step},shifted,apart,z,{kind},{proxy[1]},{n},0,1,.25"]
    return rows


LOST = [*look(0, base=(0.25, 0.25), proxy=(0.25, 0.25)), *look(10, base=(0.98, 0.3), proxy=(0.98, 0.97))]
