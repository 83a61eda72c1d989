"""Linear regression in context: ten inputs of three numbers with their targets, a query, and networks that answer.

Targets are products with weights that each problem has of its own. A network sees tokens ``[n, 11, 4]``, an input and
its target in each, the query with target 0 in the last, and gives ``[n]`` answers.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_mesa.probes import Problems

SIZE = 3
SHOWN = 10


@dataclass(frozen=True)
class Regression:
    """Inputs ``[n, 10, 3]`` with their targets ``[n, 10]``, queries ``[n, 3]`` with the right answers ``[n]``."""

    inputs: Tensor
    targets: Tensor
    queries: Tensor
    answers: Tensor

    @property
    def tokens(self) -> Tensor:
        """``[n, 11, 4]`` what a network sees."""
        asked = F.pad(self.queries, (0, 1))[:, None]
        return torch.cat([torch.cat([self.inputs, self.targets[..., None]], 2), asked], 1)

    @property
    def nearest(self) -> Tensor:
        """``[n]`` the target of the input that is nearest to the query: an answer, and no regression."""
        apart = (self.inputs - self.queries[:, None]).square().sum(2)
        return self.targets.gather(1, apart.argmin(1, keepdim=True)).squeeze(1)

    @property
    def problems(self) -> Problems:
        """The same for the probe."""
        return Problems(self.tokens, self.inputs, self.targets, self.queries, self.answers)


def draw(n: int, random: torch.Generator, *, far: bool = False, known: Tensor | None = None) -> Regression:
    """Problems whose inputs are uniform in [-1, 1], and weights normal.

    Args:
        n: How many.
        random: Where they are drawn from.
        far: Inputs are normal, of the same spread, and weights twice as large.
        known: ``[m, 3]`` take weights from these alone.
    """
    shape = (n, SHOWN + 1, SIZE)
    inputs = torch.randn(shape, generator=random) / 3**0.5 if far else 2 * torch.rand(shape, generator=random) - 1
    weights = torch.randn(n, SIZE, generator=random) * (2 if far else 1)
    if known is not None:
        weights = known[torch.randint(len(known), (n,), generator=random)]
    targets = (inputs * weights[:, None]).sum(2)
    return Regression(inputs[:, :-1], targets[:, :-1], inputs[:, -1], targets[:, -1])


class LinearAttention(nn.Module):
    """Linear self-attention, the same layer again and again: every token reads those of the context.

    One layer can do a step of gradient descent, more of them GD++ (von Oswald et al. 2023).
    """

    def __init__(self, layers: int = 1) -> None:
        super().__init__()
        self.layers = layers
        self.keys = nn.Parameter(torch.empty(SIZE + 1, SIZE + 1))
        self.values = nn.Parameter(torch.empty(SIZE + 1, SIZE + 1))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.normal_(self.keys, std=0.1)
        nn.init.normal_(self.values, std=0.1)

    def forward(self, tokens: Tensor) -> Tensor:
        for _ in range(self.layers):
            context = tokens[:, :-1]
            tokens = tokens + (tokens @ self.keys @ context.mT / SHOWN) @ (context @ self.values)
        return -tokens[:, -1, -1]  # what is left of the query's target, had it been 0


class SoftmaxAttention(nn.Module):
    """The query attends to the context with what a small network makes of the inputs, and answers with the targets."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.embed = nn.Sequential(nn.Linear(SIZE, width), nn.ReLU(), nn.Linear(width, 16))

    def forward(self, tokens: Tensor) -> Tensor:
        embedded = self.embed(tokens[..., :SIZE])
        apart = (embedded[:, :-1] - embedded[:, -1:]).square().sum(2)
        return ((-apart).softmax(1) * tokens[:, :-1, -1]).sum(1)


class Transformer(nn.Module):
    """Two blocks of softmax attention and an MLP."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.embed = nn.Linear(SIZE + 1, width)
        block = nn.TransformerEncoderLayer(width, 4, 4 * width, dropout=0.0, batch_first=True, norm_first=True)
        self.blocks = nn.TransformerEncoder(block, 2, enable_nested_tensor=False)
        self.answer = nn.Linear(width, 1)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.answer(self.blocks(self.embed(tokens))[:, -1]).squeeze(-1)


class Flat(nn.Sequential):
    """An MLP on all tokens at once, in which nothing is iterated."""

    def __init__(self, width: int = 256) -> None:
        seen = (SHOWN + 1) * (SIZE + 1)
        super().__init__(
            nn.Flatten(),
            nn.Linear(seen, width),
            nn.ReLU(),
            nn.Linear(width, width),
            nn.ReLU(),
            nn.Linear(width, 1),
            nn.Flatten(0),
        )
