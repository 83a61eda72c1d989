import math

import pytest
import torch
from scipy.stats import binom
from torch import Tensor

from lightning_mesa.irl.averages import Average
from lightning_mesa.irl.conditional_logit import fit_conditional_logit
from lightning_mesa.irl.goal_directedness import (
    GoalDirectedness,
    goal_directedness,
    goal_directedness_in,
    goal_directedness_of,
    own_lights_regret,
)
from lightning_mesa.irl.tabular import TabularMDP, soft_value_iteration

ITEMS, CHOICES = 400, 5


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


def _random(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def _values(found: GoalDirectedness) -> tuple[float, float, float]:
    return found.value.value, found.negentropy.value, found.explained.value


def _outside() -> tuple[Tensor, Tensor]:
    """One utility, and a policy that pursues it and something else."""
    utility = _random(ITEMS, CHOICES, 1)
    return utility, (utility[..., 0] + _random(ITEMS, CHOICES)).softmax(1)


# Choices among items


@pytest.mark.parametrize("scale", [1.0, 1e-3, 1e5, -1.0, -7.0])
def test_units_and_constants_of_a_utility_do_not_matter_and_its_sign_is_reported(scale):
    """Goal-directedness towards a U + b is that towards U; if a < 0, with the opposite sign."""
    utility, p = _outside()
    found = goal_directedness(utility, p)
    other = goal_directedness(scale * utility + _random(ITEMS, 1, 1), p)
    assert _values(other) == pytest.approx(_values(found), abs=1e-9)
    assert (found.sign, other.sign) == (1, int(math.copysign(1, scale)))


def test_pursuing_the_opposite_counts_as_well():
    utility, _ = _outside()
    found = goal_directedness(utility, (-2 * utility[..., 0]).softmax(1))
    assert found.sign == -1
    assert found.explained.value == pytest.approx(1)


@pytest.mark.parametrize("count", [1, 3])
def test_it_lies_between_0_and_negentropy(count):
    """Of any policy and any utilities; so that what is explained lies between 0 and 1."""
    for spread in (0.1, 1.0, 5.0):
        features, p = _random(60, CHOICES, count), (spread * _random(60, CHOICES)).softmax(1)
        value, negentropy, explained = _values(goal_directedness(features, p))
        assert 0 <= value <= negentropy <= 1
        assert explained == pytest.approx(value / negentropy)


def test_all_that_a_soft_optimal_policy_is_decided_about_is_explained():
    features, weights = _random(ITEMS, CHOICES, 2), torch.tensor([1.0, -2.0], dtype=torch.float64)
    found = goal_directedness(features, (features @ weights).softmax(1))
    assert found.value.value == pytest.approx(found.negentropy.value)
    assert found.explained.value == pytest.approx(1)
    assert found.sign == 0


def test_a_deterministic_optimal_policy_has_the_most_that_there_can_be():
    utility = torch.nn.functional.one_hot(torch.randint(CHOICES, (ITEMS,)), CHOICES).double()
    found = goal_directedness(utility[..., None], utility)
    assert _values(found) == pytest.approx((1, 1, 1), abs=1e-6)
    assert found.sign == 1


def test_uniform_choices_pursue_nothing():
    found = goal_directedness(_random(ITEMS, CHOICES, 2), torch.full((ITEMS, CHOICES), 1 / CHOICES))
    assert found.value.value == pytest.approx(0, abs=1e-12)
    assert found.negentropy.value == pytest.approx(0, abs=1e-7)
    assert math.isnan(found.explained.value)
    assert (found.explained.low, found.explained.high) == (0, 1)


def test_a_device_is_decided_and_pursues_nothing():
    """Choices at random, but the same ones always: negentropy alone would call it goal-directed."""
    device = torch.nn.functional.one_hot(torch.randint(CHOICES, (ITEMS,)), CHOICES).double()
    found = goal_directedness(_random(ITEMS, CHOICES, 1), 0.9 * device + 0.1 / CHOICES)
    assert found.negentropy.value > 0.6
    assert found.value.value < 0.02
    assert found.explained.value < 0.02


def test_where_choices_cannot_influence_the_utility_it_is_0():
    """However different items are, and whatever is chosen."""
    found = goal_directedness(_random(ITEMS, 1, 1).expand(-1, CHOICES, 1), (3 * _random(ITEMS, CHOICES)).softmax(1))
    assert found.value.value == pytest.approx(0, abs=1e-12)
    assert found.negentropy.value > 0.3
    assert found.sign == 0


def test_it_is_the_pseudo_r2_of_the_fit():
    """McFadden: 1 - L / L_0, with uniform choices as the null."""
    utility, p = _outside()
    fit = fit_conditional_logit(utility, p)
    r2 = 1 - fit.log_likelihood / fit.references["uniform"]
    assert goal_directedness(utility, p).value.value == pytest.approx(r2)
    assert goal_directedness_of(fit, utility, p) == goal_directedness(utility, p)


def test_more_utilities_never_explain_less():
    utility, p = _outside()
    more = goal_directedness(torch.cat([utility, _random(ITEMS, CHOICES, 2)], -1), p)
    assert more.value.value >= goal_directedness(utility, p).value.value
    assert more.sign == 0


def test_choices_that_are_not_available_do_not_count():
    """What is known of three of five choices, and ``log 3`` nats at most."""
    utility, p = _random(ITEMS, 3, 1), _random(ITEMS, 3).softmax(1)
    offset = torch.zeros(ITEMS, CHOICES)
    offset[:, 3:] = -torch.inf
    padded = torch.cat([utility, _random(ITEMS, 2, 1)], 1), torch.cat([p, torch.zeros(ITEMS, 2)], 1)
    found = goal_directedness(*padded, offset=offset)
    assert _values(found) == pytest.approx(_values(goal_directedness(utility, p)), abs=1e-9)


def test_limits_cover():
    """The value among very many items; that the fit was made on the same items does not show."""

    def drawn(n: int) -> GoalDirectedness:
        utility = _random(n, CHOICES, 1)
        return goal_directedness(utility, (utility[..., 0] + _random(n, CHOICES)).softmax(1))

    runs, truth = 200, _values(drawn(100_000))
    samples = [drawn(200) for _ in range(runs)]
    for i, name in enumerate(("value", "negentropy", "explained")):
        found: list[Average] = [getattr(one, name) for one in samples]
        assert sum(one.low <= truth[i] <= one.high for one in found) >= binom.ppf(0.002, runs, 0.95)


def test_copies_in_one_cluster_count_once():
    utility, p = _outside()
    once = goal_directedness(utility, p)
    labels = torch.arange(ITEMS).repeat(2)
    twice = goal_directedness(torch.cat([utility, utility]), torch.cat([p, p]), clusters=labels)
    assert twice.value.low == pytest.approx(once.value.low)
    assert twice.explained.high == pytest.approx(once.explained.high)


def test_without_a_choice_there_is_nothing_to_judge():
    for found in (
        goal_directedness(_random(10, 1, 1), torch.ones(10, 1)),
        goal_directedness(torch.zeros(0, 3, 1), torch.zeros(0, 3)),
    ):
        assert all(math.isnan(value) for value in _values(found))
        assert (found.value.low, found.value.high) == (0, 1)


# Decision processes


def _process(horizon: int | None) -> TabularMDP:
    moves = _random(10, 3, 10).mul(2).softmax(-1)
    return TabularMDP(moves, torch.full((10,), 0.1), discount=0.9, horizon=horizon)


@pytest.mark.parametrize("horizon", [None, 8])
@pytest.mark.parametrize("sign", [1, -1])
def test_a_soft_optimal_policy_is_explained_in_a_process(horizon, sign):
    """Towards what it maximises, or minimises; nothing is sampled, and limits are the value."""
    mdp, utility = _process(horizon), _random(10, 3, 1)
    policy = soft_value_iteration(mdp, sign * utility[..., 0]).policy
    found = goal_directedness_in(mdp, utility, policy)
    assert found.explained.value == pytest.approx(1)
    assert 0 < found.value.value == pytest.approx(found.negentropy.value)
    assert found.sign == sign
    assert found.value.low == found.value.value == found.value.high
    other = goal_directedness_in(mdp, _random(10, 3, 1), policy)
    assert other.value.value < found.value.value == pytest.approx(other.value.value / other.explained.value)


@pytest.mark.parametrize("horizon", [None, 8])
def test_in_a_process_a_device_is_decided_and_explained_little(horizon):
    mdp = _process(horizon)
    device = 0.9 * torch.nn.functional.one_hot(torch.randint(3, (10,)), 3).double() + 0.1 / 3
    shares = [goal_directedness_in(mdp, _random(10, 3, 1), device) for _ in range(10)]
    assert all(one.negentropy.value > 0.5 for one in shares)
    assert sum(one.explained.value for one in shares) / 10 < 0.2


def test_in_a_process_uniform_choices_pursue_nothing():
    found = goal_directedness_in(_process(None), _random(10, 3, 1), torch.full((10, 3), 1 / 3))
    assert found.value.value == pytest.approx(0, abs=1e-9)
    assert math.isnan(found.explained.value)


def test_a_process_of_one_decision_is_a_choice_among_items():
    """All states alike at first, and no next one."""
    mdp = TabularMDP(torch.full((10, 3, 10), 0.1), torch.full((10,), 0.1), horizon=1)
    utility, policy = _random(10, 3, 2), _random(10, 3).softmax(1)
    whole, items = goal_directedness_in(mdp, utility, policy), goal_directedness(utility, policy)
    assert _values(whole) == pytest.approx(_values(items), abs=1e-6)


# Own lights


def test_own_lights_regret_is_log_loss_less_entropy():
    """Of base as a one-hot prescription, item by item."""
    p = torch.tensor([[0.7, 0.2, 0.1], [0.5, 0.25, 0.25]], dtype=torch.float64)
    base = torch.tensor([[False, True, False], [True, False, False]])
    entropy = -(p * p.log()).sum(1)
    regret = torch.tensor([-math.log(0.2), -math.log(0.5)], dtype=torch.float64) - entropy
    found = own_lights_regret(p, base)
    assert found.value == pytest.approx(float(regret.mean()))
    assert found.low < found.value < found.high


def test_of_several_prescribed_choices_it_takes_those_it_likes_better():
    """p restricted to the last two: .8 and .2 of the way."""
    p = torch.tensor([[0.5, 0.4, 0.1]], dtype=torch.float64)
    found = own_lights_regret(p.expand(2, 3), torch.tensor([[False, True, True]]).expand(2, 3))
    restricted = 0.8 * math.log(0.4) + 0.2 * math.log(0.1)
    assert found.value == pytest.approx(float((p * p.log()).sum()) - restricted)
    assert found.low == pytest.approx(found.high)


def test_its_sign_says_whether_the_policy_would_rather_do_something_else():
    """Positive where what is prescribed is unlikely; negative where it is what is done most; 0 where all is allowed."""
    p = (2 * _random(ITEMS, CHOICES)).softmax(1)
    liked, disliked = (torch.nn.functional.one_hot(choice, CHOICES).bool() for choice in (p.argmax(1), p.argmin(1)))
    assert own_lights_regret(p, liked).high < 0 < own_lights_regret(p, disliked).low
    assert own_lights_regret(p, torch.ones_like(liked)).value == pytest.approx(0, abs=1e-12)


def test_items_for_which_nothing_is_prescribed_do_not_count():
    """Nor do their clusters."""
    p, prescribed = _random(40, CHOICES).softmax(1), torch.rand(40, CHOICES) < 0.3
    prescribed[:10] = False
    clusters = torch.arange(40) // 2
    some = prescribed.any(1)
    expected = own_lights_regret(p[some], prescribed[some], clusters=clusters[some])
    assert own_lights_regret(p, prescribed, clusters=clusters) == expected
    nothing = own_lights_regret(p, torch.zeros_like(prescribed))
    assert math.isnan(nothing.value)
    assert (nothing.low, nothing.high) == (-math.inf, math.inf)


def test_what_is_never_done_costs_much_and_not_without_end():
    p = torch.tensor([[1.0, 0.0], [0.5, 0.5]], dtype=torch.float64)
    found = own_lights_regret(p, torch.tensor([[False, True], [False, True]]))
    assert 100 < found.value < math.inf
