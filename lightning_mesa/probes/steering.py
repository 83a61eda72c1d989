"""Is what a layer encodes used? Raise an encoded alternative, and see whether decisions follow it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from lightning_mesa.errors import ConfigurationError
from lightning_mesa.probes.controls import among, channel_axis, choices, generator, mean_difference, numbered, shares
from lightning_mesa.probes.probe import ModelUnderProbe, Probe, ProbeResult, of_estimate, without
from lightning_mesa.stats.ridge import FoldSums, Ridge
from lightning_mesa.stats.splits import one_half

BAR = 0.25
"""Decisions that follow so much more often than for a random direction are steered by what is encoded."""

PENALTY = 1e-2
"""Of the linear probe, per item and for features of spread 1."""


@dataclass(frozen=True)
class Alternatives:
    """Inputs, where something is encoded in them, and what decisions would follow if it were encoded elsewhere.

    Attributes:
        batch: A batch, as the model takes it from the monitor's distributions.
        encoded: ``[n, ...]`` bool, positions of the layer's activation at which what is encoded holds, such as "the
            target of this objective is here"; ``...`` are its positions, none for a layer that gives ``[n, d]``.
        site: ``[n, ...]`` bool, positions at which it will be raised.
        follows: ``[n, A, ...]`` bool, choices that follow it from there.
        counted: ``[n, ...]`` bool, decisions to be read, such as those far from the site.
        groups: ``[n]`` int64, inputs of one origin have the same number; None where each is its own.
    """

    batch: Any
    encoded: Tensor
    site: Tensor
    follows: Tensor
    counted: Tensor
    groups: Tensor | None = None


class Steering(Probe):
    """Raise what a linear probe reads at some positions, and see whether decisions follow.

    On one half of the groups a linear probe ``w, b`` of what is encoded is fitted, at every position. On the other half
    ``h += max(0, (t - w h - b) / |w|^2) w`` at the site, ``t`` what the probe reads on average where it holds
    (Taufeeque et al. 2024, arXiv:2407.15421). The value is how much more often decisions that did not before follow
    then than after a step in a random direction as large by Mahalanobis norm.

    Forward passes over the inputs: for each objective one, and two more for each layer.

    What it cannot see: an objective that is not encoded linearly; one whose code is spread over other positions. It is
    fooled where what is steered is the decision itself, so read decisions elsewhere. A direction that is read but not
    used can still act by pathways that are dormant otherwise (Makelov et al. 2024, arXiv:2311.17030).

    Args:
        alternatives: Objective -> its inputs, or a function without arguments that makes them when training starts;
            base first.
        layers: Names or patterns of the layers to be steered, each at its first tick.
        outputs: ``(outputs, batch) -> [n, A, ...]``, where the monitor's own give something else.
        bar: A value's lower limit has to reach this.
        seed: Of the random directions.
    """

    name = "steering"
    rung = 3

    def __init__(
        self,
        alternatives: Mapping[str, Alternatives] | Callable[[], Mapping[str, Alternatives]],
        layers: str | Sequence[str],
        *,
        outputs: Callable[[Any, Any], Any] | None = None,
        bar: float = BAR,
        seed: int = 0,
    ) -> None:
        self._alternatives = alternatives
        self.layers = (layers,) if isinstance(layers, str) else tuple(layers)
        self.outputs = outputs
        self.bar = bar
        self.seed = seed
        self._untrained: dict[tuple[str, str], float] = {}

    @property
    def alternatives(self) -> Mapping[str, Alternatives]:
        """The inputs, made once."""
        if not isinstance(self._alternatives, Mapping):
            self._alternatives = self._alternatives()
        return self._alternatives

    @property
    def objectives(self) -> Sequence[str]:
        """The objectives of the alternatives."""
        return tuple(self.alternatives)

    def check(self, model: ModelUnderProbe) -> str:
        """Refuse alternatives that do not fit together, and layers that are not there.

        Raises:
            ConfigurationError: If a layer is not found, or shapes differ.
        """
        if not self.alternatives:
            raise ConfigurationError("Steering: alternatives is empty: list at least base's.")
        self._untrained = {}  # of this model, and not of one that the probe has seen before
        for name, one in self.alternatives.items():
            n, positions = len(one.follows), list(one.follows.shape[2:])
            for what, tensor, shape in (
                ("counted", one.counted, [n, *positions]),
                ("site", one.site, list(one.encoded.shape)),
                ("groups", one.groups, [n]),
            ):
                if tensor is not None and list(tensor.shape) != shape:
                    raise ConfigurationError(
                        f"Steering, {name!r}: {what} is {list(tensor.shape)} where it must be {shape}."
                    )
            if one.encoded.dtype != torch.bool or len(one.encoded) != n:
                raise ConfigurationError(f"Steering, {name!r}: encoded must be bool, one row for each of {n} inputs.")
        passes = len(self.alternatives) * (1 + 2 * len(model.layers(self.layers)))
        return f"{passes} forward passes over {len(next(iter(self.alternatives.values())).follows)} inputs"

    def run(self, model: ModelUnderProbe) -> list[ProbeResult]:
        """One result for each layer and objective."""
        layers = model.layers(self.layers)
        results = []
        for name, one in self.alternatives.items():
            if not all((name, layer) in self._untrained for layer in layers):
                for layer, (followed, by_chance) in self._effects(model.untrained, one, name, layers).items():
                    excess = (followed - by_chance).mean() if len(followed) else 0.0
                    self._untrained[name, layer] = float(excess)
            for layer, (followed, by_chance) in self._effects(model, one, name, layers).items():
                about: dict[str, Any] = {"layer": layer, "objective": name}
                if not len(followed):
                    results.append(without("underpowered", "no decision to be read, or nothing encoded", **about))
                    continue
                effect, untrained = mean_difference(followed, by_chance), self._untrained[name, layer]
                detail = {"followed": float(followed.mean()), "random_direction": float(by_chance.mean())}
                detail |= {"untrained": untrained}
                about["detail"] = detail | {"estimate": effect.record()}
                results.append(of_estimate(effect, (), len(followed), self.bar, untrained, **about))
        return results

    def _effects(
        self, model: ModelUnderProbe, one: Alternatives, name: str, layers: Sequence[str]
    ) -> dict[str, tuple[Tensor, Tensor]]:
        """Layer -> ``[G]`` shares that followed, and that did so after a random step."""
        outputs, given = model.read(one.batch, layers)
        like, of = one.follows, f"Steering, {name!r}"
        before = choices(outputs, of, like)
        groups = numbered(one.groups, len(like))
        fitted, follows = one_half(groups), one.follows.cpu()
        read = one.counted.cpu() & ~among(follows, before) & follows.any(1)
        read = read & ~fitted.view(-1, *[1] * (read.ndim - 1))
        effects = {}
        for layer in layers:
            activation = given[layer][0]
            axis = channel_axis(one.site.shape[1:], activation, layer, "Steering")
            here = activation.movedim(axis, -1).detach().cpu().double()
            encoded = one.encoded.cpu()
            direction = None
            if (some := encoded[fitted]).any() and not some.all():
                direction = Direction.of(here[fitted].flatten(0, -2), some.flatten())
            shares_ = torch.zeros(0, dtype=torch.float64), torch.zeros(0, dtype=torch.float64)
            if direction is not None:
                steps = direction.raised(here), direction.at_random(here, generator(self.seed))
                after, by_chance = (
                    choices(
                        model.run(one.batch, {layer: partial(_add, step.movedim(-1, axis), one.site, axis)}), of, like
                    )
                    for step in steps
                )
                shares_ = (
                    shares(among(follows, after), read, groups),
                    shares(among(follows, by_chance), read, groups),
                )
            effects[layer] = shares_
        return effects


@dataclass(frozen=True)
class Direction:
    """A linear probe of something, and how activations spread.

    Attributes:
        weight: ``[d]``.
        intercept: ``[]``.
        target: ``[]`` what the probe reads on average where it holds.
        root: ``[d, d]`` with ``root root^T`` the covariance of the activations.
    """

    weight: Tensor
    intercept: Tensor
    target: Tensor
    root: Tensor

    @staticmethod
    def of(activations: Tensor, holds: Tensor) -> "Direction":
        """Fit it.

        Args:
            activations: ``[m, d]`` float64.
            holds: ``[m]`` bool, neither all nor none.
        """
        sums = FoldSums.of(activations, holds[:, None].double(), torch.zeros(len(holds), dtype=torch.long), 1)
        weights, intercepts = Ridge(sums).fit(PENALTY)
        weight, intercept = weights[0, :, 0], intercepts[0, 0]
        covariance = torch.cov(activations.T).view(len(weight), len(weight))
        # Directions in which activations hardly spread would make any step look large.
        values, vectors = torch.linalg.eigh(covariance)
        values = values.clamp(min=1e-3 * float(values.mean().clamp(min=1e-12)))
        return Direction(weight, intercept, (activations[holds] @ weight + intercept).mean(), vectors * values.sqrt())

    def raised(self, activations: Tensor) -> Tensor:
        """``[..., d]`` the steps ``max(0, (t - w h - b) / (w C w)) C w`` that raise what is read to the target.

        Args:
            activations: ``[..., d]``.
        """
        short = (self.target - activations @ self.weight - self.intercept).clamp(min=0)
        along = self.root @ (self.root.T @ self.weight)
        return (short / (self.weight @ along).clamp(min=1e-12))[..., None] * along

    def at_random(self, activations: Tensor, draw: torch.Generator) -> Tensor:
        """``[..., d]`` steps in random directions, as large as :meth:`raised` by Mahalanobis norm."""
        large = torch.linalg.solve(self.root, self.raised(activations)[..., None])[..., 0].norm(dim=-1, keepdim=True)
        random = torch.randn(activations.shape, generator=draw, dtype=activations.dtype)
        steps: Tensor = (large * random / random.norm(dim=-1, keepdim=True)) @ self.root.T
        return steps


def _add(step: Tensor, site: Tensor, axis: int, activation: Tensor, tick: int) -> Tensor:
    if tick > 0:
        return activation
    moved = activation + step.to(activation)
    return torch.where(site.to(activation.device).unsqueeze(axis), moved, activation)
