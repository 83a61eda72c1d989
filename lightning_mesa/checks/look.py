"""One look: where and when it was taken, and everything found so far, typed."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from math import isnan
from typing import Any

from lightning_mesa.checks.conflict import Conflict
from lightning_mesa.probes.ladder import Internals, climb
from lightning_mesa.records import LEVEL, Finding, Role
from lightning_mesa.stats.competence import Competence, limits
from lightning_mesa.stats.intervals import Estimate

Plan = tuple[int | None, int | None, int]
"""Number of a look, how many are planned, and the step from which on they are counted."""


@dataclass
class Look:
    """What checks, regimes and the alarm read; an estimate that does not exist is None.

    Attributes:
        step: Optimizer steps taken.
        epoch: Epoch.
        base: Name of the base objective.
        roles: Distribution name -> role, in the order listed; the first reference is *the* reference.
        plan: Number of the look, looks planned (None where that is not known), and the step from which on looks are
            counted. The gap records them, so that a run can be judged again at the level it had.
        data_regimes: Distribution name -> data regime, where it is not "reused".
        weights: Which weights were looked at, ``"raw"`` or ``"averaged"``.
        findings: Everything found so far.
    """

    step: int
    epoch: int
    base: str
    roles: Mapping[str, Role]
    plan: Plan = (None, None, 0)
    data_regimes: Mapping[str, str] = field(default_factory=dict)
    weights: str = "raw"
    findings: list[Finding] = field(default_factory=list)

    @staticmethod
    def of(findings: Iterable[Finding]) -> "Look":
        """The look at which these findings were made.

        Raises:
            ValueError: If a gap, or a distribution's competence at base, is not among them: then nothing can be judged.
        """
        found = list(findings)
        gap = next((f for f in found if f.quantity == "gap" and f.group is None), None)
        if gap is None or gap.objective is None:
            raise ValueError("these findings hold no gap between a reference and a shifted distribution")
        plan = (gap.detail.get("look"), gap.detail.get("looks_planned"), gap.detail.get("since_step", 0))
        roles = {f.distribution: f.role for f in found if f.role != "internals"}
        regimes = {f.distribution: f.data_regime for f in found}
        weights = gap.detail.get("weights", "raw")
        look = Look(gap.step, gap.epoch, gap.objective, roles, plan, regimes, weights, found)
        for where in (look.reference, *look.shifted):
            if look.finding_of("competence", where, look.base) is None:
                raise ValueError(f"these findings hold no competence at {look.base!r} on {where!r}")
        return look

    @property
    def number(self) -> int | None:
        """How many times a look has been due so far."""
        return self.plan[0]

    @property
    def recorded_plan(self) -> dict[str, Any]:
        """The plan as the gap records it; empty where it is not known."""
        number, planned, since = self.plan
        return {} if number is None else {"look": number, "looks_planned": planned, "since_step": since}

    @property
    def reference(self) -> str:
        """Name of the reference."""
        return next(name for name, role in self.roles.items() if role == "reference")

    @property
    def shifted(self) -> tuple[str, ...]:
        """Names of the shifted distributions."""
        return tuple(name for name, role in self.roles.items() if role == "shifted")

    @property
    def witnessed(self) -> bool:
        """Whether capability can be told from base: another objective is listed beside it."""
        return len({f.objective for f in self.found("competence")}) > 1

    @cached_property
    def internals(self) -> Internals | None:
        """What the probes say together; None without probes. Read it when all findings are there."""
        return climb(finding.result for finding in self.findings if finding.result is not None)

    def found(self, quantity: str, where: str | None = None) -> Iterator[Finding]:
        """The findings of a quantity, perhaps on one distribution, in the order in which they were made."""
        return (f for f in self.findings if f.quantity == quantity and where in (None, f.distribution))

    def finding_of(self, quantity: str, where: str, objective: str | None = None) -> Finding | None:
        """The finding about all items, perhaps about one objective; None where there is none."""
        about = (f for f in self.found(quantity, where) if f.group is None and objective in (None, f.objective))
        return next(about, None)

    def estimate(self, quantity: str, where: str, objective: str | None = None) -> Estimate | None:
        """The typed estimate of that finding; None where it does not exist."""
        found = self.finding_of(quantity, where, objective)
        return None if found is None else found.estimate

    def by_objective(self, quantity: str, where: str) -> dict[str, Estimate]:
        """Objective -> estimate, for the estimates that exist."""
        found = (f for f in self.found(quantity, where) if f.group is None and f.objective is not None)
        return {str(f.objective): f.estimate for f in found if f.estimate is not None}

    def by_group(self, quantity: str, where: str) -> dict[str, Competence]:
        """Group of items -> competence, for those that exist."""
        found = (f for f in self.found(quantity, where) if f.group is not None)
        return {str(f.group): f.estimate for f in found if isinstance(f.estimate, Competence)}

    def competence(self, where: str) -> Competence | None:
        """Competence at base."""
        return self.competences(where).get(self.base)

    def competences(self, where: str) -> dict[str, Competence]:
        """Objective -> competence at it, for those that exist."""
        found = self.by_objective("competence", where)
        return {name: estimate for name, estimate in found.items() if isinstance(estimate, Competence)}

    def conflicts(self, where: str) -> dict[str, Conflict]:
        """Proxy -> how the items were decided on which base and the proxy disagree."""
        found = self.by_objective("conflict", where)
        return {name: estimate for name, estimate in found.items() if isinstance(estimate, Conflict)}

    def reason(self, where: str) -> str | None:
        """Why competence, gap or capability does not exist there, where one does not."""
        of_these = (f for f in self.findings if f.distribution == where and f.group is None)
        return next((str(f.detail["reason"]) for f in reversed([*of_these]) if "reason" in f.detail), None)

    def regime_of_data(self, where: str) -> str:
        """The data regime of a distribution."""
        return self.data_regimes.get(where, "reused")

    def finding(
        self,
        measure: str,
        where: str,
        quantity: str,
        unit: str,
        estimate: Estimate | None = None,
        *,
        shown: tuple[float, float | None, float | None] | None = None,
        n: int | None = None,
        objective: str | None = None,
        group: str | None = None,
        withheld: bool = False,
        detail: dict[str, Any] | None = None,
    ) -> Finding:
        """A finding of this look; it is not added to the look.

        Args:
            measure: Name of what has found it.
            where: The distribution.
            quantity: What was measured.
            unit: Unit of the value.
            estimate: The estimate, None where it does not exist.
            shown: Value and limits, where they are not those of the estimate.
            n: Number of items; default: the estimate's.
            objective: The objective it is about.
            group: The group it is about.
            withheld: Whether to show no value, although there is an estimate.
            detail: Plain facts beside the estimate, such as the reason why there is none.
        """
        if shown is None and estimate is not None and not withheld and not isnan(estimate.value):  # NaN without items
            shown = (estimate.value, *limits(estimate, LEVEL))
        value, low, high = (None, None, None) if shown is None else shown
        return Finding(
            step=self.step,
            epoch=self.epoch,
            distribution=where,
            role=self.roles.get(where, "internals"),
            measure=measure,
            quantity=quantity,
            objective=objective,
            group=group,
            value=value,
            low=low,
            high=high,
            level=LEVEL,
            n=n if n is not None else 0 if estimate is None else estimate.n,
            unit=unit,
            data_regime=self.regime_of_data(where),
            detail=detail or {},
            estimate=estimate,
        )
