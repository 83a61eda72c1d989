"""Tests that are looked at again and again, at one level for the whole run."""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Decision:
    """What a sequential test says after a look.

    Attributes:
        log_evidence: Natural log of the evidence, here ``-log p``.
        threshold: What it was compared with, here ``-log`` of the level spent at this look.
        crossed: Whether the null is rejected.
        look: Number of the look, from 1.
    """

    log_evidence: float
    threshold: float
    crossed: bool
    look: int


class SpendingTest:
    """Alpha spending for held-out items that are seen again at every look.

    Each look has its own p-value, valid on its own; looks may depend on each other in any way. The levels
    of all looks add up to at most ``alpha``: ``alpha / looks`` each where the number of looks is fixed
    beforehand (and nothing after them), else ``alpha / (t (t + 1))`` at look t.

    Args:
        alpha: Level for the whole run.
        looks: Number of looks planned, or None.

    Example:
        >>> test = SpendingTest(alpha=0.05, looks=10)
        >>> test.spend(0.02).crossed, test.spend(0.004).crossed
        (False, True)
    """

    def __init__(self, alpha: float, looks: int | None = None) -> None:
        self.alpha = alpha
        self.looks = looks
        self.look = 0

    def spend(self, p_value: float) -> Decision:
        """Compare this look's p-value with the level spent on it."""
        self.look += 1
        level = self.alpha * self.weight(self.look)
        threshold = -math.log(level) if level > 0 else math.inf
        return Decision(-math.log(p_value), threshold, p_value <= level, self.look)

    def weight(self, look: int) -> float:
        """Share of the level that a look may spend."""
        if self.looks is None:
            return 1 / (look * (look + 1))
        return 1 / self.looks if look <= self.looks else 0.0

    def state_dict(self) -> dict[str, int]:
        """Plain numbers."""
        return {"look": self.look}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on from a saved state."""
        self.look = state["look"]


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
