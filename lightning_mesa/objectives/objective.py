"""The face that every objective has: a score per item and, for discrete choices, what it prescribes."""

import math
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor

from lightning_mesa.attach.importing import imported
from lightning_mesa.errors import ConfigurationError, said, shown
from lightning_mesa.stats.many import some

# Functions return Any, as the help of a command line would list every subclass of Tensor.
Target: TypeAlias = str | int | Callable[[Any], Any]
ScoreFn: TypeAlias = Callable[[Any, Tensor], Any]

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
            f"{what} {shown(name)} cannot be part of a metric name: use letters, digits, '_', '.' and '-' only."
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
        raise ConfigurationError(f"{what} must be a function, or the import path of one, not {shown(function)}.")
    return function


def key_of(key: Any, what: str) -> Target:
    """What :func:`pick` takes, with a function imported where it is given as ``"package.module:name"``.

    Raises:
        ConfigurationError: If it is something else.
    """
    if isinstance(key, str) and ":" in key:
        key = imported(key, what)
    if isinstance(key, (str, int)) or callable(key):
        found: Target = key
        return found
    raise ConfigurationError(
        f"{what} must be a key or index of the batch, a function batch -> [n], or its import path "
        f"'package.module:name', not {shown(key)}."
    )


def named_keys(keys: Any, what: str) -> dict[str, Target]:
    """Name -> key, of one key, a list of them, or a mapping from names; a function is called after its own name.

    Raises:
        ConfigurationError: If one is no key, or two have one name.
    """
    if isinstance(keys, Mapping):
        return {str(name): key_of(key, f"{what}[{shown(name)}]") for name, key in keys.items()}
    alone = isinstance(keys, str) or not isinstance(keys, Iterable)
    named: dict[str, Target] = {}
    for i, key in enumerate([keys] if alone else keys):
        found = key_of(key, what if alone else f"{what}[{i}]")
        name = getattr(found, "__name__", type(found).__name__) if callable(found) else str(found)
        name = f"lambda_{i}" if name == "<lambda>" else name
        if name in named:
            raise ConfigurationError(f"{what}: two are named {name!r}; give names, {what}={{'name': key, ...}}.")
        named[name] = found
    return named


def asked(function: Callable[..., Any], what: str, *given: Any) -> Any:
    """What a function of the user's says.

    Raises:
        ConfigurationError: If it fails.
    """
    try:
        return function(*given)
    except ConfigurationError:
        raise
    except Exception as error:
        raise ConfigurationError(f"{what} failed with {said(error)}.") from error


def pick(batch: Any, key: Target, what: str) -> Any:
    """Take one entry out of a batch: a key of a mapping, an index of a sequence, or what a function makes of it.

    Raises:
        ConfigurationError: If the batch has no such entry; the message lists what it has.
    """
    if callable(key):
        return asked(key, what, batch)
    if isinstance(batch, Mapping):
        if key in batch:
            return batch[key]
        raise ConfigurationError(f"{what}: the batch has no key {key!r}; its keys are {shown([*batch])}.")
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


def tensor_of(value: Any) -> Any:
    """An array of numbers, of NumPy or alike, as a tensor; anything else as it is."""
    if isinstance(value, (Tensor, type)) or not hasattr(value, "__array__"):
        return value
    array = np.asarray(value)
    if array.dtype.kind not in "biuf":
        return array
    return torch.from_numpy(np.array(array, dtype=np.int64 if array.dtype.kind == "u" else None))


def labels_of(batch: Any, key: Target, what: str) -> Tensor | list[str]:
    """The labels under a key: a tensor, or a list of strings.

    Raises:
        ConfigurationError: If there are none.
    """
    labels = tensor_of(pick(batch, key, what))
    listed = isinstance(labels, Sequence) or (isinstance(labels, np.ndarray) and labels.ndim == 1)
    if listed and len(labels) and not isinstance(labels, str) and all(isinstance(label, str) for label in labels):
        return [str(label) for label in labels]
    try:
        return torch.as_tensor(labels)
    except (TypeError, ValueError, RuntimeError):
        raise ConfigurationError(
            f"{what}: {shown(labels)} holds no labels; they must be a tensor, an array or a list, one number or one "
            "string for each item."
        ) from None


def with_label(labels: Tensor | list[str], label: Any) -> Tensor:
    """``[n]`` bool: which labels are this one, on the labels' device; strings are compared as they are."""
    same = labels == label
    return same if isinstance(same, Tensor) else torch.tensor([one == label for one in labels], dtype=torch.bool)


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
                objective is not about discrete choices, or where the model gives class ids, as integers or bool.

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

    def ignores(self, batch: Any) -> Tensor | None:
        """Which items have no label, so that no model can be right or wrong on them; asked before they are scored.

        They are left out of the distribution, for all objectives: those are compared on the same items.

        Args:
            batch: The batch, on the model's device.

        Returns:
            ``[n]`` bool, or None for no item.
        """
        return None

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
            raise ConfigurationError(f"objective {self.name!r}: bounds must be two numbers, not {shown(bounds)}.")
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
