"""Whether a stream draws its items anew: it is read under two seeds, and the items are compared.

"Anew" is a claim that the alarm multiplies evidence on, so it must be earned: held-out items in another order, or the
same ones with other noise, are not new. Where it is in doubt a stream is taken for the same items again, which costs
power and no validity.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from hashlib import blake2b
from itertools import islice
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from lightning_mesa.observe.generators import generators
from lightning_mesa.observe.isolation import random_streams
from lightning_mesa.observe.loaders import Batches, Items, dataset_of

PROBED = 500
"""Items that are compared. Of N items in random order, two samples of n share none with chance exp(-n²/N), about."""

Item = tuple[bytes, ...]
"""Digests of the values in an item, field by field."""


def draws_anew(items: Items, seed: int, limit: int | None = None) -> bool:
    """Whether another seed gives other items; to be called inside ``no_trace``.

    Read in this process, without collating. False for a map-style dataset; also if an item comes under both seeds, or
    if a field that varies (a label) takes the same values, in any order, as it does where only noise is drawn.

    Args:
        items: The user's DataLoader, dataset or batches.
        seed: The first of the two seeds.
        limit: Compare no more items than this, as no more are read at a look.
    """
    dataset = dataset_of(items)
    if not isinstance(dataset, (IterableDataset, Batches)):
        return False
    in_batches = isinstance(items, Batches) or (isinstance(items, DataLoader) and items.batch_size is None)
    # One item tells most streams that repeat.
    numbers = (1, min(PROBED, limit or PROBED))
    try:
        return all(
            _differ(_first(n, dataset, in_batches, seed), _first(n, dataset, in_batches, seed + 1)) for n in numbers
        )
    except Exception:  # the first look will meet it too, and say what is wrong
        return False


def _first(n: int, dataset: "IterableDataset[Any] | Batches", in_batches: bool, seed: int) -> list[Item]:
    with random_streams(seed), generators(dataset, seed=seed):
        found = (row for item in dataset for row in (_rows(item) if in_batches else [_item(item)]))
        return list(islice(found, n))


def _differ(first: list[Item], second: list[Item]) -> bool:
    if set(first) & set(second):
        return False
    fields = zip(zip(*first, strict=False), zip(*second, strict=False), strict=False)
    return bool(first) and not any(len(set(a)) > 1 and Counter(a) == Counter(b) for a, b in fields)


def _item(item: Any) -> Item:
    return tuple(map(_digest, _fields(item)))


def _rows(batch: Any) -> Iterator[Item]:
    """The items of a batch that the dataset has put together itself."""
    columns = [field for field in _fields(batch) if getattr(field, "ndim", 0)]
    for i in range(min(map(len, columns), default=0)):
        yield tuple(_digest(column[i]) for column in columns)


def _fields(item: Any) -> Iterator[Any]:
    if isinstance(item, Mapping):
        item = tuple(item.values())
    if isinstance(item, (list, tuple)):
        for part in item:
            yield from _fields(part)
    elif item is None or isinstance(item, (Tensor, str, bytes, int, float)) or hasattr(item, "tobytes"):
        yield item
    else:
        yield from _fields(vars(item))


def _digest(field: Any) -> bytes:
    if isinstance(field, Tensor):
        field = field.detach().cpu().reshape(-1).contiguous().view(torch.uint8).numpy()
    return blake2b(field.tobytes() if hasattr(field, "tobytes") else repr(field).encode()).digest()
