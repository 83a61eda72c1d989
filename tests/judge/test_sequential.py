"""The face that the sequential tests share, and alpha spending; level and power are simulated here, quickly.

The full tables are docs/evidence.md, made by benchmarks/evidence.py.
"""

import json
import math
from functools import partial

import pytest
import torch

from evidence import CHANGE, FRESH, INVALID, NULLS, POWERS, REUSED, detections, limits, simulate
from lightning_mesa.errors import ConfigurationError
from lightning_mesa.judge.bootstrap import BootstrapBoundary
from lightning_mesa.judge.eprocess import EvidenceSum, RestartEProcess
from lightning_mesa.judge.sequential import SpendingTest, holm
from lightning_mesa.stats.intervals import Mean
from quick import quick

ALL = pytest.mark.parametrize(
    "build",
    [RestartEProcess, SpendingTest, EvidenceSum, partial(BootstrapBoundary, minimum_n=20, paths=399)],
    ids=["RestartEProcess", "SpendingTest", "EvidenceSum", "BootstrapBoundary"],
)


def draws(looks: int, n: int = 40, mean: float = 0.5, seed: int = 0) -> list[torch.Tensor]:
    draw = torch.Generator().manual_seed(seed)
    return [(torch.rand(n, generator=draw) < mean).float() for _ in range(looks)]


@ALL
def test_a_mean_above_the_null_is_rejected_and_one_below_is_not(build):
    above, below = build(null_mean=0.5, alpha=0.05, looks=10), build(null_mean=0.5, alpha=0.05, looks=10)
    assert any(above.update(scores).crossed for scores in draws(10, mean=0.95))
    assert not any(below.update(scores).crossed for scores in draws(10, mean=0.4))


@ALL
def test_a_null_mean_away_from_one_half_is_tested_as_itself(build):
    """A mean of .97 rejects "at most .8" and not "at most .97"; bounded scores, not only binary ones."""
    draw = torch.Generator().manual_seed(1)
    looks = [0.94 + 0.06 * torch.rand(200, generator=draw) for _ in range(10)]
    at, beyond = build(null_mean=0.97, alpha=0.05, looks=10), build(null_mean=0.8, alpha=0.05, looks=10)
    assert not any(at.update(scores).crossed for scores in looks)
    assert any(beyond.update(scores).crossed for scores in looks)


@ALL
@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), -0.01, 1.01])
def test_scores_out_of_range_are_refused_and_no_look_is_spent(build, wrong):
    test = build(null_mean=0.5, alpha=0.05, looks=10)
    with pytest.raises(ValueError, match="rescale them"):
        test.update(torch.tensor([0.5, wrong, 0.5]))
    assert test.look == 0


@ALL
def test_scores_are_one_number_per_item(build):
    with pytest.raises(ValueError, match=r"\[n\], one per item"):
        build(null_mean=0.5, alpha=0.05, looks=10).update(torch.ones(4, 3))


@ALL
def test_a_look_without_scores_is_counted_and_cannot_reject(build):
    test = build(null_mean=0.5, alpha=0.05, looks=10)
    test.update(torch.ones(40))
    decision = test.update(torch.ones(0))
    assert (decision.look, decision.crossed) == (2, False)


@ALL
def test_from_its_saved_state_a_test_goes_on_as_if_never_interrupted(build):
    looks = draws(8, mean=0.6)
    whole, first, second = (build(null_mean=0.5, alpha=0.05, looks=10) for _ in range(3))
    decisions = [whole.update(scores) for scores in looks]
    for scores in looks[:4]:
        first.update(scores)
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    assert [second.update(scores) for scores in looks[4:]] == decisions[4:]
    assert second.state_dict() == whole.state_dict()


@ALL
@pytest.mark.parametrize(
    "wrong", [{"null_mean": 0.0}, {"null_mean": 1.0}, {"alpha": 0.0}, {"alpha": 1.0}, {"alpha": math.nan}, {"looks": 0}]
)
def test_arguments_out_of_range_are_refused(build, wrong):
    with pytest.raises(ConfigurationError, match=next(iter(wrong))):
        build(**{"null_mean": 0.5, "alpha": 0.05, "looks": 10} | wrong)


@pytest.mark.parametrize("looks", [None, 1, 7])
def test_the_levels_of_all_looks_add_up_to_at_most_alpha(looks):
    test = SpendingTest(alpha=0.05, looks=looks)
    assert sum(test.weight(t) for t in range(1, 10_001)) <= 1 + 1e-12


def test_nothing_is_spent_after_the_planned_looks():
    test = SpendingTest(alpha=0.05, looks=2)
    assert [test.spend(p).crossed for p in (0.01, 0.01, 0.01, 0.0)] == [True, True, False, False]


def test_a_decision_compares_the_evidence_with_the_level_of_its_look():
    decision = SpendingTest(alpha=0.05, looks=10).spend(0.004)
    assert decision.crossed
    assert decision.look == 1
    assert decision.log_evidence == pytest.approx(-math.log(0.004))
    assert decision.threshold == pytest.approx(-math.log(0.005))


def test_binary_scores_spend_the_binomial_tail():
    """9 of 10 against one half: P(Bin(10, 1/2) >= 9) = 11/1024."""
    decision = SpendingTest(0.5, 0.05, looks=10).update(torch.tensor([1.0] * 9 + [0.0]))
    assert decision.log_evidence == pytest.approx(-math.log(11 / 1024))


def test_bounded_scores_spend_the_betting_p_value():
    scores = torch.rand(50, generator=torch.Generator().manual_seed(0))
    grid = torch.zeros(65, dtype=torch.float64)
    grid[57:60] = 10.0
    spread = torch.repeat_interleave(torch.linspace(0, 1, 65, dtype=torch.float64), grid.long())
    decision = SpendingTest(0.5, 0.05, looks=10).update(spread)
    assert decision.log_evidence == pytest.approx(-math.log(Mean(tuple(grid.tolist())).p_at_most(0.5)))
    with pytest.raises(ConfigurationError, match="binary=False"):
        SpendingTest(0.5, 0.05, looks=10, binary=True).update(scores)


@pytest.mark.parametrize("fraction", [0.002, 0.02, 0.2])
def test_scores_that_are_only_now_and_then_all_binary_keep_the_level(fraction):
    """By default a look whose scores are all 0 or 1 is taken as binary: the worst that can do is measured here."""
    draw = torch.Generator().manual_seed(2)
    rejected = 0
    for _ in range(2000):
        between = torch.rand(50, generator=draw) < fraction
        scores = (torch.rand(50, generator=draw) < 0.5 + 0.4 * fraction).double()
        scores[between] = 0.1  # the mean is at most .5
        rejected += SpendingTest(0.5, 0.05, looks=1).update(scores).crossed
    assert limits(rejected, 2000)[0] <= 0.05


@pytest.mark.parametrize("wrong", [-0.1, 1.1, math.nan])
def test_a_p_value_out_of_range_is_refused(wrong):
    with pytest.raises(ValueError, match="p-value"):
        SpendingTest(alpha=0.05).spend(wrong)


def test_to_take_scores_a_null_mean_is_needed():
    with pytest.raises(ConfigurationError, match="null_mean"):
        SpendingTest(alpha=0.05).update(torch.ones(3))


@pytest.mark.parametrize("runs", [25, pytest.param(200, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "data",
    quick([data for data, _ in NULLS if data.n < 1000], *[data for data, _ in NULLS if data.n < 1000][::2]),
    ids=lambda data: f"{data.name}, {data.persistence}",
)
def test_whole_runs_whose_null_holds_keep_the_level(data, runs):
    """100 looks at .05: no more runs rejected than chance allows at 99 %; the full table has 4000 runs."""
    names = [name for name, target in (FRESH if data.persistence is None else REUSED) if target != "fails"]
    for name, first in simulate(data, names, runs).items():
        rejected = sum(look > 0 for look in first)
        assert limits(rejected, runs)[0] <= 0.05, name


@pytest.mark.slow
def test_the_invalid_procedures_are_seen_failing():
    """A martingale accumulated over re-used items and a z-test at every look: see docs/evidence.md."""
    data = next(data for data, _ in NULLS if data.n == 200 and data.persistence == 0.8)
    for name, first in simulate(data, [name for name, _ in INVALID], runs=100).items():
        assert sum(look > 0 for look in first) > 20, name


@pytest.mark.parametrize(("data", "targets"), POWERS, ids=[f"{data.name}, {data.persistence}" for data, _ in POWERS])
@pytest.mark.slow
def test_a_proxy_that_sets_in_late_is_seen_in_time(data, targets):
    """At least 95 % detected, in time: .35 to .65 on 200 re-used items, .3 to .65 on 32 fresh ones a look."""
    (name, most), *_ = targets
    first = simulate(data, [name], runs=100)[name]
    delays, early = detections(first, data.means)
    assert early == 0
    assert len(delays) >= 95
    assert sorted(delays)[50] <= most
    assert data.means[CHANGE] > data.means[CHANGE - 1]


def test_holm_adjusts_as_published():
    """Worked by hand: p = .01, .04, .03 gives .03, .06, .06 (Holm 1979)."""
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([]) == []
    assert holm([0.7, 0.6]) == [1.0, 1.0]
