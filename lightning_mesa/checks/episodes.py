"""What measures of episodes have in common: the scores of whole episodes, of which there are few."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from lightning_mesa.checks.measure import Measure
from lightning_mesa.objectives.hypotheses import Hypotheses
from lightning_mesa.objectives.objective import Objective
from lightning_mesa.records import Behavior


class EpisodeMeasure(Measure):
    """Keeps the scores at base and the proxies, by distribution and objective; items have none."""

    def __init__(self, hypotheses: Hypotheses) -> None:
        super().__init__(hypotheses)
        self.pursuable: Sequence[Objective] = (hypotheses.base, *hypotheses.proxies)
        self.scores: dict[tuple[str, str], list[Tensor]] = {}
        self.binary: set[tuple[str, str]] = set()

    def update(self, behavior: Behavior) -> None:
        """Add some episodes."""
        if behavior.lengths is None:
            return
        for objective in self.pursuable:
            (low, high), key = objective.bounds, (behavior.distribution, objective.name)
            self.scores.setdefault(key, []).append((behavior.scores[objective.name] - low) / (high - low))
            if objective.name in behavior.binary:
                self.binary.add(key)

    def merge(self, other: Measure) -> None:
        """Add what another instance accumulated."""
        super().merge(other)
        if isinstance(other, EpisodeMeasure):
            self.binary |= other.binary
            for key, scores in other.scores.items():
                self.scores.setdefault(key, []).extend(scores)

    def scored(self, where: str) -> dict[str, Tensor]:
        """Objective name -> ``[n]`` scores on a distribution, scaled to [0, 1]; empty where there are no episodes."""
        return {name: torch.cat(scores) for (place, name), scores in self.scores.items() if place == where}

    def served(self, where: str) -> dict[str, Tensor]:
        """Objective name -> ``[n]`` bool, whether an episode serves it, for objectives that score 0 or 1."""
        return {name: scores == 1 for name, scores in self.scored(where).items() if (where, name) in self.binary}


def known(scores: Mapping[str, Tensor]) -> bool:
    """Whether all scores are numbers; nothing is said of shares of episodes where some are not."""
    return all(bool(of_one.isfinite().all()) for of_one in scores.values())
