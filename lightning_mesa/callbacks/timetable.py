"""When looks are due in a run, which of these are taken, and what it costs."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from lightning_mesa.callbacks.budget import Budget, wait_for
from lightning_mesa.callbacks.compat import stepped_batches
from lightning_mesa.callbacks.schedule import Schedule

Position = tuple[int, int]
"""Optimizer steps, and batches after which the optimizer has stepped (the x axis of the loggers)."""


class Timetable:
    """Counts the times at which a look is due, and lets the budget choose which are taken.

    Args:
        max_overhead: See :class:`~lightning_mesa.callbacks.budget.Budget`.

    Attributes:
        number: How many times a look has been due so far, the first one included; 0 before it.
        looked: Where the last look was taken, or None.
        budget: What looks may cost, and have cost.
        cost: Seconds that the last look took.
    """

    def __init__(self, max_overhead: float | None) -> None:
        self.number = 0
        self.looked: Position | None = None
        self.budget = Budget(max_overhead)
        self.cost = 0.0
        self._due: Position = (0, 0)
        self._schedule = Schedule(None, None)

    def follow(self, schedule: Schedule, *, take_all: bool) -> None:
        """Follow a schedule from here on.

        Args:
            schedule: When looks are due.
            take_all: Take each, whatever it costs.
        """
        self._schedule = schedule
        if take_all:
            self.budget.max_overhead = None

    def in_batch(self, trainer: Any) -> bool:
        """At the end of a training batch: whether to look."""
        every, looked = self._schedule.every_n_steps, self.looked
        if every is None or looked is None or trainer.global_step == self._due[0]:
            return False
        here = position(trainer, in_batch=True)
        return here[1] >= self._due[1] + every and self._count(here)

    def after_validation(self, trainer: Any) -> bool:
        """After a validation: whether to look."""
        before = self.looked is not None and trainer.global_step == self._due[0]
        if self._schedule.every_n_steps is not None or before:
            return False
        return self._count(position(trainer, in_batch=True))

    def at_end(self, trainer: Any) -> bool:
        """After the last step: whether to look, which only a look at that step makes needless."""
        if self.looked is None or self.looked[0] == trainer.global_step:
            return False
        self.number = min(self.number + 1, self._schedule.looks or self.number + 1)
        return True

    def age(self, trainer: Any) -> int:
        """Steps since the last look."""
        return 0 if self.looked is None else position(trainer, in_batch=True)[1] - self.looked[1]

    @contextmanager
    def looking(self, trainer: Any, here: Position) -> Iterator[None]:
        """While a look is taken."""
        self.number = max(1, self.number)
        self._due = self.looked = here
        with self.budget.spending(device := trainer.strategy.root_device):
            started = time.perf_counter()
            yield
            wait_for(device)
            self.cost = time.perf_counter() - started
        self.budget.look_taken(self.cost, trainer)

    def state_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "number": self.number,
            "looked": None if self.looked is None else list(self.looked),
            "due": list(self._due),
            "budget": self.budget.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved state."""
        self.number = state["number"]
        self.looked = None if state["looked"] is None else (state["looked"][0], state["looked"][1])
        self._due = (state["due"][0], state["due"][1])
        self.budget.load_state_dict(state["budget"])

    def _count(self, here: Position) -> bool:
        self._due = here
        self.number += 1
        return self.budget.due()


def position(trainer: Any, *, in_batch: bool) -> Position:
    """Where training is.

    Args:
        trainer: The trainer.
        in_batch: Whether the hooks of a batch, or of a validation after it, are running.
    """
    return trainer.global_step, stepped_batches(trainer, in_batch=in_batch)
