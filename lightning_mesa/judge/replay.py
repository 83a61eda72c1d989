"""A recorded run, judged again: from the monitor's own journal, or from scores that other tools have logged."""

import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from lightning_mesa.checks import Look
from lightning_mesa.errors import ConfigurationError, MesaWarning
from lightning_mesa.judge.alarm import Alarm, Judgement
from lightning_mesa.judge.scores_csv import read_scores
from lightning_mesa.records import SCHEMA, Finding, Role
from lightning_mesa.report.journal import Reader, numbered_records

_JUDGED = ("competence", "capability", "gap", "conflict")
"""Quantities that every look of a run has."""


@dataclass(frozen=True)
class Recording:
    """What was recorded of a run.

    Attributes:
        looks: The findings of each look, in order.
        looks_planned: Number of looks that were planned before the first one, None where that was not known.
        plan_recorded: Whether the recording says so; else ``looks_planned`` is the number of looks in it.
        since_step: Step from which on looks are counted.
        not_tested: Why some signature cannot be tested on this recording, one sentence each.
    """

    looks: Sequence[Sequence[Finding]]
    looks_planned: int | None
    plan_recorded: bool
    since_step: int
    not_tested: tuple[str, ...] = ()


def read_recording(path: str | Path) -> Recording:
    """Read a recorded run.

    Args:
        path: ``findings.jsonl`` of a run, or a CSV file of scores, see ``docs/replay.md``.

    Returns:
        The recording. What is left out of it, or taken for it, is reported by warnings.

    Raises:
        ConfigurationError: If it cannot be read; the message says what is wrong, where, and what to do.
    """
    path = Path(path)
    try:
        start = path.read_bytes()[:4096].lstrip(b"\xef\xbb\xbf \t\r\n")
        if not start:
            raise ConfigurationError(f"{path} is empty: there is nothing to judge.")
        return _journal(path) if start.startswith((b"{", b"[")) else _scores(path)
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror or error}.") from error


def judge_again(recording: Recording, alarm: Alarm, looks: int | None) -> list[Judgement]:
    """Judge a recorded run from its first look on.

    Args:
        recording: The run.
        alarm: The alarm; its memory is cleared.
        looks: Number of looks to plan for, None where that was not fixed beforehand.

    Raises:
        ConfigurationError: If the findings of a look do not hold what the alarm needs.
    """
    alarm.start(looks, since_step=recording.since_step)
    judgements = []
    for look in recording.looks:
        try:
            judgements.append(alarm.judge(Look.of(look)))
        except (ArithmeticError, AttributeError, LookupError, StopIteration, TypeError, ValueError) as error:
            raise ConfigurationError(
                f"the look at step {look[0].step} cannot be judged, its findings are not those that a monitor writes "
                f"({type(error).__name__}: {error}): remove its lines, or restore the file."
            ) from error
    return judgements


def _scores(path: Path) -> Recording:
    looks = read_scores(path)
    not_tested = (
        "proxy_pursued is not tested: means do not tell whom the model follows on the items where base and a proxy "
        "disagree.",
    )
    if not any(f.quantity == "competence" and f.objective != _base(look) for look in looks for f in look):
        not_tested = (
            "objective_lost, proxy_pursued and capability_failure are not tested: base alone is listed, so a lost "
            "objective cannot be told from a lost capability (base_lost is tested).",
        )
    return Recording(looks, len(looks), False, looks[0][0].step, not_tested)


def _base(look: Iterable[Finding]) -> str | None:
    return next(finding.objective for finding in look if finding.quantity == "gap")


def _journal(path: Path) -> Recording:
    findings = list(_findings(path))
    gaps = [finding for finding in findings if finding.quantity == "gap"]
    if not gaps:
        raise ConfigurationError(
            f"{path} has no finding of a gap between a reference and a shifted distribution, so there is nothing to "
            "judge: pass the findings.jsonl that a MesaMonitor wrote."
        )
    looks = _last_path(path, _complete(path, _split(findings)))
    plans = [f.detail["looks_planned"] for look in looks for f in look if "looks_planned" in f.detail]
    if len(set(plans)) > 1:
        warnings.warn(
            f"{path} holds looks of runs that were planned differently ({', '.join(map(str, dict.fromkeys(plans)))} "
            "looks); they are judged as one run with the last plan",
            MesaWarning,
            stacklevel=3,
        )
    since = [f.detail["since_step"] for look in looks for f in look if "since_step" in f.detail]
    return Recording(looks, plans[-1] if plans else len(looks), bool(plans), since[-1] if since else looks[0][0].step)


def _findings(path: Path) -> Iterator[Finding]:
    reader = Reader()
    for line, record in numbered_records(path):
        where = f"{path}, line {line}"
        if not isinstance(record, dict):
            raise ConfigurationError(f"{where} is no finding: it must be a JSON object.")
        if "signature" in record and "quantity" not in record:
            raise ConfigurationError(f"{where} is an alert: pass the findings.jsonl beside it.")
        if record.get("schema") not in range(1, SCHEMA + 1):
            raise ConfigurationError(
                f"{where} has the schema version {record.get('schema')!r}, and this version of lightning-mesa reads "
                f"1 to {SCHEMA}: install the version that wrote the file."
            )
        try:
            finding = reader.finding(record)
        except TypeError as error:
            raise ConfigurationError(f"{where} is no finding: {str(error).partition('() ')[2] or error}.") from error
        except (ArithmeticError, AttributeError, LookupError, ValueError) as error:
            raise ConfigurationError(
                f"{where} cannot be judged, its estimate is not what a monitor writes ({type(error).__name__}: "
                f"{error}): remove the lines of its look, or restore the file."
            ) from error
        if finding.role not in (*get_args(Role), "internals"):
            raise ConfigurationError(
                f"{where}: the role {finding.role!r} is not known; it must be {', '.join(get_args(Role))} or internals."
            )
        if isinstance(finding.step, bool) or not isinstance(finding.step, int) or not isinstance(finding.detail, dict):
            raise ConfigurationError(f"{where} is no finding: its step must be a whole number, its detail an object.")
        yield finding


def _split(findings: Iterable[Finding]) -> list[list[Finding]]:
    """A look ends where the step changes, or where the same thing is found again."""
    looks: list[list[Finding]] = []
    seen: set[tuple[str | None, ...]] = set()
    for f in findings:
        key = (f.distribution, f.measure, f.quantity, f.objective, f.group)
        if not looks or f.step != looks[-1][0].step or key in seen:
            looks.append([])
            seen = set()
        looks[-1].append(f)
        seen.add(key)
    return looks


def _complete(path: Path, looks: Sequence[list[Finding]]) -> Iterator[list[Finding]]:
    """Leave out looks that a kill has cut short: they lack something that the first one has."""

    def judged(look: Iterable[Finding]) -> set[tuple[str | None, ...]]:
        return {(f.distribution, f.quantity, f.objective) for f in look if f.quantity in _JUDGED and f.group is None}

    for look in looks:
        if judged(look) >= judged(looks[0]):
            yield look
        else:
            warnings.warn(
                f"{path}: the look at step {look[0].step} is not complete, as after a kill, and left out",
                MesaWarning,
                stacklevel=4,
            )


def _last_path(path: Path, looks: Iterable[list[Finding]]) -> list[list[Finding]]:
    """The looks on the way to the last weights: a resume goes back to an earlier step and takes them again."""
    kept: list[list[Finding]] = []
    left: list[int] = []
    for look in looks:
        while kept and kept[-1][0].step >= look[0].step:
            left.append(kept.pop()[0].step)
        kept.append(look)
    if left:
        steps = f"step {left[0]}" if len(left) == 1 else f"steps {min(left)} to {max(left)}"
        warnings.warn(
            f"{path} goes back to an earlier step, as after a resume: {len(left)} looks before that, at {steps}, are "
            "left out, and the last ones are judged",
            MesaWarning,
            stacklevel=3,
        )
    return kept
