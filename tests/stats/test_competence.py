import math
from itertools import product

import pytest
import torch

from lightning_mesa.stats.competence import Best, Competence, Gap, best_constant, limits, paired_gap
from lightning_mesa.stats.intervals import Mean, tally


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


def _outcomes(n: int, share: float, chance: float) -> list[tuple[float, Competence]]:
    """Every competence that n items of this share can have, with its probability."""
    return [
        (math.comb(n, k) * share**k * (1 - share) ** (n - k), Competence(Mean((float(n - k), float(k))), chance, 1.0))
        for k in range(n + 1)
    ]


@pytest.mark.parametrize(("n_reference", "n_shifted"), [(6, 6), (3, 9), (1, 4)])
@pytest.mark.parametrize("reference", [0.3, 0.7, 1.0])
def test_e_values_of_a_gap_have_an_expectation_of_at_most_one_where_it_is_at_its_bound(
    n_reference, n_shifted, reference
):
    """Exactly: summed over all outcomes, with another chance level on each side."""
    gap, expectations = 0.2, torch.zeros(2, 8, dtype=torch.float64)
    above = _outcomes(n_reference, 0.1 + 0.9 * reference, 0.1)
    below = _outcomes(n_shifted, 0.3 + 0.7 * (reference - gap), 0.3)
    for (p, here), (q, there) in product(above, below):
        expectations[0] += p * q * Gap(here, there).log_e_at_most(gap).exp()
        expectations[1] += p * q * Gap(here, there).log_e_at_least(gap).exp()
    assert bool((expectations <= 1 + 1e-9).all())
    assert bool((expectations > 0.3).any(1).all())


def test_e_values_of_a_gap_grow_with_the_items_where_it_is_above_its_bound():
    growth = [float(Gap(_competence(0.9, n), _competence(0.6, n)).log_e_at_most(0.1).amax()) for n in (50, 100, 200)]
    assert 1 < growth[0] < growth[1] < growth[2]
    assert growth[2] == pytest.approx(4 * growth[0], rel=0.01)


def test_the_best_of_several_competences_takes_the_average_or_the_smallest_e_value():
    one, other = _competence(0.3), _competence(0.8)
    best = Best([one, other])
    average = (one.log_e_at_most(0.4).exp() + other.log_e_at_most(0.4).exp()) / 2
    assert best.log_e_at_most(0.4).exp().tolist() == pytest.approx(average.tolist())
    assert (
        best.log_e_at_least(0.4).tolist() == torch.minimum(one.log_e_at_least(0.4), other.log_e_at_least(0.4)).tolist()
    )
