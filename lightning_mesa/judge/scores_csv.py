"""Scores that other tools have logged, as a CSV file: turned into the findings that the alarm judges.

A row is one objective's mean score on one distribution at one step; rows of the same step form a look. Only means are
known, so limits and p-values are those of :class:`~lightning_mesa.stats.intervals.BoundedMean`.
"""

import csv
import math
import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from lightning_mesa.checks.look import Look
from lightning_mesa.checks.means import Kind, MeanScore, findings_of_means
from lightning_mesa.errors import ConfigurationError, MesaWarning
from lightning_mesa.records import Finding, Role
from lightning_mesa.stats.competence import Competence
from lightning_mesa.stats.intervals import BoundedMean

COLUMNS = ("step", "role", "distribution", "objective", "kind", "mean", "n", "low", "high")
OPTIONAL_COLUMNS = ("chance",)
KINDS = get_args(Kind)


@dataclass(frozen=True)
class Row:
    """One objective on one distribution at one step.

    Attributes:
        line: Its line in the file.
        bounds: Smallest and largest possible score.
        competence: Competence at the objective; chance is the lowest score unless the file says otherwise, the
            ceiling the highest.
    """

    line: int
    step: int
    role: Role
    distribution: str
    objective: str
    kind: Kind
    bounds: tuple[float, float]
    competence: Competence


def read_scores(path: Path) -> list[list[Finding]]:
    """Read a CSV file of scores: the findings of each look, in the order of the steps.

    Args:
        path: The file, with the columns ``COLUMNS`` and perhaps ``OPTIONAL_COLUMNS``.

    Raises:
        ConfigurationError: If it cannot be read; the message says what is wrong and in which line.
        OSError: If there is no such file.
    """
    rows = list(_rows(path))
    _check_names(path, rows)
    references = [row.distribution for row in rows if row.role == "reference"]
    if not references:
        raise ConfigurationError(
            f"{path} has no row with the role 'reference': add the scores on data like those in training, to which "
            "the shifted distributions are compared."
        )
    looks: dict[int, dict[tuple[str, str], Row]] = {}
    repeated: list[tuple[Row, Row]] = []
    for row in rows:
        look = looks.setdefault(row.step, {})
        key = (row.distribution, row.objective)
        if key in look:
            repeated.append((look[key], row))
        look[key] = row
    if repeated:
        first, second = repeated[0]
        warnings.warn(
            f"{path}: {len(repeated)} rows come again with the same step, distribution and objective, for instance "
            f"line {first.line} in line {second.line}; the last one of each is used",
            MesaWarning,
            stacklevel=2,
        )
    order = list(dict.fromkeys([*references, *(row.distribution for row in rows)]))
    for step, look in looks.items():
        _check_look(path, step, look, references[0])
    return [_findings(looks[step], order) for step in sorted(looks)]


def _rows(path: Path) -> Iterator[Row]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file, skipinitialspace=True, strict=True)
            header = [name.strip() for name in next(reader, [])]
            _check_header(path, header)
            for cells in reader:
                if any(cell.strip() for cell in cells):
                    yield _row(f"{path}, line {reader.line_num}", reader.line_num, header, cells)
            if reader.line_num < 2:
                raise ConfigurationError(f"{path} has a header and no rows: there is nothing to judge.")
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{path} is neither a journal nor a CSV file: it is not text ({error}).") from error
    except csv.Error as error:
        raise ConfigurationError(f"{path}, line {reader.line_num} is not CSV: {error}.") from error


def _check_header(path: Path, header: list[str]) -> None:
    missing = [name for name in COLUMNS if name not in header]
    if missing:
        raise ConfigurationError(
            f"{path} is neither a journal (one JSON object a line) nor a CSV file of scores: its first line lacks the "
            f"columns {', '.join(missing)}. The columns are {','.join(COLUMNS)}, separated by commas, and perhaps "
            f"{','.join(OPTIONAL_COLUMNS)}."
        )
    known = [*COLUMNS, *OPTIONAL_COLUMNS]
    for name in known:
        if header.count(name) > 1:
            raise ConfigurationError(f"{path}, line 1: the column {name!r} stands there twice; remove one.")
    ignored = [name for name in header if name not in known]
    if ignored:
        warnings.warn(f"{path}: the columns {', '.join(ignored)} are not used", MesaWarning, stacklevel=2)


def _row(where: str, line: int, header: list[str], cells: list[str]) -> Row:
    if len(cells) != len(header):
        raise ConfigurationError(f"{where} has {len(cells)} cells, but the first line names {len(header)} columns.")
    row = {name: cell.strip() for name, cell in zip(header, cells, strict=True)}
    roles = get_args(Role)
    for name, allowed in {"role": roles, "kind": KINDS}.items():
        if row[name] not in allowed:
            raise ConfigurationError(f"{where}: the {name} {row[name]!r} is not known; use {' or '.join(allowed)}.")
    for name in ("distribution", "objective"):
        if not row[name]:
            raise ConfigurationError(f"{where}: the {name} has no name.")
    step, n = (_whole_number(where, row, name) for name in ("step", "n"))
    if step < 0 or n < 1:
        name, least = ("step", 0) if step < 0 else ("n", 1)
        raise ConfigurationError(f"{where}: {name} must be at least {least}, not {row[name]}.")
    mean, low, high = (_number(where, row, name) for name in ("mean", "low", "high"))
    if not low < high:
        raise ConfigurationError(f"{where}: low {low:g} must lie below high {high:g}: they are the score's bounds.")
    if not low <= mean <= high:
        raise ConfigurationError(
            f"{where}: mean {mean:g} lies outside the bounds {low:g} to {high:g}; give the smallest and largest score "
            "that one item can have."
        )
    chance = _number(where, row, "chance") if row.get("chance") else low
    if not low <= chance < high:
        raise ConfigurationError(
            f"{where}: chance {chance:g} must be at least low {low:g} and below high {high:g}; it is the score of "
            "the best output that does not look at the input. Leave it empty for low."
        )
    scaled = BoundedMean((mean - low) / (high - low), n)
    return Row(
        line=line,
        step=step,
        role=roles[roles.index(row["role"])],
        distribution=row["distribution"],
        objective=row["objective"],
        kind=KINDS[KINDS.index(row["kind"])],
        bounds=(low, high),
        competence=Competence(scaled, (chance - low) / (high - low), 1.0),
    )


def _number(where: str, row: Mapping[str, str], name: str) -> float:
    try:
        number = float(row[name])
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise ConfigurationError(f"{where}: {name} must be a finite number, not {row[name]!r}.")
    return number


def _whole_number(where: str, row: Mapping[str, str], name: str) -> int:
    number = _number(where, row, name)
    if number != int(number):
        raise ConfigurationError(f"{where}: {name} must be a whole number, not {row[name]}.")
    return int(number)


def _check_names(path: Path, rows: Iterable[Row]) -> None:
    """A distribution has one role, an objective one kind, and there is one base objective."""
    first: dict[str, tuple[str, int]] = {}
    base: Row | None = None
    for row in rows:
        named = {
            f"the distribution {row.distribution!r}": row.role,
            f"the objective {row.objective!r}": f"of the kind {row.kind}",
        }
        for name, now in named.items():
            before, line = first.setdefault(name, (now, row.line))
            if now != before:
                raise ConfigurationError(
                    f"{path}, line {row.line}: {name} is {now}, but in line {line} it is {before}; give one of them "
                    "another name."
                )
        if row.kind == "base":
            base = base or row
            if base.objective != row.objective:
                raise ConfigurationError(
                    f"{path}, line {row.line}: {row.objective!r} is of the kind base, but so is {base.objective!r} in "
                    f"line {base.line}; there is one base objective, others are of the kind proxy or intended."
                )
    if base is None:
        raise ConfigurationError(
            f"{path} has no row of the kind base: add the scores at what the model is trained for."
        )


def _check_look(path: Path, step: int, look: Mapping[tuple[str, str], Row], reference: str) -> None:
    """A look needs the reference, a shifted distribution, base, and the same objectives everywhere."""
    roles = {row.distribution: row.role for row in look.values()}
    objectives = {row.objective: row.kind for row in look.values()}
    at = f"{path}: the look at step {step} (line {next(iter(look.values())).line})"
    remedy = "add the rows, or remove those of this step."
    if reference not in roles:
        raise ConfigurationError(f"{at} has no row for the reference {reference!r}: {remedy}")
    if "shifted" not in roles.values():
        raise ConfigurationError(f"{at} has no row with the role 'shifted': {remedy}")
    if "base" not in objectives.values():
        raise ConfigurationError(f"{at} has no row of the kind base: {remedy}")
    for where in roles:
        for objective, kind in objectives.items():
            if (where, objective) not in look:
                raise ConfigurationError(
                    f"{at} has no row for {objective!r} ({kind}) on {where!r}, but one elsewhere: {remedy}"
                )


def _findings(look: Mapping[tuple[str, str], Row], order: Iterable[str]) -> list[Finding]:
    rows = list(look.values())
    roles = {row.distribution: row.role for row in rows}
    base = next(row.objective for row in rows if row.kind == "base")
    stamp = Look(rows[0].step, 0, base, {where: roles[where] for where in order if where in roles})  # no epoch is known
    scores = [MeanScore(row.distribution, row.objective, row.kind, row.bounds, row.competence) for row in rows]
    return findings_of_means(scores, stamp, "scores_csv")
