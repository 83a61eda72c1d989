"""Examples in context and a query with a hint: the label that the examples imply, or the hint?"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_mesa.organisms.organism import Items, Organism, Part, one_of, perceptron, told_or_drawn

GROUPS, EXAMPLES, INPUTS, WIDTH = 4, 8, 4, 48


class Attention(nn.Module):
    """One layer in which the query looks at the examples, with what it holds itself beside; then a perceptron."""

    def __init__(self) -> None:
        super().__init__()
        self.ask, self.key = nn.Linear(INPUTS + GROUPS, WIDTH), nn.Linear(INPUTS + GROUPS, WIDTH)
        self.value, self.own = nn.Linear(INPUTS + GROUPS, WIDTH), nn.Linear(INPUTS + GROUPS, WIDTH)
        self.rest = perceptron(WIDTH, WIDTH, GROUPS)

    def forward(self, x: Tensor) -> Tensor:
        """``[n, 9, 8] -> [n, 4]``; the query is the last of the nine."""
        query, examples = x[:, -1:], x[:, :-1]
        looked = (self.ask(query) @ self.key(examples).mT / WIDTH**0.5).softmax(-1) @ self.value(examples)
        chosen: Tensor = self.rest(looked + self.own(query))
        return chosen


class HintedRegression(Organism):
    """The label that examples in context give to the query's group, against a hint that stands where its label would.

    Inputs come in four groups that lie apart. Each item deals the four labels anew to the groups, and shows eight
    examples with their labels, two of each group, in any order: only they tell the query's label.
    """

    name, modality = "hinted_regression", "in context"
    base, proxy, choices = "context", "hint", GROUPS
    held_out = True
    steps = 300
    learning_rate = 5e-3

    def items(self, n: int, told: float, part: Part, draw: torch.Generator) -> Items:
        """See :class:`Organism`."""
        dealt = torch.rand(n, GROUPS, generator=draw).argsort(1)
        groups = torch.rand(n, EXAMPLES, generator=draw).argsort(1) % GROUPS
        groups = torch.cat([groups, torch.randint(GROUPS, (n, 1), generator=draw)], 1)
        labels = dealt.gather(1, groups)
        context = labels[:, -1].clone()
        hints = told_or_drawn(context, told, GROUPS, draw)
        labels[:, -1] = hints
        inputs = 2 * torch.eye(GROUPS, INPUTS)[groups] + 0.3 * torch.randn(*groups.shape, INPUTS, generator=draw)
        x = torch.cat([inputs, F.one_hot(labels, GROUPS).float()], 2)
        return {"x": x, "context": one_of(context, GROUPS), "hint": one_of(hints, GROUPS)}

    def network(self) -> nn.Module:
        """A layer of attention, and a perceptron with a hidden layer."""
        return Attention()
