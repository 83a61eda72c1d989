"""Mazes of 9 x 9 cells with two goals, a solver, and what probes ask about them.

A maze is ``[walls, exit, cheese]``, ``[n, 3, 9, 9]``; a decision is one of four steps. In each cell the right ones are
those of a shortest way to a goal; many can be right, and none is where there is no way. A network gives
``[n, 4, 9, 9]``.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import count

import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_mesa.probes import Alternatives, Pairs, Patches

SIZE = 9
STEPS = ((-1, 0), (1, 0), (0, -1), (0, 1))
CELLS = SIZE * SIZE
FAR = CELLS
GOALS = ("exit", "cheese")
"""Base, and the proxy."""


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
        goals = [F.one_hot(goal, CELLS).view(n, SIZE, SIZE) for goal in (self.exit, self.cheese)]
        return torch.stack([self.walls.long(), *goals], 1).float()

    def right(self, goal: str) -> Tensor:
        """``[n, 4, 9, 9]`` bool, the steps of a shortest way to a goal."""
        return right_steps(self.walls, getattr(self, goal))

    def __getitem__(self, chosen: Tensor) -> "Mazes":
        """Some of them."""
        return Mazes(self.walls[chosen], self.exit[chosen], self.cheese[chosen])


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
    at = torch.full((n, CELLS), FAR, dtype=torch.int16)
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


def _free_cell(free: Tensor, random: torch.Generator) -> Tensor:
    return torch.rand(free.shape, generator=random).masked_fill(~free, -1.0).flatten(1).argmax(1)


def accuracy(outputs: Tensor, right: Tensor) -> Tensor:
    """``[n]`` share of the cells with a right step where the most probable one is right."""
    hit = right.gather(1, outputs.argmax(1, keepdim=True)).squeeze(1)
    counted = right.any(1)
    return (hit & counted).sum((1, 2)) / counted.sum((1, 2)).clamp(min=1)


def far_changes(
    n: int, seed: int, goals: Sequence[str] = GOALS, *, radius: int = 3, known: Mazes | None = None
) -> Pairs:
    """Mazes in which one cell becomes a wall or free, and what that changes more than ``radius`` cells away.

    Args:
        n: How many of those where the change makes some far decision wrong, for each goal.
        seed: Of everything.
        goals: Where the right steps lead, base first.
        radius: Decisions count that are farther from the change than this.
        known: Mazes to be changed, each of them a group; None draws new ones.
    """

    def changed(goal: str, seed: int) -> tuple[Tensor, ...]:
        mazes, number = _candidates(known, seed)
        order = torch.rand(len(mazes.walls), CELLS, generator=torch.Generator().manual_seed(seed))
        cell = order.scatter(1, torch.stack([mazes.exit, mazes.cheese], 1), -1.0).argmax(1)
        after = replace(mazes, walls=mazes.walls ^ F.one_hot(cell, CELLS).view_as(mazes.walls).bool())
        far = ~within(cell, radius)
        right, right_after = mazes.right(goal), after.right(goal)
        flips = far & right.any(1) & right_after.any(1) & ~(right & right_after).any(1)
        some = flips.flatten(1).any(1).nonzero()[:n, 0]
        rights = [of.right(name)[some] for of in (mazes, after) for name in goals]
        return mazes.seen[some], after.seen[some], far[some], number[some], *rights

    kept = _gathered(n, seed, goals, changed).values()
    before, after, far, number, *rights = (torch.cat(x) for x in zip(*kept, strict=True))
    right, right_after = (dict(zip(goals, half, strict=True)) for half in (rights[: len(goals)], rights[len(goals) :]))
    return Pairs(before, after, right, right_after, far, None if known is None else number)


def moved_goals(n: int, seed: int, goals: Sequence[str] = GOALS, *, known: Mazes | None = None) -> dict[str, Patches]:
    """For each goal, mazes in which it alone lies elsewhere.

    What is patched are the cells next to where it lay and lies. Decisions count that are more than 3 cells away from
    both, and that a rule, "straight to where it lies now", would get wrong.

    Args:
        n: How many.
        seed: Of everything.
        goals: Base first.
        known: Mazes to move goals in, each of them a group; None draws new ones.
    """

    def moved(goal: str, seed: int) -> tuple[Tensor, ...]:
        mazes, number = _candidates(known, seed)
        after, near_old, near_new, counted = _elsewhere(mazes, goal, seed)
        right, right_after = mazes.right(goal), after.right(goal)
        counted = counted & right.any(1) & ~(right & right_after).any(1)
        some = counted.flatten(1).any(1)
        groups = () if known is None else (number,)
        found = (mazes.seen, after.seen, near_old | near_new, right, right_after, counted, *groups)
        return tuple(x[some] for x in found)

    return {goal: Patches(*found) for goal, found in _gathered(n, seed, goals, moved).items()}


def raised_goals(n: int, seed: int, goals: Sequence[str] = GOALS) -> dict[str, Alternatives]:
    """For each goal, mazes, the cells next to where it lies, and those next to another cell.

    That the goal is there will be said inside a network. Decisions count that are more than 3 cells away from both,
    nearer to the other cell, cannot serve both, and that a rule, "straight to the other cell", would get wrong.

    Args:
        n: How many.
        seed: Of everything.
        goals: Base first.
    """

    def raised(goal: str, seed: int) -> tuple[Tensor, ...]:
        mazes, _ = _candidates(None, seed)
        after, near_old, near_new, counted = _elsewhere(mazes, goal, seed)
        follows = after.right(goal)
        nearer = distances(mazes.walls, getattr(after, goal)) < distances(mazes.walls, getattr(mazes, goal))
        counted = counted & nearer & ~(mazes.right(goal) & follows).any(1)
        some = counted.flatten(1).any(1)
        return tuple(x[some] for x in (mazes.seen, near_old, near_new, follows, counted))

    return {goal: Alternatives(*found) for goal, found in _gathered(n, seed, goals, raised).items()}


def _gathered(
    n: int, seed: int, goals: Sequence[str], one: Callable[[str, int], tuple[Tensor, ...]]
) -> dict[str, list[Tensor]]:
    """The first n items for each goal, from as many seeds as it takes; no seed serves two goals."""
    seeds, found = count(seed + 1), {}
    for goal in goals:
        kept: list[tuple[Tensor, ...]] = []
        while sum(len(items[0]) for items in kept) < n:
            kept.append(one(goal, next(seeds)))
        found[goal] = [torch.cat(x)[:n] for x in zip(*kept, strict=True)]
    return found


def where_straight_is_right(pairs: Pairs, goal: str) -> Tensor:
    """``[n, 9, 9]`` bool, cells where before the change every step that goes straight at a goal is right.

    Args:
        pairs: What :func:`far_changes` has drawn.
        goal: The goal.
    """
    walls, where = pairs.before[:, 0].bool(), pairs.before[:, 1 if goal == "exit" else 2].flatten(1).argmax(1)
    by_rule = greedy_steps(walls, where)
    return by_rule.any(1) & ~(by_rule & ~pairs.right_before[goal]).any(1)


def _candidates(known: Mazes | None, seed: int) -> tuple[Mazes, Tensor]:
    """Mazes to choose from, and the number of each."""
    if known is None:
        mazes = draw(4096, seed)
        return mazes, torch.arange(4096)
    number = torch.randint(len(known.walls), (4096,), generator=torch.Generator().manual_seed(seed))
    return known[number], number


def _elsewhere(mazes: Mazes, goal: str, seed: int) -> tuple[Mazes, Tensor, Tensor, Tensor]:
    """Mazes with a goal elsewhere.

    Beside them, ``[n, 9, 9]`` bool: the cells next to where it lay, those next to where it lies, and the far decisions
    that a rule would get wrong then.
    """
    reached, old = distances(mazes.walls, mazes.exit) < FAR, getattr(mazes, goal)
    free = reached & (_apart(mazes.exit) > 0) & (_apart(mazes.cheese) > 0) & ~within(old, 3)
    new = _free_cell(free, torch.Generator().manual_seed(seed))
    after = replace(mazes, **{goal: new})
    right = after.right(goal)
    by_rule = (greedy_steps(mazes.walls, new) & right).any(1)
    far = ~within(old, 3) & ~within(new, 3)
    return after, within(old, 1), within(new, 1), far & right.any(1) & ~by_rule


def within(cell: Tensor, radius: int) -> Tensor:
    """``[n, 9, 9]`` bool, cells at most this many rows and columns away from one."""
    return _offsets(cell).amax(0) <= radius


def _apart(cell: Tensor) -> Tensor:
    """``[n, 9, 9]`` steps to a cell if there were no walls."""
    return _offsets(cell).sum(0)


def _offsets(cell: Tensor) -> Tensor:
    """``[2, n, 9, 9]`` rows and columns between each cell and one."""
    places = torch.arange(CELLS).view(SIZE, SIZE)
    at, to = (torch.stack([x // SIZE, x % SIZE]) for x in (places, cell))
    return (at[:, None] - to[:, :, None, None]).abs()
