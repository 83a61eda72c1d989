import math

import pytest
import torch

from lightning_mesa.irl.identification import InverseBellman, inverse_bellman
from lightning_mesa.irl.tabular import TabularMDP, max_causal_entropy_irl, soft_value_iteration

STATES, ACTIONS = 8, 3


def _random(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def _mdp(seed: int, *, discount: float = 0.9, states: int = STATES, ends: float = 0.0) -> TabularMDP:
    torch.manual_seed(seed)
    moves = _random(states, ACTIONS, states).mul(2).softmax(-1) * (1 - ends)
    return TabularMDP(moves, torch.ones(states) / states, discount=discount)


def _shaping(mdp: TabularMDP, potential: torch.Tensor) -> torch.Tensor:
    return torch.from_numpy(mdp.following(potential.numpy())) - potential[:, None]


def _policy(mdp: TabularMDP, features: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    return soft_value_iteration(mdp, features @ weights).policy


def _hidden(first: TabularMDP) -> torch.Tensor:
    """Two features of which the second is shaping in the first environment."""
    return torch.stack([_random(STATES, ACTIONS), _shaping(first, _random(STATES))], -1)


@pytest.mark.parametrize("case", [{}, {"ends": 0.1}, {"discount": 0.99}, {"states": 1}])
def test_weights_of_a_soft_optimal_policy_are_exact(case):
    mdp = _mdp(0, **case)
    features, weights = _random(mdp.states, ACTIONS, 2), torch.tensor([1.5, -0.7], dtype=torch.float64)
    found = inverse_bellman(mdp, features, _policy(mdp, features, weights), names=["coin", "door"])
    torch.testing.assert_close(found.weights, weights, atol=1e-10, rtol=0)
    assert found.residual < 1e-15
    assert found.identified
    assert (found.names, found.unidentified, found.clipped) == (("coin", "door"), (), 0)


def test_a_second_environment_identifies_what_is_shaping_in_the_first():
    """Cao et al. 2021: its other transitions turn the shaping into a reward."""
    first, second = _mdp(0), _mdp(1)
    features, weights = _hidden(first), torch.tensor([1.0, 2.0], dtype=torch.float64)
    policies = [_policy(mdp, features, weights) for mdp in (first, second)]

    alone = inverse_bellman(first, features, policies[0], names=["coin", "door"])
    assert alone.unidentified == ("door: cannot be told from shaping in this environment",)
    assert not alone.identified
    assert alone.weights[0] == pytest.approx(1, abs=1e-10)
    assert math.isnan(alone.weights[1])
    assert alone.singular_values[1] < 1e-12

    both = inverse_bellman([first, second], [features, features], policies, names=["coin", "door"])
    assert both.identified
    torch.testing.assert_close(both.weights, weights, atol=1e-10, rtol=0)


def test_the_same_environment_again_identifies_nothing_more():
    mdp = _mdp(0)
    features = _hidden(mdp)
    policy = _policy(mdp, features, torch.ones(2).double())
    found = inverse_bellman([mdp, mdp], [features, features], [policy, policy])
    assert found.unidentified == ("feature 1: cannot be told from shaping in these environments",)


def test_another_discount_is_another_environment():
    """The other half of the result of Cao et al. 2021: transitions may be the same."""
    first = _mdp(0)
    second = TabularMDP(first.transitions, first.initial, discount=0.5)
    features, weights = _hidden(first), torch.tensor([1.0, 2.0], dtype=torch.float64)
    policies = [_policy(mdp, features, weights) for mdp in (first, second)]
    found = inverse_bellman([first, second], [features, features], policies)
    torch.testing.assert_close(found.weights, weights, atol=1e-10, rtol=0)


def test_environments_may_differ_in_states():
    first, second = _mdp(0), _mdp(1, states=5)
    features = [_random(mdp.states, ACTIONS, 3) for mdp in (first, second)]
    weights = _random(3)
    policies = [_policy(mdp, part, weights) for mdp, part in zip((first, second), features, strict=True)]
    torch.testing.assert_close(inverse_bellman([first, second], features, policies).weights, weights)


def test_a_policy_that_pursues_nothing_listed_is_outside_the_class():
    """Random choices have a residual near 1, however well identified the weights are."""
    mdp = _mdp(0)
    found = inverse_bellman(mdp, _random(STATES, ACTIONS, 2), _random(STATES, ACTIONS).mul(2).softmax(1))
    assert 0.5 < found.residual <= 1
    assert found.identified


def test_a_policy_that_pursues_nothing_has_weights_of_0():
    """Uniform choices are soft-optimal for a reward of 0, and so inside every class."""
    mdp = _mdp(0)
    found = inverse_bellman(mdp, _random(STATES, ACTIONS, 2), torch.full((STATES, ACTIONS), 1 / ACTIONS))
    torch.testing.assert_close(found.weights, torch.zeros(2).double(), atol=1e-6, rtol=0)
    assert found.residual == 0


def test_weights_agree_with_maximum_causal_entropy():
    mdp = _mdp(0)
    features = torch.cat([_random(STATES, ACTIONS, 2), _shaping(mdp, _random(STATES))[..., None]], -1)
    policy = _policy(mdp, features, _random(3))
    likely = max_causal_entropy_irl(mdp, features, policy)
    found = inverse_bellman(mdp, features, policy)
    torch.testing.assert_close(found.weights, likely.weights, equal_nan=True, atol=1e-7, rtol=0)
    assert len(found.unidentified) == len(likely.unidentified) == 1


def test_probabilities_of_0_are_clipped_and_reported():
    mdp = _mdp(0)
    features = _random(STATES, ACTIONS, 2)
    policy = _policy(mdp, features, torch.ones(2).double())
    policy[0] = torch.tensor([0.5, 0.5, 0])
    policy[1] = torch.tensor([1, 0, 0])
    found = inverse_bellman(mdp, features, policy)
    assert found.clipped == 3 / (STATES * ACTIONS)
    assert bool(found.weights.isfinite().all())
    assert 0 < found.residual < 1


def test_features_that_say_the_same_are_named_as_such():
    """In whatever units: their sum is identified, and neither weight; the third one stays exact."""
    mdp = _mdp(0)
    coin, door = _random(2, STATES, ACTIONS)
    features = torch.stack([coin, door, 1000 * coin], -1)
    policy = _policy(mdp, features, torch.tensor([1, 2, 0]).double())
    found = inverse_bellman(mdp, features, policy, names=["coin", "door", "cents"])
    (words,) = found.unidentified
    assert words.removesuffix(": cannot be told from shaping in this environment") in (
        "coin against cents",
        "cents against coin",
    )
    assert found.weights.isnan().tolist() == [True, False, True]
    assert found.weights[1] == pytest.approx(2, abs=1e-10)
    assert found.residual < 1e-15


def test_several_features_that_are_shaping_are_named_one_by_one():
    """And not as mixtures of each other; a constant is shaping without end, and what is 0 is never seen."""
    mdp = _mdp(0)
    nothing = [_shaping(mdp, _random(STATES)), torch.ones(STATES, ACTIONS), torch.zeros(STATES, ACTIONS)]
    features = torch.stack([*nothing, _random(STATES, ACTIONS)], -1)
    policy = _policy(mdp, features, torch.ones(4).double())
    found = inverse_bellman(mdp, features, policy, names=["potential", "constant", "zero", "coin"])
    assert sorted(words.split(":")[0] for words in found.unidentified) == ["constant", "potential", "zero"]
    assert found.weights[3] == pytest.approx(1, abs=1e-10)


def test_more_features_than_pairs_are_not_all_identified():
    mdp = _mdp(0, states=1)
    found = inverse_bellman(mdp, _random(1, ACTIONS, 5), _random(1, ACTIONS).softmax(1))
    assert len(found.singular_values) == 5
    assert len(found.unidentified) == 3
    assert found.weights.isnan().all()
    assert found.residual < 1e-15


def test_states_in_which_all_actions_are_alike_do_no_harm():
    mdp = _mdp(0)
    moves, features = mdp.transitions.clone(), _random(STATES, ACTIONS, 2)
    moves[3:6], features[3:6] = moves[3:6, :1], features[3:6, :1]
    moves[6], features[6] = torch.eye(STATES)[6], 0  # a state that is never left
    mdp, weights = TabularMDP(moves, mdp.initial, 0.9), torch.tensor([0.5, -1.0], dtype=torch.float64)
    found = inverse_bellman(mdp, features, _policy(mdp, features, weights))
    torch.testing.assert_close(found.weights, weights, atol=1e-10, rtol=0)


def test_with_a_single_action_nothing_is_identified():
    torch.manual_seed(0)
    moves = _random(STATES, 1, STATES).softmax(-1)
    mdp = TabularMDP(moves, torch.ones(STATES) / STATES, 0.9)
    found = inverse_bellman(mdp, _random(STATES, 1, 2), torch.ones(STATES, 1))
    assert len(found.unidentified) == 2
    assert found.residual == 0


def test_single_precision_does_not_identify_shaping():
    """Rounding by 1e-7 leaves something of it, which would be taken for a reward."""
    mdp = _mdp(0, discount=0.99)
    features = _hidden(mdp)
    policy = _policy(mdp, features, torch.ones(2).double())
    rounded = TabularMDP(mdp.transitions.float(), mdp.initial, 0.99)
    found = inverse_bellman(rounded, features.float(), policy.float())
    assert found.weights.isnan().tolist() == [False, True]
    assert found.weights[0] == pytest.approx(1, abs=1e-4)


def test_units_of_features_do_not_matter_to_singular_values():
    mdp, policy = _mdp(0), _random(STATES, ACTIONS).softmax(1)
    features = _random(STATES, ACTIONS, 2)
    values = [inverse_bellman(mdp, features * units, policy) for units in (torch.ones(2), torch.tensor([1e5, 1e-5]))]
    torch.testing.assert_close(values[0].singular_values, values[1].singular_values)


def test_without_features_nothing_is_explained():
    found = inverse_bellman(_mdp(0), torch.zeros(STATES, ACTIONS, 0), _random(STATES, ACTIONS).softmax(1))
    assert isinstance(found, InverseBellman)
    assert (found.residual, found.identified, len(found.weights)) == (1, True, 0)


def test_what_does_not_fit_is_refused():
    mdp, features, policy = _mdp(0), _random(STATES, ACTIONS, 2), _random(STATES, ACTIONS).softmax(1)
    episodes = TabularMDP(mdp.transitions, mdp.initial, 0.9, horizon=3)
    with pytest.raises(ValueError, match="max_causal_entropy_irl"):
        inverse_bellman(episodes, features, policy)
    with pytest.raises(ValueError, match="2 environments, 1 features and 1 policies"):
        inverse_bellman([mdp, mdp], features, policy)
    with pytest.raises(ValueError, match="0 environments"):
        inverse_bellman([], [], [])
    with pytest.raises(ValueError, match="same features"):
        inverse_bellman([mdp, mdp], [features, features[..., :1]], [policy, policy])
    with pytest.raises(ValueError, match="policy"):
        inverse_bellman(mdp, features, policy * 2)
    with pytest.raises(ValueError, match="features"):
        inverse_bellman(mdp, features[:2], policy)
    with pytest.raises(ValueError, match="names"):
        inverse_bellman(mdp, features, policy, names=["coin"])
