"""One call of the trainer: the distributions that were found, and a look at them."""

import random
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from typing import Any

from torch.utils.data import DataLoader

from lightning_mesa.callbacks.compat import find, validation_datasets
from lightning_mesa.callbacks.data_regimes import Place, after_reload, at_start, in_words
from lightning_mesa.callbacks.processes import gather, together
from lightning_mesa.callbacks.schedule import Schedule
from lightning_mesa.distributions import Items, LoaderDistribution, named_distributions
from lightning_mesa.errors import ConfigurationError
from lightning_mesa.measures import MEASURES, Measure, Stamp
from lightning_mesa.objectives import Hypotheses
from lightning_mesa.observe.features import UntrainedCopy
from lightning_mesa.observe.forward import Reading, joined, observe
from lightning_mesa.observe.freshness import draws_anew
from lightning_mesa.observe.generators import generators
from lightning_mesa.observe.isolation import no_trace, random_streams
from lightning_mesa.observe.loaders import item_loader
from lightning_mesa.observe.weights import ScoredWeights
from lightning_mesa.records import Behavior, Finding, Role
from lightning_mesa.report.progress import progress

CHUNK = 100_000
"""Items times choices that are measured at once."""

ENDLESS = 100_000
"""A stream without a length that has given more items than this is taken for one that never ends."""


class Session:
    """Finds the distributions when training starts, and observes and measures them at every look.

    Args:
        trainer: The trainer.
        pl_module: The LightningModule.
        name: The monitor's name.
        hypotheses: The listed objectives.
        reference: The reference distributions by name.
        shifted: The shifted ones, or None to ask ``mesa_distributions()``.
        reading: How to read batches.
        limit_batches: Read at most so many batches of each distribution at a look.
        seed: Seed of everything random inside a look.
        weights: Which weights to look at.

    Raises:
        ConfigurationError: If a distribution cannot be found.
    """

    def __init__(
        self,
        trainer: Any,
        pl_module: Any,
        name: str,
        hypotheses: Hypotheses,
        reference: Mapping[str, LoaderDistribution],
        shifted: Mapping[str, LoaderDistribution] | None,
        reading: Reading,
        limit_batches: int | None,
        seed: int,
        weights: ScoredWeights,
    ) -> None:
        self.trainer = trainer
        self.pl_module = pl_module
        self.name = name
        self.hypotheses = hypotheses
        self.seed = seed
        self.weights = weights
        self.limit_batches = limit_batches
        if trainer.fast_dev_run:
            self.limit_batches = min(int(trainer.fast_dev_run), limit_batches or int(trainer.fast_dev_run))
        # Factories and dataloader hooks may draw random numbers.
        with random_streams(seed), generators(pl_module, trainer.datamodule):
            if shifted is None:
                shifted = _offered(trainer, pl_module)
                check_apart(reference, shifted)
            distributions = {**reference, **shifted}
            self.items: dict[str, Items] = {
                where: distribution.resolve(lambda key: find(trainer, pl_module, key))
                for where, distribution in distributions.items()
            }
            validation = validation_datasets(trainer)
        self.limits = {
            where: _limit(self.limit_batches, distributions[where].source, items, trainer.limit_val_batches)
            for where, items in self.items.items()
        }
        roles: dict[str, Role] = dict.fromkeys(reference, "reference")
        self.roles = roles | dict.fromkeys(shifted, "shifted")
        self.batch_sizes = {where: distribution.batch_size for where, distribution in distributions.items()}
        self.places = {
            where: Place(where, self.roles[where], distribution.data_regime, _number(validation, self.items[where]))
            for where, distribution in distributions.items()
        }
        with no_trace(trainer, pl_module, seed, *self.items.values()):
            self.data_regimes = {
                where: at_start(trainer, name, place, partial(draws_anew, self.items[where], seed, self._most(where)))
                for where, place in self.places.items()
            }
        # Without another objective, only its features can tell what the model is still capable of.
        self.untrained = UntrainedCopy(trainer, pl_module, seed) if hypotheses.base_alone else None
        self.readings = {
            where: replace(
                reading,
                forward=distribution.forward or reading.forward,
                inputs=reading.inputs if distribution.inputs is None else distribution.inputs,
                ids=distribution.ids,
            )
            for where, distribution in distributions.items()
        }

    def plan(self, every_n_steps: int | None) -> Schedule:
        """When to look in this fit."""
        return Schedule.plan(self.trainer, every_n_steps)

    def measure(self, look: int, looks_planned: int | None, *, at_end: bool = False) -> list[Finding]:
        """Observe every distribution, one forward pass per item, and measure what was seen.

        Args:
            look: Number of the look.
            looks_planned: How many there will be; both are recorded with the findings.
            at_end: Whether ``on_train_end`` is running.

        Raises:
            ConfigurationError: If a distribution is empty, or cannot be read as the objectives need it.
        """
        trainer = self.trainer
        with (
            trainer.profiler.profile(f"[{self.name}]observe"),
            self.weights.inside(self.pl_module, at_end=at_end) as weights,
        ):
            measures = self._observed()
        labels = {where: regime.label for where, regime in self.data_regimes.items()}
        stamp = Stamp(trainer.global_step, trainer.current_epoch, self.roles, look, looks_planned, labels, weights)
        findings: list[Finding] = []
        with trainer.profiler.profile(f"[{self.name}]measure"):
            for measure in measures:
                findings += measure.compute(stamp, findings)
        return findings

    def _observed(self) -> list[Measure]:
        """The measures, with everything that all processes have seen."""
        trainer, started = self.trainer, time.perf_counter()
        own = [measure(self.hypotheses) for measure in MEASURES]
        seen = dict.fromkeys(self.items, 0)
        with together(trainer), no_trace(trainer, self.pl_module, self.seed, *self.items.values()):
            for where in self.items:
                with self._streams(where):
                    for behavior in _in_chunks(self._observe(where, self.limits[where], started)):
                        seen[where] += behavior.n
                        self._check_end(where, seen[where])
                        for measure in own:
                            measure.update(behavior)
        self._check_seen(seen)
        if trainer.world_size == 1:
            return own
        merged = [measure(self.hypotheses) for measure in MEASURES]
        for accumulated in gather(trainer, [measure.accumulated() for measure in own]):
            for measure, part in zip(merged, accumulated, strict=True):
                measure.merge(measure.holding(part))
        return merged

    def rehearse(self) -> None:
        """Read one batch of each distribution, so that what cannot be read is refused before a resumed training.

        Raises:
            ConfigurationError: As :meth:`measure`.
        """
        trainer, started = self.trainer, time.perf_counter()
        seen = {}
        with together(trainer), no_trace(trainer, self.pl_module, self.seed, *self.items.values()):
            for where in self.items:
                # One batch of each process.
                behaviors = self._observe(where, trainer.world_size, started)
                seen[where] = sum(behavior.n for behavior in behaviors)
        self._check_seen(seen)

    def check_identified(self, findings: Iterable[Finding]) -> None:
        """Refuse distributions on none of which base and a proxy disagree, once all items have been seen.

        Raises:
            ConfigurationError: Then no look can tell them apart.
        """
        conflicts = [finding.n for finding in findings if finding.quantity == "conflict"]
        if conflicts and not any(conflicts) and set(self.limits.values()) == {None}:
            base, proxies = self.hypotheses.base.name, [proxy.name for proxy in self.hypotheses.proxies]
            raise ConfigurationError(
                f"no distribution has an item on which {base!r} and {' or '.join(map(repr, proxies))} prescribe "
                "different choices, so nothing can tell which of them the model pursues: pass shifted= a distribution "
                "where they come apart."
            )

    def data_in_words(self) -> str:
        """Which data regime each distribution has, in one line."""
        return in_words(self.data_regimes)

    def adapt_to_reload(self) -> str:
        """Take note that weights were loaded; says in one line which data become adaptive by it, else nothing."""
        new = {
            where: regime
            for where, place in self.places.items()
            if self.data_regimes[where].label != "adaptive"
            and (regime := after_reload(self.trainer, self.name, place)) is not None
        }
        self.data_regimes |= new
        return in_words(new)

    def _most(self, where: str) -> int | None:
        """How many items a look reads at most, where that is limited."""
        items, limit = self.items[where], self.limits[where]
        batch_size = items.batch_size if isinstance(items, DataLoader) else self.batch_sizes[where]
        return None if limit is None or batch_size is None else limit * batch_size

    def _check_end(self, where: str, seen: int) -> None:
        if seen > ENDLESS and _batches(self.items[where], self.limits[where]) is None:
            raise ConfigurationError(
                f"distribution {where!r} has no length and has given {seen} items so far, so it may never end: pass "
                "limit_batches=, or give the dataset __len__."
            )

    def _check_seen(self, seen: Mapping[str, int]) -> None:
        for where in self.items:
            if not sum(of_one[where] for of_one in gather(self.trainer, seen)):
                raise ConfigurationError(f"distribution {where!r} is empty: there is no item to look at.")

    def _seed(self, where: str) -> int:
        """The same at every look, unless the items are to be new ones."""
        if not self._fresh(where):
            return self.seed
        # Distributions draw independently of each other, unless ids say that their items are the same.
        stream = where if self.readings[where].ids is None else ""
        return random.Random(f"{self.seed}/{stream}/{self.trainer.global_step}").getrandbits(32)

    def _fresh(self, where: str) -> bool:
        return self.data_regimes[where].label == "fresh"

    @contextmanager
    def _streams(self, where: str) -> Iterator[None]:
        """Seed what the items draw from; generators of their own go on, unless the items are to be new ones."""
        seed = self._seed(where)
        with random_streams(seed), generators(self.items[where], seed=seed) if self._fresh(where) else nullcontext():
            yield

    def _observe(self, where: str, limit_batches: int | None, started: float) -> Iterable[Behavior]:
        loader = item_loader(
            self.items[where],
            batch_size=self.batch_sizes[where],
            seed=self._seed(where),
            limit=limit_batches,
            rank=self.trainer.global_rank,
            world_size=self.trainer.world_size,
        )
        behaviors = observe(
            self.trainer,
            self.pl_module,
            where,
            loader,
            self.hypotheses,
            self.readings[where],
            self.untrained if self.roles[where] == "shifted" else None,
        )
        return progress(self.trainer, behaviors, f"{self.name}: {where}", _batches(loader, None), started)


def check_apart(reference: Iterable[str], shifted: Iterable[str]) -> None:
    """Refuse a name that is both a reference and a shifted distribution.

    Raises:
        ConfigurationError: If there is one.
    """
    for name in set(reference) & set(shifted):
        raise ConfigurationError(f"{name!r} names a reference and a shifted distribution: give them different names.")


def _in_chunks(behaviors: Iterable[Behavior]) -> Iterator[Behavior]:
    """Join small batches: a measure's work is per call more than per item."""
    chunk: list[Behavior] = []
    for behavior in behaviors:
        chunk.append(behavior)
        choices = max((p.shape[1] for p in behavior.prescribed.values()), default=1)
        if sum(b.n for b in chunk) * choices >= CHUNK:
            yield joined(chunk)
            chunk = []
    if chunk:
        yield joined(chunk)


def _offered(trainer: Any, pl_module: Any) -> dict[str, LoaderDistribution]:
    for owner in (trainer.datamodule, pl_module):
        offer = getattr(owner, "mesa_distributions", None)
        if offer is not None:
            return named_distributions(offer(), "shifted")
    raise ConfigurationError(
        "no shifted distribution: pass shifted=, or give the DataModule or LightningModule a method "
        "mesa_distributions() that returns a mapping from names to distributions."
    )


def _number(validation: Sequence[object], items: Items) -> int | None:
    """Number of the validation loader that holds the same items."""
    dataset = items.dataset if isinstance(items, DataLoader) else items
    return next((i for i, held in enumerate(validation) if held is dataset), None)


def _limit(limit_batches: int | None, source: object, items: Items, limit_val_batches: int | float) -> int | None:
    """Validation data without a length may be endless: then the trainer's own limit holds."""
    named = isinstance(source, str) and source.partition("/")[0] == "val"
    if not (named and isinstance(limit_val_batches, int) and _batches(items, None) is None):
        return limit_batches
    return min(limit_batches or limit_val_batches, limit_val_batches)


def _batches(loader: Any, limit: int | None) -> int | None:
    try:
        return len(loader) if limit is None else min(limit, len(loader))
    except TypeError:
        return limit
