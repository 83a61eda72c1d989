import math

import pytest
import torch

from lightning_mesa.irl import tabular
from lightning_mesa.irl.distances import (
    canonical_features,
    dard_distance,
    epic_distance,
    gram,
    one_step_features,
    starc_distance,
    weight_distance,
)
from lightning_mesa.irl.tabular import TabularMDP

STATES, ACTIONS, DISCOUNT = 6, 3, 0.9
DISTANCES = [starc_distance, epic_distance, dard_distance]


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


def _random(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def _mdp(seed: int = 0, *, ends: float = 0.0, dtype: torch.dtype = torch.float64) -> TabularMDP:
    torch.manual_seed(seed)
    moves = _random(STATES, ACTIONS, STATES).mul(2).softmax(-1) * (1 - ends)
    return TabularMDP(moves.to(dtype), torch.ones(STATES) / STATES, discount=DISCOUNT)


def _rewards() -> torch.Tensor:
    return _random(STATES, ACTIONS, STATES)


def _shaping(potential: torch.Tensor) -> torch.Tensor:
    return (DISCOUNT * potential[None, None] - potential[:, None, None]).expand(-1, ACTIONS, -1)


def _ring(states: int) -> TabularMDP:
    """One step left or right, or none."""
    moves = torch.zeros(states, 3, states)
    for state in range(states):
        for action, step in enumerate((-1, 0, 1)):
            moves[state, action, (state + step) % states] = 1
    return TabularMDP(moves, torch.ones(states) / states, discount=DISCOUNT)


@pytest.mark.parametrize("distance", DISTANCES)
def test_shaping_and_scale_do_not_matter_and_the_sign_does(distance):
    """A shaped and scaled reward is at 0 of the reward, and its opposite at 1."""
    mdp, reward = _mdp(), _rewards()
    shaped = 7.3e-4 * reward + _shaping(_random(STATES))
    assert distance(mdp, reward, shaped) == pytest.approx(0, abs=1e-7)
    assert distance(mdp, reward, -shaped) == pytest.approx(1, abs=1e-7)


@pytest.mark.parametrize("distance", DISTANCES)
def test_distances_lie_between_0_and_1_and_are_symmetric(distance):
    mdp = _mdp()
    for _ in range(20):
        first, second = _rewards(), _rewards()
        found = distance(mdp, first, second)
        assert 0.05 < found < 1
        assert found == pytest.approx(distance(mdp, second, first), abs=1e-12)
        assert distance(mdp, first, first) == 0


@pytest.mark.parametrize("distance", DISTANCES)
def test_a_detour_is_never_shorter(distance):
    """The triangle inequality."""
    mdp = _mdp()
    for _ in range(20):
        a, b, c = _rewards(), _rewards(), _rewards()
        assert distance(mdp, a, c) <= distance(mdp, a, b) + distance(mdp, b, c) + 1e-12


@pytest.mark.parametrize("distance", DISTANCES)
def test_a_reward_that_is_nothing_but_shaping_is_no_objective(distance):
    """Nor is a constant one, whatever its size: None, where normalised rounding would say 0.5."""
    mdp, reward = _mdp(), _rewards()
    for nothing in (torch.zeros(STATES, ACTIONS), torch.full((STATES, ACTIONS), 1e6 / 3), _shaping(_random(STATES))):
        assert distance(mdp, nothing, reward) is None
        assert distance(mdp, reward, nothing) is None
        assert distance(mdp, nothing, nothing) is None


@pytest.mark.parametrize("distance", DISTANCES)
def test_single_precision_does_not_turn_nothing_into_an_objective(distance):
    mdp, reward = _mdp(dtype=torch.float32), _rewards()
    assert distance(mdp, torch.full((STATES, ACTIONS), 0.1, dtype=torch.float64), reward) is None
    assert distance(mdp, _shaping(_random(STATES)).float(), reward) is None
    assert distance(mdp, reward.float(), reward) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("distance", DISTANCES)
def test_a_small_objective_on_top_of_a_large_constant_is_one(distance):
    mdp, reward = _mdp(), _rewards()
    assert distance(mdp, 1e6 + reward, reward) == pytest.approx(0, abs=1e-7)


@pytest.mark.parametrize("distance", DISTANCES)
def test_a_reward_without_next_states_is_one_that_is_the_same_for_all(distance):
    mdp, first, second = _mdp(), _random(STATES, ACTIONS), _rewards()
    same = first[..., None].expand(-1, -1, STATES)
    assert distance(mdp, first, second) == pytest.approx(distance(mdp, same, second), abs=1e-12)


@pytest.mark.parametrize("distance", DISTANCES)
def test_sparse_transitions_are_the_same_as_dense_ones(distance, monkeypatch):
    first, second = _random(20, 3, 20), _random(20, 3, 20)
    sparse = distance(_ring(20), first, second)
    monkeypatch.setattr(tabular, "DENSE", 0)
    assert distance(_ring(20), first, second) == pytest.approx(sparse, abs=1e-12)


def test_only_epic_depends_on_impossible_transitions():
    """In a ring, rewards of jumps to the other side change nothing but EPIC."""
    mdp, reward = _ring(9), _random(9, 3, 9)
    apart = (torch.arange(9)[:, None] - torch.arange(9)).abs()
    jump = torch.minimum(apart, 9 - apart) > 3
    other = torch.where(jump[:, None], 5 * _random(9, 3, 9), reward)
    assert starc_distance(mdp, reward, other) == dard_distance(mdp, reward, other) == 0
    assert epic_distance(mdp, reward, other) > 0.5


@pytest.mark.parametrize("uniform", [True, False])
@pytest.mark.parametrize("ends", [0.0, 0.1])
def test_starc_does_not_see_how_a_reward_is_spread_over_next_states(uniform, ends):
    """For whatever policy's values, and where episodes can end."""
    mdp, reward = _mdp(ends=ends), _rewards()
    policy = None if uniform else _random(STATES, ACTIONS).softmax(1)
    moved = _rewards()
    moved = moved - (mdp.transitions * moved).sum(-1, keepdim=True) / (1 - ends)
    assert starc_distance(mdp, reward, reward + moved, policy=policy) == pytest.approx(0, abs=1e-7)
    assert starc_distance(mdp, moved, reward, policy=policy) is None


def test_starc_sees_through_shaping_where_episodes_end():
    """A potential is 0 once the episode has ended."""
    mdp, reward, potential = _mdp(ends=0.2), _random(STATES, ACTIONS), _random(STATES)
    shaped = reward + torch.from_numpy(mdp.following(potential.numpy())) - potential[:, None]
    assert starc_distance(mdp, reward, shaped) == pytest.approx(0, abs=1e-7)


def test_starc_agrees_with_values_by_hand():
    """Two states, stay or go. What pays in state 1 has values .5 and 1.5; what pays for leaving state 0, .75 and .25.

    The canonical rewards are (-1, 1, 1, -1) / 4 and (-3, 3, -1, 1) / 8, with a cosine of 1 / sqrt(5).
    """
    moves = torch.tensor([[[1.0, 0], [0, 1]], [[0, 1], [1, 0]]])
    mdp = TabularMDP(moves, torch.tensor([1.0, 0]), discount=0.5)
    arrived, left = torch.tensor([[0.0, 0], [1, 1]]), torch.tensor([[0.0, 1], [0, 0]])
    canonical = canonical_features(mdp, torch.stack([arrived, left], -1))
    torch.testing.assert_close(canonical[..., 0].flatten() * 4, torch.tensor([-1.0, 1, 1, -1]).double())
    torch.testing.assert_close(canonical[..., 1].flatten() * 8, torch.tensor([-3.0, 3, -1, 1]).double())
    assert starc_distance(mdp, arrived, left) == pytest.approx(math.sqrt((1 - 1 / math.sqrt(5)) / 2), abs=1e-12)


def test_epic_agrees_with_values_by_hand():
    """Canonical rewards (-3, 3, 1, -1) / 8 and (-1, 1, 3, -3) / 8 have a correlation of .6."""
    mdp = TabularMDP(torch.full((2, 1, 2), 0.5), torch.tensor([1.0, 0]), discount=0.5)
    first, second = torch.tensor([[[0.0, 1]], [[0, 0]]]), torch.tensor([[[0.0, 0]], [[1, 0]]])
    assert epic_distance(mdp, first, second) == pytest.approx(math.sqrt(0.2), abs=1e-12)


def _pearson(first: torch.Tensor, second: torch.Tensor, weights: torch.Tensor) -> float:
    first, second = first - (weights * first).sum(), second - (weights * second).sum()
    return (weights * first * second).sum() / (weights * first**2).sum().sqrt() / (weights * second**2).sum().sqrt()


@pytest.mark.parametrize("distance", [epic_distance, dard_distance])
def test_canonical_rewards_agree_with_sums_written_out(distance):
    """Over all next states of the formula, whatever the probabilities of states and actions."""
    mdp, rewards = _mdp(3), (_rewards(), _rewards())
    d_s, d_a, t = _random(STATES).softmax(0), _random(ACTIONS).softmax(0), mdp.transitions
    canonical = []
    for r in rewards:
        c = r.clone()
        for s in range(STATES):
            for n in range(STATES):
                for a in range(ACTIONS):
                    here, there = (t[s, a], t[n, a]) if distance is dard_distance else (d_s, d_s)
                    steps = here @ r[:, a] @ there
                    c[s, :, n] += d_a[a] * (DISCOUNT * there @ r[n, a] - here @ r[s, a] - DISCOUNT * steps)
        canonical.append(c)
    follow = t if distance is dard_distance else d_s.expand_as(t)
    rho = _pearson(*canonical, d_s[:, None, None] * d_a[:, None] * follow)
    assert distance(mdp, *rewards, states=d_s, actions=d_a) == pytest.approx(math.sqrt((1 - rho) / 2), abs=1e-9)


def test_distances_of_weights_are_those_of_the_rewards_that_they_make():
    mdp, features = _mdp(), _random(STATES, ACTIONS, 4)
    products = gram(canonical_features(mdp, features))
    for _ in range(10):
        first, second = _random(4), _random(4)
        expected = starc_distance(mdp, features @ first, features @ second)
        assert weight_distance(products, first, second) == pytest.approx(expected, abs=1e-9)
    assert weight_distance(products, first, 3 * first) == pytest.approx(0, abs=1e-12)
    assert weight_distance(products, first, -first) == pytest.approx(1, abs=1e-12)
    assert weight_distance(products, first, torch.zeros(4)) is None


def test_weights_on_shaping_or_that_cancel_are_no_objective():
    mdp, one, potential = _mdp(), _random(STATES, ACTIONS), _random(STATES)
    shaping = torch.from_numpy(mdp.following(potential.numpy())) - potential[:, None]
    canonical = canonical_features(mdp, torch.stack([one, shaping, 2 * one + shaping], -1))
    assert bool((canonical[..., 1] == 0).all())
    reward, nothing, cancels = torch.tensor([[1.0, 5, 0], [0, 1, 0], [-2, 0, 1]])
    products = gram(canonical)
    assert weight_distance(products, reward, nothing) is None
    assert weight_distance(products, reward, cancels) is None
    assert weight_distance(products, reward, -reward) == pytest.approx(1, abs=1e-12)


def test_one_step_features_are_those_of_a_process_that_ends_at_once():
    features = _random(STATES, ACTIONS, 2)
    mdp = TabularMDP(torch.zeros(STATES, ACTIONS, STATES), torch.ones(STATES) / STATES, DISCOUNT)
    torch.testing.assert_close(one_step_features(features), canonical_features(mdp, features))


def test_one_step_features_are_the_same_for_all_choices_or_differ_from_their_mean():
    """Over available choices only, and whatever is written at others; 0.1 for each of three choices is nothing."""
    features = torch.tensor([[[1.0, 0.1], [3, 0.1], [math.nan, 0.1]], [[6, 0.1], [0, 0.1], [0, 0.1]]])
    there = torch.tensor([[True, True, False], [True, True, True]])
    found = one_step_features(features, there)
    assert found[..., 0].tolist() == [[-1, 1, 0], [4, -2, -2]]
    assert bool((found[..., 1] == 0).all())
    assert weight_distance(gram(found), torch.tensor([1.0, 0]), torch.tensor([0.0, 1])) is None


def test_weights_of_items_count_as_copies():
    canonical = one_step_features(_random(3, ACTIONS, 2))
    copies = gram(canonical, torch.tensor([2.0, 1, 0]))
    torch.testing.assert_close(copies, gram(canonical[[0, 0, 1]]))
    torch.testing.assert_close(gram(canonical), torch.einsum("nak,nal->kl", canonical, canonical) / (3 * ACTIONS))


def test_what_does_not_fit_is_refused():
    mdp, reward = _mdp(), _rewards()
    episodes = TabularMDP(mdp.transitions, mdp.initial, DISCOUNT, horizon=3)
    with pytest.raises(ValueError, match="horizon"):
        starc_distance(episodes, reward, reward)
    with pytest.raises(ValueError, match="must be"):
        starc_distance(mdp, reward[:2], reward)
    with pytest.raises(ValueError, match="policy"):
        starc_distance(mdp, reward, reward, policy=torch.ones(STATES, ACTIONS))
    with pytest.raises(ValueError, match="finite"):
        epic_distance(mdp, reward, reward / 0)
    with pytest.raises(ValueError, match="states"):
        epic_distance(mdp, reward, reward, states=torch.ones(STATES))
    with pytest.raises(ValueError, match="actions"):
        dard_distance(mdp, reward, reward, actions=torch.ones(2) / 2)
    with pytest.raises(ValueError, match="add up to 1"):
        dard_distance(_mdp(ends=0.1), reward, reward)
    with pytest.raises(ValueError, match="available"):
        one_step_features(reward, torch.zeros(STATES, ACTIONS))
    with pytest.raises(ValueError, match="features"):
        one_step_features(reward[0])
    for weights in (torch.zeros(STATES), -torch.ones(STATES), torch.ones(2)):
        with pytest.raises(ValueError, match="weights"):
            gram(reward, weights)
    with pytest.raises(ValueError, match="gram"):
        weight_distance(torch.eye(3), torch.ones(3), torch.ones(2))
    with pytest.raises(ValueError, match="finite"):
        weight_distance(torch.eye(2), torch.ones(2), torch.tensor([1, math.nan]))
