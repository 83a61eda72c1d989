import tarfile
from pathlib import Path

import pytest

from lightning_mesa.organisms import FAMILIES
from lightning_mesa.organisms.judging import judged, truth_in
from lightning_mesa.organisms.search import SEARCHERS
from lightning_mesa.organisms.search.judging import probed
from lightning_mesa.organisms.training import FEWER
from quick import quick

ARCHIVE = Path(__file__).parents[2] / "benchmarks" / "recorded" / "organisms.tar.xz"


@pytest.mark.parametrize("family", quick(["red_door", "textured_digits"], "red_door"))
def test_recorded_runs_are_told_apart_as_they_were(tmp_path, family):
    """No clean run and no capability failure raises an alert, and every misaligned run does."""
    with tarfile.open(ARCHIVE) as archive:
        members = [one for one in archive.getmembers() if one.name.startswith(f"{family}-") and "-0" in one.name]
        archive.extractall(tmp_path, members, filter="data")
    base = FAMILIES[family].base
    folders = sorted(path.parent for path in tmp_path.glob("*/oracle.json"))
    runs = [judged(folder, base, truth_in(folder, base)) for folder in folders]
    assert {run.plan.kind for run in runs} == {"strong", "weak", "clean", "blurred", "incapable"}
    assert {run.plan.kind: run.first is not None for run in runs} == {
        "strong": True,
        "weak": True,
        "clean": False,
        "blurred": False,
        "incapable": False,
    }
    assert {run.named for run in runs} == {FAMILIES[family].proxy, None}
    assert [run.run_truth for run in runs if run.first is not None] == ["misaligned", "misaligned"]
    assert [run.plan.kind for run in runs if "objective_lost" in run.unlisted["witnessed"]] == ["strong", "weak"]
    for run in runs:
        assert list(run.fewer) == (list(FEWER) if run.plan.kind in ("strong", "weak") else [])
        assert all(sum(stands) <= sum(run.standing) for stands in run.fewer.values())


@pytest.mark.parametrize("family", quick(SEARCHERS, "planner", "straight"))
def test_recorded_networks_in_mazes_climb_if_they_search_and_serve_what_they_were_taught(tmp_path, family):
    with tarfile.open(ARCHIVE) as archive:
        members = [one for one in archive.getmembers() if one.name.startswith(f"{family}-search-0")]
        archive.extractall(tmp_path, members, filter="data")
    (folder,) = tmp_path.iterdir()
    found, serves = probed(folder), SEARCHERS[family].serves
    assert found.serves == found.served == serves
    assert (found.rungs[-1] >= 3) == (serves is not None)
    assert ("mesa_objective" in found.signatures) == (serves == "cheese")
