"""Items that are read in one pass, and the distributions that they make up."""

import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

from torch.utils.data import DataLoader, Dataset

from lightning_mesa.data.distributions import Distribution, Items, LoaderDistribution
from lightning_mesa.data.progress import progress
from lightning_mesa.errors import ConfigurationError
from lightning_mesa.objectives.hypotheses import Hypotheses
from lightning_mesa.observe.features import UntrainedCopy
from lightning_mesa.observe.forward import Reading, observe
from lightning_mesa.observe.freshness import draws_anew
from lightning_mesa.observe.generators import generators
from lightning_mesa.observe.isolation import random_streams
from lightning_mesa.observe.loaders import ItemLoader, item_loader
from lightning_mesa.observe.parts import Where, joined
from lightning_mesa.observe.reader import Reader
from lightning_mesa.records import Behavior

CHUNK = 100_000
"""Items times choices that are measured at once."""

ENDLESS = 100_000
"""A stream without a length that has given more items than this is taken for one that never ends."""


@dataclass(frozen=True)
class Source:
    """Items that are read in one pass, and the distributions that they make up.

    Attributes:
        items: The user's DataLoader or Dataset.
        parts: The distributions: name -> which of the items belong to it, None for all.
        reading: How to read batches.
        batch_size: Batch size for a Dataset.
        limit: Read at most so many batches.
        fresh: Whether the items are to be new ones at every look.
    """

    items: Items
    parts: Mapping[str, Where | None]
    reading: Reading
    batch_size: int
    limit: int | None
    fresh: bool = False

    @property
    def owners(self) -> tuple[object, ...]:
        """Objects whose random generators a look must not advance."""
        return (self.items,)

    @property
    def dataset(self) -> "Dataset[Any]":
        """The items themselves."""
        return self.items.dataset if isinstance(self.items, DataLoader) else self.items

    def close(self) -> None:
        """The user's items stay as they are."""

    def draws_anew(self, seed: int) -> bool:
        """Whether its items are new where the seed is; not those that several distributions share."""
        size = self.items.batch_size if isinstance(self.items, DataLoader) else self.batch_size
        most = None if self.limit is None or size is None else self.limit * size
        return len(self.parts) == 1 and draws_anew(self.items, seed, most)

    def behaviors(
        self,
        trainer: Any,
        pl_module: Any,
        hypotheses: Hypotheses,
        seed: int,
        untrained: UntrainedCopy | None,
        title: str,
        started: float,
        reader: Reader | None = None,
    ) -> Iterator[Behavior]:
        """This process's share of the behavior on each part, batches joined; to be iterated inside ``no_trace``.

        Args:
            trainer: The trainer.
            pl_module: The LightningModule.
            hypotheses: The listed objectives.
            seed: Seed of everything random.
            untrained: To compare features with.
            title: What to show beside a progress bar.
            started: When the look began.
            reader: To read layers with.

        Raises:
            ConfigurationError: If a batch cannot be read as the objectives need it, or there is no end to them.
        """
        # Sources draw independently of each other, unless ids say that their items are the same.
        names = "" if self.reading.ids is not None else "/".join(self.parts)
        if self.fresh:
            seed = random.Random(f"{seed}/{names}/{trainer.global_step}").getrandbits(32)
        with self._streams(seed):
            loader = item_loader(
                self.items,
                batch_size=self.batch_size,
                seed=seed,
                limit=self.limit,
                rank=trainer.global_rank,
                world_size=trainer.world_size,
            )
            behaviors = observe(trainer, pl_module, self.parts, loader, hypotheses, self.reading, untrained, reader)
            title = f"{title}: {', '.join(self.parts)}"
            yield from self._in_chunks(progress(trainer, behaviors, title, batches_in(loader), started))

    @contextmanager
    def _streams(self, seed: int) -> Iterator[None]:
        """Seed what the items draw from; generators of their own go on, unless the items are to be new ones."""
        with random_streams(seed), generators(self.items, seed=seed) if self.fresh else nullcontext():
            yield

    def _in_chunks(self, behaviors: Iterator[Behavior]) -> Iterator[Behavior]:
        """Join small batches of each part: a measure's work is per call more than per item."""
        chunks: dict[str, list[Behavior]] = {name: [] for name in self.parts}
        read = 0
        for behavior in behaviors:
            read += max(1, behavior.n)  # a predicate may choose none
            self._check_end(read)
            chunk = chunks[behavior.distribution]
            chunk.append(behavior)
            choices = max((p.shape[1] for p in behavior.prescribed.values()), default=1)
            if sum(b.n for b in chunk) * choices >= CHUNK:
                yield joined(chunk)
                chunk.clear()
        yield from (joined(chunk) for chunk in chunks.values() if chunk)

    def _check_end(self, read: int) -> None:
        if read > ENDLESS and self.limit is None and batches_in(self.items) is None:
            raise ConfigurationError(
                f"distribution {' and '.join(map(repr, self.parts))} has no length and has given {read} items so far, "
                "so it may never end: pass limit_batches=, or give the dataset __len__."
            )


def item_sources(
    distributions: Mapping[str, Distribution],
    hypotheses: Hypotheses,
    look_up: Callable[[str], object],
    reading: Reading,
    limit_batches: int | None,
    limit_val_batches: int | float,
) -> list[Source]:
    """Find the items; those of one source that are read in one way are read together.

    Args:
        distributions: The distributions by name.
        hypotheses: The listed objectives.
        look_up: Finds what is known by a name.
        reading: How to read batches.
        limit_batches: Read at most so many of each.
        limit_val_batches: The trainer's own limit.

    Raises:
        ConfigurationError: If a distribution cannot be found or holds no items.
    """
    of_one_pass: dict[tuple[object, ...], tuple[Items, dict[str, LoaderDistribution]]] = {}
    for where, one in distributions.items():
        if not isinstance(one, LoaderDistribution):
            raise ConfigurationError(
                f"objective {hypotheses.base.name!r} scores items, and distribution {where!r} has episodes: list "
                "objectives such as EpisodeReturn or Reached."
            )
        items = one.resolve(look_up)
        key = (id(items), one.forward, str(one.inputs), one.ids, one.batch_size)
        of_one_pass.setdefault(key, (items, {}))[1][where] = one
    sources = []
    for items, parts in of_one_pass.values():
        fresh = [where for where, one in parts.items() if one.data_regime == "fresh"]
        if fresh and len(parts) > 1:
            raise ConfigurationError(
                f"distributions {' and '.join(map(repr, parts))} share their items, and evidence from {fresh[0]!r} "
                "adds up over looks only if its items are its own: give each a source of its own."
            )
        first = next(iter(parts.values()))
        inputs = reading.inputs if first.inputs is None else first.inputs
        its_reading = replace(reading, forward=first.forward or reading.forward, inputs=inputs, ids=first.ids)
        limit = _limit(limit_batches, first.source, items, limit_val_batches)
        sources.append(
            Source(items, {where: one.where for where, one in parts.items()}, its_reading, first.batch_size, limit)
        )
    return sources


def _limit(limit_batches: int | None, source: object, items: Items, limit_val_batches: int | float) -> int | None:
    """Validation data without a length may be endless: then the trainer's own limit holds."""
    named = isinstance(source, str) and source.partition("/")[0] == "val"
    if not (named and isinstance(limit_val_batches, int) and batches_in(items) is None):
        return limit_batches
    return min(limit_batches or limit_val_batches, limit_val_batches)


def batches_in(loader: "ItemLoader | Items") -> int | None:
    """How many batches (or items, of a Dataset) there are, None where that is not known."""
    try:
        return len(loader)  # type: ignore[arg-type]
    except TypeError:
        return None
