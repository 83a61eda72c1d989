"""Plain state of modules: what their attributes hold is copied before a look, and put back into the same objects.

A copy is of one object and shallow: the walk comes to what it holds as well, so all stay the objects that they were.
"""

import sys
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache, partial
from types import BuiltinMethodType, CellType, FunctionType, MethodType, SimpleNamespace
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, nn

from lightning_mesa.observe.contents import contents
from lightning_mesa.observe.held import LIGHTNING, Path, root_of, walk, words

Lost: TypeAlias = dict[str, str]
"""Path -> why what stands there was not kept."""

_WALK_LIMIT = 10_000
_ENTRIES = 1_000
_SMALL = 2**20
"""Bytes: a tensor beyond it is copied once it has been written in place; most are tables that never are."""
_MOST = 2**30
"""Bytes of larger ones that a look copies, so that a replay buffer is not held twice."""

_PLAIN = (dict, list, tuple, set, frozenset, deque, SimpleNamespace)
_LEADING = (FunctionType, MethodType, BuiltinMethodType, partial, CellType)
# Instances of these belong to others, or live on in other threads and processes.
_OTHERS = LIGHTNING | {"torch", "threading", "multiprocessing", "concurrent", "asyncio", "queue", "socket", "logging"}
_OTHERS |= {"io", "_io", "subprocess", "tensorboard", "wandb", "mlflow", "comet_ml", "neptune", "aim", "clearml"}


@contextmanager
def attributes(
    module: nn.Module, *, thorough: bool = False, tell: Callable[[Lost], None] = lambda lost: None
) -> Iterator[None]:
    """Restore what attributes of a module and its parts hold: tensors, arrays, containers, objects of users' classes.

    Parameters are never copied, nor is what belongs to torch, Lightning, a dataset or a logger.

    Args:
        module: The LightningModule.
        thorough: Copy large tensors too that nobody has written to so far.
        tell: Told at the end what could not be kept.
    """
    put_back: list[tuple[Path, Callable[[], None]]] = []
    watched: list[tuple[Path, Tensor, int]] = []
    lost: Lost = {}
    registered = {id(part) for part in module.modules()}
    roots = [(f"model.{name}" if name else "model", part) for name, part in module.named_modules()]
    room = _MOST
    for path, item, held in walk(roots, limit=_WALK_LIMIT, entries=_ENTRIES, enter=holds_state):
        try:
            if isinstance(item, nn.Module):
                if id(item) not in registered:  # one that is hidden in a list: nobody else restores its buffers
                    held.append(("._buffers", item._buffers))
                named = [((path, f".{name}"), p) for name, p in item._parameters.items() if p is not None]
                watched += [(where, p, _version(p)) for where, p in named]
                put_back += [(where, restore) for where, p in named if vars(p) for restore in _copied(vars(p))]
            elif isinstance(item, Tensor) and not _to_copy(item, thorough):
                watched.append((path, item, _version(item)))
                continue
            room -= (size := _bytes(item))
            if room < 0:
                room += size
                watched += [(path, item, _version(item))] if isinstance(item, Tensor) else []
            else:
                put_back += [(path, restore) for restore in _copied(item)]
        except Exception as error:  # whatever an odd object may raise
            lost[words(path)] = f"cannot be copied: {type(error).__name__}"
    try:
        yield
    finally:
        with torch.no_grad():
            for path, restore in put_back:
                try:
                    restore()
                except Exception as error:
                    lost[words(path)] = f"cannot be put back: {type(error).__name__}"
        lost |= {words(path): "written in place" for path, tensor, version in watched if _version(tensor) != version}
        tell(lost)


def holds_state(item: object) -> bool:
    """Whether an object may hold state of the user's: a container, a module, or an instance of a class of theirs."""
    return _sort_of(type(item)) == "state"  # type: ignore[arg-type]  # mypy: classes have a hash


@lru_cache(maxsize=4096)
def _sort_of(kind: Any) -> Literal["tensor", "array", "state", "other"]:
    numpy = sys.modules.get("numpy")
    if issubclass(kind, Tensor):
        return "tensor"
    if numpy and issubclass(kind, numpy.ndarray):
        return "other" if issubclass(kind, numpy.memmap) else "array"
    if issubclass(kind, (*_PLAIN, *_LEADING, nn.Module)):
        return "state"
    roots = {root_of(cls.__module__) for cls in kind.__mro__}
    of_users = root_of(kind.__module__) not in (*sys.stdlib_module_names, "numpy") and not roots & _OTHERS
    return "state" if of_users else "other"


def _to_copy(tensor: Tensor, thorough: bool) -> bool:
    if isinstance(tensor, nn.Parameter) or tensor.layout is not torch.strided:
        return False
    if 0 in tensor.stride() or (tensor.is_inference() and not torch.is_inference_mode_enabled()):
        return False  # nobody can write to an expanded one, nor to one made in inference mode
    return thorough or _bytes(tensor) <= _SMALL or _version(tensor) > 0


def _bytes(item: Any) -> int:
    sort = _sort_of(type(item))  # type: ignore[arg-type]
    return int(item.nbytes) if sort in ("tensor", "array") else 0


def _version(tensor: Tensor) -> int:
    """How often it has been written in place; tensors made in inference mode do not count that."""
    return 0 if tensor.is_inference() else tensor._version


def _copied(item: Any) -> Iterator[Callable[[], None]]:
    """What puts an object back as it is now; nothing for one that holds no state."""
    sort = _sort_of(type(item))  # type: ignore[arg-type]
    if sort == "tensor":
        yield partial(_write, item, item.detach().clone(), _version(item))
    elif sort == "array":
        if item.flags.writeable:
            yield partial(sys.modules["numpy"].copyto, item, item.copy())
    elif sort == "state":
        yield from contents(item)


def _write(tensor: Tensor, value: Tensor, version: int) -> None:
    unwritten = _version(tensor) == version and not tensor.is_inference()
    # Without a count, by ``.data``, small ones are written at most; a device is not made to wait for the comparison.
    if unwritten and (_bytes(tensor) > _SMALL or (tensor.device.type == "cpu" and torch.equal(tensor, value))):
        return
    if tensor.shape != value.shape:
        tensor.resize_(value.shape)
    tensor.data.copy_(value)  # not counted as a write: a graph that has saved this tensor stays as it is
