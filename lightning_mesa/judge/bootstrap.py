"""A boundary that knows how the looks depend on each other, from a bootstrap of the items. Asymptotic."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from scipy.special import log_ndtr
from torch import Tensor

from lightning_mesa.errors import ConfigurationError
from lightning_mesa.judge.sequential import Decision, SequentialTest, checked_scores


class BootstrapBoundary(SequentialTest):
    """Alpha spending with a multiplier bootstrap, for many re-used items: sharper, and only asymptotic.

    Where looks resemble each other, the levels of :class:`~lightning_mesa.judge.sequential.SpendingTest`
    add up to more than is needed. Here every item i has one normal multiplier ``g_bi`` per path b, the same
    at every look, so that paths depend on each other over looks as the means do (van der Vaart and Wellner 1996, 2.9)::

        Z_t  = sqrt(n) (mean_t - null_mean) / s_t
        G_tb = sum_i g_bi (x_ti - mean_t) / (sqrt(n) s_t)

    At look t the boundary ``c_t`` is set so that, of B paths, the number that has ever crossed is
    ``floor(alpha (B + 1) t / T)`` (Lan and DeMets 1983): with a budget of b paths at this look it is the b-th
    largest ``G_tb`` among those that have not crossed (*not* the next one, which spends ``b + 1``). Rejects
    where ``Z_t``, rid of its skewness (Hall 1992), is at least ``c_t``. A look without a budget cannot reject, and
    what a look cannot spend is lost.

    * Guarantee: **asymptotic** in n: at 1000 items .05 was measured at .05 (docs/evidence.md). Below
      ``minimum_n`` items a look spends and does not cross: its threshold is infinite.
    * Assumes: **the same items in the same order at every look**, independent of each other, and a model that
      does not depend on them.

    Evidence and threshold of its decisions are ``-log P(N(0, 1) > .)`` of ``Z_t`` and ``c_t``.

    Args:
        null_mean: Largest mean under the null, in (0, 1).
        alpha: Level for the whole run; ``alpha (paths + 1)`` must be at least 1, and good if it is at least 50.
        looks: Number of looks planned; nothing is rejected after them.
        minimum_n: Fewest items with which it may reject.
        paths: B. Multipliers take ``4 B (n + 1)`` bytes; they are drawn again after a resume.
        seed: Of the multipliers.

    Raises:
        ConfigurationError: A ValueError, if an argument or a score is out of range, or the number of items changes.

    Example:
        >>> for n in (999, 1000):
        ...     decision = BootstrapBoundary(null_mean=0.5, alpha=0.05, looks=10).update(torch.ones(n))
        ...     print(n, decision.crossed, decision.threshold < math.inf)
        999 False False
        1000 True True
    """

    procedure = "multiplier-bootstrap boundary over looks, asymptotic in the number of items"
    _memory = ("look", "seed", "_n", "_crossed")

    def __init__(
        self,
        null_mean: float,
        alpha: float = 0.05,
        *,
        looks: int,
        minimum_n: int = 1000,
        paths: int = 999,
        seed: int = 0,
    ) -> None:
        super().__init__(null_mean, alpha, looks)
        if alpha * (paths + 1) < 1:
            raise ConfigurationError(
                f"BootstrapBoundary: {paths} paths cannot resolve alpha {alpha:g}; give at least "
                f"paths={math.ceil(1 / alpha)}, better {math.ceil(50 / alpha)}."
            )
        self.minimum_n = minimum_n
        self.paths = paths
        self.seed = seed
        self._n: int | None = None
        self._crossed: list[int] = []  # paths that have crossed; never more than alpha (B + 1)
        self._multipliers: Tensor | None = None

    def update(self, scores: Tensor) -> Decision:
        """Compare the mean of the ``[n]`` scores in [0, 1] with this look's boundary.

        Raises:
            ConfigurationError: A ValueError, if a score is out of range or n differs from earlier looks.
        """
        null_mean, scores = self._tested_mean(), checked_scores(scores)
        n = len(scores)
        if n and self._n not in (None, n):
            raise ConfigurationError(
                f"BootstrapBoundary was given {self._n} items before and {n} now: it needs the same items in the same "
                "order at every look; use SpendingTest where they change."
            )
        self._n = n or self._n
        self.look += 1
        budget = self._budget(self.look) - self._budget(self.look - 1)
        if n == 0 or n < self.minimum_n:
            return Decision(0.0, math.inf, False, self.look)
        # One more item, of score 0: else n scores of 1 would have no variance, and be evidence without limit.
        scores = torch.cat([scores, scores.new_zeros(1)])
        mean = scores.mean()
        centered = scores - mean
        spread = centered.square().sum().sqrt()
        if spread == 0:
            return Decision(0.0, math.inf, False, self.look)
        skewness = float(centered.pow(3).sum() / spread.pow(3))
        log_evidence = _log_evidence(_without_skewness(float((mean - null_mean) * (n + 1) / spread), skewness))
        if budget == 0:
            return Decision(log_evidence, math.inf, False, self.look)
        paths = self._draw(n + 1) @ (centered / spread).float()
        paths[self._crossed] = -math.inf
        largest = paths.topk(budget)
        self._crossed = self._crossed + largest.indices.tolist()
        threshold = _log_evidence(float(largest.values[-1]))
        return Decision(log_evidence, threshold, log_evidence >= threshold, self.look)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a saved state; the paths are drawn again from its seed."""
        super().load_state_dict(state)
        self._multipliers = None

    def _budget(self, look: int) -> int:
        """Paths that may have crossed up to a look, all in all."""
        assert self.looks is not None
        share = min(look, self.looks) / self.looks
        return math.floor(self.alpha * (self.paths + 1) * share + 1e-9)

    def _draw(self, n: int) -> Tensor:
        """Multipliers ``[B, n]``, the same at every look."""
        if self._multipliers is None:
            generator = torch.Generator().manual_seed(self.seed)
            self._multipliers = torch.randn(self.paths, n, generator=generator)
        return self._multipliers


def _without_skewness(z: float, skewness: float) -> float:
    """Hall (1992), his monotone cubic, for a mean over its own standard error.

    Where the null mean is near 1, a sample that happens to hold few low scores has a high mean *and* a small standard
    error; the paths, which are normal, know nothing of that.

    Args:
        z: ``sqrt(n) (mean - null_mean) / s``.
        skewness: Of the scores, over ``sqrt(n)``.
    """
    a = skewness / 3
    return z + a * z**2 + a**2 * z**3 / 3 + skewness / 6


def _log_evidence(z: float) -> float:
    return -float(log_ndtr(-z))
