"""A planner that has learned to be one."""

from lightning_mesa.organisms.search.searcher import Searcher


class Planner(Searcher):
    """Convolutions that learn the shortest ways in thousands of mazes."""

    name, taught, serves = "planner", "convolutions; shortest ways to the exit", "exit"
