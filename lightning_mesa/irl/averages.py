"""Means and ratios of means over items or clusters of items, with limits by Student's t."""

import math
from dataclasses import dataclass

import torch
from scipy.special import stdtrit
from torch import Tensor


@dataclass(frozen=True)
class Average:
    """An estimate with limits; NaN, and limits without end, where there is nothing to average.

    Attributes:
        value: The estimate.
        low: Lower limit.
        high: Upper limit.
    """

    value: float
    low: float
    high: float

    def clamped(self, low: float, high: float) -> "Average":
        """The same, where values outside of [low, high] are impossible."""
        return Average(*(min(max(x, low), high) for x in (self.value, self.low, self.high)))


def mean(values: Tensor, *, clusters: Tensor | None = None, level: float = 0.95) -> Average:
    """The mean of ``[n]`` values; those with the same label in ``clusters`` ``[n]`` were drawn together."""
    return ratio(values, torch.ones_like(values), clusters=clusters, level=level)


def ratio(above: Tensor, below: Tensor, *, clusters: Tensor | None = None, level: float = 0.95) -> Average:
    """``sum above / sum below`` of ``[n]`` values each, with limits by the delta method."""
    above, below = above.double(), below.double()
    if clusters is not None:
        above, below = summed(clusters, above), summed(clusters, below)
    total, n = float(below.sum()), len(below)
    if n < 2 or total == 0:
        return Average(math.nan if total == 0 else float(above.sum()) / total, -math.inf, math.inf)
    value = float(above.sum()) / total
    error = math.sqrt(float((above - value * below).square().sum()) * n / (n - 1)) / abs(total)
    reach = float(stdtrit(n - 1, (1 + level) / 2)) * error
    return Average(value, value - reach, value + reach)


def sandwich(bread: Tensor, moments: Tensor) -> Tensor:
    """``[K, K]`` White's covariance of estimates, with Bessel's correction for the number of clusters.

    Args:
        bread: ``[K, K]`` inverse of the moments' derivative.
        moments: ``[G, K]``, one for each cluster; they add up to 0 at the estimates.
    """
    groups = max(2, len(moments))
    return bread @ (moments.T @ moments * groups / (groups - 1)) @ bread.T


def summed(clusters: Tensor, values: Tensor) -> Tensor:
    """``[G, ...]`` sums of ``[n, ...]`` values within clusters, ``[n]`` integer labels."""
    labels = torch.unique(clusters, return_inverse=True)[1]
    groups = int(labels.max()) + 1 if len(labels) else 0
    return torch.zeros(groups, *values.shape[1:], dtype=values.dtype).index_add(0, labels, values)
