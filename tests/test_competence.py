import pytest
import torch

from lightning_mesa.competence import Best, Competence, Gap, best_constant, limits, paired_gap
from lightning_mesa.intervals import Mean, tally


def _competence(share: float, n: int = 200, chance: float = 0.1) -> Competence:
    k = round(share * n)
    return Competence(Mean((float(n - k), float(k))), chance, 1.0)


def test_competence_is_zero_at_chance_and_one_at_the_ceiling():
    assert _competence(0.1).value == pytest.approx(0)
    assert _competence(1.0).value == pytest.approx(1)
    low, high = limits(_competence(0.55), 0.95)
    assert low < 0.5 < high


def test_competence_does_not_exist_where_chance_reaches_the_ceiling():
    assert not Competence(Mean((0.0, 9.0)), 1.0, 1.0).exists
    assert not Competence(Mean((0.0, 0.0)), 0.1, 1.0).exists


def test_a_record_gives_the_same_competence_again():
    competence = _competence(0.7)
    assert Competence.from_record(competence.record()) == competence


def test_the_gap_limits_cover_the_true_gap():
    """Split over two means, 95 % limits of the gap miss it in at most 5 % of samples."""
    torch.manual_seed(0)
    missed = 0
    for _ in range(400):
        pair = [Competence(_bernoulli(p, 100), 0.1, 1.0) for p in (0.82, 0.55)]
        low, high = limits(Gap(*pair), 0.95)
        missed += not low <= (0.82 - 0.55) / 0.9 <= high
    assert missed <= 32


def test_paired_limits_cover_the_gap_and_are_narrower_where_items_agree():
    """Items that are right in both places say nothing against each other; pairing knows it."""
    torch.manual_seed(1)
    missed, narrower = 0, 0
    for _ in range(200):
        reference = (torch.rand(300) < 0.9).double()
        shifted = reference * (torch.rand(300) < 0.95).double()
        gap = Gap(*(Competence(_of(s), 0.1, 1.0) for s in (reference, shifted)))
        paired = paired_gap(reference, shifted, gap)
        assert paired.value == pytest.approx(gap.value)
        low, high = limits(paired, 0.95)
        missed += not low <= (0.9 - 0.9 * 0.95) / 0.9 <= high
        narrower += high - low < gap.upper(0.025) - gap.lower(0.025)
    assert missed <= 18
    assert narrower == 200


def test_the_best_of_several_competences_is_tested_with_bonferroni():
    competences = [_competence(0.3), _competence(0.75)]
    best = Best(competences)
    assert best.value == competences[1].value
    assert best.p_at_most(0.5) == 2 * competences[1].p_at_most(0.5)
    assert best.p_at_least(0.9) == max(c.p_at_least(0.9) for c in competences)
    assert best.lower(0.05) == max(c.lower(0.025) for c in competences)


def test_the_best_constant_choice_is_at_least_the_uniform_policy():
    prescribed = torch.tensor([70, 20, 10])
    assert best_constant(prescribed, 100) == pytest.approx(0.7)
    assert best_constant(torch.tensor([0, 0]), 0) == 0


def _of(scores: torch.Tensor) -> Mean:
    return Mean(tuple(tally(scores, binary=True).tolist()))


def _bernoulli(p: float, n: int) -> Mean:
    return _of((torch.rand(n) < p).double())
