import math

import pytest
import torch
from scipy.stats import binom
from scipy.stats import t as student

from lightning_mesa.irl.averages import Average, mean, ratio, summed

VALUES = torch.tensor([1.0, 2, 4, 9], dtype=torch.float64)


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


@pytest.mark.parametrize("level", [0.5, 0.95])
def test_the_limits_of_a_mean_are_those_of_student(level):
    low, high = student.interval(level, df=3, loc=4, scale=float(VALUES.std()) / 2)
    found = mean(VALUES, level=level)
    assert (found.value, found.low, found.high) == pytest.approx((4, low, high))


def test_a_ratio_agrees_with_the_delta_method_by_hand():
    """16 / 8 = 2: residuals are -1, 0, 0 and 1, their standard error sqrt(2 * 4 / 3) / 8."""
    below = torch.tensor([1.0, 1, 2, 4])
    found = ratio(VALUES, below)
    assert found.value == pytest.approx(2)
    assert found.high - 2 == pytest.approx(student.ppf(0.975, 3) * math.sqrt(8 / 3) / 8)
    assert found.high - 2 == pytest.approx(2 - found.low)


def test_a_mean_is_a_ratio_to_the_number_of_items():
    """Also with clusters of several sizes, which count by their items."""
    values, clusters = torch.randn(50), torch.randint(12, (50,))
    assert mean(values, clusters=clusters) == ratio(values, torch.ones(50), clusters=clusters)
    assert mean(values, clusters=clusters).value == pytest.approx(float(values.mean()), rel=1e-6)


def test_copies_in_one_cluster_count_once():
    values = torch.randn(40, dtype=torch.float64)
    once, twice = mean(values), mean(values.repeat(2), clusters=torch.arange(40).repeat(2))
    assert (twice.value, twice.low, twice.high) == pytest.approx((once.value, once.low, once.high))
    alone = mean(values.repeat(2))
    assert alone.high - alone.low < 0.75 * (once.high - once.low)


@pytest.mark.parametrize("clustered", [False, True])
def test_limits_cover_a_ratio(clustered):
    """The true ratio of 2 in 95 of 100 samples, where what is divided by varies, too."""
    runs, hits = 500, 0
    for _ in range(runs):
        together = 0.5 * torch.randn(30, 1).expand(30, 4)
        below = 1 + torch.rand(30, 4)
        above = 2 * below + together + torch.randn(30, 4)
        clusters = torch.arange(30).repeat_interleave(4) if clustered else None
        if not clustered:
            below, above = below[:, 0], above[:, 0]
        found = ratio(above.flatten(), below.flatten(), clusters=clusters)
        hits += found.low <= 2 <= found.high
    assert binom.ppf(0.002, runs, 0.95) <= hits <= binom.ppf(0.998, runs, 0.95)


@pytest.mark.parametrize("values", [torch.zeros(0), torch.ones(1), torch.ones(3)])
def test_too_few_items_have_limits_without_end(values):
    """A single one has a value, but nothing to judge it by; nor has a single cluster."""
    found = mean(values, clusters=torch.zeros(len(values)))
    assert (found.low, found.high) == (-math.inf, math.inf)
    assert math.isnan(found.value) if not len(values) else found.value == 1


def test_a_ratio_to_nothing_is_none():
    found = ratio(VALUES, torch.tensor([1.0, -1, 2, -2]))
    assert math.isnan(found.value)
    assert (found.low, found.high) == (-math.inf, math.inf)


def test_what_is_impossible_is_cut_off():
    assert Average(0.5, -0.2, 1.3).clamped(0, 1) == Average(0.5, 0, 1)
    assert Average(-0.1, -0.2, 0.3).clamped(0, 1) == Average(0, 0, 0.3)
    nothing = Average(math.nan, -math.inf, math.inf).clamped(0, 1)
    assert math.isnan(nothing.value)
    assert (nothing.low, nothing.high) == (0, 1)


def test_sums_within_clusters_are_in_the_order_of_their_labels():
    """Labels may be any numbers, and values have more dimensions."""
    labels, values = torch.tensor([7, -3, 7, 100]), torch.arange(8.0).reshape(4, 2)
    assert summed(labels, values).tolist() == [[2, 3], [4, 6], [6, 7]]
    assert summed(labels[:0], values[:0]).shape == (0, 2)
