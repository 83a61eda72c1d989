"""Activations of layers on the items that are looked at, in the same forward pass."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from lightning_mesa.observe.activations import reading, reading_inputs
from lightning_mesa.observe.subject import Subject
from lightning_mesa.records import INPUT, UNTRAINED

MOST_FEATURES = 128
"""More features of a layer than this are averaged over positions, and if need be projected at random."""

Projections: TypeAlias = dict[tuple[str, int], Tensor]
"""Name and width of a layer -> ``[width, MOST_FEATURES]``."""


class Reader:
    """Reads layers while the model runs on a batch.

    Args:
        subject: The model.
        layers: Names of layers; what the first of them reads is the input.
        untrained: Whether to run the untrained copy too, and keep what its layers give.
        drawn: The projections that have been drawn so far, on the CPU, for the next reader; a reader moves them to the
            device once, and they leave the device with it.
    """

    def __init__(
        self, subject: Subject, layers: Sequence[str], *, untrained: bool, drawn: Projections | None = None
    ) -> None:
        self.subject = subject
        self.layers = layers
        self.untrained = untrained
        self._drawn: Projections = {} if drawn is None else drawn
        self._here: Projections = {}

    @contextmanager
    def reading(self, module: nn.Module) -> Iterator[dict[str, Tensor]]:
        """Read inside; what there is to be known of a batch is there afterwards: name -> ``[n, d]`` float32.

        A layer that is called several times gives one entry for each tick, ``LAYER@TICK``.
        """
        found: dict[str, Tensor] = {}
        read: list[Tensor] = []
        first = [module.get_submodule(self.layers[0])]
        with reading_inputs(first, lambda _, given: read.append(given)), reading(module, self.layers) as caught:
            yield found
        if (given := next((x for x in read if x.ndim > 1), None)) is not None:
            found[INPUT] = self._narrow(given.flatten(1), INPUT)
        for layer, ticks in caught.items():
            for tick, activation in enumerate(ticks):
                name = layer if len(ticks) == 1 else f"{layer}@{tick}"
                found[name] = self._narrow(_over_positions(activation), name)

    def activations(self, read: dict[str, Tensor], call: Callable[[nn.Module], Any]) -> dict[str, Tensor]:
        """What has been read of a batch, with what the untrained copy gives on it where that is wanted.

        Args:
            read: From :meth:`reading`.
            call: Runs a model on the batch.
        """
        if not self.untrained:
            return read
        copied = self.subject.untrained.module
        with self.reading(copied) as of_copy:
            call(copied)
        return read | {f"{UNTRAINED}{name}": x for name, x in of_copy.items() if name != INPUT}

    def _narrow(self, features: Tensor, name: str) -> Tensor:
        """At most :data:`MOST_FEATURES`, by a projection that is the same for a name and width each time."""
        features = features.detach().float()
        key = name, features.shape[1]
        if key[1] <= MOST_FEATURES:
            return features.clone()  # some models give out the same memory again
        if key not in self._here:
            if key not in self._drawn:
                self._drawn[key] = _projection(*key)
            self._here[key] = self._drawn[key].to(features.device)
        return features @ self._here[key]


def _projection(name: str, width: int) -> Tensor:
    draw = torch.Generator().manual_seed(sum(map(ord, name)) * 100_003 + width)
    drawn: Tensor = torch.randn(width, MOST_FEATURES, generator=draw) / width**0.5
    return drawn


def _over_positions(activation: Tensor) -> Tensor:
    """``[n, d]``: as it is where it is small, else the mean over positions."""
    flat = activation.flatten(1)
    if flat.shape[1] <= MOST_FEATURES or activation.ndim == 2:
        return flat
    return activation.flatten(2).mean(2) if activation.ndim > 3 else activation.mean(1)
