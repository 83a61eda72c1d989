import math

import pytest
import torch

from lightning_mesa.evidence.sequential import SpendingTest, holm


@pytest.mark.parametrize("looks", [None, 1, 7])
def test_the_levels_of_all_looks_add_up_to_at_most_alpha(looks):
    test = SpendingTest(0.05, looks)
    assert sum(test.weight(t) for t in range(1, 10_001)) <= 1 + 1e-12


def test_nothing_is_spent_after_the_planned_looks():
    test = SpendingTest(0.05, looks=2)
    assert [test.spend(0.01).crossed for _ in range(3)] == [True, True, False]


def test_a_decision_compares_the_evidence_with_the_level_of_its_look():
    decision = SpendingTest(0.05, looks=10).spend(0.004)
    assert decision.crossed
    assert decision.look == 1
    assert decision.log_evidence == pytest.approx(-math.log(0.004))
    assert decision.threshold == pytest.approx(-math.log(0.005))


def test_state_is_plain_and_goes_on_where_it_was():
    first, second = SpendingTest(0.05), SpendingTest(0.05)
    first.spend(0.5)
    second.load_state_dict(first.state_dict())
    assert second.spend(0.01).threshold == first.spend(0.01).threshold


def test_looking_at_every_look_does_not_raise_the_level():
    """P-values of one set of items at 20 looks, dependent: at most 5 % of null runs are rejected."""
    torch.manual_seed(0)
    runs, rejected = 2000, 0
    for _ in range(runs):
        steady = torch.randn(())
        test = SpendingTest(0.05, looks=20)
        scores = [0.9 * float(steady) + math.sqrt(1 - 0.81) * float(torch.randn(())) for _ in range(20)]
        rejected += any(test.spend(0.5 * math.erfc(z / math.sqrt(2))).crossed for z in scores)
    assert rejected <= 0.06 * runs


def test_holm_adjusts_as_published():
    """Worked by hand: p = .01, .04, .03 gives .03, .06, .06 (Holm 1979)."""
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([]) == []
    assert holm([0.7, 0.6]) == [1.0, 1.0]
