"""Find and restore the random generators that the user's objects own."""

import random
import sys
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from itertools import islice
from types import BuiltinMethodType, FunctionType, MethodType, ModuleType
from typing import Any

import torch
from torch import nn

_WALK_LIMIT = 2_000
_ENTRIES = 100
# What leads away from what an object owns: the trainer, which knows everything, and the machinery of a module.
_LEADS_AWAY = {"trainer", "_trainer", "_fabric"} | (set(vars(nn.Module())) - {"_modules"})
_NO_OWNERS = (str, bytes, int, float, torch.Tensor, type, ModuleType, random.SystemRandom)


@contextmanager
def generators(*owners: object, seed: int | None = None) -> Iterator[None]:
    """Restore the random generators that these objects (datasets, samplers, loaders, modules) own.

    Args:
        owners: The objects.
        seed: Seed of them inside; None lets them go on.
    """
    kept: list[tuple[Any, Any]] = [(generator, _state(generator)) for generator in _owned_generators(owners)]
    try:
        if seed is not None:
            seeds = random.Random(seed)  # of each its own: two that draw alike would make fields depend on each other
            for generator, _ in kept:
                with suppress(Exception):  # one that takes no seed is left as it is
                    _reseed(generator, seeds.getrandbits(32))
        yield
    finally:
        for generator, state in kept:
            _set_state(generator, state)


def _owned_generators(owners: tuple[object, ...]) -> list[Any]:
    numpy = sys.modules.get("numpy")
    kinds: tuple[type, ...] = (torch.Generator, random.Random)
    if numpy:
        kinds += (numpy.random.Generator, numpy.random.RandomState, numpy.random.BitGenerator)
    return owned(owners, lambda item: isinstance(item, kinds))


def owned(owners: tuple[object, ...], wanted: Callable[[Any], bool]) -> list[Any]:
    """What is wanted of all that these objects own, nearest first; what it owns itself is not searched.

    The walk goes through attributes, lists and dicts. It is bounded, as it runs at every look: of containers it reads
    the first entries, the rest are data.

    Args:
        owners: The objects.
        wanted: Whether an object is.
    """
    found: list[Any] = []
    seen: set[int] = set()
    for owner in owners:  # each with its own limit, so that a large model leaves the data their share
        queue: deque[object] = deque(owner.modules() if isinstance(owner, nn.Module) else [owner])
        steps = len(queue)
        limit = steps + _WALK_LIMIT
        while queue and steps < limit:
            item = queue.popleft()
            if item is None or id(item) in seen or isinstance(item, _NO_OWNERS):
                continue
            seen.add(id(item))
            steps += not isinstance(item, nn.Module)
            if wanted(item):
                found.append(item)
            else:
                queue.extend(_held_by(item))
    return found


def _held_by(item: Any) -> Iterator[Any]:
    if isinstance(item, dict):
        yield from islice(item.values(), _ENTRIES)
    elif isinstance(item, (list, tuple, set, frozenset)):
        yield from islice(item, _ENTRIES)
    elif isinstance(item, FunctionType):
        for cell in item.__closure__ or ():
            with suppress(ValueError):  # an empty cell
                yield cell.cell_contents
        yield from item.__defaults__ or ()
        yield from (item.__kwdefaults__ or {}).values()
    elif isinstance(item, partial):
        yield from (item.func, item.args, item.keywords)
    elif isinstance(item, (MethodType, BuiltinMethodType)):
        yield item.__self__
    else:
        yield from (value for name, value in getattr(item, "__dict__", {}).items() if name not in _LEADS_AWAY)
        slots = (name for kind in type(item).__mro__ for name in _names(vars(kind).get("__slots__", ())))
        yield from (getattr(item, name, None) for name in slots if not name.startswith("__"))


def _names(slots: Any) -> tuple[str, ...]:
    return (slots,) if isinstance(slots, str) else tuple(slots)


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


def _reseed(generator: Any, seed: int) -> None:
    if isinstance(generator, torch.Generator):
        generator.manual_seed(seed)
    elif hasattr(generator, "seed"):  # random.Random, numpy's RandomState
        generator.seed(seed)
    else:
        bits = getattr(generator, "bit_generator", generator)
        bits.state = type(bits)(seed).state
