import math

import pytest
import torch

from lightning_mesa.stats.competence import Competence, Gap
from lightning_mesa.stats.intervals import BETS, BoundedMean, Mean, mean_of, tally
from quick import quick

BETA = torch.distributions.Beta(2.0, 5.0)


def _mean(scores: torch.Tensor, binary: bool) -> Mean:
    return Mean(tuple(tally(scores, binary=binary).tolist()))


def _draw(binary: bool, n: int) -> torch.Tensor:
    return (torch.rand(n) < 0.3).double() if binary else BETA.sample((n,)).double()


TRUE_MEAN = {True: 0.3, False: 2 / 7}


def test_tallies_add_up_and_keep_the_mean():
    """Counts of two parts add up to those of the whole, and its mean is exact."""
    torch.manual_seed(0)
    scores = torch.rand(1001, dtype=torch.float64)
    parts = tally(scores[:400], binary=False) + tally(scores[400:], binary=False)
    torch.testing.assert_close(parts, tally(scores, binary=False))
    assert _mean(scores, binary=False).value == pytest.approx(float(scores.mean()), abs=1e-12)
    assert _mean(scores, binary=False).n == 1001


def test_extreme_scores_fall_on_the_end_points():
    assert tally(torch.tensor([0.0, 1.0, 1.0]), binary=True).tolist() == [1.0, 2.0]
    counts = tally(torch.tensor([0.0, 1.0]), binary=False)
    assert (counts[0], counts[-1], counts.sum()) == (1.0, 1.0, 2.0)


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("n", quick([20, 300], 20))
def test_limits_cover_the_mean(binary, n):
    """95 % limits miss the true mean in at most 5 % of samples, by more than chance explains in none of 600."""
    torch.manual_seed(n)
    missed = 0
    for _ in range(600):
        low, high = _mean(_draw(binary, n), binary).limits(0.95)
        missed += not low <= TRUE_MEAN[binary] <= high
    assert missed <= 44  # P(Bin(600, .05) > 44) < .005


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("side", ["p_at_most", "p_at_least"])
def test_p_values_at_the_null_are_not_too_small(binary, side):
    """Under the null, P(p <= a) <= a."""
    torch.manual_seed(1)
    p_values = [getattr(_mean(_draw(binary, 200), binary), side)(TRUE_MEAN[binary]) for _ in range(600)]
    for level, most in {0.05: 44, 0.2: 145}.items():  # P(Bin(600, a) > most) < .005
        assert sum(p <= level for p in p_values) <= most


@pytest.mark.parametrize("binary", [True, False])
def test_limits_narrow_with_n_and_are_not_trivial(binary):
    torch.manual_seed(2)
    widths = [high - low for low, high in (_mean(_draw(binary, n), binary).limits(0.95) for n in (50, 500, 5000))]
    assert widths[0] > widths[1] > widths[2]
    assert widths[2] < 0.04


def test_clopper_pearson_agrees_with_published_values():
    """Clopper-Pearson for 4 of 20: [.0573, .4366] at 95 % (tabulated)."""
    low, high = Mean((16.0, 4.0)).limits(0.95)
    assert (low, high) == (pytest.approx(0.0573, abs=1e-4), pytest.approx(0.4366, abs=1e-4))


def test_binned_betting_is_never_more_confident_than_betting_on_the_items():
    """The grid costs evidence, never adds any."""
    torch.manual_seed(3)
    scores = torch.rand(400, dtype=torch.float64) * 0.37 + 0.5
    bets = torch.logspace(math.log10(1e-3), math.log10(0.99), 20, dtype=torch.float64)[:, None]
    for null in (0.3, 0.6, 0.66):
        exact = torch.logsumexp(torch.log1p(bets * (scores / null - 1)).sum(1), 0) - math.log(20)
        binned = -math.log(_mean(scores, binary=False).p_at_most(null))
        assert binned <= float(exact.clamp(min=0)) + 1e-9
        assert binned == pytest.approx(float(exact.clamp(min=0)), rel=0.02, abs=0.01)


@pytest.mark.parametrize("counts", [(0.0, 0.0), (0.0,) * 65])
def test_without_items_nothing_is_known(counts):
    mean = Mean(counts)
    assert math.isnan(mean.value)
    assert mean.limits(0.95) == (0.0, 1.0)
    assert mean.p_at_most(0.5) == mean.p_at_least(0.5) == 1.0


@pytest.mark.parametrize("counts", [(0.0, 7.0), (7.0, 0.0), (1.0, 0.0), (0.0, 1.0)])
def test_all_or_none_has_limits_that_reach_the_end(counts):
    low, high = Mean(counts).limits(0.95)
    assert 0 <= low < high <= 1
    assert (high == 1) if counts[1] else (low == 0)


@pytest.mark.parametrize("binary", [True, False])
def test_the_gap_p_value_is_the_level_at_which_its_limit_meets_the_margin(binary):
    """The definition in docs/statistics.md: the smallest a for which L_R(a/2) - U_D(a/2) > .1."""
    torch.manual_seed(4)
    reference = _mean((torch.rand(150) < 0.8).double() if binary else torch.rand(150).sqrt(), binary)
    shifted = _mean((torch.rand(200) < 0.5).double() if binary else torch.rand(200) * 0.9, binary)
    gap = Gap(Competence(reference, 0.1, 1.0), Competence(shifted, 0.15, 1.0))
    p = gap.p_at_most(0.1)
    assert 1e-6 < p < 1
    assert gap.lower(p * 1.001) > 0.1 - 1e-6
    assert gap.lower(p * 0.999) < 0.1 + 1e-6
    q = gap.p_at_least(0.6)
    assert gap.upper(q * 1.001) < 0.6 + 1e-6 or q == 1


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("n", [5, 50, 500])
def test_limits_from_a_mean_and_an_n_cover_the_mean(binary, n):
    """Whatever the distribution of the scores: 95 % limits miss the true mean in at most 5 % of samples."""
    torch.manual_seed(n)
    missed = 0
    for _ in range(600):
        low, high = BoundedMean(float(_draw(binary, n).mean()), n).limits(0.95)
        missed += not low <= TRUE_MEAN[binary] <= high
    assert missed <= 44  # P(Bin(600, .05) > 44) < .005


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("side", ["p_at_most", "p_at_least"])
def test_p_values_from_a_mean_and_an_n_are_not_too_small(binary, side):
    """Under the null, P(p <= a) <= a."""
    torch.manual_seed(1)
    means = [float(_draw(binary, 50).mean()) for _ in range(2000)]
    p_values = [getattr(BoundedMean(mean, 50), side)(TRUE_MEAN[binary]) for mean in means]
    for level, most in {0.01: 33, 0.05: 127, 0.2: 446}.items():  # P(Bin(2000, a) > most) < .005
        assert sum(p <= level for p in p_values) <= most


@pytest.mark.parametrize("n", [1, 7, 40])
def test_a_mean_and_an_n_never_say_more_than_the_exact_binomial(n):
    """For binary scores the tail is known; Hoeffding's bound lies above it for every count and every null."""
    for successes in range(n + 1):
        exact, bound = Mean((float(n - successes), float(successes))), BoundedMean(successes / n, n)
        for null in (0.01, 0.2, 0.5, 0.77, 0.99):
            assert bound.p_at_most(null) >= exact.p_at_most(null) * (1 - 1e-9)
            assert bound.p_at_least(null) >= exact.p_at_least(null) * (1 - 1e-9)


def test_the_limits_of_a_mean_and_an_n_are_where_its_p_value_is_the_error():
    mean = BoundedMean(0.8, 100)
    assert mean.p_at_most(mean.lower(0.01)) == pytest.approx(0.01, rel=1e-5)
    assert mean.p_at_least(mean.upper(0.01)) == pytest.approx(0.01, rel=1e-5)
    assert BoundedMean(1.0, 10).p_at_most(0.5) == pytest.approx(0.5**10)
    assert BoundedMean(1.0, 10).limits(0.95)[1] == 1.0
    assert BoundedMean(0.0, 10).limits(0.95)[0] == 0.0


@pytest.mark.parametrize("mean", [Mean((4.0, 6.0)), BoundedMean(0.6, 10)])
def test_a_record_gives_the_same_mean_again(mean):
    assert mean_of(mean.record()) == mean


@pytest.mark.parametrize("mean", [0.05, 0.5, 0.9])
@pytest.mark.parametrize("side", ["log_e_at_most", "log_e_at_least"])
def test_e_values_have_expectation_one_at_the_bound(mean, side):
    """Exactly: summed over all outcomes of 6 binary items."""
    n, expectation = 6, torch.zeros_like(BETS)
    for k in range(n + 1):
        probability = math.comb(n, k) * mean**k * (1 - mean) ** (n - k)
        expectation += probability * getattr(Mean((float(n - k), float(k))), side)(mean).exp()
    assert expectation.tolist() == pytest.approx([1.0] * len(BETS))


def test_e_values_from_less_knowledge_are_never_larger():
    """Of binned scores, and of their mean and n alone, against those of the scores themselves."""
    scores = torch.rand(40, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    exact = torch.log1p(BETS[:, None] * (scores / 0.3 - 1)).sum(1)
    binned = Mean(tuple(tally(scores, binary=False).tolist())).log_e_at_most(0.3)
    known_by_mean = BoundedMean(float(scores.mean()), 40).log_e_at_most(0.3)
    assert bool((known_by_mean <= binned + 1e-9).all())
    assert bool((binned <= exact + 1e-9).all())


@pytest.mark.parametrize(("bound", "gains"), [(-0.5, False), (0.0, False), (1.0, False), (1.5, False), (0.5, True)])
def test_a_bound_out_of_reach_gives_no_evidence_on_scores_of_zero(bound, gains):
    nothing, everything = Mean((20.0, 0.0)), Mean((0.0, 20.0))
    assert bool((nothing.log_e_at_most(bound) <= 0).all())
    assert bool((everything.log_e_at_most(bound) > 0).any()) == (gains or bound <= 0)
