"""What was found, as JSON lines that survive a crash: one object a line, flushed line by line."""

import json
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from lightning_mesa.errors import MesaWarning
from lightning_mesa.records import Alert, Finding


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
            file.write(json.dumps(vars(record), default=_plain, allow_nan=False).encode() + b"\n")
            file.flush()


def read_journal(path: str | Path) -> list[dict[str, Any]]:
    """Read a journal.

    Args:
        path: ``findings.jsonl`` or ``alerts.jsonl``.

    Returns:
        One dict a line. A line that is not JSON, torn by a kill, is left out and reported by a warning.

    Raises:
        OSError: If the file cannot be read.
    """
    records = []
    lines = Path(path).read_bytes().split(b"\n")
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            records.append(json.loads(line))
        except ValueError:
            warnings.warn(f"{path}, line {number} is torn and left out: {line[:60]!r}", MesaWarning, stacklevel=2)
    return records


def findings_of(records: Iterable[Mapping[str, Any]]) -> list[Finding]:
    """Findings again from what :func:`read_journal` gave."""
    return [Finding(**record) for record in records]


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{type(value).__name__} in a record: records hold plain values")
