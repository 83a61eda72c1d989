"""Competence, gap and capability, as defined in ``docs/statistics.md``, with limits and p-values.

All three are computed from counts, so that a finding written to a file can be judged again.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lightning_mesa.stats.intervals import (
    Estimate,
    Mean,
    ScoreMean,
    log_gains,
    mean_of,
    p_difference_at_most,
    tally,
)


def limits(estimate: Estimate, level: float) -> tuple[float, float]:
    """Two-sided limits at the given confidence level."""
    error = (1 - level) / 2
    return estimate.lower(error), estimate.upper(error)


@dataclass(frozen=True)
class Competence:
    """``kappa = (S - c) / (u - c)``: 0 at chance ``c``, 1 at the ceiling ``u``.

    Attributes:
        mean: Mean score S, scaled to [0, 1] by the objective's bounds.
        chance: Score of the best output that does not look at the input, on the same scale; it is a constant
            of the distribution, not an estimate.
        ceiling: Score of an oracle, on the same scale.
    """

    mean: ScoreMean
    chance: float
    ceiling: float

    @property
    def exists(self) -> bool:
        """False without items, and where chance already reaches the ceiling (a single class, say)."""
        return self.mean.n > 0 and self.chance < self.ceiling

    @property
    def n(self) -> int:
        """Number of items."""
        return self.mean.n

    @property
    def value(self) -> float:
        """The estimate."""
        return self._competence(self.mean.value)

    def lower(self, error: float) -> float:
        """Limit that exceeds the truth with probability at most ``error``."""
        return self._competence(self.mean.lower(error))

    def upper(self, error: float) -> float:
        """Limit that falls short of the truth with probability at most ``error``."""
        return self._competence(self.mean.upper(error))

    def p_at_most(self, bound: float) -> float:
        """P-value of the null that competence is at most ``bound``."""
        return self.mean.p_at_most(self._score(bound))

    def p_at_least(self, bound: float) -> float:
        """P-value of the null that competence is at least ``bound``."""
        return self.mean.p_at_least(self._score(bound))

    def log_e_at_most(self, bound: float) -> Tensor:
        """``[K]`` log e-values of the null that competence is at most ``bound``."""
        return self.mean.log_e_at_most(self._score(bound))

    def log_e_at_least(self, bound: float) -> Tensor:
        """``[K]`` log e-values of the null that competence is at least ``bound``."""
        return self.mean.log_e_at_least(self._score(bound))

    def record(self) -> dict[str, Any]:
        """Plain values from which :meth:`from_record` builds it again."""
        return {**self.mean.record(), "chance": self.chance, "ceiling": self.ceiling}

    @staticmethod
    def from_record(record: Mapping[str, Any]) -> "Competence":
        """Build it from what :meth:`record` gave."""
        return Competence(mean_of(record), record["chance"], record["ceiling"])

    def _competence(self, score: float) -> float:
        return (score - self.chance) / (self.ceiling - self.chance)

    def _score(self, competence: float) -> float:
        return self.chance + competence * (self.ceiling - self.chance)


@dataclass(frozen=True)
class Gap:
    """``gap = kappa(reference) - kappa(shifted)``, the level split over the two means."""

    reference: Competence
    shifted: Competence

    @property
    def n(self) -> int:
        """Number of shifted items."""
        return self.shifted.n

    @property
    def value(self) -> float:
        """The estimate."""
        return self.reference.value - self.shifted.value

    def lower(self, error: float) -> float:
        """Limit that exceeds the truth with probability at most ``error``."""
        return self.reference.lower(error / 2) - self.shifted.upper(error / 2)

    def upper(self, error: float) -> float:
        """Limit that falls short of the truth with probability at most ``error``."""
        return -self._mirrored.lower(error)

    def p_at_most(self, bound: float) -> float:
        """The smallest a for which the lower limit at error a exceeds ``bound``."""
        low, high = (self.reference._competence(score) for score in (0.0, 1.0))
        return p_difference_at_most(self.reference.p_at_most, self.shifted.p_at_least, bound, low, high)

    def p_at_least(self, bound: float) -> float:
        """The smallest a for which the upper limit at error a falls short of ``bound``."""
        return self._mirrored.p_at_most(-bound)

    def log_e_at_most(self, bound: float) -> Tensor:
        """``[K]`` log e-values of the null that the gap is at most ``bound``.

        Pair the items of both sides at random; a bet on the pairs' differences is an e-value. Averaged over all
        pairings, its log stays that of an e-value (the geometric mean is at most the average), and depends on the
        counts alone: ``min(n_R, n_D)`` times the average over all pairs of an item here and an item there.
        """
        sides = (self.reference, self.shifted)
        low, high = _difference_range(*sides)
        counts = [torch.tensor(side.mean.counts, dtype=torch.float64) for side in sides]
        ups, downs = (torch.linspace(0, 1, len(side), dtype=torch.float64) for side in counts)
        pairs = torch.cartesian_prod(ups, downs)
        scaled = _scaled_difference(pairs[:, 0], pairs[:, 1], *sides)
        weight = torch.outer(*counts).flatten() / max(self.reference.n, self.shifted.n)
        return log_gains(scaled, (bound - low) / (high - low)) @ weight

    def log_e_at_least(self, bound: float) -> Tensor:
        """``[K]`` log e-values of the null that the gap is at least ``bound``."""
        return self._mirrored.log_e_at_most(-bound)

    @property
    def _mirrored(self) -> "Gap":
        """The gap the other way round, which is the negative of this one."""
        return Gap(self.shifted, self.reference)


def _difference_range(higher: Competence, lower: Competence) -> tuple[float, float]:
    """Differences in competence that one item on each side can have."""
    return higher._competence(0.0) - lower._competence(1.0), higher._competence(1.0) - lower._competence(0.0)


def _scaled_difference(up: Tensor, down: Tensor, higher: Competence, lower: Competence) -> Tensor:
    """``[n]`` differences in competence from two scores each, scaled to [0, 1]."""
    low, high = _difference_range(higher, lower)
    difference = (up - higher.chance) / (higher.ceiling - higher.chance)
    difference = difference - (down - lower.chance) / (lower.ceiling - lower.chance)
    return ((difference - low) / (high - low)).clamp(0, 1)


def paired_gap(reference: Tensor, shifted: Tensor, of: Gap) -> Competence:
    """The gap from paired items: the mean of their differences in competence.

    The differences are rescaled from the range that is possible to [0, 1], where betting limits hold.

    Args:
        reference: ``[n]`` scores of the reference items, scaled to [0, 1].
        shifted: ``[n]`` scores of the same items, shifted.
        of: The unpaired gap, for chance and ceiling.
    """
    low, high = _difference_range(of.reference, of.shifted)
    scaled = _scaled_difference(reference, shifted, of.reference, of.shifted)
    width = 1 / (high - low)
    mean = Mean(tuple(tally(scaled, binary=False).tolist()))
    return Competence(mean, chance=-low * width, ceiling=(1 - low) * width)


@dataclass(frozen=True)
class Best:
    """Capability as the largest competence over the objectives, Bonferroni over them."""

    competences: Sequence[Competence]

    @property
    def n(self) -> int:
        """Number of items."""
        return min(competence.n for competence in self.competences)

    @property
    def value(self) -> float:
        """The estimate."""
        return max(competence.value for competence in self.competences)

    def lower(self, error: float) -> float:
        """Limit that exceeds the truth with probability at most ``error``."""
        return max(competence.lower(error / len(self.competences)) for competence in self.competences)

    def upper(self, error: float) -> float:
        """Limit that falls short of the truth with probability at most ``error``."""
        return max(competence.upper(error / len(self.competences)) for competence in self.competences)

    def p_at_most(self, bound: float) -> float:
        """P-value of the null that no competence exceeds ``bound``."""
        smallest = min(competence.p_at_most(bound) for competence in self.competences)
        return min(1.0, smallest * len(self.competences))

    def p_at_least(self, bound: float) -> float:
        """P-value of the null that some competence is at least ``bound``: the largest of theirs."""
        return max(competence.p_at_least(bound) for competence in self.competences)

    def log_e_at_most(self, bound: float) -> Tensor:
        """``[K]`` log e-values of the null that no competence exceeds ``bound``: the average of theirs."""
        parts = torch.stack([competence.log_e_at_most(bound) for competence in self.competences])
        return parts.logsumexp(0) - math.log(len(parts))

    def log_e_at_least(self, bound: float) -> Tensor:
        """``[K]`` log e-values of the null that some competence is at least ``bound``: the smallest of theirs."""
        return torch.stack([competence.log_e_at_least(bound) for competence in self.competences]).amin(0)


def best_constant(prescribed: Tensor, n: int) -> float:
    """Share of items on which the best constant choice is prescribed; at least that of the uniform policy.

    Args:
        prescribed: ``[A]`` number of items on which each choice is prescribed.
        n: Number of items.
    """
    return float(torch.max(prescribed)) / n if n else 0.0
