"""A fit among listed objectives says something where it beats these."""

import pytest
import torch
from scipy.stats import binom
from torch import Tensor

from lightning_mesa.irl.conditional_logit import fit_conditional_logit
from lightning_mesa.irl.goal_directedness import goal_directedness
from lightning_mesa.irl.null_models import cross_fitted, habits, random_goal_p_value, random_goals

ITEMS, CHOICES = 60, 4


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


def _goal(items: int = ITEMS) -> Tensor:
    """One-hot utility of the right choice at each item."""
    return torch.nn.functional.one_hot(torch.randint(CHOICES, (items,)), CHOICES).double()[..., None]


def _device(items: int = ITEMS) -> Tensor:
    """Decided, but not for anything listed."""
    return (2 * torch.randn(items, CHOICES, dtype=torch.float64)).softmax(1)


def test_random_goals_are_the_same_with_their_choices_permuted():
    """In each item and feature apart; the same draws for the same seed."""
    features = torch.randn(ITEMS, CHOICES, 3)
    drawn = [random_goals(features, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)]
    assert torch.equal(drawn[0].sort(1).values, features.sort(1).values)
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
    moved = (drawn[0] != features).any(1)
    assert bool((moved[:, 0] != moved[:, 1]).any())


def test_a_policy_with_the_goal_beats_all_random_goals():
    goal = _goal()
    assert random_goal_p_value(goal, goal[..., 0].softmax(1), draws=49) == 1 / 50


def test_pursuing_the_opposite_beats_them_as_well():
    goal = _goal()
    assert random_goal_p_value(goal, (-goal[..., 0]).softmax(1), draws=49) == 1 / 50


@pytest.mark.slow
def test_p_values_of_a_device_are_as_good_as_uniform():
    """At level a, at most a share a of devices is taken for a policy with the goal."""
    runs = 60
    p_values = [random_goal_p_value(_goal(), _device(), draws=19, seed=seed) for seed in range(runs)]
    for level in (0.1, 0.3):
        assert sum(p <= level for p in p_values) <= binom.ppf(0.998, runs, level)
    assert 0.35 < sum(p_values) / runs < 0.65
    assert all(0.05 <= p <= 1 for p in p_values)


def test_a_goal_that_random_goals_cannot_differ_from_has_a_p_value_of_1():
    """Ties count for the null: of a utility that is the same for all choices."""
    assert random_goal_p_value(torch.ones(ITEMS, CHOICES, 1), _device(), draws=9) == 1


def test_habits_explain_fixed_frequencies_exactly():
    """One inclination less than choices is enough, of the most frequent first."""
    p = torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=torch.float64).expand(ITEMS, CHOICES)
    device = habits(p, 3)
    assert device.shape == (ITEMS, CHOICES, 3)
    assert device[0].argmax(0).tolist() == [3, 2, 1]
    fit = fit_conditional_logit(device, p)
    assert fit.log_likelihood == pytest.approx(fit.references["perfect"])
    assert fit.log_likelihood == pytest.approx(fit.references["marginal"])
    expected = (torch.tensor([0.4, 0.3, 0.2], dtype=torch.float64) / 0.1).log()
    torch.testing.assert_close(fit.weights, expected, rtol=0, atol=1e-8)
    assert goal_directedness(device, p).explained.value == pytest.approx(1)


def test_there_are_no_more_habits_than_choices():
    assert habits(_device(), 10).shape == (ITEMS, CHOICES, CHOICES)


def test_habits_do_not_explain_a_goal():
    goal = _goal(400)
    p = (2 * goal[..., 0]).softmax(1)
    assert goal_directedness(goal, p).explained.value == pytest.approx(1)
    assert goal_directedness(habits(p, 1), p).explained.value < 0.05


def test_a_goal_predicts_other_items_better_than_habits_do():
    """And habits predict a device of fixed frequencies better than the goal does."""
    goal = _goal(200)
    agent = (2 * goal[..., 0]).softmax(1)
    device = torch.tensor([0.7, 0.1, 0.1, 0.1], dtype=torch.float64).expand(200, CHOICES)
    assert cross_fitted(goal, agent, habits(agent, 1)).low > 0
    assert cross_fitted(goal, device, habits(device, 1)).high < 0
    forth, back = cross_fitted(goal, agent, habits(agent, 1)), cross_fitted(habits(agent, 1), agent, goal)
    assert (back.value, back.low, back.high) == pytest.approx((-forth.value, -forth.high, -forth.low))


def test_capacity_alone_predicts_no_other_items():
    """Twenty features at random explain more of the items that they were fitted to, and less of others, than none."""
    p, many, nothing = _device(), torch.randn(ITEMS, CHOICES, 20), torch.zeros(ITEMS, CHOICES, 1)
    assert goal_directedness(many, p).value.value > 0.02
    assert cross_fitted(many, p, nothing).value < 0


def test_the_bottle_cap_explains_all_that_is_done():
    """The objective log p has weight 1 for whatever policy, and so proves nothing."""
    p = _device()
    fit = fit_conditional_logit(p.log()[..., None], p)
    assert float(fit.solution) == pytest.approx(1, abs=1e-8)
    assert fit.log_likelihood == pytest.approx(fit.references["perfect"])
    found = goal_directedness(p.log()[..., None], p)
    assert found.explained.value == pytest.approx(1)
    assert found.value.value == pytest.approx(found.negentropy.value)
    assert found.negentropy.value > 0.3
