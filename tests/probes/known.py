"""Small decision rules that are known: what they follow is built in."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_mesa.probes import Pairs, Patches

CHOICES, CELLS = 4, 6


class Rule(nn.Module):
    """Inputs ``[n, 2, 6]``: cell 0 holds the near cue, cells 4 and 5 the targets of base and proxy, one-hot in 4 cells.

    Decides in one place. ``serves`` says which channel and cell the decision follows. Drawn anew it decides the same
    for all inputs, unless the rule is innate.
    """

    def __init__(self, serves: str, *, innate: bool = False) -> None:
        super().__init__()
        self.serves = serves
        self.innate = innate
        self.encode = nn.Identity()
        self.weight = nn.Parameter(torch.ones(()))

    def reset_parameters(self) -> None:
        if not self.innate:
            self.serves = "nothing"

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.encode(x)
        cell = {"nothing": 1, "near": 0, "base": 4, "proxy": 5}[self.serves]
        return 5 * self.weight * F.one_hot(hidden[:, 0, cell].long(), CHOICES).float()


def inputs(near: Tensor, base: Tensor, proxy: Tensor) -> Tensor:
    x = torch.zeros(len(near), 2, CELLS)
    x[:, 0, 0], x[:, 0, 4], x[:, 0, 5] = near.float(), base.float(), proxy.float()
    return x


def one_hot(labels: Tensor) -> Tensor:
    return F.one_hot(labels, CHOICES).bool()


def pairs(n: int = 200, seed: int = 0) -> Pairs:
    """Half of the pairs change base's target, in the others something irrelevant changes; the near cue tells it too."""
    draw = torch.Generator().manual_seed(seed)
    base, proxy = (torch.randint(CHOICES, (n,), generator=draw) for _ in range(2))
    moved = torch.arange(n) % 2 == 0
    after = torch.where(moved, (base + 1) % CHOICES, base)
    return Pairs(
        inputs(base, base, proxy),
        inputs(base, after, (proxy + 1) % CHOICES),
        {"base": one_hot(base)},
        {"base": one_hot(after)},
    )


def patches(objective: str, n: int = 200, seed: int = 1) -> Patches:
    """The target of one objective is moved; the near cue stays."""
    draw = torch.Generator().manual_seed(seed)
    target, other = (torch.randint(CHOICES, (n,), generator=draw) for _ in range(2))
    new = (target + 1) % CHOICES
    site = torch.zeros(n, CELLS, dtype=torch.bool)
    site[:, {"base": 4, "proxy": 5}[objective]] = True

    def seen(where: Tensor) -> Tensor:
        return inputs(target, where, other) if objective == "base" else inputs(target, other, where)

    return Patches(seen(target), seen(new), site, one_hot(target), one_hot(new), torch.ones(n, dtype=torch.bool))
