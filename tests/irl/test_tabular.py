import math

import pytest
import torch
from scipy import sparse
from torch import Tensor

from lightning_mesa.irl.conditional_logit import fit_conditional_logit
from lightning_mesa.irl.fit import ObjectiveFit
from lightning_mesa.irl.tabular import (
    TabularMDP,
    max_causal_entropy_irl,
    occupancy,
    soft_value_iteration,
    successor_features,
)

SEED = 0
ENDINGS = [{"horizon": 12}, {"horizon": 12, "discount": 0.9}, {"discount": 0.9}]
"""All kinds of ends that an episode can have."""


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(SEED)


def _random(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def _dense(states: int, actions: int = 3) -> Tensor:
    return (3 * _random(states, actions, states)).softmax(-1)


def _ring(states: int, slip: float = 0.1) -> Tensor:
    """Stay, or one step to the left or to the right; some moves are drawn at random."""
    stay = torch.eye(states, dtype=torch.float64)
    certain = torch.stack([stay, stay.roll(1, 1), stay.roll(-1, 1)], 1)
    return (1 - slip) * certain + slip * certain.mean(1, keepdim=True)


def _from(transitions: Tensor, state: int | None = None, **ending: float) -> TabularMDP:
    states = len(transitions)
    initial = torch.full((states,), 1 / states, dtype=torch.float64)
    return TabularMDP(transitions, initial if state is None else torch.eye(states).double()[state], **ending)


def _soft(mdp: TabularMDP, features: Tensor, weights: Tensor) -> Tensor:
    return soft_value_iteration(mdp, features @ weights).policy


def _off(fit: ObjectiveFit, weights: Tensor) -> float:
    return float((fit.weights - weights).abs().max())


def _never_finite(fit: ObjectiveFit) -> bool:
    """Whether no interval of a weight, or of the difference between two, has an end."""
    count = len(fit.names)
    rows = torch.eye(count, dtype=torch.float64)
    contrasts = [*rows, *(rows[i] - rows[j] for i in range(count) for j in range(i))]
    return all(fit.interval(contrast) == (-math.inf, math.inf) for contrast in contrasts)


# Recovery


@pytest.mark.parametrize("ending", [{"horizon": 30}, {"discount": 0.95}], ids=str)
@pytest.mark.parametrize("transitions", [_ring, _dense])
@pytest.mark.parametrize("states", [100, 400])
def test_weights_of_a_soft_optimal_policy_are_recovered(states, transitions, ending):
    mdp = _from(transitions(states), **ending)
    features, weights = _random(states, 3, 6), _random(6)
    fit = max_causal_entropy_irl(mdp, features, _soft(mdp, features, weights))
    assert fit.converged
    assert fit.identified
    assert _off(fit, weights) <= 1e-8
    assert fit.log_likelihood == pytest.approx(fit.references["perfect"], abs=1e-10)


@pytest.mark.parametrize("ending", ENDINGS, ids=str)
def test_features_of_states_alone_will_do(ending):
    mdp = _from(_ring(20), **ending)
    features, weights = _random(20, 1, 4).expand(-1, 3, -1), _random(4)
    assert _off(max_causal_entropy_irl(mdp, features, _soft(mdp, features, weights)), weights) <= 1e-8


@pytest.mark.parametrize("scale", [1e-7, 1e-3, 10.0, 30.0])
@pytest.mark.parametrize("ending", ENDINGS, ids=str)
def test_choices_at_random_and_almost_certain_ones_are_recovered(ending, scale):
    """Relative to the size of the weights."""
    mdp = _from(_ring(20), **ending)
    features, weights = _random(20, 3, 4), scale * _random(4).sign()
    assert _off(max_causal_entropy_irl(mdp, features, _soft(mdp, features, weights)), weights) <= 1e-8 * max(1, scale)


@pytest.mark.parametrize("ending", ENDINGS, ids=str)
def test_units_of_features_do_not_matter(ending):
    mdp = _from(_dense(20), **ending)
    units = torch.tensor([1e-4, 1.0, 1e2, 1e4], dtype=torch.float64)
    features, weights = _random(20, 3, 4), _random(4)
    fit = max_causal_entropy_irl(mdp, features * units, _soft(mdp, features, weights))
    torch.testing.assert_close(fit.weights * units, weights, rtol=0, atol=1e-8)


@pytest.mark.parametrize("ending", ENDINGS, ids=str)
def test_a_rare_choice_is_recovered(ending):
    """With a probability of some 1e-9 anywhere it has almost no information, but a weight."""
    mdp = _from(_ring(20), **ending)
    features = torch.stack([torch.eye(3).double()[2].expand(20, 3), _random(20, 3)], -1)
    weights = torch.tensor([-20.0, 0.7], dtype=torch.float64)
    assert _off(max_causal_entropy_irl(mdp, features, _soft(mdp, features, weights)), weights) <= 1e-6


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta")
@pytest.mark.parametrize("ending", ENDINGS, ids=str)
def test_kinds_of_transitions_agree(ending):
    """Dense, and sparse in two ways of torch and in two of SciPy."""
    moves, states = _ring(30), 30
    features, weights = _random(states, 3, 4), _random(4)
    rows = moves.flatten(0, 1).numpy()
    kinds = [moves.to_sparse(), moves.to_sparse_csr(), sparse.csr_array(rows), sparse.coo_matrix(rows)]
    first = _from(moves, **ending)
    assert sparse.issparse(first.matrix)
    expected = soft_value_iteration(first, features @ weights)
    for kind in kinds:
        mdp = TabularMDP(kind, first.initial, **ending)
        assert (mdp.states, mdp.actions) == (states, 3)
        found = soft_value_iteration(mdp, features @ weights)
        torch.testing.assert_close(found.action_values, expected.action_values, rtol=0, atol=1e-12)
        assert _off(max_causal_entropy_irl(mdp, features, found.policy), weights) <= 1e-8


@pytest.mark.parametrize("ending", ENDINGS, ids=str)
def test_sparse_and_dense_algebra_agree(ending, monkeypatch):
    moves, features, policy = _ring(30), _random(30, 3, 4), _random(30, 3).softmax(-1)
    results = []
    for dense in (0.0, 1.0):
        monkeypatch.setattr("lightning_mesa.irl.tabular.DENSE", dense)
        mdp = _from(moves, **ending)
        assert sparse.issparse(mdp.matrix) == (dense == 1)
        parts = (*successor_features(mdp, features, policy), occupancy(mdp, policy))
        results.append((*parts, max_causal_entropy_irl(mdp, features, policy).solution))
    torch.testing.assert_close(*results, rtol=1e-8, atol=1e-8)


def test_a_policy_in_single_precision_is_good_for_single_precision():
    mdp = _from(_ring(20), horizon=12)
    features, weights = _random(20, 3, 4), _random(4)
    policy = _soft(mdp, features, weights).float()
    assert _off(max_causal_entropy_irl(mdp, features.float(), policy), weights) < 1e-5


@pytest.mark.parametrize("ending", ENDINGS, ids=str)
def test_no_other_weights_have_a_higher_likelihood(ending):
    """Of a policy outside the class: the likelihood, computed from its definition, falls in every direction."""
    mdp, features = _from(_ring(15), **ending), _random(15, 3, 3)
    policy = (2 * _random(15, 3)).softmax(-1)
    fit = max_causal_entropy_irl(mdp, features, policy)
    visits = occupancy(mdp, policy)

    def likelihood(weights: Tensor) -> float:
        model = _soft(mdp, features, weights)
        return float((visits[..., None] * policy * model.log()).sum() / visits.sum())

    best = likelihood(fit.weights)
    assert fit.log_likelihood == pytest.approx(best, abs=1e-10)
    assert fit.references["uniform"] < best < fit.references["perfect"]
    for direction in torch.cat([torch.eye(3), -torch.eye(3)]).double():
        assert likelihood(fit.weights + 1e-3 * direction) < best


# Soft values


@pytest.mark.parametrize("scale", [0.1, 1.0, 100.0])
@pytest.mark.parametrize("discount", [0.3, 0.9, 0.999])
@pytest.mark.parametrize("transitions", [_ring, _dense])
def test_soft_values_satisfy_the_bellman_equation(transitions, discount, scale):
    mdp = _from(transitions(40), discount=discount)
    reward = scale * _random(40, 3)
    policy, values, action_values = soft_value_iteration(mdp, reward)
    following = torch.einsum("sat,t->sa", mdp.transitions, values)
    size = max(1.0, float(values.abs().max()))
    assert (action_values - reward - discount * following).abs().max() <= 1e-10 * size
    assert (values - action_values.logsumexp(1)).abs().max() <= 1e-10 * size
    torch.testing.assert_close(policy, (action_values - values[:, None]).exp())
    torch.testing.assert_close(policy.sum(1), torch.ones(40, dtype=torch.float64))


@pytest.mark.parametrize("transitions", [_ring, _dense])
def test_soft_values_agree_with_value_iteration(transitions):
    mdp, reward = _from(transitions(40), discount=0.9), _random(40, 3)
    values = torch.zeros(40, dtype=torch.float64)
    for _ in range(400):
        values = (reward + 0.9 * torch.einsum("sat,t->sa", mdp.transitions, values)).logsumexp(1)
    torch.testing.assert_close(soft_value_iteration(mdp, reward).values, values, rtol=0, atol=1e-10)


def test_a_far_horizon_is_none():
    """Values at the first of many steps are those without a horizon, and with one they fulfil its recursion."""
    moves, reward = _dense(20), _random(20, 3)
    near = soft_value_iteration(_from(moves, horizon=300, discount=0.9), reward)
    far = soft_value_iteration(_from(moves, discount=0.9), reward)
    torch.testing.assert_close(near.values[0], far.values, rtol=0, atol=1e-10)
    torch.testing.assert_close(near.action_values[-1], reward)
    following = torch.einsum("sat,ht->hsa", moves, near.values[1:])
    torch.testing.assert_close(near.action_values[:-1], reward + 0.9 * following, rtol=0, atol=1e-10)


def test_the_soft_optimal_policy_has_the_highest_return_with_entropy():
    mdp, reward = _from(_dense(10), discount=0.9), _random(10, 3)

    def worth(policy: Tensor) -> float:
        return float((occupancy(mdp, policy)[:, None] * policy * (reward - policy.log())).sum())

    best, values, _ = soft_value_iteration(mdp, reward)
    assert worth(best) == pytest.approx(float(values.mean()), abs=1e-10)
    assert all(worth((best.log() + 0.1 * _random(10, 3)).softmax(1)) < worth(best) for _ in range(20))


# Successor features


@pytest.mark.parametrize("ending", ENDINGS, ids=str)
@pytest.mark.parametrize("transitions", [_ring, _dense])
def test_successor_features_give_back_the_policy(transitions, ending):
    mdp, features, weights = _from(transitions(25), **ending), _random(25, 3, 4), _random(4)
    policy = _soft(mdp, features, weights)
    psi, entropy = successor_features(mdp, features, policy)
    torch.testing.assert_close((psi @ weights + entropy).softmax(-1), policy, rtol=0, atol=1e-10)
    fit = fit_conditional_logit(
        psi.flatten(0, -3),
        policy.flatten(0, -2),
        weights=occupancy(mdp, policy).flatten(),
        offset=entropy.flatten(0, -2),
        exhaustive=True,
    )
    assert _off(fit, weights) <= 1e-8


@pytest.mark.parametrize("ending", ENDINGS, ids=str)
def test_what_is_collected_is_what_is_visited(ending):
    """``E[sum_a pi psi]`` at the start is the sum over visits; visits add up to the length of an episode."""
    mdp, features, policy = _from(_ring(25), state=3, **ending), _random(25, 3, 4), _random(25, 3).softmax(-1)
    psi, _ = successor_features(mdp, features, policy)
    first = (psi[0] if mdp.horizon else psi)[3]
    visits = occupancy(mdp, policy)
    assert visits.shape == ((12, 25) if mdp.horizon else (25,))
    collected = torch.einsum("s,sa,sak->k", visits.reshape(-1, 25).sum(0), policy, features)
    torch.testing.assert_close(policy[3] @ first, collected)
    length = sum(mdp.discount**t for t in range(mdp.horizon or 1000))
    assert float(visits.sum()) == pytest.approx(length, abs=1e-9)


def test_a_policy_that_changes_with_time_is_taken_as_it_is():
    mdp, features = _from(_ring(10), horizon=2), _random(10, 3, 2)
    policy = _random(2, 10, 3).softmax(-1)
    psi, entropy = successor_features(mdp, features, policy)
    ahead = torch.einsum("sat,tb,tbk->sak", mdp.transitions, policy[1], features)
    torch.testing.assert_close(psi, torch.stack([features + ahead, features]))
    spread = torch.einsum("sat,t->sa", mdp.transitions, -(policy[1] * policy[1].log()).sum(1))
    torch.testing.assert_close(entropy, torch.stack([spread, torch.zeros_like(spread)]))


def test_one_decision_is_the_conditional_logit():
    """With a horizon of 1, and the initial states as weights; of any policy, inside the class or outside."""
    initial = torch.rand(30, dtype=torch.float64)
    mdp = TabularMDP(_dense(30), initial / initial.sum(), horizon=1)
    features, policy = _random(30, 3, 4), (2 * _random(30, 3)).softmax(-1)
    whole = max_causal_entropy_irl(mdp, features, policy)
    one = fit_conditional_logit(features, policy, weights=initial, exhaustive=True)
    torch.testing.assert_close(whole.weights, one.weights, rtol=0, atol=1e-8)
    torch.testing.assert_close(whole.bread, one.bread, rtol=1e-4, atol=0)
    assert whole.log_likelihood == pytest.approx(one.log_likelihood, abs=1e-10)
    assert whole.references == pytest.approx(one.references)


# What does not count, and what ends


@pytest.mark.parametrize("ending", ENDINGS, ids=str)
@pytest.mark.parametrize("size", [1.0, 1e6, 1e100])
def test_unreachable_states_do_not_matter(size, ending):
    """Whatever policy and features are there; they may lead to reachable ones."""
    inside = _ring(10)
    moves = torch.zeros(14, 3, 14, dtype=torch.float64)
    moves[:10, :, :10] = inside
    moves[10:] = _dense(14)[10:]
    initial = torch.cat([torch.full((10,), 0.1), torch.zeros(4)]).double()
    features, weights = _random(14, 3, 3), _random(3)
    small = _from(inside, **ending)
    expected = _soft(small, features[:10], weights)
    features[10:] *= size
    policy = _random(*expected.shape[:-2], 14, 3).softmax(-1)
    policy[..., :10, :] = expected
    policy[..., 10, :] = torch.tensor([1.0, 0, 0])
    fit = max_causal_entropy_irl(TabularMDP(moves, initial, **ending), features, policy)
    assert fit.converged
    assert _off(fit, weights) <= 1e-8


@pytest.mark.parametrize("ending", ENDINGS, ids=str)
def test_what_is_done_where_the_policy_never_goes_does_not_matter(ending):
    """Nor does it have to be in the class: the ways to states 8 and 9 are open, and never taken."""
    moves = _ring(10, slip=0)
    moves[8:] = torch.eye(10).double()[8:, None]
    moves[:8, 0] = torch.eye(10).double()[8]
    policy = torch.cat([torch.zeros(10, 1), torch.rand(10, 2)], 1).double()
    policy[[0, 7], 1:] = torch.eye(2).double()  # turn around in time
    policy /= policy.sum(1, keepdim=True)
    mdp, features = _from(moves, state=3, **ending), _random(10, 3, 2)
    assert bool((occupancy(mdp, policy).reshape(-1, 10).sum(0)[8:] == 0).all())
    expected = max_causal_entropy_irl(mdp, features, policy)
    policy[8:] = torch.tensor([0.1, 0.2, 0.7])
    found = max_causal_entropy_irl(mdp, features, policy)
    assert found.log_likelihood == expected.log_likelihood
    torch.testing.assert_close(found.weights, expected.weights, rtol=0, atol=0)


@pytest.mark.parametrize("ending", ENDINGS, ids=str)
def test_episodes_that_end_are_recovered(ending):
    """Rows that add up to less than 1, and to 0: values there are those of the last decision."""
    moves = _ring(20)
    moves[:, 0] *= 0.5
    moves[5] = 0
    mdp, features, weights = _from(moves, **ending), _random(20, 3, 4), _random(4)
    soft = soft_value_iteration(mdp, features @ weights)
    last = features[5] @ weights
    torch.testing.assert_close(soft.action_values[..., 5, :], last.expand_as(soft.action_values[..., 5, :]))
    visits = occupancy(mdp, soft.policy)
    assert float(visits.sum()) < sum(mdp.discount**t for t in range(mdp.horizon or 1000))
    assert _off(max_causal_entropy_irl(mdp, features, soft.policy), weights) <= 1e-8


def test_an_end_is_worth_as_much_as_a_state_that_pays_nothing_with_one_choice():
    """Ending with the rest of a row, and going where nothing can be done or had, are the same."""
    moves, features, weights = 0.8 * _dense(6, 2), _random(6, 2, 3), _random(3)
    ending = soft_value_iteration(_from(moves, discount=0.9), features @ weights)
    gone = torch.zeros(7, 2, 7, dtype=torch.float64)
    gone[:6, :, :6], gone[:6, :, 6], gone[6, :, 6] = moves, 0.2, 1
    # Two choices alike are worth log 2 more than one.
    reward = torch.cat([features @ weights, torch.full((1, 2), -math.log(2)).double()])
    staying = soft_value_iteration(_from(gone, discount=0.9), reward)
    torch.testing.assert_close(staying.values[:6], ending.values)


# What cannot be told


@pytest.mark.parametrize("ending", ENDINGS, ids=str)
def test_a_deterministic_policy_has_a_direction_and_no_size(ending):
    mdp, features = _from(_ring(20), **ending), _random(20, 3, 3)
    pursued = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    best = soft_value_iteration(mdp, 1e4 * features @ pursued).action_values.argmax(-1)
    fit = max_causal_entropy_irl(mdp, features, torch.eye(3).double()[best])
    assert not fit.converged
    assert fit.scale == math.inf
    assert _never_finite(fit)
    assert bool(fit.weights.isnan().all())
    assert bool(fit.direction.isfinite().all())
    assert float(fit.direction.norm()) == pytest.approx(1)
    assert fit.direction @ pursued / pursued.norm() > 0.9
    assert fit.log_likelihood == pytest.approx(0, abs=1e-8)


@pytest.mark.parametrize("ending", ENDINGS, ids=str)
@pytest.mark.parametrize("rare", [0.5, 1e-4])
def test_one_thing_that_is_never_done_has_no_finite_weight(rare, ending):
    """Even where it could be done only seldom, and all else is random: no interval of it is finite."""
    moves = _ring(20)
    initial = torch.full((20,), (1 - rare) / 19, dtype=torch.float64)
    initial[7] = rare
    mdp = TabularMDP(moves, initial, **ending)
    features = torch.stack([torch.zeros(20, 3), torch.randn(20, 3)], -1).double()
    features[7, 2, 0] = 1
    policy = _random(20, 3).softmax(-1)
    policy[7] = torch.tensor([0.5, 0.5, 0])
    fit = max_causal_entropy_irl(mdp, features, policy)
    assert not fit.converged
    assert _never_finite(fit)


@pytest.mark.parametrize("ending", ENDINGS, ids=str)
def test_duplicates_are_named_and_have_no_weight(ending):
    mdp, features = _from(_ring(20), **ending), _random(20, 3, 3)
    features = torch.cat([features, features[..., :1]], -1)
    policy = _soft(mdp, features, torch.tensor([1.0, -1.0, 0.5, 0.25]).double())
    fit = max_causal_entropy_irl(mdp, features, policy, names=["coin", "wall", "door", "penny"])
    assert fit.converged
    assert fit.weights.isnan().tolist() == [True, False, False, True]
    torch.testing.assert_close(fit.weights[1:3], torch.tensor([-1.0, 0.5]).double(), rtol=0, atol=1e-8)
    (words,) = fit.unidentified
    assert words in ("coin against penny: no choice tells", "penny against coin: no choice tells")
    for contrast in ([1.0, 0, 0, 0], [0, 0, 0, 1.0], [1.0, 0, 0, -1.0]):
        assert fit.interval(contrast) == (-math.inf, math.inf)
    # Their sum is told.
    assert fit.estimate([1.0, 0, 0, 1.0]) == pytest.approx(1.25, abs=1e-8)


@pytest.mark.parametrize("ending", ENDINGS, ids=str)
def test_duplicates_in_other_units_are_told_where_they_are(ending):
    """Of weights u and v for a coin and for 2 coins, u + 2 v is identified, and 2 u + v is not."""
    mdp, coin = _from(_ring(20), **ending), _random(20, 3, 1)
    features = torch.cat([coin, 2 * coin], -1)
    fit = max_causal_entropy_irl(mdp, features, _soft(mdp, features, torch.tensor([0.25, 0.125]).double()))
    assert fit.estimate([1.0, 2.0]) == pytest.approx(0.5, abs=1e-8)
    for contrast in ([1.0, 0], [0, 1.0], [2.0, 1.0]):
        assert fit.interval(contrast) == (-math.inf, math.inf)


@pytest.mark.parametrize("ending", ENDINGS, ids=str)
def test_features_that_are_almost_alike_are_told_apart(ending):
    mdp, features, weights = _from(_ring(20), **ending), _random(20, 3, 3), _random(3)
    features[..., 2] = features[..., 1] + 1e-3 * features[..., 2]
    fit = max_causal_entropy_irl(mdp, features, _soft(mdp, features, weights))
    assert fit.identified
    assert _off(fit, weights) <= 1e-8


@pytest.mark.parametrize("ending", ENDINGS, ids=str)
def test_shaping_and_constants_are_not_identified(ending):
    """A constant, alone or with others, and a potential's difference, which no policy depends on."""
    potential = torch.zeros(20) if "horizon" in ending else torch.randn(20)  # with a horizon its end would count
    moves = _ring(20)
    mdp = _from(moves, **ending)
    shaping = potential[:, None] - mdp.discount * torch.einsum("sat,t->sa", moves, potential.double())
    constant = torch.full((20, 3), 0.1, dtype=torch.float64)
    features = torch.stack([constant, shaping, _random(20, 3)], -1)
    policy = _soft(mdp, features, torch.ones(3).double())
    fit = max_causal_entropy_irl(mdp, features, policy)
    assert fit.weights.isnan().tolist() == [True, True, False]
    assert float(fit.weights[2]) == pytest.approx(1, abs=1e-8)
    for alone in (features[..., :1], features[..., 1:2]):
        fit = max_causal_entropy_irl(mdp, alone, policy)
        assert not fit.identified
        assert _never_finite(fit)
        assert fit.log_likelihood == pytest.approx(-math.log(3))


@pytest.mark.parametrize("discount", [0.9, 0.999, 0.999999])
@pytest.mark.parametrize("actions", [3, 7])
def test_a_constant_is_not_identified_whatever_the_discount(actions, discount):
    """Rounding, which grows with the length of an episode, is not taken for information."""
    mdp = _from(_dense(30, actions), discount=discount)
    fit = max_causal_entropy_irl(mdp, torch.full((30, actions, 1), 0.1), _random(30, actions).softmax(-1))
    assert fit.weights.isnan().all()


def test_where_a_constant_makes_episodes_longer_it_is_identified():
    moves = _ring(20)
    moves[:, 0] *= 0.5
    mdp, features = _from(moves, discount=0.9), torch.ones(20, 3, 1, dtype=torch.float64)
    weights = torch.tensor([-0.7]).double()
    assert _off(max_causal_entropy_irl(mdp, features, _soft(mdp, features, weights)), weights) <= 1e-8


@pytest.mark.parametrize("ending", ENDINGS, ids=str)
def test_more_features_than_state_action_pairs(ending):
    mdp, features, weights = _from(_dense(3, 2), **ending), _random(3, 2, 10), _random(10)
    policy = _soft(mdp, features, weights)
    fit = max_causal_entropy_irl(mdp, features, policy)
    assert fit.converged
    assert fit.weights.isnan().all()
    assert not fit.identified
    torch.testing.assert_close(_soft(mdp, features, fit.solution), policy, rtol=0, atol=1e-8)


@pytest.mark.parametrize("ending", ENDINGS, ids=str)
def test_of_a_single_action_nothing_is_identified(ending):
    mdp = _from(_dense(8, 1), **ending)
    fit = max_causal_entropy_irl(mdp, _random(8, 1, 3), torch.ones(8, 1))
    assert fit.weights.isnan().all()
    assert len(fit.unidentified) == 3
    assert _never_finite(fit)
    assert fit.log_likelihood == fit.references["uniform"] == pytest.approx(0)


def test_an_interval_is_a_point_where_the_weight_is_identified():
    mdp, features, weights = _from(_ring(20), horizon=12), _random(20, 3, 2), _random(2)
    fit = max_causal_entropy_irl(mdp, features, _soft(mdp, features, weights))
    for row, weight in zip(torch.eye(2).double(), weights.tolist(), strict=True):
        low, high = fit.interval(row)
        assert low == high == pytest.approx(weight, abs=1e-8)


# Input that is refused

MOVES, FIRST = torch.full((4, 2, 4), 0.25), torch.full((4,), 0.25)
NOT_FINITE = (math.nan, math.inf, -math.inf)


def _with(tensor: Tensor, value: float) -> Tensor:
    changed = tensor.clone()
    changed.view(-1)[0] = value
    return changed


@pytest.mark.parametrize(
    ("transitions", "initial", "ending"),
    [
        *[(_with(MOVES, value), FIRST, {"horizon": 3}) for value in (-0.25, 0.5, *NOT_FINITE)],
        *[(MOVES, _with(FIRST, value), {"horizon": 3}) for value in (-0.25, 0.5, *NOT_FINITE)],
        (MOVES, torch.tensor([1.5, -0.5, 0, 0]), {"horizon": 3}),
        (MOVES, FIRST[:3], {"horizon": 3}),
        (MOVES[:3], FIRST, {"horizon": 3}),
        (MOVES[:, :, :3], FIRST[:3], {"horizon": 3}),
        (torch.full((4, 2, 8), 0.1), torch.full((8,), 0.125), {"horizon": 3}),
        (MOVES[:0], FIRST, {"horizon": 3}),
        (MOVES[:, :0], FIRST, {"horizon": 3}),
        (MOVES[None], FIRST, {"horizon": 3}),
        (sparse.csr_array(MOVES.flatten(0, 1)[:7].numpy()), FIRST, {"horizon": 3}),
        (sparse.csr_array(-MOVES.flatten(0, 1).numpy()), FIRST, {"horizon": 3}),
        (MOVES, FIRST, {}),
        (MOVES, FIRST, {"discount": 1.0}),
        (MOVES, FIRST, {"discount": 1.1, "horizon": 3}),
        (MOVES, FIRST, {"discount": 0.0}),
        (MOVES, FIRST, {"discount": -0.5}),
        (MOVES, FIRST, {"discount": math.nan}),
        (MOVES, FIRST, {"horizon": 0}),
    ],
)
def test_processes_that_are_none_are_refused(transitions, initial, ending):
    with pytest.raises(ValueError, match=r"transitions|initial|discount|horizon"):
        TabularMDP(transitions, initial, **ending)


FEATURES, POLICY = torch.ones(4, 2, 3), torch.full((4, 2), 0.5)


@pytest.mark.parametrize("call", [max_causal_entropy_irl, successor_features])
@pytest.mark.parametrize(
    ("features", "policy"),
    [
        *[(_with(FEATURES, value), POLICY) for value in NOT_FINITE],
        *[(FEATURES, _with(POLICY, value)) for value in (-0.5, 0.4, *NOT_FINITE)],
        (FEATURES, torch.tensor([[1.5, -0.5]] * 4)),
        (FEATURES[:, :, 0], POLICY),
        (FEATURES[:3], POLICY),
        (FEATURES[:, :1], POLICY),
        (FEATURES, POLICY[:3]),
        (FEATURES, POLICY[:, :1]),
        (FEATURES, POLICY.expand(2, 4, 2)),
    ],
)
def test_features_and_policies_that_are_none_are_refused(features, policy, call):
    for ending in ({"horizon": 3}, {"discount": 0.9}):
        with pytest.raises(ValueError, match=r"features|policy"):
            call(TabularMDP(MOVES, FIRST, **ending), features, policy)


@pytest.mark.parametrize("reward", [_with(POLICY, math.nan), POLICY[:3], POLICY[0], POLICY.expand(3, 4, 2)])
def test_rewards_that_are_none_are_refused(reward):
    with pytest.raises(ValueError, match="reward"):
        soft_value_iteration(TabularMDP(MOVES, FIRST, horizon=3), reward)


def test_names_must_be_as_many_as_features():
    mdp = TabularMDP(MOVES, FIRST, horizon=3)
    with pytest.raises(ValueError, match="2 names for 3 features"):
        max_causal_entropy_irl(mdp, FEATURES, POLICY, names=["a", "b"])
