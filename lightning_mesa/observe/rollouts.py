"""Episodes of a policy in a vector environment: all that are asked for, and each to its end."""

import signal
import threading
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lightning_mesa.errors import ConfigurationError
from lightning_mesa.objectives.episodes import EpisodeObjective, Transition
from lightning_mesa.observe.policies import Act


@dataclass(frozen=True)
class Episodes:
    """Episodes that have been run.

    Attributes:
        scores: Objective name -> ``[n]`` float64, in the order of the seeds.
        lengths: ``[n]`` number of steps.
    """

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
) -> Generator[int, None, Episodes]:
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
        max_steps: An episode is cut after this many.
        timeout: Seconds that a step may take.

    Yields:
        How many episodes have ended so far, after each step.

    Returns:
        The episodes, once all have ended.

    Raises:
        ConfigurationError: If the environments' info never has a key that an objective needs.
        TimeoutError: If a step takes too long.
        NoActionError: If the policy's outputs are NaN.
    """
    n, total = envs.num_envs, len(seeds)
    alone = getattr(envs.metadata.get("autoreset_mode"), "name", None) == "DISABLED"
    begun, done, seen = 0, 0, set[str]()
    kept: list[Tensor] = []  # the sums of episodes that have ended, by their numbers
    kept_lengths = np.zeros(total, dtype=np.int64)
    # Small arrays are numpy's business: it takes a microsecond where torch takes four.
    episode = np.full(n, -1)  # the number of the one that an environment runs, -1 where it waits
    lengths = np.zeros(n, dtype=np.int64)
    fresh = [objective.start(1) for objective in objectives]
    sums = [objective.start(n) for objective in objectives]
    observation: Any = None
    state: Any = None
    reset = np.ones(n, dtype=bool)
    with limited(timeout) as in_time:
        while done < total:
            if reset.any():
                # What ended has to be reset where nothing else does it; a memory begins with all episodes together.
                together = (episode < 0).all()
                starting = reset.nonzero()[0][: total - begun if together or state is None else 0]
                episode[starting] = range(begun, begun + len(starting))
                begun += len(starting)
                lengths[reset] = 0
                for running, start in zip(sums, fresh, strict=True):
                    running[torch.from_numpy(reset)] = start
                with in_time("reset"):
                    observation = tensors(reset_some(envs, reset, {i: seeds[episode[i]] for i in starting.tolist()}))
                state = None if together else state
            action, state = act(observation, state)
            with in_time("step"):
                following, reward, terminated, truncated, info = envs.step(action)
            transition = transition_of(observation, action, following, reward, terminated, truncated, info)
            observation = tensors(following) if "final_obs" in info else transition.next_observation
            seen.update(info, info.get("final_info", ()))
            sums = [o.step(running, transition) for o, running in zip(objectives, sums, strict=True)]
            lengths += 1
            over = terminated | truncated | (lengths >= max_steps)
            ended = over & (episode >= 0)
            if ended.any():
                kept = kept or [running.new_zeros(total, *running.shape[1:]) for running in sums]
                for whole, running in zip(kept, sums, strict=True):
                    whole[torch.from_numpy(episode[ended])] = running[torch.from_numpy(ended)]
                kept_lengths[episode[ended]] = lengths[ended]
                done += int(ended.sum())
                episode[ended] = -1
            waiting = (episode < 0).all()
            reset = np.ones_like(over) if waiting else over if alone else np.zeros_like(over)
            yield done
    _check_keys(objectives, seen)
    scores = {objective.name: objective.scored(whole) for objective, whole in zip(objectives, kept, strict=True)}
    return Episodes(scores, torch.from_numpy(kept_lengths))


class _Info(Mapping[str, Tensor]):
    """What is numeric in the environments' info, read when it is asked for; 0 of what they do not say.

    Many environments speak of a goal only when it is reached.
    """

    def __init__(self, info: Mapping[str, Any], n: int, ended: Any = None) -> None:
        self.info, self.n = info, n
        self.ended = ended  # whose next episode has begun in the same step, so that their info is that of its start

    def __getitem__(self, key: str) -> Tensor:
        infos = [self.info] if self.ended is None else [self.info, self.info.get("final_info", {})]
        said = [None if key not in info else _numbers(key, info[key]) for info in infos]
        like = next((values for values in said if values is not None), torch.zeros(self.n))
        first, *lasts = (torch.zeros_like(like) if values is None else values for values in said)
        if self.ended is None:
            return first
        (last,) = lasts
        return torch.where(torch.from_numpy(self.ended).reshape(self.n, *[1] * (like.ndim - 1)), last, first)

    def __iter__(self) -> Iterator[str]:
        return (key for key in self.info if not key.startswith(("_", "final_")))

    def __len__(self) -> int:
        return sum(1 for _ in self)


def transition_of(
    observation: Any, action: Any, following: Any, reward: Any, terminated: Any, truncated: Any, info: dict[str, Any]
) -> Transition:
    """What a vector environment's step says, with the last observation and info of episodes that have ended in it."""
    ended = None
    if "final_obs" in info:
        ended = terminated | truncated
        following = _replaced(following, info["final_obs"], ended)
    return Transition(
        observation,
        torch.as_tensor(action),
        torch.as_tensor(reward, dtype=torch.float64),
        tensors(following),
        torch.as_tensor(terminated),
        torch.as_tensor(truncated),
        _Info(info, len(terminated), ended),
    )


def _numbers(key: str, values: Any) -> Tensor:
    """One entry of a vector environment's info as ``[n, ...]``; zeros where an environment says nothing."""
    kind = getattr(getattr(values, "dtype", None), "kind", None)
    if kind is not None and kind in "biuf":
        return torch.as_tensor(values)
    try:
        return torch.tensor([0.0 if value is None else float(value) for value in values])
    except (TypeError, ValueError):
        raise ConfigurationError(
            f"the environment's info has {type(values).__name__} under {key!r}: an objective needs one number per "
            "environment there."
        ) from None


def _replaced(observation: Any, final: Any, ended: Any) -> Any:
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
    for i in ended.nonzero()[0]:
        rows[i] = final[i]
    return rows


def reset_some(envs: Any, which: Any, seeds: Mapping[int, int]) -> Any:
    """Reset some environments, those that begin an episode with its seed; returns the observation of all."""
    seed: Any = [seeds.get(i) for i in range(envs.num_envs)]
    if not {"SyncVectorEnv", "AsyncVectorEnv"} & {cls.__name__ for cls in type(envs.unwrapped).__mro__}:
        seed = next(iter(seeds.values()), None)
    options = {} if which.all() else {"options": {"reset_mask": which}}
    return envs.reset(seed=seed, **options)[0]


def _check_keys(objectives: Sequence[EpisodeObjective], seen: set[str]) -> None:
    seen = {key for key in seen if not key.startswith(("_", "final_"))}
    for objective in objectives:
        for key in objective.info_keys:
            if key not in seen:
                raise ConfigurationError(
                    f"objective {objective.name!r}: the environment's info never had {key!r}; it had "
                    f"{', '.join(sorted(seen)) or 'nothing'}."
                )


@contextmanager
def limited(seconds: float) -> Iterator[Callable[[str], Any]]:
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
