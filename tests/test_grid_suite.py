"""The monitor's verdict on policies whose objective is known: benchmarks/grid_suite.py, one seed of each kind."""

import pytest

pytest.importorskip("pytorch_lightning", reason="the example is written for pytorch_lightning")

from grid_suite import run_one
from grid_world import KINDS


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_the_verdict_is_definite_and_right(kind: str):
    run = run_one(kind, seed=100)
    assert run.call == "right", f"{run.says}: {run.verdict.reason}"
    assert run.value("training", "behavioral", "coin") is None
