"""The face that every measure has: sums that add up over batches and ranks, then findings."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from lightning_mesa.objectives import Hypotheses
from lightning_mesa.records import Behavior, Finding, Role

LEVEL = 0.95
"""Confidence level of the limits in findings, pointwise."""


@dataclass(frozen=True)
class Stamp:
    """Where and when a look was taken.

    Attributes:
        step: Optimizer steps taken.
        epoch: Epoch.
        roles: Distribution name -> role, in the order listed; the first reference is *the* reference.
        looks_planned: Number of looks in the run, None where that is not known; recorded with the gap, so that a
            run can be judged again at the level it had.
        data_regimes: Distribution name -> data regime, where it is not "reused".
    """

    step: int
    epoch: int
    roles: Mapping[str, Role]
    looks_planned: int | None = None
    data_regimes: Mapping[str, str] = field(default_factory=dict)

    @property
    def reference(self) -> str:
        """Name of the reference."""
        return next(name for name, role in self.roles.items() if role == "reference")

    @property
    def shifted(self) -> list[str]:
        """Names of the shifted distributions."""
        return [name for name, role in self.roles.items() if role == "shifted"]


def one_half(start: int, n: int) -> Tensor:
    """``[n]`` bool: which of the items from number ``start`` on belong to one half of all, the same at every look.

    Drawn at random, as the order of a dataset may alternate.
    """
    return torch.rand(start + n, generator=torch.Generator().manual_seed(0))[start:] < 0.5


class Measure(ABC):
    """Accumulates behavior into named sums and computes findings from them; it never touches the model.

    Args:
        hypotheses: The listed objectives.

    Attributes:
        sums: Everything accumulated; two measures merge by adding theirs.
    """

    name: ClassVar[str]

    def __init__(self, hypotheses: Hypotheses) -> None:
        self.hypotheses = hypotheses
        self.sums: dict[tuple[str, ...], Tensor] = {}

    @abstractmethod
    def update(self, behavior: Behavior) -> None:
        """Add one batch."""

    @abstractmethod
    def compute(self, stamp: Stamp, found: Sequence[Finding]) -> list[Finding]:
        """The findings of the look.

        Args:
            stamp: Where and when the look was taken.
            found: What the measures listed before this one found.
        """

    def merge(self, other: "Measure") -> None:
        """Add what another instance accumulated, on other batches or another rank."""
        for key, value in other.sums.items():
            self.add(key, value)

    def add(self, key: tuple[str, ...], value: Tensor) -> None:
        """Add to the sum of that name."""
        self.sums[key] = self.sums[key] + value if key in self.sums else value

    def finding(
        self,
        stamp: Stamp,
        distribution: str,
        quantity: str,
        unit: str,
        *,
        value: float | None,
        limits: tuple[float, float] | None,
        n: int,
        objective: str | None = None,
        group: str | None = None,
        detail: dict[str, Any] | None = None,
    ) -> Finding:
        """A finding of this measure at this look."""
        low, high = (None, None) if limits is None else limits
        return Finding(
            step=stamp.step,
            epoch=stamp.epoch,
            distribution=distribution,
            role=stamp.roles[distribution],
            measure=self.name,
            quantity=quantity,
            objective=objective,
            group=group,
            value=value,
            low=low,
            high=high,
            level=LEVEL,
            n=n,
            unit=unit,
            data_regime=stamp.data_regimes.get(distribution, "reused"),
            detail=detail or {},
        )
