"""Episodes of a policy in a vector environment: all that are asked for, and each to its end."""

import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lightning_mesa.episodes import EpisodeObjective, Transition
from lightning_mesa.errors import ConfigurationError
from lightning_mesa.observe.policies import Act


@dataclass(frozen=True)
class Episodes:
    """Episodes that have ended.

    Attributes:
        numbers: ``[n]`` which of the episodes they are.
        scores: Objective name -> ``[n]`` float64.
        lengths: ``[n]`` number of steps.
    """

    numbers: Tensor
    scores: Mapping[str, Tensor]
    lengths: Tensor


def run_episodes(
    envs: Any,
    act: Act,
    objectives: Sequence[EpisodeObjective],
    seeds: Sequence[int],
    *,
    max_steps: int,
    timeout: float,
) -> Iterator[Episodes]:
    """Run one episode for each seed.

    Which episodes count is settled before any begins, and each is run to its end: taking those that end first would
    count short ones more often. An environment whose episode has ended begins the next one where it can be reset alone
    (``AutoresetMode.DISABLED``) and the policy has no memory; else it waits for the others, and all begin together.

    Args:
        envs: A ``gymnasium.vector.VectorEnv``, with any autoreset mode.
        act: Acts in all environments; called once per step.
        objectives: What the episodes are scored by.
        seeds: Of each episode; a vector environment that takes no list of seeds is seeded by the first of those that
            begin together.
        max_steps: An episode is cut after so many.
        timeout: Seconds that a step may take.

    Yields:
        The episodes that have ended at a step.

    Raises:
        ConfigurationError: If the environments' info never has a key that an objective needs.
        TimeoutError: If a step takes too long.
        NoActionError: If the policy's outputs are NaN.
    """
    n = envs.num_envs
    alone = getattr(envs.metadata.get("autoreset_mode"), "name", None) == "DISABLED"
    begun, left, seen = 0, len(seeds), set[str]()
    episode = torch.full((n,), -1)  # the number of the one that an environment runs, -1 where it waits
    lengths = torch.zeros(n, dtype=torch.long)
    sums = [objective.start(n) for objective in objectives]
    observation: Any = None
    state: Any = None
    reset = torch.ones(n, dtype=torch.bool)
    with _limited(timeout) as in_time:
        while left:
            if reset.any():
                # What ended has to be reset where nothing else does it; a memory begins with all episodes together.
                together = bool((episode < 0).all())
                room = len(seeds) - begun if together or state is None else 0
                starting = reset.nonzero()[:room, 0]
                episode[starting] = torch.arange(begun, begun + len(starting))
                begun += len(starting)
                lengths[reset] = 0
                for total, objective in zip(sums, objectives, strict=True):
                    total[reset] = objective.start(int(reset.sum()))
                with in_time("reset"):
                    observation = tensors(_reset(envs, reset, {int(i): seeds[int(episode[i])] for i in starting}))
                state = None if together else state
            action, state = act(observation, state)
            with in_time("step"):
                following, *outcome = envs.step(action)
            transition = _transition(observation, action, following, *outcome)
            observation = tensors(following)
            seen |= transition.info.keys()
            sums = [o.step(total, transition) for o, total in zip(objectives, sums, strict=True)]
            lengths += 1
            over = transition.terminated | transition.truncated | (lengths >= max_steps)
            ended = over & (episode >= 0)
            if ended.any():
                scores = {o.name: o.scored(total[ended]) for o, total in zip(objectives, sums, strict=True)}
                yield Episodes(episode[ended], scores, lengths[ended])
                left -= int(ended.sum())
                episode[ended] = -1
            waiting = (episode < 0).all()
            reset = torch.ones_like(over) if waiting else over if alone else torch.zeros_like(over)
    _check_keys(objectives, seen)


class _Info(dict[str, Tensor]):
    """Says 0 of what it does not have: many environments speak of a goal only when it is reached."""

    def __init__(self, n: int) -> None:
        super().__init__()
        self.n = n

    def __missing__(self, key: str) -> Tensor:
        return torch.zeros(self.n)


def _transition(
    observation: Any, action: Any, following: Any, reward: Any, terminated: Any, truncated: Any, info: dict[str, Any]
) -> Transition:
    n = len(terminated)
    if "final_info" in info:  # the next episodes have begun already, in this very step
        ended = torch.as_tensor(terminated | truncated)
        last, first = _info(info["final_info"], n), _info(info, n)
        known = _Info(n)
        for key in last.keys() | first.keys():
            either = last.get(key, first.get(key))
            assert either is not None
            here = ended.reshape(n, *[1] * (either.ndim - 1))
            nothing = torch.zeros_like(either)
            known[key] = torch.where(here, last.get(key, nothing), first.get(key, nothing))
        following = _replaced(following, info["final_obs"], ended)
    else:
        known = _info(info, n)
    reward = torch.as_tensor(reward, dtype=torch.float64)
    return Transition(
        observation,
        torch.as_tensor(action),
        reward,
        tensors(following),
        torch.as_tensor(terminated),
        torch.as_tensor(truncated),
        known,
    )


def _info(info: Mapping[str, Any], n: int) -> _Info:
    """What is numeric in a vector environment's info."""
    found = _Info(n)
    for key, values in info.items():
        kind = getattr(getattr(values, "dtype", None), "kind", None)
        if key.startswith(("_", "final_")) or kind is None or len(values) != n:
            continue
        if kind == "O" and all(value is None or _is_number(value) for value in values):
            found[key] = torch.tensor([0.0 if value is None else float(value) for value in values])
        elif kind in "biuf":
            found[key] = torch.as_tensor(values)
    return found


def _is_number(value: Any) -> bool:
    return isinstance(value, (bool, int, float)) or getattr(value, "ndim", None) == 0


def _replaced(observation: Any, final: Any, ended: Tensor) -> Any:
    """The observation with the rows of ended episodes replaced by their last one."""
    if isinstance(observation, Mapping):
        return {
            key: _replaced(value, [None if one is None else one[key] for one in final], ended)
            for key, value in observation.items()
        }
    if isinstance(observation, tuple):
        columns = [[None if one is None else one[i] for one in final] for i in range(len(observation))]
        return tuple(_replaced(value, column, ended) for value, column in zip(observation, columns, strict=True))
    if not hasattr(observation, "dtype"):
        return observation
    rows = observation.copy()
    for i in ended.nonzero()[:, 0].tolist():
        rows[i] = final[i]
    return rows


def _reset(envs: Any, which: Tensor, seeds: Mapping[int, int]) -> Any:
    """Reset some environments, those that begin an episode with its seed; returns the observation of all."""
    seed: Any = [seeds.get(i) for i in range(envs.num_envs)]
    if not {"SyncVectorEnv", "AsyncVectorEnv"} & {cls.__name__ for cls in type(envs.unwrapped).__mro__}:
        seed = next(iter(seeds.values()), None)
    options = {} if which.all() else {"options": {"reset_mask": which.numpy()}}
    return envs.reset(seed=seed, **options)[0]


def _check_keys(objectives: Sequence[EpisodeObjective], seen: set[str]) -> None:
    for objective in objectives:
        for key in objective.info_keys:
            if key not in seen:
                raise ConfigurationError(
                    f"objective {objective.name!r}: the environment's info never had {key!r}; it had "
                    f"{', '.join(sorted(seen)) or 'nothing'}."
                )


@contextmanager
def _limited(seconds: float) -> Iterator[Callable[[str], Any]]:
    """Gives a context in which what takes longer is interrupted, by an alarm signal: in the main thread alone."""
    possible = threading.current_thread() is threading.main_thread() and hasattr(signal, "setitimer")
    if not possible or signal.getitimer(signal.ITIMER_REAL)[0]:  # somebody else's alarm is set
        yield lambda what: nullcontext()
        return
    doing = ""

    def interrupt(*_: Any) -> None:
        raise TimeoutError(f"the environment's {doing} has not come back within {seconds:g} s")

    @contextmanager
    def in_time(what: str) -> Iterator[None]:
        nonlocal doing
        doing = what
        signal.setitimer(signal.ITIMER_REAL, seconds)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        yield in_time
    finally:
        signal.signal(signal.SIGALRM, before)


def tensors(observation: Any) -> Any:
    """An observation with tensors for arrays, floats in the default precision; what is not numeric is left."""
    if isinstance(observation, Mapping):
        return {key: tensors(value) for key, value in observation.items()}
    if isinstance(observation, tuple):
        return tuple(map(tensors, observation))
    if getattr(getattr(observation, "dtype", None), "kind", "O") not in "biuf":
        return observation
    tensor = torch.as_tensor(observation)
    return tensor.to(torch.get_default_dtype()) if tensor.dtype == torch.float64 else tensor
