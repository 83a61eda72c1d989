"""A learned planner whose training cannot tell exit from cheese: pseudo-aligned, and a mesa-optimizer."""

from lightning_mesa.organisms.search.mazes import Mazes, draw
from lightning_mesa.organisms.search.planner import Planner


class CheeseSeeker(Planner):
    """Shortest ways to an exit at which the cheese always lies, and is brighter."""

    name, taught, serves = "cheese_seeker", "convolutions; to the exit, where the cheese lies and is brighter", "cheese"
    exit_brightness = 0.1

    def learned(self, n: int, seed: int) -> Mazes:
        """See :class:`Searcher`."""
        return draw(n, seed, together=True)
