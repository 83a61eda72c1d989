"""A loader of our own over the user's items: the user's DataLoader object is never iterated.

Iterating it would draw from the global random stream, advance a generator it may share with training, and
take batches away from persistent workers. Of loaders that are none of torch's nothing but their batches is known: these
are iterated, and what that moves is put back, see ``positions.py``.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from types import GeneratorType
from typing import Any, Protocol, TypeAlias

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
    default_collate,
)

from lightning_mesa.errors import ConfigurationError

_MOST_IN_A_BATCH = 2**20
_KEPT = (
    "collate_fn",
    "num_workers",
    "pin_memory",
    "pin_memory_device",
    "timeout",
    "worker_init_fn",
    "multiprocessing_context",
    "prefetch_factor",
)
# Of a user's loader. Ours lives for one look, so its workers do not persist, and items are numbered in order.


class MapStyle(Protocol):
    """Items by number: a dataset of Hugging Face, a list, or whatever else has these two methods."""

    def __len__(self) -> int:
        """Number of items."""

    def __getitem__(self, i: Any, /) -> Any:
        """One item."""


@dataclass(frozen=True)
class Batches:
    """Batches of a user's own making, each time from the first one.

    Attributes:
        source: What gives them: it can be iterated again and again, or is a function that makes an iterator.
    """

    source: Iterable[Any] | Callable[[], Iterable[Any]]

    def __iter__(self) -> Iterator[Any]:
        batches, any_at_all = iter(self.source if isinstance(self.source, Iterable) else self.source()), False
        try:
            for batch in batches:
                any_at_all = True
                yield batch
            if not any_at_all:
                raise ConfigurationError(
                    "it gives no batch, or none any more: every look iterates it, and it must start anew each time. If "
                    "it can be read once, pass the function that makes it."
                )
        finally:
            if isinstance(batches, GeneratorType):
                batches.close()  # here, and not when it is collected, so that what it leaves can be put back

    def __len__(self) -> int:
        """Number of batches.

        Raises:
            TypeError: If it is not known.
        """
        return len(self.source)  # type: ignore[arg-type]


Items: TypeAlias = DataLoader[Any] | Dataset[Any] | MapStyle | Batches


@dataclass(frozen=True)
class ItemLoader:
    """This process's share of the items, in batches.

    Attributes:
        loader: The batches.
        read: Which of them are read.
        rank: This process.
        world_size: Number of processes that share the items.
        whole_batches: Whether the processes share batches, and not items, in turn.
    """

    loader: "DataLoader[Any] | Batches"
    read: slice
    rank: int
    world_size: int
    whole_batches: bool

    def __iter__(self) -> Iterator[Any]:
        """The batches; to be called inside ``no_trace``."""
        return islice(self.loader, self.read.start, self.read.stop, self.read.step)

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
        return len(range(len(self.loader))[self.read])


class _Share(IterableDataset[Any]):
    """Every k-th item of a stream, for k processes; each reads all of it."""

    def __init__(self, stream: "IterableDataset[Any]", rank: int, world_size: int) -> None:
        self.stream, self.rank, self.world_size = stream, rank, world_size

    def __iter__(self) -> Iterator[Any]:
        return islice(iter(self.stream), self.rank, None, self.world_size)


def item_loader(
    items: Items,
    *,
    batch_size: int,
    seed: int,
    limit: int | None = None,
    rank: int = 0,
    world_size: int = 1,
) -> ItemLoader:
    """Rebuild a loader that visits this process's share of the items once, in order, unpadded.

    Call it inside ``no_trace``: a sampler of the user's may draw random numbers. Where only full batches are to be
    read, and where the user makes the batches, processes share whole batches.

    Args:
        items: The user's DataLoader, dataset or batches.
        batch_size: Batch size for a dataset; a DataLoader keeps its own.
        seed: Seed of the loader's generator, so that every look sees the same augmentations.
        limit: Read the items of so many batches of all processes together.
        rank: This process.
        world_size: Number of processes that share the items.

    Raises:
        ConfigurationError: If the items cannot be counted, or make no full batch where only full ones are to be read.
    """
    turns = slice(rank, limit, world_size)
    if isinstance(items, Batches):
        return ItemLoader(items, turns, rank, world_size, whole_batches=True)
    options: dict[str, Any] = {"generator": torch.Generator().manual_seed(seed), "collate_fn": _collated}
    dataset: Any = dataset_of(items)
    size: int | None = batch_size
    batching = sampler = None
    if isinstance(items, DataLoader):
        size, batching = items.batch_size, items.batch_sampler
        sampler = items.sampler if batching is None else getattr(batching, "sampler", None)
        options |= {option: getattr(items, option) for option in _KEPT}
    if isinstance(dataset, IterableDataset):
        if drops_last(items):
            full: DataLoader[Any] = DataLoader(dataset, batch_size=size, drop_last=True, **options)
            return ItemLoader(full, turns, rank, world_size, whole_batches=True)
        share = dataset if world_size == 1 else _Share(dataset, rank, world_size)
        of_each = None if limit is None else -(-limit // world_size)
        loader = DataLoader(share, batch_size=size, **options)
        return ItemLoader(loader, slice(of_each), rank, world_size, size is None)
    if batching is not None and type(batching) is not BatchSampler:
        return _of_batches(dataset, list(islice(batching, limit)), options, rank, world_size)
    if batching is not None:
        size = batching.batch_size
    indices = range(_length(dataset)) if sampler is None else _indices(sampler, dataset)
    if limit is not None:
        indices = indices[: limit * (size or 1)]
    if drops_last(items) and size is not None:
        if len(indices) < size:
            raise ConfigurationError(
                f"its loader has drop_last=True, and {len(indices)} items make no batch of {size}, so nothing would be "
                "read: pass a loader with a smaller batch_size, or without drop_last."
            )
        full_batches = [indices[i : i + size] for i in range(0, len(indices) - size + 1, size)]
        return _of_batches(dataset, full_batches, options, rank, world_size)
    loader = DataLoader(dataset, batch_size=size, sampler=indices[rank::world_size], **options)
    return ItemLoader(loader, slice(None), rank, world_size, size is None)


def dataset_of(items: object) -> object:
    """What a DataLoader reads; anything else is its own dataset."""
    return items.dataset if isinstance(items, DataLoader) else items


def drops_last(items: object) -> bool:
    """Whether the user's loader reads full batches alone; a model may need them."""
    return isinstance(items, DataLoader) and bool(getattr(items.batch_sampler, "drop_last", False))


def _of_batches(
    dataset: Any, batches: Sequence[Iterable[Any]], options: dict[str, Any], rank: int, world_size: int
) -> ItemLoader:
    """A loader of batches of indices, of which each process reads its share."""
    mine = [list(batch) for batch in batches[rank::world_size]]
    loader: DataLoader[Any] = DataLoader(dataset, batch_sampler=mine, **options)
    return ItemLoader(loader, slice(None), rank, world_size, whole_batches=True)


def _collated(items: list[Any]) -> Any:
    """Items of a dataset without a loader, put together as torch does."""
    try:
        return default_collate(items)
    except Exception as error:
        raise ConfigurationError(
            f"its items cannot be put together to a batch ({type(error).__name__}: {error}): pass a DataLoader with a "
            "collate_fn, instead of the dataset alone."
        ) from error


def _indices(sampler: Any, dataset: Any) -> Sequence[Any]:
    if isinstance(sampler, DistributedSampler):  # this process's share of them, by Lightning or the user
        return range(_length(dataset))
    shuffles = type(sampler) in (SequentialSampler, RandomSampler) and not getattr(sampler, "replacement", False)
    return range(_length(dataset)) if shuffles and len(sampler) == _length(dataset) else list(sampler)


def _length(dataset: Any) -> int:
    try:
        return len(dataset)
    except TypeError:
        raise ConfigurationError(
            f"{type(dataset).__name__} has no length: give it __len__, or make it an IterableDataset that ends."
        ) from None
