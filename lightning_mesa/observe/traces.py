"""What a look leaves behind all the same: all that training can reach is compared before and after the first look."""

import io
import sys
import warnings
import zlib
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from inspect import getattr_static
from itertools import count
from operator import length_hint
from types import GeneratorType
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Sampler

from lightning_mesa.errors import MesaWarning
from lightning_mesa.observe.generators import is_generator, state_of
from lightning_mesa.observe.held import ATOMS, ENTRIES, Path, held_by, walk, words
from lightning_mesa.observe.state import Lost, holds_state

_WALK_LIMIT = 10_000
_SAMPLE = 2**16
"""Numbers of a large tensor or array that are compared."""
_NAMED = 5

Fingerprint: TypeAlias = list[tuple[Path, Any, Any, dict[Any, Any]]]
"""Path, object, digest, and what it held."""


class Traces:
    """Names what looks have changed and could not put back, each once.

    Args:
        name: The monitor's, for the warning.
        comparing: Whether passes are compared, until somebody sets it to False.
    """

    def __init__(self, name: str = "mesa", *, comparing: bool = False) -> None:
        self.name = name
        self.comparing = comparing
        self._named: set[str] = set()

    @contextmanager
    def compared(self, trainer: Any, module: nn.Module) -> Iterator[None]:
        """Compare all that training can reach before and after: the module, the DataModule, loaders, and their code."""
        if not self.comparing:
            yield
            return
        found = ("datamodule", "train_dataloader", "val_dataloaders")
        before = fingerprint({"model": module} | {name: getattr(trainer, name, None) for name in found})
        yield
        self.tell(dict.fromkeys(changes(before), "changed"))

    def tell(self, lost: Lost) -> None:
        """Warn of what has not been named yet."""
        new = [f"{path} ({why})" for path, why in lost.items() if path not in self._named]
        self._named |= lost.keys()
        if new:
            warnings.warn(
                f"MesaMonitor {self.name!r}: a look cannot put back {', '.join(new[:_NAMED])}"
                f"{f' and {len(new) - _NAMED} more' if len(new) > _NAMED else ''}, so training may not be the training "
                "without the monitor. Let it change in training only (if self.training: ...), or keep it in a plain "
                "attribute or buffer of the module; give data that remember what was read to the monitor as an "
                "instance of their own, through a function that makes it.",
                MesaWarning,
                stacklevel=2,
            )


def fingerprint(roots: dict[str, Any]) -> Fingerprint:
    """All that can be reached, within limits, with digests of what may change."""
    owners = {id(root) for root in roots.values()}
    return [
        (path, item, _digest(item), dict(held))
        for root in roots.items()  # each with its own limit
        for path, item, held in walk(
            [root], limit=_WALK_LIMIT, enter=lambda item: id(item) in owners or _entered(item), code=True
        )
    ]


def changes(before: Fingerprint) -> list[str]:
    """Paths of what is not as it was; but what stands where nothing stood is a cache that has been filled."""
    found = []
    for path, item, digest, held in before:
        if digest != _digest(item):
            found.append(path)
        with suppress(Exception):  # whatever an object may raise when it is asked what it holds
            if not held or isinstance(item, GeneratorType):
                continue
            now = dict(held_by(item, ENTRIES, code=True))
            stood = {key: _of_class(item, key) for key in now.keys() - held.keys()} | held
            replaced = (key for key, value in stood.items() if value is not None and not _same(value, now.get(key)))
            found += [(path, key) for key in replaced]
    return list(dict.fromkeys(map(words, found)))


def _of_class(item: object, key: Any) -> Any:
    """The number that an attribute was before an object had its own, as in ``epoch = 0`` of a class."""
    value = getattr_static(type(item), key[1:], None) if isinstance(key, str) else None
    return value if isinstance(value, ATOMS) else None


def _entered(item: object) -> bool:
    return isinstance(item, (Dataset, DataLoader, Sampler, type, GeneratorType)) or holds_state(item)


def _same(a: Any, b: Any) -> bool:
    """Whether what stands somewhere is what stood there, or its equal."""
    if a is b:
        return True
    if type(a) is not type(b):
        return False
    if isinstance(a, ATOMS):
        return bool(a == b or (a != a and b != b))
    if isinstance(a, tuple):
        return len(a) == len(b) and all(map(_same, a, b))
    digest = _digest(a)
    return digest is not None and digest == _digest(b)


def _digest(item: Any) -> Any:
    """What tells whether an object has changed beside what it holds; None where nothing does."""
    with suppress(Exception):  # whatever an odd object may raise: it is passed over
        if isinstance(item, Tensor):
            return None if isinstance(item, nn.Parameter) else _of_tensor(item)  # those are watched at every look
        if is_generator(item):
            state = state_of(item)
            return _of_tensor(state) if isinstance(state, Tensor) else repr(state)
        if isinstance(item, (list, deque)):
            return len(item)
        if isinstance(item, set):
            return frozenset(part for part in item if isinstance(part, ATOMS))
        if isinstance(item, GeneratorType):
            values = item.gi_frame.f_locals.items() if item.gi_frame else ()
            return [(name, value) for name, value in values if isinstance(value, ATOMS)]
        if isinstance(item, count):
            return repr(item)
        if isinstance(item, io.IOBase):
            return item.tell()
        if type(item).__module__ == "builtins" and hasattr(type(item), "__next__"):
            return length_hint(item, -1)
        if (numpy := sys.modules.get("numpy")) and isinstance(item, numpy.ndarray):
            return item.shape, zlib.crc32(item.flat[:: _step(item.size)].tobytes())
    return None


def _of_tensor(tensor: Tensor) -> Any:
    n = tensor.numel()
    if n > _SAMPLE and not tensor.is_contiguous():  # an expanded one, say: it would be made whole
        return tensor.shape
    numbers = tensor.detach().reshape(-1)[:: _step(n)].contiguous().cpu()
    return tensor.shape, zlib.crc32(numbers.view(torch.uint8).numpy().tobytes())


def _step(n: int) -> int:
    return max(1, n // _SAMPLE)
