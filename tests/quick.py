"""Parameters of which some are in the quick suite, and all in the whole one."""

from collections.abc import Collection, Iterable
from typing import Any

import pytest


def quick(values: Iterable[Any], *kept: Any) -> list[Any]:
    """The values; those that are not kept are marked slow."""
    return [value if value in kept else pytest.param(value, marks=pytest.mark.slow) for value in values]


def quick_rows(rows: dict[str, Collection[Any]], *kept: str) -> list[Any]:
    """Rows of parameters by name, likewise."""
    marks = {name: [] if name in kept else [pytest.mark.slow] for name in rows}
    return [pytest.param(*row, id=name, marks=marks[name]) for name, row in rows.items()]
