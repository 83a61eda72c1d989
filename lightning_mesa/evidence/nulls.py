"""Null hypotheses: what a signature is tested against, by p-values or by e-values.

A p-value holds at one look, whatever the data. An e-value has an expectation of at most 1 under the null, so those of
fresh items may be multiplied over looks.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_mesa.evidence.eprocess import smallest
from lightning_mesa.intervals import BETS, Estimate


class Null(ABC):
    """A null hypothesis about one look."""

    @abstractmethod
    def p_value(self) -> float:
        """Its p-value; 1 where something that it needs cannot be estimated."""

    @abstractmethod
    def log_e_values(self) -> Tensor | None:
        """``[K]`` logs of its e-values, one for each bet, see :data:`~lightning_mesa.intervals.BETS`; None without."""


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
    :func:`~lightning_mesa.evidence.eprocess.smallest`.
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
