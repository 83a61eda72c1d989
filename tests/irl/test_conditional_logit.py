"""The engine: exact inside the class, honest limits outside of it, and no number where the data tell none."""

import math

import pytest
import torch
from scipy.optimize import minimize
from scipy.stats import binom
from torch import Tensor

from irl_coverage import CONTRAST, WEIGHTS, concentrated, known_and_sampled, one_step, outcome, unequal
from lightning_mesa.irl.conditional_logit import fit_conditional_logit, log_likelihoods, references
from lightning_mesa.irl.fit import ENOUGH, ObjectiveFit

ITEMS, CHOICES, COUNT = 200, 5, 3


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


def _random(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def _offset(masked: bool) -> Tensor:
    """Some choices are not available, but never all."""
    offset = _random(ITEMS, CHOICES)
    offset[torch.rand(ITEMS, CHOICES) < 0.3 * masked] = -torch.inf
    offset[:, 0] = 0
    return offset


def _extras() -> dict[str, dict[str, Tensor]]:
    return {
        "plain": {},
        "weights": {"weights": torch.rand(ITEMS)},
        "weights of 0": {"weights": (torch.arange(ITEMS) % 2).float()},
        "offset": {"offset": _offset(masked=False)},
        "some choices": {"offset": _offset(masked=True)},
        "all": {"offset": _offset(masked=True), "weights": torch.rand(ITEMS)},
    }


def _probabilities(features: Tensor, weights: Tensor, offset: Tensor | None = None) -> Tensor:
    return (features @ weights + (0 if offset is None else offset)).softmax(1)


def _never_finite(fit: ObjectiveFit) -> bool:
    """Whether no weight, and no interval of one or of the difference between two, has an end."""
    rows = torch.eye(len(fit.names), dtype=torch.float64)
    contrasts = [*rows, *(rows[i] - rows[j] for i in range(len(rows)) for j in range(i))]
    none = all(fit.interval(contrast) == (-math.inf, math.inf) for contrast in contrasts)
    return none and bool(fit.weights.isnan().all())


# Recovery


@pytest.mark.parametrize("scale", [0.0, 1e-6, 1.0, 10.0])
@pytest.mark.parametrize("case", list(_extras()))
def test_a_chooser_inside_the_class_is_recovered_exactly(case, scale):
    """Whether choices are at random or almost certain; with limits of no width, as nothing else is left to chance."""
    extras = _extras()[case]
    features, weights = _random(ITEMS, CHOICES, COUNT), scale * _random(COUNT)
    p = _probabilities(features, weights, extras.get("offset"))
    fit = fit_conditional_logit(features, p, **extras)
    assert fit.converged
    torch.testing.assert_close(fit.solution, weights, rtol=0, atol=1e-8 * max(1, scale))
    assert fit.log_likelihood == pytest.approx(fit.references["perfect"], abs=1e-10)
    assert float(fit.covariance.abs().max()) < 1e-12 * max(1, scale) ** 4
    if case == "plain" and scale <= 1:
        assert fit.identified
        assert all(high - low < 1e-6 for low, high in map(fit.interval, torch.eye(COUNT)))


def test_single_precision_is_good_for_single_precision():
    features, weights = _random(ITEMS, CHOICES, COUNT), _random(COUNT)
    p = _probabilities(features, weights)
    torch.testing.assert_close(fit_conditional_logit(features.float(), p.float()).weights, weights, rtol=0, atol=1e-5)


@pytest.mark.parametrize("case", list(_extras()))
def test_the_best_approximation_agrees_with_another_optimizer(case):
    """Of a chooser outside the class: the same minimum as SciPy's of the loss from its definition, and no gradient."""
    extras = _extras()[case]
    features, offset = _random(ITEMS, CHOICES, COUNT), extras.get("offset", torch.zeros(ITEMS, CHOICES).double())
    counts = extras.get("weights", torch.ones(ITEMS)).double()
    p = (2 * _random(ITEMS, CHOICES) + offset).softmax(1)

    def loss(weights: Tensor) -> Tensor:
        log_q = (features @ weights + offset).log_softmax(1)
        return -(counts / counts.sum()) @ torch.where(p > 0, p * log_q, 0).sum(1)

    fit = fit_conditional_logit(features, p, **extras)
    w = fit.solution.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(loss(w), w)
    assert float(gradient.abs().max()) < 1e-10
    found = minimize(lambda x: float(loss(torch.from_numpy(x))), [0.0] * COUNT, method="BFGS", options={"gtol": 1e-9})
    torch.testing.assert_close(fit.solution, torch.from_numpy(found.x), rtol=0, atol=1e-5)
    assert fit.log_likelihood == pytest.approx(-found.fun, abs=1e-10)
    assert fit.references["uniform"] < fit.log_likelihood < fit.references["perfect"]


def test_the_bread_is_the_inverse_of_the_loss_curvature():
    features, p = _random(ITEMS, CHOICES, COUNT), _random(ITEMS, CHOICES).softmax(1)
    fit = fit_conditional_logit(features, p)
    curvature = torch.autograd.functional.hessian(
        lambda w: -log_likelihoods(features, p, w).mean(), fit.solution.clone()
    )
    torch.testing.assert_close(fit.bread @ curvature, torch.eye(COUNT).double(), rtol=0, atol=1e-8)


def test_what_is_the_same_for_all_choices_of_an_item_does_not_matter():
    """And what is written at choices that are not available does not either."""
    features, offset = _random(ITEMS, CHOICES, COUNT), _offset(masked=True)
    p = (_random(ITEMS, CHOICES) + offset).softmax(1)
    fit = fit_conditional_logit(features, p, offset=offset)
    moved = features + 10 * _random(ITEMS, 1, COUNT)
    moved[offset == -torch.inf] = 1e5
    other = fit_conditional_logit(moved, p, offset=offset + 10 * _random(ITEMS, 1))
    torch.testing.assert_close(other.solution, fit.solution, rtol=0, atol=1e-7)
    torch.testing.assert_close(other.covariance, fit.covariance, rtol=1e-6, atol=1e-12)


def test_weights_of_items_count_as_copies():
    features, p = one_step(100, 0.3)
    counts = torch.arange(100) % 3
    copied = torch.arange(100).repeat_interleave(counts)
    weighted = fit_conditional_logit(features, p, weights=counts.double())
    copies = fit_conditional_logit(features[copied], p[copied])
    torch.testing.assert_close(weighted.solution, copies.solution, rtol=0, atol=1e-10)
    torch.testing.assert_close(weighted.bread, copies.bread)


@pytest.mark.parametrize("unit", [1e6, 1e-6])
def test_units_of_a_feature_change_its_weight_and_nothing_else(unit):
    features, p = one_step(300, 0.3)
    units = torch.tensor([1.0, unit], dtype=torch.float64)
    one, other = fit_conditional_logit(features, p), fit_conditional_logit(features * units, p)
    torch.testing.assert_close(other.weights * units, one.weights, rtol=1e-9, atol=0)
    assert other.log_likelihood == pytest.approx(one.log_likelihood, abs=1e-12)
    assert other.identified
    for contrast in torch.tensor([[0.0, 1], [1, 0], [-1, 1]]).double():
        assert other.effective(contrast * units) == pytest.approx(one.effective(contrast), rel=1e-6)
        assert other.interval(contrast * units) == pytest.approx(one.interval(contrast), rel=1e-6)


# Limits


@pytest.mark.slow
def test_standard_errors_agree_with_a_bootstrap():
    """Of weights and of their difference, within 15 %, where the chooser is outside the class."""
    features, p = one_step(300, 0.3)
    fit = fit_conditional_logit(features, p)
    again = []
    for _ in range(250):
        drawn = torch.randint(300, (300,))
        again.append(fit_conditional_logit(features[drawn], p[drawn]).solution)
    for contrast in torch.tensor([[1.0, 0], [0, 1], [-1, 1]]).double():
        error = float((torch.stack(again) @ contrast).std())
        assert math.sqrt(float(contrast @ fit.covariance @ contrast)) == pytest.approx(error, rel=0.15)


def test_copies_in_one_cluster_count_once():
    """Each item twice has the same standard error as once, and without clusters one that is sqrt(2) too small."""
    features, p = one_step(300, 0.3)
    once = fit_conditional_logit(features, p)
    twice = torch.cat([features, features]), torch.cat([p, p])
    clustered = fit_conditional_logit(*twice, clusters=torch.arange(300).repeat(2))
    torch.testing.assert_close(clustered.covariance, once.covariance)
    assert clustered.effective(CONTRAST) == pytest.approx(once.effective(CONTRAST))
    torch.testing.assert_close(fit_conditional_logit(*twice).covariance * 2, once.covariance, rtol=0.01, atol=0)


def test_labels_of_clusters_may_be_any_numbers_in_any_order():
    features, p = one_step(100, 0.3)
    labels = torch.randint(20, (100,))
    one = fit_conditional_logit(features, p, clusters=labels)
    other = fit_conditional_logit(features, p, clusters=1000 - 7 * labels)
    torch.testing.assert_close(other.covariance, one.covariance)


def test_episodes_with_weights_of_their_own_need_wider_limits():
    x, p, labels = unequal(torch.ones(100, dtype=torch.bool), spread=0.0)
    alone, together = (fit_conditional_logit(x, p, clusters=clusters) for clusters in (None, labels))
    torch.testing.assert_close(alone.solution, together.solution)
    errors = [float(CONTRAST @ fit.covariance @ CONTRAST) ** 0.5 for fit in (alone, together)]
    assert errors[1] > 1.5 * errors[0]


@pytest.mark.slow
def test_limits_cover_and_known_probabilities_are_worth_at_least_five_times_the_items():
    """From probabilities and from sampled actions; the targets of benchmarks/irl_coverage.py."""
    runs = 200
    known, sampled = known_and_sampled(300, runs)
    for found in (known, sampled):
        assert sum(one.covers for one in found) >= binom.ppf(0.002, runs, 0.95)
    variances = [torch.tensor([one.estimate for one in found]).var() for found in (known, sampled)]
    assert variances[1] / variances[0] >= 5


# What is not identified


def test_where_base_and_proxy_always_agree_nothing_is_finite():
    """Though both are pursued, and a ridge would name a number with a small error."""
    features, p = one_step(2000, 1.0)
    fit = fit_conditional_logit(features, p, names=["digit", "color"])
    assert fit.converged
    assert _never_finite(fit)
    assert math.isnan(fit.estimate(CONTRAST))
    assert fit.effective(CONTRAST) == 0
    assert fit.unidentified == ("digit against color: no choice tells",)
    assert fit.estimate([1.0, 1.0]) == pytest.approx(3, abs=0.3)  # their sum is told


@pytest.mark.parametrize(("agree", "identified"), [(0.5, 20), (0.9, 20), (0.998, 0), (1.0, 0)])
def test_numbers_are_for_those_runs_that_are_identified(agree, identified):
    found = [outcome(fit_conditional_logit(*one_step(2000, agree)), math.nan) for _ in range(20)]
    assert sum(one.identified for one in found) == sum(one.finite for one in found) == identified


def test_effective_items_are_those_that_tell_something():
    """40 that say the same among 1,000; and 10 of which one says more: (9 + 16)^2 / (9 + 256)."""
    features = torch.zeros(1000, 2, 1, dtype=torch.float64)
    features[:40, 0] = 1
    half = torch.full((1000, 2), 0.5)
    assert fit_conditional_logit(features, half).effective([1.0]) == pytest.approx(40)
    features[10:40] = 0
    features[0, 0] = 4
    fit = fit_conditional_logit(features, half, names=["coin"])
    assert fit.effective([1.0]) == pytest.approx(25**2 / 265)
    assert fit.unidentified == ("coin: rests on 2 effective items, 30 are needed",)
    assert _never_finite(fit)


@pytest.mark.parametrize(("items", "enough"), [(29, False), (30, True)])
def test_thirty_are_enough(items, enough):
    features = torch.tensor([[1.0], [0.0]]).double().expand(items, 2, 1)
    fit = fit_conditional_logit(features, torch.full((items, 2), 0.5))
    assert fit.effective([1.0]) == pytest.approx(items)
    assert fit.identified == enough == math.isfinite(fit.interval([1.0])[0])


def test_one_cluster_that_tells_all_is_one_effective_item():
    """Though the information's eigenvalues are of one size: the usual rule would let it pass."""
    x, p, labels = unequal(torch.arange(400) < 1, spread=0.0)
    fit = fit_conditional_logit(x, p, clusters=labels)
    assert fit.effective(CONTRAST) < 1.5
    values = torch.linalg.eigvalsh(fit.units.sum(0))
    assert values[0] > 1e-4 * values[1]
    assert fit.interval(CONTRAST) == (-math.inf, math.inf)


@pytest.mark.slow
def test_with_few_effective_clusters_limits_would_be_too_short():
    """Where stakes are unequal: neither the normal quantile nor Student's t would help, nor the eigenvalues' rule."""
    found = [one for one in concentrated(1.0, 60) if 5 <= one.effective < ENOUGH]
    assert len(found) > 50
    assert all(one.passes and not one.finite for one in found)
    assert sum(one.covers_by_t for one in found) < binom.ppf(0.002, len(found), 0.95)
    assert sum(one.covers_by_z for one in found) < binom.ppf(0.002, len(found), 0.95)


# Degenerate input, and its outcome


def test_probabilities_of_exactly_0_are_ordinary():
    features, p = one_step(300, 0.3)
    p = torch.where(p < 0.05, 0, p)
    p = p / p.sum(1, keepdim=True)
    assert bool((p == 0).any())
    fit = fit_conditional_logit(features, p)
    assert fit.identified
    almost = fit_conditional_logit(features, (p + 1e-12) / (p + 1e-12).sum(1, keepdim=True))
    torch.testing.assert_close(fit.weights, almost.weights, rtol=0, atol=1e-9)


def test_choices_drawn_at_random_are_ordinary():
    """One-hot, but not to be explained by any weights."""
    features, p = one_step(2000, 0.3)
    drawn = torch.nn.functional.one_hot(torch.multinomial(p, 1)[:, 0], p.shape[1])
    fit = fit_conditional_logit(features, drawn)
    assert fit.identified
    torch.testing.assert_close(fit.weights, WEIGHTS, rtol=0, atol=0.4)
    assert fit.references["perfect"] == 0


def test_deterministic_choices_have_a_direction_and_no_size():
    """Of a pursuit of base: no finite weight is the best."""
    features, _ = one_step(300, 0.3)
    fit = fit_conditional_logit(features, features[..., 0], names=["digit", "color"])
    assert not fit.converged
    assert fit.scale == math.inf
    assert _never_finite(fit)
    assert not fit.identified
    assert fit.unidentified == ("every weight: choices are deterministic, so no finite weight is the best",)
    assert float(fit.direction.norm()) == pytest.approx(1)
    assert float(fit.direction[0]) > 0.9
    assert fit.log_likelihood == pytest.approx(0, abs=1e-8)
    assert fit.effective(CONTRAST) > ENOUGH  # the items differ; it is the choices that say no size


def test_one_thing_that_is_never_done_has_no_finite_weight():
    """Though the other one is pursued with measure."""
    features, weights = _random(300, CHOICES, 2), torch.tensor([1.0, 0.0], dtype=torch.float64)
    features[:, :, 1] = 0
    features[:, 0, 1] = 1
    p = _probabilities(features, weights)
    p[:, 0] = 0
    fit = fit_conditional_logit(features, p / p.sum(1, keepdim=True))
    assert not fit.converged
    assert _never_finite(fit)
    assert float(fit.direction[1]) < -0.9


def test_of_a_single_choice_nothing_is_identified():
    fit = fit_conditional_logit(_random(50, 1, 2), torch.ones(50, 1))
    assert fit.unidentified == ("feature 0: no choice tells", "feature 1: no choice tells")
    assert _never_finite(fit)
    assert fit.scale == 0
    assert fit.log_likelihood == fit.references["uniform"] == fit.references["perfect"] == 0


@pytest.mark.parametrize(("items", "choices", "count"), [(2, 3, 40), (20, 10, 30)])
def test_more_features_than_items_are_not_identified(items, choices, count):
    """Be there more than differences between choices, or not."""
    p = _random(items, choices).softmax(1)
    fit = fit_conditional_logit(_random(items, choices, count), p)
    assert _never_finite(fit)
    assert len(fit.unidentified) >= count - items * (choices - 1)
    assert not fit.identified
    assert bool(fit.solution.isfinite().all())
    if count > items * (choices - 1):
        assert fit.log_likelihood == pytest.approx(fit.references["perfect"])


def test_duplicated_features_are_both_named():
    """The third one is exact, and so is the sum."""
    features = _random(ITEMS, CHOICES, 3)
    features[..., 2] = features[..., 0]
    p = _probabilities(features, torch.tensor([1.0, -1.0, 0.5]).double())
    fit = fit_conditional_logit(features, p, names=["coin", "wall", "penny"])
    assert fit.unidentified == ("coin against penny: no choice tells",)
    assert fit.weights.isnan().tolist() == [True, False, True]
    assert float(fit.weights[1]) == pytest.approx(-1, abs=1e-8)
    assert fit.estimate([1.0, 0.0, 1.0]) == pytest.approx(1.5, abs=1e-8)


@pytest.mark.parametrize("constant", [0.0, 0.1, 1e6])
def test_a_feature_that_is_always_the_same_is_not_identified(constant):
    features = _random(ITEMS, CHOICES, 2)
    features[..., 1] = constant
    fit = fit_conditional_logit(features, _random(ITEMS, CHOICES).softmax(1))
    assert fit.weights.isnan().tolist() == [False, True]
    assert fit.unidentified == ("feature 1: no choice tells",)


def test_without_items_nothing_is_known():
    fit = fit_conditional_logit(torch.zeros(0, 3, 2), torch.zeros(0, 3))
    assert _never_finite(fit)
    assert len(fit.unidentified) == 2


def test_without_features_there_is_nothing_to_tell():
    fit = fit_conditional_logit(torch.zeros(5, 3, 0), torch.full((5, 3), 1 / 3))
    assert len(fit.weights) == 0
    assert fit.log_likelihood == pytest.approx(-math.log(3))


def test_items_that_all_count_nothing_identify_nothing():
    features, p = one_step(50, 0.3)
    fit = fit_conditional_logit(features, p, weights=torch.zeros(50))
    assert _never_finite(fit)
    assert len(fit.unidentified) == 2


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_features_that_are_not_finite_are_named(value):
    features, p = one_step(50, 0.3)
    features[7, 3, 1] = value
    with pytest.raises(ValueError, match="feature 1 of choice 3 of item 7 is not finite"):
        fit_conditional_logit(features, p)


def _probability(value: float) -> dict[str, Tensor]:
    p = torch.full((5, 3), 1 / 3)
    p[2, 1] = value
    return {"probabilities": p}


def _choices(*values: float) -> dict[str, Tensor]:
    offset = torch.zeros(5, 3)
    offset[2, : len(values)] = torch.tensor(values)
    return {"offset": offset}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        *[(_probability(value), "add up to 1") for value in (0.5, -1 / 3, math.nan, math.inf)],
        (_choices(-math.inf), r"not available \(offset -inf\) has a probability above 0"),
        (_choices(-math.inf, -math.inf, -math.inf), "none is available"),
        *[(_choices(value), "offset must be") for value in (math.nan, math.inf)],
        ({"offset": torch.zeros(5, 2)}, "offset must be"),
        *[({"weights": torch.full((5,), value)}, "weights must be") for value in (-1.0, math.nan, math.inf)],
        ({"weights": torch.ones(4)}, r"weights must be \[5\]"),
        ({"probabilities": torch.full((5, 2), 0.5)}, r"not \[5, 3, 2\] and \[5, 2\]"),
        ({"features": torch.zeros(5, 3)}, "features must be"),
        ({"names": ["a"]}, "1 names for 2 features"),
    ],
)
def test_what_does_not_fit_is_refused(given, message):
    arguments = {"features": torch.rand(5, 3, 2), "probabilities": torch.full((5, 3), 1 / 3)} | given
    with pytest.raises(ValueError, match=message):
        fit_conditional_logit(**arguments)


# References, and nothing sampled


def test_references_agree_with_values_by_hand():
    """Two items of two choices; frequencies are .625 and .375."""
    p = torch.tensor([[0.75, 0.25], [0.5, 0.5]], dtype=torch.float64)
    found = references(p)
    assert found["uniform"] == pytest.approx(-math.log(2))
    assert found["marginal"] == pytest.approx(0.625 * math.log(0.625) + 0.375 * math.log(0.375))
    assert found["perfect"] == pytest.approx((0.75 * math.log(0.75) + 0.25 * math.log(0.25) - math.log(2)) / 2)


def test_references_are_over_the_choices_that_there_are():
    """Frequencies of .25, .5 and .25 are 1/3 and 2/3 where the last choice is missing."""
    p = torch.tensor([[0.5, 0.5, 0], [0, 0.5, 0.5]], dtype=torch.float64)
    there = torch.tensor([[True, True, False], [True, True, True]])
    found = references(p, available=there)
    assert found["uniform"] == pytest.approx(-(math.log(2) + math.log(3)) / 2)
    first, second = (math.log(1 / 3) + math.log(2 / 3)) / 2, (math.log(0.5) + math.log(0.25)) / 2
    assert found["marginal"] == pytest.approx((first + second) / 2)


def test_of_all_items_that_there_are_limits_are_points():
    features, p = one_step(20, 0.3)
    fit = fit_conditional_logit(features, p, exhaustive=True)
    assert fit.covariance is None
    assert fit.effective(CONTRAST) == math.inf
    assert fit.interval(CONTRAST) == (fit.estimate(CONTRAST),) * 2
    torch.testing.assert_close(fit.solution, fit_conditional_logit(features, p).solution)


def test_log_likelihoods_add_up_to_that_of_the_fit():
    offset = _offset(masked=True)
    features, p = _random(ITEMS, CHOICES, COUNT), (_random(ITEMS, CHOICES) + offset).softmax(1)
    fit = fit_conditional_logit(features, p, offset=offset)
    found = log_likelihoods(features, p, fit.solution, offset=offset)
    assert found.shape == (ITEMS,)
    assert float(found.mean()) == pytest.approx(fit.log_likelihood, abs=1e-12)
