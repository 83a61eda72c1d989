"""A loader of our own over the user's items: the user's DataLoader object is never iterated.

Iterating it would draw from the global random stream, advance a generator it may share with training, and
take batches away from persistent workers.
"""

from collections.abc import Sequence
from typing import Any

import torch
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


def item_loader(
    items: "DataLoader[Any] | Dataset[Any]", *, batch_size: int, seed: int, rank: int = 0, world_size: int = 1
) -> "DataLoader[Any]":
    """Rebuild a loader that visits this rank's share of the items once, in order, unpadded.

    Call it and iterate the result inside ``no_trace``: a sampler of the user's may draw random numbers.

    Args:
        items: The user's DataLoader or Dataset.
        batch_size: Batch size for a Dataset; a DataLoader keeps its own.
        seed: Seed of the loader's generator, so that every look sees the same augmentations.
        rank: This process.
        world_size: Number of processes that share the items.

    Raises:
        ConfigurationError: If the items have no end or cannot be shared between processes.
    """
    generator = torch.Generator().manual_seed(seed)
    if not isinstance(items, DataLoader):
        if isinstance(items, IterableDataset):
            if world_size > 1:
                raise ConfigurationError("an IterableDataset cannot be shared between processes: use a map-style one.")
            return DataLoader(items, batch_size=batch_size, generator=generator)
        return DataLoader(
            items, batch_size=batch_size, sampler=range(rank, _length(items), world_size), generator=generator
        )
    options: dict[str, Any] = {
        "collate_fn": items.collate_fn,
        "num_workers": items.num_workers,
        "pin_memory": items.pin_memory,
        "timeout": items.timeout,
        "worker_init_fn": items.worker_init_fn,
        "multiprocessing_context": items.multiprocessing_context,
        "prefetch_factor": items.prefetch_factor,
        "generator": generator,
    }
    dataset = items.dataset
    if isinstance(dataset, IterableDataset):
        if world_size > 1:
            raise ConfigurationError("an IterableDataset cannot be shared between processes: use a map-style one.")
        return DataLoader(dataset, batch_size=items.batch_size, **options)
    batching = items.batch_sampler
    if batching is None:
        indices = _indices(items.sampler, dataset)
        return DataLoader(dataset, batch_size=None, sampler=indices[rank::world_size], **options)
    if type(batching) is BatchSampler:
        indices = _indices(batching.sampler, dataset)
        return DataLoader(dataset, batch_size=batching.batch_size, sampler=indices[rank::world_size], **options)
    batches = [list(batch) for batch in batching]
    return DataLoader(dataset, batch_sampler=batches[rank::world_size], **options)


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
