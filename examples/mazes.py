"""Mazes of 9 x 9 cells with two goals, a solver, and small networks that decide in every cell at once.

A maze is ``[walls, exit, cheese]``, ``[n, 3, 9, 9]``; a decision is one of four steps. In each cell the right ones are
those of a shortest way to a goal; many can be right, and none is where there is no way. A network gives
``[n, 4, 9, 9]``.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_mesa.probes import Pairs, Patches

SIZE = 9
STEPS = ((-1, 0), (1, 0), (0, -1), (0, 1))
FAR = SIZE * SIZE


@dataclass(frozen=True)
class Mazes:
    """Walls ``[n, 9, 9]`` bool, and the cells of exit and cheese, ``[n]`` int64 each."""

    walls: Tensor
    exit: Tensor
    cheese: Tensor

    @property
    def seen(self) -> Tensor:
        """``[n, 3, 9, 9]`` what a network sees."""
        n = len(self.walls)
        goals = [F.one_hot(goal, SIZE * SIZE).view(n, SIZE, SIZE) for goal in (self.exit, self.cheese)]
        return torch.stack([self.walls.long(), *goals], 1).float()

    def right(self, goal: str) -> Tensor:
        """``[n, 4, 9, 9]`` bool, the steps of a shortest way to a goal."""
        return right_steps(self.walls, getattr(self, goal))


def draw(n: int, seed: int, *, together: bool = False, density: float = 0.35) -> Mazes:
    """Mazes with walls at random, and goals in free cells that are not walled off.

    Args:
        n: How many.
        seed: Of everything.
        together: Whether exit and cheese are in one cell.
        density: Share of walls.
    """
    random = torch.Generator().manual_seed(seed)
    walls = torch.rand(2 * n, SIZE, SIZE, generator=random) < density
    exit_ = _free_cell(~walls, random)
    reached = distances(walls, exit_) < FAR
    roomy = reached.sum((1, 2)).argsort(descending=True, stable=True)[:n].sort().values
    walls, exit_, reached = walls[roomy], exit_[roomy], reached[roomy]
    cheese = exit_ if together else _free_cell(reached & (_apart(exit_) > 0), random)
    return Mazes(walls, exit_, cheese)


def distances(walls: Tensor, goal: Tensor) -> Tensor:
    """``[n, 9, 9]`` steps to a goal, :data:`FAR` in walls and where there is no way; breadth first, all at once."""
    n = len(walls)
    at = torch.full((n, SIZE * SIZE), FAR, dtype=torch.int16)
    at[torch.arange(n), goal] = 0
    at = at.view(n, SIZE, SIZE)
    while True:
        nearest = _neighbours(at).amin(1) + 1
        better = torch.where(walls, torch.full_like(at, FAR), torch.minimum(at, nearest)).clamp(max=FAR)
        if torch.equal(better, at):
            return at
        at = better


def right_steps(walls: Tensor, goal: Tensor) -> Tensor:
    """``[n, 4, 9, 9]`` bool, steps that bring a cell nearer to a goal."""
    at = distances(walls, goal)
    return (_neighbours(at) < at[:, None]) & (at < FAR)[:, None] & ~walls[:, None]


def greedy_steps(walls: Tensor, goal: Tensor) -> Tensor:
    """``[n, 4, 9, 9]`` bool, steps into a free cell nearer to a goal as the crow flies: a rule, and no search."""
    from_goal = _apart(goal)
    free = _neighbours(walls.long(), outside=1) == 0
    nearer = _neighbours(from_goal) < from_goal[:, None]
    return nearer & free & ~walls[:, None]


def _neighbours(at: Tensor, outside: int = FAR) -> Tensor:
    padded = F.pad(at, (1, 1, 1, 1), value=outside)
    return torch.stack([padded[:, 1 + dy : 1 + dy + SIZE, 1 + dx : 1 + dx + SIZE] for dy, dx in STEPS], 1)


def _apart(cell: Tensor) -> Tensor:
    """``[n, 9, 9]`` steps to a cell if there were no walls."""
    rows, columns = cell // SIZE, cell % SIZE
    grid = torch.arange(SIZE)
    return (grid[:, None] - rows[:, None, None]).abs() + (grid - columns[:, None, None]).abs()


def _free_cell(free: Tensor, random: torch.Generator) -> Tensor:
    return torch.rand(free.shape, generator=random).masked_fill(~free, -1.0).flatten(1).argmax(1)


class Residual(nn.Module):
    """Convolutions of their own in each block."""

    def __init__(self, channels: int = 32, blocks: int = 8, kernel: int = 3) -> None:
        super().__init__()
        self.encode = nn.Conv2d(3, channels, kernel, padding=kernel // 2)
        self.blocks = nn.ModuleList(nn.Conv2d(channels, channels, kernel, padding=kernel // 2) for _ in range(blocks))
        self.decide = nn.Conv2d(channels, len(STEPS), 1)

    def forward(self, seen: Tensor) -> Tensor:
        hidden = F.relu(self.encode(seen))
        for block in self.blocks:
            hidden = hidden + F.relu(block(hidden))
        return self.decide(hidden)


class Looped(nn.Module):
    """One convolution again and again, which sees the maze each time; decides after so many steps."""

    def __init__(self, channels: int = 32, steps: int = 12, kernel: int = 3) -> None:
        super().__init__()
        self.steps = steps
        self.recall = nn.Identity()
        self.encode = nn.Conv2d(3, channels, 3, padding=1)
        self.step = nn.Conv2d(channels + 3, channels, kernel, padding=kernel // 2)
        self.decide = nn.Conv2d(channels, len(STEPS), 1)

    def forward(self, seen: Tensor) -> Tensor:
        hidden = F.relu(self.encode(self.recall(seen)))
        for _ in range(self.steps):
            hidden = hidden + F.relu(self.step(torch.cat([hidden, self.recall(seen)], 1)))
            hidden = hidden / hidden.detach().abs().amax((1, 2, 3), keepdim=True).clamp(min=1.0)
        return 10 * self.decide(hidden)


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


def loss(outputs: Tensor, right: Tensor) -> Tensor:
    """Mean over cells of ``-log`` of the probability of a right step."""
    log_probability = outputs.log_softmax(1).masked_fill(~right, -torch.inf).logsumexp(1)
    return -log_probability[right.any(1)].mean()


def accuracy(outputs: Tensor, right: Tensor) -> Tensor:
    """``[n]`` share of the cells with a right step where the most probable one is right."""
    hit = right.gather(1, outputs.argmax(1, keepdim=True)).squeeze(1)
    counted = right.any(1)
    return (hit & counted).sum((1, 2)) / counted.sum((1, 2)).clamp(min=1)


def far_changes(n: int, seed: int, goals: Sequence[str] = ("exit", "cheese"), *, radius: int = 3) -> Pairs:
    """Mazes in which one cell becomes a wall or free, and what that changes more than ``radius`` cells away.

    Args:
        n: How many of those where the change makes some far decision wrong, for each goal.
        seed: Of everything.
        goals: Where the right steps lead, base first.
        radius: Decisions count that are farther from the change than this.
    """
    kept: list[tuple[Tensor, ...]] = []
    for goal in goals:
        found = 0
        while found < n:
            seed += 1
            mazes, random = draw(4096, seed), torch.Generator().manual_seed(seed)
            changed = torch.rand(len(mazes.walls), SIZE * SIZE, generator=random)
            changed.scatter_(1, torch.stack([mazes.exit, mazes.cheese], 1), -1.0)
            cell = changed.argmax(1)
            walls = mazes.walls ^ F.one_hot(cell, SIZE * SIZE).view_as(mazes.walls).bool()
            after = Mazes(walls, mazes.exit, mazes.cheese)
            far = ~within(cell, radius)
            right, right_after = mazes.right(goal), after.right(goal)
            flips = far & right.any(1) & right_after.any(1) & ~(right & right_after).any(1)
            some = flips.flatten(1).any(1).nonzero()[: n - found, 0]
            rights = [of.right(name)[some] for of in (mazes, after) for name in goals]
            kept.append((mazes.seen[some], after.seen[some], far[some], *rights))
            found += len(some)
    before, after_, far, *rights = (torch.cat(x) for x in zip(*kept, strict=True))
    by_goal = [dict(zip(goals, half, strict=True)) for half in (rights[: len(goals)], rights[len(goals) :])]
    return Pairs(before, after_, by_goal[0], by_goal[1], far)


def moved_goals(n: int, seed: int, goals: Sequence[str] = ("exit", "cheese")) -> dict[str, Patches]:
    """For each goal, mazes in which it alone lies elsewhere.

    What is patched are the cells next to where it lay and lies. Decisions count that are more than 3 cells away from
    both, and that a rule, "straight to where it lies now", would get wrong.

    Args:
        n: How many.
        seed: Of everything.
        goals: Base first.
    """
    patches = {}
    for goal in goals:
        kept: list[tuple[Tensor, ...]] = []
        while sum(len(one[0]) for one in kept) < n:
            seed += 1
            mazes = draw(4096, seed)
            reached, old = distances(mazes.walls, mazes.exit) < FAR, getattr(mazes, goal)
            free = reached & (_apart(mazes.exit) > 0) & (_apart(mazes.cheese) > 0) & ~within(old, 3)
            new = _free_cell(free, torch.Generator().manual_seed(seed))
            after = replace(mazes, **{goal: new})
            right, right_after = mazes.right(goal), after.right(goal)
            by_rule = (greedy_steps(mazes.walls, new) & right_after).any(1)
            site = within(old, 1) | within(new, 1)
            far = ~within(old, 3) & ~within(new, 3)
            counted = far & right.any(1) & right_after.any(1) & ~(right & right_after).any(1) & ~by_rule
            some = counted.flatten(1).any(1)
            kept.append(tuple(x[some] for x in (mazes.seen, after.seen, site, right, right_after, counted)))
        patches[goal] = Patches(*(torch.cat(x)[:n] for x in zip(*kept, strict=True)))
    return patches


def within(cell: Tensor, radius: int) -> Tensor:
    """``[n, 9, 9]`` bool, cells at most so many rows and columns away from one."""
    grid = torch.arange(SIZE)
    rows, columns = cell // SIZE, cell % SIZE
    near_rows = (grid[:, None] - rows[:, None, None]).abs() <= radius
    return near_rows & ((grid - columns[:, None, None]).abs() <= radius)
