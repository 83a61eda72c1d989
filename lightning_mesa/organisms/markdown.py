"""A table in Markdown."""

from collections.abc import Iterable, Mapping


def markdown(rows: Iterable[Mapping[str, object]]) -> str:
    """The table, a line for each row.

    Args:
        rows: One at least; column -> cell, the same columns in all.
    """
    rows = list(rows)
    return _line(rows[0]) + "|---" * len(rows[0]) + "|\n" + "".join(_line(row.values()) for row in rows)


def _line(cells: Iterable[object]) -> str:
    return "".join("| " if cell == "" else f"| {cell} " for cell in cells) + "|\n"
