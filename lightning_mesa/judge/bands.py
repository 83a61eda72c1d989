"""Confidence bands for the dashboard: limits that hold at every look of a run together.

Pointwise 95 % limits miss the truth at one look in twenty, so a chart of a hundred looks shows a few misses.
A band misses it at *any* look in at most a share ``alpha`` of runs.
"""

import math
from collections.abc import Mapping
from typing import Any

import torch
from scipy.optimize import brentq
from torch import Tensor

from lightning_mesa.errors import ConfigurationError, shown
from lightning_mesa.judge.sequential import checked_scores, spending_weight
from lightning_mesa.stats.intervals import Estimate

_GAMMAS = torch.logspace(math.log10(0.02), math.log10(20), 16, dtype=torch.float64)
"""For binary scores ``1 + gamma`` is the ratio of the odds bet on to those of the null."""


def spent_limits(
    estimate: Estimate, alpha: float, look: int, looks: int | None, passed: int = 1
) -> tuple[float, float]:
    """Limits of this look's quantity, the level split over looks: for re-used items, and valid for fresh ones.

    Each look's limits miss with probability at most ``alpha w_t``, ``w_t`` the :func:`spending_weight
    <lightning_mesa.judge.sequential.spending_weight>`, so the chance that any look's do is at most
    ``alpha`` (Bonferroni), however the looks depend on each other. Exact, as the estimate's own limits are:
    Clopper-Pearson for the mean of binary scores, betting for bounded ones; a competence or gap follows.

    Args:
        estimate: What was measured at this look: a mean, a competence, a gap.
        alpha: Chance of any miss in the whole run.
        look: Number of the look, from 1.
        looks: Number of looks planned, or None.
        passed: How many looks have been due since the last one taken, this one included.

    Returns:
        Lower and upper limit; the quantity's whole range after the looks that were planned.

    Example:
        >>> from lightning_mesa.stats.intervals import Mean
        >>> low, high = spent_limits(Mean((40.0, 160.0)), alpha=0.05, look=3, looks=100)
        >>> print(f"{low:.2f} {high:.2f}")
        0.69 0.89
    """
    error = alpha * spending_weight(look, looks, passed) / 2
    return estimate.lower(error), estimate.upper(error)


def log_growth(scores: Tensor) -> Tensor:
    """``sum_i log(1 + gamma_k x_i)``, and the same of ``1 - x``; adds up over looks and ranks.

    Args:
        scores: ``[n]`` in [0, 1].

    Returns:
        ``[2, K]``: for the lower and for the upper limit.
    """
    return torch.stack([torch.log1p(_GAMMAS[:, None] * x).sum(1) for x in (scores, 1 - scores)])


def running_limits(growth: Tensor, n: int, alpha: float) -> tuple[float, float]:
    """Limits of the running mean at error ``alpha / 2`` each; see :class:`RunningBand`.

    Args:
        growth: ``[2, K]`` sums of :func:`log_growth` over all items so far.
        n: Number of items so far.
        alpha: Chance of any miss in the whole run.
    """
    below, above = (_smallest_mean(sums, n, math.log(2 / alpha)) for sums in growth)
    return below, 1 - above


class RunningBand:
    """Limits of the running mean, for fresh items: a confidence sequence by betting.

    What it covers, at all looks together, is the average over all items so far of the mean from which each
    was drawn, which may change from look to look (it lags behind the present mean; for that one, see
    :func:`spent_limits`). With ``S_k(t) = sum_i log(1 + gamma_k x_i)`` over the n items so far, the lower
    limit is the smallest m with::

        mean_k exp(S_k(t) - n log(1 + gamma_k m)) < 2 / alpha

    and the upper limit is 1 less that of ``1 - x``.

    * Guarantee: exact. If item i has mean ``m_i`` given the past, ``prod_i (1 + gamma x_i) / (1 + gamma m_i)``
      is a martingale, and as log is concave ``prod_i (1 + gamma m_i) <= (1 + gamma m)^n`` with m the average
      of the ``m_i``. So at the true m the left side never exceeds a martingale that starts at 1, and reaches
      ``2/alpha`` with probability at most ``alpha/2`` (Ville 1939). This is the betting confidence sequence
      of Waudby-Smith and Ramdas (2024) with bets ``gamma / (1 + gamma m)``, for which the running mean need not
      be constant.
    * Assumes: each item is scored once, before the model trains on it.

    Args:
        alpha: Chance of any miss in the whole run, however long.

    Raises:
        ConfigurationError: A ValueError, if alpha or a score is out of range.

    Example:
        >>> band = RunningBand(alpha=0.05)
        >>> band.update(torch.ones(0))
        (0.0, 1.0)
        >>> low, high = band.update(torch.ones(100))
        >>> print(f"{low:.2f} {high:.2f}")
        0.95 1.00
    """

    def __init__(self, alpha: float = 0.05) -> None:
        if not 0 < alpha < 1:
            raise ConfigurationError(f"RunningBand: alpha must lie between 0 and 1, not {shown(alpha)}.")
        self.alpha = alpha
        self.n = 0
        self._growth = torch.zeros(2, len(_GAMMAS), dtype=torch.float64)

    def update(self, scores: Tensor) -> tuple[float, float]:
        """Take ``[n]`` new scores in [0, 1], n may be 0; returns lower and upper limit of the running mean."""
        scores = checked_scores(scores)
        self.n += len(scores)
        self._growth = self._growth + log_growth(scores)
        return running_limits(self._growth, self.n, self.alpha)

    def state_dict(self) -> dict[str, Any]:
        """Plain numbers."""
        return {"n": self.n, "growth": self._growth.tolist()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a saved state."""
        self.n = state["n"]
        self._growth = torch.tensor(state["growth"], dtype=torch.float64)


def _smallest_mean(growth: Tensor, n: int, log_bound: float) -> float:
    """Smallest m at which the wealth, which falls with m, is below the bound."""

    def excess(mean: float) -> float:
        wealth = growth - n * torch.log1p(_GAMMAS * mean)
        return float(torch.logsumexp(wealth, 0)) - math.log(len(growth)) - log_bound

    # At 1 no bet has won, so a root exists if there is an excess at 0.
    return float(brentq(excess, 0.0, 1.0)) if excess(0.0) > 0 else 0.0
