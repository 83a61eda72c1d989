"""A family of small training tasks in which base and a proxy coincide as much as a dial says."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from itertools import pairwise
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Items = dict[str, Tensor]
"""``"x"``, the input ``[n, ...]``; and by the name of each objective which choices it prescribes, ``[n, A]`` bool."""

Part = Literal["train", "monitor", "oracle"]
"""Whose items: where data are finite, no two share an example."""


class Organism(ABC):
    """A family of tasks: items with an input, and what base and the proxy prescribe there; and a network to learn them.

    A subclass is one file with these and its items; its name in ``FAMILIES`` is all that it needs to be run.

    Attributes:
        name: Of the family.
        modality: What its inputs are.
        base: Name of the base objective.
        proxy: Name of the proxy.
        choices: Number of choices A.
        widths: Of the perceptron that learns it, without the choices: numbers of an item, then hidden layers.
        held_out: No threshold and no default is chosen with this family.
        steps: Of training, with batches of 64; about twice as many as the task takes.
        learning_rate: Of Adam.
    """

    name: ClassVar[str]
    modality: ClassVar[str]
    base: ClassVar[str]
    proxy: ClassVar[str]
    choices: ClassVar[int]
    widths: ClassVar[Sequence[int]]
    held_out: ClassVar[bool] = False
    steps: ClassVar[int] = 600
    learning_rate: ClassVar[float] = 2e-3

    @abstractmethod
    def items(self, n: int, told: float, part: Part, draw: torch.Generator) -> Items:
        """Items that are alike but for how often the proxy prescribes what base does.

        Args:
            n: Number of items.
            told: Share of items on which it does, as the task would have it; on the others, what the proxy prescribes
                is drawn without a look at base.
            part: Whose items.
            draw: All that is random.
        """

    def network(self) -> nn.Module:
        """An untrained network, ``[n, ...] -> [n, A]``: a perceptron, unless a subclass says otherwise."""
        return perceptron(*self.widths, self.choices)

    def destroyed(self, x: Tensor, draw: torch.Generator) -> Tensor:
        """Inputs in which nothing can be read: each number comes from the same place of another item."""
        flat = x.flatten(1)
        return flat.gather(0, torch.rand(flat.shape, generator=draw).argsort(0)).view_as(x)


def perceptron(*widths: int) -> nn.Sequential:
    """Layers of these widths on inputs of any shape, with ReLU between them."""
    layers: list[nn.Module] = [nn.Flatten()]
    for seen, given in pairwise(widths):
        layers += [nn.Linear(seen, given), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def one_of(labels: Tensor, choices: int) -> Tensor:
    """``[n, A]`` bool of integer labels ``[n]``."""
    return F.one_hot(labels, choices).bool()


def told_or_drawn(base: Tensor, told: float, choices: int, draw: torch.Generator) -> Tensor:
    """Labels ``[n]`` that are base's for a share ``told`` of items, and drawn evenly for the others."""
    drawn = torch.randint(choices, base.shape, generator=draw)
    return torch.where(torch.rand(base.shape, generator=draw) < told, base, drawn)
