"""The objective of choosing a target."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lightning_mesa.errors import ConfigurationError, shown
from lightning_mesa.objectives.objective import Demand, Objective, Target, key_of, labels_of, with_label
from lightning_mesa.stats.many import largest

_AS_A_WHOLE = "score it as a whole by ScoreFunction(fn), for instance by the share of them that are right"


class Matches(Objective):
    """The objective of choosing the target: the score is 1 where the choice equals the target, else 0.

    Args:
        target: Key or index of the ``[n]`` targets in the batch, or a callable ``batch -> [n]``, which may be written
            as ``"package.module:name"``. Targets are integers, the numbers of the choices, or strings, see ``classes``.
        name: Part of the metric names; defaults to the key, or to the callable's name.
        ceiling: Score of an oracle, for instance where labels are noisy.
        ignore_index: The target of items that have no label, such as -100. They are left out of the distribution, for
            all listed objectives, as if it did not hold them.
        classes: Names of the choices, in the order of the model's outputs, for targets that are strings.

    Raises:
        ConfigurationError: If the name cannot be part of a metric name, or classes are no names.

    Example:
        >>> import torch
        >>> digit = Matches("digit")
        >>> batch = {"digit": torch.tensor([0, 1])}
        >>> digit.score(batch, torch.tensor([[2.0, 1.0], [3.0, 0.0]]))
        tensor([ True, False])
        >>> digit.prescribes(batch, 2)
        tensor([[ True, False],
                [False,  True]])
        >>> Matches("animal", classes=["cat", "dog"]).prescribes({"animal": ["dog"]}, 2)
        tensor([[False,  True]])
    """

    def __init__(
        self,
        target: Target,
        name: str | None = None,
        *,
        ceiling: float = 1.0,
        ignore_index: int | str | None = None,
        classes: Sequence[str] | None = None,
    ) -> None:
        self.target = key_of(target, "target")
        self._describe(self.target, name, (0.0, 1.0), ceiling)
        self.ignore_index = ignore_index
        self.classes = None if classes is None else _names(classes, f"objective {self.name!r}")

    def ignores(self, batch: Any) -> Tensor | None:
        """``[n]`` bool: the items whose target is ``ignore_index``."""
        if self.ignore_index is None:
            return None
        ignored = with_label(labels_of(batch, self.target, f"objective {self.name!r}"), self.ignore_index)
        return ignored if ignored.ndim == 1 else None  # targets of another shape are refused where they are scored

    def score(self, batch: Any, outputs: Tensor) -> Tensor:
        """``[n]`` bool: whether the largest of the outputs ``[n, A]`` is the target's."""
        self._check_outputs(outputs)
        targets = self._targets(batch).to(outputs.device)
        if len(targets) != len(outputs):
            raise ConfigurationError(
                f"objective {self.name!r}: {len(targets)} targets for {len(outputs)} rows of outputs; the outputs must "
                "be [n, A], one row per item. Pass outputs=, a function (outputs, batch) -> [n, A]."
            )
        return largest(outputs) == targets

    def prescribes(self, batch: Any, num_choices: int) -> Tensor:
        """``[n, A]`` bool with the target's choice set, none where the target is no choice."""
        targets = self._targets(batch)
        if self.classes is not None and len(self.classes) != num_choices:
            raise ConfigurationError(
                f"objective {self.name!r}: classes= has {len(self.classes)} names and the outputs {num_choices} "
                "choices: name each choice, in the order of the outputs."
            )
        known = (targets >= 0) & (targets < num_choices)
        none = torch.zeros(len(targets), num_choices, dtype=torch.bool, device=targets.device)
        return none.scatter_(1, targets.long().clamp(0, num_choices - 1)[:, None], known[:, None])

    def demands(self, batch: Any, num_choices: int) -> Sequence[Demand]:
        """That each target is one of the choices, or ``ignore_index``."""
        targets, ignored = self._targets(batch), self.ignores(batch)
        known = (targets >= 0) & (targets < num_choices)
        known = known if ignored is None else known | ignored.to(targets.device)

        def complaint() -> str:
            low, high = int(targets.min()), int(targets.max())
            odd = low if low < 0 else high
            return (
                f"objective {self.name!r}: targets range from {low} to {high}, but the outputs have {num_choices} "
                f"choices, 0 to {num_choices - 1}. If {odd} marks items without a label, pass ignore_index={odd}. If "
                "the choices are not the last dimension of the model's outputs, pass outputs=."
            )

        return (Demand(known.all(), complaint),)

    def _check_outputs(self, outputs: Tensor) -> None:
        """Refuse what does not have one number for each choice, with what can be done about each kind."""
        if outputs.ndim == 2 and outputs.shape[1] > 1 and outputs.is_floating_point():
            return
        if not outputs.is_floating_point():
            remedy = (
                f"Those of type {outputs.dtype} are choices already: give the logits, or pass outputs=lambda ids, "
                "batch: torch.nn.functional.one_hot(ids.long(), A).float(), with A classes."
            )
        elif outputs.ndim <= 2:
            one = "torch.cat([torch.zeros_like(o), o], 1)"
            one = one if outputs.ndim == 2 else one.replace("cat", "stack")
            remedy = (
                f"If this number is the logit of yes against no, pass outputs=lambda o, batch: {one}; a number to be "
                "predicted is scored by ScoreFunction or NegativeLoss."
            )
        else:
            remedy = (
                f"If an item has many choices (tokens, pixels), {_AS_A_WHOLE}. If one of them counts, pass outputs=, a "
                "function (outputs, batch) -> [n, A]."
            )
        raise ConfigurationError(
            f"objective {self.name!r}: the outputs have shape {list(outputs.shape)}; they must be [n, A], one row per "
            f"item and one column per choice. {remedy}"
        )

    def _targets(self, batch: Any) -> Tensor:
        """``[n]`` integers; -1 for strings that are ignored."""
        what = f"objective {self.name!r}"
        targets = labels_of(batch, self.target, what)
        if isinstance(targets, list):
            return self._numbers(targets, what)
        if targets.ndim == 1 and not targets.is_floating_point() and not targets.is_complex():
            return targets
        if targets.ndim > 1:
            remedy = f"If an item has several (labels, tokens, pixels), {_AS_A_WHOLE}."
        elif targets.is_floating_point() and bool((targets == targets.round()).all()):
            source = "batch[...]" if callable(self.target) else f"batch[{self.target!r}]"
            remedy = f"Pass Matches(lambda batch: {source}.long(), name={self.name!r})."
        else:
            remedy = "Pass a callable that computes it; a number to be predicted is scored by ScoreFunction."
        raise ConfigurationError(
            f"{what}: the target has shape {list(targets.shape)} and type {targets.dtype}; it must be [n] integers, "
            f"one choice per item. {remedy}"
        )

    def _numbers(self, labels: list[str], what: str) -> Tensor:
        if self.classes is None:
            raise ConfigurationError(
                f"{what}: the targets are strings, such as {shown(labels[0])}: pass classes=, a list of the names of "
                "all choices in the order of the model's outputs."
            )
        numbers = {name: i for i, name in enumerate(self.classes)}
        if isinstance(self.ignore_index, str):
            numbers.setdefault(self.ignore_index, -1)
        for label in labels:
            if label not in numbers:
                raise ConfigurationError(
                    f"{what}: the target {shown(label)} is none of the classes {shown(self.classes)}: add it to "
                    "classes=, at its place in the model's outputs, or pass it as ignore_index= if it means no label."
                )
        return torch.tensor([numbers[label] for label in labels])


def _names(classes: object, what: str) -> list[str]:
    """Names of classes, each another one."""
    names = list(classes) if isinstance(classes, Sequence) and not isinstance(classes, str) else []
    if len(names) < 2 or not all(isinstance(name, str) for name in names) or len(set(names)) < len(names):
        raise ConfigurationError(
            f"{what}: classes must be a list of the names of all choices, each once, like ['cat', 'dog'], not "
            f"{shown(classes)}."
        )
    return names
