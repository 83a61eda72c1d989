"""A model of which each process holds a part: all run it in lock-step, and find it as it was.

Under FSDP2 a module gathers its parameters from all processes before it runs, so a process that runs it once more than
another, or no more after an error, waits for ever. Here processes meet before each batch and before each gathering, see
:func:`~lightning_mesa.observe.processes.meet`. A model counts as sharded under Lightning's ``ModelParallelStrategy``.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import count, islice
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from lightning_mesa.observe.processes import meet

T = TypeVar("T")


def is_sharded(trainer: Any) -> bool:
    """Whether processes may hold parts of the model."""
    return any(kind.__name__ == "ModelParallelStrategy" for kind in type(trainer.strategy).__mro__)


def whole(tensor: Tensor) -> Tensor:
    """The tensor itself, gathered where each process holds a part of it; all must call it."""
    gathered: Tensor = tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor
    return gathered


def in_step(trainer: Any, batches: Iterable[T]) -> Iterator[tuple[T, bool]]:
    """As many batches on every process, with whether they count.

    One that has run out of batches gets its last one again, or another process's if it never had any.

    Args:
        trainer: The trainer.
        batches: This process's; of a sharded model they can be pickled.
    """
    if not is_sharded(trainer):
        yield from ((batch, True) for batch in batches)
        return
    own, last = iter(batches), list[T]()
    for turn in count():
        new = [*islice(own, 1)]
        has = meet(trainer, "the next batch", bool(new))
        if not any(has):
            return
        if turn == 0 and not all(has):
            lender = has.index(True)
            last = meet(trainer, "the first batch", new if trainer.global_rank == lender else None)[lender]
        last = new or last
        yield last[0], bool(new)


@contextmanager
def lock_step(trainer: Any, module: nn.Module) -> Iterator[None]:
    """Let processes meet before a module gathers its parameters; each holds its part again afterwards.

    Nothing happens where each process holds the whole model.

    Args:
        trainer: The trainer.
        module: The LightningModule.
    """
    if not is_sharded(trainer):
        yield
        return
    gathering = {part: name for name, part in module.named_modules() if _gathers(part)}
    with ExitStack() as stack:
        for part, name in gathering.items():
            # Which module is the root is settled by the first call: by the training's, not by a part that we call.
            part._get_fsdp_state()._lazy_init()
            stack.callback(_put_back, part, gathered=_is_gathered(part))
            stack.enter_context(_without_prefetch(part))
            stack.callback(part.register_forward_pre_hook(_meets(trainer, name), prepend=True).remove)
        yield


def _gathers(part: nn.Module) -> bool:
    return hasattr(part, "_get_fsdp_state")


def _meets(trainer: Any, name: str) -> Callable[..., None]:
    def hook(*_: Any) -> None:
        meet(trainer, f"layer {name!r}")

    outside: Callable[..., None] = torch.compiler.disable(hook)  # type: ignore[no-untyped-call]
    return outside  # of what is compiled


@contextmanager
def _without_prefetch(part: Any) -> Iterator[None]:
    """Gather nothing before its turn: after an error it would wait, and be taken for the parameters of a later step."""
    state = part._get_fsdp_state()
    kept, state._states_to_forward_prefetch = state._states_to_forward_prefetch, []
    try:
        yield
    finally:
        state._states_to_forward_prefetch = kept


def _is_gathered(part: nn.Module) -> bool:
    """Whether each process holds the whole parameters of a module, but for those of modules that gather their own."""
    inner = {p for below in part.modules() if below is not part and _gathers(below) for p in below.parameters()}
    return not any(hasattr(parameter, "full_tensor") for parameter in {*part.parameters()} - inner)


def _put_back(part: Any, *, gathered: bool) -> None:
    """Let go of parameters that were gathered in between, also in a forward pass that failed half way."""
    state = part._get_fsdp_state()
    if state._training_state.name == "FORWARD":
        state._post_forward(part, (), None)
    if not gathered:
        part.reshard()
