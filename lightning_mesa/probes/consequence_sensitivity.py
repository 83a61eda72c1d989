"""Does a decision follow its far consequences?"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lightning_mesa.competence import Gap
from lightning_mesa.errors import ConfigurationError
from lightning_mesa.probes.controls import DRAWS, choices, generator, mean_share, numbered, of_other_groups, shares
from lightning_mesa.probes.probe import ModelUnderProbe, Probe, ProbeResult, of_estimate, without

BAR = 0.25
"""A decision that follows so much more often than it moves without a reason is sensitive to consequences."""


@dataclass(frozen=True)
class Pairs:
    """Inputs that differ far from the decisions that count, and what is right before and after.

    Attributes:
        before: A batch, as the model takes it from the monitor's distributions.
        after: The same inputs, each with a change.
        right_before: ``[n, A]`` or ``[n, A, ...]`` bool, the choices that are right before; by an oracle: a solver, a
            search, or an environment that is tried out. ``...`` are positions where the model decides more than once.
        right_after: The same after the change.
        counted: ``[n, ...]`` bool, the decisions that lie far enough from the change that nothing near them has
            changed; None for all.
        groups: ``[n]`` int64, pairs of one origin have the same number; None where each is its own.
    """

    before: Any
    after: Any
    right_before: Tensor
    right_after: Tensor
    counted: Tensor | None = None
    groups: Tensor | None = None


class ConsequenceSensitivity(Probe):
    """Minimal pairs that differ far from a decision: does the decision follow the consequence?

    See :func:`consequence_sensitivity` for the value. Null: the same with what is right after the change in other
    pairs. Two forward passes over the pairs.

    What it cannot see: whether there are steps. A network that has learned the map from whole inputs to right choices
    exactly, and looks at all of it, is as sensitive as one that searches. A search that does not reach as far as the
    pairs differ is not seen.

    Args:
        pairs: The pairs, or a function without arguments that makes them when training starts.
        sparring: A weak model that is called like the monitor's own, such as an early checkpoint or a shallow copy:
            decisions count only where the change leaves its own unmoved, so that no rule of its kind explains them
            (Jenner et al. 2024, arXiv:2406.00877). Where no radius says what is near, it takes its place.
        outputs: ``(outputs, batch) -> [n, A, ...]``, where the monitor's own give something else.
        bar: The lower limit has to reach this.
        seed: Of the null.
    """

    name = "consequence_sensitivity"
    rung = 2

    def __init__(
        self,
        pairs: Pairs | Callable[[], Pairs],
        *,
        sparring: nn.Module | None = None,
        outputs: Callable[[Any, Any], Any] | None = None,
        bar: float = BAR,
        seed: int = 0,
    ) -> None:
        self._pairs = pairs
        self.sparring = sparring
        self.outputs = outputs
        self.bar = bar
        self.seed = seed
        self._untrained: float | None = None

    @property
    def pairs(self) -> Pairs:
        """The pairs, made once."""
        if not isinstance(self._pairs, Pairs):
            self._pairs = self._pairs()
        return self._pairs

    def check(self, model: ModelUnderProbe) -> str:
        """Refuse pairs that do not fit together.

        Raises:
            ConfigurationError: If their shapes differ.
        """
        pairs, of = self.pairs, "ConsequenceSensitivity"
        right = pairs.right_before
        if right.dtype != torch.bool or pairs.right_after.dtype != torch.bool or right.ndim < 2:
            raise ConfigurationError(f"{of}: right_before and right_after must be bool, [n, A] or [n, A, ...].")
        if right.shape != pairs.right_after.shape:
            raise ConfigurationError(
                f"{of}: right_before is {list(right.shape)} and right_after {list(pairs.right_after.shape)}."
            )
        for name, mask, shape in (
            ("counted", pairs.counted, [len(right), *right.shape[2:]]),
            ("groups", pairs.groups, [len(right)]),
        ):
            if mask is not None and list(mask.shape) != shape:
                raise ConfigurationError(f"{of}: {name} is {list(mask.shape)} where it must be {shape}.")
        return f"2 forward passes over {len(right)} pairs"

    def run(self, model: ModelUnderProbe) -> list[ProbeResult]:
        """One result for the whole model."""
        pairs = self.pairs
        groups = numbered(pairs.groups, len(pairs.right_before))
        counted = torch.ones(_positions(pairs), dtype=torch.bool) if pairs.counted is None else pairs.counted.cpu()
        if self.sparring is not None:
            weak = self._chosen(model.like(self.sparring))
            counted = counted & (weak[0] == weak[1])
        if self._untrained is None:
            self._untrained = self._value(*self._chosen(model.untrained), counted, groups)
        before, after = self._chosen(model)
        followed, moved = consequence_sensitivity(
            before, after, pairs.right_before.cpu(), pairs.right_after.cpu(), counted, groups
        )
        n = min(len(followed), len(moved))
        if n == 0:
            return [without("underpowered", "no pair changes what is right, of the decisions that are right before")]
        draw = generator(self.seed)
        null = []
        for _ in range(DRAWS):
            others = pairs.right_after.cpu()[of_other_groups(groups, draw)] if len(followed) > 1 else None
            if others is None:
                break
            by_chance = shares(
                _among(others, after),
                _flipped(before, pairs.right_before.cpu(), pairs.right_after.cpu(), counted),
                groups,
            )
            null.append(float(by_chance.mean() - moved.mean()))
        gap = Gap(mean_share(followed), mean_share(moved))
        detail: dict[str, Any] = {
            "followed": float(followed.mean()),
            "moved": float(moved.mean()),
            "untrained": self._untrained,
        }
        detail |= {"estimate": {"reference": gap.reference.record(), "shifted": gap.shifted.record()}}
        return [of_estimate(gap, null, n, self.bar, self._untrained, detail=detail)]

    def _chosen(self, model: ModelUnderProbe) -> tuple[Tensor, Tensor]:
        before, after = (
            choices(model.run(batch), f"ConsequenceSensitivity, {name}", self.pairs.right_before)
            for name, batch in (("before", self.pairs.before), ("after", self.pairs.after))
        )
        return before, after

    def _value(self, before: Tensor, after: Tensor, counted: Tensor, groups: Tensor) -> float:
        followed, moved = consequence_sensitivity(
            before, after, self.pairs.right_before.cpu(), self.pairs.right_after.cpu(), counted, groups
        )
        return float(followed.mean() - moved.mean()) if len(followed) and len(moved) else 0.0


def consequence_sensitivity(
    before: Tensor, after: Tensor, right_before: Tensor, right_after: Tensor, counted: Tensor, groups: Tensor
) -> tuple[Tensor, Tensor]:
    """How often decisions follow a change of what is right, and how often they move where nothing has changed.

    ``P(f(x') in A' | f(x) in A, A and A' disjoint)`` and ``P(f(x') != f(x) | A = A')``, the difference of whose means
    over groups is the value; given that f was right before, so that it is no accuracy. A is what is right before the
    change, A' after it; of the decisions that count.

    Args:
        before: ``[n, ...]`` int64, choices before the change.
        after: ``[n, ...]`` int64, choices after it.
        right_before: ``[n, A, ...]`` bool.
        right_after: ``[n, A, ...]`` bool.
        counted: ``[n, ...]`` bool.
        groups: ``[n]`` int64, from 0 on.

    Returns:
        ``[G]`` shares that followed and ``[H]`` that moved, of the groups where anything can.
    """
    flipped = _flipped(before, right_before, right_after, counted)
    same = counted & (right_before == right_after).all(1) & right_before.any(1)
    return shares(_among(right_after, after), flipped, groups), shares(before != after, same, groups)


def _flipped(before: Tensor, right_before: Tensor, right_after: Tensor, counted: Tensor) -> Tensor:
    """``[n, ...]`` bool, decisions that count, were right, and are right no more."""
    apart = ~(right_before & right_after).any(1) & right_after.any(1)
    return counted & apart & _among(right_before, before)


def _among(right: Tensor, chosen: Tensor) -> Tensor:
    return right.gather(1, chosen[:, None]).squeeze(1)


def _positions(pairs: Pairs) -> list[int]:
    return [len(pairs.right_before), *pairs.right_before.shape[2:]]
