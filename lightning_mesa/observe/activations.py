"""Read what modules give, and patch it, by hooks that are gone afterwards."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from fnmatch import fnmatchcase
from typing import Any, TypeAlias

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from lightning_mesa.errors import ConfigurationError
from lightning_mesa.observe.sharding import whole

Edit: TypeAlias = Callable[[Tensor, int], Tensor]
"""``(activation, tick) -> activation``; the tick counts the calls of a module within a forward pass, from 0."""


def find_layers(module: nn.Module, patterns: Sequence[str]) -> list[str]:
    """Names of the sub-modules that match any of the patterns, in the order in which the model holds them.

    Args:
        module: The model.
        patterns: Names as in ``named_modules()``, with ``*`` and ``?`` for parts of them; ``*`` does not cross a dot,
            so that ``"blocks.*"`` are the blocks and not what is in them.

    Raises:
        ConfigurationError: If a pattern matches none, or only modules inside a compiled one, which a hook would have
            compiled again.
    """
    names = [name for name, _ in module.named_modules() if name]
    hidden = inside_compiled(module)
    found: dict[str, None] = {}
    for pattern in patterns:
        matched = [name for name in names if _matches(name, pattern)]
        if not matched:
            raise ConfigurationError(f"no layer {pattern!r} in {type(module).__name__}: it has {_listed(names)}.")
        open_ones = [name for name in matched if name not in hidden]
        if not open_ones:
            raise ConfigurationError(
                f"layer {matched[0]!r} is compiled with {hidden[matched[0]]!r}: a hook inside it would have it "
                "compiled again. Name a module around it, or one that torch.compile(...) returned."
            )
        found |= dict.fromkeys(open_ones)
    order = {name: i for i, name in enumerate(names)}
    return sorted(found, key=order.__getitem__)


@contextmanager
def reading(module: nn.Module, layers: Sequence[str]) -> Iterator[dict[str, list[Tensor]]]:
    """Catch what the layers give: name -> one activation for each tick.

    Of a module that returns a tuple or mapping the first tensor is taken. Sequences of recurrent modules come with the
    items first.

    Args:
        module: The model.
        layers: From :func:`find_layers`.
    """
    caught: dict[str, list[Tensor]] = {name: [] for name in layers}

    def keep(name: str, part: nn.Module) -> Callable[..., None]:
        def hook(_: nn.Module, arguments: Any, output: Any) -> None:
            caught[name].append(_items_first(part, whole(_tensor_of(output, name))))

        return hook

    parts = {name: module.get_submodule(name) for name in layers}
    with _hooked(part.register_forward_hook(keep(name, part)) for name, part in parts.items()):
        yield caught


@contextmanager
def patching(module: nn.Module, edits: Mapping[str, Edit]) -> Iterator[None]:
    """Let the layers give something else.

    Args:
        module: The model.
        edits: Layer -> what becomes of its activation; nothing is written in place.
    """

    def replace(name: str, part: nn.Module, edit: Edit) -> Callable[..., Any]:
        tick = -1

        def hook(_: nn.Module, arguments: Any, output: Any) -> Any:
            nonlocal tick
            tick += 1
            before = _tensor_of(output, name)
            after = _items_first(part, edit(_items_first(part, before), tick)).to(before.dtype)
            return _with_tensor(output, after)

        return hook

    parts = {name: module.get_submodule(name) for name in edits}
    with _hooked(part.register_forward_hook(replace(name, part, edits[name])) for name, part in parts.items()):
        yield


@contextmanager
def seeing(module: nn.Module) -> Iterator[set[str]]:
    """Note which modules that have parameters of their own are called.

    Args:
        module: The model.
    """
    called: set[str] = set()

    def note(name: str) -> Callable[..., None]:
        return lambda *_: called.add(name)

    own = {name: part for name, part in module.named_modules() if name and [*part.parameters(recurse=False)]}
    with _hooked(part.register_forward_hook(note(name)) for name, part in own.items()):
        yield called


@contextmanager
def reading_inputs(layers: Iterable[nn.Module], keep: Callable[[nn.Module, Tensor], None]) -> Iterator[None]:
    """Catch what layers read: their first argument, where that is a tensor.

    Args:
        layers: The layers themselves.
        keep: Called with a layer and what it reads, in the order in which layers are called.
    """

    def hook(layer: nn.Module, arguments: tuple[Any, ...]) -> None:
        if arguments and isinstance(arguments[0], Tensor):
            keep(layer, whole(arguments[0]))

    with _hooked(layer.register_forward_pre_hook(hook) for layer in layers):
        yield


@contextmanager
def _hooked(handles: Iterable[RemovableHandle]) -> Iterator[None]:
    with ExitStack() as stack:
        for handle in handles:
            stack.callback(handle.remove)
        yield


def _tensor_of(output: Any, name: str) -> Tensor:
    if isinstance(output, Tensor):
        return output
    values = output.values() if isinstance(output, Mapping) else output if isinstance(output, (tuple, list)) else ()
    for value in values:
        if isinstance(value, Tensor):
            return value
    raise ConfigurationError(f"layer {name!r} gives {type(output).__name__} without a tensor: name another one.")


def _with_tensor(output: Any, new: Tensor) -> Any:
    """The output with its first tensor exchanged."""
    if isinstance(output, Tensor):
        return new
    if isinstance(output, Mapping):
        key = next(key for key, value in output.items() if isinstance(value, Tensor))
        changed = output.copy() if hasattr(output, "copy") else dict(output)
        changed[key] = new
        return changed
    position = next(i for i, value in enumerate(output) if isinstance(value, Tensor))
    return type(output)([*output[:position], new, *output[position + 1 :]])


def _items_first(part: nn.Module, activation: Tensor) -> Tensor:
    batch_first = getattr(part, "batch_first", True)
    return activation if batch_first or activation.ndim < 3 else activation.transpose(0, 1)


def _matches(name: str, pattern: str) -> bool:
    parts, patterns = name.split("."), pattern.split(".")
    return len(parts) == len(patterns) and all(map(fnmatchcase, parts, patterns))


def inside_compiled(module: nn.Module) -> dict[str, str]:
    """Name of each module that has no hooks of its own -> the compiled module that it is part of."""
    inside: dict[str, str] = {}
    for name, part in module.named_modules():
        wrapped, in_place = hasattr(part, "_orig_mod"), getattr(part, "_compiled_call_impl", None) is not None
        if name not in inside and (wrapped or in_place):
            names = [f"{name}.{below}".strip(".") for below, _ in part.named_modules() if below]
            # A module that torch.compile returned is called as it is, and has hooks; one compiled in place has none.
            inside |= dict.fromkeys(names if wrapped else [name, *names], name)
    return inside


def _listed(names: Sequence[str], most: int = 20) -> str:
    shown = ", ".join(map(repr, names[:most]))
    return shown + (f" and {len(names) - most} more" if len(names) > most else "") if names else "none"
