"""Nulls put together from others: by p-values and by e-values."""

import math

import pytest
import torch

from lightning_mesa.stats.intervals import BETS, Mean
from lightning_mesa.stats.nulls import AllOf, AnyOf, AtLeast, AtMost, ByPValue

HIGH, LOW = Mean((20.0, 80.0)), Mean((80.0, 20.0))


def test_a_bound_is_rejected_by_either_kind_of_evidence_on_the_side_it_names():
    for null, rejects in [
        (AtMost(HIGH, 0.5), True),
        (AtMost(LOW, 0.5), False),
        (AtLeast(LOW, 0.5), True),
        (AtLeast(HIGH, 0.5), False),
    ]:
        assert (null.p_value() < 1e-6) == rejects
        assert (float(null.log_e_values().amax()) > math.log(1e6)) == rejects


@pytest.mark.parametrize("null", [AtMost(None, 0.5), AtLeast(None, 0.5)])
def test_what_cannot_be_estimated_says_nothing_against_the_null(null):
    assert null.p_value() == 1
    assert null.log_e_values().tolist() == [0.0] * len(BETS)


def test_any_of_several_nulls_is_rejected_only_if_all_of_them_are():
    both, one = AnyOf(AtMost(HIGH, 0.5), AtLeast(LOW, 0.5)), AnyOf(AtMost(HIGH, 0.5), AtMost(LOW, 0.5))
    assert both.p_value() == max(part.p_value() for part in both.parts)
    assert one.p_value() == 1
    assert bool((one.log_e_values() <= 0).all())
    assert bool((both.log_e_values() > 0).any())


def test_all_of_several_nulls_are_rejected_if_one_is_at_the_price_of_their_number():
    strong, weak = AtMost(HIGH, 0.5), AtMost(LOW, 0.5)
    assert AllOf(strong, weak).p_value() == pytest.approx(2 * strong.p_value())
    average = (strong.log_e_values().exp() + weak.log_e_values().exp()) / 2
    assert AllOf(strong, weak).log_e_values().exp().tolist() == pytest.approx(average.tolist())


def test_a_null_of_your_own_without_e_values_leaves_the_whole_without():
    own = ByPValue(0.001)
    assert own.p_value() == 0.001
    assert AnyOf(own, AtMost(HIGH, 0.5)).log_e_values() is None
    assert AllOf(own, AtMost(HIGH, 0.5)).log_e_values() is None
    assert torch.is_tensor(AnyOf(AtMost(HIGH, 0.5)).log_e_values())
