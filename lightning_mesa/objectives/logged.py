"""Objectives whose mean the validation loop logs already."""

from typing import Any

from torch import Tensor

from lightning_mesa.errors import ConfigurationError
from lightning_mesa.objectives.objective import Objective


class Logged(Objective):
    """An objective whose mean score the validation loop logs already: looking at it costs nothing.

    Distributions are validation loaders then, ``reference="val/0"``, ``shifted={"apart": "val/1"}``; looks come after
    validations. With several loaders Lightning logs ``METRIC/dataloader_idx_1``. Only means are known, so limits are
    those of :class:`~lightning_mesa.stats.intervals.BoundedMean`, and no items tell whom the model follows.

    Args:
        metric: Name under which ``validation_step`` logs it, averaged over the items.
        bounds: Smallest and largest score that one item can have.
        name: Part of the metric names; defaults to the metric's, its slashes replaced.
        ceiling: Score of an oracle; defaults to the upper bound.
        chance: Score of the best output that does not look at the input, such as the share of the largest class;
            defaults to the lower bound, which makes an untrained classifier look competent.

    Raises:
        ConfigurationError: If name, bounds, ceiling or chance do not fit.
    """

    of = "logged means"

    def __init__(
        self,
        metric: str,
        bounds: tuple[float, float] = (0.0, 1.0),
        name: str | None = None,
        *,
        ceiling: float | None = None,
        chance: float | None = None,
    ) -> None:
        self.metric = metric
        self._describe(metric.replace("/", "."), name, bounds, ceiling, chance)

    def score(self, batch: Any, outputs: Tensor) -> Tensor:
        """There are none for single items."""
        raise ConfigurationError(
            f"objective {self.name!r} is known by its logged mean alone: list Logged objectives only, or none."
        )
