"""Looks at what the validation loop has logged: no forward pass, no cost."""

from collections.abc import Collection, Mapping

from lightning_mesa.callbacks.schedule import Schedule, validations
from lightning_mesa.callbacks.watch import Watch
from lightning_mesa.checks import Look
from lightning_mesa.checks.look import Plan
from lightning_mesa.checks.means import findings_of_means
from lightning_mesa.data.distribution import Distribution
from lightning_mesa.data.logged import LoggedValues
from lightning_mesa.errors import ConfigurationError
from lightning_mesa.observe.context import LookContext


class LoggedSession(Watch):
    """Takes what was logged of the validation loaders, after each validation.

    Args:
        context: Who looks; all listed objectives are :class:`~lightning_mesa.Logged`.
        reference: The reference distributions by name.
        shifted: The shifted ones.
        logged: What the sanity check has logged, where there was one.

    Raises:
        ConfigurationError: If a distribution is no validation loader, or a value is not logged.
    """

    any_time = False

    def __init__(
        self,
        context: LookContext,
        reference: Mapping[str, Distribution],
        shifted: Mapping[str, Distribution],
        logged: Collection[str] | None,
    ) -> None:
        super().__init__(context, reference, shifted)
        self.values = LoggedValues(self.trainer, self.hypotheses, self.distributions)
        for where, number in self.values.numbers.items():
            self.put(where, number, lambda: False)
        if logged is not None:
            self.values.check(logged)

    def plan(self, every_n_steps: int | None) -> Schedule:
        """When to look: after each validation.

        Raises:
            ConfigurationError: If another schedule is asked for, or no validation is sure to come, or none will.
        """
        schedule = super().plan(every_n_steps)
        if schedule.every_n_steps is not None:
            raise ConfigurationError(
                "what is logged in validations is new after each of them, and at no other time: leave out "
                "every_n_steps=, and see that the run has validations."
            )
        # There is none before training, nor at its end.
        planned = validations(self.trainer)
        if planned is not None and planned[0] == 0:
            raise ConfigurationError(
                "what is logged in validations is looked at, and none will end in this run: train longer, or validate "
                "more often, Trainer(val_check_interval=..., check_val_every_n_epoch=1)."
            )
        return Schedule(None, None if planned is None else planned[0])

    def ready(self) -> bool:
        """Whether all values of this validation are there."""
        return self.values.complete()

    def measure(self, plan: Plan, *, at_end: bool = False) -> Look:
        """Take what was logged."""
        look = self.look(plan)
        look.findings += findings_of_means(self.values.scores(), look, "logged")
        return look

    def rehearse(self) -> None:
        """Nothing can be read before the next validation."""

    def check_identified(self, look: Look) -> None:
        """Means do not tell whether base and a proxy disagree on any item."""

    def data_in_words(self) -> str:
        """Which data regime each distribution has, in one line."""
        return f"{super().data_in_words()}; values are what the validation logs"
