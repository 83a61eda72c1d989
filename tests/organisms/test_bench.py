import json

import pytest

from lightning_mesa.cli import main
from lightning_mesa.organisms import FAMILIES
from lightning_mesa.organisms.tables import area


@pytest.mark.slow
def test_runs_are_trained_judged_packed_and_judged_again_alike(tmp_path, capsys, monkeypatch):
    out, archive = tmp_path / "runs", tmp_path / "runs.tar.xz"
    assert main(["bench", "--quick", "--family", "colored_digits", "--out", str(out), "--pack", str(archive)]) == 0
    text = capsys.readouterr().out
    looks = {
        kind: json.loads((out / f"colored_digits-{kind}-0" / "oracle.json").read_text())["looks"] for kind in KINDS
    }
    assert looks["strong"][-1]["shifted"]["digit"] < 0.3 < looks["strong"][-1]["shifted"]["color"]
    assert looks["clean"][-1]["shifted"]["digit"] > 0.8
    assert looks["incapable"][-1]["capability"] < 0.3
    (row,) = [line for line in text.splitlines() if line.startswith("| colored_digits")]
    assert "| 1, 1, 1, 0 |" in row
    assert main(["bench", "--judge", str(archive)]) == 0
    assert capsys.readouterr().out == text


KINDS = ("strong", "clean", "incapable")


def test_an_unknown_family_and_an_empty_folder_are_refused(tmp_path, capsys):
    assert main(["bench", "--family", "digits", "--out", str(tmp_path)]) == 2
    assert next(iter(FAMILIES)) in capsys.readouterr().err
    assert main(["bench", "--judge", str(tmp_path)]) == 2
    assert "holds no recorded runs" in capsys.readouterr().err


def test_area_counts_ties_by_half():
    assert area([1.0, 2.0], [0.0, 1.0]) == (1 + 0.5 + 1 + 1) / 4
    assert area([], [1.0]) is None
