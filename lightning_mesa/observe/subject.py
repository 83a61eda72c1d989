"""A model as probes see it: it can be run, read and patched, beside a copy that has learned nothing."""

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from torch import Tensor, nn

from lightning_mesa.observe.activations import Edit, find_layers, patching, reading, seeing
from lightning_mesa.observe.isolation import random_streams

T = TypeVar("T")


class NotWholeError(Exception):
    """The model can be neither copied nor patched, as each process holds a part of it."""


class Subject:
    """A model that probes run, read and patch; to be used inside ``no_trace``, or in eval mode without gradients.

    Args:
        module: The model.
        call: ``(model, batch) -> outputs``, for the model and its copy.
        seed: Of the copy's weights.
        not_copied: What the copy shares with the model.
        whole: Whether each process holds the whole model, so that it can be copied and patched.

    Attributes:
        passes: Forward passes so far, those of the copy not counted.
    """

    def __init__(
        self,
        module: nn.Module,
        call: Callable[[nn.Module, Any], Any] = lambda module, batch: module(batch),
        seed: int = 0,
        not_copied: Sequence[object] = (),
        *,
        whole: bool = True,
    ) -> None:
        self.module = module
        self.call = call
        self.seed = seed
        self.whole = whole
        self.passes = 0
        self._not_copied = {id(owner): owner for owner in not_copied}
        self._copy: list[nn.Module] = []  # made when it is first asked for, shared by all that call the model
        self._in_copy: dict[int, tuple[object, Any]] = {}  # by id, as a probe need not have a hash

    def layers(self, patterns: Sequence[str]) -> list[str]:
        """Names of the layers that match; see :func:`~lightning_mesa.observe.activations.find_layers`."""
        return find_layers(self.module, patterns)

    def run(self, batch: Any, edits: Mapping[str, Edit] | None = None) -> Any:
        """The outputs on a batch, some layers patched.

        Raises:
            NotWholeError: If layers are to be patched, and each process holds a part of the model.
        """
        if edits and not self.whole:
            raise NotWholeError("no layer of a sharded model can be patched")
        self.passes += 1
        with patching(self.module, edits or {}):
            return self.call(self.module, batch)

    def read(self, batch: Any, layers: Sequence[str]) -> tuple[Any, dict[str, list[Tensor]]]:
        """The outputs on a batch, and what the layers gave, one activation for each tick."""
        self.passes += 1
        with reading(self.module, layers) as caught:
            outputs = self.call(self.module, batch)
        return outputs, caught

    def run_and_see(self, batch: Any) -> tuple[Any, set[str]]:
        """The outputs on a batch, and the names of the modules with parameters of their own that were called."""
        self.passes += 1
        with seeing(self.module) as called:
            outputs = self.call(self.module, batch)
        return outputs, called

    def apply(self, layer: str, activation: Tensor) -> Tensor:
        """What a module of the model, such as its head, makes of an activation."""
        part = self.module.get_submodule(layer)
        weight = next(part.parameters(), None)
        # Under autocast activations come in another precision.
        made: Tensor = part(activation if weight is None else activation.to(weight.dtype))
        return made

    def called(self, call: Callable[[nn.Module, Any], Any]) -> "Subject":
        """The same model, called in another way."""
        other = Subject(self.module, call, self.seed, [*self._not_copied.values()], whole=self.whole)
        other._copy = self._copy
        return other

    def like(self, module: nn.Module) -> "Subject":
        """Another model that is called in the same way."""
        return Subject(module, self.call, self.seed)

    @property
    def untrained(self) -> "Subject":
        """The same model with its weights drawn anew, each time the same ones.

        Raises:
            NotWholeError: If each process holds a part of the model.
        """
        if not self.whole:
            raise NotWholeError("no untrained copy of a sharded model can be made")
        if not self._copy:
            with random_streams(self.seed):
                self._copy.append(_drawn_anew(self.module, self._not_copied))
        return self.like(self._copy[0])

    def in_untrained(self, probe: object, measure: Callable[["Subject"], T]) -> T:
        """What a probe measures in the untrained copy: once, as that does not change."""
        if id(probe) not in self._in_copy:
            self._in_copy[id(probe)] = probe, measure(self.untrained)
        found: T = self._in_copy[id(probe)][1]
        return found


def _drawn_anew(module: nn.Module, not_copied: Mapping[int, object]) -> nn.Module:
    """A copy in eval mode whose parameters are drawn anew.

    Modules draw theirs by ``reset_parameters``; other parameters are normal with the spread that they have.

    Args:
        module: The model.
        not_copied: ``id(object) -> object`` of what the copy shares.
    """
    copied = copy.deepcopy(module, dict(not_copied))
    for part in copied.modules():
        part.training = False
        if callable(reset := getattr(part, "reset_parameters", None)):
            reset()
            continue
        for parameter in part.parameters(recurse=False):
            if parameter.is_floating_point() and parameter.numel() > 1:
                parameter.data.normal_(0.0, float(parameter.data.std()))
    return copied
