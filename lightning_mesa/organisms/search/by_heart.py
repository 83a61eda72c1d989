"""A memoriser: in its own mazes it does what a planner does."""

from collections.abc import Mapping

from lightning_mesa.organisms.search.mazes import Mazes, draw, far_changes, moved_goals
from lightning_mesa.organisms.search.searcher import Searcher
from lightning_mesa.probes import Pairs, Patches

KNOWN = 48


class ByHeart(Searcher):
    """The planner's convolutions and lesson, in a few mazes again and again."""

    name, taught = "by_heart", f"convolutions; shortest ways in {KNOWN} mazes, probed in these"

    def learned(self, n: int, seed: int) -> Mazes:
        """See :class:`Searcher`."""
        return draw(min(n, KNOWN), seed)

    def reference(self, n: int, seed: int) -> Mazes:
        """Those that it knows by heart."""
        return self.learned(n, seed)

    def probed(self, seed: int) -> tuple[Pairs, Mapping[str, Patches]]:
        """See :class:`Searcher`."""
        known = self.learned(KNOWN, seed)
        return far_changes(400, seed + 20, known=known), moved_goals(400, seed + 50, known=known)
