"""When to look, and how many looks that makes: the number must be known before the first one."""

import math
from dataclasses import dataclass
from typing import Any

from lightning_mesa.errors import ConfigurationError

DEFAULT_LOOKS = 50
"""Looks in a run without a validation loop."""


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
        if every_n_steps is None and _is_validated(trainer):
            planned = validations(trainer)
            # The look before training, one after each validation, and one at the end where no validation is.
            return Schedule(None, None if planned is None else 1 + planned[0] + (not planned[1]))
        if every_n_steps is None and steps is None:
            raise ConfigurationError(
                "this run has no validation that is sure to come and no known length, so MesaMonitor cannot tell when "
                "to look: pass every_n_steps=, or set max_steps, or give the training loader a length."
            )
        every = every_n_steps or max(1, math.ceil((steps or 0) / DEFAULT_LOOKS))
        return Schedule(every, None if steps is None else 1 + math.ceil(steps / every))


def _is_validated(trainer: Any) -> bool:
    """Whether validations are sure to come: at the end of a loader without a length, which may be endless, none is."""
    interval = trainer.val_check_batch
    at_the_end = interval is not None and math.isinf(interval)
    return bool(trainer.enable_validation) and not (at_the_end and not _max_epochs(trainer))


def _stepping_batches(trainer: Any) -> int | None:
    steps = trainer.estimated_stepping_batches
    # Lightning gives -1 for a loader without a length that max_steps does not limit.
    return None if steps < 0 or math.isinf(steps) else int(steps)


def validations(trainer: Any) -> tuple[int, bool] | None:
    """How many validations a fit will have at most, and whether one follows its last step; None where none can know."""
    batches, per_epoch, interval = _batches(trainer), trainer.num_training_batches, trainer.val_check_batch
    every_n_epochs = trainer.check_val_every_n_epoch
    if interval is None:  # a time interval
        return None
    if batches is None:
        # A loader without a length is validated on after each epoch, or in fixed intervals of its batches.
        if math.isinf(interval) and _max_epochs(trainer):
            return _max_epochs(trainer) // int(every_n_epochs), False
        return None
    if every_n_epochs is None:  # the interval runs on over epochs
        return batches // int(interval), batches % int(interval) == 0
    if math.isinf(per_epoch):
        return None if math.isinf(interval) else (int(batches // interval), False)
    epochs, rest = divmod(batches, per_epoch)
    planned = epochs // every_n_epochs * (per_epoch // interval)
    at_end = epochs % every_n_epochs == 0 and per_epoch % interval == 0
    if rest:
        in_last = (epochs + 1) % every_n_epochs == 0
        planned += rest // interval * in_last
        at_end = in_last and rest % interval == 0
    return int(planned), bool(at_end)


def _batches(trainer: Any) -> int | None:
    """Training batches of the whole run at most, None where that cannot be known."""
    per_epoch, accumulate = trainer.num_training_batches, trainer.accumulate_grad_batches
    limits = []
    if _max_epochs(trainer) and not math.isinf(per_epoch):
        limits.append(_max_epochs(trainer) * per_epoch)
    if trainer.max_steps != -1 and math.isinf(per_epoch):
        limits.append(trainer.max_steps * accumulate)
    elif trainer.max_steps != -1:
        epochs, rest = divmod(trainer.max_steps, math.ceil(per_epoch / accumulate))
        limits.append(epochs * per_epoch + rest * accumulate)
    return min(limits, default=None)


def _max_epochs(trainer: Any) -> int:
    return 0 if trainer.max_epochs in (None, -1) else int(trainer.max_epochs)
