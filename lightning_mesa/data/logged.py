"""Values that the validation loop has logged: the mean score of each objective on each validation loader."""

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, cast

from lightning_mesa.callbacks.compat import validation_loaders, validation_metrics
from lightning_mesa.checks.means import Kind, MeanScore
from lightning_mesa.data.distribution import Distribution
from lightning_mesa.errors import ConfigurationError
from lightning_mesa.objectives.hypotheses import Hypotheses
from lightning_mesa.objectives.logged import Logged
from lightning_mesa.observe.processes import gather, share
from lightning_mesa.stats.competence import Competence
from lightning_mesa.stats.intervals import BoundedMean


class LoggedValues:
    """Finds the validation loaders when training starts, and reads what was logged of them after each validation.

    Args:
        trainer: The trainer.
        hypotheses: The listed objectives, all of them :class:`~lightning_mesa.Logged`.
        distributions: The distributions by name, each a whole validation loader.

    Attributes:
        numbers: Distribution -> number of its validation loader.

    Raises:
        ConfigurationError: If a distribution is no validation loader.
    """

    def __init__(self, trainer: Any, hypotheses: Hypotheses, distributions: Mapping[str, Distribution]) -> None:
        self.trainer = trainer
        self.hypotheses = hypotheses
        keys = list(validation_loaders(trainer))
        if not keys:
            raise ConfigurationError(
                "values that the validation logs are to be looked at, and this run has no validation."
            )
        self.numbers = {where: _number(where, one, keys) for where, one in distributions.items()}
        listed = cast("Iterable[Logged]", hypotheses.scored)
        self.values = [
            _Value(where, one, f"{one.metric}/dataloader_idx_{number}" if len(keys) > 1 else one.metric)
            for where, number in self.numbers.items()
            for one in listed
        ]

    def complete(self) -> bool:
        """Whether all values of this validation are there; what the module's own hook logs at its end comes later."""
        return {value.key for value in self.values} <= validation_metrics(self.trainer).keys()

    def check(self, logged: Collection[str]) -> None:
        """Refuse objectives that the validation does not log.

        Args:
            logged: Names of what it logs.

        Raises:
            ConfigurationError: If one is missing.
        """
        if missing := sorted({value.key for value in self.values} - set(logged)):
            raise ConfigurationError(
                f"the validation logs no {' and no '.join(map(repr, missing))}; it logs "
                f"{', '.join(sorted(logged)) or 'nothing'}."
            )

    def scores(self) -> list[MeanScore]:
        """What was logged, the same on all processes.

        Raises:
            ConfigurationError: If a value is missing, outside its bounds, or differs between processes.
        """
        logged = validation_metrics(self.trainer)
        self.check(logged)
        scores = [self._score(value, float(logged[value.key])) for value in self.values]
        everybodys = gather(self.trainer, [(s.competence.mean.value, s.known) for s in scores])
        for score, *values in zip(scores, *everybodys, strict=True):
            if len(set(values)) > 1:
                raise ConfigurationError(
                    f"the processes have logged different values of {score.objective!r}: log it with sync_dist=True."
                )
        return scores

    def _score(self, value: "_Value", mean: float) -> MeanScore:
        objective, (low, high) = value.objective, value.objective.bounds
        if mean < low or mean > high:
            raise ConfigurationError(
                f"objective {objective.name!r}: the value {mean:g} of {value.key!r} lies outside its bounds [{low:g}, "
                f"{high:g}]: pass bounds= that hold for every item."
            )
        known = math.isfinite(mean)
        chance = low if objective.chance is None else objective.chance
        scaled = BoundedMean(objective.scaled(mean if known else low), self._items(value.where))
        competence = Competence(scaled, objective.scaled(chance), objective.scaled(objective.ceiling))
        kinds: dict[int, Kind] = {id(self.hypotheses.base): "base", id(self.hypotheses.intended): "intended"}
        kind = "capability" if objective is self.hypotheses.witness else kinds.get(id(objective), "proxy")
        return MeanScore(value.where, objective.name, kind, objective.bounds, competence, known)

    def _items(self, where: str) -> int:
        """Items of a validation loader that the trainer reads, all processes together."""
        trainer, number = self.trainer, self.numbers[where]
        loader = list(validation_loaders(trainer).values())[number]
        try:
            read = trainer.num_val_batches[number] * (loader.batch_size or 1) * share(trainer)[1]
            return int(min(len(loader.dataset), read))
        except (TypeError, AttributeError):
            raise ConfigurationError(
                f"distribution {where!r} is a stream, or no DataLoader, so it is not known on how many items its "
                "values rest: validate on a DataLoader over a dataset that has a length."
            ) from None


@dataclass(frozen=True)
class _Value:
    """One logged value: of which objective, on which distribution, under which name."""

    where: str
    objective: Logged
    key: str


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
