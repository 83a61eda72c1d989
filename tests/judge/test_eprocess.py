"""E-values and what they add up to: each against its equation, written out another way."""

import math
from itertools import combinations

import pytest
import torch

from lightning_mesa.errors import ConfigurationError
from lightning_mesa.judge.eprocess import EvidenceSum, RestartEProcess, closed, log_e_values, merge
from lightning_mesa.judge.sequential import Decision
from lightning_mesa.stats.intervals import BETS
from lightning_mesa.stats.nulls import smallest


def looks(count: int = 12, n: int = 7) -> list[torch.Tensor]:
    draw = torch.Generator().manual_seed(0)
    return [torch.rand(n, generator=draw, dtype=torch.float64) for _ in range(count)]


def test_the_gain_of_a_bet_is_the_product_over_items():
    """Worked by hand: the bet .2 against mean .5 gains 1.2 on a 1 and .8 on a 0; on .75, 1.1."""
    bet = BETS.tolist().index(0.2)
    ones_and_zeros = torch.tensor([1.0, 0.0, 1.0], dtype=torch.float64)
    assert log_e_values(ones_and_zeros, 0.5)[bet].exp() == pytest.approx(1.2 * 0.8 * 1.2)
    assert log_e_values(torch.tensor([0.75, 1.0], dtype=torch.float64), 0.5)[bet].exp() == pytest.approx(1.1 * 1.2)


@pytest.mark.parametrize("null_mean", [0.001, 0.5, 0.999])
def test_no_score_can_take_all_of_the_wealth(null_mean):
    for scores in (torch.zeros(5), torch.ones(5), torch.tensor([0.0, 0.5])):
        assert log_e_values(scores.double(), null_mean).isfinite().all()


@pytest.mark.parametrize("null_mean", [0.05, 0.5, 0.9])
def test_an_e_value_has_expectation_one_at_the_boundary_of_the_null(null_mean):
    """Exactly: summed over all outcomes of 6 binary items."""
    n, expectation = 6, torch.zeros_like(BETS)
    for k in range(n + 1):
        scores = torch.tensor([1.0] * k + [0.0] * (n - k), dtype=torch.float64)
        probability = math.comb(n, k) * null_mean**k * (1 - null_mean) ** (n - k)
        expectation += probability * log_e_values(scores, null_mean).exp()
    assert expectation.tolist() == pytest.approx([1.0] * len(BETS))


@pytest.mark.parametrize("planned", [None, 10, 12, 20])
def test_the_restart_e_process_averages_bets_that_start_at_every_look(planned):
    """The recursion against its meaning: sum over starts s of w_s prod_(t >= s) L_t, and the stake held back."""
    data = looks()
    test = RestartEProcess(0.4, 0.05, planned)
    for t in range(1, len(data) + 1):
        decision = test.update(data[t - 1])
        weights = [test.weight(s) for s in range(1, t + 1)]
        wealth = sum(
            w * torch.stack([log_e_values(x, 0.4) for x in data[s:t]]).sum(0).exp() for s, w in enumerate(weights)
        )
        assert decision.log_evidence == pytest.approx(math.log(float(wealth.mean()) + max(0.0, 1 - sum(weights))))
        assert decision.threshold == pytest.approx(math.log(20))


@pytest.mark.parametrize("planned", [None, 10, 20])
def test_the_evidence_sum_adds_each_looks_e_value_with_its_weight(planned):
    data = looks()
    test = EvidenceSum(0.4, 0.05, planned)
    total = 0.0
    for t, scores in enumerate(data, 1):
        total += test.weight(t) * float(log_e_values(scores, 0.4).exp().mean())
        assert test.update(scores).log_evidence == pytest.approx(math.log(total))


def test_the_size_of_the_data_does_not_overflow():
    for build in (RestartEProcess, EvidenceSum):
        assert build(0.5, 0.05, 10).update(torch.ones(100_000)).crossed
        test = build(0.5, 0.05, 10)
        assert not test.update(torch.zeros(100_000)).crossed
        assert test.update(torch.ones(100_000)).crossed


def test_the_restart_e_process_holds_after_the_looks_that_were_planned():
    test = RestartEProcess(0.5, 0.05, looks=1)
    test.update(torch.tensor([1.0, 1.0]))
    assert test.update(torch.ones(50)).crossed


@pytest.mark.parametrize("build", [RestartEProcess, EvidenceSum])
def test_a_union_null_takes_the_smallest_e_value_of_its_parts(build):
    """The parts take turns: at each look one of two means is at most .5, and the other far above.

    The minimum of two tests rejects such runs, which is a false alarm; the minimum at each look does not.
    """
    low, high = torch.tensor([0.0, 1.0] * 16), torch.ones(32)
    low, high = low.double(), high.double()
    one, other, union = build(0.5, 0.05, 20), build(0.5, 0.05, 20), build(alpha=0.05, looks=20)
    both_crossed = union_crossed = False
    for look in range(20):
        first, second = (low, high) if look % 2 else (high, low)
        both_crossed |= one.update(first).crossed & other.update(second).crossed
        union_crossed |= union.bet(smallest([log_e_values(first, 0.5), log_e_values(second, 0.5)])).crossed
    assert (both_crossed, union_crossed) == (True, False)
    assert union.bet(smallest([log_e_values(high, 0.5), log_e_values(high, 0.5)])).crossed is (build is RestartEProcess)


def test_e_values_of_another_grid_are_refused():
    with pytest.raises(ConfigurationError, match="one for each bet"):
        EvidenceSum(alpha=0.05).bet(torch.zeros(3))


def test_many_proxies_merge_to_the_average_of_their_e_values():
    """100 e-values of which one is 4000: the average exceeds 20, and Bonferroni would need 2000 too."""
    nothing, strong = Decision(-math.inf, math.log(20), False, 4), Decision(math.log(4000), math.log(20), True, 4)
    merged = merge([strong] + [nothing] * 99)
    assert merged.crossed
    assert merged.log_evidence == pytest.approx(math.log(40))
    assert not merge([nothing, nothing]).crossed


def test_decisions_of_different_looks_or_levels_do_not_combine():
    for other in (Decision(1.0, 3.0, False, 5), Decision(1.0, 2.0, False, 4)):
        with pytest.raises(ConfigurationError, match="same alpha"):
            merge([Decision(1.0, 3.0, False, 4), other])
    with pytest.raises(ConfigurationError):
        merge([])


def test_closed_testing_takes_the_smallest_average_over_every_set_that_a_null_belongs_to():
    """Against all subsets, written out."""
    evidence = [40.0, 0.2, 7.0, 1.0]
    others = [[e for j, e in enumerate(evidence) if j != i] for i in range(4)]
    expected = [
        min((own + sum(subset)) / (1 + size) for size in range(4) for subset in combinations(others[i], size))
        for i, own in enumerate(evidence)
    ]
    adjusted = [math.exp(log) for log in closed([math.log(e) for e in evidence])]
    assert adjusted == pytest.approx(expected)
    assert closed([1.5]) == [1.5]
