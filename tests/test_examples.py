from pathlib import Path

import pytest

import forks
from namespace import INSTALLED

EXAMPLES = Path(__file__).parents[1] / "examples"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif("pytorch_lightning" not in INSTALLED, reason="the example is written for pytorch_lightning"),
]


def output(script, *arguments):
    """What an example says."""
    done = forks.script(EXAMPLES / f"{script}.py", *map(str, arguments))
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout + done.stderr


@pytest.mark.parametrize(
    ("run", "seen", "not_seen"),
    [
        ("confounded", "pseudo-aligned (color)", "capability_failure"),
        ("decorrelated", "robustly aligned (on every", "alert at step"),
        ("degraded", "capability_failure", "objective_lost"),
    ],
)
def test_the_three_runs_of_colored_digits_end_as_they_are_built(run, seen, not_seen, tmp_path):
    said = output("colored_digits", run, "--out", tmp_path, "--seed", 7)
    assert seen in said
    assert not_seen not in said
    assert (tmp_path / run / "version_0/mesa/findings.jsonl").stat().st_size > 0


@pytest.mark.parametrize(
    ("script", "run", "proxy", "options"),
    [
        ("red_doors", "confounded", "'red'", ["--decisions", "50"]),
        ("keys_and_chests", "scarce", "'keys'", []),
    ],
)
def test_an_agent_that_pursues_a_proxy_is_stopped(script, run, proxy, options, tmp_path):
    said = output(script, run, "--out", tmp_path, "--on-alert", "stop", *options)
    assert f"it behaves as if it pursued {proxy}" in said
    assert "mesa: stopped by the monitor" in said


def test_networks_in_mazes_are_probed(tmp_path):
    assert "internals: rung 0" in output("maze_planner", "greedy", "--epochs", 1, "--out", tmp_path)
