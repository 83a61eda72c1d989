"""One call of the trainer: the distributions that were found, and a look at them."""

import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from lightning_mesa.callbacks.compat import find
from lightning_mesa.callbacks.schedule import Schedule
from lightning_mesa.distributions import Items, LoaderDistribution, named_distributions
from lightning_mesa.errors import ConfigurationError
from lightning_mesa.measures import MEASURES, Stamp
from lightning_mesa.objectives import Hypotheses
from lightning_mesa.observe.features import UntrainedCopy
from lightning_mesa.observe.forward import Reading, joined, observe
from lightning_mesa.observe.generators import generators
from lightning_mesa.observe.isolation import no_trace, random_streams
from lightning_mesa.observe.loaders import item_loader
from lightning_mesa.records import Behavior, Finding, Role
from lightning_mesa.report.progress import progress

_REGIMES = {
    "reused": "the same held-out items at every look",
    "fresh": "new items at every look",
    "adaptive": "adaptive, numbers without alerts (values measured on them may change the training)",
}

CHUNK = 100_000
"""Items times choices that are measured at once."""


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
    ) -> None:
        self.trainer = trainer
        self.pl_module = pl_module
        self.name = name
        self.hypotheses = hypotheses
        self.seed = seed
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
        self.limits = {
            where: _limit(self.limit_batches, distributions[where].source, items, trainer.limit_val_batches)
            for where, items in self.items.items()
        }
        roles: dict[str, Role] = dict.fromkeys(reference, "reference")
        self.roles = roles | dict.fromkeys(shifted, "shifted")
        self.batch_sizes = {where: distribution.batch_size for where, distribution in distributions.items()}
        self.data_regimes = {
            where: _data_regime(trainer, name, where, distribution.data_regime, self.roles[where])
            for where, distribution in distributions.items()
        }
        # Without another objective, only its features can tell what the model is still capable of.
        self.untrained = UntrainedCopy(trainer, pl_module) if hypotheses.base_alone else None
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

    def measure(self, looks_planned: int | None) -> list[Finding]:
        """Observe every distribution, one forward pass per item, and measure what was seen.

        Args:
            looks_planned: Recorded with the findings.

        Raises:
            ConfigurationError: If a distribution is empty, or cannot be read as the objectives need it.
        """
        trainer, started = self.trainer, time.perf_counter()
        measures = [measure(self.hypotheses) for measure in MEASURES]
        with (
            trainer.profiler.profile(f"[{self.name}]observe"),
            no_trace(trainer, self.pl_module, self.seed, *self.items.values()),
        ):
            for where in self.items:
                seen = 0
                with random_streams(self._seed(where)):
                    for behavior in _in_chunks(self._observe(where, self.limits[where], started)):
                        seen += behavior.n
                        for measure in measures:
                            measure.update(behavior)
                if not seen:
                    raise ConfigurationError(f"distribution {where!r} is empty: there is no item to look at.")
        stamp = Stamp(trainer.global_step, trainer.current_epoch, self.roles, looks_planned, self.data_regimes)
        findings: list[Finding] = []
        with trainer.profiler.profile(f"[{self.name}]measure"):
            for measure in measures:
                findings += measure.compute(stamp, findings)
        return findings

    def rehearse(self) -> None:
        """Read one batch of each distribution, so that what cannot be read is refused before a resumed training.

        Raises:
            ConfigurationError: As :meth:`measure`.
        """
        with no_trace(self.trainer, self.pl_module, self.seed, *self.items.values()):
            for where in self.items:
                if not any(behavior.n for behavior in self._observe(where, 1, time.perf_counter())):
                    raise ConfigurationError(f"distribution {where!r} is empty: there is no item to look at.")

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
        by_regime: dict[str, list[str]] = {}
        for where, regime in self.data_regimes.items():
            by_regime.setdefault(regime, []).append(where)
        return "; ".join(f"{', '.join(names)}: {_REGIMES[regime]}" for regime, names in by_regime.items())

    def _seed(self, where: str) -> int:
        """The same at every look, unless the items are to be new ones."""
        return self.seed + (self.trainer.global_step if self.data_regimes[where] == "fresh" else 0)

    def _observe(self, where: str, limit_batches: int | None, started: float) -> Iterable[Behavior]:
        loader = item_loader(
            self.items[where],
            batch_size=self.batch_sizes[where],
            seed=self._seed(where),
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
            limit_batches,
            self.untrained if self.roles[where] == "shifted" else None,
        )
        return progress(self.trainer, behaviors, f"{self.name}: {where}", _batches(loader, limit_batches), started)


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


def _data_regime(trainer: Any, name: str, where: str, asked: str, role: Role) -> str:
    """As asked; "auto" looks for a plateau scheduler that monitors a value resting on the distribution."""
    if asked != "auto":
        return asked
    monitored = [str(config.monitor) for config in trainer.lr_scheduler_configs if config.reduce_on_plateau]
    ours = [key for key in monitored if key.startswith(f"{name}/")]
    # A worst value, and any gap, rests on the reference too.
    rests = [k for k in ours if k.split("/")[1] in (where, "gap", "base") or (role == "reference" and "/gap" in k)]
    return "adaptive" if rests else "reused"


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
