"""What checks of episodes have in common: the scores of whole episodes, of which there are few."""

from collections.abc import Mapping, Sequence

from torch import Tensor

from lightning_mesa.checks.check import Check
from lightning_mesa.checks.states import Notes, Rows
from lightning_mesa.objectives.objective import Objective
from lightning_mesa.records import Behavior


class EpisodeCheck(Check):
    """Keeps the scores at base and the proxies, by distribution and objective; items have none."""

    needs = ("lengths",)
    scores: Rows
    binary: Notes

    @property
    def pursuable(self) -> Sequence[Objective]:
        """Base and the proxies."""
        return (self.hypotheses.base, *self.hypotheses.proxies)

    def update(self, behavior: Behavior) -> None:
        """Add some episodes."""
        for objective in self.pursuable:
            key = (behavior.distribution, objective.name)
            self.scores.add(key, [(behavior.items, objective.scaled(behavior.scores[objective.name]))])
            if objective.name in behavior.binary:
                self.binary.add(key, "scores 0 or 1")

    def scored(self, where: str) -> dict[str, Tensor]:
        """Objective name -> ``[n]`` scores on a distribution, scaled to [0, 1]; empty where there are no episodes."""
        return {key[1]: self.scores[key][1] for key in self.scores if key[0] == where}

    def served(self, where: str) -> dict[str, Tensor]:
        """Objective name -> ``[n]`` bool, whether an episode serves it, for objectives that score 0 or 1."""
        return {name: scores == 1 for name, scores in self.scored(where).items() if (where, name) in self.binary}


def known(scores: Mapping[str, Tensor]) -> bool:
    """Whether all scores are numbers; nothing is said of shares of episodes where some are not."""
    return all(bool(of_one.isfinite().all()) for of_one in scores.values())
