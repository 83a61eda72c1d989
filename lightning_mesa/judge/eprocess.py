"""Evidence that is bet for: e-values over looks, on fresh and on re-used items.

An e-value is a non-negative number whose expectation under the null is at most 1, so that it exceeds
``1/alpha`` with probability at most ``alpha``. Here it is the gain of a bet against the null "the mean is at
most m" (Waudby-Smith and Ramdas 2024): ``prod_i (1 + lambda (x_i - m))``, ``0 < lambda < 1/m``.
"""

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from lightning_mesa.errors import ConfigurationError
from lightning_mesa.judge.sequential import Decision, SequentialTest, checked_scores, is_binary
from lightning_mesa.stats.intervals import BETS, Mean, tally


def log_e_values(scores: Tensor, null_mean: float) -> Tensor:
    """Log of ``prod_i (1 + lambda_k (x_i - m))`` for each bet; the order of items does not matter.

    Args:
        scores: ``[n]`` in [0, 1].
        null_mean: m, in (0, 1).

    Returns:
        ``[K]`` float64, finite: as ``lambda_k m < 1``, no factor is 0. Zeros without scores.

    Raises:
        ConfigurationError: A ValueError, if a score is not finite or lies outside [0, 1].
    """
    scores = checked_scores(scores)
    if is_binary(scores):
        return Mean(tuple(tally(scores, binary=True).tolist())).log_e_at_most(null_mean)
    return torch.log1p(BETS[:, None] * (scores / null_mean - 1)).sum(1)


class RestartEProcess(SequentialTest):
    """A bet that is placed anew at every look, for fresh items: the default for these.

    Wealth on bet k after look t, with ``L_tk`` the look's :func:`log_e_values`, exponentiated, and ``w_t``
    the share of the stake kept for look t (:func:`~lightning_mesa.judge.sequential.spending_weight`)::

        M_tk = (M_(t-1)k + w_t) L_tk
        M_t  = mean_k M_tk + (1 - sum_(s <= t) w_s)      rejects where M_t >= 1 / alpha

    It averages e-processes that start at every look, so a long benign phase cannot bankrupt it. (With
    ``w_t = 1`` and no stake held back it would be the e-detector of Shin, Ramdas and Rinaldo 2024, which
    bounds the time between false alarms and not their chance in a run.)

    * Guarantee: exact. M is a non-negative supermartingale that starts at 1: the chance that it ever reaches
      ``1/alpha`` is at most ``alpha`` (Ville 1939).
    * Assumes: given the past, each item has mean at most ``null_mean``. So each is scored once, before the
      model trains on it. **Not for re-used items**, where bets on the same luck multiply.

    Args:
        null_mean: Largest mean under the null, in (0, 1); None where only :meth:`bet` is used.
        alpha: Level for the whole run.
        looks: Number of looks planned, or None. It goes on holding after them, with no new stakes.

    Raises:
        ConfigurationError: A ValueError, if an argument or a score is out of range.

    Example:
        >>> test = RestartEProcess(null_mean=0.5, alpha=0.05, looks=100)
        >>> benign = [test.update(torch.zeros(32)).crossed for _ in range(50)]
        >>> any(benign), test.update(torch.ones(32)).crossed
        (False, True)
    """

    procedure = "restart e-process on fresh items, exact at all looks together"
    _memory = ("look", "_log_wealth")

    def __init__(self, null_mean: float | None = None, alpha: float = 0.05, looks: int | None = None) -> None:
        super().__init__(null_mean, alpha, looks)
        self._log_wealth = [-math.inf] * len(BETS)

    def update(self, scores: Tensor) -> Decision:
        """Bet on ``[n]`` new scores in [0, 1]; n may differ between looks."""
        decision = self.bet(log_e_values(scores, self._tested_mean()))
        return decision if len(scores) else replace(decision, crossed=False)

    def bet(self, log_e_values: Tensor, passed: int = 1) -> Decision:
        """Go on with the look's e-values, for a null that is not about one mean.

        Args:
            log_e_values: ``[K]``, one for each bet.
            passed: How many looks have been due since the last one taken, this one included; it gets their stakes too.
        """
        log_e_values = _checked_e_values(log_e_values)
        self.look += passed
        stake = torch.tensor(self.weight(self.look, passed), dtype=torch.float64).log()
        wealth = torch.logaddexp(torch.tensor(self._log_wealth, dtype=torch.float64), stake) + log_e_values
        self._log_wealth = wealth.tolist()
        log_evidence = float(np.logaddexp(_log_mean(wealth), self._log_unspent))
        threshold = -math.log(self.alpha)
        return Decision(log_evidence, threshold, log_evidence >= threshold, self.look)

    @property
    def _log_unspent(self) -> float:
        """Log of the stake that is held back for later looks: 1 less the weights so far."""
        if self.looks is None:
            return -math.log(self.look + 1)
        return math.log(1 - self.look / self.looks) if self.look < self.looks else -math.inf


class EvidenceSum(SequentialTest):
    """A weighted sum of each look's e-value, for re-used items.

    With ``L_tk`` from the look's :func:`log_e_values` and ``w_t`` fixed weights that add up to at most 1::

        E_t = mean_k L_tk         S_t = sum_(s <= t) w_s E_s      rejects where S_t >= 1 / alpha

    * Guarantee: exact, however the looks depend on each other. S never decreases and its limit has
      expectation at most 1, so it ever reaches ``1/alpha`` with probability at most ``alpha`` (Markov); it
      rejects whenever Bonferroni on the e-values would. Slower than
      :class:`~lightning_mesa.judge.sequential.SpendingTest` for one null, but many of them merge without
      a price for their number, see :func:`merge`.
    * Assumes: within a look, items are independent and the model does not depend on them.

    Args:
        null_mean: Largest mean under the null, in (0, 1); None where only :meth:`bet` is used.
        alpha: Level for the whole run.
        looks: Number of looks planned, or None. Looks after them add nothing.

    Raises:
        ConfigurationError: A ValueError, if an argument or a score is out of range.

    Example:
        >>> test = EvidenceSum(null_mean=0.5, alpha=0.05, looks=100)
        >>> [test.update(scores).crossed for scores in (torch.zeros(50), torch.ones(50), torch.zeros(50))]
        [False, True, True]
    """

    procedure = "sum of e-values over looks, exact under any dependence between them"
    _memory = ("look", "_log_sum")

    def __init__(self, null_mean: float | None = None, alpha: float = 0.05, looks: int | None = None) -> None:
        super().__init__(null_mean, alpha, looks)
        self._log_sum = -math.inf

    def update(self, scores: Tensor) -> Decision:
        """Add the e-value of ``[n]`` scores in [0, 1]; n may differ between looks."""
        log_e_values_of_look = log_e_values(scores, self._tested_mean())
        if len(scores) == 0:
            self.look += 1
            return Decision(self._log_sum, -math.log(self.alpha), False, self.look)
        return self.bet(log_e_values_of_look)

    def bet(self, log_e_values: Tensor) -> Decision:
        """Add the average of the look's e-values, for a null that is not about one mean.

        Args:
            log_e_values: ``[K]``, one for each bet.
        """
        log_e_values = _checked_e_values(log_e_values)
        self.look += 1
        weight = self.weight(self.look)
        if weight:
            self._log_sum = float(np.logaddexp(self._log_sum, math.log(weight) + _log_mean(log_e_values)))
        threshold = -math.log(self.alpha)
        return Decision(self._log_sum, threshold, self._log_sum >= threshold, self.look)


def merge(decisions: Sequence[Decision]) -> Decision:
    """Test "all of these nulls hold" (no proxy is pursued): the average of e-values, however they depend.

    Only for :class:`RestartEProcess` on the same stream of items, or :class:`EvidenceSum`; the average of
    ``1 / p`` is no e-value. Which of the nulls fails it does not say.

    Args:
        decisions: One of each proxy, from the same look and at the same level.

    Raises:
        ConfigurationError: A ValueError, if they differ in look or threshold.
    """
    common = {(decision.look, decision.threshold) for decision in decisions}
    if len(common) != 1:
        raise ConfigurationError("give decisions of one look, from tests with the same alpha.")
    look, threshold = common.pop()
    average = _log_mean(torch.tensor([decision.log_evidence for decision in decisions], dtype=torch.float64))
    return Decision(average, threshold, average >= threshold, look)


def closed(log_evidence: Sequence[float]) -> list[float]:
    """Adjust e-processes so that comparing each with ``1/alpha`` bounds the chance of *any* false rejection by alpha.

    Closed testing with averages (Vovk and Wang 2021, "E-values: calibration, combination and applications", section
    5): a null is rejected if the average over every set of nulls that it belongs to is large enough,
    ``min_k (e_i + the k smallest others) / (1 + k)``. It holds however they depend on each other, if the nulls are the
    same at every look.

    Args:
        log_evidence: Natural logs, one for each null.

    Example:
        >>> [round(e, 2) for e in closed([3.0, 0.0])]
        [2.36, 0.0]
    """
    adjusted = []
    for i, own in enumerate(log_evidence):
        total = smallest_average = own
        for k, other in enumerate(sorted([*log_evidence[:i], *log_evidence[i + 1 :]]), start=2):
            total = float(np.logaddexp(total, other))
            smallest_average = min(smallest_average, total - math.log(k))
        adjusted.append(smallest_average)
    return adjusted


def _checked_e_values(log_e_values: Tensor) -> Tensor:
    if log_e_values.shape != BETS.shape or bool(log_e_values.isnan().any()):
        raise ConfigurationError(f"give log e-values [{len(BETS)}], one for each bet, as log_e_values does.")
    return log_e_values


def _log_mean(logs: Tensor) -> float:
    return float(torch.logsumexp(logs, 0)) - math.log(len(logs))
