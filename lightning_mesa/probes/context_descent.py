"""Do successive iterates go down the objective of this context, more than that of another?"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lightning_mesa.errors import ConfigurationError
from lightning_mesa.probes.controls import generator, numbered, of_other_groups
from lightning_mesa.probes.descent import Objective, contrasts, cosines, mean_contrast, parts
from lightning_mesa.probes.probe import ModelUnderProbe, Probe, ProbeResult, margins, of_estimate, without
from lightning_mesa.stats.competence import Competence

BAR = 0.8
"""Steps whose cosine with the way down is so much larger in their own context than in others descend it."""

SWAPS = 19
"""So many times groups exchange contexts: the least for a p-value of .05."""


@dataclass(frozen=True)
class Contexts:
    """Inputs that state what is to be minimised, and the objectives of which they may state it.

    Attributes:
        batch: A batch, as the model takes it from the monitor's distributions.
        contexts: What the objectives need to know of each input: a tensor ``[n, ...]``, or a mapping or tuple of such.
        objectives: Name -> ``(y [n, ...], contexts) -> [n]``, differentiable in y, lower is better; base first. They
            are called with gradients on, on the contexts' device and in their precision.
        groups: ``[n]`` int64, inputs of one origin have the same number; None where each is its own.
    """

    batch: Any
    contexts: Any
    objectives: Mapping[str, Objective]
    groups: Tensor | None = None


class ContextDescent(Probe):
    """Do successive iterates, of layers or ticks, descend the objective of *this* context more than of another?

    The value for an objective is the mean over groups of ``cos(dy_k, -grad J_c(y_k)) - cos(dy_k, -grad J_c'(y_k))``,
    averaged over steps and over contexts c' of other groups; see :func:`cosines` and :func:`contrasts`. It lies in
    [-2, 2]. The cosine alone is no sign of search, as ordinary residual networks have it too (Jastrzebski et al. 2018,
    arXiv:1710.04773). From 0.2 to 0.8 a network is amortised, or it cannot be told. Null: the contexts of yet other
    groups in place of the own one. For each proxy, the *margin* is base's value minus the proxy's. ``detail`` has both
    cosines, and the share of steps that lower the objective.

    One forward pass over the contexts, and one of an untrained copy at the first look; gradients are of the objectives
    alone, none passes through the model.

    What it cannot see: why iterates go there. A network that has its answer at once and then goes straight to it also
    goes down where the objective is nearly as steep in all directions: name contexts in which it is not. One that knows
    contexts by heart goes down in these: name contexts that it has not been trained on. Momentum and preconditioning (a
    step of Newton's) depart from the gradient, and so do steps that are left once the minimum is reached; search in a
    space that ``decode`` does not show is not seen at all. Limits are wide below 100 groups.

    Args:
        contexts: The contexts, or a function without arguments that makes them when training starts.
        layers: Names or patterns of the layers that give the iterates, in the order in which they are called, each as
            often as it is.
        decode: What makes an iterate of an activation: the name of a module of the model, such as its head, or a
            function ``(model, activation) -> y``; None where the activation is the iterate.
        outputs: ``(outputs, batch) -> [n, ...]``, where the monitor's own cannot read what the model gives.
        bar: The lower limit has to reach this.
        seed: Of the exchanges.
    """

    name = "context_descent"
    rung = 4

    def __init__(
        self,
        contexts: Contexts | Callable[[], Contexts],
        layers: str | Sequence[str],
        *,
        decode: str | Callable[[nn.Module, Tensor], Tensor] | None = None,
        outputs: Callable[[Any, Any], Any] | None = None,
        bar: float = BAR,
        seed: int = 0,
    ) -> None:
        self._contexts = contexts
        self.layers = (layers,) if isinstance(layers, str) else tuple(layers)
        self.decode = decode
        self.outputs = outputs
        self.bar = bar
        self.seed = seed
        self._untrained: dict[str, float] = {}

    @property
    def contexts(self) -> Contexts:
        """The contexts, made once."""
        if not isinstance(self._contexts, Contexts):
            self._contexts = self._contexts()
        return self._contexts

    @property
    def objectives(self) -> Sequence[str]:
        """The objectives that may be descended."""
        return tuple(self.contexts.objectives)

    def check(self, model: ModelUnderProbe) -> str:
        """Refuse contexts that do not fit together, and layers or a head that are not there.

        Raises:
            ConfigurationError: If a layer is not found, or contexts differ in number.
        """
        data, of = self.contexts, "ContextDescent"
        if not data.objectives:
            raise ConfigurationError(f"{of}: objectives is empty: list at least base's.")
        sizes: dict[str, int] = {}
        for name, part in parts(data.contexts):
            if not isinstance(part, Tensor) or part.ndim == 0 or len(part) == 0:
                what = list(part.shape) if isinstance(part, Tensor) else type(part).__name__
                raise ConfigurationError(f"{of}: {name} is {what}; it must be a tensor with a row for each input.")
            sizes[name] = len(part)
        if not sizes:
            raise ConfigurationError(f"{of}: contexts is empty: give what the objectives need to know.")
        n = self._n
        if isinstance(data.batch, Tensor) and data.batch.ndim:
            sizes["batch"] = len(data.batch)
        if set(sizes.values()) != {n}:
            raise ConfigurationError(f"{of}: contexts and batch need a row for each input, and have {sizes}.")
        if data.groups is not None and list(data.groups.shape) != [n]:
            raise ConfigurationError(f"{of}: groups is {list(data.groups.shape)} where it must be [{n}].")
        model.layers(self.layers)
        if isinstance(self.decode, str) and self.decode not in dict(model.module.named_modules()):
            raise ConfigurationError(f"{of}: decode={self.decode!r} is no module of {type(model.module).__name__}.")
        self._untrained = {}  # of this model, and not of one that the probe has seen before
        return f"1 forward pass over {n} contexts"

    def run(self, model: ModelUnderProbe) -> list[ProbeResult]:
        """One result for each objective, of the whole model, and one margin for each proxy."""
        iterates = self._iterates(model)
        if len(iterates) < 2:
            reason = (
                f"{list(self.layers)} give {len(iterates)} iterate in a forward pass, and a step needs two: name more "
                "layers, or one that is called again"
            )
            return [without("not_applicable", reason, objective=name) for name in self.objectives]
        groups = numbered(None if self.contexts.groups is None else self.contexts.groups.cpu(), self._n)
        if int(groups.max()) == 0:
            reason = "1 group: there is no other one to take contexts from"
            return [without("underpowered", reason, n=1, objective=name) for name in self.objectives]
        if not self._untrained:
            of_copy = self._iterates(model.untrained)
            for name in self.objectives:
                found = _over_groups(contrasts(self._cosines(of_copy, name, groups)[0])[0], groups)
                self._untrained[name] = float(found.nanmean().nan_to_num())
        results, effects = [], {}
        for name in self.objectives:
            result, effect = self._result(name, iterates, groups)
            results.append(result)
            if effect is not None:
                effects[name] = effect
        return results + margins(effects, self.objectives[0])

    def _result(self, name: str, iterates: Sequence[Tensor], groups: Tensor) -> tuple[ProbeResult, Competence | None]:
        found, lowered = self._cosines(iterates, name, groups)
        contrast = contrasts(found)
        per_group = _over_groups(contrast[0], groups)
        per_group = per_group[per_group.isfinite()]
        if not len(per_group):
            reason = "no step to be read: none has a length, or the objective is flat, or not finite"
            return without("underpowered", reason, objective=name), None
        null = [float(_over_groups(of_draw, groups).nanmean().nan_to_num()) for of_draw in contrast[1:]]
        counted = found[0].isfinite() & found[1:].isfinite().any(0)
        own, other = (
            float(_over_groups(cosine.where(counted, torch.nan).nanmean(0), groups).nanmean())
            for cosine in (found[0], found[1:].nanmean(0))
        )
        effect = mean_contrast(per_group)
        detail = {
            "own": own,
            "other": other,
            "lowered": float(lowered[counted].double().mean()),
            "steps": len(iterates) - 1,
            "left_out": 1 - float(counted.double().mean()),
            "not_finite": int(sum(int((~y.flatten(1).isfinite().all(1)).sum()) for y in iterates)),
            "untrained": self._untrained[name],
            "estimate": effect.record(),
        }
        untrained = self._untrained[name]
        return of_estimate(effect, null, len(per_group), self.bar, untrained, objective=name, detail=detail), effect

    @property
    def _n(self) -> int:
        return len(next(part for _, part in parts(self.contexts.contexts)))

    def _iterates(self, model: ModelUnderProbe) -> list[Tensor]:
        kept: list[Tensor] = []

        def keep(activation: Tensor, tick: int) -> Tensor:
            kept.append(activation.detach().clone())  # what comes next may be written over it
            return activation

        # Patched with themselves: so layers tell in which order they are called, whatever the ticks of each.
        model.run(self.contexts.batch, dict.fromkeys(model.layers(self.layers), keep))
        with torch.no_grad():
            iterates = [self._decoded(model, activation) for activation in kept]
        for y in iterates:
            if y.shape != iterates[0].shape or len(y) != self._n:
                raise ConfigurationError(
                    f"ContextDescent: layers {list(self.layers)} give iterates {list(iterates[0].shape)} and "
                    f"{list(y.shape)} where all must be of one shape, with {self._n} rows. decode= says how an iterate "
                    "is made of an activation."
                )
        return iterates

    def _decoded(self, model: ModelUnderProbe, activation: Tensor) -> Tensor:
        if isinstance(self.decode, str):
            return model.apply(self.decode, activation)
        return activation if self.decode is None else self.decode(model.module, activation)

    def _cosines(self, iterates: Sequence[Tensor], name: str, groups: Tensor) -> tuple[Tensor, Tensor]:
        draw = generator(self.seed)
        orders = [of_other_groups(groups, draw) for _ in range(SWAPS)]
        try:
            return cosines(iterates, self.contexts.objectives[name], self.contexts.contexts, orders)
        except Exception as error:  # whatever an objective of the user's may raise
            raise ConfigurationError(
                f"ContextDescent, {name!r}: the objective failed on iterates {list(iterates[0].shape)} with "
                f"{type(error).__name__}: {error}"
            ) from error


def _over_groups(per_item: Tensor, groups: Tensor) -> Tensor:
    """``[G]`` means of the items that have a value, NaN where none of a group has."""
    there = per_item.isfinite()
    zeros = per_item.new_zeros(int(groups.max()) + 1)
    total = zeros.index_add(0, groups[there], per_item[there])
    return total.div(zeros.index_add(0, groups[there], torch.ones_like(per_item[there])))
