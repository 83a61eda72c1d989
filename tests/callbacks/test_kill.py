"""A run that is killed at any moment and resumed tells the same story as one that is not."""

import random
from functools import partial

import pytest

import toy
from killing import in_a_child, kill_within_a_finding, killed_run, story, whole_run
from lightning_mesa import MesaWarning
from namespace import ModelCheckpoint


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The length of a run that nothing kills, and its story."""
    folder = tmp_path_factory.mktemp("whole")
    length = whole_run(folder)
    alerts, findings, torn = story(folder)
    assert alerts
    assert torn == 0
    return length, alerts, findings


def assert_same(folder, whole, torn):
    alerts, findings, found_torn = story(folder)
    _, expected_alerts, expected_findings = whole
    assert alerts == expected_alerts
    assert findings.keys() == expected_findings.keys()
    assert not [key for key in expected_findings if findings[key] != expected_findings[key]]
    assert found_torn in torn


def test_killed_within_a_line_of_the_journal_and_resumed_a_run_gives_the_same_alerts_once(tmp_path, whole):
    """Past the first checkpoint; the torn line is reported, left out, and written again."""
    middle = len(whole[2]) // 2
    assert in_a_child(tmp_path, partial(kill_within_a_finding, number=middle))
    assert not in_a_child(tmp_path)
    assert_same(tmp_path, whole, torn={1})


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_killed_at_random_moments_and_resumed_a_run_gives_the_same_alerts_once(tmp_path, whole, seed):
    """The full count of kills is in benchmarks/kill.py."""
    killed = killed_run(tmp_path, 3, 0.8 * whole[0], random.Random(seed))
    assert killed >= 2
    assert_same(tmp_path, whole, torn=range(killed + 1))


@pytest.mark.slow
def test_memory_that_is_lost_is_noticed_and_said(tmp_path):
    """A checkpoint without the monitor's state: the guarantee starts anew, and alerts say from where."""
    checkpoints = ModelCheckpoint(tmp_path, save_last=True)
    toy.fit(tmp_path, checkpoints, max_epochs=1, enable_checkpointing=True)
    mesa = toy.monitor()
    with pytest.warns(MesaWarning, match="no memory of the looks before step 8.*starts anew"):
        toy.fit(tmp_path, mesa, max_epochs=15, ckpt_path=tmp_path / "last.ckpt")
    assert mesa.alerts
    assert "counted from step 8 on" in mesa.alerts[0].procedure
