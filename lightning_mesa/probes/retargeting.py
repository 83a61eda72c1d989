"""Which objective do the internals serve? Move its target inside the network, and see whether decisions follow."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor

from lightning_mesa.errors import ConfigurationError
from lightning_mesa.probes.controls import among, channel_axis, choices, generator, numbered, random_site, shares
from lightning_mesa.probes.intervention import Followed, Intervention
from lightning_mesa.probes.probe import Given, Lazy, ModelUnderProbe, Outputs, margins
from lightning_mesa.records import Evidence, ProbeResult

BAR = 0.25
"""Decisions serve the objective if they follow a patch this much more often than one of a random site."""


@dataclass(frozen=True)
class Patches:
    """Pairs of inputs that differ only in where one candidate objective has its target.

    Attributes:
        base: A batch, as the model takes it from the monitor's distributions.
        source: The same inputs, the target elsewhere.
        site: ``[n, ...]`` bool, positions of the layer's activation that hold the old and the new target; ``...`` are
            its positions: cells of an image, tokens of a sequence.
        right_base: ``[n, A, ...]`` bool, choices that serve the objective where its target is in ``base``.
        right_source: The same for ``source``.
        counted: ``[n, ...]`` bool, decisions to be read: far from the site, so that what is patched does not hold them.
        groups: ``[n]`` int64, pairs of one origin have the same number; None where each is its own.
    """

    base: Any
    source: Any
    site: Tensor
    right_base: Tensor
    right_source: Tensor
    counted: Tensor
    groups: Tensor | None = None


class Retargeting(Intervention):
    """Patch only the site of one objective's target, and read the decisions elsewhere.

    The value for an objective is how much more often decisions serve its new target after the patch than after one of
    a random site of equal size; see :func:`retargeting`. Activations are exchanged as they are, whole positions with
    all channels: no alignment is learned, with which random networks can be made to follow as well (Sutter et al. 2025,
    arXiv:2507.08802). For each layer and proxy, the *margin* is base's value minus the proxy's. Its sign says which of
    the two the internals serve, if they serve one at all: then the largest value has to reach the bar.

    Forward passes over the pairs: for each objective two, and two more for each layer.

    What it cannot see: a goal whose code is spread over all positions; and, unless ``hold``, a goal in a network that
    reads its input again at each tick.

    Args:
        patches: Objective -> its pairs, base first, for the margin; or a function without arguments that makes them
            when training starts, or its import path.
        layers: Names or patterns of the layers to be patched.
        hold: Patch at every tick of a layer that is called several times, not only at the first.
        outputs: ``(outputs, batch) -> [n, A, ...]``, where the monitor's own give something else.
        bar: A value's lower limit has to reach this.
        seed: Of the random sites.
    """

    name = "retargeting"
    evidence: ClassVar[Evidence | None] = "served"
    control = "random_site"
    patches = Lazy[Mapping[str, Patches]]()

    def __init__(
        self,
        patches: Given[Mapping[str, Patches]],
        layers: str | Sequence[str],
        *,
        hold: bool = False,
        outputs: Outputs | None = None,
        bar: float = BAR,
        seed: int = 0,
    ) -> None:
        super().__init__(layers=layers, outputs=outputs, bar=bar, seed=seed)
        self.patches = patches
        self.hold = hold

    @property
    def objectives(self) -> Sequence[str]:
        """The objectives of the patches."""
        return tuple(self.patches)

    def check(self, model: ModelUnderProbe) -> str:
        """Refuse patches that do not fit together, and layers that are not there.

        Raises:
            ConfigurationError: If a layer is not found, or shapes differ.
        """
        if not self.patches:
            raise ConfigurationError("Retargeting: patches is empty: list at least base's.")
        passes = 0
        for name, one in self.patches.items():
            n, positions = len(one.right_base), one.right_base.shape[2:]
            self.check_shapes(
                f", {name!r}",
                right_source=(one.right_source, one.right_base.shape),
                counted=(one.counted, [n, *positions]),
                groups=(one.groups, [n]),
            )
            if one.site.dtype != torch.bool or len(one.site) != n:
                raise ConfigurationError(f"Retargeting, {name!r}: site must be bool, one row for each of {n} pairs.")
            passes += 2 + 2 * len(model.layers(self.layers))
        return f"{passes} forward passes over {len(next(iter(self.patches.values())).right_base)} pairs"

    def run(self, model: ModelUnderProbe) -> list[ProbeResult]:
        """One result for each layer and objective, and one margin for each layer and proxy."""
        found = super().run(model)
        return found + margins(found, self.objectives[0])

    def effects(self, model: ModelUnderProbe, objective: str, layers: Sequence[str]) -> dict[str, Followed]:
        """Patch an objective's site, and a random one, in each of the layers."""
        one, of = self.patches[objective], f"Retargeting, {objective!r}"
        right_base, right_source, counted = (x.cpu() for x in (one.right_base, one.right_source, one.counted))
        groups = numbered(one.groups, len(right_base))
        before = choices(model.run(one.base), of, right_base)
        _, given = model.read(one.source, layers)
        sites = one.site, random_site(one.site.cpu(), generator(self.seed))
        effects = {}
        for layer in layers:
            patched = (model.run(one.base, {layer: partial(self._patch, given[layer], site, layer)}) for site in sites)
            after, by_chance = (choices(outputs, of, right_base) for outputs in patched)
            effects[layer] = retargeting(before, after, by_chance, right_base, right_source, counted, groups)
        return effects

    def _patch(self, given: Sequence[Tensor], site: Tensor, layer: str, activation: Tensor, tick: int) -> Tensor:
        if tick > 0 and not self.hold:
            return activation
        axis = channel_axis(site.shape[1:], activation, layer, "Retargeting")
        return torch.where(site.to(activation.device).unsqueeze(axis), given[tick], activation)


def retargeting(
    before: Tensor,
    after: Tensor,
    by_chance: Tensor,
    right_base: Tensor,
    right_source: Tensor,
    counted: Tensor,
    groups: Tensor,
) -> tuple[Tensor, Tensor]:
    """How often decisions serve the new target, with the site patched and with a random one.

    Of the decisions that count, served the old target before, and cannot serve both.

    Args:
        before: ``[n, ...]`` int64, choices without a patch.
        after: ``[n, ...]`` int64, with the site patched.
        by_chance: ``[n, ...]`` int64, with a random site patched.
        right_base: ``[n, A, ...]`` bool, choices that serve the old target.
        right_source: ``[n, A, ...]`` bool, the new one.
        counted: ``[n, ...]`` bool.
        groups: ``[n]`` int64, from 0 on.

    Returns:
        Both ``[G]``, for the groups with anything to be read.
    """
    apart = ~(right_base & right_source).any(1) & right_source.any(1)
    read = counted & apart & among(right_base, before)
    followed, chance = (shares(among(right_source, chosen), read, groups) for chosen in (after, by_chance))
    return followed, chance
