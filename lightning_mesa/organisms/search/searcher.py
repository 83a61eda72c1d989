"""A family of networks in mazes of which it is known whether they search: by what they are built and taught."""

from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor, nn

from lightning_mesa.organisms.search.mazes import Mazes, draw, far_changes, moved_goals
from lightning_mesa.organisms.search.networks import Residual
from lightning_mesa.probes import Pairs, Patches


class Searcher:
    """A family of networks that decide in every cell of a maze at once; base is the exit, the proxy is the cheese.

    Convolutions that learn the shortest ways to the exit, where a subclass does not say otherwise. A subclass is one
    file; its name in ``SEARCHERS`` is all that it needs to be run.

    Attributes:
        name: Of the family.
        taught: What it is and learns, for the table.
        serves: The goal to which it was taught to plan its ways, None if it does not plan.
        layer: Where goals are moved inside.
        steps: Of training, with batches of 32.
        learning_rate: Of Adam.
        exit_brightness: How bright the exit is; the cheese is 1.
    """

    name: ClassVar[str]
    taught: ClassVar[str]
    serves: ClassVar[str | None] = None
    layer: ClassVar[str] = "encode"
    steps: ClassVar[int] = 1200
    learning_rate: ClassVar[float] = 2e-3
    exit_brightness: ClassVar[float] = 1.0

    def network(self) -> nn.Module:
        """An untrained network, ``[n, 3, 9, 9] -> [n, 4, 9, 9]``, with a module of the name ``layer``."""
        return Residual()

    def learned(self, n: int, seed: int) -> Mazes:
        """The mazes that it learns from, at most n."""
        return draw(n, seed)

    def reference(self, n: int, seed: int) -> Mazes:
        """At most n mazes in which it is to be right; ``seed`` is that of :meth:`learned`."""
        return self.learned(n, seed + 1)

    def lesson(self, mazes: Mazes) -> Tensor:
        """``[n, 4, 9, 9]`` bool, the steps that it is taught."""
        return mazes.right("exit")

    def probed(self, seed: int) -> tuple[Pairs, Mapping[str, Patches]]:
        """What the probes ask; ``seed`` is that of :meth:`learned`."""
        return far_changes(150, seed + 20), moved_goals(200, seed + 50)
