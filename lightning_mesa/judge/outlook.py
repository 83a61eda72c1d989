"""What the alarm can see with the items and looks of a run, by its own tests on looks that are imagined.

Imagined is the plainest model of each kind: it serves base on the whole reference, loses it on some or all shifted
items, and there follows the proxy, or is capable of nothing. A check that stays silent even then cannot raise an alert.
"""

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch

from lightning_mesa.checks import CHECKS, BaseLost, Look, ObjectiveLost
from lightning_mesa.checks.check import Check
from lightning_mesa.checks.conflict import Conflict
from lightning_mesa.judge.alarm import EVIDENCE_LEVEL, Alarm, rests_on, shares
from lightning_mesa.records import Finding
from lightning_mesa.stats.competence import Best, Competence, Gap, paired_gap
from lightning_mesa.stats.intervals import BoundedMean, Estimate, Mean

UNPLANNED = 10
"""Where the number of looks is not known, each has another level: what is said holds at this one."""

# Those of CHECKS themselves: others share what is kept for a user's own.
_GAPS = tuple(check for check in CHECKS if isinstance(check, (ObjectiveLost, BaseLost)))


@dataclass(frozen=True)
class Outlook:
    """What can be seen, and what cannot and why.

    Attributes:
        looks: Number of looks planned, None where it is not known.
        alpha: Level of the whole run.
        reference: Name of the reference.
        items: Distribution -> number of items with a score at base.
        conflicts: Distribution -> proxy -> number of items (or episodes) on which it and base may disagree.
        gaps: Shifted distribution -> the smallest gap that raises an alert where it is *observed* at one look and base
            is fully served on the reference; None where no gap does. A true gap of that size is seen at every other
            look or so, a larger one more often.
        fires: Check -> distributions on which it can raise an alert or a warning.
        silent: Check -> distribution -> why it cannot.
        gate: Why the gate cannot open; empty where it can.
    """

    looks: int | None
    alpha: float
    reference: str
    items: Mapping[str, int]
    conflicts: Mapping[str, Mapping[str, int]]
    gaps: Mapping[str, float | None]
    fires: Mapping[str, tuple[str, ...]]
    silent: Mapping[str, Mapping[str, str]]
    gate: str

    def lines(self) -> list[str]:
        """All of it, in words, a line each."""
        planned = (
            f"{self.looks} looks" if self.looks else f"an unknown number of looks (by the level of the {UNPLANNED}th)"
        )
        said = [f"what can be seen in {planned}, at level {self.alpha:g} for the whole run:"]
        said += [f"  {where}: {self._place(where)}" for where in self.items]
        fires = [check + self._but(check) for check, places in self.fires.items() if places]
        said.append(f"  can fire: {', '.join(fires) or 'nothing'}")
        said += [f"  cannot fire: {check}: {self._why(check)}" for check, places in self.fires.items() if not places]
        if self.gate:
            said.append(f"  the gate cannot open: {self.gate}")
        said.append(
            f"The gap is the smallest that is raised where it is observed at one look, with base fully served on "
            f"{self.reference!r}; a true gap of that size shows at about every other look."
        )
        return said

    def short(self) -> str:
        """The same about the shifted distributions, in one line."""
        planned = f"{self.looks} looks" if self.looks else "an unknown number of looks"
        return f"in {planned} can be seen: {'; '.join(f'{where!r}: {self._place(where)}' for where in self.gaps)}"

    def _place(self, where: str) -> str:
        said = [f"{self.items[where]} items"]
        said += [f"{n} of them in conflict with {proxy!r}" for proxy, n in self.conflicts.get(where, {}).items()]
        if where in self.gaps:
            gap = self.gaps[where]
            said.append("no gap" if gap is None else f"a gap from {gap:.2f} on")
        return ", ".join(said)

    def _but(self, check: str) -> str:
        silent = self.silent.get(check, {})
        return f" (not on {', '.join(f'{where!r}: {why}' for where, why in silent.items())})" if silent else ""

    def _why(self, check: str) -> str:
        reasons: dict[str, list[str]] = {}
        for where, why in self.silent[check].items():
            reasons.setdefault(why, []).append(repr(where))
        if len(reasons) == 1:
            return next(iter(reasons))
        return "; ".join(f"on {', '.join(where)} {why}" for why, where in reasons.items())


def outlook(look: Look, alarm: Alarm, looks: int | None) -> Outlook:
    """What an alarm can see in a run that has data like those of a look.

    Args:
        look: Any look: only its numbers of items count, and what its objectives and data are.
        alarm: The alarm; its memory is neither used nor touched.
        looks: Number of looks planned, or None.
    """
    everything = dict.fromkeys(look.shifted, 1.0)
    models = [_imagined(look, everything, capable=capable) for capable in (True, False)]
    raised = {pair for model in models for pair in _raised(model, alarm, looks, alarm.checks)}
    gate = "" if alarm.gate_is_open(models[0]) else _closed(look, alarm)
    fires: dict[str, tuple[str, ...]] = {}
    silent: dict[str, dict[str, str]] = {}
    for check in shares(alarm.checks, probed=look.internals is not None):
        places = check.places(look)
        why = {where: _silent(models[0], alarm, check, where, gate) for where in places}
        can = tuple(where for where in places if (where, check.name) in raised or why[where] is None)
        fires[check.name] = can
        silent[check.name] = {where: str(why[where]) for where in places if where not in can}
    return Outlook(
        looks=looks,
        alpha=alarm.alpha,
        reference=look.reference,
        items={where: 0 if (base := look.competence(where)) is None else base.n for where in look.roles},
        conflicts={
            where: {p: c.n for p, c in found.items()} for where in look.roles if (found := look.conflicts(where))
        },
        gaps=_smallest_gaps(look, alarm, looks),
        fires=fires,
        silent=silent,
        gate=gate,
    )


def _silent(model: Look, alarm: Alarm, check: Check, where: str, gate: str) -> str | None:
    """Why a check raises nothing there; None where that cannot be imagined, as of probes and a user's own checks."""
    tests = check.tests(model, where, alarm)
    if not tests:
        return check.untested
    adaptive = [place for place in rests_on(model, where, check) if model.regime_of_data(place) == "adaptive"]
    if adaptive:
        return f"{' and '.join(map(repr, adaptive))} {'is' if len(adaptive) == 1 else 'are'} adaptive"
    if gate:
        return "the gate cannot open"
    if check.of_probes or check not in CHECKS:
        return None
    unknown = model.reason(where) or model.reason(model.reference)
    few = f"too few items ({max(test.n for test in tests)})"
    return unknown if unknown is not None and all(test.null.p_value() >= 1 for test in tests) else few


def _closed(look: Look, alarm: Alarm) -> str:
    capability = look.estimate("capability", look.reference)
    if capability is None:
        return f"on {look.reference!r} {look.reason(look.reference) or 'there is no capability'}"
    return f"{capability.n} items on {look.reference!r} are too few to show a capability of {alarm.capability:g}"


def _raised(look: Look, alarm: Alarm, looks: int | None, checks: tuple[Check, ...]) -> set[tuple[str, str]]:
    """Where which of these checks raises an alert or a warning at one look, without memory of others."""
    judge = copy.copy(alarm)
    judge.checks = checks
    judge.start(looks)
    judge.look = 1 if looks else UNPLANNED
    if not judge.gate_is_open(look):
        return set()
    return {
        (tested.where, tested.check.name)
        for tested in judge.tested(look, 1)
        if "adaptive" not in tested.regimes
        and any(one.crossed and p <= EVIDENCE_LEVEL for one, p in zip(tested.decisions, tested.p_values, strict=True))
    }


def _smallest_gaps(look: Look, alarm: Alarm, looks: int | None) -> dict[str, float | None]:
    """By halving, on all distributions at once: the fewest lost items that raise, and the gap that they make."""
    n = {where: 0 if (base := look.competence(where)) is None else base.n for where in look.shifted}
    too_few, enough = dict.fromkeys(n, 0), {where: n[where] + 1 for where in n}
    while any(enough[where] - too_few[where] > 1 for where in n):
        tried = {where: (too_few[where] + enough[where]) // 2 for where in n}
        lost = {where: tried[where] / max(n[where], 1) for where in n}
        raised = {where for where, _ in _raised(_imagined(look, lost), alarm, looks, _GAPS)}
        for where in n:
            if enough[where] - too_few[where] > 1:
                (enough if where in raised else too_few)[where] = tried[where]
    lost = {where: min(enough[where], n[where]) / max(n[where], 1) for where in n}
    gaps = {where: _imagined(look, lost).estimate("gap", where) for where in n}
    return {where: gap.value if gap and enough[where] <= n[where] else None for where, gap in gaps.items()}


def _imagined(look: Look, lost: Mapping[str, float], *, capable: bool = True) -> Look:
    """A look like this one at a model that loses base on these shares of the shifted items."""
    findings = [replace(f, estimate=_estimate(look, f, lost, capable=capable)) for f in look.findings]
    return replace(look, findings=findings, plan=(None, None, look.plan[2]))


def _estimate(look: Look, f: Finding, lost: Mapping[str, float], *, capable: bool) -> Estimate | None:
    here = 1 - lost.get(f.distribution, 0.0)
    kept: Any = None
    match f.quantity:
        case "competence" if f.objective == look.base:
            kept = _with_share(f.estimate, here if f.group is None else 0.0)
        case "gap":
            kept = _gap(look, f, here)
        case "slice":
            kept = _with_share(f.estimate, 0.0)
        case "capability":
            kept = _with_share(f.estimate, 1.0 if capable or f.role == "reference" else 0.0)
        case "conflict" if isinstance(f.estimate, Conflict):
            kept = Conflict.decided(0, f.estimate.n, 0, f.estimate.of)
        case "readout":
            kept = _with_share(f.estimate, 1.0 if capable else 0.0)
        case "preference" | "cue_difference" | "extremal_excess":
            kept = _with_share(f.estimate, 1.0)
        case _:
            kept = f.estimate
    estimate: Estimate | None = kept
    return estimate


def _gap(look: Look, f: Finding, here: float) -> Estimate | None:
    reference, shifted = look.competence(look.reference), look.competence(f.distribution)
    if f.estimate is None or reference is None or shifted is None:
        return None
    gap = Gap(_with_share(reference, 1.0), _with_share(shifted, here))
    if isinstance(f.estimate, Gap):
        return gap
    kept = torch.arange(gap.n) < round(here * gap.n)  # of pairs
    return paired_gap(torch.ones(gap.n, dtype=torch.float64), kept.double(), gap)


def _with_share(estimate: Any, share: float) -> Any:
    """The estimate as it would be if this share of its items had the largest score, and the others the smallest."""
    match estimate:
        case Mean():
            ones = round(share * estimate.n)
            return Mean((float(estimate.n - ones), *[0.0] * (len(estimate.counts) - 2), float(ones)))
        case BoundedMean():
            return replace(estimate, value=share)
        case Competence():
            return replace(estimate, mean=_with_share(estimate.mean, share))
        case Gap():
            return Gap(_with_share(estimate.reference, share), _with_share(estimate.shifted, 1 - share))
        case Best():
            return Best([_with_share(one, share) for one in estimate.competences])
    return estimate
