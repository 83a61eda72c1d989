import os
import subprocess
import sys
from pathlib import Path

import pytest

from namespace import INSTALLED

ROOT = Path(__file__).parents[1]
# Other tests run beside: threads that wait for a core of their own cost more than they give.
ALONE = os.environ | {"OMP_NUM_THREADS": "1"}


@pytest.mark.slow
@pytest.mark.skipif("pytorch_lightning" not in INSTALLED, reason="the example is written for pytorch_lightning")
@pytest.mark.parametrize(
    ("run", "seen", "not_seen"),
    [
        ("confounded", "pseudo-aligned (color)", "capability_failure"),
        ("decorrelated", "robustly aligned (on every", "alert at step"),
        ("degraded", "capability_failure", "objective_lost"),
    ],
)
def test_the_three_runs_of_colored_digits_end_as_they_are_built(run, seen, not_seen, tmp_path):
    command = [sys.executable, ROOT / "examples/colored_digits.py", run, "--out", tmp_path, "--seed", "7"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=ALONE)
    output = done.stdout + done.stderr
    assert seen in output
    assert not_seen not in output
    assert (tmp_path / run / "version_0/mesa/findings.jsonl").stat().st_size > 0


@pytest.mark.slow
@pytest.mark.skipif("pytorch_lightning" not in INSTALLED, reason="the example is written for pytorch_lightning")
@pytest.mark.parametrize(
    ("script", "run", "proxy", "options"),
    [
        ("red_doors", "confounded", "'red'", ["--decisions", "50"]),
        ("keys_and_chests", "scarce", "'keys'", []),
    ],
)
def test_an_agent_that_pursues_a_proxy_is_stopped(script, run, proxy, options, tmp_path):
    command = [sys.executable, ROOT / f"examples/{script}.py", run, "--out", tmp_path, "--on-alert", "stop", *options]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=ALONE)
    output = done.stdout + done.stderr
    assert f"it behaves as if it pursued {proxy}" in output
    assert "mesa stops this run" in output


@pytest.mark.slow
@pytest.mark.skipif("pytorch_lightning" not in INSTALLED, reason="the example is written for pytorch_lightning")
def test_networks_in_mazes_are_probed(tmp_path):
    command = [sys.executable, ROOT / "examples/maze_planner.py", "greedy", "--epochs", "1", "--out", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=ALONE)
    assert "internals: rung 0" in done.stdout + done.stderr
