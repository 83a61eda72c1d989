"""The objective of choosing a target."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lightning_mesa.attach.importing import imported
from lightning_mesa.errors import ConfigurationError
from lightning_mesa.objectives.objective import Demand, Objective, Target, pick
from lightning_mesa.stats.many import largest


class Matches(Objective):
    """The objective of choosing the target: the score is 1 where the choice equals the target, else 0.

    Args:
        target: Key or index of the ``[n]`` integer targets in the batch, or a callable ``batch -> [n]``, which may be
            written as ``"package.module:name"``.
        name: Part of the metric names; defaults to the key, or to the callable's name.
        ceiling: Score of an oracle, for instance where labels are noisy.

    Raises:
        ConfigurationError: If the name cannot be part of a metric name.

    Example:
        >>> import torch
        >>> digit = Matches("digit")
        >>> batch = {"digit": torch.tensor([0, 1])}
        >>> digit.score(batch, torch.tensor([[2.0, 1.0], [3.0, 0.0]]))
        tensor([ True, False])
        >>> digit.prescribes(batch, 2)
        tensor([[ True, False],
                [False,  True]])
    """

    def __init__(self, target: Target, name: str | None = None, *, ceiling: float = 1.0) -> None:
        if isinstance(target, str) and ":" in target:
            target = imported(target, "target")
        self.target: Target = target
        self._describe(target, name, (0.0, 1.0), ceiling)

    def score(self, batch: Any, outputs: Tensor) -> Tensor:
        """``[n]`` bool: whether the largest of the outputs ``[n, A]`` is the target's."""
        if outputs.ndim != 2:
            raise ConfigurationError(
                f"objective {self.name!r}: the outputs have shape {list(outputs.shape)}; they must be [n, A], one "
                "row per item and one column per choice. Pass outputs=, a function (outputs, batch) -> [n, A]."
            )
        targets = self._targets(batch)
        if len(targets) != len(outputs):
            raise ConfigurationError(
                f"objective {self.name!r}: {len(targets)} targets for {len(outputs)} rows of outputs; the outputs must "
                "be [n, A], one row per item. Pass outputs=, a function (outputs, batch) -> [n, A]."
            )
        return largest(outputs) == targets

    def prescribes(self, batch: Any, num_choices: int) -> Tensor:
        """``[n, A]`` bool with the target's choice set, none where the target is no choice."""
        targets = self._targets(batch)
        known = (targets >= 0) & (targets < num_choices)
        none = torch.zeros(len(targets), num_choices, dtype=torch.bool, device=targets.device)
        return none.scatter_(1, targets.long().clamp(0, num_choices - 1)[:, None], known[:, None])

    def demands(self, batch: Any, num_choices: int) -> Sequence[Demand]:
        """That each target is one of the choices."""
        targets = self._targets(batch)

        def complaint() -> str:
            return (
                f"objective {self.name!r}: targets range from {int(targets.min())} to {int(targets.max())}, but the "
                f"outputs have {num_choices} choices, 0 to {num_choices - 1}. If the choices are not the last "
                "dimension of the model's outputs, pass outputs=."
            )

        return (Demand(((targets >= 0) & (targets < num_choices)).all(), complaint),)

    def _targets(self, batch: Any) -> Tensor:
        what = f"objective {self.name!r}"
        target = self.target(batch) if callable(self.target) else pick(batch, self.target, what)
        target = torch.as_tensor(target)
        if target.ndim != 1 or target.is_floating_point() or target.is_complex():
            raise ConfigurationError(
                f"{what}: the target has shape {list(target.shape)} and type {target.dtype}; it must be [n] "
                "integers, one choice per item. Pass a callable that computes it from the batch."
            )
        return target
