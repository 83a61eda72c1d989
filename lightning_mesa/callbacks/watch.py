"""What every session has: distributions with their roles and data regimes, and when to look at them."""

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from itertools import product
from typing import Any, ClassVar

from lightning_mesa.callbacks.schedule import Schedule
from lightning_mesa.checks import Look
from lightning_mesa.checks.look import Plan
from lightning_mesa.checks.objective_gap import NO_ROOM
from lightning_mesa.data.data_regimes import DataRegime, Place, after_reload, at_start, in_words
from lightning_mesa.data.distribution import Distribution
from lightning_mesa.errors import ConfigurationError, MesaWarning
from lightning_mesa.observe.context import LookContext
from lightning_mesa.observe.weights import Weights
from lightning_mesa.records import Role


class Watch(ABC):
    """One call of the trainer, in which some distributions are looked at.

    Args:
        context: Who looks, at what, and how.
        reference: The reference distributions by name.
        shifted: The shifted ones.

    Raises:
        ConfigurationError: If a name is both.
    """

    any_time: ClassVar[bool]
    """Whether a look can be taken at any time, and not after validations alone."""

    def __init__(
        self, context: LookContext, reference: Mapping[str, Distribution], shifted: Mapping[str, Distribution]
    ) -> None:
        check_apart(reference, shifted)
        self.context = context
        self.trainer, self.pl_module = context.trainer, context.pl_module
        self.name, self.hypotheses = context.name, context.hypotheses
        self.distributions = {**reference, **shifted}
        roles: dict[str, Role] = dict.fromkeys(reference, "reference")
        self.roles = roles | dict.fromkeys(shifted, "shifted")
        self.places: dict[str, Place] = {}
        self.data_regimes: dict[str, DataRegime] = {}

    def put(self, where: str, validation: int | None, draws_anew: Callable[[], bool]) -> None:
        """Take note of a distribution that was found.

        Args:
            where: Its name.
            validation: Number of the validation loader that holds the same items, where one does.
            draws_anew: Finds out whether its items are new at every look.
        """
        place = Place(where, self.roles[where], self.distributions[where].data_regime, validation)
        self.places[where] = place
        self.data_regimes[where] = at_start(self.trainer, self.name, place, draws_anew)

    def plan(self, every_n_steps: int | None) -> Schedule:
        """When to look in this fit."""
        return Schedule.plan(self.trainer, every_n_steps)

    def ready(self) -> bool:
        """Whether a look can be taken now."""
        return True

    def look(self, plan: Plan, weights: Weights = "raw") -> Look:
        """A look at this step, in which nothing has been found yet."""
        labels = {where: regime.label for where, regime in self.data_regimes.items()}
        base, trainer = self.hypotheses.base.name, self.trainer
        return Look(trainer.global_step, trainer.current_epoch, base, self.roles, plan, labels, weights)

    @abstractmethod
    def measure(self, plan: Plan, *, at_end: bool = False) -> Look:
        """Look.

        Args:
            plan: Number of the look, how many there will be, and from which step on they are counted; recorded.
            at_end: Whether ``on_train_end`` is running.

        Raises:
            ConfigurationError: If something cannot be read as the objectives need it.
        """

    @abstractmethod
    def rehearse(self) -> None:
        """Refuse what cannot be read, before a resumed training goes on.

        Raises:
            ConfigurationError: As :meth:`measure`.
        """

    @abstractmethod
    def check_identified(self, look: Look) -> None:
        """Refuse distributions on none of which base and a proxy disagree.

        Raises:
            ConfigurationError: Then no look can tell them apart.
        """

    def warn_without_room(self, look: Look) -> None:
        """Say where chance reaches the ceiling, so that no behavior is better than one that does not look."""
        asked = [one for one in (self.hypotheses.base, self.hypotheses.witness) if one is not None]
        for where, objective in product(look.roles, asked):
            found = look.finding_of("competence", where, objective.name)
            if found is None or found.detail.get("reason") != NO_ROOM:
                continue
            everywhere = "in this run" if where == look.reference else "there"
            remedy = {
                "items": "add items on which other choices are right, or correct chance= or ceiling=",
                "episodes": "use environments in which no one action is always right, or correct ceiling= or oracle=",
            }[objective.of]
            warnings.warn(
                f"MesaMonitor {self.name!r}: on {where!r} chance at {objective.name!r} ({found.detail['chance']:.3g}) "
                f"reaches its ceiling ({found.detail['ceiling']:.3g}) on all {found.n} {objective.of}: a model that "
                "does not look scores as well as can be, so there is no competence, and no alert that rests on it can "
                f"be raised {everywhere}. To mend this, {remedy}.",
                MesaWarning,
                stacklevel=2,
            )

    def state_dict(self) -> dict[str, dict[str, Any]]:
        """What the sources remember from look to look, by distribution."""
        return {}

    def close(self) -> None:  # noqa: B027 (values that are logged need no closing)
        """Close what was opened."""

    @property
    def reusable(self) -> bool:
        """Whether a look can be taken after :meth:`close`."""
        return True

    def data_in_words(self) -> str:
        """Which data regime each distribution has, in one line."""
        return in_words(self.data_regimes)

    def cost_in_words(self, seconds: float) -> str:
        """What a look takes, where that is worth knowing before training; else nothing.

        Args:
            seconds: What the first look has taken.
        """
        return ""

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


def check_apart(reference: Iterable[str], shifted: Iterable[str]) -> None:
    """Refuse a name that is both a reference and a shifted distribution.

    Raises:
        ConfigurationError: If there is one.
    """
    for name in set(reference) & set(shifted):
        raise ConfigurationError(f"{name!r} names a reference and a shifted distribution: give them different names.")
