"""One call of the trainer: the distributions that were found, and a look at them."""

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

from lightning_mesa.callbacks.compat import find, validation_datasets
from lightning_mesa.callbacks.probing import Probing
from lightning_mesa.callbacks.processes import gather, together
from lightning_mesa.callbacks.schedule import Schedule
from lightning_mesa.checks import CHECKS, Check, Look
from lightning_mesa.checks.look import Plan
from lightning_mesa.data.data_regimes import DataRegime, Place, after_reload, at_start, in_words
from lightning_mesa.data.distributions import Distribution, named_distributions
from lightning_mesa.data.episodes import EnvSource, Levels, env_sources
from lightning_mesa.data.items import Source, item_sources
from lightning_mesa.errors import ConfigurationError
from lightning_mesa.objectives.hypotheses import Hypotheses
from lightning_mesa.observe.features import UntrainedCopy
from lightning_mesa.observe.forward import Reading
from lightning_mesa.observe.generators import generators
from lightning_mesa.observe.isolation import no_trace, random_streams
from lightning_mesa.observe.weights import ScoredWeights
from lightning_mesa.probes.probe import Probe
from lightning_mesa.records import Behavior, Role


class Session:
    """Finds the distributions when training starts, and observes and measures them at every look.

    Another kind of session is :class:`~lightning_mesa.callbacks.logged.LoggedSession`.

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
        levels: Chance and oracle's scores in environments that have been measured already; new ones are added.
        probes: What looks into the model.
        checks: What is asked about behavior.

    Raises:
        ConfigurationError: If a distribution cannot be found, or does not hold what the objectives score.
    """

    any_time = True
    """A look can be taken at any time."""

    def __init__(
        self,
        trainer: Any,
        pl_module: Any,
        name: str,
        hypotheses: Hypotheses,
        reference: Mapping[str, Distribution],
        shifted: Mapping[str, Distribution] | None,
        reading: Reading,
        limit_batches: int | None,
        seed: int,
        weights: ScoredWeights,
        levels: Levels,
        probes: Sequence[Probe] = (),
        checks: Sequence[Check] = CHECKS,
    ) -> None:
        self.trainer = trainer
        self.pl_module = pl_module
        self.name = name
        self.hypotheses = hypotheses
        self.seed = seed
        self.weights = weights
        self.checks = checks
        if trainer.fast_dev_run:
            limit_batches = min(int(trainer.fast_dev_run), limit_batches or int(trainer.fast_dev_run))
        # Factories and dataloader hooks may draw random numbers.
        with random_streams(seed), generators(pl_module, trainer.datamodule):
            if shifted is None:
                shifted = _offered(trainer, pl_module)
                check_apart(reference, shifted)
            self.distributions = {**reference, **shifted}
            validation = validation_datasets(trainer)
            look_up, owners = partial(find, trainer, pl_module), (pl_module, trainer.datamodule)
            sources: Sequence[Source | EnvSource] = (
                env_sources(self.distributions, hypotheses, look_up, owners, reading, limit_batches, levels)
                if hypotheses.of == "episodes"
                else item_sources(
                    self.distributions, hypotheses, look_up, reading, limit_batches, trainer.limit_val_batches
                )
            )
        roles: dict[str, Role] = dict.fromkeys(reference, "reference")
        self.roles = roles | dict.fromkeys(shifted, "shifted")
        self.places: dict[str, Place] = {}
        self.data_regimes: dict[str, DataRegime] = {}
        with no_trace(trainer, pl_module, seed, *(owner for source in sources for owner in source.owners)):
            for source in sources:
                number = next((i for i, held in enumerate(validation) if held is source.dataset), None)
                for where in source.parts:
                    declared = self.distributions[where].data_regime
                    place = self.places[where] = Place(where, self.roles[where], declared, number)
                    self.data_regimes[where] = at_start(trainer, name, place, partial(source.draws_anew, seed))
            self.probing = Probing(trainer, pl_module, probes, reading, seed, hypotheses)
        self.sources = [
            replace(source, fresh=any(self.data_regimes[where].label == "fresh" for where in source.parts))
            for source in sources
        ]
        # Without another objective, only its features can tell what the model is still capable of.
        compare = hypotheses.base_alone and hypotheses.of == "items"
        self.untrained = UntrainedCopy(trainer, pl_module, seed) if compare else None

    def close(self) -> None:
        """Close the environments, where there are some."""
        for source in self.sources:
            source.close()

    def plan(self, every_n_steps: int | None) -> Schedule:
        """When to look in this fit."""
        return Schedule.plan(self.trainer, every_n_steps)

    def ready(self) -> bool:
        """Whether a look can be taken now."""
        return True

    def measure(self, plan: Plan, *, at_end: bool = False) -> Look:
        """Observe every distribution, one forward pass per item, and let the checks find.

        Args:
            plan: Number of the look, how many there will be, and from which step on they are counted; recorded.
            at_end: Whether ``on_train_end`` is running.

        Raises:
            ConfigurationError: If a distribution is empty, or cannot be read as the objectives need it.
        """
        trainer = self.trainer
        with (
            trainer.profiler.profile(f"[{self.name}]observe"),
            self.weights.inside(self.pl_module, at_end=at_end) as weights,
        ):
            checks = self._observed()
            labels = {where: regime.label for where, regime in self.data_regimes.items()}
            base = self.hypotheses.base.name
            look = Look(trainer.global_step, trainer.current_epoch, base, self.roles, plan, labels, weights)
            with trainer.profiler.profile(f"[{self.name}]probe"), self._alone_together():
                probed = self.probing.measure(look)
        with trainer.profiler.profile(f"[{self.name}]measure"):
            for check in checks:
                look.findings += check.findings(look)
        look.findings += probed
        return look

    def _observed(self) -> list[Check]:
        """The checks, with everything that all processes have seen."""
        own = [check.begun(self.hypotheses) for check in self.checks]
        seen = dict.fromkeys(self.distributions, 0)
        with self._alone_together():
            for behavior in self._behaviors(self.sources):
                seen[behavior.distribution] += behavior.n
                for check in own:
                    check.saw(behavior)
                if self.roles[behavior.distribution] == "shifted":
                    self.probing.update(behavior)
        self._check_seen(seen)
        self.probing.share()
        if self.trainer.world_size == 1:
            return own
        merged = [check.begun(self.hypotheses) for check in self.checks]
        for accumulated in gather(self.trainer, [check.accumulated() for check in own]):
            for check, part in zip(merged, accumulated, strict=True):
                check.merge(part)
        return merged

    def rehearse(self) -> None:
        """Read one batch of each source, so that what cannot be read is refused before a resumed training.

        Raises:
            ConfigurationError: As :meth:`measure`.
        """
        seen = dict.fromkeys(self.distributions, 0)
        with self._alone_together():
            for source in self.sources:
                for behavior in self._behaviors([replace(source, limit=self.trainer.world_size)]):
                    seen |= dict.fromkeys(source.parts, behavior.n + seen[behavior.distribution])
        self._check_seen(seen)

    def _behaviors(self, sources: Iterable[Source | EnvSource]) -> Iterator[Behavior]:
        started = time.perf_counter()
        for source in sources:
            untrained = self.untrained if "shifted" in map(self.roles.get, source.parts) else None
            reader = self.probing.reader() if "shifted" in map(self.roles.get, source.parts) else None
            for behavior in source.behaviors(
                self.trainer, self.pl_module, self.hypotheses, self.seed, untrained, self.name, started, reader
            ):
                is_shifted = self.roles[behavior.distribution] == "shifted"
                yield behavior if is_shifted else replace(behavior, features=None)

    @contextmanager
    def _alone_together(self) -> Iterator[None]:
        """Leave no trace, and fail on all processes if one fails."""
        owners = [owner for source in self.sources for owner in source.owners]
        with together(self.trainer), no_trace(self.trainer, self.pl_module, self.seed, *owners):
            yield

    def check_identified(self, look: Look) -> None:
        """Refuse distributions on none of which base and a proxy disagree, once all items have been seen.

        Raises:
            ConfigurationError: Then no look can tell them apart.
        """
        conflicts = [finding.n for finding in look.found("conflict")]
        if conflicts and not any(conflicts) and all(source.limit is None for source in self.sources):
            base, proxies = self.hypotheses.base.name, [proxy.name for proxy in self.hypotheses.proxies]
            raise ConfigurationError(
                f"no distribution has an item on which {base!r} and {' or '.join(map(repr, proxies))} prescribe "
                "different choices, so nothing can tell which of them the model pursues: pass shifted= a distribution "
                "where they come apart."
            )

    def data_in_words(self) -> str:
        """Which data regime each distribution has, and what probes cost."""
        probes = f"; probes the model by {self.probing.costs}" if self.probing.costs else ""
        return in_words(self.data_regimes) + probes

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

    def _check_seen(self, seen: Mapping[str, int]) -> None:
        everybodys = gather(self.trainer, seen)
        for where, distribution in self.distributions.items():
            if not sum(of_one[where] for of_one in everybodys):
                rest = "" if distribution.where is None else f" where {distribution.where!r} holds"
                raise ConfigurationError(f"distribution {where!r} is empty: there is no item{rest} to look at.")


def check_apart(reference: Iterable[str], shifted: Iterable[str]) -> None:
    """Refuse a name that is both a reference and a shifted distribution.

    Raises:
        ConfigurationError: If there is one.
    """
    for name in set(reference) & set(shifted):
        raise ConfigurationError(f"{name!r} names a reference and a shifted distribution: give them different names.")


def _offered(trainer: Any, pl_module: Any) -> dict[str, Distribution]:
    for owner in (trainer.datamodule, pl_module):
        offer = getattr(owner, "mesa_distributions", None)
        if offer is not None:
            return named_distributions(offer(), "shifted")
    raise ConfigurationError(
        "no shifted distribution: pass shifted=, or give the DataModule or LightningModule a method "
        "mesa_distributions() that returns a mapping from names to distributions."
    )
