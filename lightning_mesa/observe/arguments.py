"""How a batch reaches the model: what is called, with which part of the batch, and what its signature suggests."""

from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from inspect import Parameter, signature
from typing import Any, get_origin

from torch import Tensor, nn

from lightning_mesa.errors import ConfigurationError, said, shown
from lightning_mesa.objectives.objective import function_of, pick
from lightning_mesa.observe.context import WHOLE_BATCH, Forward, Inputs

_BATCHES = ("batch", "data", "graph", "sample")
_ANSWERS = ("label", "labels", "target", "targets")
"""Optional arguments from which a model computes a loss: a look needs none."""
_AS_PATH = "a string without a colon names a submodule or method of the LightningModule, like 'net' or 'model.encoder'"


def forward_of(forward: Forward | None) -> Forward | None:
    """A function as it is, or imported from ``"package.module:name"``; the path of an attribute stays a string.

    Raises:
        ConfigurationError: If it is something else.
    """
    if not isinstance(forward, str) or ":" in forward:
        function: Callable[[Any, Any], Any] | None = function_of(forward, "forward")
        return function
    for part in forward.split("."):
        if not (part.isidentifier() or part.isdecimal()) or part.startswith("__"):
            raise ConfigurationError(
                f"forward: {forward!r} is no path: {_AS_PATH}; a function is imported by 'package.module:name'."
            )
    return forward


def called(pl_module: Any, path: str | None) -> Any:
    """What is called on the inputs: the LightningModule, or its submodule or method at a path.

    Args:
        pl_module: The LightningModule, or a copy of it.
        path: Names of attributes, joined by dots; None for the module itself.

    Raises:
        ConfigurationError: If there is no such thing, or it is a method that every module has, such as ``to``.
    """
    found, part = pl_module, ""
    for part in path.split(".") if path else ():
        owner, found = found, getattr(found, part, None) if isinstance(found, nn.Module) else None
        if not callable(found):
            near = get_close_matches(part, [name for name in dir(owner) if name != part], 1)
            raise ConfigurationError(
                f"forward={path!r}: {type(owner).__name__} has no submodule or method {part!r}"
                f"{f', perhaps {near[0]!r}' if near else ''}. {_AS_PATH.capitalize()}; a function is imported by "
                "'package.module:name'."
            )
    package = (getattr(found, "__module__", None) or "").partition(".")[0]
    if (
        not isinstance(found, nn.Module)
        and part != "forward"
        and package in ("torch", "lightning", "pytorch_lightning")
    ):
        raise ConfigurationError(
            f"forward={path!r} is a method that every module has, and may change it: name a submodule, or a method "
            "that your own class defines."
        )
    return found


def taken(batch: Any, inputs: Inputs | None, model: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The positional and the keyword arguments that the model is called with.

    Args:
        batch: The batch.
        inputs: See :class:`~lightning_mesa.observe.context.Reading`.
        model: What is called.

    Raises:
        ConfigurationError: If the batch does not hold them, or is a mapping and ``inputs`` is None.
    """
    if inputs == WHOLE_BATCH:
        return (batch,), {}
    if inputs is None and isinstance(batch, Mapping):
        raise ConfigurationError(
            f"the batch is a mapping with the keys {sorted(map(str, batch))}: say which one the model takes, "
            f"inputs='KEY' (a list of keys is passed by keyword, {WHOLE_BATCH!r} is the whole batch), or pass "
            f"forward=.{suggestion(model, batch, inputs)}"
        )
    if inputs is None:
        return (batch[0] if isinstance(batch, Sequence) else batch,), {}
    if isinstance(inputs, (str, int)):
        return (pick(batch, inputs, "inputs"),), {}
    return (), {key: pick(batch, key, "inputs") for key in inputs}


def refusal(
    error: Exception, name: str, arguments: Sequence[Any], keywords: Mapping[str, Any], advice: str
) -> ConfigurationError:
    """What to say where the model cannot be called so.

    Args:
        error: What it raised.
        name: What was called, in words.
        arguments: What it was called with.
        keywords: The same, by name.
        advice: What its signature suggests, from :func:`suggestion`.
    """
    given = ", ".join([*map(shown, arguments), *(f"{key}={shown(value)}" for key, value in keywords.items())])
    by_keyword = " (a list of keys is passed by keyword)" if keywords else ""
    return ConfigurationError(
        f"{name}({given}) failed with {said(error)}. If the model is called in another way, pass inputs= or "
        f"forward={by_keyword}.{advice}"
    )


def suggestion(model: Any, batch: Any, given: Inputs | None) -> str:
    """What ``inputs`` the model's signature suggests, as a sentence; empty where it suggests nothing new.

    Args:
        model: What is called.
        batch: The batch.
        given: The ``inputs`` that were passed.
    """
    takes = _parameters(model)
    inputs = _suggested(takes, batch)
    if inputs is None or inputs == given or (not isinstance(inputs, str) and inputs == list(_listed(given))):
        return ""
    name = "forward" if isinstance(model, nn.Module) else getattr(model, "__name__", "it")
    stars: dict[Any, str] = {Parameter.VAR_KEYWORD: "**", Parameter.VAR_POSITIONAL: "*"}
    names = ", ".join(stars.get(one.kind, "") + one.name for one in takes)
    how = "" if isinstance(inputs, str) else ", which are passed by keyword"
    whole = ", the whole batch" if inputs == WHOLE_BATCH else ""
    return f" By its signature, {name}({names}), that is inputs={inputs!r}{how}{whole}."


def _suggested(takes: Sequence[Parameter], batch: Any) -> str | list[str] | None:
    named = [one for one in takes if one.kind in (Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY)]
    required = [one.name for one in named if one.default is Parameter.empty]
    wanted = [one.name for one in named if one.name in required or one.name not in _ANSWERS]
    matched = [name for name in wanted if _holds(batch, name)]
    if matched and set(required) <= set(matched):
        return matched[0] if len(matched) == 1 else matched
    if not required and isinstance(batch, Mapping) and any(one.kind is Parameter.VAR_KEYWORD for one in takes):
        return [key for key in batch if isinstance(key, str) and key not in _ANSWERS]
    if len(required) == 1 and _is_for(next(one for one in named if one.name == required[0]), batch):
        return WHOLE_BATCH
    return None


def _parameters(model: Any) -> list[Parameter]:
    """What the model takes; nothing where its signature cannot be read, as of a scripted module."""
    function = model.forward if isinstance(model, nn.Module) else model
    for evaluated in (True, False):
        try:
            return list(signature(function, eval_str=evaluated).parameters.values())
        except Exception:  # annotations are code of the user's
            continue
    return []


def _holds(batch: Any, name: str) -> bool:
    """Whether the batch has an entry of that name, which is no method of its class."""
    if isinstance(batch, Mapping):
        return name in batch
    if isinstance(batch, Tensor) or (isinstance(batch, Sequence) and name not in getattr(batch, "_fields", ())):
        return False
    return hasattr(batch, name) and not callable(getattr(batch, name))


def _is_for(parameter: Parameter, batch: Any) -> bool:
    """Whether an argument looks as if it took the whole batch, by its name or its type."""
    kind = get_origin(parameter.annotation) or parameter.annotation
    typed = isinstance(kind, type) and kind not in (object, Parameter.empty) and isinstance(batch, kind)
    return typed or parameter.name in _BATCHES


def _listed(given: Inputs | None) -> Sequence[str]:
    return [] if given is None or isinstance(given, (str, int)) else given
