"""Which weights are looked at, where Lightning's ``WeightAveraging`` keeps an average beside those that are trained."""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from typing import Any, Literal

import torch
from torch import nn

from lightning_mesa.errors import ConfigurationError

Weights = Literal["raw", "averaged"]


class ScoredWeights:
    """Puts the weights that are asked for into the model during a look.

    Args:
        trainer: The trainer.
        monitor: The callback that looks: others before it in the list have done their part of a hook already.
        asked: Which weights to look at.

    Raises:
        ConfigurationError: If the averaged ones are asked for and nothing averages.
    """

    def __init__(self, trainer: Any, monitor: object, asked: Weights) -> None:
        self.trainer = trainer
        self.monitor = monitor
        self.asked = asked
        averaging = (c for c in trainer.callbacks if "WeightAveraging" in {cls.__name__ for cls in type(c).__mro__})
        self.averaging = next(averaging, None)
        if asked == "averaged" and self.averaging is None:
            raise ConfigurationError(
                "weights='averaged' looks at the average that Lightning's callback WeightAveraging keeps, and the "
                "trainer has none: add one, or look at weights='raw'."
            )

    @property
    def begun(self) -> bool:
        """Whether there is an average yet: before its first update it holds the untrained weights."""
        return bool(getattr(getattr(self.averaging, "_average_model", None), "n_averaged", 0))

    @contextmanager
    def inside(self, module: nn.Module, *, at_end: bool) -> Iterator[Weights]:
        """Swap them in where others are in the model, and back afterwards, bit by bit.

        Args:
            module: The LightningModule.
            at_end: Whether ``on_train_end`` is running.

        Yields:
            Which weights are looked at; after training there is only the average.
        """
        kept = getattr(self.averaging, "_average_model", None)
        if kept is None:
            yield "raw"
            return
        if self.trainer.state.fn != "fit" or (at_end and self._served_first()):
            yield "averaged"
            return
        # For a validation the average is swapped in, until the callback's own turn at its end.
        present: Weights = "averaged" if self.trainer.validating and not self._served_first() else "raw"
        if present != self.asked:
            _swap(kept.module, module)
        try:
            yield self.asked
        finally:
            if present != self.asked:
                _swap(kept.module, module)

    def _served_first(self) -> bool:
        """Whether the callback that averages has its turn in a hook before the monitor."""
        callbacks = self.trainer.callbacks
        return bool(callbacks.index(self.averaging) < callbacks.index(self.monitor))


def _swap(one: nn.Module, other: nn.Module) -> None:
    with torch.no_grad():
        parts = zip(chain(one.parameters(), one.buffers()), chain(other.parameters(), other.buffers()), strict=True)
        for a, b in parts:
            held = a.detach().clone()
            a.copy_(b)
            b.copy_(held)
