"""The face that every measure has: sums that add up over batches and ranks, then findings."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from torch import Tensor

from lightning_mesa.objectives.hypotheses import Hypotheses
from lightning_mesa.records import Behavior, Finding, Role
from lightning_mesa.stats.intervals import Mean

LEVEL = 0.95
"""Confidence level of the limits in findings, pointwise."""


Plan = tuple[int, int | None, int]
"""Number of a look, how many are planned, and the step from which on they are counted."""


@dataclass(frozen=True)
class Stamp:
    """Where and when a look was taken.

    Attributes:
        step: Optimizer steps taken.
        epoch: Epoch.
        roles: Distribution name -> role, in the order listed; the first reference is *the* reference.
        look: How many times a look has been due so far, None where that is not known; recorded with the gap, as are
            those below, so that a run can be judged again at the level it had.
        looks_planned: Number of looks in the run, None where that is not known.
        since_step: Step from which on looks are counted.
        data_regimes: Distribution name -> data regime, where it is not "reused".
        weights: Which weights were looked at, ``"raw"`` or ``"averaged"``.
    """

    step: int
    epoch: int
    roles: Mapping[str, Role]
    look: int | None = None
    looks_planned: int | None = None
    since_step: int = 0
    data_regimes: Mapping[str, str] = field(default_factory=dict)
    weights: str = "raw"

    @property
    def plan(self) -> dict[str, Any]:
        """What is recorded with the gap."""
        return {"look": self.look, "looks_planned": self.looks_planned, "since_step": self.since_step}

    @property
    def reference(self) -> str:
        """Name of the reference."""
        return next(name for name, role in self.roles.items() if role == "reference")

    @property
    def shifted(self) -> list[str]:
        """Names of the shifted distributions."""
        return [name for name, role in self.roles.items() if role == "shifted"]


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
        """Add what another instance accumulated, on other batches or another process."""
        for key, value in other.sums.items():
            self.add(key, value)

    def accumulated(self) -> dict[str, Any]:
        """What has been accumulated, for another process; without the objectives, which it has too."""
        return {name: value for name, value in vars(self).items() if name != "hypotheses"}

    def holding(self, accumulated: dict[str, Any]) -> "Measure":
        """A measure like this one that holds what was accumulated on another process."""
        other = type(self)(self.hypotheses)
        vars(other).update(accumulated)
        return other

    def add(self, key: tuple[str, ...], value: Tensor) -> None:
        """Add to the sum of that name."""
        self.sums[key] = self.sums[key] + value if key in self.sums else value

    def share(
        self,
        stamp: Stamp,
        distribution: str,
        quantity: str,
        count: int,
        n: int,
        *,
        objective: str | None,
        known: bool = True,
        detail: dict[str, Any] | None = None,
    ) -> Finding:
        """A finding of ``count`` among ``n``, without a value where there is none or the count is not known."""
        share = Mean((float(n - count), float(count)))
        exists = n > 0 and known
        return self.finding(
            stamp,
            distribution,
            quantity,
            "share",
            value=share.value if exists else None,
            limits=share.limits(LEVEL) if exists else None,
            n=n,
            objective=objective,
            detail={"count": count} if detail is None else detail,
        )

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
