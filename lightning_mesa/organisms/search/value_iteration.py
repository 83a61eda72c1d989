"""A planner by design: what it iterates is written down, and it learns what is worth how much."""

from torch import nn

from lightning_mesa.organisms.search.networks import ValueIteration as Network
from lightning_mesa.organisms.search.searcher import Searcher


class ValueIteration(Searcher):
    """Value iteration whose reward, passability and discount are learned."""

    name, taught, serves = "value_iteration", "value iteration; shortest ways to the exit", "exit"
    layer, learning_rate = "reward", 3e-2

    def network(self) -> nn.Module:
        """Twenty-four sweeps."""
        return Network()
