import json
import tarfile
from pathlib import Path

import pytest

from lightning_mesa.attach.cli import main
from lightning_mesa.organisms import FAMILIES
from lightning_mesa.organisms.tables import area

ARCHIVE = Path(__file__).parents[2] / "benchmarks" / "recorded" / "organisms.tar.xz"


@pytest.mark.slow
def test_runs_are_trained_judged_packed_and_judged_again_alike(tmp_path, capsys, monkeypatch):
    out, archive = tmp_path / "runs", tmp_path / "runs.tar.xz"
    families = ["--family", "colored_digits", "--family", "untrained"]
    assert main(["bench", "--quick", *families, "--out", str(out), "--pack", str(archive)]) == 0
    text = capsys.readouterr().out
    looks = {
        kind: json.loads((out / f"colored_digits-{kind}-0" / "oracle.json").read_text())["looks"] for kind in KINDS
    }
    assert looks["strong"][-1]["shifted"]["digit"] < 0.3 < looks["strong"][-1]["shifted"]["color"]
    assert looks["clean"][-1]["shifted"]["digit"] > 0.8
    assert looks["incapable"][-1]["capability"] < 0.3
    (row,) = [line for line in text.splitlines() if line.startswith("| colored_digits")]
    assert "| 1, 1, 1, 0 |" in row
    assert "| untrained | convolutions; nothing | 1 |" in text
    assert main(["bench", "--judge", str(archive)]) == 0
    assert capsys.readouterr().out == text


KINDS = ("strong", "clean", "incapable")


def test_an_unknown_family_and_an_empty_folder_are_refused(tmp_path, capsys):
    assert main(["bench", "--family", "digits", "--out", str(tmp_path)]) == 2
    assert next(iter(FAMILIES)) in capsys.readouterr().err
    assert main(["bench", "--judge", str(tmp_path)]) == 2
    assert "holds no recorded runs" in capsys.readouterr().err


@pytest.mark.slow
def test_networks_in_mazes_can_be_judged_alone(tmp_path, capsys):
    with tarfile.open(ARCHIVE) as archive:
        members = [one for one in archive.getmembers() if one.name.startswith("planner-search-0")]
        archive.extractall(tmp_path, members, filter="data")
    assert main(["bench", "--judge", str(tmp_path)]) == 0
    assert "Rung 3 or above at the last look: 1 of 1 searchers" in capsys.readouterr().out


def test_area_counts_ties_by_half():
    assert area([1.0, 2.0], [0.0, 1.0]) == f"{(1 + 0.5 + 1 + 1) / 4:.3f}"
    assert area([], [1.0]) == "-"
