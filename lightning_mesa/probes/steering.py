"""Is what a layer encodes used? Raise an encoded alternative, and see whether decisions follow it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from lightning_mesa.errors import ConfigurationError
from lightning_mesa.probes.controls import among, channel_axis, choices, generator, numbered, shares
from lightning_mesa.probes.intervention import Followed, Intervention
from lightning_mesa.probes.probe import Given, Lazy, ModelUnderProbe, Outputs
from lightning_mesa.stats.ridge import ridge
from lightning_mesa.stats.splits import one_half

BAR = 0.25
"""What is encoded steers decisions if they follow it this much more often than a random direction."""

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


class Steering(Intervention):
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
        alternatives: Objective -> its inputs, base first; or a function without arguments that makes them when training
            starts, or its import path.
        layers: Names or patterns of the layers to be steered, each at its first tick.
        outputs: ``(outputs, batch) -> [n, A, ...]``, where the monitor's own give something else.
        bar: A value's lower limit has to reach this.
        seed: Of the random directions.
    """

    name = "steering"
    control = "random_direction"
    nothing = "no decision to be read, or nothing encoded"
    alternatives = Lazy[Mapping[str, Alternatives]]()

    def __init__(
        self,
        alternatives: Given[Mapping[str, Alternatives]],
        layers: str | Sequence[str],
        *,
        outputs: Outputs | None = None,
        bar: float = BAR,
        seed: int = 0,
    ) -> None:
        super().__init__(layers=layers, outputs=outputs, bar=bar, seed=seed)
        self.alternatives = alternatives

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
        for name, one in self.alternatives.items():
            n, positions = len(one.follows), one.follows.shape[2:]
            self.check_shapes(
                f", {name!r}",
                counted=(one.counted, [n, *positions]),
                site=(one.site, one.encoded.shape),
                groups=(one.groups, [n]),
            )
            if one.encoded.dtype != torch.bool or len(one.encoded) != n:
                raise ConfigurationError(f"Steering, {name!r}: encoded must be bool, one row for each of {n} inputs.")
        passes = len(self.alternatives) * (1 + 2 * len(model.layers(self.layers)))
        return f"{passes} forward passes over {len(next(iter(self.alternatives.values())).follows)} inputs"

    def effects(self, model: ModelUnderProbe, objective: str, layers: Sequence[str]) -> dict[str, Followed]:
        """Raise what is encoded for an objective, and step in a random direction, in each of the layers."""
        one, of = self.alternatives[objective], f"Steering, {objective!r}"
        outputs, given = model.read(one.batch, layers)
        encoded, follows, before = one.encoded.cpu(), one.follows.cpu(), choices(outputs, of, one.follows)
        groups = numbered(one.groups, len(follows))
        fitted = one_half(groups)
        read = one.counted.cpu() & ~among(follows, before) & follows.any(1)
        read = read & ~fitted.view(-1, *[1] * (read.ndim - 1))
        some, effects = encoded[fitted], {}
        for layer in layers:
            if not some.any() or some.all():
                effects[layer] = torch.zeros(0), torch.zeros(0)
                continue
            axis = channel_axis(one.site.shape[1:], given[layer][0], layer, "Steering")
            here = given[layer][0].movedim(axis, -1).detach().cpu().double()
            direction = Direction.of(here[fitted].flatten(0, -2), some.flatten())
            steps = direction.raised(here), direction.at_random(here, generator(self.seed))
            adds = (partial(_add, step.movedim(-1, axis), one.site, axis) for step in steps)
            after, by_chance = (choices(model.run(one.batch, {layer: add}), of, follows) for add in adds)
            followed, of_random = (shares(among(follows, chosen), read, groups) for chosen in (after, by_chance))
            effects[layer] = followed, of_random
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
        weights, intercepts = ridge(activations, holds[:, None], PENALTY)
        weight, intercept = weights[:, 0], intercepts[0]
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
