"""The face that every objective has: a score per item and, for discrete choices, what it prescribes."""

import math
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from lightning_mesa.attach.importing import imported
from lightning_mesa.errors import ConfigurationError
from lightning_mesa.stats.many import some

# Functions return Any, as the help of a command line would list every subclass of Tensor.
Target = str | int | Callable[[Any], Any]
ScoreFn = Callable[[Any, Tensor], Any]

_NAME = re.compile(r"[\w.-]+")


def check_name(name: str, what: str, *, reserved: Iterable[str] = ()) -> str:
    """Refuse a name that cannot be part of a metric name.

    Args:
        name: The name.
        what: What it names, for the message.
        reserved: Names that mean something else.

    Raises:
        ConfigurationError: If it is empty, reserved, or has other characters than letters, digits, ``_.-``.
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name) or not name.strip("."):
        raise ConfigurationError(
            f"{what} {name!r} cannot be part of a metric name: use letters, digits, '_', '.' and '-' only."
        )
    if name in set(reserved):
        raise ConfigurationError(f"{what} {name!r} is reserved for a metric of its own: choose another name.")
    return name


def function_of(function: Any, what: str) -> Any:
    """The function, imported where it is given by its path; None stays None.

    Raises:
        ConfigurationError: If it is something else.
    """
    if isinstance(function, str):
        function = imported(function, what)
    if function is not None and not callable(function):
        raise ConfigurationError(f"{what} must be a function, or the import path of one, not {function!r}.")
    return function


def pick(batch: Any, key: str | int, what: str) -> Any:
    """Take one entry out of a batch: a key of a mapping or an index of a sequence.

    Raises:
        ConfigurationError: If the batch has no such entry; the message lists what it has.
    """
    if isinstance(batch, Mapping):
        if key in batch:
            return batch[key]
        raise ConfigurationError(f"{what}: the batch has no key {key!r}; its keys are {sorted(map(str, batch))}.")
    if isinstance(batch, Sequence) and isinstance(key, int):
        if -len(batch) <= key < len(batch):
            return batch[key]
        raise ConfigurationError(f"{what}: the batch has no entry {key}; it is a sequence of {len(batch)}.")
    if isinstance(key, str) and hasattr(batch, key):
        return getattr(batch, key)
    raise ConfigurationError(
        f"{what}: cannot take {key!r} out of a batch of type {type(batch).__name__}; name a key of a mapping, "
        "an index of a tuple, or pass a callable that takes the batch."
    )


@dataclass(frozen=True)
class Demand:
    """What must hold of the values in a batch. It is asked for many batches at once, as the answer is on the device.

    Attributes:
        holds: One bool, on the device.
        complaint: What is wrong, in words, where it does not hold.
    """

    holds: Tensor
    complaint: Callable[[], str]


class Objective(ABC):
    """A criterion by which behavior can be scored, one number per item.

    Attributes:
        name: Part of the metric names.
        bounds: Smallest and largest possible score.
        ceiling: Score of an oracle; the upper bound where none is known.
        chance: Score of the best output that does not look at the input, or None to measure it.
        of: What gets a score, in words. Objectives that are listed together are all of one kind.
    """

    of: ClassVar[Literal["items", "logged means", "episodes"]] = "items"
    name: str
    bounds: tuple[float, float]
    ceiling: float
    chance: float | None = None

    @abstractmethod
    def score(self, batch: Any, outputs: Tensor) -> Tensor:
        """Score the model's outputs.

        Args:
            batch: The batch, on the model's device.
            outputs: ``[n, A]`` one number per choice, the largest is chosen; or ``[n, ...]`` where the
                objective is not about discrete choices.

        Returns:
            ``[n]`` scores within ``bounds``; a bool tensor says that scores are 0 or 1.
        """

    def prescribes(self, batch: Any, num_choices: int) -> Tensor | None:
        """Which choices the objective prescribes.

        Args:
            batch: The batch, on the model's device.
            num_choices: Number of choices A.

        Returns:
            ``[n, A]`` bool, or None where the objective prescribes no discrete choices.
        """
        return None

    def demands(self, batch: Any, num_choices: int) -> Sequence[Demand]:
        """What must hold of the batch for :meth:`prescribes`; arguments as there."""
        return ()

    def scaled(self, score: Any) -> Any:
        """A score, or a tensor of scores, on [0, 1] by the objective's bounds."""
        low, high = self.bounds
        return (score - low) / (high - low)

    def _describe(
        self,
        source: Target | ScoreFn,
        name: str | None,
        bounds: Sequence[float],
        ceiling: float | None = None,
        chance: float | None = None,
    ) -> None:
        """Set name, bounds, ceiling and chance, and refuse those that do not fit together.

        Args:
            source: What the objective is called after where it has no name: a function, or a string.
            name: Its name.
            bounds: Smallest and largest possible score.
            ceiling: Score of an oracle; None for the upper bound.
            chance: Score of the best output that does not look at the input, or None to measure it.

        Raises:
            ConfigurationError: If one of them cannot be right.
        """
        self.name = check_name(_default_name(source) if name is None else name, "objective name")
        if len(bounds) != 2:
            raise ConfigurationError(f"objective {self.name!r}: bounds must be two numbers, not {bounds!r}.")
        low, high = self.bounds = float(bounds[0]), float(bounds[1])
        if not (math.isfinite(low) and math.isfinite(high) and low < high):
            raise ConfigurationError(
                f"objective {self.name!r}: bounds must be two finite numbers, low < high, not {self.bounds}."
            )
        self.ceiling = high if ceiling is None else float(ceiling)
        if not low < self.ceiling <= high:
            raise ConfigurationError(
                f"objective {self.name!r}: ceiling {self.ceiling} must lie above {low} and at most at {high}."
            )
        self.chance = None if chance is None else float(chance)
        if self.chance is not None and not low <= self.chance < self.ceiling:
            raise ConfigurationError(
                f"objective {self.name!r}: chance {self.chance} must lie between {low} and the ceiling {self.ceiling}."
            )


def bounds_kept(objective: Objective, scores: Tensor) -> Demand:
    """That no finite score lies outside the objective's bounds by more than rounding."""
    (low, high), each = objective.bounds, objective.of.removesuffix("s")
    tolerance = 1e-6 * (high - low)
    kept = (scores >= low - tolerance) & (scores <= high + tolerance)

    def complaint() -> str:
        finite = scores[scores.isfinite()]
        return (
            f"objective {objective.name!r} gave scores from {float(finite.min()):g} to {float(finite.max()):g}, "
            f"outside its bounds [{low:g}, {high:g}]: pass bounds= that hold for every {each}."
        )

    return Demand((kept | ~scores.isfinite()).all(), complaint)


def clipped(objective: Objective, scores: Tensor) -> Tensor:
    """``[n]`` float64: rounding errors cut off, NaN where a score is not finite; bool as 0 and 1."""
    if scores.dtype == torch.bool:
        return scores.double()
    return scores.double().clamp(*objective.bounds).where(scores.isfinite(), torch.nan)


def within_bounds(objective: Objective, scores: Tensor) -> Tensor:
    """The scores as :func:`clipped`.

    Raises:
        ConfigurationError: If one lies outside the objective's bounds.
    """
    demand = bounds_kept(objective, scores)
    if not demand.holds:
        raise ConfigurationError(demand.complaint())
    return clipped(objective, scores)


def conflicting(by_base: Tensor, by_proxy: Tensor) -> Tensor:
    """``[n]`` bool: the items on which no choice serves both, of ``[n, A]`` what each prescribes."""
    return some(by_base) & some(by_proxy) & ~some(by_base & by_proxy)


def _default_name(source: Target | ScoreFn) -> str:
    if not callable(source):
        return str(source)
    name = getattr(source, "__name__", type(source).__name__)
    if name == "<lambda>":
        raise ConfigurationError("an objective made from a lambda needs a name: pass name=.")
    return str(name)
