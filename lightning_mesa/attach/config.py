"""Monitors from a configuration: validated, and without running any code but this package's and what is allowed."""

import re
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from inspect import Parameter, signature
from pathlib import Path
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, Union, get_args, get_origin, get_type_hints

import yaml

from lightning_mesa.attach.importing import imported, only
from lightning_mesa.errors import ConfigurationError, said, shown

if TYPE_CHECKING:
    from omegaconf import DictConfig

    Config: TypeAlias = str | Path | Mapping[str, Any] | DictConfig
else:
    Config = Any  # OmegaConf would be a quarter of what the package takes to import

_CLASS = ("class_path", "_target_")
_OF_HYDRA = ("_convert_", "_recursive_")
# References within the file and environment variables; every other interpolation calls a function.
_INTERPOLATION = re.compile(r"\$\{([\w.\[\]-]+|oc\.env:\w+(,[^${}]*)?)\}")
_SCALARS = (str, int, float, bool, NoneType)
_DEPTH = 50
_NO_MAPPING = "a configuration must be a mapping from the names of arguments to their values."


def build(config: Config, cls: type, allow: Sequence[str]) -> list[Any]:
    """Build what a configuration describes.

    Args:
        config: Path of a YAML file, or a mapping. It holds the arguments of one object; or one object as LightningCLI
            or Hydra writes it, with ``class_path`` and ``init_args``, or ``_target_``; or several of these by name.
        cls: The class of the objects.
        allow: Dotted names of what may be imported beside this package.

    Raises:
        ConfigurationError: If it cannot be read, names what there is not, or must not be imported.
    """
    tree = _read(config)
    several = bool(tree) and all(isinstance(node, Mapping) and _is_object(node) for node in tree.values())
    nodes = {str(name): node for name, node in tree.items()} if several else {"": tree}
    with only(allow):
        built = []
        for name, node in nodes.items():
            made = _object(node, name) if _is_object(node) else _call(cls, node, name)
            if not isinstance(made, cls):
                raise ConfigurationError(f"{_at(name)}gives a {type(made).__name__}, where a {cls.__name__} must be.")
            built.append(made)
        return built


def _read(config: Config) -> dict[Any, Any]:
    from omegaconf import DictConfig, OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        if isinstance(config, (str, Path)):
            loaded = _file(Path(config))
        else:
            loaded = config if isinstance(config, DictConfig) else OmegaConf.create(dict(config))
        tree = OmegaConf.to_container(loaded, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        key = f"{error.full_key}: " if getattr(error, "full_key", None) else ""
        raise ConfigurationError(f"{key}{str(error).strip().splitlines()[0]}.") from error
    if not isinstance(tree, dict):
        raise ConfigurationError(_NO_MAPPING)
    return tree


def _file(path: Path) -> Any:
    """A YAML file that calls no function and cannot grow without limit."""
    from omegaconf import OmegaConf

    try:
        text = path.read_text(encoding="utf-8")
        _check_shape(path, text)
        loaded = OmegaConf.create(text)
    except OSError as error:
        raise ConfigurationError(f"{path.absolute()} cannot be read: {error.strerror or error}.") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path} is no YAML: {' '.join(str(error).split())}.") from error
    for at, value in _leaves(OmegaConf.to_container(loaded, resolve=False), ""):
        if isinstance(value, str) and "${" in _INTERPOLATION.sub("", value):
            raise ConfigurationError(f"{_at(at)}only ${{key}} and ${{oc.env:NAME}} may be used, not {shown(value)}.")
    return loaded


def _check_shape(path: Path, text: str) -> None:
    """Refuse aliases, of which a few make billions of values, and deep nests, before anything is built."""
    depth = 0
    for event in yaml.parse(text, yaml.SafeLoader):
        where = f"{path}, line {event.start_mark.line + 1}"
        if depth == 0 and isinstance(event, yaml.NodeEvent) and not isinstance(event, yaml.MappingStartEvent):
            raise ConfigurationError(f"{where}: {_NO_MAPPING}")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if isinstance(event, yaml.AliasEvent):
            raise ConfigurationError(
                f"{where}: *{event.anchor} cannot be used here; refer to another value as ${{key}}."
            )
        if depth > _DEPTH:
            raise ConfigurationError(f"{where} is nested more than {_DEPTH} deep.")


def _leaves(node: Any, at: str) -> Iterator[tuple[str, Any]]:
    if isinstance(node, dict):
        for key, value in node.items():
            yield at, key
            yield from _leaves(value, _join(at, key))
    elif isinstance(node, list):
        for i, value in enumerate(node):
            yield from _leaves(value, f"{at}[{i}]")
    else:
        yield at, node


def _is_object(node: Any) -> bool:
    return isinstance(node, Mapping) and any(key in node for key in _CLASS)


def _value(node: Any, at: str) -> Any:
    if _is_object(node):
        return _object(node, at)
    if isinstance(node, dict):
        return {key: _value(value, _join(at, key)) for key, value in node.items()}
    if isinstance(node, list):
        return [_value(value, f"{at}[{i}]") for i, value in enumerate(node)]
    return node


def _object(node: Mapping[Any, Any], at: str) -> Any:
    """An object from ``{class_path: ..., init_args: {...}}`` or ``{_target_: ..., ...}``."""
    key = next(key for key in _CLASS if key in node)
    if not isinstance(node[key], str):
        raise ConfigurationError(f"{_at(_join(at, key))}must be the path of a class, not {shown(node[key])}.")
    make = imported(node[key], _join(at, key))
    if not callable(make):
        raise ConfigurationError(f"{_at(_join(at, key))}{shown(node[key])} is neither a class nor a function.")
    if key == "_target_":
        arguments = {name: value for name, value in node.items() if name != key and name not in _OF_HYDRA}
        return _call(make, arguments, at)
    if unknown := [name for name in node if name not in (key, "init_args")]:
        raise ConfigurationError(f"{_at(at)}{shown(unknown[0])} beside class_path; arguments belong into init_args.")
    arguments = node.get("init_args") or {}
    if not isinstance(arguments, Mapping):
        raise ConfigurationError(f"{_at(_join(at, 'init_args'))}must be a mapping from names to values.")
    return _call(make, arguments, _join(at, "init_args"))


def _call(make: Any, arguments: Mapping[Any, Any], at: str) -> Any:
    """Call a class or function with arguments that are checked first."""
    name = getattr(make, "__name__", type(make).__name__)
    try:
        parameters = dict(signature(make).parameters)
    except (TypeError, ValueError):  # some builtins have none
        parameters = {}
    takes_any = not parameters or any(p.kind is Parameter.VAR_KEYWORD for p in parameters.values())
    several = {n for n, p in parameters.items() if p.kind is Parameter.VAR_POSITIONAL}  # given as a list by its name
    kinds = (Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY, Parameter.VAR_POSITIONAL)
    known = [n for n, p in parameters.items() if p.kind in kinds]
    for argument in arguments:
        if not isinstance(argument, str) or not (takes_any or argument in known):
            nearest = get_close_matches(str(argument), known, 1)
            meant = f" Did you mean {nearest[0]!r}?" if nearest else ""
            raise ConfigurationError(
                f"{_at(_join(at, argument))}{name} has no argument {shown(argument)}.{meant} It has {', '.join(known)}."
            )
    for required in known:
        if parameters[required].default is Parameter.empty and required not in {*arguments, *several}:
            raise ConfigurationError(f"{_at(_join(at, required))}{name} needs this argument.")
    hints = {n: Sequence[hint] if n in several else hint for n, hint in _hints(make).items()}  # type: ignore[valid-type]
    for argument, node in arguments.items():
        if argument in hints and not _fits(node, hints[argument]):
            raise ConfigurationError(
                f"{_at(_join(at, argument))}{shown(node)} does not fit: it must be {_in_words(hints[argument])}."
            )
    values = {argument: _value(node, _join(at, argument)) for argument, node in arguments.items()}
    listed = [value for name in several for value in values.pop(name, ())]
    try:
        return make(*listed, **values)
    except ConfigurationError as error:
        raise ConfigurationError(f"{_at(at)}{error}") from error
    except Exception as error:
        raise ConfigurationError(f"{_at(at)}{name} failed with {said(error)}.") from error


def _hints(make: Any) -> dict[str, Any]:
    try:
        return get_type_hints(getattr(make, "__init__") if isinstance(make, type) else make)  # noqa: B009
    except Exception:  # another package's annotations need not be readable
        return {}


def _fits(node: Any, hint: Any) -> bool:
    """Whether a node of the file may stand for a type; what an object or an import path will give is not known yet."""
    origin = get_origin(hint)
    if origin in (Union, UnionType):
        return any(_fits(node, part) for part in get_args(hint))
    if origin is Literal:
        return node in get_args(hint)
    if isinstance(node, list):
        parts = get_args(hint)
        if origin is tuple:
            return len(parts) == len(node) and all(map(_fits, node, parts))
        return hint is Any or (origin is Sequence and all(_fits(value, parts[0]) for value in node))
    if isinstance(node, dict):
        return hint not in _SCALARS and (_is_object(node) or hint is Any or origin is Mapping)
    if hint is float:
        return isinstance(node, (int, float)) and not isinstance(node, bool)
    if hint in _SCALARS:
        return type(node) is hint
    return hint is Any or isinstance(node, str)


def _in_words(hint: Any) -> str:
    if get_origin(hint) in (Union, UnionType):
        return " or ".join(dict.fromkeys(_in_words(part) for part in get_args(hint)))
    if get_origin(hint) is Literal:
        return " or ".join(map(repr, get_args(hint)))
    words = {str: "a text", int: "a whole number", float: "a number", bool: "true or false", NoneType: "nothing"}
    if hint in words:
        return words[hint]
    if get_origin(hint) is Sequence:
        return f"a list of ({_in_words(get_args(hint)[0])})"
    if get_origin(hint) is tuple:
        return f"a list: {', '.join(map(_in_words, get_args(hint)))}"
    if get_origin(hint) is Mapping:
        return f"a mapping from names to ({_in_words(get_args(hint)[1])})"
    return f"a {hint.__name__}" if isinstance(hint, type) else "the import path of a function"


def _join(at: str, key: object) -> str:
    return f"{at}.{key}" if at else str(key)


def _at(at: str) -> str:
    return f"{at}: " if at else ""
