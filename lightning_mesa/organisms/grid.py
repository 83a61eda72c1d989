"""Small grids in which an agent decides on one move: where things are, and which moves bring it nearer to one."""

import torch
from torch import Tensor
from torch.nn import functional as F

SIZE, MOVES = 5, 4
CELLS = SIZE * SIZE
TRIES = 12
"""Draws among which two things are to lie apart."""


def anywhere(n: int, things: int, draw: torch.Generator, without: int) -> tuple[Tensor, ...]:
    """Cells ``[n]`` of things that are in different cells, none of them in one that is left out."""
    order = torch.rand(n, CELLS, generator=draw)
    order[:, without] = 2.0
    return order.argsort(1)[:, :things].unbind(1)


def apart(n: int, things: int, draw: torch.Generator) -> tuple[Tensor, ...]:
    """Cells ``[n]`` of an agent, two things that no one move brings nearer both, and more things.

    All are in different cells. In about one item of a hundred no such cells are found, and a move may.
    """
    cells = torch.rand(n, TRIES, CELLS, generator=draw).argsort(2)[:, :, :things]
    ways = [nearer(cells[:, :, 0].flatten(), cells[:, :, i].flatten()) for i in (1, 2)]
    found = ~(ways[0] & ways[1]).any(1).view(n, TRIES)
    return cells[torch.arange(n), found.float().argmax(1)].unbind(1)


def plane(cells: Tensor) -> Tensor:
    """``[n, SIZE, SIZE]`` with a one in a cell."""
    return F.one_hot(cells, CELLS).float().view(-1, SIZE, SIZE)


def nearer(agent: Tensor, goal: Tensor) -> Tensor:
    """``[n, 4]`` bool: which of up, down, left, right bring the agent's cell nearer to the goal's, another one."""
    down, right = goal // SIZE - agent // SIZE, goal % SIZE - agent % SIZE
    return torch.stack([down < 0, down > 0, right < 0, right > 0], 1)
