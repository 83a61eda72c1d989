"""Objectives: what a model may be pursuing, as a score per item and, for discrete choices, what it prescribes."""

import math
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from lightning_mesa.errors import ConfigurationError
from lightning_mesa.importing import imported, is_path

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


class Objective(ABC):
    """A criterion by which behavior can be scored, one number per item.

    Attributes:
        name: Part of the metric names.
        bounds: Smallest and largest possible score.
        ceiling: Score of an oracle; the upper bound where none is known.
        chance: Score of the best output that does not look at the input, or None to measure it.
        of: What gets a score. Objectives that are listed together are all of one kind.
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

    def _check_levels(self) -> None:
        """Refuse bounds, ceiling or chance that do not fit together."""
        low, high = self.bounds
        if not (math.isfinite(low) and math.isfinite(high) and low < high):
            raise ConfigurationError(
                f"objective {self.name!r}: bounds must be two finite numbers, low < high, not {self.bounds}."
            )
        if not low < self.ceiling <= high:
            raise ConfigurationError(
                f"objective {self.name!r}: ceiling {self.ceiling} must lie above {low} and at most at {high}."
            )
        if self.chance is not None and not low <= self.chance < self.ceiling:
            raise ConfigurationError(
                f"objective {self.name!r}: chance {self.chance} must lie between {low} and the ceiling {self.ceiling}."
            )


class Matches(Objective):
    """The objective of choosing the target: the score is 1 where the choice equals the target, else 0.

    Args:
        target: Key or index of the ``[n]`` integer targets in the batch, or a callable ``batch -> [n]``, which may be
            written as ``"package.module:name"``.
        name: Part of the metric names; defaults to the key, or to the callable's name.
        ceiling: Score of an oracle, for instance where labels are noisy.

    Raises:
        ConfigurationError: If the name cannot be part of a metric name.

    Example:
        >>> import torch
        >>> digit = Matches("digit")
        >>> batch = {"digit": torch.tensor([0, 1])}
        >>> digit.score(batch, torch.tensor([[2.0, 1.0], [3.0, 0.0]]))
        tensor([ True, False])
        >>> digit.prescribes(batch, 2)
        tensor([[ True, False],
                [False,  True]])
    """

    def __init__(self, target: Target, name: str | None = None, *, ceiling: float = 1.0) -> None:
        if isinstance(target, str) and ":" in target:
            target = imported(target, "target")
        self.target: Target = target
        self.name = check_name(_default_name(target) if name is None else name, "objective name")
        self.bounds = (0.0, 1.0)
        self.ceiling = float(ceiling)
        self._check_levels()

    def score(self, batch: Any, outputs: Tensor) -> Tensor:
        """``[n]`` bool: whether the largest of the outputs ``[n, A]`` is the target's."""
        if outputs.ndim != 2:
            raise ConfigurationError(
                f"objective {self.name!r}: the outputs have shape {list(outputs.shape)}; they must be [n, A], one "
                "row per item and one column per choice. Pass outputs=, a function (outputs, batch) -> [n, A]."
            )
        targets = self._targets(batch)
        if len(targets) != len(outputs):
            raise ConfigurationError(
                f"objective {self.name!r}: {len(targets)} targets for {len(outputs)} rows of outputs; the outputs must "
                "be [n, A], one row per item. Pass outputs=, a function (outputs, batch) -> [n, A]."
            )
        return outputs.argmax(-1) == targets

    def prescribes(self, batch: Any, num_choices: int) -> Tensor:
        """``[n, A]`` bool with the target's choice set."""
        targets = self._targets(batch)
        prescribed = targets[:, None] == torch.arange(num_choices, device=targets.device)
        if not prescribed.any(1).all():
            raise ConfigurationError(
                f"objective {self.name!r}: targets range from {int(targets.min())} to {int(targets.max())}, but the "
                f"outputs have {num_choices} choices, 0 to {num_choices - 1}. If the choices are not the last "
                "dimension of the model's outputs, pass outputs=."
            )
        return prescribed

    def _targets(self, batch: Any) -> Tensor:
        what = f"objective {self.name!r}"
        target = self.target(batch) if callable(self.target) else pick(batch, self.target, what)
        target = torch.as_tensor(target)
        if target.ndim != 1 or target.is_floating_point() or target.is_complex():
            raise ConfigurationError(
                f"{what}: the target has shape {list(target.shape)} and type {target.dtype}; it must be [n] "
                "integers, one choice per item. Pass a callable that computes it from the batch."
            )
        return target


class ScoreFunction(Objective):
    """An objective given by any function that scores each item.

    Args:
        fn: A function or its import path: ``(batch, outputs) -> [n]`` scores, one per item; bool where they are 0 or 1.
        bounds: Smallest and largest possible score.
        name: Part of the metric names; defaults to the function's name.
        ceiling: Score of an oracle; defaults to the upper bound.
        chance: Score of the best output that does not look at the input. Default: the score of the uniform
            output (all zeros), measured; where classes are unbalanced or outputs continuous that is too low,
            and competence too high, so give it.

    Raises:
        ConfigurationError: If name, bounds, ceiling or chance do not fit.
    """

    def __init__(
        self,
        fn: ScoreFn | str,
        bounds: tuple[float, float] = (0.0, 1.0),
        name: str | None = None,
        *,
        ceiling: float | None = None,
        chance: float | None = None,
    ) -> None:
        self.fn: ScoreFn = function_of(fn, "fn")
        self.name = check_name(_default_name(self.fn) if name is None else name, "objective name")
        self.bounds = two_floats(bounds, self.name)
        self.ceiling = self.bounds[1] if ceiling is None else float(ceiling)
        self.chance = None if chance is None else float(chance)
        self._check_levels()

    def score(self, batch: Any, outputs: Tensor) -> Tensor:
        """``[n]`` scores from the user's function."""
        scores: Tensor = self.fn(batch, outputs)
        return scores


class NegativeLoss(Objective):
    """The objective of a low loss: the score is minus the loss, clipped to the bounds.

    Args:
        fn: A function, or its import path: ``(batch, outputs) -> [n]`` losses, one per item (``reduction="none"``).
        bounds: Smallest and largest loss; larger losses count as the largest.
        name: Part of the metric names; defaults to the function's name.
        ceiling: *Score* (minus loss) of an oracle; defaults to minus the smallest loss.
        chance: *Score* of the best output that does not look at the input; see :class:`ScoreFunction`. For a
            cross-entropy that is minus the entropy of the targets.

    Raises:
        ConfigurationError: If name, bounds, ceiling or chance do not fit.
    """

    def __init__(
        self,
        fn: ScoreFn | str,
        bounds: tuple[float, float],
        name: str | None = None,
        *,
        ceiling: float | None = None,
        chance: float | None = None,
    ) -> None:
        self.fn: ScoreFn = function_of(fn, "fn")
        self.name = check_name(_default_name(self.fn) if name is None else name, "objective name")
        low, high = two_floats(bounds, self.name)
        self.bounds = (-high, -low)
        self.ceiling = -low if ceiling is None else float(ceiling)
        self.chance = None if chance is None else float(chance)
        self._check_levels()

    def score(self, batch: Any, outputs: Tensor) -> Tensor:
        """``[n]`` minus the losses, clipped to the bounds; NaN stays NaN."""
        losses: Tensor = self.fn(batch, outputs)
        return -losses.clamp(-self.bounds[1], -self.bounds[0])


class Logged(Objective):
    """An objective whose mean score the validation loop logs already: looking at it costs nothing.

    Distributions are validation loaders then, ``reference="val/0"``, ``shifted={"apart": "val/1"}``; looks come after
    validations. With several loaders Lightning logs ``METRIC/dataloader_idx_1``. Only means are known, so limits are
    those of :class:`~lightning_mesa.intervals.BoundedMean`, and no items tell whom the model follows.

    Args:
        metric: Name under which ``validation_step`` logs it, averaged over the items.
        bounds: Smallest and largest score that one item can have.
        name: Part of the metric names; defaults to the metric's, its slashes replaced.
        ceiling: Score of an oracle; defaults to the upper bound.
        chance: Score of the best output that does not look at the input, such as the share of the largest class;
            defaults to the lower bound, which makes an untrained classifier look competent.

    Raises:
        ConfigurationError: If name, bounds, ceiling or chance do not fit.
    """

    of = "logged means"

    def __init__(
        self,
        metric: str,
        bounds: tuple[float, float] = (0.0, 1.0),
        name: str | None = None,
        *,
        ceiling: float | None = None,
        chance: float | None = None,
    ) -> None:
        self.metric = metric
        self.name = check_name(metric.replace("/", ".") if name is None else name, "objective name")
        self.bounds = two_floats(bounds, self.name)
        self.ceiling = self.bounds[1] if ceiling is None else float(ceiling)
        self.chance = None if chance is None else float(chance)
        self._check_levels()

    def score(self, batch: Any, outputs: Tensor) -> Tensor:
        """There are none for single items."""
        raise ConfigurationError(
            f"objective {self.name!r} is known by its logged mean alone: list Logged objectives only, or none."
        )


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
        of: What they score: items, logged means, or episodes.

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
        self.of = self.base.of
        for objective in self.scored:
            if objective.of != self.of:
                raise ConfigurationError(
                    f"objective {self.base.name!r} scores {self.of}, and {objective.name!r} {objective.of}: what is "
                    "listed together must be of one kind."
                )
        for proxy in self.proxies:
            check_name(proxy.name, "proxy name", reserved=("base", "neither"))

    @property
    def base_alone(self) -> bool:
        """Whether base is all there is to tell capability by."""
        return len(self.scored) == 1


def within_bounds(objective: Objective, scores: Tensor) -> Tensor:
    """The scores, rounding errors cut off, NaN where they are not finite.

    Raises:
        ConfigurationError: If one lies outside the objective's bounds.
    """
    (low, high), each = objective.bounds, objective.of.removesuffix("s")
    finite = scores[scores.isfinite()]
    tolerance = 1e-6 * (high - low)
    if len(finite) and not (finite.min() >= low - tolerance and finite.max() <= high + tolerance):
        raise ConfigurationError(
            f"objective {objective.name!r} gave scores from {float(finite.min()):g} to {float(finite.max()):g}, "
            f"outside its bounds [{low:g}, {high:g}]: pass bounds= that hold for every {each}."
        )
    return scores.clamp(low, high).where(scores.isfinite(), torch.nan)


def conflicting(by_base: Tensor, by_proxy: Tensor) -> Tensor:
    """``[n]`` bool: the items on which no choice serves both, of ``[n, A]`` what each prescribes."""
    return by_base.any(1) & by_proxy.any(1) & ~(by_base & by_proxy).any(1)


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
        f"{objective!r} is no objective: pass Matches('key'), NegativeLoss(fn, bounds), ScoreFunction(fn), or a "
        "function (batch, outputs) -> one score in [0, 1] per item."
    )


def _default_name(source: Target | ScoreFn) -> str:
    if not callable(source):
        return str(source)
    name = getattr(source, "__name__", type(source).__name__)
    if name == "<lambda>":
        raise ConfigurationError("an objective made from a lambda needs a name: pass name=.")
    return str(name)


def two_floats(bounds: Sequence[float], name: str) -> tuple[float, float]:
    """Bounds as they were given, in whatever kind of sequence.

    Raises:
        ConfigurationError: If they are not two.
    """
    if len(bounds) != 2:
        raise ConfigurationError(f"objective {name!r}: bounds must be two numbers, not {bounds!r}.")
    return float(bounds[0]), float(bounds[1])
