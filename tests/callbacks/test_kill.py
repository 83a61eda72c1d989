"""A run that is killed at any moment and resumed tells the same story as one that is not."""

import json
import random
import time

import pytest

import toy
from killing import in_a_child, killed_run, story
from lightning_mesa import MesaWarning
from namespace import ModelCheckpoint


@pytest.mark.slow
def test_killed_at_random_moments_and_resumed_a_run_gives_the_same_alerts_once(tmp_path):
    """The full count of kills is in benchmarks/kill.py."""
    started = time.perf_counter()
    in_a_child(tmp_path / "whole", None)
    longest = time.perf_counter() - started
    expected = story(tmp_path / "whole")
    assert expected[0]
    draw, killed, torn = random.Random(0), 0, 0
    for i in range(3):
        folder = tmp_path / str(i)
        killed += killed_run(folder, 3, 0.8 * longest, draw)
        alerts, findings = story(folder)
        assert alerts == expected[0]
        differing = [key for key in expected[1] if findings.get(key) != expected[1][key]]
        assert not differing
        assert findings.keys() == expected[1].keys()
        for file in ("alerts.jsonl", "findings.jsonl"):
            lines = (folder / "log/mesa" / file).read_text().splitlines()
            torn += sum(not _is_json(line) for line in lines)
    assert killed >= 5
    assert torn <= killed


def _is_json(line: str) -> bool:
    try:
        json.loads(line)
    except ValueError:
        return False
    return True


def test_memory_that_is_lost_is_noticed_and_said(tmp_path):
    """A checkpoint without the monitor's state: the guarantee starts anew, and alerts say from where."""
    checkpoints = ModelCheckpoint(tmp_path, save_last=True)
    toy.fit(tmp_path, checkpoints, max_epochs=1, enable_checkpointing=True)
    mesa = toy.monitor()
    with pytest.warns(MesaWarning, match="no memory of the looks before step 8.*starts anew"):
        toy.fit(tmp_path, mesa, max_epochs=15, ckpt_path=tmp_path / "last.ckpt")
    assert mesa.alerts
    assert "counted from step 8 on" in mesa.alerts[0].procedure
