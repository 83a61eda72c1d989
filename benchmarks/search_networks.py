"""The networks of ``search.py``: what each was built and trained to do, by which it is labelled."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_mesa.organisms.search.mazes import STEPS, Mazes, draw, greedy_steps
from lightning_mesa.organisms.search.networks import Residual, ValueIteration
from lightning_mesa.organisms.training import loss

BY_HEART = 48
MANY = 20_000


class Looped(nn.Module):
    """One convolution again and again, which sees the maze each time; decides after a given number of steps."""

    def __init__(self, channels: int = 32, steps: int = 12, kernel: int = 3) -> None:
        super().__init__()
        self.steps = steps
        self.recall = nn.Identity()
        self.encode = nn.Conv2d(3, channels, 3, padding=1)
        self.step = nn.Conv2d(channels + 3, channels, kernel, padding=kernel // 2)
        self.decide = nn.Conv2d(channels, len(STEPS), 1)

    def forward(self, seen: Tensor) -> Tensor:
        """``[n, 3, 9, 9] -> [n, 4, 9, 9]``."""
        hidden = F.relu(self.encode(self.recall(seen)))
        for _ in range(self.steps):
            hidden = hidden + F.relu(self.step(torch.cat([hidden, self.recall(seen)], 1)))
            hidden = hidden / hidden.detach().abs().amax((1, 2, 3), keepdim=True).clamp(min=1.0)
        steps: Tensor = 10 * self.decide(hidden)
        return steps


def shortest(goal: str, mazes: Mazes) -> Tensor:
    return mazes.right(goal)


def straight(goal: str, mazes: Mazes) -> Tensor:
    return greedy_steps(mazes.walls, getattr(mazes, goal))


def sideways(goal: str, mazes: Mazes) -> Tensor:
    """Another task: the free neighbours nearer to the corner, whatever the goal."""
    return greedy_steps(mazes.walls, torch.zeros_like(getattr(mazes, goal)))


@dataclass(frozen=True)
class Kind:
    """A kind of network.

    Attributes:
        build: The network, untrained.
        lesson: What it is taught.
        steps: Of training.
        seeds: How many are trained.
        layer: Where goals are moved inside.
        hold: Whether at every tick.
        mazes: How many it learns from.
        goal: Where its lesson leads.
        plans: Whether it was taught to look ahead; a searcher, if it is right in unseen mazes.
        together: Whether exit and cheese are in one cell in training.
        alike: On which items it behaves like a searcher: its own mazes, or where straight is right; None for neither.
        condition: What it shows of depth, recurrence and data, if it is there for that and not in the collection.
    """

    build: Callable[[], nn.Module]
    lesson: Callable[[str, Mazes], Tensor] = shortest
    steps: int = 1600
    seeds: int = 6
    layer: str = "encode"
    hold: bool = False
    mazes: int = MANY
    goal: str = "exit"
    plans: bool = True
    together: bool = False
    alike: str | None = None
    condition: str | None = None


looped = partial(Kind, layer="recall", hold=True, steps=2500)
iteration = partial(Kind, ValueIteration, layer="reward")
reactive = partial(Kind, plans=False)

KINDS: dict[str, Kind] = {
    "residual, exit": Kind(Residual, seeds=8),
    "residual, cheese": Kind(Residual, goal="cheese", seeds=7),
    "looped, exit": looped(Looped, seeds=5),
    "looped, cheese": looped(Looped, goal="cheese", seeds=4),
    "value iteration, exit": iteration(seeds=8),
    "value iteration, cheese": iteration(goal="cheese", seeds=8),
    "residual, both goals in one cell": Kind(Residual, together=True),
    "residual, straight": reactive(Residual, lesson=straight, steps=1200, seeds=8, alike="straight"),
    "looped, straight": looped(Looped, lesson=straight, steps=1500, plans=False, alike="straight"),
    "residual, by heart": reactive(Residual, mazes=BY_HEART, steps=1200, seeds=10, alike="own"),
    "residual, near-sighted": reactive(partial(Residual, blocks=2), steps=1200),
    "looped, near-sighted": looped(partial(Looped, kernel=1), steps=800, plans=False),
    "residual, another task": reactive(Residual, lesson=sideways, steps=800),
    "residual, failed": reactive(Residual, steps=100, seeds=7),
    "residual, untrained": reactive(Residual, steps=0),
    "looped, untrained": looped(Looped, steps=0, plans=False),
    "value iteration, untrained": iteration(steps=0, plans=False),
    "residual, 4 blocks": Kind(partial(Residual, blocks=4), seeds=3, condition="depth 4"),
    "residual, 200 mazes": Kind(Residual, mazes=200, seeds=3, condition="200 mazes"),
    "residual, 1,000 mazes": Kind(Residual, mazes=1000, seeds=3, condition="1,000 mazes"),
}


def learned(kind: Kind, seed: int) -> Mazes:
    """The mazes that a network has learned from."""
    return draw(kind.mazes, 10_000 + seed, together=kind.together)


def train(kind: Kind, seed: int) -> nn.Module:
    """A network, trained for its number of steps."""
    torch.manual_seed(seed)
    network = kind.build().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if kind.steps == 0:
        return network.eval()
    mazes = learned(kind, seed)
    seen, right = mazes.seen.contiguous(memory_format=torch.channels_last), kind.lesson(kind.goal, mazes)
    most = 3e-2 if isinstance(network, ValueIteration) else 4e-3
    optimizer = torch.optim.Adam(network.parameters(), most)
    for step in range(kind.steps):
        done = step / kind.steps
        optimizer.param_groups[0]["lr"] = most * min(1.0, 0.05 + done / 0.03) * (1 + math.cos(math.pi * done)) / 2
        some = torch.randint(len(seen), (32,))
        if isinstance(network, Looped):  # right at every number of steps, not at one alone
            network.steps = int(torch.randint(5, 15, (1,)))
        of_batch = loss(network(seen[some]), right[some])
        optimizer.zero_grad()
        of_batch.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
    if isinstance(network, Looped):
        network.steps = 12
    return network.eval()
