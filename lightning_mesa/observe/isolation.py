"""Leave no trace: everything a look may disturb is put back, also after an exception.

Each context manager keeps one thing; what was measured to leak is listed in ``docs/design.md``.
"""

import random
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn

from lightning_mesa.observe.generators import generators
from lightning_mesa.observe.sharding import lock_step
from lightning_mesa.observe.state import attributes
from lightning_mesa.observe.traces import Traces


@contextmanager
def random_streams(seed: int) -> Iterator[None]:
    """Seed the global random streams (torch, accelerators, numpy, python) inside; restore them afterwards."""
    numpy = sys.modules.get("numpy")
    torch_state, python_state = torch.get_rng_state(), random.getstate()
    numpy_state = numpy.random.get_state() if numpy else None
    # Devices in use only: torch.manual_seed would queue a seeding for CUDA that outlives the look.
    cuda_states = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else None  # type: ignore[no-untyped-call]
    mps_state = torch.mps.get_rng_state() if torch.backends.mps.is_available() else None
    try:
        torch.default_generator.manual_seed(seed)
        if cuda_states is not None:
            torch.cuda.manual_seed_all(seed)
        if mps_state is not None:
            torch.mps.manual_seed(seed)
        random.seed(seed)
        if numpy:
            numpy.random.seed(seed % 2**32)
        yield
    finally:
        torch.set_rng_state(torch_state)
        random.setstate(python_state)
        if numpy:
            numpy.random.set_state(numpy_state)
        if cuda_states is not None:
            torch.cuda.set_rng_state_all(cuda_states)
        if mps_state is not None:
            torch.mps.set_rng_state(mps_state)


@contextmanager
def eval_mode(module: nn.Module) -> Iterator[None]:
    """Put every sub-module in eval mode; give each its own mode back (users freeze some on purpose)."""
    # The attribute, not .eval() and .train(): users override those.
    training = [part for part in module.modules() if part.training]
    try:
        for part in training:
            part.training = False
        yield
    finally:
        for part in training:
            part.training = True


@contextmanager
def buffers(module: nn.Module) -> Iterator[None]:
    """Restore the buffers: some modules write or replace theirs in eval mode too (counters, caches)."""
    kept = [
        (
            part,
            {
                name: (buffer, None if buffer is None else buffer.detach().clone())
                for name, buffer in part._buffers.items()
            },
        )
        for part in module.modules()
    ]
    try:
        yield
    finally:
        with torch.no_grad():
            for part, before in kept:
                for _, (buffer, value) in before.items():
                    # An expanded tensor cannot be written in place, so nobody has.
                    if buffer is not None and value is not None and 0 not in buffer.stride():
                        buffer.copy_(value)
                part._buffers.clear()
                part._buffers.update({name: buffer for name, (buffer, _) in before.items()})
                part._non_persistent_buffers_set.intersection_update(before)


def share_buffers(trainer: Any, module: nn.Module) -> None:
    """Give all processes the buffers of the first: each has BatchNorm statistics of its own between two steps.

    To be called inside :func:`buffers`, on all processes.
    """
    if trainer.world_size > 1:
        with torch.no_grad():
            for buffer in module.buffers():
                # An expanded one cannot have been written, and one of which each holds a part is the same for all.
                if 0 not in buffer.stride() and not hasattr(buffer, "full_tensor"):
                    shared = buffer.detach().contiguous()
                    torch.distributed.broadcast(shared, src=0)
                    buffer.copy_(shared)


@contextmanager
def muted_logging(module: nn.Module) -> Iterator[None]:
    """Swallow what a forward pass logs with ``self.log``: it would mix with the user's own training logs."""
    # Nested LightningModules log too. The hook's name: Lightning forgets to put it back when a batch hook raises.
    parts = [part for part in module.modules() if hasattr(part, "log") and hasattr(part, "log_dict")]
    names = ("log", "log_dict", "_current_fx_name")
    kept = [{name: vars(part)[name] for name in names if name in vars(part)} for part in parts]
    try:
        for part in parts:
            vars(part)["log"] = vars(part)["log_dict"] = _log_nothing
        yield
    finally:
        for part, before in zip(parts, kept, strict=True):
            for name in names:
                vars(part).pop(name, None)
            vars(part).update(before)


@contextmanager
def stage(trainer: Any) -> Iterator[None]:
    """Let code that asks ``trainer.training`` (augmentation on the device, for one) see a validation."""
    before = trainer.state.stage
    try:
        trainer.validating = True
        yield
    finally:
        trainer.state.stage = before


@contextmanager
def no_trace(
    trainer: Any, module: nn.Module, seed: int, *owners: object, traces: Traces | None = None
) -> Iterator[None]:
    """All of the above and plain state, without gradients: inside, the model can be run and training never knows.

    Args:
        trainer: The Lightning trainer.
        module: The LightningModule.
        seed: Seed of the random streams inside, the same at every look so that looks can be compared.
        owners: Datasets, loaders and functions whose own generators are restored.
        traces: Names what is left all the same.
    """
    traces = Traces() if traces is None else traces
    with ExitStack() as stack:
        for context in (
            traces.compared(trainer, module),
            random_streams(seed),
            generators(module, getattr(trainer, "datamodule", None), *owners),
            attributes(module, thorough=traces.comparing, tell=traces.tell),
            eval_mode(module),
            buffers(module),
            muted_logging(module),
            stage(trainer),
            torch.no_grad(),  # not inference_mode: a table cached inside it could not be trained through
            lock_step(trainer, module),
        ):
            stack.enter_context(context)
        share_buffers(trainer, module)
        yield


def _log_nothing(*_: Any, **__: Any) -> None:
    """Stands in for ``LightningModule.log`` during a look."""
