"""What looks may cost: a share of the training's own time, kept by looking less often."""

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from lightning_mesa.errors import ConfigurationError, shown


class Budget:
    """Keeps the time that looks take within a share of the training's own time, by widening the stride.

    After each look the stride k is chosen so that the looks so far, the next one and the last one fit into the share
    when the next one comes::

        spent + 2 cost <= max_overhead * (trained + k * interval)

    with ``cost`` what a look takes, and ``interval`` the training time between two times at which a look is due. The
    first look and the last one are taken in any case, and so is the second, as no interval is known before it.

    Args:
        max_overhead: The share, such as .05; None to take every look.

    Attributes:
        stride: The next look is taken at the k-th time that one is due.
        spent: Seconds spent on looks.

    Raises:
        ConfigurationError: If the share is not positive.
    """

    def __init__(self, max_overhead: float | None) -> None:
        if max_overhead is not None and not (isinstance(max_overhead, (int, float)) and max_overhead > 0):
            raise ConfigurationError(
                f"max_overhead must be a positive number, such as 0.05, or None, not {shown(max_overhead)}."
            )
        self.max_overhead = max_overhead
        self.stride = 1
        self._passed = 0
        self.spent = self._trained = 0.0
        self._trained_at_look = 0.0
        self._mark: float | None = None  # end of the last look
        self._since: float | None = None  # beginning of this one

    @property
    def overhead(self) -> float:
        """Time spent on looks, up to now, over the training's own time; 0 before there was any."""
        spent = self.spent if self._since is None else self.spent + time.perf_counter() - self._since
        return spent / self._trained if self._trained else 0.0

    def due(self) -> bool:
        """Count a time at which a look is due; whether to take it."""
        self._passed += 1
        return self._passed >= self.stride

    @contextmanager
    def spending(self, device: torch.device) -> Iterator[None]:
        """Count the time inside as spent, and that since the last time as trained.

        Args:
            device: The training's: what it has still to do at the beginning is the training's own.
        """
        if self._since is not None:  # inside another
            yield
            return
        wait_for(device)
        self._since = time.perf_counter()
        self._trained += self._since - (self._mark or self._since)
        try:
            yield
            wait_for(device)
        finally:
            self._mark = time.perf_counter()
            self.spent += self._mark - self._since
            self._since = None

    def look_taken(self, cost: float, trainer: Any) -> None:
        """Choose the next stride; the same on all processes.

        Args:
            cost: What the look took, in seconds.
            trainer: The trainer, to tell the other processes.
        """
        if self.max_overhead is not None:
            stride = self._next_stride(cost, self.max_overhead)
            self.stride = trainer.strategy.broadcast(stride, 0) if trainer.world_size > 1 else stride
        self._passed = 0
        self._trained_at_look = self._trained

    def _next_stride(self, cost: float, share: float) -> int:
        if not self._passed:
            return 1
        interval = (self._trained - self._trained_at_look) / self._passed
        needed = (self.spent + 2 * cost) / share - self._trained
        return max(1, math.ceil(needed / max(interval, 1e-9)))

    def state_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {"stride": self.stride, "passed": self._passed, "spent": self.spent, "trained": self._trained}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved state."""
        self.stride, self._passed = state["stride"], state["passed"]
        self.spent, self._trained = state["spent"], state["trained"]
        self._trained_at_look = self._trained


def wait_for(device: torch.device) -> None:
    """Wait until an accelerator has done all that it was told; the CPU has."""
    if device.type != "cpu":
        getattr(torch, device.type).synchronize()
