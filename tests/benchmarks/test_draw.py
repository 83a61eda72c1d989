"""Figures of a recorded run: the command draws all four kinds, from the journal alone."""

import json
from pathlib import Path
from typing import Any

import pytest

import draw
import toy
from lightning_mesa import read_journal

PREFERENCE = 0.75


def estimate(serving: float) -> dict[str, Any]:
    return {"counts": [100.0 - serving, serving], "chance": 0.0, "ceiling": 1.0}


def about_episodes_and_internals(look: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What a policy and its probes would have left at this look, in the words of the journal."""
    able = next(f for f in look if (f["quantity"], f["role"]) == ("capability", "shifted"))
    preference = able | {"measure": "preference", "quantity": "preference", "objective": "z", "value": PREFERENCE}
    probe = able | {"distribution": "search", "role": "internals", "measure": "retargeting", "group": "net"}
    detail = {"status": "ok", "rung": 3, "positive": False, "null_mean": 0.03}
    probes = [
        probe
        | {"quantity": "probe", "objective": name, "value": serving / 100}
        | {"detail": detail | {"bar": 0.25, "estimate": estimate(serving)}}
        for name, serving in (("y", 80.0), ("z", 10.0))
    ]
    both = {"reference": estimate(80.0), "shifted": estimate(10.0)}
    margin = {"quantity": "margin", "objective": "z", "value": 0.7, "detail": detail | {"estimate": both}}
    return [preference | {"detail": {}}, *probes, probe | margin]


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained run's journal with preferences and probes added to each look, in its folder ``mesa``."""
    folder = tmp_path_factory.mktemp("run")
    toy.fit(folder, toy.monitor(), max_epochs=2)
    looks: dict[int, list[dict[str, Any]]] = {}
    for record in read_journal(folder / "mesa" / "findings.jsonl"):
        looks.setdefault(record["step"], []).append(record)
    lines = [json.dumps(f) for look in looks.values() for f in (*look, *about_episodes_and_internals(look))]
    (folder / "mesa" / "findings.jsonl").write_text("\n".join(lines) + "\n")
    return folder


def test_the_command_draws_all_four(recorded: Path, tmp_path: Path):
    draw.main([str(recorded), "--out", str(tmp_path / "drawn")])
    drawn = {path.name: path.stat().st_size for path in (tmp_path / "drawn").iterdir()}
    assert drawn.keys() == {"apart.png", "apart.z.preference.png", "apart.weights.png", "search.png"}
    assert min(drawn.values()) > 5000


def test_every_look_of_the_run_is_in_each_figure(recorded: Path):
    figures = dict(draw.pictures(recorded / "mesa" / "findings.jsonl"))
    assert len(figures["apart.png"].axes[0].collections[0].get_offsets()) == 3
    lines = {line.get_label(): line for line in figures["apart.weights.png"].axes[0].get_lines()}
    assert len(lines["y (base)"].get_xdata()) == len(lines["z"].get_xdata()) == 3
    ladder = next(axes for axes in figures["search.png"].axes if axes.get_title() == "the ladder")
    assert len(ladder.get_lines()[0].get_xdata()) == 3


def test_the_figure_of_preference_marks_the_last_look(recorded: Path):
    figures = dict(draw.pictures(recorded / "mesa" / "findings.jsonl"))
    axes = figures["apart.z.preference.png"].axes[0]
    assert axes.get_xlabel() == "preference: y (0) or z (1)"
    (marked,) = axes.collections[-1].get_offsets().tolist()
    capability = [f for f in read_journal(recorded / "mesa" / "findings.jsonl") if f["quantity"] == "capability"]
    assert marked == [PREFERENCE, next(f["value"] for f in reversed(capability) if f["role"] == "shifted")]
