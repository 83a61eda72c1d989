"""Null hypotheses: what a signature is tested against, by p-values or by e-values.

A p-value holds at one look, whatever the data. An e-value has an expectation of at most 1 under the null, so those of
fresh items may be multiplied over looks.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_mesa.stats.intervals import BETS, Estimate


class Null(ABC):
    """A null hypothesis about one look."""

    @abstractmethod
    def p_value(self) -> float:
        """Its p-value; 1 where something that it needs cannot be estimated."""

    @abstractmethod
    def log_e_values(self) -> Tensor | None:
        """``[K]`` logs of its e-values, one for each bet, see :data:`BETS`; None without."""


@dataclass(frozen=True)
class AtMost(Null):
    """The truth is at most ``bound``; an estimate that does not exist says nothing against it."""

    estimate: Estimate | None
    bound: float

    def p_value(self) -> float:
        """Its p-value."""
        return 1.0 if self.estimate is None else self.estimate.p_at_most(self.bound)

    def log_e_values(self) -> Tensor:
        """Logs of its e-values."""
        return torch.zeros_like(BETS) if self.estimate is None else self.estimate.log_e_at_most(self.bound)


@dataclass(frozen=True)
class AtLeast(Null):
    """The truth is at least ``bound``; an estimate that does not exist says nothing against it."""

    estimate: Estimate | None
    bound: float

    def p_value(self) -> float:
        """Its p-value."""
        return 1.0 if self.estimate is None else self.estimate.p_at_least(self.bound)

    def log_e_values(self) -> Tensor:
        """Logs of its e-values."""
        return torch.zeros_like(BETS) if self.estimate is None else self.estimate.log_e_at_least(self.bound)


class AnyOf(Null):
    """At least one of these nulls holds: the largest p-value, the smallest e-value.

    The minimum is taken bet by bet within the look, before evidence adds up, see
    :func:`smallest`.
    """

    def __init__(self, *parts: Null) -> None:
        self.parts = parts

    def p_value(self) -> float:
        """Its p-value."""
        return max(part.p_value() for part in self.parts)

    def log_e_values(self) -> Tensor | None:
        """Logs of its e-values, where all parts have some."""
        parts = [e for part in self.parts if (e := part.log_e_values()) is not None]
        return smallest(parts) if len(parts) == len(self.parts) else None


class AllOf(Null):
    """All of these nulls hold: Bonferroni, and the average e-value."""

    def __init__(self, *parts: Null) -> None:
        self.parts = parts

    def p_value(self) -> float:
        """Its p-value."""
        return min(1.0, len(self.parts) * min(part.p_value() for part in self.parts))

    def log_e_values(self) -> Tensor | None:
        """Logs of its e-values, where all parts have some."""
        parts = [e for part in self.parts if (e := part.log_e_values()) is not None]
        return torch.stack(parts).logsumexp(0) - math.log(len(parts)) if len(parts) == len(self.parts) else None


@dataclass(frozen=True)
class ByPValue(Null):
    """A null of your own, by its p-value; without e-values it is tested by alpha spending on fresh items too."""

    p: float

    def p_value(self) -> float:
        """Its p-value."""
        return self.p

    def log_e_values(self) -> None:
        """There are none."""
        return None


def smallest(log_e_values: Sequence[Tensor]) -> Tensor:
    """E-values of the null "at least one of these nulls holds at this look": the smallest of theirs.

    Whichever null holds, the smallest e-value is at most its own. The minimum is taken look by look, before
    evidence adds up: the smallest of several *processes* is valid only if the same part of the null holds at all
    looks. If the parts take turns, each process gains while another's null holds, and their minimum with them.

    A two-sample comparison is of this kind: if the mean on R exceeds that on D by at most g, then for any x
    fixed beforehand the mean on R is at most x, or that on D is at least ``x - g``.

    Args:
        log_e_values: ``[K]`` of each part of the null.

    Example:
        >>> from lightning_mesa.stats.intervals import Mean
        >>> reference, shifted = Mean((0.0, 50.0)), Mean((50.0, 0.0))  # the gap is at most .1; x = .6
        >>> bool(smallest([reference.log_e_at_most(0.6), shifted.log_e_at_least(0.5)]).max() > 10)
        True
    """
    return torch.stack([*log_e_values]).amin(0)
