"""Small networks that decide in every cell of a maze at once: ``[n, 3, 9, 9]`` to ``[n, 4, 9, 9]``."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_mesa.organisms.search.mazes import SIZE, STEPS


class Residual(nn.Module):
    """Convolutions of their own in each block."""

    def __init__(self, channels: int = 32, blocks: int = 8, kernel: int = 3) -> None:
        super().__init__()
        self.encode = nn.Conv2d(3, channels, kernel, padding=kernel // 2)
        self.blocks = nn.ModuleList(nn.Conv2d(channels, channels, kernel, padding=kernel // 2) for _ in range(blocks))
        self.decide = nn.Conv2d(channels, len(STEPS), 1)

    def forward(self, seen: Tensor) -> Tensor:
        """``[n, 3, 9, 9] -> [n, 4, 9, 9]``."""
        hidden = F.relu(self.encode(seen))
        for block in self.blocks:
            hidden = hidden + F.relu(block(hidden))
        steps: Tensor = self.decide(hidden)
        return steps


class ValueIteration(nn.Module):
    """Value iteration with a reward, a passability and a discount that are learned: a search by construction."""

    def __init__(self, steps: int = 24) -> None:
        super().__init__()
        self.steps = steps
        self.reward = nn.Conv2d(3, 1, 1)
        self.passable = nn.Conv2d(3, 1, 1)
        self.discount = nn.Parameter(torch.tensor(1.0))
        self.sharpness = nn.Parameter(torch.tensor(2.0))

    def forward(self, seen: Tensor) -> Tensor:
        """``[n, 3, 9, 9] -> [n, 4, 9, 9]``."""
        reward, passable = self.reward(seen), self.passable(seen).sigmoid()
        values = torch.zeros_like(reward)
        discount = self.discount.sigmoid()
        for _ in range(self.steps):
            # What a neighbour is worth, if it can be entered.
            worth = F.pad(passable * (reward + discount * values), (1, 1, 1, 1))
            of_steps = torch.cat([worth[:, :, 1 + y : 1 + y + SIZE, 1 + x : 1 + x + SIZE] for y, x in STEPS], 1)
            values = of_steps.amax(1, keepdim=True)
        scale = of_steps.detach().flatten(1).std(1).clamp(min=1e-3).view(-1, 1, 1, 1)
        return self.sharpness.exp() * of_steps / scale
