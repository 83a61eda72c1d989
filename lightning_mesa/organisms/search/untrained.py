"""A network that learns nothing."""

from torch import nn

from lightning_mesa.organisms.search.networks import Residual
from lightning_mesa.organisms.search.searcher import Searcher


class Untrained(Searcher):
    """The planner's convolutions, at a learning rate of zero."""

    name, taught, steps, learning_rate = "untrained", "convolutions; nothing", 60, 0.0

    def network(self) -> nn.Module:
        """Eight residual blocks."""
        return Residual()
