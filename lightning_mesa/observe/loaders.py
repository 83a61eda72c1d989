"""A loader of our own over the user's items: the user's DataLoader object is never iterated.

Iterating it would draw from the global random stream, advance a generator it may share with training, and
take batches away from persistent workers.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    DistributedSampler,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
)

from lightning_mesa.errors import ConfigurationError

_MOST_IN_A_BATCH = 2**20
_WORKERS = ("num_workers", "timeout", "worker_init_fn", "multiprocessing_context", "prefetch_factor")


@dataclass(frozen=True)
class ItemLoader:
    """This process's share of the items, in batches.

    Attributes:
        loader: The batches.
        limit: Read no more of them.
        rank: This process.
        world_size: Number of processes that share the items.
        whole_batches: Whether the processes share batches, and not items, in turn.
    """

    loader: "DataLoader[Any]"
    limit: int | None
    rank: int
    world_size: int
    whole_batches: bool

    def __iter__(self) -> Iterator[Any]:
        """The batches; to be called inside ``no_trace``."""
        return islice(self.loader, self.limit)

    def numbers(self, batch: int, seen: int, n: int) -> Tensor:
        """``[n]`` numbers of the items in a batch, the same however many processes share them.

        Args:
            batch: How many batches have been read before.
            seen: How many items.
            n: Number of items in the batch.
        """
        if self.whole_batches:
            return (self.rank + self.world_size * batch) * _MOST_IN_A_BATCH + torch.arange(n)
        return self.rank + self.world_size * torch.arange(seen, seen + n)

    def __len__(self) -> int:
        """Number of batches.

        Raises:
            TypeError: If it is not known.
        """
        return len(self.loader) if self.limit is None else min(len(self.loader), self.limit)


class _Share(IterableDataset[Any]):
    """Every so many items of a stream; each process reads all of it."""

    def __init__(self, stream: "IterableDataset[Any]", rank: int, world_size: int) -> None:
        self.stream, self.rank, self.world_size = stream, rank, world_size

    def __iter__(self) -> Iterator[Any]:
        return islice(iter(self.stream), self.rank, None, self.world_size)


def item_loader(
    items: "DataLoader[Any] | Dataset[Any]",
    *,
    batch_size: int,
    seed: int,
    limit: int | None = None,
    rank: int = 0,
    world_size: int = 1,
) -> ItemLoader:
    """Rebuild a loader that visits this process's share of the items once, in order, unpadded.

    Call it inside ``no_trace``: a sampler of the user's may draw random numbers.

    Args:
        items: The user's DataLoader or Dataset.
        batch_size: Batch size for a Dataset; a DataLoader keeps its own.
        seed: Seed of the loader's generator, so that every look sees the same augmentations.
        limit: Read the items of so many batches of all processes together.
        rank: This process.
        world_size: Number of processes that share the items.

    Raises:
        ConfigurationError: If the items cannot be counted.
    """
    options: dict[str, Any] = {"generator": torch.Generator().manual_seed(seed)}
    dataset: Dataset[Any] = items.dataset if isinstance(items, DataLoader) else items
    size: int | None = batch_size
    batching = sampler = None
    if isinstance(items, DataLoader):
        size, batching = items.batch_size, items.batch_sampler
        sampler = items.sampler if batching is None else getattr(batching, "sampler", None)
        options |= {option: getattr(items, option) for option in ("collate_fn", "pin_memory", *_WORKERS)}
    if isinstance(dataset, IterableDataset):
        share = dataset if world_size == 1 else _Share(dataset, rank, world_size)
        of_each = None if limit is None else -(-limit // world_size)
        loader = DataLoader(share, batch_size=size, **options)
        return ItemLoader(loader, of_each, rank, world_size, size is None)
    if batching is not None and type(batching) is not BatchSampler:
        batches = [list(batch) for batch in islice(batching, limit)]
        loader = DataLoader(dataset, batch_sampler=batches[rank::world_size], **options)
        return ItemLoader(loader, None, rank, world_size, whole_batches=True)
    if batching is not None:
        size = batching.batch_size
    indices = range(_length(dataset)) if sampler is None else _indices(sampler, dataset)
    if limit is not None:
        indices = indices[: limit * (size or 1)]
    loader = DataLoader(dataset, batch_size=size, sampler=indices[rank::world_size], **options)
    return ItemLoader(loader, None, rank, world_size, size is None)


def _indices(sampler: Any, dataset: "Dataset[Any]") -> Sequence[Any]:
    if isinstance(sampler, DistributedSampler):  # this process's share of them, by Lightning or the user
        return range(_length(dataset))
    shuffles = type(sampler) in (SequentialSampler, RandomSampler) and not getattr(sampler, "replacement", False)
    return range(_length(dataset)) if shuffles and len(sampler) == _length(dataset) else list(sampler)


def _length(dataset: "Dataset[Any]") -> int:
    try:
        return len(dataset)  # type: ignore[arg-type]
    except TypeError:
        raise ConfigurationError(
            f"{type(dataset).__name__} has no length: give it __len__, or make it an IterableDataset that ends."
        ) from None
