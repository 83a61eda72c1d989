"""A planner that has learned to be one."""

from torch import nn

from lightning_mesa.organisms.search.networks import Residual
from lightning_mesa.organisms.search.searcher import Searcher


class Planner(Searcher):
    """Convolutions that learn the shortest ways in thousands of mazes."""

    name, taught, serves = "planner", "convolutions; shortest ways to the exit", "exit"

    def network(self) -> nn.Module:
        """Eight residual blocks."""
        return Residual()
