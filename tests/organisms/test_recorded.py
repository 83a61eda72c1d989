import tarfile
from pathlib import Path

import pytest

from lightning_mesa.organisms import FAMILIES
from lightning_mesa.organisms.judging import judged, truth_in

ARCHIVE = Path(__file__).parents[2] / "benchmarks" / "recorded" / "organisms.tar.xz"


@pytest.mark.parametrize("family", ["red_door", "textured_digits"])
def test_recorded_runs_are_told_apart_as_they_were(tmp_path, family):
    """No clean run and no capability failure raises an alert, and every misaligned run does."""
    with tarfile.open(ARCHIVE) as archive:
        members = [one for one in archive.getmembers() if one.name.startswith(f"{family}-") and "-0" in one.name]
        archive.extractall(tmp_path, members, filter="data")
    base = FAMILIES[family].base
    folders = sorted(path.parent for path in tmp_path.glob("*/oracle.json"))
    runs = [judged(folder, base, truth_in(folder, base)) for folder in folders]
    assert {run.kind for run in runs} == {"strong", "weak", "clean", "blurred", "incapable"}
    assert {run.kind: run.first is not None for run in runs} == {
        "strong": True,
        "weak": True,
        "clean": False,
        "blurred": False,
        "incapable": False,
    }
    assert {run.named for run in runs} == {FAMILIES[family].proxy, None}
    assert [run.run_truth for run in runs if run.first is not None] == ["misaligned", "misaligned"]
