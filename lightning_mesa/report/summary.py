"""A short table at the end."""

import shutil
import textwrap
from collections.abc import Iterable, Sequence

from lightning_mesa.checks import CHECKS, Look
from lightning_mesa.judge.alarm import Alarm, Judgement
from lightning_mesa.probes.ladder import Internals
from lightning_mesa.records import Alert, Finding


def summary(
    title: str, look: Look, judgement: Judgement, alerts: Iterable[Alert], alarm: Alarm, remarks: Iterable[str] = ()
) -> str:
    """A look as a table, what checks of a user's own have found, the alerts, and what else there is to say.

    Args:
        title: Whose look it is, and in which phase, such as ``"mesa (fit)"``.
        look: The look.
        judgement: The alarm's judgement of it.
        alerts: Those to be listed.
        alarm: The alarm.
        remarks: What else is to be said, a line each.
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
    heading = f"{title} at step {look.step}: {judgement.run.regime} ({judgement.run.reason})"
    prose = [f"base objective: {look.base}; columns of objectives show competence"]
    own = {check.measure or check.name for check in alarm.checks if check not in CHECKS}
    prose += [_found(f) for f in look.findings if f.measure in own]
    if judgement.internals is not None:
        prose.append(f"internals: {_inside(judgement.internals, look.base)}")
    prose += [f"{alert.severity} at step {alert.step}: {alert.signature}: {alert.message}" for alert in alerts]
    prose += remarks
    return "\n".join([*wrapped([heading]), *aligned([header, *rows]), *wrapped(prose)])


def muted(look: Look, alarm: Alarm) -> list[str]:
    """What has kept alerts from being raised so far, with the remedy, a line each; nothing where nothing has.

    Args:
        look: The last look.
        alarm: The alarm, with its memory.
    """
    said = []
    if not alarm.gate_opened:
        capability = look.finding_of("capability", look.reference)
        reached = "no capability" if capability is None else f"capability {with_limits(capability)}"
        said.append(
            f"the gate never opened, so nothing could be raised: {reached} on {look.reference!r}, and its lower limit "
            f"must reach {alarm.capability:g}. Train longer, list what the model is capable of as an objective or "
            "witness=, or pass Alarm(capability=...) before training."
        )
    adaptive = [where for where in look.roles if look.regime_of_data(where) == "adaptive"]
    if adaptive:
        said.append(
            f"no alert rests on {', '.join(map(repr, adaptive))}: adaptive data, by which something in the training is "
            "chosen. Pass items that nothing depends on, or declare data_regime='reused'."
        )
    return said


def _found(f: Finding) -> str:
    about = " ".join(part for part in (f.quantity, f.objective, f.group and f"in {f.group!r}") if part)
    return f"{f.measure} on {f.distribution}: {about} {with_limits(f)}"


def _inside(internals: Internals, base: str) -> str:
    """The rung, and which objective is served."""
    objective, layer = internals.objective(base), internals.layer
    served = "" if objective is None else f", serving {objective} in {layer}"
    return f"rung {int(internals.rung)}, {internals.rung.label}{served}"


def aligned(rows: Sequence[Sequence[str]], *, titled: bool = False) -> list[str]:
    """Rows of cells as lines with their columns aligned, no wider than the terminal.

    Columns that do not fit beside the others follow below, beside the first column again; a cell that does not fit
    beside that is cut, and the first column at half of the width.

    Args:
        rows: The cells, as many in each row.
        titled: Whether a cell of the first row stands for the columns after it, up to the next that is not empty.
    """
    width = terminal_width()
    first = min(width // 2, max(len(row[0]) for row in rows))
    cells = [[_cut(row[0], first), *(_cut(cell, width - first - 2) for cell in row[1:])] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    blocks = [[0]]
    for column in range(1, len(widths)):
        if len(blocks[-1]) > 1 and sum(widths[i] + 2 for i in blocks[-1]) + widths[column] > width:
            blocks.append([0])
        if titled and len(blocks[-1]) == 1 and not cells[0][column]:
            cells[0][column] = _cut(_title_above(cells[0], column), widths[column])
        blocks[-1].append(column)
    return ["  ".join(row[i].ljust(widths[i]) for i in block).rstrip() for block in blocks for row in cells]


def wrapped(lines: Iterable[str]) -> list[str]:
    """Lines of prose, no wider than the terminal; what goes on below is indented."""
    wrapper = textwrap.TextWrapper(
        terminal_width(), subsequent_indent="  ", break_long_words=False, break_on_hyphens=False
    )  # so that paths can be copied
    return [part for line in lines for part in wrapper.wrap(line) or [""]]


def terminal_width() -> int:
    """Columns of the terminal; as good as no limit where the output goes elsewhere and COLUMNS is not set."""
    return shutil.get_terminal_size((10_000, 24)).columns


def _cut(cell: str, width: int) -> str:
    return cell if len(cell) <= width else f"{cell[: max(0, width - 3)]}..."[:width]


def _title_above(titles: Sequence[str], column: int) -> str:
    return next((title for title in reversed(titles[:column]) if title), "")


def _number(finding: Finding | None) -> str:
    return "" if finding is None or finding.value is None else f"{finding.value:.2f}"


def with_limits(finding: Finding) -> str:
    """The value with its limits, or why there is none."""
    if finding.value is None:
        return "none: " + str(finding.detail.get("reason", finding.detail.get("unknown", "")))
    return f"{finding.value:.2f} [{finding.low:.2f}, {finding.high:.2f}]"
