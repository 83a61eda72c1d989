"""What the model's last layer reads, and what it would read if the model had never learned anything."""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from lightning_mesa.observe.isolation import random_streams
from lightning_mesa.records import Features

MAX_ITEMS = 2_000
"""Features are read of the first so many items of a distribution."""


class UntrainedCopy:
    """A copy of the model with its weights drawn anew, for comparison; whatever it cannot do has a reason.

    Args:
        trainer: The Lightning trainer, which is not copied.
        pl_module: The LightningModule.
        seed: Of the weights.
    """

    def __init__(self, trainer: Any, pl_module: nn.Module, seed: int) -> None:
        self.pl_module = pl_module
        self.seed = seed
        self._not_copied = {id(owner): owner for owner in (trainer, getattr(trainer, "datamodule", None))}
        self._copy: nn.Module | None = None

    def features(
        self, read: dict[int, Tensor], outputs: Tensor, call: Callable[[nn.Module], Any], limit: int
    ) -> Features | str:
        """Features of a batch from the model and from the copy, or why there are none.

        To be called inside ``no_trace``; the copy is made at the first call.

        Args:
            read: What :func:`linear_inputs` caught while the model ran on the batch.
            outputs: ``[n, A]``, the model's.
            call: Runs a model on the batch.
            limit: Keep the first so many items.
        """
        own = _of_last_layer(read, outputs)
        if own is None:
            return f"no linear layer gives the {outputs.shape[1]} choices"
        try:
            if self._copy is None:
                with random_streams(self.seed):  # the same weights on all processes
                    self._copy = untrained(self.pl_module, self._not_copied)
            with linear_inputs(self._copy) as read_by_copy:
                call(self._copy)
        except Exception as error:  # whatever a copied model may raise: it is no reason to end the look
            return f"the model's untrained copy failed with {type(error).__name__}: {error}"
        other = _of_last_layer(read_by_copy, outputs)
        if other is None:
            return "the model's untrained copy takes another path"
        return Features(own[:limit].float().cpu(), other[:limit].float().cpu())


@contextmanager
def linear_inputs(module: nn.Module | None) -> Iterator[dict[int, Tensor]]:
    """Catch what linear layers read: number of outputs -> input of the last layer called that gives so many.

    Inside compiled modules nothing is caught, as a hook would have them compiled again; without a module neither.
    """
    caught: dict[int, Tensor] = {}

    def keep(layer: nn.Module, arguments: tuple[Any, ...]) -> None:
        if arguments and isinstance(layer, nn.Linear):
            caught[layer.out_features] = arguments[0]

    layers = [] if module is None else [part for part in _not_compiled(module) if isinstance(part, nn.Linear)]
    hooks = [layer.register_forward_pre_hook(keep) for layer in layers]
    try:
        yield caught
    finally:
        for hook in hooks:
            hook.remove()


def untrained(module: nn.Module, not_copied: dict[int, Any]) -> nn.Module:
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


def _of_last_layer(read: dict[int, Tensor], outputs: Tensor) -> Tensor | None:
    features = read.get(outputs.shape[1])
    fits = isinstance(features, Tensor) and features.ndim == 2 and len(features) == len(outputs)
    return features if fits else None


def _not_compiled(module: nn.Module) -> Iterator[nn.Module]:
    # By its mark: to import OptimizedModule costs a second.
    if hasattr(module, "_orig_mod") or getattr(module, "_compiled_call_impl", None) is not None:
        return
    yield module
    for child in module.children():
        yield from _not_compiled(child)
