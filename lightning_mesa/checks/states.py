"""What a check accumulates over batches: two states of a kind merge into one, in any order."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

Key = tuple[str, ...]
"""Where a value belongs: the distribution first, then whatever tells values of one distribution apart."""


class State(ABC):
    """Values by key that add up over batches and over processes."""

    def __init__(self) -> None:
        self.values: dict[Key, Any] = {}

    @abstractmethod
    def add(self, key: Key, value: Any) -> None:
        """Add to the value of a key."""

    def merge(self, values: dict[Key, Any]) -> None:
        """Add the values that another batch or process has accumulated."""
        for key, value in values.items():
            self.add(key, value)

    def __contains__(self, key: Key) -> bool:
        return key in self.values

    def __iter__(self) -> Iterator[Key]:
        return iter(self.values)


class Sums(State):
    """Tensors that are summed."""

    def add(self, key: Key, value: Tensor) -> None:
        """Add a tensor; all tensors of a key have one shape."""
        self.values[key] = self.values[key] + value if key in self.values else value

    def __getitem__(self, key: Key) -> Tensor:
        value: Tensor = self.values[key]
        return value

    def counts(self, key: Key) -> tuple[float, ...]:
        """The sum as plain numbers."""
        return tuple(map(float, self.values[key].tolist()))


class Rows(State):
    """Tensors with a row per item that are kept, because no sum of theirs is enough.

    The first tensor holds the items' numbers, ``[n]`` int64. Rows are read in the order of the numbers, so that they
    do not depend on who has seen which item.
    """

    def add(self, key: Key, value: list[tuple[Tensor, ...]]) -> None:
        """Keep more rows: a list of tuples ``(numbers, tensor, ...)``."""
        self.values.setdefault(key, []).extend(value)

    def __getitem__(self, key: Key) -> tuple[Tensor, ...]:
        columns = [torch.cat(column) for column in zip(*self.values[key], strict=True)]
        order = columns[0].argsort(stable=True)
        return tuple(column[order] for column in columns)


class Notes(State):
    """Short texts; where two differ, the one that sorts first stays."""

    def add(self, key: Key, value: str) -> None:
        """Note a text."""
        self.values[key] = min(value, self.values.get(key, value))

    def get(self, key: Key) -> str | None:
        """The text, None where nothing was noted."""
        return self.values.get(key)
