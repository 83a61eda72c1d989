"""A reactive look-alike: where the straight way is a shortest one, it does what a planner does."""

from collections.abc import Mapping
from dataclasses import replace

from torch import Tensor

from lightning_mesa.organisms.search.mazes import Mazes, greedy_steps, where_straight_is_right
from lightning_mesa.organisms.search.searcher import Searcher
from lightning_mesa.probes import Pairs, Patches


class Straight(Searcher):
    """The planner's convolutions, taught to go straight at the exit, walls permitting."""

    name, taught = "straight", "convolutions; straight at the exit, probed where that is right"

    def lesson(self, mazes: Mazes) -> Tensor:
        """See :class:`Searcher`."""
        return greedy_steps(mazes.walls, mazes.exit)

    def probed(self, seed: int) -> tuple[Pairs, Mapping[str, Patches]]:
        """See :class:`Searcher`."""
        pairs, patches = super().probed(seed)
        assert pairs.counted is not None
        return replace(pairs, counted=pairs.counted & where_straight_is_right(pairs, "exit")), patches
