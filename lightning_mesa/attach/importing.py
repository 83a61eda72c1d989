"""Objects named by a string, as in a configuration file; only some names where a file must not run any code."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from importlib import import_module
from types import ModuleType
from typing import Any

import lightning_mesa
from lightning_mesa.errors import ConfigurationError, said

ROOMS = ("lightning_mesa", "lightning_mesa.objectives", "lightning_mesa.probes", "lightning_mesa.checks")
"""The modules whose ``__all__`` holds the public names of this package."""

_ALLOWED: ContextVar[tuple[str, ...] | None] = ContextVar("allowed", default=None)


@contextmanager
def only(packages: Iterable[str]) -> Iterator[None]:
    """Inside, :func:`imported` refuses what is neither public in this package nor defined in one of these.

    Args:
        packages: Dotted names of packages, modules, or what is in them.
    """
    token = _ALLOWED.set(tuple(packages))
    try:
        yield
    finally:
        _ALLOWED.reset(token)


def is_path(value: object) -> bool:
    """Whether a value is a string that may be the path of something to import."""
    return isinstance(value, str) and ("." in value or ":" in value)


def imported(path: str, what: str) -> Any:
    """Import an object.

    Args:
        path: ``"package.module.name"`` or ``"package.module:name"``.
        what: What it is for, for the message.

    Raises:
        ConfigurationError: If it cannot be imported, is a module, or is not allowed, see :func:`only`.
    """
    allowed = _ALLOWED.get()
    dotted = path.replace(":", ".", 1)
    if allowed is not None and dotted.startswith(f"{lightning_mesa.__name__}."):
        return _public(dotted, what)
    if allowed is not None and not _is_in(dotted, allowed):
        raise ConfigurationError(_refusal(path, what, dotted, allowed))
    found = _found(path, what)
    module, name = getattr(found, "__module__", None), getattr(found, "__qualname__", None)
    defined = f"{module}.{name}" if module and name else dotted
    if allowed is not None and not _is_in(defined, allowed):
        raise ConfigurationError(_refusal(path, what, defined, allowed))
    return found


def _found(path: str, what: str) -> Any:
    module, _, name = path.partition(":")
    parts = path.replace(":", ".", 1).split(".")
    if not all(part.isidentifier() for part in parts) or len(parts) < 2:
        raise ConfigurationError(f"{what}: {path!r} cannot be imported; write it as 'package.module.name'.")
    # Of a path without a colon, the longest beginning that is a module.
    depths = [module.count(".") + 1] if name else range(len(parts) - 1, 0, -1)
    for depth in depths:
        home = ".".join(parts[:depth])
        try:
            found: Any = import_module(home)
        except ModuleNotFoundError as error:
            if error.name is not None and _is_in(home, [error.name]) and depth > min(depths):
                continue
            raise ConfigurationError(f"{what}: {path!r} cannot be imported: {error}.") from error
        except Exception as error:
            raise ConfigurationError(
                f"{what}: {path!r} cannot be imported: {home} failed with {said(error)}."
            ) from error
        for part in parts[depth:]:
            if not hasattr(found, part):
                raise ConfigurationError(f"{what}: {path!r} cannot be imported: {home} has no {part!r}.")
            found = getattr(found, part)
            if isinstance(found, ModuleType):  # else a path leads from any module to all that it imports
                raise ConfigurationError(
                    f"{what}: {path!r} cannot be imported: {part!r} is a module; name a function or class, by the "
                    "path of the module that defines it."
                )
        return found
    raise AssertionError(depths)


def _public(dotted: str, what: str) -> Any:
    """A public name of this package, by the path of its room or of the module that defines it."""
    home, _, name = dotted.rpartition(".")
    shown: dict[str, str] = {}
    for room in map(import_module, ROOMS):
        if name in room.__all__:
            found = getattr(room, name)
            if home in (room.__name__, getattr(found, "__module__", None)):
                return found
        for public in room.__all__:  # under the first room that has it
            shown.setdefault(public, f"{room.__name__}.{public}".partition(".")[2])
    raise ConfigurationError(
        f"{what}: {dotted!r} is no public name of this package; there are {', '.join(shown.values())}."
    )


def _is_in(dotted: str, packages: Iterable[str]) -> bool:
    return any(f"{dotted}.".startswith(f"{package}.") for package in packages)


def _refusal(path: str, what: str, dotted: str, allowed: tuple[str, ...]) -> str:
    defined = "" if dotted == path.replace(":", ".", 1) else f", which is defined as {dotted!r},"
    names = f"{lightning_mesa.__name__} and {', '.join(allowed)}" if allowed else f"{lightning_mesa.__name__}"
    package = dotted.partition(".")[0]
    return (
        f"{what}: {path!r}{defined} may not be imported from a configuration: allowed are the names of {names}. Allow "
        f"it with allow=[{package!r}], LIGHTNING_MESA_ALLOW={package}, or --allow {package}."
    )
