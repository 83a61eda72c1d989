"""Do successive iterates go down the objective of this context, more than that of another?"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lightning_mesa.errors import ConfigurationError, said
from lightning_mesa.objectives.objective import function_of
from lightning_mesa.probes.controls import group_means, numbered, shape_of, swaps
from lightning_mesa.probes.descent import Objective, contrasts, cosines, mean_contrast, parts
from lightning_mesa.probes.probe import Given, Lazy, ModelUnderProbe, Outputs, Probe, margins, of_estimate, without
from lightning_mesa.records import ProbeResult

BAR = 0.8
"""Steps descend their own context if their cosine with its way down is this much larger than in other contexts."""

SWAPS = 19
"""How many times groups exchange contexts: the least for a p-value of .05."""


@dataclass(frozen=True)
class Contexts:
    """Inputs that state what is to be minimised, and the objectives of which they may state it.

    Attributes:
        batch: A batch, as the model takes it from the monitor's distributions.
        contexts: What the objectives need to know of each input: a tensor ``[n, ...]``, or a mapping or tuple of such.
        objectives: Name -> ``(y [n, ...], contexts) -> [n]``, differentiable in y, lower is better, or its import path;
            base first. They are called with gradients on, on the contexts' device and in their precision.
        groups: ``[n]`` int64, inputs of one origin have the same number; None where each is its own.
    """

    batch: Any
    contexts: Any
    objectives: Mapping[str, Objective | str]
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
        contexts: The contexts, or a function without arguments that makes them when training starts, or its import
            path.
        layers: Names or patterns of the layers that give the iterates, in the order in which they are called, each as
            often as it is.
        decode: What makes an iterate of an activation: the name of a module of the model, such as its head, or a
            function ``(model, activation) -> y``, or its import path ``"package.module:name"``; None where the
            activation is the iterate.
        outputs: ``(outputs, batch) -> [n, ...]``, where the monitor's own cannot read what the model gives.
        bar: The lower limit has to reach this.
        seed: Of the exchanges.
    """

    name = "context_descent"
    rung = 4

    contexts = Lazy[Contexts]()

    def __init__(
        self,
        contexts: Given[Contexts],
        layers: str | Sequence[str],
        *,
        decode: str | Callable[[nn.Module, Tensor], Tensor] | None = None,
        outputs: Outputs | None = None,
        bar: float = BAR,
        seed: int = 0,
    ) -> None:
        super().__init__(layers=layers, outputs=outputs, bar=bar, seed=seed)
        self.contexts = contexts
        is_path = isinstance(decode, str) and ":" in decode
        self.decode = function_of(decode, "ContextDescent: decode") if is_path else decode

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
                raise ConfigurationError(
                    f"{of}: {name} is {shape_of(part)}; it must be a tensor with a row for each input."
                )
            sizes[name] = len(part)
        if not sizes:
            raise ConfigurationError(f"{of}: contexts is empty: give what the objectives need to know.")
        n = self._n
        if isinstance(data.batch, Tensor) and data.batch.ndim:
            sizes["batch"] = len(data.batch)
        if set(sizes.values()) != {n}:
            raise ConfigurationError(f"{of}: contexts and batch need a row for each input, and have {sizes}.")
        self.check_shapes(groups=(data.groups, [n]))
        model.layers(self.layers)
        if isinstance(self.decode, str) and self.decode not in dict(model.module.named_modules()):
            raise ConfigurationError(f"{of}: decode={self.decode!r} is no module of {type(model.module).__name__}.")
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
        groups = numbered(self.contexts.groups, self._n)
        if int(groups.max()) == 0:
            reason = "1 group: there is no other one to take contexts from"
            return [without("underpowered", reason, n=1, objective=name) for name in self.objectives]
        untrained = model.in_untrained(self, lambda copy: self._values(self._iterates(copy), groups))
        found = [self._result(name, iterates, groups, untrained[name]) for name in self.objectives]
        return found + margins(found, self.objectives[0])

    def _values(self, iterates: Sequence[Tensor], groups: Tensor) -> dict[str, float]:
        """The value for each objective."""
        found = {name: contrasts(self._cosines(iterates, name, groups)[0]) for name in self.objectives}
        return {name: _over_groups(contrast[0], groups) for name, contrast in found.items()}

    def _result(self, name: str, iterates: Sequence[Tensor], groups: Tensor, untrained: float) -> ProbeResult:
        found, lowered = self._cosines(iterates, name, groups)
        contrast = contrasts(found)
        per_group = group_means(contrast[0], contrast[0].isfinite(), groups)
        per_group = per_group[per_group.isfinite()]
        if not len(per_group):
            reason = "no step to be read: none has a length, or the objective is flat, or not finite"
            return without("underpowered", reason, objective=name)
        null = [_over_groups(of_draw, groups) for of_draw in contrast[1:]]
        counted = found[0].isfinite() & found[1:].isfinite().any(0)
        own, other = (
            _over_groups(cosine.where(counted, torch.nan).nanmean(0), groups)
            for cosine in (found[0], found[1:].nanmean(0))
        )
        detail = {
            "own": own,
            "other": other,
            "lowered": float(lowered[counted].double().mean()),
            "steps": len(iterates) - 1,
            "left_out": 1 - float(counted.double().mean()),
            "not_finite": int(sum(int((~y.flatten(1).isfinite().all(1)).sum()) for y in iterates)),
        }
        effect = mean_contrast(per_group)
        return of_estimate(effect, null, len(per_group), self.bar, untrained, objective=name, detail=detail)

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
        data, orders = self.contexts, swaps(groups, SWAPS, self.seed)
        objective = function_of(data.objectives[name], f"ContextDescent, {name!r}")
        try:
            return cosines(iterates, objective, data.contexts, orders)
        except Exception as error:  # whatever an objective of the user's may raise
            raise ConfigurationError(
                f"ContextDescent, {name!r}: the objective failed on iterates {list(iterates[0].shape)} with "
                f"{said(error)}"
            ) from error


def _over_groups(per_item: Tensor, groups: Tensor) -> float:
    """Mean over groups of the means of their items that have a value, 0 where none has."""
    return float(group_means(per_item, per_item.isfinite(), groups).nanmean().nan_to_num())
