"""The behavioral objective from what follows a choice: exact where that is known, and unbiased where it is seen."""

import math

import pytest
import torch
from scipy.stats import binom
from torch import Tensor

from irl_coverage import CONTRAST, World, rollouts, successor, two_looks
from lightning_mesa.irl.conditional_logit import fit_conditional_logit
from lightning_mesa.irl.successor import (
    discounted_sums,
    explained_share,
    fit_rollouts,
    fit_successor_features,
    successor_irl,
)
from lightning_mesa.irl.tabular import (
    TabularMDP,
    max_causal_entropy_irl,
    soft_value_iteration,
    successor_features,
)
from quick import quick

WEIGHTS = torch.tensor([1.0, -0.5], dtype=torch.float64)
ENDINGS = [{"horizon": 12}, {"horizon": 12, "discount": 0.9}, {"discount": 0.9}]


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


def _random(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def _mdp(**ending: float) -> TabularMDP:
    moves = _random(10, 3, 10).mul(2).softmax(-1)
    return TabularMDP(moves, torch.full((10,), 0.1), **ending)


# Processes that are known


@pytest.mark.parametrize("ending", ENDINGS, ids=str)
def test_successor_features_give_the_weights_of_maximum_causal_entropy(ending):
    """Exact for a soft-optimal policy, without any planning; nothing is sampled, and limits are points."""
    mdp, features = _mdp(**ending), _random(10, 3, 2)
    policy = soft_value_iteration(mdp, features @ WEIGHTS).policy
    fit = successor_irl(mdp, features, policy, names=["coin", "door"])
    planned = max_causal_entropy_irl(mdp, features, policy)
    torch.testing.assert_close(fit.weights, WEIGHTS, rtol=0, atol=1e-8)
    torch.testing.assert_close(fit.weights, planned.weights, rtol=0, atol=1e-8)
    assert fit.log_likelihood == pytest.approx(planned.log_likelihood, abs=1e-10)
    assert fit.references == pytest.approx(planned.references)
    assert fit.names == ("coin", "door")
    assert fit.interval([1.0, 0.0]) == (float(fit.weights[0]),) * 2


def test_shaping_is_identified_by_neither():
    mdp, potential = _mdp(discount=0.9), _random(10)
    shaping = 0.9 * torch.einsum("sat,t->sa", mdp.transitions, potential) - potential[:, None]
    features = torch.stack([_random(10, 3), shaping], -1)
    fit = successor_irl(mdp, features, soft_value_iteration(mdp, features @ WEIGHTS).policy)
    assert fit.weights.isnan().tolist() == [False, True]
    assert float(fit.weights[0]) == pytest.approx(1, abs=1e-8)


# Two looks at what follows


def test_without_noise_two_looks_are_exact():
    """Over some of the choices, too, and whatever is the same for all of them."""
    x, h, log_p, _ = two_looks(0.0)
    fit = fit_successor_features(x, h, log_p)
    torch.testing.assert_close(fit.weights, torch.tensor([1.0, 2.0]).double(), rtol=0, atol=1e-10)
    assert fit.log_likelihood == pytest.approx(fit.references["perfect"], abs=1e-10)
    some = fit_successor_features(x[:, :, :2] + _random(2, 1000, 1, 2), h[..., :2], log_p[:, :2] + _random(1000, 1))
    torch.testing.assert_close(some.weights, fit.weights, rtol=0, atol=1e-10)


@pytest.mark.slow
@pytest.mark.parametrize("noise", quick([0.1, 0.5], 0.5))
def test_instruments_cover_where_the_plain_fit_does_not(noise):
    """95 % limits with clusters; the average of both looks is biased towards 0, the more the noisier."""
    runs = 100
    found = successor(noise, runs)
    instruments, plain = found["instruments"], found["plain"]
    assert all(one.identified for one in instruments)
    assert sum(one.covers for one in instruments) >= binom.ppf(0.002, runs, 0.95)
    estimates = [torch.tensor([one.estimate for one in part]) for part in (instruments, plain)]
    assert float(estimates[0].mean()) == pytest.approx(1, abs=4 * float(estimates[0].std()) / math.sqrt(runs))
    assert float(estimates[1].mean()) < (0.9 if noise == 0.5 else 0.995)
    if noise == 0.5:
        assert sum(one.covers for one in plain) < runs / 10


def test_both_looks_count_alike():
    x, h, log_p, clusters = two_looks(0.5)
    one, other = (
        fit_successor_features(*looks, log_p, clusters=clusters) for looks in ((x, h), (x.flip(0), h.flip(0)))
    )
    torch.testing.assert_close(one.solution, other.solution)
    torch.testing.assert_close(one.covariance, other.covariance)
    assert one.effective(CONTRAST) == pytest.approx(other.effective(CONTRAST))


def test_units_of_a_feature_change_its_weight_and_nothing_else():
    x, h, log_p, _ = two_looks(0.3)
    units = torch.tensor([1.0, 1e6], dtype=torch.float64)
    one, other = fit_successor_features(x, h, log_p), fit_successor_features(x * units, h, log_p)
    torch.testing.assert_close(other.weights * units, one.weights)
    assert other.interval(CONTRAST * units) == pytest.approx(one.interval(CONTRAST))


def _line() -> tuple[TabularMDP, Tensor, Tensor]:
    """Deterministic, with an end that is reached whatever is done; features and a soft-optimal policy."""
    moves = torch.zeros(12, 3, 12, dtype=torch.float64)
    for state in range(12):
        for action in range(3):
            if state + action < 11:
                moves[state, action, state + action + 1] = 1
    mdp = TabularMDP(moves, torch.full((12,), 1 / 12), discount=0.9)
    features = _random(12, 3, 2)
    return mdp, features, soft_value_iteration(mdp, features @ WEIGHTS).policy


def _one_look(mdp: TabularMDP, features: Tensor, policy: Tensor, behavior: Tensor) -> tuple[Tensor, Tensor]:
    """``[S, A, K]`` what was collected after each choice, by ``behavior``, and ``[S, A]`` the surprisal."""
    psi, surprisal = features.clone(), torch.zeros_like(policy)
    for state in range(mdp.states):
        for action in range(mdp.actions):
            here, weight, move = state, 1.0, action
            while bool(mdp.transitions[here, move].any()):
                here, weight = int(mdp.transitions[here, move].argmax()), weight * mdp.discount
                move = int(torch.multinomial(behavior[here], 1))
                psi[state, action] += weight * features[here, move]
                surprisal[state, action] -= weight * policy[here, move].log()
    return psi, surprisal


@pytest.mark.parametrize("exploring", [0.0, 1.0])
def test_with_surprisals_one_noisy_look_is_exact_in_a_deterministic_environment(exploring):
    """As noise of features and surprisals cancels along every path, whoever chooses; both halves are the same look."""
    mdp, features, policy = _line()
    psi, surprisal = _one_look(mdp, features, policy, (1 - exploring) * policy + exploring / 3)
    exact, entropy = successor_features(mdp, features, policy)
    assert float((psi - exact).abs().max()) > 0.5
    plain = fit_conditional_logit(psi, policy, offset=surprisal)
    torch.testing.assert_close(plain.solution, WEIGHTS, rtol=0, atol=1e-8)
    fit = fit_successor_features(psi.expand(2, -1, -1, -1), surprisal.expand(2, -1, -1), policy.log())
    torch.testing.assert_close(fit.solution, WEIGHTS, rtol=0, atol=1e-8)
    assert float(fit.covariance.abs().max()) < 1e-16
    # With the expected entropy instead the noise of the features is left.
    other = fit_conditional_logit(psi, policy, offset=entropy)
    assert float((other.solution - WEIGHTS).abs().max()) > 0.01


@pytest.mark.parametrize(
    ("features", "words"),
    [
        (torch.zeros(2, 50, 3, 2), ("coin: no choice tells", "door: no choice tells")),
        (torch.rand(2, 50, 3, 1).expand(-1, -1, -1, 2), ("coin against door: no choice tells",)),
        (torch.rand(2, 50, 1, 2).expand(-1, -1, 3, -1), ("coin: no choice tells", "door: no choice tells")),
        (torch.zeros(2, 0, 3, 2), ("coin: no choice tells", "door: no choice tells")),
    ],
    ids=["zeros", "duplicates", "the same for all choices", "no decisions"],
)
def test_features_that_tell_nothing_have_no_weights(features, words):
    decisions = features.shape[1]
    log_p = _random(decisions, 3).log_softmax(1)
    fit = fit_successor_features(features, torch.zeros(2, decisions, 3), log_p, names=["coin", "door"])
    assert fit.unidentified == words
    assert fit.weights.isnan().all()
    assert fit.interval(CONTRAST) == (-math.inf, math.inf)


def test_what_is_nothing_but_noise_is_not_identified():
    """Two looks that have nothing in common: no number, whatever comes out of the division."""
    x, h, log_p = _random(2, 300, 4, 2), torch.zeros(2, 300, 4), _random(300, 4).log_softmax(1)
    fit = fit_successor_features(x, h, log_p)
    assert not fit.identifies(CONTRAST)
    assert fit.interval(CONTRAST) == (-math.inf, math.inf)


# How much is explained


@pytest.mark.parametrize(("noise", "off"), [(0.0, 1e-9), (0.5, 0.05)])
def test_all_that_a_soft_optimal_policy_prefers_is_explained(noise, off):
    """However noisy the looks: what they have in common is compared."""
    x, h, log_p, clusters = two_looks(noise)
    fit = fit_successor_features(x, h, log_p, clusters=clusters)
    found = explained_share(fit, x, h, log_p, clusters=clusters)
    assert found.value == pytest.approx(1, abs=off)
    assert 1 - 3 * off < found.low <= found.value <= found.high <= 1


def test_what_a_random_device_prefers_is_not_explained():
    x, h, _, clusters = two_looks(0.3)
    log_p = (2 * _random(1000, 4)).log_softmax(1)
    fit = fit_successor_features(x, torch.zeros_like(h), log_p, clusters=clusters)
    found = explained_share(fit, x, torch.zeros_like(h), log_p, clusters=clusters)
    assert 0 <= found.low <= found.value < 0.03
    assert found.high < 0.06


def test_half_of_what_is_preferred_is_explained_where_half_is_something_else():
    """Features with weights 1 and 2 have a variance of 5, and so has what is preferred besides."""
    true, nothing = _random(1000, 4, 2), torch.zeros(2, 1000, 4)
    log_p = (true @ torch.tensor([1.0, 2.0]).double() + math.sqrt(5) * _random(1000, 4)).log_softmax(1)
    looks = true + 0.3 * _random(2, 1000, 4, 2)
    fit = fit_successor_features(looks, nothing, log_p)
    found = explained_share(fit, looks, nothing, log_p)
    assert found.low < 0.5 < found.high
    assert found.high - found.low < 0.15


def test_a_policy_that_prefers_nothing_has_no_share():
    x, h, _, _ = two_looks(0.3)
    log_p, nothing = torch.full((1000, 4), -math.log(4)), torch.zeros_like(h)
    found = explained_share(fit_successor_features(x, nothing, log_p), x, nothing, log_p)
    assert math.isnan(found.value)
    assert (found.low, found.high) == (0, 1)


# Recorded episodes


@pytest.mark.parametrize("exploring", quick([0.0, 0.5]))
def test_limits_from_recorded_episodes_cover(exploring):
    """200 episodes of a random process, by the policy itself or half at random; the targets of the benchmark."""
    runs = 50
    found = rollouts(0.8, exploring, runs)
    assert all(one.identified for one in found)
    assert sum(one.covers for one in found) >= binom.ppf(0.002, runs, 0.95)
    estimates = torch.tensor([one.estimate for one in found])
    assert float(estimates.mean()) == pytest.approx(0.5, abs=4 * float(estimates.std()) / math.sqrt(runs))


def _record(episodes: int = 50) -> tuple[World, tuple[Tensor, Tensor, Tensor, Tensor, Tensor]]:
    """A world, and the positional arguments of :func:`fit_rollouts`."""
    world = World.drawn(0.9)
    state, action, episode = world.recorded(world.policy, episodes)
    encodings = torch.eye(36, dtype=torch.float64).reshape(12, 3, 36)[state]
    return world, (world.features[state, action], world.policy[state].log(), action, episode, encodings)


def test_labels_of_episodes_and_constants_of_log_probabilities_do_not_matter():
    _, (phi, log_p, action, episode, encodings) = _record()
    one = fit_rollouts(phi, log_p, action, episode, encodings, discount=0.9)
    moved = log_p + _random(len(phi), 1)
    other = fit_rollouts(phi, moved, action, 10 * episode + 3, encodings, discount=0.9)
    torch.testing.assert_close(other.solution, one.solution)
    torch.testing.assert_close(other.covariance, one.covariance)


def test_a_behavior_that_is_the_policy_needs_not_be_told():
    _, arguments = _record()
    one, other = (fit_rollouts(*arguments, discount=0.9, behavior=b) for b in (None, arguments[1].exp()))
    torch.testing.assert_close(one.solution, other.solution)
    assert one.references["perfect"] > one.references["uniform"]
    assert one.units is not None
    assert len(one.units) == 50


def test_without_a_discount_to_come_each_decision_stands_alone():
    """Where episodes have one step, the weights are those of a single choice, in expectation."""
    phi, runs = _random(5, 3, 2), 40
    policy = (phi @ WEIGHTS).softmax(1)
    estimates = []
    for _ in range(runs):
        state = torch.arange(400) % 5
        action = torch.multinomial(policy[state], 1)[:, 0]
        encodings = phi[state]
        fit = fit_rollouts(
            phi[state, action],
            policy[state].log(),
            action,
            torch.arange(400),
            encodings,
            discount=1.0,
            names=["a", "b"],
        )
        estimates.append(fit.solution)
    off = torch.stack(estimates).mean(0) - WEIGHTS
    assert float(off.abs().max()) < 4 * float(torch.stack(estimates).std(0).max()) / math.sqrt(runs)


def test_a_policy_that_leaves_no_choice_identifies_nothing():
    """What is done is what was to be expected, and instruments are 0."""
    _, (phi, _, action, episode, encodings) = _record()
    certain = torch.nn.functional.one_hot(action, 3).double()
    log_p = (certain + 1e-9).log()
    fit = fit_rollouts(phi, log_p, action, episode, encodings, discount=0.9, behavior=certain)
    assert not fit.identified
    assert fit.weights.isnan().all()


def test_discounted_sums_agree_with_values_by_hand():
    """Two episodes of two and three steps; the first of each is worth 1 + .5 * 2, and 3 + .5 * (4 + .5 * 5)."""
    steps = torch.tensor([[1.0, 10], [2, 20], [3, 0], [4, 0], [5, 100]])
    found = discounted_sums(steps, torch.tensor([7, 7, 3, 3, 3]), 0.5)
    assert found.tolist() == [[2, 20], [2, 20], [6.25, 25], [6.5, 50], [5, 100]]
    assert steps[0].tolist() == [1, 10]  # what is given stays as it is
    whole = discounted_sums(steps, torch.zeros(5), 1.0)
    assert whole[0].tolist() == [15, 130]
    assert discounted_sums(steps[:0], torch.zeros(0), 0.5).shape == (0, 2)


# Input that is refused

LOOKS, OFFSETS, LOG_P = torch.rand(2, 5, 3, 2), torch.zeros(2, 5, 3), torch.zeros(5, 3)


def _with(tensor: Tensor, value: float) -> Tensor:
    changed = tensor.clone()
    changed.view(-1)[0] = value
    return changed


@pytest.mark.parametrize(
    ("looks", "offsets", "log_p", "message"),
    [
        (LOOKS[0], OFFSETS, LOG_P, "features must be"),
        (LOOKS[:1], OFFSETS[:1], LOG_P, "features must be"),
        (LOOKS, OFFSETS[:, :4], LOG_P, "features must be"),
        (LOOKS, OFFSETS, LOG_P[:4], "features must be"),
        *[(_with(LOOKS, x), OFFSETS, LOG_P, "features must be finite") for x in (math.nan, math.inf)],
        *[(LOOKS, _with(OFFSETS, x), LOG_P, "offsets must be finite") for x in (math.nan, -math.inf)],
        *[(LOOKS, OFFSETS, _with(LOG_P, x), "log_probabilities must be finite") for x in (math.nan, -math.inf)],
    ],
)
def test_looks_that_do_not_fit_are_refused(looks, offsets, log_p, message):
    with pytest.raises(ValueError, match=message):
        fit_successor_features(looks, offsets, log_p)


@pytest.mark.parametrize(
    ("position", "value", "message"),
    [
        (0, torch.rand(6), "features must be"),
        (0, torch.rand(5, 2), "features must be"),
        (1, torch.zeros(6, 2), "features must be"),
        (2, torch.zeros(5), "features must be"),
        (3, torch.zeros(5), "features must be"),
        (4, torch.rand(6, 3), "features must be"),
        (0, torch.full((6, 2), math.nan), "must be finite"),
        (1, torch.full((6, 3), -math.inf), "must be finite"),
        (4, torch.full((6, 3, 4), math.inf), "must be finite"),
        (3, torch.zeros(6), "two episodes at least"),
    ],
)
def test_episodes_that_do_not_fit_are_refused(position, value, message):
    arguments = [torch.rand(6, 2), torch.zeros(6, 3), torch.zeros(6), torch.arange(6) // 3, torch.rand(6, 3, 4)]
    arguments[position] = value
    with pytest.raises(ValueError, match=message):
        fit_rollouts(*arguments, discount=0.9)


def test_names_must_be_as_many_as_features():
    with pytest.raises(ValueError, match="1 names for 2 features"):
        fit_successor_features(LOOKS, OFFSETS, LOG_P, names=["coin"])
    with pytest.raises(ValueError, match="1 names for 2 features"):
        fit_rollouts(*_record(5)[1], discount=0.9, names=["coin"])
