"""What the user's objects hold, nearest first: the walk behind generators, plain state and the comparison."""

import enum
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import lru_cache, partial
from itertools import islice
from types import (
    BuiltinMethodType,
    CellType,
    CodeType,
    FunctionType,
    GeneratorType,
    MappingProxyType,
    MethodType,
    ModuleType,
)
from typing import Any, TypeAlias

import torch
from torch import nn

Path: TypeAlias = tuple[Any, Any]
"""``(path of the owner or None, key)``; see :func:`words`."""

ATOMS = (str, bytes, int, float, complex, type(None), enum.Enum, torch.dtype, torch.device)
"""What holds nothing and does not change."""

_COMMON = {str, int, float, bool, type(None)}  # a set is quick to ask

ENTRIES = 100
"""This many entries of a container are followed; the rest are data."""

_DEPTH = 60
"""Steps from a root: a list that is linked by its nodes is data too."""

# The trainer, which knows everything; the machinery of a module; a training's own iterator, which other threads move.
_LEADS_AWAY = {"trainer", "_trainer", "_fabric", "_iterator"} | (set(vars(nn.Module())) - {"_modules"})
LIGHTNING = {"lightning", "pytorch_lightning", "lightning_fabric", "lightning_utilities", "lightning_mesa"}
_OF_THE_TRAINER = {"Trainer", "Fabric", "Callback", "Logger", "Strategy", "Accelerator"}
# Their code holds no generator or counter of a user's, and would use up the walk.
_LIBRARIES = (
    sys.stdlib_module_names
    | LIGHTNING
    | {"torch", "torchmetrics", "torchvision", "torchaudio", "numpy", "scipy", "pandas", "PIL", "sklearn", "matplotlib"}
    | {"transformers", "datasets", "tokenizers", "gymnasium", "tensorboard", "hydra", "omegaconf", "tqdm", "rich"}
)


def of_library(module: object) -> bool:
    """Whether a module, named as in ``__module__``, belongs to Python or to a library whose code is not followed."""
    return not isinstance(module, str) or root_of(module) in _LIBRARIES


def root_of(module: str) -> str:
    """The package that a module belongs to."""
    return module.partition(".")[0]


def walk(
    roots: Iterable[tuple[str, Any]],
    *,
    limit: int,
    entries: int = ENTRIES,
    enter: Callable[[Any], bool] = lambda item: True,
    code: bool = False,
) -> Iterator[tuple[Path, Any, list[tuple[Any, Any]]]]:
    """Every object that can be reached, once, with what it holds: ``(key, value)``.

    Args:
        roots: Names and objects to start from.
        limit: End after this many objects, those that are modules not counted.
        entries: Follow this many entries of a container.
        enter: Which objects are asked what they hold.
        code: Whether users' functions and classes lead to the globals that their code uses.
    """
    queue: deque[tuple[int, Path, Any]] = deque((0, (None, name), root) for name, root in roots)
    seen: dict[int, Any] = {}  # the objects too: an id is used again once its object has gone
    steps = 0
    while queue and steps < limit:
        depth, path, item = queue.popleft()
        if isinstance(item, (ATOMS, ModuleType)) or id(item) in seen:
            continue
        if _of_the_trainer(type(item)):  # type: ignore[arg-type]  # mypy: classes have a hash
            continue
        seen[id(item)] = item
        steps += not isinstance(item, nn.Module)
        held: list[tuple[Any, Any]] = []
        with suppress(Exception):  # whatever an object of the user's may raise when it is asked
            if enter(item):
                held.extend(held_by(item, entries, code=code))
        yield path, item, held
        if depth < _DEPTH:
            queue.extend((depth + 1, (path, key), value) for key, value in held if type(value) not in _COMMON)


def words(path: Path) -> str:
    """A path as one would write it, such as ``model.cache['hits'][0]``."""
    written = ""
    while True:
        path, key = path
        if isinstance(key, tuple):
            short = repr(key[0]) if isinstance(key[0], ATOMS) else type(key[0]).__name__
            written = f"[{short}]{written}"
        elif isinstance(key, type):
            return f"{key.__module__}.{key.__qualname__}{written}"
        elif key.startswith("."):
            written = f"{key}{written}"
        else:  # a name of its own
            return f"{key}{written}"


def held_by(item: Any, entries: int, *, code: bool) -> Iterator[tuple[Any, Any]]:
    """What an object holds itself: key and value.

    A key is ``(key,)`` in a container, ``".name"`` of an attribute, ``"package.name"`` of a global, a class itself.
    """
    if isinstance(item, FunctionType):
        yield from ((f".{name}", c) for name, c in zip(item.__code__.co_freevars, item.__closure__ or (), strict=False))
        yield from ((".__defaults__", item.__defaults__), (".__kwdefaults__", item.__kwdefaults__))
        if code and not of_library(item.__module__):
            yield from _globals_of(item.__code__, item.__globals__)
        return
    if isinstance(item, type):
        if code and not of_library(item.__module__):
            functions = (FunctionType, staticmethod, classmethod, property)
            named = vars(item).items()
            yield from ((f".{n}", v) for n, v in named if isinstance(v, functions) or not n.startswith("__"))
            yield from ((base, base) for base in item.__bases__)
        return
    if isinstance(item, (dict, MappingProxyType)):
        yield from (((key,), value) for key, value in islice(item.items(), entries))
    elif isinstance(item, (list, tuple, set, frozenset, deque)):
        yield from (((i,), value) for i, value in enumerate(islice(item, entries)))
    elif isinstance(item, (MethodType, BuiltinMethodType)):
        yield from ((f".{name}", getattr(item, name, None)) for name in ("__self__", "__func__"))
    elif isinstance(item, (staticmethod, classmethod)):
        yield ".__func__", item.__func__
    elif isinstance(item, property):
        yield ".fget", item.fget
    elif isinstance(item, partial):
        yield from ((".func", item.func), (".args", item.args), (".keywords", item.keywords))
    elif isinstance(item, GeneratorType):
        yield from ((f".{name}", value) for name, value in (item.gi_frame.f_locals if item.gi_frame else {}).items())
    yield from ((f".{name}", value) for name, value in getattr(item, "__dict__", {}).items() if name not in _LEADS_AWAY)
    yield from ((f".{name}", value) for name, value in slots_of(item).items())
    if code:
        yield type(item), type(item)


@lru_cache(maxsize=4096)
def _of_the_trainer(kind: Any) -> bool:
    """Whether instances are Lightning's trainer or a part of it, which a script may hold in a global."""
    return any(cls.__name__ in _OF_THE_TRAINER and root_of(cls.__module__) in LIGHTNING for cls in kind.__mro__)


def slots_of(item: object) -> dict[str, Any]:
    """What an object keeps outside of ``__dict__``; of the variable of a closure, its value."""
    held = {}
    for name in _slots(type(item)):  # type: ignore[arg-type]  # mypy: classes have a hash
        with suppress(AttributeError, ValueError):  # one that is empty
            held[name] = getattr(item, name)
    return held


@lru_cache(maxsize=4096)
def _slots(kind: Any) -> tuple[str, ...]:
    if kind is CellType:
        return ("cell_contents",)
    declared = (vars(cls).get("__slots__", ()) for cls in kind.__mro__)
    names = (name for slots in declared for name in ((slots,) if isinstance(slots, str) else slots))
    return tuple(name for name in names if not name.startswith("__"))


def _globals_of(code: CodeType, known: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """The globals that a function's code uses, also in functions within it, and through modules of the user's."""
    for name in code.co_names:
        value = known.get(name)
        if isinstance(value, ModuleType):
            if not of_library(value.__name__):
                used = vars(value)
                yield from ((f"{value.__name__}.{n}", used[n]) for n in code.co_names if n in used)
        elif value is not None:
            yield f"{known.get('__name__', '')}.{name}", value
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _globals_of(constant, known)
