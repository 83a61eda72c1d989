"""The example of regression in context, in small: it trains, is probed at every look, and says what was found."""

import pytest

pytest.importorskip("pytorch_lightning", reason="the example is written for pytorch_lightning")

from in_context_regression import RUNS, train, verdict
from lightning_mesa import read_journal


@pytest.mark.parametrize("run", RUNS)
def test_a_learner_is_compared_with_solvers_while_it_trains(run, tmp_path):
    trainer, _, _ = train(run, 0, 1, tmp_path, problems=512, progress=False)
    journal = next(tmp_path.rglob("findings.jsonl"))
    found = [finding for finding in read_journal(journal) if finding["measure"] == "solver_match"]
    assert len({finding["step"] for finding in found}) >= 2
    assert all(finding["detail"]["rung"] == 4 for finding in found)
    assert "nearest to" in verdict(trainer)
    assert "does NOT match" in verdict(trainer)
