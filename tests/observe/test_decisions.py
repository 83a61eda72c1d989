"""Two actions at each decision, and what follows them: exact where nothing is random, unbiased where something is."""

from collections.abc import Callable
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv
from torch import Tensor

from lightning_mesa import ConfigurationError, Reached
from lightning_mesa.data.progress import finished
from lightning_mesa.irl import TabularMDP, fit_successor_features, soft_value_iteration
from lightning_mesa.observe.decisions import run_decisions
from lightning_mesa.records import Decisions

LENGTH, DISCOUNT = 7, 0.9
WEIGHTS = torch.tensor([8.0, 9.0], dtype=torch.float64)  # large, so that the policy ends its episodes soon
GOALS = [Reached("left"), Reached("right")]


class Chain(gym.Env):
    """Seven cells in a row; the episode ends at either end. Now and then a step goes the other way."""

    observation_space = gym.spaces.Box(0, LENGTH, (1,), np.float32)
    action_space = gym.spaces.Discrete(2)

    def __init__(self, slip: float = 0.0, *, forgets: bool = False) -> None:
        self.slip, self.forgets, self.episodes = slip, forgets, 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self.episodes += 1
        self.cell = int(self.np_random.integers(1, LENGTH - 1))
        if self.forgets:  # its seed
            self.cell = 1 + self.episodes % (LENGTH - 2)
        return self._seen(), {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, bool]]:
        slips = self.np_random.random() < self.slip
        self.cell += (1 if action else -1) * (-1 if slips else 1)
        left, right = self.cell == 0, self.cell == LENGTH - 1
        return self._seen(), 0.0, left or right, False, {"left": left, "right": right}

    def _seen(self) -> np.ndarray:
        return np.array([self.cell], np.float32)


def policy(slip: float) -> Tensor:
    """``[LENGTH, 2]`` log probabilities of the soft-optimal policy for the weights."""
    moves = torch.zeros(LENGTH, 2, LENGTH, dtype=torch.float64)
    features = torch.zeros(LENGTH, 2, 2, dtype=torch.float64)
    for cell in range(1, LENGTH - 1):
        for action in (0, 1):
            for to, share in ((cell + 2 * action - 1, 1 - slip), (cell - 2 * action + 1, slip)):
                if 0 < to < LENGTH - 1:
                    moves[cell, action, to] += share
                else:
                    features[cell, action, int(to > 0)] += share
    start = torch.full((LENGTH,), 1 / LENGTH, dtype=torch.float64)
    return soft_value_iteration(TabularMDP(moves, start, DISCOUNT), features @ WEIGHTS).policy.log()


def decisions(envs: Any, log_p: Tensor, n: int = 120, prefer: Any = None) -> tuple[Decisions, int]:
    """The decisions, and how many episodes were run for them."""
    torch.manual_seed(0)
    asked = prefer or partial(_prefer, log_p)
    steps, ran = run_decisions(envs, asked, GOALS, range(n), discount=DISCOUNT, max_steps=500, timeout=600), 0
    while True:
        try:
            ran = next(steps)
        except StopIteration as end:
            envs.close()
            return end.value, ran


def vector(make: Callable[[], gym.Env], mode: AutoresetMode = AutoresetMode.DISABLED, n: int = 8) -> SyncVectorEnv:
    return SyncVectorEnv([make] * n, autoreset_mode=mode)


@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_without_luck_the_weights_of_a_soft_optimal_policy_are_exact(mode):
    told, ran = decisions(vector(Chain, mode), policy(0.0))
    fit = fit_successor_features(told.features[..., :2], told.offsets, told.log_probabilities)
    assert told.reason is None
    assert torch.allclose(fit.solution, WEIGHTS, atol=1e-8)
    assert torch.equal(told.features[0], told.features[1])
    assert ran < 120 * 5


@pytest.mark.slow
def test_with_luck_two_looks_differ_and_the_limits_cover_the_weights():
    told, _ = decisions(vector(partial(Chain, 0.2)), policy(0.2), n=250)
    fit = fit_successor_features(told.features[..., :2], told.offsets, told.log_probabilities)
    assert told.reason is None
    assert not torch.allclose(told.features[0], told.features[1])
    low, high = fit.interval([-1.0, 1.0])
    assert low < 1 < high
    assert high - low < 4


def test_environments_in_processes_of_their_own_tell_the_same():
    in_one, _ = decisions(vector(Chain, AutoresetMode.NEXT_STEP, 4), policy(0.0), n=20)
    apart, _ = decisions(AsyncVectorEnv([Chain] * 4), policy(0.0), n=20)
    assert torch.equal(in_one.features, apart.features)


def test_decisions_are_met_where_objectives_gain_even_if_the_policy_avoids_it():
    """The policy always goes right; half of the decisions are where the left or the right end is reached by chance."""
    right = torch.tensor([[-20.0, 0.0]]).double().log_softmax(1).expand(LENGTH, 2)
    told, _ = decisions(vector(Chain), right)
    assert int((told.features[0, :, 0, 0] > 0).sum()) >= 20


def test_where_chance_gains_nothing_only_the_policy_s_own_decisions_are_left():
    """Half of those that were asked for."""

    class Endless(Chain):
        def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, bool]]:
            return self._seen(), 0.0, False, False, {"left": False, "right": False}

    torch.manual_seed(0)
    asked = partial(_prefer, policy(0.0))
    ran = run_decisions(vector(Endless), asked, GOALS, range(8), discount=DISCOUNT, max_steps=5, timeout=600)
    assert finished(ran).features.shape == (2, 4, 2, 3)


def _prefer(log_p: Tensor, seen: Tensor, state: Any) -> tuple[Tensor, Any]:
    return log_p[seen[:, 0].long()], state


def test_an_environment_that_its_seed_does_not_bring_back_tells_nothing_and_says_so():
    told, _ = decisions(vector(partial(Chain, forgets=True)), policy(0.0), n=20)
    assert "do not bring an environment to the same situation again" in str(told.reason)


def test_a_policy_with_memory_keeps_it_within_an_episode():
    """Its state counts the steps since all episodes began."""
    states: list[Any] = []

    def prefer(seen: Tensor, state: Any) -> tuple[Tensor, Any]:
        states.append(state)
        return policy(0.0)[seen[:, 0].long()], 1 if state is None else state + 1

    told, _ = decisions(vector(Chain), policy(0.0), n=10, prefer=prefer)
    assert told.reason is None
    assert states[0] is None
    assert 1 in states


def test_actions_that_are_not_discrete_are_refused():
    envs = SyncVectorEnv([partial(gym.make, "Pendulum-v1")] * 2)
    with pytest.raises(ConfigurationError, match="needs discrete actions"):
        decisions(envs, policy(0.0))


def test_environments_that_are_seeded_as_a_whole_are_refused():
    with pytest.raises(ConfigurationError, match="seeded one by one"):
        decisions(gym.make_vec("CartPole-v1", num_envs=2, vectorization_mode="vector_entry_point"), policy(0.0))
