"""Exact limits and p-values for the mean of scores in [0, 1], from sums that add up over batches and ranks.

Binary scores: Clopper and Pearson (1934), exact. Bounded scores: betting (Waudby-Smith and Ramdas 2024),
here as an order-free mixture over fixed bets, so that a histogram of the scores is sufficient. Scores of which
only the mean and n are known: Hoeffding (1963).
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import torch
from scipy.optimize import brentq
from scipy.special import bdtr, bdtrc, betaincinv, rel_entr
from torch import Tensor

CELLS = 64
"""Grid cells for bounded scores; an item's weight is shared by the two grid points around it."""

BETS = torch.tensor([0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.6, 0.8], dtype=torch.float64)
"""Bets of e-values that multiply over looks, as the part of the wealth that is lost on a score of 0."""

_SMALLEST_P = 1e-300
_SMALLEST_BOUND = 1e-9
_TOLERANCE = 1e-10
# Bets as a share of the largest bet that cannot lose everything: wide, because the best one shrinks like
# 1/sqrt(n) and is not known beforehand.
_BETS = torch.logspace(math.log10(1e-3), math.log10(0.99), 20, dtype=torch.float64)[:, None]


def tally(scores: Tensor, *, binary: bool) -> Tensor:
    """Sum scores into counts on a grid over [0, 1].

    Each score ``x`` between grid points ``a < b`` gives weight ``(b - x)/(b - a)`` to ``a`` and the rest to
    ``b``: counts add up over batches and ranks, and the mean is kept exactly.

    Args:
        scores: ``[n]`` finite scores in [0, 1].
        binary: Whether all scores are 0 or 1; then the grid is {0, 1}.

    Returns:
        Counts, ``[2]`` if binary, else ``[CELLS + 1]``, float64.
    """
    if binary:
        ones = scores.sum(dtype=torch.float64)
        return torch.stack([len(scores) - ones, ones])
    position = scores.double() * CELLS
    lower = position.floor().clamp(0, CELLS - 1)
    share = position - lower
    index = lower.long()
    counts = torch.zeros(CELLS + 1, dtype=torch.float64)
    counts.index_add_(0, index, 1 - share)
    counts.index_add_(0, index + 1, share)
    return counts


class Estimate(Protocol):
    """A quantity with an estimate, limits, p-values and e-values."""

    @property
    def n(self) -> int:
        """Number of items."""

    @property
    def value(self) -> float:
        """The estimate."""

    def lower(self, error: float) -> float:
        """Limit that exceeds the truth with probability at most ``error``."""

    def upper(self, error: float) -> float:
        """Limit that falls short of the truth with probability at most ``error``."""

    def p_at_most(self, bound: float) -> float:
        """P-value of the null that the truth is at most ``bound``."""

    def p_at_least(self, bound: float) -> float:
        """P-value of the null that the truth is at least ``bound``."""

    def log_e_at_most(self, bound: float) -> Tensor:
        """``[K]`` logs of e-values of the null that the truth is at most ``bound``, one for each of :data:`BETS`.

        Each has an expectation of at most 1 under the null, so those of fresh items may be multiplied.
        """

    def log_e_at_least(self, bound: float) -> Tensor:
        """``[K]`` logs of e-values of the null that the truth is at least ``bound``."""


class ScoreMean(Estimate, Protocol):
    """The mean of scores in [0, 1]: :class:`Mean` or :class:`BoundedMean`."""

    @property
    def counts(self) -> Sequence[float]:
        """Counts on a grid over [0, 1]."""

    def limits(self, level: float) -> tuple[float, float]:
        """Two-sided limits that hold the true mean with probability at least ``level``."""

    def record(self) -> dict[str, Any]:
        """Plain values from which :func:`mean_of` builds it again."""


class _Mirrored(ABC):
    """What is known of the mean of scores from above, by what is known of that of ``1 - x`` from below."""

    @property
    @abstractmethod
    def _mirrored(self) -> Estimate:
        """The mean of ``1 - x``."""

    @abstractmethod
    def lower(self, error: float) -> float:
        """Lower limit that exceeds the true mean with probability at most ``error``."""

    def upper(self, error: float) -> float:
        """Upper limit that falls short of the true mean with probability at most ``error``."""
        return 1.0 - self._mirrored.lower(error)

    def limits(self, level: float) -> tuple[float, float]:
        """Two-sided limits that hold the true mean with probability at least ``level``."""
        error = (1 - level) / 2
        return self.lower(error), self.upper(error)

    def p_at_least(self, mean: float) -> float:
        """P-value of the null that the true mean is at least ``mean``."""
        return self._mirrored.p_at_most(1 - mean)

    def log_e_at_least(self, bound: float) -> Tensor:
        """``[K]`` logs of e-values of the null that the true mean is at least ``bound``: those of ``1 - x``."""
        return self._mirrored.log_e_at_most(1 - bound)


@dataclass(frozen=True)
class Mean(_Mirrored):
    """The mean of n scores in [0, 1], known by its counts on a grid; see :func:`tally`.

    Two counts are those of a binary score and get Clopper-Pearson limits; more get betting limits.

    Example:
        >>> accuracy = Mean((4.0, 96.0))
        >>> accuracy.value
        0.96
        >>> low, high = accuracy.limits(0.95)
        >>> print(f"{low:.3f} {high:.3f}")
        0.901 0.989
    """

    counts: Sequence[float]

    @cached_property
    def n(self) -> int:
        """Number of items."""
        return round(sum(self.counts))

    @cached_property
    def value(self) -> float:
        """The mean; NaN without items."""
        if self.n == 0:
            return math.nan
        return sum(i * c for i, c in enumerate(self.counts)) / (len(self.counts) - 1) / self.n

    @property
    def binary(self) -> bool:
        """Whether the scores are 0 or 1."""
        return len(self.counts) == 2

    def lower(self, error: float) -> float:
        """Lower limit that exceeds the true mean with probability at most ``error``."""
        if self.n == 0 or self.value == 0:
            return 0.0
        if self.binary:
            successes = round(self.counts[1])
            return float(betaincinv(successes, self.n - successes + 1, error))
        return _inverted(self.p_at_most, error, self.value)

    def p_at_most(self, mean: float) -> float:
        """P-value of the null that the true mean is at most ``mean``.

        Binary: ``P(Bin(n, mean) >= successes)``. Bounded: ``1 / E`` with the mixture of bets
        ``E = mean over c of prod_i (1 - c + c x_i / mean)``, whose expectation under the null is at most 1
        (Markov). The product over grid points is a lower bound of that over items, as log is concave.
        """
        if self.n == 0 or mean >= 1 or self.value <= mean:
            return 1.0
        if mean <= 0:
            return _SMALLEST_P
        if self.binary:
            return max(float(bdtrc(round(self.counts[1]) - 1, self.n, mean)), _SMALLEST_P)
        grid, counts = self._occurring
        wealth = torch.log1p(_BETS * (grid / mean - 1)) @ counts
        log_evidence = float(torch.logsumexp(wealth, 0)) - math.log(len(_BETS))
        return max(math.exp(-max(log_evidence, 0.0)), _SMALLEST_P)

    def p_at_least(self, mean: float) -> float:
        """P-value of the null that the true mean is at least ``mean``."""
        if self.binary and 0 < mean < 1 and self.value < mean:
            return max(float(bdtr(round(self.counts[1]), self.n, mean)), _SMALLEST_P)
        return super().p_at_least(mean)

    def log_e_at_most(self, bound: float) -> Tensor:
        """``[K]`` ``log prod_i (1 + b_k (x_i / bound - 1))``, b_k the :data:`BETS`; a lower bound, as for p-values."""
        if self.n == 0:
            return torch.zeros_like(BETS)
        grid, counts = self._occurring
        return log_gains(grid, bound) @ counts

    def record(self) -> dict[str, Any]:
        """Plain values from which :func:`mean_of` builds it again."""
        return {"counts": list(self.counts)}

    @cached_property
    def _mirrored(self) -> "Mean":
        """The mean of ``1 - x``."""
        return Mean(tuple(reversed(self.counts)))

    @cached_property
    def _occurring(self) -> tuple[Tensor, Tensor]:
        """Grid points that occur, and their counts: limits ask for them some thirty times."""
        counts = torch.tensor(self.counts, dtype=torch.float64)
        there = counts > 0
        return torch.linspace(0, 1, len(self.counts), dtype=torch.float64)[there], counts[there]


def share_of(count: int, n: int) -> Mean | None:
    """The share that ``count`` of n items have; None without items."""
    return Mean((float(n - count), float(count))) if n else None


@dataclass(frozen=True)
class BoundedMean(_Mirrored):
    """The mean of n independent scores in [0, 1] of which nothing else is known, not even whether they are binary.

    Hoeffding (1963), theorem 1, equation 2.1, the Chernoff bound for scores in [0, 1] of any distribution: if
    their true mean is at most m, a mean of x > m or more has probability at most ``exp(-n KL(x, m))``, with
    ``KL(x, m) = x log(x / m) + (1 - x) log((1 - x) / (1 - m))``. That is the p-value; limits invert it.

    Attributes:
        value: The mean.
        n: Number of items.

    Example:
        >>> low, high = BoundedMean(0.96, 100).limits(0.95)
        >>> print(f"{low:.3f} {high:.3f}")
        0.884 0.993
    """

    value: float
    n: int

    @property
    def counts(self) -> Sequence[float]:
        """Counts of binary scores with this mean, whose e-values hold for any scores that have it.

        ``(1 + b (1/m - 1))^x (1 - b)^(1 - x)`` is convex in x, so its expectation is largest for scores of 0 and 1,
        and then at most 1.
        """
        return self.n * (1 - self.value), self.n * self.value

    def lower(self, error: float) -> float:
        """Lower limit that exceeds the true mean with probability at most ``error``."""
        return _inverted(self.p_at_most, error, self.value)

    def p_at_most(self, mean: float) -> float:
        """P-value of the null that the true mean is at most ``mean``: ``exp(-n KL(value, mean))``."""
        if self.n == 0 or mean >= 1 or self.value <= mean:
            return 1.0
        if mean <= 0:
            return _SMALLEST_P
        divergence = float(rel_entr(self.value, mean) + rel_entr(1 - self.value, 1 - mean))
        return max(math.exp(-self.n * max(divergence, 0.0)), _SMALLEST_P)

    def log_e_at_most(self, bound: float) -> Tensor:
        """``[K]`` those of :attr:`counts`."""
        return Mean(self.counts).log_e_at_most(bound)

    def record(self) -> dict[str, Any]:
        """Plain values from which :func:`mean_of` builds it again."""
        return {"mean": self.value, "n": self.n}

    @property
    def _mirrored(self) -> "BoundedMean":
        """The mean of ``1 - x``."""
        return BoundedMean(1 - self.value, self.n)


def log_gains(scores: Tensor, bound: float) -> Tensor:
    """``[K, n]`` ``log(1 + b_k (x_i / bound - 1))``: what each of the :data:`BETS` gains on ``[n]`` scores in [0, 1].

    The expectation of ``1 + b_k (x / bound - 1)`` is at most 1 for a mean of at most ``bound``. A bound outside (0, 1)
    is moved inside, which lets no bet gain where none may.
    """
    if bound >= 1:
        return torch.zeros(len(BETS), len(scores), dtype=torch.float64)
    return torch.log1p(BETS[:, None] * (scores / max(bound, _SMALLEST_BOUND) - 1))


def mean_of(record: Mapping[str, Any]) -> ScoreMean:
    """Build a mean from what its ``record`` gave."""
    return Mean(tuple(record["counts"])) if "counts" in record else BoundedMean(record["mean"], record["n"])


def p_difference_at_most(
    higher: Callable[[float], float], lower: Callable[[float], float], margin: float, low: float, high: float
) -> float:
    """P-value of the null that one quantity exceeds another by at most ``margin``.

    It is the smallest ``a`` for which the lower limit of the one at error ``a/2`` exceeds the upper limit of
    the other at error ``a/2`` by more than ``margin``: ``2 min_x max(higher(x), lower(x - margin))``, found
    where the two cross.

    Args:
        higher: ``x`` -> p-value of "the first quantity is at most x"; does not decrease in x.
        lower: ``x`` -> p-value of "the second quantity is at least x"; does not increase in x.
        margin: The difference under the null.
        low: Smallest x worth trying.
        high: Largest x worth trying.
    """
    x = _crossing(lambda x: math.log(higher(x)) - math.log(lower(x - margin)), low, high)
    return min(1.0, 2 * max(higher(x), lower(x - margin)))


def _inverted(p_at_most: Callable[[float], float], error: float, value: float) -> float:
    """The largest mean that is rejected at ``error``: a lower limit; 0 where no error is allowed."""
    return _crossing(lambda mean: math.log(p_at_most(mean) / error), 0.0, value) if error > 0 else 0.0


def _crossing(increasing: Callable[[float], float], low: float, high: float) -> float:
    """Largest x in [low, high], to 1e-9, at which a function that does not decrease is still at most 0."""
    if increasing(low) >= 0:
        return low
    if increasing(high) <= 0:
        return high
    root = brentq(increasing, low, high, xtol=_TOLERANCE)
    return max(low, float(root) - 2 * _TOLERANCE)  # the side on which limits are conservative, also at a jump
