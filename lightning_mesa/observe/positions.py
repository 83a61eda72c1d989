"""Where a user's stream stands: a look reads it from its start, and puts back what that has moved."""

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from lightning_mesa.observe.held import root_of, walk

_WALK_LIMIT = 2_000
# What other threads and processes write to.
_ALIVE = {"threading", "_thread", "queue", "_queue", "multiprocessing", "concurrent", "asyncio", "socket", "_io"}
_CONTAINERS = (list, dict, set, deque)


@contextmanager
def positions(*owners: object) -> Iterator[None]:
    """Restore the attributes of these objects, and of what they hold: positions, epochs, counters, buffers.

    What is not Python's, such as a file that is read on, stays where it is. Persistent workers of a DataLoader inside
    are put aside, so that the look takes no batches from them.

    Args:
        owners: Streams, and iterables of batches.
    """
    kept = [(container, _content(container)) for container in _containers(owners)]
    try:
        for container, _ in kept:
            if isinstance(container, dict) and container.get("_DataLoader__initialized"):
                container["_iterator"] = None
        yield
    finally:
        for container, before in kept:
            _put_back(container, before)


def _containers(owners: tuple[object, ...]) -> list[Any]:
    """Attributes and containers that the owners hold, nearest first; bounded, as it is walked at every look."""
    found: list[Any] = []
    for _, item, _ in walk([("", owner) for owner in owners], limit=_WALK_LIMIT, enter=_stands_still):
        if not _stands_still(item):
            continue
        if isinstance(item, _CONTAINERS):
            found.append(item)
        elif isinstance(attributes := getattr(item, "__dict__", None), dict):
            found.append(attributes)
    return found


def _stands_still(item: object) -> bool:
    """Whether it is the stream's own: not the model, and nothing that other threads move."""
    return not isinstance(item, (nn.Module, torch.Tensor, type)) and root_of(type(item).__module__) not in _ALIVE


def _content(container: Any) -> Any:
    return dict(container) if isinstance(container, dict) else list(container)


def _put_back(container: Any, before: Any) -> None:
    if isinstance(container, dict):
        for name in container.keys() - before.keys():
            del container[name]
        # One by one, and what has changed alone: the training may be iterating over it.
        container.update({name: value for name, value in before.items() if container.get(name, before) is not value})
    elif isinstance(container, list):
        if len(container) != len(before) or any(a is not b for a, b in zip(container, before, strict=True)):
            container[:] = before
    elif list(map(id, container)) != list(map(id, before)):
        container.clear()
        container.update(before) if isinstance(container, set) else container.extend(before)
