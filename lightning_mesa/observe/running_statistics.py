"""Running statistics in the monitor's environments: stopped, and set to those of training.

A wrapper such as ``NormalizeObservation`` learns a mean and a scale from what it sees. In the monitor's environments it
would learn those of the shifted environment, and so hide the shift. The policy is trained on the statistics of the
training's environments, and is looked at with the same. What only rewards depend on stays as it begins: scores then
have the environment's own unit at every look.

What moves is found by behavior: the same short episode, seen twice, is not the same.
"""

import copy
import pickle
import re
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import FunctionType, MethodType, ModuleType
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import nn

from lightning_mesa.errors import ConfigurationError, MesaWarning
from lightning_mesa.observe.generators import generators
from lightning_mesa.observe.isolation import random_streams
from lightning_mesa.observe.rollouts import limited

STEPS = 20
"""Length of the episode that is seen twice."""

SEED = 0
LARGEST = 2**22
"""An array of more numbers than this is no statistic."""

_STATISTIC = re.compile(r"mean|var|std|rms|avg|(^|[_.])(ema|mu|sigma|m2)($|[_.])", re.IGNORECASE)
_NO_HOLDERS = (type, FunctionType, MethodType, ModuleType)
_FLAGS = ("update_running_mean", "training")  # of Gymnasium, and of Stable-Baselines3

Key: TypeAlias = tuple[str, str]
"""Where a layer holds a number: the path of what holds it ("" for the layer itself), and its name there."""

SetStatistics: TypeAlias = Callable[[Any, Any], None]


@dataclass(frozen=True)
class _Replay:
    """The same short episode, as a layer of the environments shows it; and its numbers at the end."""

    observations: list[bytes]
    rewards: list[bytes]
    numbers: dict[Key, Any]

    def shows_the_same(self, other: "_Replay") -> bool:
        return self.observations == other.observations and self.rewards == other.rewards


@dataclass
class _Moving:
    """A layer whose statistics change observations: its copies side by side, and its twins in training."""

    copies: list[Any]
    keys: set[Key]
    place: str
    twins: list[Any]
    last: list[bytes]
    unchanged: int = 0


class RunningStatistics:
    """The running statistics of one distribution's environments.

    Args:
        envs: The monitor's vector environment.
        training: Where training may hold its environments, such as ``"model.envs"``, and those that are there.
        given: ``(pl_module, envs)`` sets the statistics; None copies those of training.
        timeout: Seconds that a step may take.
    """

    def __init__(
        self, envs: Any, training: Mapping[str, list[Any]], given: SetStatistics | None, timeout: float
    ) -> None:
        self.envs, self.training, self.given, self.timeout = envs, training, given, timeout
        self.layers = [(copies, inner) for copies, inner in _layers(envs) if _may_move(copies[0], inner)]
        self._moving: list[_Moving] = []
        self._seen: list[_Replay] | None = None

    def follow(self, pl_module: Any) -> None:
        """Set the statistics to those of training; the first time, find and stop them.

        Raises:
            ConfigurationError: If some that change observations cannot be stopped, or those of training not be found.
        """
        if self.given is not None:
            self.given(pl_module, self.envs)
        first = self._seen is None
        if first:
            self._stop()
        for moving in self._moving:
            self._copy(moving)
        if first:
            self._seen = [self._replay(copies[0]) for copies, _ in self.layers]

    def check(self) -> None:
        """Refuse what has moved after all, in the episodes since :meth:`follow` was first called.

        Raises:
            ConfigurationError: If something has.
        """
        for (copies, inner), before in zip(self.layers, self._seen or (), strict=True):
            if moved := self._moved(copies[0], inner, before, self._replay(copies[0])):
                raise _unstoppable(copies[0], moved)

    def _stop(self) -> None:
        _check_other_processes(self.envs)
        for copies, inner in self.layers:
            layer = copies[0]
            start = _numbers(layer)
            try:
                moved = self._moved(layer, inner, self._replay(layer), self._replay(layer))
            finally:
                _put(layer, start)  # training may hold the same statistics
            if not moved:
                continue
            for each in copies:
                _freeze(each, {path for path, _ in moved})
            if still := self._moved(layer, inner, self._replay(layer), self._replay(layer)):
                raise _unstoppable(layer, still)
            seen = self._observed(layer, moved)
            _put(layer, start)
            if seen and self.given is None:
                self._moving.append(self._twins(copies, seen))

    def _moved(self, layer: Any, inner: Any, one: _Replay, two: _Replay) -> set[Key]:
        """Numbers that differ at the end of the same episode, where the layer makes something of them."""
        both = one.numbers.keys() & two.numbers.keys()
        moved = {key for key in both if _bytes(one.numbers[key]) != _bytes(two.numbers[key])}
        if getattr(layer, "update_running_mean", None) is True:
            return moved
        if one.shows_the_same(two):
            return set()
        if inner is not None and not self._replay(inner).shows_the_same(self._replay(inner)):
            return set()  # what the layer is given differs already
        if any(_STATISTIC.search(name) for name in _names(moved)):
            return moved
        if inner is not None:
            warnings.warn(
                f"{_kind(layer)} shows the same seed and actions differently the second time: it keeps something from "
                "episode to episode. If that adapts to what it sees, it hides a shift: set it by "
                "EnvDistribution(..., statistics=), a function (pl_module, envs) that is called before each look.",
                MesaWarning,
                stacklevel=2,
            )
        return set()

    def _observed(self, layer: Any, moved: Iterable[Key]) -> set[Key]:
        """The statistics that observations depend on, and not rewards alone."""
        at, seen = _numbers(layer), set[Key]()
        before = self._replay(layer).observations
        for path in {path for path, _ in moved}:
            keys = {key for key in moved if key[0] == path}
            _put(layer, at | {key: at[key] * 2 + 1 for key in keys})
            if self._replay(layer).observations != before:
                seen |= keys
        _put(layer, at)
        return seen

    def _twins(self, copies: list[Any], keys: set[Key]) -> _Moving:
        """The same layer of the training's environments."""
        kind = type(copies[0]).__name__
        ours = {id(layer) for layers, _ in _layers(self.envs) for layer in layers}
        found: dict[tuple[int, ...], tuple[str, list[Any]]] = {}
        for place, environments in self.training.items():
            layers = [layer for env in environments for same, _ in _layers(env) for layer in same]
            twins = [layer for layer in layers if type(layer).__name__ == kind and id(layer) not in ours]
            if twins:
                found.setdefault(tuple(map(id, twins)), (place, twins))
        moves = (
            f"{kind} changes what the policy sees by statistics of its own episodes, so it would adapt to a shift and "
            "hide it"
        )
        if not found:
            where = " or ".join(self.training) or "the model, the DataModule or the training data"
            raise ConfigurationError(
                f"{moves}; those of training are not found in {where}. Pass EnvDistribution(..., "
                "statistics='model.ENVS'), the environments that it trains in, or a function (pl_module, envs) that "
                "sets them before each look."
            )
        if len(found) > 1:
            places = [place for place, _ in found.values()]
            raise ConfigurationError(
                f"{moves}; those of training may be in {' or '.join(places)}: say which, EnvDistribution(..., "
                f"statistics={places[0]!r})."
            )
        ((place, twins),) = found.values()
        wanted, theirs = _numbers(copies[0]), _numbers(twins[0])
        for key in sorted(keys):
            if key not in theirs or np.shape(wanted[key]) != np.shape(theirs[key]):
                raise ConfigurationError(
                    f"{moves}; in {place} it has no {_names([key])[0]} of shape {list(np.shape(wanted[key]))}. Make "
                    "the environments as those of training are made, or pass statistics=, a function (pl_module, envs)."
                )
        return _Moving(copies, keys, place, twins, [])

    def _copy(self, moving: _Moving) -> None:
        theirs = [_numbers(twin) for twin in moving.twins]
        for i, layer in enumerate(moving.copies):
            _put(layer, {key: theirs[i % len(theirs)][key] for key in moving.keys})
        now = [_bytes(of_one[key]) for of_one in theirs for key in sorted(moving.keys)]
        moving.unchanged = moving.unchanged + 1 if now == moving.last else 0
        moving.last = now
        if moving.unchanged == 2 and getattr(moving.twins[0], "update_running_mean", True):
            warnings.warn(
                f"the statistics of {_kind(moving.twins[0])} in {moving.place} have not moved for three looks: if the "
                "model trains in other environments, such as copies in worker processes, name them by "
                "EnvDistribution(..., statistics=).",
                MesaWarning,
                stacklevel=2,
            )

    def _replay(self, layer: Any) -> _Replay:
        space = copy.deepcopy(layer.action_space)  # environments may share theirs
        space.seed(SEED)
        rewards = []
        with random_streams(SEED), generators(layer, seed=SEED), limited(self.timeout) as in_time:
            with in_time("reset"):
                observations = [pickle.dumps(layer.reset(seed=SEED)[0])]
            for _ in range(STEPS):
                with in_time("step"):
                    observation, reward, terminated, truncated, _ = layer.step(space.sample())
                observations.append(pickle.dumps(observation))
                rewards.append(pickle.dumps(reward))
                if np.any(terminated) or np.any(truncated):
                    break
        return _Replay(observations, rewards, _numbers(layer))


def is_env(item: Any) -> bool:
    """Whether it can be stepped as an environment is, single or vector, of Gymnasium or like it."""
    kind = type(item)
    steps = callable(getattr(kind, "reset", None)) and callable(getattr(kind, "step", None))
    return steps and not isinstance(item, nn.Module) and hasattr(item, "action_space")


def _layers(envs: Any) -> list[tuple[list[Any], Any]]:
    """Every layer, inside first: its copies side by side, and what the first one wraps."""
    whole = _chain(envs)
    singles = [_chain(env) for env in getattr(whole[0], "envs", None) or () if is_env(env)]
    found: list[tuple[list[Any], Any]] = []
    for layers in (list(map(list, zip(*singles, strict=False))), [[layer] for layer in whole]):
        found += [(copies, layers[i - 1][0] if i else None) for i, copies in enumerate(layers)]
    return found


def _chain(env: Any) -> list[Any]:
    """The wrappers around an environment, inside first."""
    held = getattr(env, "__dict__", {})
    inner = held.get("env", held.get("venv"))
    return [*(_chain(inner) if is_env(inner) else ()), env]


def _may_move(layer: Any, inner: Any) -> bool:
    """Whether to look at it: not at Gymnasium's own layers without statistics, nor at a plain environment."""
    if isinstance(getattr(layer, "update_running_mean", None), bool):
        return True
    if type(layer).__module__.startswith("gymnasium."):
        return False
    return inner is not None or any(_STATISTIC.search(name) for name in _names(_numbers(layer)))


def _check_other_processes(envs: Any) -> None:
    base = _chain(envs)[0]
    if "AsyncVectorEnv" not in {cls.__name__ for cls in type(base).__mro__}:
        return
    if any(base.call("has_wrapper_attr", "update_running_mean")) and any(base.get_attr("update_running_mean")):
        raise ConfigurationError(
            "running statistics in the processes of an AsyncVectorEnv adapt to a shift and hide it, and cannot be set "
            "from here: pass a function that makes one environment, and num_envs=."
        )


def _holders(layer: Any) -> dict[str, Any]:
    """What holds a layer's numbers, by path: itself, its attributes, and what mappings among them hold."""
    found = {"": layer}
    for name, value in vars(layer).items():
        inside = value.items() if isinstance(value, dict) else ()
        for path, one in [(name, value), *((f"{name}.{key}", one) for key, one in inside if isinstance(key, str))]:
            held = hasattr(one, "__dict__") and not isinstance(one, _NO_HOLDERS) and not is_env(one)
            if held or isinstance(one, dict):
                found[path] = one
    return found


def _fields(holder: Any) -> dict[str, Any]:
    return holder if isinstance(holder, dict) else vars(holder) | vars(holder).get("_buffers", {})


def _numbers(layer: Any) -> dict[Key, Any]:
    """Copies of all numbers and arrays of numbers that a layer holds, but not what it wraps."""
    return {
        (path, name): value.detach().clone() if isinstance(value, torch.Tensor) else copy.copy(value)
        for path, holder in _holders(layer).items()
        for name, value in _fields(holder).items()
        if isinstance(name, str) and _is_number(value)
    }


def _is_number(value: Any) -> bool:
    if isinstance(value, (int, float)):
        return not isinstance(value, bool)
    if isinstance(value, torch.Tensor):
        return value.numel() <= LARGEST and value.dtype != torch.bool
    return isinstance(value, (np.ndarray, np.generic)) and value.dtype.kind in "iuf" and value.size <= LARGEST


def _put(layer: Any, numbers: Mapping[Key, Any]) -> None:
    holders = _holders(layer)
    for (path, name), value in numbers.items():
        holder = holders[path]
        if isinstance(value, torch.Tensor):  # others may hold the very tensor
            _fields(holder)[name].data.copy_(value)
        elif isinstance(holder, dict):
            holder[name] = copy.copy(value)
        else:
            setattr(holder, name, copy.copy(value))


def _freeze(layer: Any, paths: Iterable[str]) -> None:
    """Stop the statistics: by the layer's flag, where it has one; else they are kept from updating themselves."""
    flags = [flag for flag in _FLAGS if isinstance(getattr(layer, flag, None), bool)]
    for flag in flags:
        setattr(layer, flag, False)
    for path in filter(None, paths):
        still = copy.deepcopy(_holders(layer)[path])  # training may hold the same ones
        if isinstance(still, nn.Module):
            still.eval()
        if not flags and not isinstance(still, dict):
            for name in filter(lambda name: name.startswith("update"), dir(type(still))):
                setattr(still, name, _nothing)
        name, _, key = path.partition(".")
        if key:
            getattr(layer, name)[key] = still
        else:
            setattr(layer, name, still)


def _nothing(*_: Any, **__: Any) -> None:
    """In place of an update."""


def _bytes(number: Any) -> bytes:
    return np.asarray(number.cpu() if isinstance(number, torch.Tensor) else number).tobytes()


def _names(keys: Iterable[Key]) -> list[str]:
    return sorted(".".join(filter(None, key)) for key in keys)


def _kind(layer: Any) -> str:
    return type(layer).__name__


def _unstoppable(layer: Any, moved: Iterable[Key]) -> ConfigurationError:
    names = ", ".join(_names(key for key in moved if _STATISTIC.search(_names([key])[0])) or _names(moved))
    return ConfigurationError(
        f"{_kind(layer)} goes on changing its {names} in the monitor's environments, so it would adapt to a shift and "
        "hide it. Give it an attribute update_running_mean and let it update only where that is True, or leave it out "
        "of these environments."
    )
