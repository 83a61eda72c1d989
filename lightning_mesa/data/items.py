"""Items that are read in one pass, and the distributions that they make up."""

import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import ClassVar

from torch.utils.data import DataLoader, IterableDataset

from lightning_mesa.data.distribution import Source
from lightning_mesa.data.progress import progress
from lightning_mesa.errors import ConfigurationError
from lightning_mesa.objectives.hypotheses import Hypotheses
from lightning_mesa.observe.context import LookContext, Reading
from lightning_mesa.observe.forward import about, observe
from lightning_mesa.observe.freshness import draws_anew
from lightning_mesa.observe.generators import generators
from lightning_mesa.observe.isolation import random_streams
from lightning_mesa.observe.loaders import Batches, ItemLoader, Items, dataset_of, drops_last, item_loader
from lightning_mesa.observe.parts import Where
from lightning_mesa.observe.pending import Pending, settled
from lightning_mesa.observe.positions import positions
from lightning_mesa.observe.processes import share
from lightning_mesa.records import Behavior

CHUNK = 2**23
"""Bytes of behavior that are fetched from the device and measured at once."""

ENDLESS = 100_000
"""A stream without a length that has given more items than this is taken for one that never ends."""


@dataclass
class ItemSource(Source):
    """Items that are read in one pass, and the distributions that they make up.

    Attributes:
        items: The user's DataLoader, dataset or batches.
        parts: The distributions: name -> which of the items belong to it, None for all.
        reading: How to read batches.
        batch_size: Batch size for a dataset.
        limit: Read at most this many batches.
    """

    reloads: ClassVar[bool] = True

    items: Items
    parts: Mapping[str, Where | None]
    reading: Reading
    batch_size: int
    limit: int | None

    @property
    def owners(self) -> tuple[object, ...]:
        """The items, with their samplers."""
        return (self.items,)

    @property
    def dataset(self) -> object:
        """The items themselves."""
        return dataset_of(self._users)

    @property
    def _users(self) -> object:
        """The user's own object."""
        return self.items.source if isinstance(self.items, Batches) else self.items

    @property
    def _streams(self) -> tuple[object, ...]:
        """What knows how far it has been read."""
        read = dataset_of(self.items)
        return (read,) if isinstance(read, (IterableDataset, Batches)) else ()

    def joined(self, other: Source) -> "ItemSource | None":
        """One source for both, if the items are the same ones and are read in the same way."""
        if not isinstance(other, ItemSource) or self._users is not other._users:
            return None
        alike = (self.reading, self.batch_size) == (other.reading, other.batch_size)
        return replace(self, parts={**self.parts, **other.parts}) if alike else None

    def in_words(self) -> str:
        """How its items are read, where a user might expect otherwise."""
        names = ", ".join(self.parts)
        if drops_last(self.items):
            return f"{names} without a last batch that is not full (drop_last)"
        if isinstance(self._users, (list, tuple)):
            return f"{names}: a list of {len(self._users)} {'batches' if isinstance(self.items, Batches) else 'items'}"
        return ""

    def draws_anew(self, seed: int) -> bool:
        """Whether its items are new where the seed is; not those that several distributions share."""
        size = self.items.batch_size if isinstance(self.items, DataLoader) else self.batch_size
        most = None if self.limit is None or size is None else self.limit * size
        with positions(*self._streams):
            return len(self.parts) == 1 and draws_anew(self.items, seed, most)

    def behaviors(self, context: LookContext) -> Iterator[Behavior]:
        """This process's share of the behavior on each part, batches joined; see :class:`Source`.

        Raises:
            ConfigurationError: If a batch cannot be read as the objectives need it, or there is no end to them.
        """
        trainer, seed = context.trainer, context.seed
        # Sources draw independently of each other, unless ids say that their items are the same.
        names = "" if self.reading.ids is not None else "/".join(self.parts)
        if context.fresh:
            seed = random.Random(context.stream(names)).getrandbits(32)
        # Generators of the items' own go on, unless the items are to be new ones.
        own = generators(self.items, seed=seed) if context.fresh else nullcontext()
        with positions(*self._streams), random_streams(seed), own:
            loader = self._loader(context, seed)
            batches = observe(replace(context, reading=self.reading), self.parts, loader)
            title = f"{context.name}: {', '.join(self.parts)}"
            shown = progress(trainer, batches, title, batches_in(loader), context.started)
            yield from self._in_chunks(shown, context.hypotheses)

    def _loader(self, context: LookContext, seed: int) -> ItemLoader:
        rank, shares = share(context.trainer)
        with about(self.parts):
            return item_loader(
                self.items,
                batch_size=self.batch_size,
                seed=seed,
                limit=min((n for n in (self.limit, context.limit) if n is not None), default=None),
                rank=rank,
                world_size=shares,
            )

    def _in_chunks(self, batches: Iterator[Pending | None], hypotheses: Hypotheses) -> Iterator[Behavior]:
        """Join small batches: a measure's work is per call more than per item, and the device is waited for once."""
        chunk: list[Pending] = []
        read, size = 0, 0
        for batch in batches:
            read += 1 if batch is None else max(1, batch.behavior.n)
            self._check_end(read)
            if batch is None:
                continue
            size += batch.nbytes
            if size >= CHUNK:
                yield from self._settled([*chunk, batch], hypotheses)
                chunk, size = [], 0
            else:
                chunk.append(batch.kept())
        if chunk:
            yield from self._settled(chunk, hypotheses)

    def _settled(self, chunk: Sequence[Pending], hypotheses: Hypotheses) -> list[Behavior]:
        with about(self.parts):
            return settled(chunk, hypotheses)

    def _check_end(self, read: int) -> None:
        if read > ENDLESS and self.limit is None and batches_in(self.items) is None:
            raise ConfigurationError(
                f"distribution {' and '.join(map(repr, self.parts))} has no length and has given {read} items so far, "
                "so it may never end: pass limit_batches=, or give the dataset __len__."
            )


def batches_in(loader: "ItemLoader | Items") -> int | None:
    """How many batches (or items, of a Dataset) there are, None where that is not known."""
    try:
        return len(loader)  # type: ignore[arg-type]
    except (TypeError, NotImplementedError):
        return None
