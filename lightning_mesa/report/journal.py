"""What was found, as JSON lines that survive a crash: one object a line, flushed line by line."""

import json
import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any, TypeAlias

from lightning_mesa.checks.conflict import Conflict
from lightning_mesa.errors import MesaWarning
from lightning_mesa.records import Alert, Evidence, Finding, ProbeResult
from lightning_mesa.stats.competence import Best, Competence, Gap
from lightning_mesa.stats.intervals import BoundedMean, Estimate, Mean

Identity: TypeAlias = tuple[object, ...]

# What else than a result's own ``detail`` stands in that of its finding.
_OF_RESULT = {"estimate", "status", "reason", "rung", "evidence", "bar", "positive", "p", "null_mean", "null_sd"}

# Journals of before results said what they are evidence of.
_EVIDENCE: dict[str, Evidence] = {"retargeting": "served", "consequence_sensitivity": "sensitivity"}

_IDENTIFYING = ("step", "distribution", "quantity", "signature", "objective", "proxy", "group")


def identity(record: Mapping[str, Any]) -> Identity:
    """What tells a record from all others of its run."""
    return tuple(record.get(key) for key in _IDENTIFYING)


def written_after(path: Path, step: int) -> frozenset[Identity]:
    """The records of looks after a step that a journal holds already.

    A run that was killed after its last checkpoint has written them, and writes the same again after a resume.
    """
    if not path.exists():
        return frozenset()
    return frozenset(identity(record) for record in read_journal(path) if record["step"] > step)


def set_aside(path: Path) -> None:
    """Rename the journal of another run in the same folder to ``NAME.1.jsonl``, or the next free number."""
    if path.exists():
        number = next(n for n in count(1) if not path.with_suffix(f".{n}.jsonl").exists())
        path.rename(path.with_suffix(f".{number}.jsonl"))


def append(path: Path, records: Iterable[Finding | Alert]) -> None:
    """Append records to a journal, one JSON object a line.

    A line that a kill has torn is ended first, so that only it is lost.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b") as file:
        if file.tell():
            file.seek(-1, 2)
            if file.read(1) != b"\n":
                file.write(b"\n")
        for record in records:
            file.write(json_line(record).encode() + b"\n")
            file.flush()


def json_line(record: Finding | Alert) -> str:
    """A record as one line of a journal."""
    plain = {key: value for key, value in vars(record).items() if key != "result"}
    if isinstance(record, Finding):
        plain |= {"detail": dict(record.detail), "estimate": recorded(record.estimate)}
    return json.dumps(plain, allow_nan=False)


def recorded(estimate: Estimate | None) -> dict[str, Any] | None:
    """Plain values of an estimate, from which :func:`estimate_of` makes it again."""
    match estimate:
        case None:
            return None
        case Conflict(base=base, proxy=proxy, neither=neither, of=of):
            return {"base": base, "proxy": proxy, "neither": neither, "of": of}
        case Mean(counts=counts):
            return {"counts": list(counts)}
        case BoundedMean(value=mean, n=n):
            return {"mean": mean, "n": n}
        case Competence(mean=mean, chance=chance, ceiling=ceiling):
            return {**(recorded(mean) or {}), "chance": chance, "ceiling": ceiling}
        case Gap(reference=reference, shifted=shifted):
            return {"reference": recorded(reference), "shifted": recorded(shifted)}
        case Best(competences=competences):
            return {"best": [recorded(competence) for competence in competences]}
    raise TypeError(f"{type(estimate).__name__}: a finding holds an estimate of lightning_mesa.stats.")


def estimate_of(record: Mapping[str, Any]) -> Any:
    """The estimate whose plain values these are.

    Raises:
        KeyError: If they are not those of an estimate.
    """
    if "proxy" in record:
        return Conflict.decided(record["base"], record["proxy"], record["neither"], record.get("of", "items"))
    if "best" in record:
        return Best([estimate_of(competence) for competence in record["best"]])
    if "reference" in record:
        return Gap(estimate_of(record["reference"]), estimate_of(record["shifted"]))
    mean = Mean(tuple(record["counts"])) if "counts" in record else BoundedMean(record["mean"], record["n"])
    return Competence(mean, record["chance"], record["ceiling"]) if "chance" in record else mean


def read_journal(path: str | Path) -> list[dict[str, Any]]:
    """Read a journal.

    Args:
        path: ``findings.jsonl`` or ``alerts.jsonl``.

    Returns:
        One dict a line. A line that is not JSON, torn by a kill, is left out and reported by a warning.

    Raises:
        OSError: If the file cannot be read.
    """
    return [record for _, record in numbered_records(path)]


def numbered_records(path: str | Path) -> Iterator[tuple[int, Any]]:
    """The lines of a journal with their numbers, as :func:`read_journal`."""
    lines = Path(path).read_bytes().split(b"\n")
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            yield number, json.loads(line)
        except ValueError:
            warnings.warn(f"{path}, line {number} is torn and left out: {line[:60]!r}", MesaWarning, stacklevel=3)


def findings_of(records: Iterable[Mapping[str, Any]]) -> list[Finding]:
    """Findings again from what :func:`read_journal` gave, of either schema.

    Raises:
        TypeError: If a record lacks what a finding has.
        KeyError: If an estimate cannot be made again.
    """
    reader = Reader()
    return [reader.finding(record) for record in records]


def result_of(found: Finding) -> ProbeResult | None:
    """What a probe found, from a finding as the journal has it; None where it is not about internals."""
    if found.role != "internals" or not isinstance(found.detail, Mapping):
        return None
    detail = found.detail
    estimate = detail.get("estimate")
    null_mean, null_sd, p = (detail.get(key) for key in ("null_mean", "null_sd", "p"))
    return ProbeResult(
        *(found.value, found.low, found.high, null_mean, null_sd, p, found.n),
        status=detail["status"],
        reason=detail.get("reason"),
        layer=found.group,
        objective=found.objective,
        quantity=found.quantity,
        bar=detail.get("bar"),
        qualified=detail["positive"] or detail["status"] != "ok" or "reason" not in detail,
        detail={key: value for key, value in detail.items() if key not in _OF_RESULT},
        estimate=None if estimate is None else estimate_of(estimate),
        probe=found.measure,
        rung=detail.get("rung"),
        evidence=detail.get("evidence", _EVIDENCE.get(found.measure)),
    )


class Reader:
    """Makes findings again from the records of a journal, in the order of the file.

    Journals of schema 1 have no estimates. Their counts are spread over ``detail``, and those of a gap or a capability
    are those of competences that stand before it.
    """

    def __init__(self) -> None:
        self._reference = ""
        self._competences: dict[tuple[str, str | None], Competence | None] = {}

    def finding(self, record: Mapping[str, Any]) -> Finding:
        """The finding of a record.

        Raises:
            TypeError: If it lacks what a finding has.
            KeyError: If its estimate cannot be made again.
        """
        if record.get("schema") != 1:
            estimate = record.get("estimate")
            found = Finding(**{**record, "estimate": None if estimate is None else estimate_of(estimate)})
            return replace(found, result=result_of(found))
        found = Finding(**record)
        if found.role == "reference" and not self._reference:
            self._reference = found.distribution
        estimate = self._estimate(found)
        if found.quantity == "competence" and found.group is None:
            self._competences[found.distribution, found.objective] = estimate
        return replace(found, estimate=estimate, result=result_of(found))

    def _estimate(self, f: Finding) -> Any:
        here, detail = (f.distribution, f.objective), f.detail
        if f.role == "internals":
            return estimate_of(detail["estimate"]) if "estimate" in detail else None
        if f.quantity == "conflict":
            return estimate_of(detail)
        if f.value is None:
            return None
        if f.quantity in ("competence", "slice", "cue_difference"):
            return estimate_of(detail)
        if f.quantity == "gap":
            reference, shifted = self._competences[self._reference, f.objective], self._competences[here]
            unpaired = None if reference is None or shifted is None else Gap(reference, shifted)
            return estimate_of(detail["paired"]) if "paired" in detail else unpaired
        if f.quantity == "capability":
            listed = [self._competences[f.distribution, name] for name in detail.get("objectives", ())]
            return estimate_of(detail) if detail["rule"] == "any" else Best([one for one in listed if one is not None])
        if f.quantity == "preference" and "difference" in detail:
            return estimate_of(detail["difference"])
        if f.quantity == "extremal_excess":
            return estimate_of({"reference": detail["here"], "shifted": detail["reference"]})
        return estimate_of({"best": detail["folds"]}) if f.quantity == "readout" else None
