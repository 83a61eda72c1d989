"""Objectives given by a function that scores each item, or gives each item's loss."""

from typing import Any

from torch import Tensor

from lightning_mesa.objectives.objective import Objective, ScoreFn, function_of, tensor_of


class ScoreFunction(Objective):
    """An objective given by any function that scores each item.

    Args:
        fn: A function or its import path: ``(batch, outputs) -> [n]`` scores, one per item, as a tensor or an array;
            bool where they are 0 or 1.
        bounds: Smallest and largest possible score.
        name: Part of the metric names; defaults to the function's name.
        ceiling: Score of an oracle; defaults to the upper bound.
        chance: Score of the best output that does not look at the input. Default: the score of the uniform
            output (all zeros), measured; where classes are unbalanced, or outputs continuous or class ids, that is too
            low, and competence too high, so give it.

    Raises:
        ConfigurationError: If name, bounds, ceiling or chance do not fit.
    """

    def __init__(
        self,
        fn: ScoreFn | str,
        bounds: tuple[float, float] = (0.0, 1.0),
        name: str | None = None,
        *,
        ceiling: float | None = None,
        chance: float | None = None,
    ) -> None:
        self.fn: ScoreFn = function_of(fn, "fn")
        self._describe(self.fn, name, bounds, ceiling, chance)

    def score(self, batch: Any, outputs: Tensor) -> Tensor:
        """``[n]`` scores from the user's function."""
        scores: Tensor = tensor_of(self.fn(batch, outputs))
        return scores


class NegativeLoss(Objective):
    """The objective of a low loss: the score is minus the loss, clipped to the bounds.

    Args:
        fn: A function, or its import path: ``(batch, outputs) -> [n]`` losses, one per item (``reduction="none"``).
        bounds: Smallest and largest loss; larger losses count as the largest.
        name: Part of the metric names; defaults to the function's name.
        ceiling: *Score* (minus loss) of an oracle; defaults to minus the smallest loss.
        chance: *Score* of the best output that does not look at the input; see :class:`ScoreFunction`. For a
            cross-entropy that is minus the entropy of the targets.

    Raises:
        ConfigurationError: If name, bounds, ceiling or chance do not fit.
    """

    def __init__(
        self,
        fn: ScoreFn | str,
        bounds: tuple[float, float],
        name: str | None = None,
        *,
        ceiling: float | None = None,
        chance: float | None = None,
    ) -> None:
        self.fn: ScoreFn = function_of(fn, "fn")
        self._describe(self.fn, name, [-loss for loss in reversed(bounds)], ceiling, chance)

    def score(self, batch: Any, outputs: Tensor) -> Tensor:
        """``[n]`` minus the losses, clipped to the bounds; NaN stays NaN."""
        losses: Tensor = tensor_of(self.fn(batch, outputs))
        return -losses.clamp(-self.bounds[1], -self.bounds[0]) if isinstance(losses, Tensor) else losses
