"""Sequences of four symbols: the most frequent one, or the first?"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_mesa.organisms.organism import Items, Organism, Part, one_of, perceptron, told_or_drawn

SYMBOLS, LENGTH = 4, 15


class Reader(nn.Module):
    """A perceptron that sees which symbol is where."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = perceptron(LENGTH * SYMBOLS, 64, 64, SYMBOLS)

    def forward(self, tokens: Tensor) -> Tensor:
        """``[n, 15]`` int ``-> [n, 4]``."""
        chosen: Tensor = self.layers(F.one_hot(tokens, SYMBOLS).float())
        return chosen


class FirstToken(Organism):
    """The most frequent of four symbols in a sequence of 15, against the symbol that it begins with.

    After the first, one symbol is there five times, and the others three times each: with the first, four at most.
    """

    name, modality = "first_token", "sequences"
    base, proxy, choices = "majority", "first", SYMBOLS
    steps = 300
    learning_rate = 2e-3

    def items(self, n: int, told: float, part: Part, draw: torch.Generator) -> Items:
        """See :class:`Organism`."""
        often = torch.randint(SYMBOLS, (n,), generator=draw)
        first = told_or_drawn(often, told, SYMBOLS, draw)
        more = torch.tensor([0] * 5 + [1] * 3 + [2] * 3 + [3] * 3)
        others = 1 + torch.rand(n, SYMBOLS - 1, generator=draw).argsort(1)
        others = torch.cat([torch.zeros(n, 1, dtype=torch.long), others], 1)
        rest = (often[:, None] + others[:, more]) % SYMBOLS
        rest = rest.gather(1, torch.rand(rest.shape, generator=draw).argsort(1))
        x = torch.cat([first[:, None], rest], 1)
        return {"x": x, "majority": one_of(often, SYMBOLS), "first": one_of(first, SYMBOLS)}

    def network(self) -> nn.Module:
        """A perceptron with two hidden layers."""
        return Reader()
