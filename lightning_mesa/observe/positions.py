"""Where a user's stream stands: a look reads it from its start, and puts back what that has moved."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.utils.data import DataLoader

from lightning_mesa.observe.contents import contents
from lightning_mesa.observe.held import root_of, walk

_WALK_LIMIT = 2_000
# What other threads and processes write to.
_ALIVE = {"threading", "_thread", "queue", "_queue", "multiprocessing", "concurrent", "asyncio", "socket", "_io"}


@contextmanager
def positions(*owners: object) -> Iterator[None]:
    """Restore the attributes of these objects, and of what they hold: positions, epochs, counters, buffers.

    What is not Python's, such as a file that is read on, stays where it is. Persistent workers of a DataLoader inside
    are put aside, so that the look takes no batches from them.

    Args:
        owners: Streams, and iterables of batches.
    """
    walked = walk([("", owner) for owner in owners], limit=_WALK_LIMIT, enter=_stands_still)
    found = [item for _, item, _ in walked if _stands_still(item)]
    kept = [put_back for item in found for put_back in contents(item)]
    try:
        for item in found:
            if isinstance(item, DataLoader):
                item._iterator = None
        yield
    finally:
        for put_back in kept:
            put_back()


def _stands_still(item: object) -> bool:
    """Whether it is the stream's own: not the model, and nothing that other threads move."""
    return not isinstance(item, (nn.Module, torch.Tensor, type)) and root_of(type(item).__module__) not in _ALIVE
