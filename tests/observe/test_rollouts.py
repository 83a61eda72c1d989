import multiprocessing
import time
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv
from torch import Tensor

from environments import Corridor, TwoDoors
from lightning_mesa import ConfigurationError, EpisodeReturn, Reached
from lightning_mesa.observe.rollouts import Episodes, run_episodes, tensors

MODES = list(AutoresetMode)


def vector(make: Callable[[], gym.Env], n: int = 4, mode: AutoresetMode = AutoresetMode.DISABLED) -> SyncVectorEnv:
    return SyncVectorEnv([make] * n, autoreset_mode=mode)


class Counted:
    """Always the same action; counts how often it is asked, and may have a memory."""

    def __init__(self, envs: Any, *, memory: bool = False) -> None:
        self.envs, self.memory, self.calls, self.states = envs, memory, 0, []

    def __call__(self, observation: Any, state: Any) -> tuple[Any, Any]:
        self.calls += 1
        self.states.append(state)
        return self.envs.action_space.sample() * 0, (0 if state is None else state + 1) if self.memory else None


def run(envs: Any, number: int, objectives: Any = None, act: Any = None, **options: Any) -> Episodes:
    objectives = [EpisodeReturn((0, 1))] if objectives is None else objectives
    options = {"max_steps": 1000, "timeout": 600.0} | options
    ran = run_episodes(envs, act or Counted(envs), objectives, range(number), **options)
    while True:
        try:
            assert next(ran) <= number
        except StopIteration as end:
            return end.value


def scores(episodes: Episodes, name: str = "return") -> Tensor:
    return episodes.scores[name]


def naive(envs: Any, number: int) -> float:
    """Mean return of the first episodes to end: what a loop with autoreset gives."""
    envs.reset(seed=0)
    returns: list[float] = []
    running = np.zeros(envs.num_envs)
    while len(returns) < number:
        _, reward, terminated, truncated, _ = envs.step(envs.action_space.sample())
        running += reward
        for i in np.nonzero(terminated | truncated)[0]:
            returns.append(running[i])
            running[i] = 0
    return float(np.mean(returns[:number]))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("memory", [False, True])
def test_the_mean_return_is_unbiased_where_lengths_vary(mode: AutoresetMode, memory: bool):
    """Half of the episodes take 20 steps and return 1. Taking those that end first counts them too rarely."""
    envs = vector(Corridor, 16, mode)
    found = scores(run(envs, 800, act=Counted(envs, memory=memory)))
    assert abs(float(found.mean()) - 0.5) < 3 * 0.5 / 800**0.5
    # The same environments, sixteen episodes, many times over: far below one half, which this test can see.
    assert np.mean([naive(vector(Corridor, 16, AutoresetMode.SAME_STEP), 16) for _ in range(20)]) < 0.3


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("number", [1, 3, 4, 9])
def test_exactly_the_asked_number_is_run(mode: AutoresetMode, number: int):
    episodes = run(vector(Corridor, 4, mode), number)
    assert len(scores(episodes)) == len(episodes.lengths) == number


@pytest.mark.parametrize("mode", MODES)
def test_scores_and_lengths_are_those_of_single_environments(mode: AutoresetMode):
    """Each episode is what its seed gives when it is run alone, in every autoreset mode."""
    episodes = run(vector(Corridor, 3, mode), 12, [EpisodeReturn((0, 1)), Reached("over")])
    for seed in range(12):
        env = Corridor()
        env.reset(seed=seed)
        total, length, over = 0.0, 0, False
        while not over:
            _, reward, over, _, _ = env.step(0)
            total, length = total + reward, length + 1
        # A wave of environments that cannot be reset alone is seeded by its first seed, and these are consecutive.
        assert (float(scores(episodes)[seed]), int(episodes.lengths[seed])) == (total, length)
    assert scores(episodes, "over").tolist() == [1.0] * 12  # the last step's info is seen in every mode


def test_an_environment_starts_its_next_episode_at_once_where_it_can():
    """About as many steps as the total length over the number of environments, not rounds of the longest."""
    envs = vector(lambda: Corridor(30), 8)
    act = Counted(envs)
    episodes = run(envs, 200, act=act)
    total = int(episodes.lengths.sum())
    assert act.calls < 1.25 * total / 8 + 30
    waves = Counted(envs, memory=True)
    run(envs, 200, act=waves)
    assert waves.calls > 1.5 * act.calls


def test_the_policy_is_called_once_per_step():
    class Stepped(SyncVectorEnv):
        steps = 0

        def step(self, actions: Any) -> Any:
            self.steps += 1
            return super().step(actions)

    envs = Stepped([Corridor] * 4, autoreset_mode=AutoresetMode.DISABLED)
    act = Counted(envs)
    run(envs, 10, act=act)
    assert act.calls == envs.steps


@pytest.mark.parametrize("mode", MODES)
def test_a_memory_begins_with_the_episode(mode: AutoresetMode):
    """The state is None exactly when all episodes begin, and counts the steps since."""

    class Looks(Counted):
        def __call__(self, observation: Any, state: Any) -> tuple[Any, Any]:
            assert (state is None) == bool((observation == 0).all())
            return super().__call__(observation, state)

    envs = vector(lambda: Corridor(5), 4, mode)
    found = scores(run(envs, 30, act=Looks(envs, memory=True)))
    assert len(found) == 30


def test_an_episode_without_end_is_cut():
    class Endless(Corridor):
        def step(self, action: int) -> Any:
            return self._seen(), 0.01, False, False, {}

    for mode in MODES:
        episodes = run(vector(Endless, 3, mode), 7, max_steps=11)
        assert episodes.lengths.tolist() == [11] * 7
        torch.testing.assert_close(scores(episodes), torch.full((7,), 0.11, dtype=torch.float64))


def test_a_step_that_hangs_is_interrupted():
    came_back = []

    class Hangs(Corridor):
        def step(self, action: int) -> Any:
            time.sleep(30)
            came_back.append(True)

    with pytest.raises(TimeoutError, match=r"the environment's step has not come back within 0\.2 s"):
        run(vector(Hangs), 4, timeout=0.2)
    assert not came_back


def test_an_alarm_signal_that_somebody_else_set_is_left_alone():
    import signal

    handler = signal.signal(signal.SIGALRM, lambda *_: None)
    signal.setitimer(signal.ITIMER_REAL, 100)
    try:
        run(vector(Corridor), 4)
        assert 50 < signal.getitimer(signal.ITIMER_REAL)[0] <= 100
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)


def test_a_reward_that_is_nan_leaves_that_episode_without_a_score():
    class Broken(TwoDoors):
        def step(self, action: int) -> Any:
            seen, reward, *rest = super().step(action)
            return seen, float("nan") if self.goal else reward, *rest

    found = scores(run(vector(Broken), 40))
    assert 0 < found.isnan().sum() < 40


def test_a_key_that_no_environment_gives_is_refused():
    with pytest.raises(ConfigurationError, match="info never had 'door'; it had over, steps"):
        run(vector(Corridor), 4, [Reached("door")])


def test_what_is_said_at_the_end_alone_counts():
    """Many environments speak of success in the last step's info only, or in numpy's bool."""

    class AtTheEnd(Corridor):
        def step(self, action: int) -> Any:
            seen, reward, over, cut, _ = super().step(action)
            return seen, reward, over, cut, {"success": np.bool_(self.last > 1)} if over else {}

    for mode in MODES:
        episodes = run(vector(AtTheEnd, 4, mode), 40, [EpisodeReturn((0, 1)), Reached("success")])
        assert torch.equal(scores(episodes), scores(episodes, "success"))


@pytest.mark.parametrize("mode", [AutoresetMode.NEXT_STEP, AutoresetMode.DISABLED])
def test_environments_in_processes(mode: AutoresetMode):
    before = multiprocessing.active_children()
    envs = AsyncVectorEnv([Corridor] * 2, autoreset_mode=mode)
    try:
        sync = run(vector(Corridor, 2, mode), 6)
        assert torch.equal(scores(run(envs, 6)), scores(sync))
    finally:
        envs.close()
    assert multiprocessing.active_children() == before


def test_a_vector_environment_of_its_own_kind():
    """One that is no list of single ones, and takes a single seed: Gymnasium's vectorized CartPole."""
    envs = gym.make_vec("CartPole-v1", num_envs=4, vectorization_mode="vector_entry_point")
    episodes = run(envs, 10, [EpisodeReturn((0, 500))])
    assert len(scores(episodes)) == 10
    assert all(8 <= length <= 11 for length in episodes.lengths.tolist())  # always left: it falls soon


def test_observations_become_tensors_whatever_their_structure():
    seen = tensors({"a": np.zeros((2, 3)), "b": (np.ones(2, np.uint8), ("go", "stop"))})
    assert seen["a"].dtype == torch.get_default_dtype()
    assert seen["b"][0].dtype == torch.uint8
    assert seen["b"][1] == ("go", "stop")


@pytest.mark.parametrize("mode", MODES)
def test_the_last_observation_of_an_episode_is_seen_in_every_mode(mode: AutoresetMode):
    """``next_observation`` is what came of the action, though the next episode may have begun in the same step."""

    class Dicts(Corridor):
        observation_space = gym.spaces.Dict({"count": Corridor.observation_space})

        def _seen(self) -> Any:
            return {"count": np.array([self.steps], np.float32)}

    def counted(transition: Any) -> Tensor:
        steps = transition.next_observation["count"][:, 0]
        assert torch.equal(steps, transition.observation["count"][:, 0] + 1) or mode == AutoresetMode.NEXT_STEP
        return steps.where(transition.terminated, torch.zeros_like(steps)) / 20

    episodes = run(vector(Dicts, 4, mode), 40, [EpisodeReturn((0, 1), counted, name="last")])
    lengths = episodes.lengths
    torch.testing.assert_close(scores(episodes, "last"), lengths.double() / 20, atol=1e-6, rtol=0)
