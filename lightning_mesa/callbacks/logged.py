"""Looks at what the validation loop has logged: no forward pass, no cost."""

import math
from collections.abc import Collection, Mapping
from typing import Any

from lightning_mesa.callbacks.compat import validation_keys, validation_metrics
from lightning_mesa.callbacks.processes import gather
from lightning_mesa.callbacks.schedule import Schedule
from lightning_mesa.checks import Look
from lightning_mesa.checks.look import Plan
from lightning_mesa.checks.means import Kind, MeanScore, findings_of_means
from lightning_mesa.data.data_regimes import DataRegime, Place, after_reload, at_start, in_words
from lightning_mesa.data.distributions import Distribution
from lightning_mesa.errors import ConfigurationError
from lightning_mesa.objectives.hypotheses import Hypotheses
from lightning_mesa.objectives.logged import Logged
from lightning_mesa.records import Role
from lightning_mesa.stats.competence import Competence
from lightning_mesa.stats.intervals import BoundedMean


class LoggedSession:
    """Finds the validation loaders when training starts, and takes what was logged of them after each validation.

    Args:
        trainer: The trainer.
        pl_module: The LightningModule.
        name: The monitor's name.
        hypotheses: The listed objectives, all of them :class:`~lightning_mesa.objectives.Logged`.
        reference: The reference distributions by name.
        shifted: The shifted ones.
        logged: What the sanity check has logged, where there was one.

    Raises:
        ConfigurationError: If a distribution is no validation loader, or a value is not logged.
    """

    any_time = False
    """Values are new after a validation, and at no other time."""

    def __init__(
        self,
        trainer: Any,
        pl_module: Any,
        name: str,
        hypotheses: Hypotheses,
        reference: Mapping[str, Distribution],
        shifted: Mapping[str, Distribution],
        logged: Collection[str] | None,
    ) -> None:
        self.trainer = trainer
        self.pl_module = pl_module
        self.name = name
        self.hypotheses = hypotheses
        roles: dict[str, Role] = dict.fromkeys(reference, "reference")
        self.roles = roles | dict.fromkeys(shifted, "shifted")
        keys = validation_keys(trainer)
        self.several = len(keys) > 1
        self.numbers = {where: _number(where, one, keys) for where, one in {**reference, **shifted}.items()}
        self.places = {
            where: Place(where, self.roles[where], one.data_regime, self.numbers[where])
            for where, one in {**reference, **shifted}.items()
        }
        self.data_regimes = {
            where: at_start(trainer, name, place, lambda: False) for where, place in self.places.items()
        }

        if logged is not None:
            self._check_logged(logged)

    def plan(self, every_n_steps: int | None) -> Schedule:
        """When to look: after each validation.

        Raises:
            ConfigurationError: If another schedule is asked for, or no validation is sure to come.
        """
        schedule = Schedule.plan(self.trainer, every_n_steps)
        if schedule.every_n_steps is not None:
            raise ConfigurationError(
                "what is logged in validations is new after each of them, and at no other time: leave out "
                "every_n_steps=, and see that the run has validations."
            )
        # There is none before training.
        return Schedule(None, None if schedule.looks is None else schedule.looks - 1)

    def ready(self) -> bool:
        """Whether all values of this validation are there; what the module's own hook logs at its end comes later."""
        return self._keys() <= validation_metrics(self.trainer).keys()

    def measure(self, plan: Plan, *, at_end: bool = False) -> Look:
        """Take what was logged.

        Args:
            plan: Number of the look, how many there will be, and from which step on they are counted; recorded.
            at_end: Not used.

        Raises:
            ConfigurationError: If a value is missing, outside its bounds, or differs between processes.
        """
        trainer, logged = self.trainer, validation_metrics(self.trainer)
        self._check_logged(logged)
        scores = [self._score(where, objective, logged) for where in self.roles for objective in self.hypotheses.scored]
        everybodys = gather(trainer, [(s.competence.mean.value, s.known) for s in scores])
        for score, *values in zip(scores, *everybodys, strict=True):
            if len(set(values)) > 1:
                raise ConfigurationError(
                    f"the processes have logged different values of {score.objective!r}: log it with sync_dist=True."
                )
        labels = {where: regime.label for where, regime in self.data_regimes.items()}
        look = Look(trainer.global_step, trainer.current_epoch, self.hypotheses.base.name, self.roles, plan, labels)
        look.findings += findings_of_means(scores, look, "logged")
        return look

    def close(self) -> None:
        """There is nothing to close."""

    def rehearse(self) -> None:
        """Nothing can be read before the next validation."""

    def check_identified(self, look: Look) -> None:
        """Means do not tell whether base and a proxy disagree on any item."""

    def data_in_words(self) -> str:
        """Which data regime each distribution has, in one line."""
        return f"{in_words(self.data_regimes)}; values are what the validation logs"

    def adapt_to_reload(self) -> str:
        """Take note that weights were loaded; says in one line which data become adaptive by it, else nothing."""
        new: dict[str, DataRegime] = {}
        for where, place in self.places.items():
            regime = after_reload(self.trainer, self.name, place)
            if regime is not None and self.data_regimes[where].label != "adaptive":
                new[where] = regime
        self.data_regimes |= new
        return in_words(new)

    def _check_logged(self, logged: Collection[str]) -> None:
        if missing := sorted(self._keys() - set(logged)):
            raise ConfigurationError(
                f"the validation logs no {' and no '.join(map(repr, missing))}; it logs "
                f"{', '.join(sorted(logged)) or 'nothing'}."
            )

    def _keys(self) -> set[str]:
        return {self._key(where, objective) for where in self.roles for objective in self.hypotheses.scored}

    def _key(self, where: str, objective: Any) -> str:
        metric: str = objective.metric
        return f"{metric}/dataloader_idx_{self.numbers[where]}" if self.several else metric

    def _score(self, where: str, objective: Any, logged: Mapping[str, Any]) -> MeanScore:
        assert isinstance(objective, Logged)
        key, (low, high) = self._key(where, objective), objective.bounds
        mean = float(logged[key])
        if mean < low or mean > high:
            raise ConfigurationError(
                f"objective {objective.name!r}: the value {mean:g} of {key!r} lies outside its bounds [{low:g}, "
                f"{high:g}]: pass bounds= that hold for every item."
            )
        known = math.isfinite(mean)
        chance = low if objective.chance is None else objective.chance
        scaled = [(x - low) / (high - low) for x in (mean if known else low, chance, objective.ceiling)]
        competence = Competence(BoundedMean(scaled[0], self._items(where)), scaled[1], scaled[2])
        kinds: dict[int, Kind] = {id(self.hypotheses.base): "base", id(self.hypotheses.intended): "intended"}
        kind = "capability" if objective is self.hypotheses.witness else kinds.get(id(objective), "proxy")
        return MeanScore(where, objective.name, kind, objective.bounds, competence, known)

    def _items(self, where: str) -> int:
        """Items of a validation loader that the trainer reads, all processes together."""
        trainer, number = self.trainer, self.numbers[where]
        loaders = trainer.val_dataloaders
        flat = list(loaders.values()) if isinstance(loaders, Mapping) else loaders
        loader = flat[number] if isinstance(flat, (list, tuple)) else flat
        read = trainer.num_val_batches[number] * (loader.batch_size or 1) * trainer.world_size
        try:
            return int(min(len(loader.dataset), read))
        except TypeError:
            raise ConfigurationError(
                f"distribution {where!r} is a stream, so it is not known on how many items its values rest."
            ) from None


def _number(where: str, distribution: Distribution, keys: list[str]) -> int:
    source = getattr(distribution, "source", None)
    if not isinstance(source, str) or source.partition("/")[0] != "val" or distribution.where is not None:
        raise ConfigurationError(
            f"distribution {where!r}: logged values are those of whole validation loaders; name one, like 'val/1'."
        )
    key = source.partition("/")[2] or keys[0]
    if key not in keys:
        raise ConfigurationError(f"no validation loader {source!r}: there are {', '.join(f'val/{k}' for k in keys)}.")
    return keys.index(key)
