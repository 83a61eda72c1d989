"""The listed objectives: what the model may be pursuing."""

from collections.abc import Sequence

from lightning_mesa.attach.importing import imported, is_path
from lightning_mesa.errors import ConfigurationError, shown
from lightning_mesa.objectives.objective import Objective, ScoreFn, check_name
from lightning_mesa.objectives.scores import ScoreFunction


class Hypotheses:
    """The listed objectives and their parts: one base, any proxies, perhaps an intended one.

    Args:
        base: The base objective, or a function ``(batch, outputs) -> [n]`` with scores in [0, 1].
        proxies: Candidate mesa-objectives.
        intended: What the programmers wanted, where that differs from base.
        witness: A score of capability, for telling a lost objective from a lost capability; it is not pursued.

    Attributes:
        all: The listed objectives, base first.
        scored: The same and the witness.

    Raises:
        ConfigurationError: If something listed is no objective, or two share a name.
    """

    def __init__(
        self,
        base: Objective | ScoreFn | str,
        proxies: Sequence[Objective | ScoreFn | str] = (),
        intended: Objective | ScoreFn | str | None = None,
        witness: Objective | ScoreFn | str | None = None,
    ) -> None:
        if isinstance(proxies, (Objective, str)) or callable(proxies):
            raise ConfigurationError("proxies must be a list of objectives, like proxies=[Matches('color')].")
        self.base = as_objective(base)
        self.proxies = tuple(as_objective(proxy) for proxy in proxies)
        self.intended = None if intended is None else as_objective(intended)
        self.all = (self.base, *self.proxies) + (() if self.intended is None else (self.intended,))
        self.witness = None if witness is None else as_objective(witness)
        self.scored = self.all + (() if self.witness is None else (self.witness,))
        names = [objective.name for objective in self.scored]
        for name in names:
            if names.count(name) > 1:
                raise ConfigurationError(f"two objectives are named {name!r}: give one of them name=.")
        for objective in self.scored:
            if objective.of != self.base.of:
                raise ConfigurationError(
                    f"objective {self.base.name!r} scores {self.base.of}, and {objective.name!r} {objective.of}: what "
                    "is listed together must be of one kind."
                )
        for proxy in self.proxies:
            check_name(proxy.name, "proxy name", reserved=("base", "neither"))

    @property
    def base_alone(self) -> bool:
        """Whether base is all there is to tell capability by."""
        return len(self.scored) == 1


def as_objective(objective: Objective | ScoreFn | str) -> Objective:
    """Wrap a function ``(batch, outputs) -> [n]`` with scores in [0, 1] as an objective; leave objectives.

    Raises:
        ConfigurationError: If it is neither, nor the import path of one.
    """
    if is_path(objective):
        objective = imported(str(objective), "objective")
    if isinstance(objective, Objective):
        return objective
    if callable(objective) and not isinstance(objective, type):
        return ScoreFunction(objective)
    raise ConfigurationError(
        f"{shown(objective)} is no objective: pass Matches('key'), NegativeLoss(fn, bounds), ScoreFunction(fn), or a "
        "function (batch, outputs) -> one score in [0, 1] per item."
    )
