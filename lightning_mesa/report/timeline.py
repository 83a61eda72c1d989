"""A judged run, look by look."""

from collections.abc import Sequence

from lightning_mesa.checks import Look
from lightning_mesa.judge.alarm import Judgement
from lightning_mesa.records import Alert, Finding
from lightning_mesa.report.summary import aligned, with_limits, wrapped

LEGEND = "columns of checks: log10 of the level over the p-value; from 0 on, the null is rejected if the gate is open"


def timeline(recorded: Sequence[Sequence[Finding]], judgements: Sequence[Judgement]) -> str:
    """A table with one line a look, then the alerts, then the verdict on the run.

    Args:
        recorded: The findings of each look.
        judgements: The alarm's judgement of each.
    """
    looks = [Look.of(findings) for findings in recorded]
    roles = {where: role for look in looks for where, role in look.roles.items()}
    tested = {where: _tested(where, judgements) for where in roles}
    titles, header = ["", ""], ["step", "gate"]
    for where, role in roles.items():
        columns = [*(("regime", "gap [95 %]") if role == "shifted" else ()), "capability [95 %]", *tested[where]]
        titles += [where, *[""] * (len(columns) - 1)]
        header += columns
    rows = [[*titles, ""], [*header, "raised"]]
    for look, judgement in zip(looks, judgements, strict=True):
        row = [str(look.step), "open" if judgement.gate_open else "closed"]
        for where, role in roles.items():
            if role == "shifted":
                row += [_regime(where, judgement), _number(look.finding_of("gap", where))]
            evidence = [judgement.evidence.get((where, name)) for name in tested[where]]
            row += [
                _number(look.finding_of("capability", where)),
                *("" if e is None else f"{e:+.1f}" for e in evidence),
            ]
        rows.append([*row, "; ".join(f"{alert.severity.upper()} {_named(alert)}" for alert in judgement.alerts)])
    alerts = [alert for judgement in judgements for alert in judgement.alerts]
    said = [f"{alert.severity} at step {alert.step}: {alert.signature}: {alert.message}" for alert in alerts]
    run = judgements[-1].run
    verdict = f"the run, at its last look (step {looks[-1].step}): {run.regime} ({run.reason})"
    return "\n".join([*aligned(rows, titled=True), *wrapped([LEGEND, "", *(said or ["no alerts"]), "", verdict])])


def _tested(where: str, judgements: Sequence[Judgement]) -> list[str]:
    """Names of the checks tested on a distribution at any look."""
    return list(dict.fromkeys(name for judgement in judgements for place, name in judgement.evidence if place == where))


def _regime(where: str, judgement: Judgement) -> str:
    for verdict in judgement.verdicts:
        if verdict.distribution == where:
            return f"{verdict.regime} ({verdict.proxy})" if verdict.proxy else verdict.regime
    return ""


def _number(finding: Finding | None) -> str:
    return "" if finding is None else with_limits(finding)


def _named(alert: Alert) -> str:
    about = alert.proxy or alert.group
    return f"{alert.signature} on {alert.distribution}" + (f" ({about})" if about else "")
