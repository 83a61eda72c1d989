"""Find and restore the random generators that the user's objects own, or that their code finds in the script."""

import random
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from typing import Any

import torch
from torch import nn

from lightning_mesa.observe.held import walk

_WALK_LIMIT = 2_000


@contextmanager
def generators(*owners: object, seed: int | None = None) -> Iterator[None]:
    """Restore the random generators that these objects (datasets, samplers, loaders, modules, functions) own or use.

    Used are those in the globals of the user's script that the code of these objects names: a method of a dataset, a
    ``collate_fn``, a ``worker_init_fn``, and the functions that they call.

    Args:
        owners: The objects.
        seed: Seed of them inside; None lets them go on.
    """
    kept: list[tuple[Any, Any]] = [(generator, state_of(generator)) for generator in owned(owners, is_generator)]
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


def owned(owners: tuple[object, ...], wanted: Callable[[Any], bool]) -> list[Any]:
    """What is wanted of all that these objects hold or their code uses, nearest first; it is not searched itself.

    The walk is bounded, as it runs at every look: of containers it reads the first entries, the rest are data.

    Args:
        owners: The objects.
        wanted: Whether an object is.
    """

    def enter(item: object) -> bool:
        return not isinstance(item, torch.Tensor) and not wanted(item)

    found: dict[int, Any] = {}
    for owner in owners:  # each with its own limit, so that a large model leaves the data their share
        parts = owner.modules() if isinstance(owner, nn.Module) else [owner]
        for _, item, _ in walk([("", part) for part in parts], limit=_WALK_LIMIT, enter=enter, code=True):
            if wanted(item):
                found[id(item)] = item
    return [*found.values()]


def is_generator(item: object) -> bool:
    """Whether an object draws random numbers from a state of its own."""
    return _draws(type(item))  # type: ignore[arg-type]  # mypy: classes have a hash


@lru_cache(maxsize=4096)
def _draws(kind: Any) -> bool:
    numpy = sys.modules.get("numpy")
    kinds: tuple[type, ...] = (torch.Generator, random.Random)
    if numpy:
        kinds += (numpy.random.Generator, numpy.random.RandomState, numpy.random.BitGenerator)
    return issubclass(kind, kinds) and not issubclass(kind, random.SystemRandom)


def state_of(generator: Any) -> Any:
    """A generator's state, as a value."""
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
