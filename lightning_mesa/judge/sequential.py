"""Tests that are looked at again and again, at one level for the whole run.

The null is that the mean score is at most ``null_mean`` at every look; the promise is that at most a share
``alpha`` of runs in which it holds ever rejects. For "at least", give ``1 - scores``. Which class, by data:

========================================  ===========================================================
fresh: each item is scored once           :class:`~lightning_mesa.judge.eprocess.RestartEProcess`
re-used: the same items at every look     :class:`SpendingTest`, exact
re-used, or to be merged over proxies     :class:`~lightning_mesa.judge.eprocess.EvidenceSum`, exact
re-used, at least 1000 items              :class:`~lightning_mesa.judge.bootstrap.BootstrapBoundary`,
                                          asymptotic
========================================  ===========================================================

For data whose scores change later weights (adaptive) none of them holds.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from lightning_mesa.errors import ConfigurationError, shown
from lightning_mesa.stats.intervals import Mean, tally


@dataclass(frozen=True)
class Decision:
    """What a sequential test says after a look.

    Attributes:
        log_evidence: Natural log of the evidence: of the e-value, or of ``1 / p``.
        threshold: What it was compared with, on the same scale; infinite where the look cannot reject.
        crossed: Whether the null is rejected at this look; never at a look without scores.
        look: Number of the look, from 1.
    """

    log_evidence: float
    threshold: float
    crossed: bool
    look: int


class SequentialTest(ABC):
    """A test of "the mean score is at most ``null_mean``" that is looked at again and again.

    Args:
        null_mean: Largest mean under the null, in (0, 1).
        alpha: Level for the whole run, in (0, 1).
        looks: Number of looks planned; None where it cannot be known beforehand.

    Attributes:
        procedure: What it is and when it holds, in words for an alert.
        look: Looks taken so far.

    Raises:
        ConfigurationError: A ValueError, if an argument is out of range.
    """

    procedure: ClassVar[str]
    _memory: ClassVar[tuple[str, ...]] = ("look",)

    def __init__(self, null_mean: float | None, alpha: float, looks: int | None) -> None:
        name = type(self).__name__
        if null_mean is not None and not 0 < null_mean < 1:
            raise ConfigurationError(
                f"{name}: null_mean must lie between 0 and 1, not {shown(null_mean)}; rescale the scores."
            )
        if not 0 < alpha < 1:
            raise ConfigurationError(f"{name}: alpha must lie between 0 and 1, not {shown(alpha)}.")
        if looks is not None and looks < 1:
            raise ConfigurationError(f"{name}: looks must be at least 1, not {shown(looks)}; None if it is not known.")
        self.null_mean = null_mean
        self.alpha = alpha
        self.looks = looks
        self.look = 0

    @abstractmethod
    def update(self, scores: Tensor) -> Decision:
        """Take a look; one without scores counts and cannot reject.

        Args:
            scores: ``[n]`` scores of the look's items (or episodes), in [0, 1].

        Raises:
            ConfigurationError: A ValueError, if a score is not finite or lies outside [0, 1].
        """

    def weight(self, look: int, passed: int = 1) -> float:
        """Share of the level that a look may spend, see :func:`spending_weight`."""
        return spending_weight(look, self.looks, passed)

    def state_dict(self) -> dict[str, Any]:
        """Plain numbers."""
        return {name.removeprefix("_"): getattr(self, name) for name in self._memory}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a saved state; starting anew instead would spend the level again."""
        for name in self._memory:
            setattr(self, name, state[name.removeprefix("_")])

    def _tested_mean(self) -> float:
        """The null mean, needed for an update with scores."""
        if self.null_mean is None:
            raise ConfigurationError(f"{type(self).__name__}: to update with scores, construct it with null_mean.")
        return self.null_mean


def spending_weight(look: int, looks: int | None, passed: int = 1) -> float:
    """Share of the level that a look may spend; over all looks they add up to at most 1.

    ``1 / looks`` where the number of looks is fixed beforehand (and nothing after them), else
    ``1 / (t (t + 1))`` at look t. A look that is not taken leaves its share to the next one: whether it is taken must
    not depend on the scores.

    Args:
        look: Number of the look, from 1.
        looks: Number of looks planned, or None.
        passed: How many looks have been due since the last one taken, this one included.
    """
    if looks is None:
        return passed / ((look - passed + 1) * (look + 1))
    return (min(look, looks) - min(look - passed, looks)) / looks


def checked_scores(scores: Tensor) -> Tensor:
    """The scores ``[n]`` in float64 on the CPU.

    Raises:
        ConfigurationError: A ValueError, if a score is not finite or lies outside [0, 1].
    """
    scores = scores.detach().double().cpu()
    if scores.ndim != 1:
        raise ConfigurationError(f"scores must be [n], one per item or episode, not {list(scores.shape)}.")
    # NaN fails the comparison too.
    if len(scores) and not (float(scores.min()) >= 0 and float(scores.max()) <= 1):
        raise ConfigurationError(
            "scores must be finite and lie in [0, 1]: rescale them by their bounds, (score - low) / (high - low), "
            "and leave out items whose score is not finite."
        )
    return scores


def is_binary(scores: Tensor) -> bool:
    """Whether all scores are 0 or 1."""
    return bool(((scores == 0) | (scores == 1)).all())


class SpendingTest(SequentialTest):
    """Alpha spending, for held-out items that are seen again at every look: the default for these.

    At look t a p-value that is valid on its own is compared with ``alpha w_t``, ``w_t`` the
    :func:`spending_weight`. The chance of any false rejection is at most ``sum_t alpha w_t <= alpha``
    (Bonferroni), however the looks depend on each other.

    * Guarantee: exact. Binary scores: the binomial tail ``P(Bin(n, null_mean) >= successes)`` (Clopper and
      Pearson 1934). Bounded scores: betting, ``1 / E`` with the e-value of :meth:`Mean.p_at_most
      <lightning_mesa.stats.intervals.Mean.p_at_most>` (Waudby-Smith and Ramdas 2024).
    * Assumes: within a look, items are independent and the model does not depend on them.

    Args:
        null_mean: Largest mean under the null; None where only :meth:`spend` is used, with p-values of
            other nulls: a union (the largest p-value of its parts) or a two-sample comparison.
        alpha: Level for the whole run.
        looks: Number of looks planned, or None.
        binary: Whether scores are always 0 or 1. None: a look's scores are taken as binary if all of them
            are 0 or 1, which is exact for scores that are always or never so; say False for scores that are
            *nearly* always 0 or 1.

    Raises:
        ConfigurationError: A ValueError, if an argument, a score or a p-value is out of range.

    Example:
        >>> test = SpendingTest(alpha=0.05, looks=10)
        >>> test.spend(0.02).crossed, test.spend(0.004).crossed
        (False, True)
        >>> import torch
        >>> SpendingTest(null_mean=0.5, alpha=0.05, looks=10).update(torch.ones(20)).crossed
        True
    """

    procedure = "exact p-value at each look, alpha spending over looks"

    def __init__(
        self,
        null_mean: float | None = None,
        alpha: float = 0.05,
        looks: int | None = None,
        *,
        binary: bool | None = None,
    ) -> None:
        super().__init__(null_mean, alpha, looks)
        self.binary = binary

    def update(self, scores: Tensor) -> Decision:
        """Spend the p-value of "the mean is at most ``null_mean``".

        Args:
            scores: ``[n]`` in [0, 1]; n may differ between looks.

        Raises:
            ConfigurationError: A ValueError, if a score is out of range, or not 0 or 1 although ``binary``.
        """
        null_mean, scores = self._tested_mean(), checked_scores(scores)
        binary = is_binary(scores)
        if self.binary and not binary:
            raise ConfigurationError("a score is neither 0 nor 1: construct SpendingTest with binary=False.")
        if self.binary is False:
            binary = False
        mean = Mean(tuple(tally(scores, binary=binary).tolist()))
        return self.spend(mean.p_at_most(null_mean))

    def spend(self, p_value: float, passed: int = 1) -> Decision:
        """Compare this look's p-value with the level spent on it.

        Args:
            p_value: Valid on its own.
            passed: How many looks have been due since the last one taken, this one included.
        """
        if not 0 <= p_value <= 1:
            raise ConfigurationError(
                f"a p-value lies in [0, 1], not {shown(p_value)}; use 1 where nothing was measured."
            )
        self.look += passed
        return spend(p_value, self.alpha, self.look, self.looks, passed)


def spend(p_value: float, alpha: float, look: int, looks: int | None, passed: int = 1) -> Decision:
    """Compare a p-value with the part of the level that its look may spend.

    Args:
        p_value: Valid on its own.
        alpha: Level for the whole run.
        look: Number of the look, from 1.
        looks: Number of looks planned, or None.
        passed: How many looks have been due since the last one taken, this one included.
    """
    level = alpha * spending_weight(look, looks, passed)
    log_evidence = -math.log(p_value) if p_value > 0 else math.inf
    threshold = -math.log(level) if level > 0 else math.inf
    return Decision(log_evidence, threshold, p_value <= level and level > 0, look)


def holm(p_values: list[float]) -> list[float]:
    """Adjust p-values so that comparing each with a level bounds the chance of *any* false rejection by it.

    Holm (1979): the i-th smallest of K is multiplied by ``K - i + 1``, and kept at least as large as those
    before it.
    """
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    adjusted = [1.0] * len(p_values)
    largest = 0.0
    for rank, i in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = largest
    return adjusted
