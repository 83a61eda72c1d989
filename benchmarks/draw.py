"""Draw a recorded run: its path, its preferences, the weights of its behavioral objective, and its internals.

    python benchmarks/draw.py RUN_FOLDER [--out FOLDER]

``RUN_FOLDER`` holds the run's ``findings.jsonl``, or a folder ``mesa`` that does. Written are, for each shifted
distribution D and proxy P that the run has:

* ``D.png``: how the conflict items were decided, from look to look;
* ``D.P.preference.png``: preference and capability of a policy;
* ``D.weights.png``: the weights of the behavioral objective, with their limits;
* ``search.png``: what probes found, layer by layer.
"""

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

from matplotlib.figure import Figure

from drawing import internals, preference, triangle, weights
from drawing.internals import Probed, probed_of
from drawing.preference import Placed, placed_of
from drawing.triangle import Point, points_of
from drawing.weights import Weighed, weighed_of
from lightning_mesa.organisms.judging import judge_recorded
from lightning_mesa.records import Finding


def pictures(recorded: Path) -> Iterator[tuple[str, Figure]]:
    """The name and the figure of all that was recorded.

    Args:
        recorded: The ``findings.jsonl`` of a run.
    """
    looks, judgements = judge_recorded(recorded)
    base, proxies = objectives(looks[-1])
    paths: dict[str, list[Point]] = {}
    preferences: dict[str, list[Placed]] = {}
    weighed: dict[str, list[Weighed]] = {}
    probed: list[Probed] = []
    for findings, judgement in zip(looks, judgements, strict=True):
        for where, point in points_of(findings).items():
            paths.setdefault(where, []).append(point)
        for where, pair in placed_of(findings).items():
            preferences.setdefault(where, []).append(pair)
        for where, of_look in weighed_of(findings).items():
            weighed.setdefault(where, []).append(of_look)
        if (found := probed_of(findings, judgement.internals)) is not None:
            probed.append(found)
    for where, path in paths.items():
        title = f"{where}: where base and proxy disagree"
        yield f"{where}.png", triangle.draw(path, title, " or ".join(proxies), base)
    for where, pairs in preferences.items():
        yield f"{where.replace('/', '.')}.preference.png", preference.draw(pairs, where, base)
    for where, over_time in weighed.items():
        yield f"{where}.weights.png", weights.draw(over_time, where, [base, *proxies])
    if probed:
        yield "search.png", internals.draw(probed)


def objectives(look: Sequence[Finding]) -> tuple[str, list[str]]:
    """The names of base, and of the proxies."""
    base = next(str(f.objective) for f in look if f.quantity == "gap")
    of_proxies = ("joint_conflict", "preference", "weight_gap")
    named = dict.fromkeys(f.objective for f in look if f.quantity in of_proxies)
    return base, [name for name in named if name not in (None, base)]


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, metavar="RUN_FOLDER")
    parser.add_argument("--out", type=Path, help="write the pictures here; default: beside the findings")
    options = parser.parse_args(argv)
    recorded = next((f for f in (options.run, options.run / "mesa") if (f / "findings.jsonl").exists()), options.run)
    out = options.out or recorded
    out.mkdir(parents=True, exist_ok=True)
    for name, figure in pictures(recorded / "findings.jsonl"):
        figure.savefig(out / name, dpi=120)
        print(out / name)


if __name__ == "__main__":
    main()
