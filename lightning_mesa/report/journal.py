"""What was found, as JSON lines that survive a crash: one object a line, flushed line by line."""

import json
import warnings
from collections.abc import Iterable, Iterator, Mapping
from itertools import count
from pathlib import Path
from typing import Any, TypeAlias

from lightning_mesa.errors import MesaWarning
from lightning_mesa.records import Alert, Finding

Identity: TypeAlias = tuple[object, ...]

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
    return json.dumps(vars(record), default=_plain, allow_nan=False)


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
    """Findings again from what :func:`read_journal` gave."""
    return [Finding(**record) for record in records]


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{type(value).__name__} in a record: records hold plain values")
