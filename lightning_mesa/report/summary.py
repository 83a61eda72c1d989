"""A short table at the end."""

from collections.abc import Iterable, Sequence

from lightning_mesa.checks import CHECKS, Check, Look
from lightning_mesa.judge.alarm import Judgement
from lightning_mesa.probes.ladder import Internals
from lightning_mesa.records import Alert, Finding


def summary(
    look: Look, judgement: Judgement, alerts: Iterable[Alert], stop_reason: str | None, checks: Sequence[Check] = CHECKS
) -> str:
    """The last look as a table, what checks of a user's own have found, then the alerts of the run.

    Args:
        look: The last look.
        judgement: The alarm's judgement of it.
        alerts: All alerts of the run.
        stop_reason: Why the monitor stopped the run, if it did.
        checks: The checks that have looked.
    """
    objectives = list(dict.fromkeys(str(f.objective) for f in look.found("competence")))
    regimes = {verdict.distribution: verdict for verdict in judgement.verdicts}
    header = ["distribution", "n", *objectives, "capability", "gap [95 %]", "regime"]
    rows = []
    for where in look.roles:
        gap, score = look.finding_of("gap", where), look.finding_of("score", where, look.base)
        verdict = regimes.get(where)
        regime = "reference" if verdict is None else verdict.regime
        rows.append(
            [
                where,
                "" if score is None else str(score.n),
                *(_number(look.finding_of("competence", where, objective)) for objective in objectives),
                _number(look.finding_of("capability", where)),
                "" if gap is None else with_limits(gap),
                f"{regime} ({verdict.proxy})" if verdict and verdict.proxy else regime,
            ]
        )
    title = f"mesa at step {look.step}: {judgement.run.regime} ({judgement.run.reason})"
    lines = [title, *aligned([header, *rows]), f"base objective: {look.base}; columns of objectives show competence"]
    own = {check.measure or check.name for check in checks if check not in CHECKS}
    lines += [_found(f) for f in look.findings if f.measure in own]
    if judgement.internals is not None:
        lines.append(f"internals: {_inside(judgement.internals, look.base)}")
    lines += [f"{alert.severity} at step {alert.step}: {alert.signature}: {alert.message}" for alert in alerts]
    if stop_reason is not None:
        lines.append(f"stopped by the monitor: {stop_reason}")
    return "\n".join(lines)


def _found(f: Finding) -> str:
    about = " ".join(part for part in (f.quantity, f.objective, f.group and f"in {f.group!r}") if part)
    return f"{f.measure} on {f.distribution}: {about} {with_limits(f)}"


def _inside(internals: Internals, base: str) -> str:
    """The rung, and which objective is served."""
    objective, layer = internals.objective(base), internals.layer
    served = "" if objective is None else f", serving {objective} in {layer}"
    return f"rung {int(internals.rung)}, {internals.rung.label}{served}"


def aligned(rows: list[list[str]]) -> list[str]:
    """Rows of cells as lines with their columns aligned."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _number(finding: Finding | None) -> str:
    return "" if finding is None or finding.value is None else f"{finding.value:.2f}"


def with_limits(finding: Finding) -> str:
    """The value with its limits, or why there is none."""
    if finding.value is None:
        return "none: " + str(finding.detail.get("reason", finding.detail.get("unknown", "")))
    return f"{finding.value:.2f} [{finding.low:.2f}, {finding.high:.2f}]"
