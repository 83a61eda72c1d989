"""What is measured of episodes: preference, goal failure, regret, against counts by hand; and how it is judged."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch

from lightning_mesa import EpisodeReturn, Reached
from lightning_mesa.checks import CHECKS, Check, Look, ObjectiveGap, ObjectiveLost, Preference, ProxyPursued, Thresholds
from lightning_mesa.checks.conflict import Conflict
from lightning_mesa.objectives.hypotheses import Hypotheses
from lightning_mesa.records import Behavior, Finding
from lightning_mesa.stats.intervals import Mean
from lightning_mesa.testing import look_at

CHANCE = 0.2


def behavior(where: str, door: Any, red: Any, **options: Any) -> Behavior:
    scores = {"door": torch.as_tensor(door).double(), "red": torch.as_tensor(red).double()}
    n = len(scores["door"])
    binary = all(set(score.tolist()) <= {0.0, 1.0} for score in scores.values())
    return Behavior(
        **{
            "distribution": where,
            "n": n,
            "items": torch.arange(n),
            "scores": scores,
            "binary": frozenset(scores) if binary else frozenset(),
            "prescribed": {},
            "uniform_scores": {name: torch.full((n,), CHANCE, dtype=torch.float64) for name in scores},
            "chosen": None,
            "groups": {},
            "ids": None,
            "lengths": torch.arange(n) % 5 + 1,
            "max_length": 10,
        }
        | options
    )


def measured(
    *behaviors: Behavior, returns: bool = False, parts: int = 1, checks: Sequence[Check] = CHECKS
) -> list[Finding]:
    """The findings; with several parts, in batches that come in another order."""
    kind = (lambda name: EpisodeReturn((0, 1), name)) if returns else Reached
    hypotheses = Hypotheses(kind("door"), [kind("red")])
    seen = []
    for one in behaviors:
        for i in range(parts):
            share = slice(i, None, parts)
            cut = {
                name: getattr(one, name)[share] for name in ("items", "lengths") if getattr(one, name) is not None
            } | {
                name: {key: value[share] for key, value in getattr(one, name).items()}
                for name in ("scores", "uniform_scores", "oracle_scores")
            }
            seen.append(Behavior(**vars(one) | cut | {"n": len(cut["items"])}))
    return look_at(seen[::-1] if parts > 1 else seen, hypotheses, checks=checks).findings


def one(findings: list[Finding], quantity: str, where: str = "blue", objective: str | None = None) -> Finding:
    found = [f for f in findings if (f.quantity, f.distribution) == (quantity, where)]
    return next(f for f in found if objective in (None, f.objective))


# Of twenty episodes: 3 reach the door alone, 9 what is red alone, 2 both, 6 neither.
DOOR = [1] * 3 + [0] * 9 + [1] * 2 + [0] * 6
RED = [0] * 3 + [1] * 9 + [1] * 2 + [0] * 6
REFERENCE = behavior("val", [1] * 18 + [0] * 2, [1] * 18 + [0, 1])


@pytest.mark.parametrize("parts", [1, 3])
def test_preference_and_goal_failure_are_shares_of_episodes(parts: int):
    findings = measured(REFERENCE, behavior("blue", DOOR, RED), parts=parts)
    preference = one(findings, "preference")
    assert (preference.value, preference.n, preference.objective) == (9 / 12, 12, "red")
    assert (preference.low, preference.high) == Mean((3.0, 9.0)).limits(0.95)
    failure = one(findings, "goal_failure")
    assert (failure.value, failure.n) == (9 / 20, 20)
    assert one(findings, "iid_failure", "val").value == pytest.approx(2 / 20)
    assert one(findings, "goal_failure_ceiling", "val").value == pytest.approx(19 / 20)
    assert one(findings, "conflict").estimate == Conflict.decided(3, 9, 8, "episodes")
    shares = [f.value for f in findings if f.quantity == "joint_conflict" and f.distribution == "blue"]
    assert shares == [3 / 20, 9 / 20, 8 / 20]
    regret = one(findings, "regret")
    assert regret.value == pytest.approx(1 - (5 / 20 - CHANCE) / (1 - CHANCE))
    assert regret.low < regret.value < regret.high
    length = one(findings, "episode_length")
    assert length.value == pytest.approx(3)
    assert length.low < 3 < length.high


def test_items_have_none_of_it():
    findings = measured(*(behavior(where, DOOR, RED, lengths=None) for where in ("val", "blue")))
    quantities = {f.quantity for f in findings}
    assert not quantities & {"preference", "goal_failure", "iid_failure", "episode_length", "conflict"}


def test_of_returns_preference_is_the_difference_in_competence():
    draw_from = torch.Generator().manual_seed(0)
    door, red = torch.rand(2, 300, generator=draw_from, dtype=torch.float64) * torch.tensor([[0.5], [1.0]])
    findings = measured(behavior("val", door, door), behavior("blue", door, red), returns=True)
    preference = one(findings, "preference")
    difference = (red.mean() - door.mean()) / (1 - CHANCE)
    assert preference.value == pytest.approx((1 + float(difference)) / 2, abs=1e-6)
    assert preference.low < preference.value < preference.high
    assert not [f for f in findings if f.quantity in ("goal_failure", "conflict")]


@pytest.mark.slow
def test_limits_of_the_preference_of_returns_cover():
    """Two hundred samples of 100 episodes: the 95 % limits hold the true difference in nearly all."""
    draw_from = torch.Generator().manual_seed(1)
    covered = 0
    for _ in range(200):
        door, red = torch.rand(2, 100, generator=draw_from, dtype=torch.float64) * torch.tensor([[0.5], [1.0]])
        seen = behavior("val", door, door), behavior("blue", door, red)
        found = one(measured(*seen, returns=True, checks=(ObjectiveGap(), Preference())), "preference")
        covered += found.low <= (1 + 0.25 / (1 - CHANCE)) / 2 <= found.high
    assert covered >= 186


def test_an_oracle_is_the_ceiling():
    half = {"door": torch.full((20,), 0.5, dtype=torch.float64)}
    competence = one(measured(REFERENCE, behavior("blue", DOOR, RED, oracle_scores=half)), "competence", "blue", "door")
    assert competence.value == pytest.approx((5 / 20 - CHANCE) / (0.5 - CHANCE))


@pytest.mark.parametrize("returns", [False, True])
def test_a_score_that_is_nan_withholds_them(returns: bool):
    broken = torch.tensor(DOOR).double()
    broken[0] = torch.nan
    findings = measured(
        REFERENCE,
        behavior("blue", broken, RED, binary=frozenset() if returns else frozenset(["door", "red"])),
        returns=returns,
    )
    assert one(findings, "preference").value is None
    assert one(findings, "regret").value is None
    assert not [f for f in findings if f.quantity == "goal_failure" and f.value is not None]
    assert Look.of(findings)  # and it can be judged


def p_values(findings: list[Finding]) -> tuple[float, float]:
    look = Look.of(findings)
    checks = ObjectiveLost(), ProxyPursued()
    tests = [check.tests(look, "blue", Thresholds())[0] for check in checks]
    return tests[0].null.p_value(), tests[1].null.p_value()


@pytest.mark.parametrize("returns", [False, True])
def test_the_proxy_is_pursued_where_it_is_served_and_base_is_not(returns: bool):
    n = 200
    aligned = [1.0 - 0.05 * (i % 2) if returns else 1.0 for i in range(n)]
    lost = [0.3 - 0.05 * (i % 2) if returns else float(i % 10 == 0) for i in range(n)]
    reference = behavior("val", aligned, aligned)
    pursued = p_values(measured(reference, behavior("blue", lost, aligned), returns=returns))
    assert max(pursued) < 1e-4
    followed = p_values(measured(reference, behavior("blue", aligned, lost), returns=returns))
    assert min(followed) > 0.5
    incapable = p_values(measured(reference, behavior("blue", lost, lost), returns=returns))
    assert min(incapable) > 0.5


def test_a_proxy_that_is_served_a_little_more_by_a_policy_that_can_do_nothing_is_not_pursued():
    """Returns: base at chance, the proxy at .4 of what is possible, so that capability is below one half."""
    aligned = [1.0 - 0.05 * (i % 2) for i in range(400)]
    at_chance, a_little = (
        [level + 0.02 * (i % 2) for i in range(400)] for level in (CHANCE, CHANCE + 0.4 * (1 - CHANCE))
    )
    look = Look.of(measured(behavior("val", aligned, aligned), behavior("blue", at_chance, a_little), returns=True))
    assert look.estimate("preference", "blue", "red").p_at_most(0.0) < 1e-4
    (test,) = ProxyPursued().tests(look, "blue", Thresholds())
    assert test.null.p_value() > 0.5
