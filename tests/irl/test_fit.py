"""What an estimate says, and in which words it says what it cannot."""

import math
from typing import Any

import pytest
import torch
from scipy.stats import t as student
from torch import Tensor

from lightning_mesa.irl.conditional_logit import fit_conditional_logit
from lightning_mesa.irl.fit import ENOUGH, ObjectiveFit, in_words, informative, names_of

NAMES = ("coin", "door")


def _fit(*, items: int = 100, **changes: Any) -> ObjectiveFit:
    """Weights 3 and 4 from items that all say the same."""
    units = torch.eye(2, dtype=torch.float64).expand(items, 2, 2) / items
    given = {
        "names": NAMES,
        "solution": torch.tensor([3.0, 4.0], dtype=torch.float64),
        "bread": torch.eye(2, dtype=torch.float64),
        "covariance": torch.tensor([[0.04, 0.01], [0.01, 0.09]], dtype=torch.float64),
        "basis": torch.eye(2, dtype=torch.float64),
        "units": units,
        "log_likelihood": -1.0,
        "references": {},
    }
    return ObjectiveFit(**(given | changes))


def _basis(*direction: float) -> Tensor:
    return torch.nn.functional.normalize(torch.tensor([direction], dtype=torch.float64)).T


# Scale and direction


def test_scale_and_direction_are_the_length_of_the_weights_and_where_they_point():
    fit = _fit()
    assert fit.scale == pytest.approx(5)
    assert fit.direction.tolist() == pytest.approx([0.6, 0.8])
    assert fit.weights.tolist() == [3, 4]


def test_choices_at_random_have_no_direction():
    fit = _fit(solution=torch.zeros(2, dtype=torch.float64))
    assert (fit.scale, fit.direction.tolist()) == (0, [0, 0])


def test_deterministic_choices_have_an_infinite_scale_and_no_number_but_a_direction():
    fit = _fit(converged=False)
    assert fit.scale == math.inf
    assert fit.direction.tolist() == pytest.approx([0.6, 0.8])
    assert fit.weights.isnan().all()
    assert fit.interval([1.0, 0.0]) == (-math.inf, math.inf)
    assert fit.unidentified == ("every weight: choices are deterministic, so no finite weight is the best",)


def test_the_direction_of_the_same_goal_pursued_more_or_less_consistently_is_the_same():
    torch.manual_seed(0)
    features = torch.randn(200, 4, 3, dtype=torch.float64)
    goal = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    fits = [fit_conditional_logit(features, (beta * features @ goal).softmax(1)) for beta in (0.1, 1.0)]
    torch.testing.assert_close(fits[0].direction, fits[1].direction, rtol=0, atol=1e-8)
    assert fits[1].scale == pytest.approx(10 * fits[0].scale)


# Intervals


@pytest.mark.parametrize("level", [0.5, 0.9, 0.95, 0.999])
@pytest.mark.parametrize(("contrast", "variance"), [([1.0, 0], 0.04), ([0, 1.0], 0.09), ([-1.0, 1.0], 0.11)])
def test_an_interval_is_that_of_student(contrast, variance, level):
    """With one degree of freedom less than effective items, about the estimate."""
    fit = _fit(items=50)
    center = contrast[0] * 3 + contrast[1] * 4
    expected = student.interval(level, df=49, loc=center, scale=math.sqrt(variance))
    assert fit.interval(contrast, level) == pytest.approx(expected)
    assert fit.estimate(contrast) == pytest.approx(center)


def test_a_higher_level_is_wider():
    widths = [high - low for low, high in (_fit().interval([1.0, 1.0], level) for level in (0.5, 0.9, 0.99))]
    assert widths == sorted(widths)


def test_contrasts_may_be_lists_or_tensors_of_any_precision():
    fit = _fit()
    assert fit.interval([-1, 1]) == fit.interval(torch.tensor([-1.0, 1.0])) == fit.interval(torch.tensor([-1, 1]))


def test_where_nothing_was_sampled_an_interval_is_a_point():
    fit = _fit(covariance=None, units=None)
    assert fit.interval([-1.0, 1.0]) == (1, 1)
    assert fit.effective([-1.0, 1.0]) == math.inf
    assert fit.identified


# What is identified


@pytest.mark.parametrize(("items", "enough"), [(29, False), (30, True), (41, True)])
def test_thirty_effective_items_are_enough(items, enough):
    fit = _fit(items=items)
    assert fit.effective([1.0, 0.0]) == pytest.approx(items)
    assert fit.identified == enough
    assert bool(fit.weights.isnan().any()) != enough
    if not enough:
        assert fit.unidentified == (
            "coin against door: rests on 29 effective items, 30 are needed",
            "coin: rests on 29 effective items, 30 are needed",
            "door: rests on 29 effective items, 30 are needed",
        )


def test_effective_items_are_those_of_a_contrast_alone():
    """100 items tell about the coin, and 5 of them about the door: the door and the difference are too few."""
    units = torch.zeros(100, 2, 2, dtype=torch.float64)
    units[:, 0, 0], units[:5, 1, 1] = 0.01, 0.2
    fit = _fit(units=units)
    assert fit.effective([1.0, 0.0]) == pytest.approx(100)
    assert fit.effective([0.0, 1.0]) == pytest.approx(5)
    assert fit.effective([1.0, -1.0]) == pytest.approx(4 / (5 * 0.21**2 + 95 * 0.01**2))
    assert [fit.identifies(contrast) for contrast in ([1.0, 0], [0, 1.0], [1.0, -1.0])] == [True, False, False]
    assert fit.weights.isnan().tolist() == [False, True]
    assert not fit.identified
    assert fit.unidentified == (
        "coin against door: rests on 17 effective items, 30 are needed",
        "door: rests on 5 effective items, 30 are needed",
    )


def test_almost_enough_is_not_said_to_be_enough():
    """29.97 effective items are 29 in words, as 30 would do."""
    units = torch.eye(1, dtype=torch.float64).expand(30, 1, 1).clone()
    units[0] = 1.18
    fit = _fit(
        names=("coin",),
        solution=torch.ones(1, dtype=torch.float64),
        bread=torch.eye(1, dtype=torch.float64),
        covariance=torch.eye(1, dtype=torch.float64),
        basis=torch.eye(1, dtype=torch.float64),
        units=units,
    )
    assert 29.95 < fit.effective([1.0]) < 30
    assert fit.unidentified == ("coin: rests on 29 effective items, 30 are needed",)


def test_the_length_of_a_contrast_does_not_matter_to_what_is_identified():
    fit = _fit(basis=_basis(1, 1))
    for size in (1e-9, 1.0, 1e9):
        assert fit.identifies([size, size])
        assert not fit.identifies([size, 0.0])


def test_where_only_a_sum_is_told_neither_weight_nor_difference_is():
    """However small their standard error."""
    fit = _fit(basis=_basis(1, 1))
    assert fit.estimate([1.0, 1.0]) == pytest.approx(7)
    assert fit.interval([1.0, 1.0])[0] > 5
    for contrast in ([1.0, 0], [0, 1.0], [1.0, -1.0], [1.0, 0.99]):
        assert fit.effective(contrast) == 0
        assert math.isnan(fit.estimate(contrast))
        assert fit.interval(contrast) == (-math.inf, math.inf)
    assert fit.weights.isnan().all()
    assert fit.unidentified == ("coin against door: no choice tells",)


def test_where_nothing_differs_every_feature_is_named():
    fit = _fit(basis=torch.zeros(2, 0, dtype=torch.float64), solution=torch.zeros(2, dtype=torch.float64))
    assert fit.unidentified == ("coin: no choice tells", "door: no choice tells")


@pytest.mark.parametrize(
    ("direction", "words"),
    [
        ([1.0, -1.0, 0.0], "a against b"),
        ([-1.0, 1.0, 0.0], "a against b"),
        ([1.0, -1.0 - 1e-9, 0.0], "a against b"),
        ([1e-8, 0.0, -3.0], "c"),
        ([0.7, 0.0, 0.7], "a and c"),
        ([-2.0, 1.0, 1.0], "a against b and c"),
        ([1.0, 1.0, -2.0], "c against a and b"),
        ([1.0, 0.04, -0.04], "a"),
    ],
)
def test_directions_in_words(direction, words):
    """Whatever their sign and length, and the rounding of equals; what has less than 5 % of the largest is left out."""
    assert in_words(torch.tensor(direction, dtype=torch.float64), ["a", "b", "c"]) == words


# Names and directions


def test_features_without_names_have_numbers():
    assert names_of(None, 2) == ("feature 0", "feature 1")
    assert names_of(["coin", "door"], 2) == NAMES
    with pytest.raises(ValueError, match="3 names for 2 features"):
        names_of(["a", "b", "c"], 2)


@pytest.mark.parametrize("units", [(1.0, 1.0, 1.0), (1e6, 1.0, 1e-6)])
def test_directions_with_information_do_not_depend_on_units(units):
    """Of three features the third is the sum of the others."""
    torch.manual_seed(0)
    x = torch.randn(50, 2, dtype=torch.float64)
    x = torch.cat([x, x.sum(1, keepdim=True)], 1)
    scaled = x * torch.tensor(units, dtype=torch.float64)
    basis = informative(scaled.T @ scaled)
    assert basis.shape == (3, 2)
    torch.testing.assert_close(basis.T @ basis, torch.eye(2).double())
    missing = torch.tensor([1, 1, -1], dtype=torch.float64) / torch.tensor(units, dtype=torch.float64)
    assert float((basis.T @ missing).norm() / missing.norm()) < 1e-6


@pytest.mark.parametrize("count", [0, 3])
def test_without_information_there_are_no_directions(count):
    assert informative(torch.zeros(count, count, dtype=torch.float64)).shape == (count, 0)


def test_enough_is_what_the_documentation_says():
    assert ENOUGH == 30
