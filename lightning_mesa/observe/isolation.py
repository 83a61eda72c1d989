"""Leave no trace: everything a look may disturb is put back, also after an exception.

Each context manager keeps one thing; what was measured to leak is listed in ``docs/design.md``.
"""

import random
import sys
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import islice
from types import FunctionType, ModuleType
from typing import Any

import torch
from torch import nn

_WALK_LIMIT = 2_000
_ENTRIES = 100
# What leads away from what an object owns: the trainer, which knows everything, and the machinery of a module.
_LEADS_AWAY = {"trainer", "_trainer", "_fabric"} | (set(vars(nn.Module())) - {"_modules"})
_NO_OWNERS = (str, bytes, int, float, torch.Tensor, type, FunctionType, ModuleType, random.SystemRandom)


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
def generators(*owners: object) -> Iterator[None]:
    """Restore the random generators that these objects (datasets, samplers, loaders, modules) own."""
    kept: list[tuple[Any, Any]] = [(generator, _state(generator)) for generator in _owned_generators(owners)]
    try:
        yield
    finally:
        for generator, state in kept:
            _set_state(generator, state)


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
        (part, name, buffer, buffer.detach().clone())
        for part in module.modules()
        for name, buffer in part.named_buffers(recurse=False)
    ]
    try:
        yield
    finally:
        with torch.no_grad():
            for part, name, buffer, before in kept:
                buffer.copy_(before)
                part._buffers[name] = buffer


@contextmanager
def muted_logging(module: nn.Module) -> Iterator[None]:
    """Swallow what a forward pass logs with ``self.log``: it would mix with the user's own training logs."""
    names = ("log", "log_dict")
    kept = {name: vars(module)[name] for name in names if name in vars(module)}
    try:
        for name in names:
            vars(module)[name] = _log_nothing
        yield
    finally:
        for name in names:
            vars(module).pop(name, None)
        vars(module).update(kept)


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
def no_trace(trainer: Any, module: nn.Module, seed: int, *owners: object) -> Iterator[None]:
    """All of the above, without gradients: inside, the model can be run and training never knows.

    Args:
        trainer: The Lightning trainer.
        module: The LightningModule.
        seed: Seed of the random streams inside, the same at every look so that looks can be compared.
        owners: Datasets and loaders whose own generators are restored.
    """
    with ExitStack() as stack:
        for context in (
            random_streams(seed),
            generators(module, *owners),
            eval_mode(module),
            buffers(module),
            muted_logging(module),
            stage(trainer),
            torch.no_grad(),  # not inference_mode: a table cached inside it could not be trained through
        ):
            stack.enter_context(context)
        yield


def _log_nothing(*_: Any, **__: Any) -> None:
    """Stands in for ``LightningModule.log`` during a look."""


def _owned_generators(owners: tuple[object, ...]) -> list[Any]:
    """Walk from the owners through attributes, lists and dicts, nearest first.

    The walk is bounded, as it runs at every look: of containers it reads the first entries, the rest are data.
    """
    numpy = sys.modules.get("numpy")
    kinds: tuple[type, ...] = (torch.Generator, random.Random)
    if numpy:
        kinds += (numpy.random.Generator, numpy.random.RandomState, numpy.random.BitGenerator)
    found: list[Any] = []
    seen: set[int] = set()
    queue: deque[object] = deque(owners)
    while queue and len(seen) < _WALK_LIMIT:
        item = queue.popleft()
        if item is None or id(item) in seen or isinstance(item, _NO_OWNERS):
            continue
        seen.add(id(item))
        if isinstance(item, kinds):
            found.append(item)
        elif isinstance(item, dict):
            queue.extend(islice(item.values(), _ENTRIES))
        elif isinstance(item, (list, tuple, set, frozenset)):
            queue.extend(islice(item, _ENTRIES))
        elif hasattr(item, "__dict__"):
            queue.extend(value for name, value in vars(item).items() if name not in _LEADS_AWAY)
    return found


def _state(generator: Any) -> Any:
    if isinstance(generator, torch.Generator):
        return generator.get_state()
    if isinstance(generator, random.Random):
        return generator.getstate()
    if hasattr(generator, "get_state"):
        return generator.get_state()
    return getattr(generator, "bit_generator", generator).state


def _set_state(generator: Any, state: Any) -> None:
    if isinstance(generator, random.Random):
        generator.setstate(state)
    elif hasattr(generator, "set_state"):
        generator.set_state(state)
    else:
        getattr(generator, "bit_generator", generator).state = state
