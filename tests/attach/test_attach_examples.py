"""Scripts as their authors write them, watched by the environment variable, and not a line changed."""

import ast
import csv
import json
import re
import shutil
from pathlib import Path

import pytest
import torch

import forks
from lightning_mesa import read_journal
from namespace import INSTALLED

EXAMPLES = Path(__file__).parents[2] / "examples" / "attach"

DOCS = Path(__file__).parents[2] / "docs" / "attach.md"

SCRIPTS = {
    "plain": ("pytorch_lightning", ["train.py"], "shifts"),
    "lightning_cli": ("lightning.pytorch", ["main.py", "fit", "--config", "config.yaml"], ""),
    "hydra": ("pytorch_lightning", ["train.py"], ""),
}
NEEDED = {"lightning_cli": "jsonargparse", "hydra": "hydra", "plateau": "hydra", "policy_gradient": "gymnasium"}
PROJECTS = {  # what is raised, and for which proxy
    "plateau": ("proxy_pursued", "tray"),
    "waterbirds": ("proxy_pursued", "place"),
    "policy_gradient": ("proxy_pursued", "lamp"),
    "transformers": ("proxy_pursued", "hashtag"),
    "graph": ("proxy_pursued", "large"),
    "segmentation": ("objective_lost", None),  # scores prescribe no choices, so no proxy is named
    "forecasting": ("objective_lost", None),
}
SCRIPTS |= dict.fromkeys(PROJECTS, ("pytorch_lightning", ["train.py"], "shifts,train"))


def run(folder, name, watch):
    """Run a script in a copy of its folder; returns its output."""
    namespace, command, allow = SCRIPTS[name]
    if namespace not in INSTALLED:
        pytest.skip(f"{namespace} is not installed")
    pytest.importorskip(NEEDED.get(name, "torch"))
    shutil.copytree(EXAMPLES / name, folder)
    with (folder / "mesa.yaml").open("a", encoding="utf-8") as config:
        config.write("max_overhead: null\n")  # else the clock decides which looks are taken
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
@pytest.mark.parametrize("name", [name for name in SCRIPTS if name not in PROJECTS])
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


@pytest.mark.slow
@pytest.mark.parametrize("name", PROJECTS)
def test_a_project_trains_bitwise_as_without_us_and_its_shortcut_is_seen(tmp_path, name):
    said = run(tmp_path / "on", name, watch=True)
    run(tmp_path / "off", name, watch=False)
    assert users_rows(tmp_path / "on") == users_rows(tmp_path / "off")
    on, off = (torch.load(next((tmp_path / of).rglob("model.pt")), weights_only=True) for of in ("on", "off"))
    assert all(torch.equal(on[key], off[key]) for key in off)
    (path,) = (tmp_path / "on").rglob("alerts.jsonl")
    alerts = [json.loads(line) for line in path.read_text().splitlines()]
    assert PROJECTS[name] in {(alert["signature"], alert["proxy"]) for alert in alerts}, said[-3000:]


def lines_of(path):
    """Lines that a user writes: neither blank, nor comments, nor the docstring."""
    text = path.read_text()
    if path.suffix == ".py":
        text = text.replace(f'"""{ast.get_docstring(ast.parse(text))}"""', "")
    return sum(1 for line in text.splitlines() if line.strip() and not line.strip().startswith("#"))


@pytest.mark.parametrize("name", PROJECTS)
def test_the_docs_count_the_lines_that_a_user_writes(name):
    (row,) = re.findall(rf"^\| \[{name}\]\(.*$", DOCS.read_text(), re.MULTILINE)
    counted = [int(cell) for cell in row.split("|") if cell.strip().isdigit()]
    assert counted == [lines_of(EXAMPLES / name / file) for file in ("mesa.yaml", "shifts.py")]
