"""The engine: exact inside the class, honest limits outside of it, and no number where the data tell none."""

import math

import pytest
import torch

from irl_coverage import CONTRAST, covered, one_step, successor
from lightning_mesa.irl import fit_conditional_logit, goal_directedness, own_lights_regret

WEIGHTS = torch.tensor([1.0, 2.0], dtype=torch.float64)


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


def test_a_soft_optimal_chooser_is_recovered_exactly_with_limits_of_no_width():
    features, _ = one_step(300, 0.3)
    fit = fit_conditional_logit(features, (features @ WEIGHTS).softmax(1))
    assert torch.allclose(fit.weights, WEIGHTS, atol=1e-8)
    low, high = fit.interval(CONTRAST)
    assert high - low < 1e-6
    assert fit.scale == pytest.approx(math.sqrt(5))


def test_limits_cover_the_best_approximation():
    truth = fit_conditional_logit(*one_step(50_000, 0.3)).estimate(CONTRAST)
    hits = sum(covered(fit_conditional_logit(*one_step(300, 0.3)), truth) for _ in range(150))
    assert hits >= 134  # .95 less 2.8 standard errors


@pytest.mark.parametrize("noise", [0.1, 0.5])
def test_instruments_cover_where_the_plain_fit_does_not(noise):
    pairs = [successor(noise) for _ in range(100)]
    assert sum(covered(pair[0], 1.0) for pair in pairs) >= 88
    if noise == 0.5:
        assert sum(covered(pair[1], 1.0) for pair in pairs) < 50


def test_where_base_and_proxy_always_agree_nothing_is_finite():
    fit = fit_conditional_logit(*one_step(2000, 1.0), names=["digit", "color"])
    assert fit.interval(CONTRAST) == (-math.inf, math.inf)
    assert bool(fit.weights.isnan().all())
    assert fit.unidentified == ("digit against color: no choice tells",)


def test_fewer_than_thirty_effective_items_are_too_few():
    features, p = one_step(2000, 0.998)
    fit = fit_conditional_logit(features, p)
    assert fit.effective(CONTRAST) < 30
    assert fit.interval(CONTRAST) == (-math.inf, math.inf)


def test_clusters_of_copies_count_once():
    features, p = one_step(300, 0.3)
    once = fit_conditional_logit(features, p)
    twice = fit_conditional_logit(
        torch.cat([features, features]), torch.cat([p, p]), clusters=torch.arange(300).repeat(2)
    )
    assert torch.allclose(once.covariance, twice.covariance)


def test_units_of_a_feature_do_not_matter():
    features, p = one_step(300, 0.3)
    one, other = (fit_conditional_logit(features * torch.tensor([1.0, s]), p) for s in (1.0, 1e6))
    assert other.weights[1] * 1e6 == pytest.approx(float(one.weights[1]))
    assert other.effective([0.0, 1.0]) == pytest.approx(one.effective([0.0, 1.0]))


def test_deterministic_choices_have_a_direction_and_no_weights():
    features, _ = one_step(300, 0.3)
    fit = fit_conditional_logit(features, features[..., 0])
    assert (fit.converged, fit.scale) == (False, math.inf)
    assert bool(fit.direction.isfinite().all())
    assert fit.interval([1.0, 0.0]) == (-math.inf, math.inf)


@pytest.mark.parametrize(
    "features",
    [torch.ones(50, 1, 2), torch.rand(2, 3, 40), torch.rand(50, 3, 1).repeat(1, 1, 2), torch.zeros(0, 3, 2)],
    ids=["one action", "more features than items", "duplicated features", "no items"],
)
def test_degenerate_features_identify_nothing(features):
    p = torch.full(features.shape[:2], 1 / features.shape[1])
    fit = fit_conditional_logit(features, p)
    assert not fit.identified
    assert bool(fit.weights.isnan().all())


@pytest.mark.parametrize(
    ("features", "p", "message"),
    [
        (torch.full((5, 3, 2), torch.nan), torch.full((5, 3), 1 / 3), "feature 0 of choice 0 of item 0 is not finite"),
        (torch.rand(5, 3, 2), torch.ones(5, 3), "add up to 1"),
        (torch.rand(5, 3), torch.full((5, 3), 1 / 3), "features must be"),
    ],
)
def test_bad_input_is_refused(features, p, message):
    with pytest.raises(ValueError, match=message):
        fit_conditional_logit(features, p)


def test_goal_directedness_is_at_most_negentropy_and_has_a_sign():
    features, p = one_step(500, 0.3)
    found = goal_directedness(features, p)
    assert 0 < found.value.value < found.negentropy.value < 1
    assert [goal_directedness(s * features[..., 1:], p).sign for s in (1, -3)] == [1, -1]
    assert goal_directedness(features, torch.full_like(p, 0.1)).value.value == pytest.approx(0, abs=1e-12)


def test_own_lights_regret_is_log_loss_less_entropy():
    p = torch.tensor([[0.7, 0.2, 0.1], [0.5, 0.25, 0.25]], dtype=torch.float64)
    base = torch.tensor([[False, True, False], [True, False, False]])
    expected = (-math.log(0.2) - math.log(0.5) + float((p * p.log()).sum())) / 2
    assert own_lights_regret(p, base).value == pytest.approx(expected)
