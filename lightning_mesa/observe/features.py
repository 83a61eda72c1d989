"""What the model's last layer reads, and what it would read if the model had never learned anything."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from lightning_mesa.errors import said
from lightning_mesa.observe.activations import inside_compiled, reading_inputs
from lightning_mesa.observe.subject import NotWholeError, Subject
from lightning_mesa.records import Features

MAX_ITEMS = 2_000
"""Features are read of this many items of a distribution, the first ones."""


def compared(
    subject: Subject, read: dict[int, Tensor], outputs: Tensor, call: Callable[[nn.Module], Any], limit: int
) -> Features | str:
    """Features of a batch from the model and from its untrained copy, or why there are none.

    To be called inside ``no_trace``.

    Args:
        subject: The model.
        read: What :func:`linear_inputs` caught while the model ran on the batch.
        outputs: ``[n, A]``, the model's.
        call: Runs a model on the batch.
        limit: Keep this many items, the first ones.
    """
    own = _of_last_layer(read, outputs)
    if own is None:
        return f"no linear layer gives the {outputs.shape[1]} choices"
    try:
        copied = subject.untrained.module
        with linear_inputs(copied) as read_by_copy:
            call(copied)
    except NotWholeError as error:
        return str(error)
    except Exception as error:  # whatever a copied model may raise: it is no reason to end the look
        return f"the model's untrained copy failed with {said(error)}"
    other = _of_last_layer(read_by_copy, outputs)
    if other is None:
        return "the model's untrained copy takes another path"
    # Copies, as some models give out the same memory again.
    return Features(own[:limit].detach().float().clone(), other[:limit].detach().float().clone())


@contextmanager
def linear_inputs(module: nn.Module | None) -> Iterator[dict[int, Tensor]]:
    """Catch what linear layers read: number of outputs -> input of the last layer called that gives that many.

    Inside compiled modules nothing is caught, as a hook would have them compiled again; without a module neither.
    """
    caught: dict[int, Tensor] = {}
    layers: list[nn.Module] = []
    if module is not None:
        hidden = inside_compiled(module)
        named = module.named_modules()
        layers = [part for name, part in named if isinstance(part, nn.Linear) and name not in hidden]

    def keep(layer: nn.Module, given: Tensor) -> None:
        if isinstance(layer, nn.Linear):
            caught[layer.out_features] = given

    with reading_inputs(layers, keep):
        yield caught


def _of_last_layer(read: dict[int, Tensor], outputs: Tensor) -> Tensor | None:
    features = read.get(outputs.shape[1])
    return features if features is not None and features.ndim == 2 and len(features) == len(outputs) else None
