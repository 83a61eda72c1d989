"""Three scripts as their authors write them, watched by the environment variable, and not a line changed."""

import csv
import shutil
from pathlib import Path

import pytest
import torch

import forks
from lightning_mesa import read_journal
from namespace import INSTALLED

EXAMPLES = Path(__file__).parents[2] / "examples" / "attach"

SCRIPTS = {
    "plain": ("pytorch_lightning", ["train.py"], "shifts"),
    "lightning_cli": ("lightning.pytorch", ["main.py", "fit", "--config", "config.yaml"], ""),
    "hydra": ("pytorch_lightning", ["train.py"], ""),
}


def run(folder, name, watch):
    """Run a script in a copy of its folder; returns its output."""
    namespace, command, allow = SCRIPTS[name]
    if namespace not in INSTALLED:
        pytest.skip(f"{namespace} is not installed")
    for needed in {"lightning_cli": ["jsonargparse"], "hydra": ["hydra"], "plain": []}[name]:
        pytest.importorskip(needed)
    shutil.copytree(EXAMPLES / name, folder)
    environment = {"LIGHTNING_MESA_CONFIG": str(folder / "mesa.yaml"), "LIGHTNING_MESA_ALLOW": allow}
    done = forks.script(folder / command[0], *command[1:], **(environment if watch else dict.fromkeys(environment)))
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout + done.stderr


def users_rows(folder):
    """What the script itself has logged."""
    (path,) = folder.rglob("metrics.csv")
    with path.open() as file:
        rows = [{k: v for k, v in row.items() if not k.startswith("mesa/") and v} for row in csv.DictReader(file)]
    return [row for row in rows if set(row) - {"step", "epoch"}]


@pytest.mark.slow
@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_is_watched_and_trains_as_without_us(tmp_path, name):
    said = run(tmp_path / "on", name, watch=True)
    run(tmp_path / "off", name, watch=False)
    assert users_rows(tmp_path / "on") == users_rows(tmp_path / "off")
    assert not list((tmp_path / "off").rglob("findings.jsonl"))
    (journal,) = (tmp_path / "on").rglob("findings.jsonl")
    findings = read_journal(journal)
    assert len({f["step"] for f in findings}) >= 3
    assert "mesa (fit) at step" in said
    if name == "plain":
        on, off = (torch.load(tmp_path / run / "model.pt", weights_only=True) for run in ("on", "off"))
        assert all(torch.equal(on[key], off[key]) for key in off)
        assert "base_lost" in said
    if name == "hydra":
        assert "pseudo-aligned (paper)" in said
