"""When to look, and how many looks that makes: the number must be known before the first one."""

import math
from dataclasses import dataclass
from typing import Any

from lightning_mesa.errors import ConfigurationError

DEFAULT_LOOKS = 50
"""Looks in a run without a validation loop."""

_FIRST_AND_LAST = 2


@dataclass(frozen=True)
class Schedule:
    """When to look.

    Attributes:
        every_n_steps: Look so often, in steps; None looks after each validation.
        looks: How many looks there will be at most, with the one before training and the one at its end; None
            where that cannot be known.
    """

    every_n_steps: int | None
    looks: int | None

    @staticmethod
    def plan(trainer: Any, every_n_steps: int | None) -> "Schedule":
        """Plan the looks of a fit that is about to start.

        A step is a batch after which the optimizer has stepped.

        Args:
            trainer: The trainer, its data set up.
            every_n_steps: As the user asked, or None for the default: after each validation; without a
                validation loop, every fiftieth part of the run.

        Raises:
            ConfigurationError: If there is no validation loop and the length of the run is not known.
        """
        steps = _stepping_batches(trainer)
        if every_n_steps is None and trainer.enable_validation:
            validations = _validations(trainer)
            return Schedule(None, None if validations is None else validations + _FIRST_AND_LAST)
        if every_n_steps is None and steps is None:
            raise ConfigurationError(
                "this run has no validation loop and no known length, so MesaMonitor cannot tell when to look: pass "
                "every_n_steps=, or set max_steps, or give the training loader a length."
            )
        every = every_n_steps or max(1, math.ceil((steps or 0) / DEFAULT_LOOKS))
        return Schedule(every, None if steps is None else steps // every + _FIRST_AND_LAST)


def _stepping_batches(trainer: Any) -> int | None:
    steps = trainer.estimated_stepping_batches
    # Lightning gives -1 for a loader without a length that max_steps does not limit.
    return None if steps < 0 or math.isinf(steps) else int(steps)


def _validations(trainer: Any) -> int | None:
    """How many validations the run has at most."""
    per_epoch, interval = trainer.num_training_batches, trainer.val_check_batch
    every_n_epochs = trainer.check_val_every_n_epoch
    if interval is None:  # a time interval
        return None
    batches = math.inf
    if trainer.max_epochs not in (None, -1):
        batches = trainer.max_epochs * per_epoch
    if trainer.max_steps != -1:
        batches = min(batches, trainer.max_steps * trainer.accumulate_grad_batches)
    if every_n_epochs is None:  # the interval runs on over epochs
        return None if math.isinf(batches / interval) else int(batches // interval)
    if math.isinf(per_epoch):  # a loader without a length: after each epoch, or every so many batches
        if math.isinf(interval):
            return trainer.max_epochs // every_n_epochs if trainer.max_epochs not in (None, -1) else None
        return None if math.isinf(batches) else int(batches // interval)
    if math.isinf(batches):
        return None
    epochs = math.ceil(batches / per_epoch)
    return int(epochs // every_n_epochs * max(1, per_epoch // interval))
