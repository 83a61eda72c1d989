"""Something inside is moved, and decisions are read: what the causal probes share."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, TypeAlias

from torch import Tensor

from lightning_mesa.probes.controls import mean_difference, mean_excess
from lightning_mesa.probes.probe import ModelUnderProbe, Probe, of_estimate, without
from lightning_mesa.records import ProbeResult

Followed: TypeAlias = tuple[Tensor, Tensor]
"""Both ``[G]``: shares of decisions that followed what was moved, and what was moved at random."""


class Intervention(Probe):
    """How much more often decisions follow what is moved inside than what is moved at random.

    Attributes:
        control: Name in ``detail`` of the share that follows what is moved at random.
        nothing: The reason why there is no value, where there is nothing to be read.
    """

    rung = 3
    control: ClassVar[str]
    nothing: ClassVar[str] = "no decision to be read"

    @abstractmethod
    def effects(self, model: ModelUnderProbe, objective: str, layers: Sequence[str]) -> dict[str, Followed]:
        """Move what belongs to an objective in each of the layers."""

    def run(self, model: ModelUnderProbe) -> list[ProbeResult]:
        """One result for each layer and objective."""
        layers = model.layers(self.layers)
        found = self._all(model, layers)
        untrained = model.in_untrained(self, lambda copy: self._all(copy, layers))
        results = []
        for layer in layers:
            for name in self.objectives:
                followed, by_chance = found[layer, name]
                about: dict[str, Any] = {"layer": layer, "objective": name}
                if not len(followed):
                    results.append(without("underpowered", self.nothing, **about))
                    continue
                about["detail"] = {"followed": float(followed.mean()), self.control: float(by_chance.mean())}
                effect, of_copy = mean_difference(followed, by_chance), mean_excess(*untrained[layer, name])
                results.append(of_estimate(effect, (), len(followed), self.bar, of_copy, **about))
        return results

    def _all(self, model: ModelUnderProbe, layers: Sequence[str]) -> dict[tuple[str, str], Followed]:
        return {
            (layer, name): followed
            for name in self.objectives
            for layer, followed in self.effects(model, name, layers).items()
        }
