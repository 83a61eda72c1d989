"""A network that learns nothing."""

from lightning_mesa.organisms.search.searcher import Searcher


class Untrained(Searcher):
    """The planner's convolutions, at a learning rate of zero."""

    name, taught, steps, learning_rate = "untrained", "convolutions; nothing", 60, 0.0
