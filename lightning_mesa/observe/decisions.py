"""What follows from an action: at decisions, two actions are tried, and what the policy does next is seen to the end.

Half of the decisions are met on the policy's own way, the others where an objective gains something by chance: what a
policy avoids would else not be seen. An environment is brought to a decision by its seed and the actions on the way. To
tell luck from consequence, what was done is done again, action by action, with new randomness of the environment: where
it comes out the same, the environment has none and one look is enough; else two are taken, which have no luck in
common. See ``irl/successor.py``.
"""

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lightning_mesa.errors import ConfigurationError
from lightning_mesa.objectives.episodes import EpisodeObjective
from lightning_mesa.observe.policies import Prefer
from lightning_mesa.observe.rollouts import limited, reset_some, tensors, transition_of
from lightning_mesa.records import Decisions

EXPLORE = 0.25
"""Share of random actions on the policy's own way to a decision."""

WANDER = 5
"""Random episodes per decision, at most, that are searched for what objectives gain from."""

SAME = 1e-3
"""Probabilities that differ by more than this are not those of the same situation."""


@dataclass(frozen=True)
class _Run:
    """An episode to be run.

    Attributes:
        seed: Of the episode.
        script: Its first actions.
        renewed: The step before which the environment's randomness is renewed.
        explore: How often the actions after the script are random; always, and without asking the policy, at 1.
    """

    seed: int
    script: Tensor
    renewed: int | None = None
    explore: float = 0.0


@dataclass(frozen=True)
class _Path:
    """An episode: ``[T, A]`` log probabilities, ``[T]`` actions, ``[T, K + 1]`` what objectives gained, and 1."""

    log_p: Tensor
    actions: Tensor
    gains: Tensor


def run_decisions(
    envs: Any,
    prefer: Prefer,
    objectives: Sequence[EpisodeObjective],
    seeds: Sequence[int],
    *,
    discount: float,
    max_steps: int,
    timeout: float,
) -> Generator[int, None, Decisions]:
    """Try two actions at one decision in each of many episodes.

    Args:
        envs: A ``gymnasium.vector`` environment with discrete actions that takes a list of seeds.
        prefer: The policy.
        objectives: Whose gains are the features; the last feature counts the steps.
        seeds: Of the episodes.
        discount: Of what follows.
        max_steps: An episode is cut after this many.
        timeout: Seconds that a step may take.

    Yields:
        How many episodes have been run so far.

    Returns:
        What the decisions tell, once all are done.

    Raises:
        ConfigurationError: If actions are not discrete, or episodes cannot be seeded one by one.
        TimeoutError: If a step takes too long.
        NoActionError: If the policy's outputs are NaN.
    """
    if type(envs.single_action_space).__name__ != "Discrete":
        raise ConfigurationError("decisions= needs discrete actions: leave it at 0 where they are others.")
    if not {"SyncVectorEnv", "AsyncVectorEnv"} & {cls.__name__ for cls in type(envs.unwrapped).__mro__}:
        raise ConfigurationError(
            f"decisions= needs environments that are seeded one by one, and {type(envs.unwrapped).__name__} is seeded "
            "as a whole: pass a SyncVectorEnv or AsyncVectorEnv, or leave it at 0."
        )
    with limited(timeout) as in_time:
        trying = _Trying(envs, prefer, objectives, max_steps, in_time)
        met = yield from _met(trying, seeds)
        pairs = torch.stack([torch.stack([m.action, _another(m.action, envs.single_action_space.n)]) for m in met])
        seeds, times = [m.seed for m in met] * 2, [len(m.way) for m in met] * 2
        ways = [torch.cat([m.way, pair[j : j + 1]]) for j in (0, 1) for m, pair in zip(met, pairs, strict=True)]
        tried = yield from trying.run([_Run(seed, way) for seed, way in zip(seeds, ways, strict=True)])
        again = [_Run(*of_one) for of_one in zip(seeds, (path.actions for path in tried), times, strict=True)]
        repeated = yield from trying.run(again[: envs.num_envs])
        looks = [tried, tried]
        if not all(_same(one, other) for one, other in zip(tried, repeated, strict=False)):
            looks = [(yield from trying.run(again)), (yield from trying.run(again))]
    return _told(pairs, [tried, repeated, *looks], times, discount)


@dataclass(frozen=True)
class _Met:
    """A decision: the episode's seed, the actions that lead there, and the one that was taken next."""

    seed: int
    way: Tensor
    action: Tensor


def _met(trying: "_Trying", seeds: Sequence[int]) -> Generator[int, None, list[_Met]]:
    """As many decisions as there are seeds, or fewer where no chance gain is found."""
    half, nothing = (len(seeds) + 1) // 2, torch.empty(0, dtype=torch.long)
    own = yield from trying.run([_Run(seed, nothing, explore=EXPLORE) for seed in seeds[:half]])
    times = [int(torch.rand(()) * len(path.actions)) for path in own]
    met = [
        _Met(seed, path.actions[:time], path.actions[time]) for seed, path, time in zip(seeds, own, times, strict=False)
    ]
    wanted = -(-(len(seeds) - half) // len(trying.objectives))
    found: list[list[_Met]] = [[] for _ in trying.objectives]
    rng = np.random.default_rng(seeds[0])
    for _ in range(0, WANDER * len(seeds), trying.envs.num_envs):
        if all(len(of_one) >= wanted for of_one in found):
            break
        some = rng.integers(2**31, size=trying.envs.num_envs).tolist()
        paths = yield from trying.run([_Run(seed, nothing, explore=1.0) for seed in some])
        for seed, path in zip(some, paths, strict=True):
            for of_one, gains in zip(found, path.gains.T, strict=False):
                if len(of_one) < wanted and gains.any():
                    time = int(gains.ne(0).int().argmax())
                    of_one.append(_Met(seed, path.actions[:time], path.actions[time]))
                    break
    return met + [m for of_one in found for m in of_one]


def _told(pairs: Tensor, paths: Sequence[Sequence[_Path]], times: Sequence[int], discount: float) -> Decisions:
    """What the decisions tell, from the first look at each, a repetition of some, and the two looks that count."""
    looks = paths[2:]
    n = len(pairs)
    met = [[_there(path, time) for path, time in zip(look, times, strict=False)] for look in paths]
    at = torch.stack(met[0][:n])
    same = all(
        bool(((there.exp() - at[i % n].exp()).abs() <= SAME).all()) for look in met for i, there in enumerate(look)
    )
    followed = [[_followed(p, time, discount) for p, time in zip(look, times, strict=True)] for look in looks]
    features = torch.stack([torch.stack([collected for collected, _ in look]) for look in followed])
    offsets = torch.stack([torch.stack([surprisal for _, surprisal in look]) for look in followed])
    possible = at > -torch.inf
    entropy = -torch.where(possible, at.exp() * at, 0).sum(1)
    return Decisions(
        torch.arange(n),
        features.reshape(2, 2, n, -1).transpose(1, 2),
        offsets.reshape(2, 2, n).transpose(1, 2),
        at.gather(1, pairs),
        1 - entropy / possible.sum(1).double().log().clamp(min=1e-12),
        None if same else "the same seed and actions do not bring an environment to the same situation again",
    )


class _Trying:
    """Runs episodes side by side, each along a script of actions first, then as the policy does, or nearly.

    Args:
        envs: The environments.
        prefer: The policy.
        objectives: Whose gains are kept.
        max_steps: An episode is cut after this many.
        in_time: Limits the time that a step may take.
    """

    def __init__(
        self, envs: Any, prefer: Prefer, objectives: Sequence[EpisodeObjective], max_steps: int, in_time: Any
    ) -> None:
        self.envs, self.prefer, self.objectives = envs, prefer, objectives
        self.max_steps, self.in_time = max_steps, in_time
        self.refuses = getattr(envs.metadata.get("autoreset_mode"), "name", None) == "DISABLED"
        self.start = int(getattr(envs.single_action_space, "start", 0))
        self.choices = int(envs.single_action_space.n)
        self.ran = 0

    def run(self, runs: Sequence[_Run]) -> Generator[int, None, list[_Path]]:
        """The episodes, in the order of the runs."""
        order = sorted(range(len(runs)), key=lambda i: len(runs[i].script))  # those side by side should end together
        paths: dict[int, _Path] = {}
        for begin in range(0, len(runs), self.envs.num_envs):
            wave = order[begin : begin + self.envs.num_envs]
            paths |= dict(zip(wave, self._side_by_side([runs[i] for i in wave]), strict=True))
            self.ran += len(wave)
            yield self.ran
        return [paths[i] for i in range(len(runs))]

    def _side_by_side(self, runs: Sequence[_Run]) -> list[_Path]:
        envs, m = self.envs, len(runs)
        steps: list[tuple[Tensor, Tensor, Tensor]] = []
        lengths, over = torch.zeros(m, dtype=torch.long), torch.zeros(m, dtype=torch.bool)
        sums = [objective.start(envs.num_envs) for objective in self.objectives]
        seeds = {i: runs[min(i, m - 1)].seed for i in range(envs.num_envs)}
        with self.in_time("reset"):
            observation = tensors(reset_some(envs, np.ones(envs.num_envs, dtype=bool), seeds))
        explore = torch.zeros(envs.num_envs, dtype=torch.float64)
        explore[:m] = torch.tensor([run.explore for run in runs])
        wander = all(run.explore == 1 for run in runs)
        state: Any = None
        while not over.all() and len(steps) < self.max_steps:
            if wander:
                actions = torch.randint(self.choices, (envs.num_envs,))
                log_p = torch.full((envs.num_envs, self.choices), torch.nan)
            else:
                log_p, state = self.prefer(observation, state)
                actions = _drawn(log_p, explore)
            for i, run in enumerate(runs):
                if len(steps) < len(run.script):
                    actions[i] = run.script[len(steps)]
            self._renew([i for i, run in enumerate(runs) if run.renewed == len(steps)])
            chosen = (actions + self.start).numpy().astype(envs.single_action_space.dtype, copy=False)
            with self.in_time("step"):
                following, reward, terminated, truncated, info = envs.step(chosen)
            transition = transition_of(observation, chosen, following, reward, terminated, truncated, info)
            after = [o.step(running, transition) for o, running in zip(self.objectives, sums, strict=True)]
            gains = [o.gained(a, b) for o, a, b in zip(self.objectives, sums, after, strict=True)]
            gains.append(torch.ones(envs.num_envs, dtype=torch.float64))
            steps.append((log_p[:m], actions[:m], torch.stack(gains, 1)[:m]))
            sums, lengths = after, lengths + (~over).long()
            ended = terminated | truncated
            over |= torch.from_numpy(ended[:m])
            if self.refuses and ended.any():  # to take another step
                following = reset_some(envs, ended, {})
            observation = tensors(following)
        together = [torch.stack(part, 1) for part in zip(*steps, strict=True)]
        return [_Path(*(part[i, :length] for part in together)) for i, length in enumerate(lengths.tolist())]

    def _renew(self, which: Sequence[int]) -> None:
        """Give some environments new randomness."""
        if which:
            generators = list(self.envs.get_attr("np_random"))
            for i in which:
                generators[i] = np.random.default_rng(int(torch.randint(2**62, ())))
            self.envs.set_attr("np_random", generators)


def _drawn(log_p: Tensor, explore: Tensor) -> Tensor:
    """``[m]`` actions as the policy draws them, sometimes random ones of those that it can do at all."""
    possible = (log_p > -torch.inf).double()
    mixed = (1 - explore[:, None]) * log_p.exp() + explore[:, None] * possible / possible.sum(1, keepdim=True)
    return torch.multinomial(mixed, 1)[:, 0]


def _another(action: Tensor, choices: int) -> Tensor:
    """An action that is not that one; the same where there is no other, which tells nothing."""
    return (action + torch.randint(1, max(2, choices), ())) % choices


def _same(one: _Path, other: _Path) -> bool:
    """Whether an episode came out the same."""
    if len(one.actions) != len(other.actions):
        return False
    return torch.allclose(one.gains, other.gains) and bool(((one.log_p.exp() - other.log_p.exp()).abs() < SAME).all())


def _followed(path: _Path, time: int, discount: float) -> tuple[Tensor, Tensor]:
    """``[K]`` what was gained from a time on, and the surprisal of the actions after it; discounted."""
    log_p = path.log_p.gather(1, path.actions[:, None])[time:, 0]
    weight = discount ** torch.arange(len(log_p), dtype=torch.float64)
    return weight @ path.gains[time:], -(weight[1:] @ log_p[1:])


def _there(path: _Path, time: int) -> Tensor:
    """``[A]`` log probabilities at a decision; NaN where the episode has ended before."""
    return path.log_p[time] if time < len(path.actions) else torch.full_like(path.log_p[0], torch.nan)
