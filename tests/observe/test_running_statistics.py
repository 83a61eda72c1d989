"""Statistics that move in the monitor's environments are stopped and set to those of training, or refused."""

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import wrappers
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv, VectorWrapper
from gymnasium.wrappers import vector as vector_wrappers
from gymnasium.wrappers.utils import RunningMeanStd
from torch import nn

from lightning_mesa.errors import ConfigurationError, MesaWarning
from lightning_mesa.observe.running_statistics import RunningStatistics


class Walk(gym.Env):
    """Five steps; observations around 100, rewards around 3."""

    observation_space = gym.spaces.Box(-np.inf, np.inf, (2,), np.float64)
    action_space = gym.spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.t = 0
        return self.np_random.normal(100, 20, 2), {}

    def step(self, action: int) -> Any:
        self.t += 1
        return self.np_random.normal(100, 20, 2), float(self.np_random.normal(3)), self.t == 5, False, {}


class Unseeded(Walk):
    """Draws from a generator of its own that reset does not seed."""

    def __init__(self) -> None:
        self.own = np.random.default_rng()

    def reset(self, **options: Any) -> Any:
        _, info = super().reset(**options)
        return self.own.normal(100, 20, 2), info


class Own(gym.ObservationWrapper):
    """As users wrote it before Gymnasium had a flag: a ``RunningMeanStd`` that updates at each observation."""

    def __init__(self, env: gym.Env, rms: Any = None) -> None:
        super().__init__(env)
        self.obs_rms = RunningMeanStd(shape=(2,)) if rms is None else rms

    def observation(self, seen: Any) -> Any:
        self.obs_rms.update(seen[None])
        return (seen - self.obs_rms.mean) / np.sqrt(self.obs_rms.var + 1e-8)


class ByKey(Own):
    """One of several statistics in a dict, as of mappings of observations."""

    def __init__(self, env: gym.Env) -> None:
        super().__init__(env)
        self.obs_rms = {"state": RunningMeanStd(shape=(2,))}

    def observation(self, seen: Any) -> Any:
        rms = self.obs_rms["state"]
        rms.update(seen[None])
        return (seen - rms.mean) / np.sqrt(rms.var + 1e-8)


class Averages(nn.Module):
    """A normaliser in torch that updates in train mode."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(2, dtype=torch.float64))
        self.register_buffer("var", torch.ones(2, dtype=torch.float64))

    def forward(self, seen: torch.Tensor) -> torch.Tensor:
        if self.training:
            self.mean += 0.1 * (seen - self.mean)
            self.var += 0.1 * ((seen - self.mean).square() - self.var)
        return (seen - self.mean) / self.var.sqrt()


class Torch(gym.ObservationWrapper):
    def __init__(self, env: gym.Env) -> None:
        super().__init__(env)
        self.normalize = Averages()

    def observation(self, seen: Any) -> Any:
        return self.normalize(torch.as_tensor(seen)).numpy()


class Inline(gym.ObservationWrapper):
    """Mean, variance and count in the wrapper itself, and a flag."""

    def __init__(self, env: gym.Env) -> None:
        super().__init__(env)
        self.mean, self.var, self.count = np.zeros(2), np.ones(2), 1
        self.training = True

    def observation(self, seen: Any) -> Any:
        if self.training:
            self.count += 1
            self.mean = self.mean + (seen - self.mean) / self.count
            self.var = self.var + ((seen - self.mean) ** 2 - self.var) / self.count
        return (seen - self.mean) / np.sqrt(self.var)


class NoFlag(Inline):
    """The same without one: nothing can stop it."""

    def __init__(self, env: gym.Env) -> None:
        super().__init__(env)
        del self.training

    def observation(self, seen: Any) -> Any:
        self.count += 1
        self.mean = self.mean + (seen - self.mean) / self.count
        return seen - self.mean


class InTheEnvironment(Walk):
    """Normalises itself."""

    def __init__(self) -> None:
        self.obs_rms = RunningMeanStd(shape=(2,))

    def reset(self, **options: Any) -> Any:
        seen, info = super().reset(**options)
        self.obs_rms.update(seen[None])
        return seen - self.obs_rms.mean, info


class Slow(Own):
    """Updates at the end of every tenth episode."""

    ended = 0

    def step(self, action: Any) -> Any:
        seen, reward, terminated, *rest = super().step(action)
        self.ended += terminated
        if terminated and self.ended % 10 == 0:
            RunningMeanStd.update(self.obs_rms, np.full((1, 2), 100.0))
        return seen, reward, terminated, *rest

    def observation(self, seen: Any) -> Any:
        return seen - self.obs_rms.mean


class VecNormalize(VectorWrapper):
    """As of Stable-Baselines3: observations and rewards, and the flag ``training``."""

    def __init__(self, env: Any) -> None:
        super().__init__(env)
        self.obs_rms, self.ret_rms = RunningMeanStd(shape=(2,)), RunningMeanStd(shape=())
        self.training = True

    def reset(self, **options: Any) -> Any:
        seen, info = super().reset(**options)
        return self.normalized(seen), info

    def step(self, actions: Any) -> Any:
        seen, reward, *rest = super().step(actions)
        if self.training:
            self.ret_rms.update(reward)
        return self.normalized(seen), reward / np.sqrt(self.ret_rms.var), *rest

    def normalized(self, seen: Any) -> Any:
        if self.training:
            self.obs_rms.update(seen)
        return (seen - self.obs_rms.mean) / np.sqrt(self.obs_rms.var)


def several(make: Callable[[gym.Env], gym.Env], base: type[gym.Env] = Walk) -> Any:
    """Three environments side by side, as the monitor makes them."""
    return SyncVectorEnv([lambda: make(base())] * 3, autoreset_mode=AutoresetMode.DISABLED)


def whole(make: Callable[[Any], Any]) -> Any:
    return make(SyncVectorEnv([Walk] * 3))


def nested(env: gym.Env) -> gym.Env:
    inside = wrappers.TimeLimit(wrappers.RecordEpisodeStatistics(env), 100)
    normalized = wrappers.NormalizeObservation(inside)
    clipped = wrappers.TransformObservation(normalized, lambda seen: np.clip(seen, -10, 10), None)
    return wrappers.TransformReward(wrappers.NormalizeReward(clipped), lambda reward: np.clip(reward, -10, 10))


def layer(envs: Any, kind: type) -> Any:
    """The first layer of a kind, in the first environment or around all of them."""
    env = envs
    while not isinstance(env, kind):
        env = env.env if hasattr(env, "env") else env.envs[0]
    return env


def rolled(envs: Any, episodes: int, seed: int = 0) -> None:
    """Move what moves."""
    envs.action_space.seed(seed)
    for episode in range(episodes):
        envs.reset(seed=100 * seed + episode)
        for _ in range(5):
            envs.step(envs.action_space.sample())


def first(envs: Any) -> Any:
    return envs.reset(seed=3)[0]


COPIED: dict[str, tuple[Callable[[], Any], type, Callable[[Any], Any]]] = {
    "Gymnasium's": (
        partial(several, wrappers.NormalizeObservation),
        wrappers.NormalizeObservation,
        lambda one: one.obs_rms,
    ),
    "Gymnasium's, deep inside": (partial(several, nested), wrappers.NormalizeObservation, lambda one: one.obs_rms),
    "Gymnasium's around all": (
        partial(whole, vector_wrappers.NormalizeObservation),
        vector_wrappers.NormalizeObservation,
        lambda one: one.obs_rms,
    ),
    "Gymnasium's, over an environment that no seed brings back": (
        partial(several, wrappers.NormalizeObservation, Unseeded),
        wrappers.NormalizeObservation,
        lambda one: one.obs_rms,
    ),
    "Stable-Baselines3's": (partial(whole, VecNormalize), VecNormalize, lambda one: one.obs_rms),
    "a user's": (partial(several, Own), Own, lambda one: one.obs_rms),
    "a user's, by key": (partial(several, ByKey), ByKey, lambda one: one.obs_rms["state"]),
    "a user's, in torch": (partial(several, Torch), Torch, lambda one: one.normalize),
    "a user's, in the wrapper": (partial(several, Inline), Inline, lambda one: one),
}


@pytest.mark.parametrize("name", COPIED)
def test_what_observations_depend_on_is_that_of_training_and_stands_still(name: str):
    make, kind, of = COPIED[name]
    envs, training = make(), make()
    rolled(training, 5, seed=1)
    statistics = RunningStatistics(envs, {"model.envs": [training]}, None, 60)
    for look in range(2):
        kept = copy.deepcopy(of(layer(training, kind)))
        statistics.follow(None)
        rolled(envs, 5, seed=2)
        if look == 0:
            statistics.check()
        ours, theirs = of(layer(envs, kind)), of(layer(training, kind))
        assert abs(float(ours.mean[0])) > 10
        for number in ("mean", "var"):
            assert np.array_equal(getattr(ours, number), getattr(kept, number))
            assert np.array_equal(getattr(theirs, number), getattr(kept, number)), "training is left as it is"
        rolled(training, 5, seed=3)
        assert not np.array_equal(of(layer(training, kind)).mean, kept.mean), "training goes on"


REWARDS = {
    "Gymnasium's": (several, wrappers.NormalizeReward, wrappers.NormalizeReward),
    "Gymnasium's, deep inside": (
        several,
        lambda env: wrappers.TimeLimit(wrappers.NormalizeReward(env), 9),
        wrappers.NormalizeReward,
    ),
    "Gymnasium's around all": (whole, vector_wrappers.NormalizeReward, vector_wrappers.NormalizeReward),
}


@pytest.mark.parametrize("name", REWARDS)
def test_rewards_have_the_unit_of_the_environment(name: str):
    """Those of training move from look to look, and bounds and chance do not: rewards are not scaled at all."""
    put, make, kind = REWARDS[name]
    envs, plain = put(make), put(lambda env: env)
    statistics = RunningStatistics(envs, {}, None, 60)
    statistics.follow(None)
    rolled(envs, 5)
    statistics.check()
    assert layer(envs, kind).return_rms.var == 1
    for env in (envs, plain):
        env.reset(seed=3)
    action = np.zeros(3, dtype=int)
    assert np.allclose(envs.step(action)[1], plain.step(action)[1], rtol=1e-6)


def test_a_normaliser_of_both_copies_the_statistics_of_observations_alone():
    envs, training = whole(VecNormalize), whole(VecNormalize)
    rolled(training, 5)
    RunningStatistics(envs, {"model.envs": [training]}, None, 60).follow(None)
    assert np.array_equal(envs.obs_rms.mean, training.obs_rms.mean)
    assert training.ret_rms.var != 1
    assert envs.ret_rms.var == 1


def test_environments_that_are_held_in_two_places_are_not_two():
    envs, training = several(wrappers.NormalizeObservation), several(wrappers.NormalizeObservation)
    rolled(training, 5)
    held = {"model.envs": [training], "model.hparams": [training], "model.plain": [several(lambda env: env)]}
    RunningStatistics(envs, held, None, 60).follow(None)
    ours, theirs = (layer(env, wrappers.NormalizeObservation) for env in (envs, training))
    assert np.array_equal(ours.obs_rms.mean, theirs.obs_rms.mean)


@pytest.mark.parametrize("kinds", [("whole", "several"), ("several", "whole")])
def test_one_wrapper_around_all_and_one_around_each_stand_for_each_other(kinds: tuple[str, str]):
    made = {
        "whole": lambda: whole(vector_wrappers.NormalizeObservation),
        "several": lambda: several(wrappers.NormalizeObservation),
    }
    kind = (wrappers.NormalizeObservation, vector_wrappers.NormalizeObservation)
    envs, training = (made[which]() for which in kinds)
    rolled(training, 5)
    RunningStatistics(envs, {"model.envs": [training]}, None, 60).follow(None)
    assert np.array_equal(layer(envs, kind).obs_rms.mean, layer(training, kind).obs_rms.mean)


class Cycling(gym.Wrapper):
    """Another level each time, whatever the seed."""

    level = 0

    def reset(self, **options: Any) -> Any:
        self.level += 1
        seen, info = super().reset(**options)
        return seen + self.level, info


class Counts(gym.Wrapper):
    """Statistics that nobody sees."""

    def __init__(self, env: gym.Env) -> None:
        super().__init__(env)
        self.rms = RunningMeanStd(shape=(2,))

    def step(self, action: Any) -> Any:
        seen, *rest = super().step(action)
        self.rms.update(seen[None])
        return seen, *rest


def frozen(env: gym.Env) -> gym.Env:
    """As the user has set them."""
    env = wrappers.NormalizeObservation(env)
    env.obs_rms.mean, env.obs_rms.var = np.full(2, 100.0), np.full(2, 400.0)
    env.update_running_mean = False
    return env


class Noise(gym.ObservationWrapper):
    """Draws from a generator of its own."""

    def __init__(self, env: gym.Env) -> None:
        super().__init__(env)
        self.rng = np.random.default_rng()

    def observation(self, seen: Any) -> Any:
        return seen + self.rng.normal(size=2)


LEFT = {
    "none": lambda env: env,
    "set and stopped by the user": frozen,
    "constants": lambda env: wrappers.TransformObservation(env, lambda seen: (seen - 100) / 20, None),
    "statistics that nobody sees": Counts,
    "Gymnasium's own, which count": lambda env: wrappers.RecordEpisodeStatistics(
        wrappers.FrameStackObservation(env, 3)
    ),
    "noise": Noise,
}


@pytest.mark.parametrize("name", LEFT)
@pytest.mark.filterwarnings("error::lightning_mesa.errors.MesaWarning")
def test_what_does_not_move_is_left_alone(name: str):
    envs, same = several(LEFT[name]), several(LEFT[name])
    training = several(LEFT[name])
    rolled(training, 5)
    statistics = RunningStatistics(envs, {"model.envs": [training]}, None, 60)
    statistics.follow(None)
    rolled(envs, 12)
    statistics.check()
    assert name == "noise" or np.array_equal(first(envs), first(same))


REFUSED = {
    "no training environment": (
        partial(several, wrappers.NormalizeObservation),
        {},
        r"NormalizeObservation changes what the policy sees .* not found .* statistics='model.ENVS'",
    ),
    "two that may be": (
        partial(several, wrappers.NormalizeObservation),
        {name: [several(wrappers.NormalizeObservation)] for name in ("model.envs", "model.eval_envs")},
        r"may be in model.envs or model.eval_envs: say which, EnvDistribution\(..., statistics='model.envs'\)",
    ),
    "one without the wrapper": (partial(several, Own), {"model.envs": [several(Torch)]}, "not found in model.envs"),
    "one of another shape": (
        partial(several, wrappers.NormalizeObservation),
        {"model.envs": [gym.wrappers.NormalizeObservation(gym.make("CartPole-v1"))]},
        r"in model.envs it has no obs_rms.mean of shape \[2\]",
    ),
    "what cannot be stopped": (
        partial(several, NoFlag),
        {"model.envs": [several(NoFlag)]},
        "NoFlag goes on changing its mean .* attribute update_running_mean",
    ),
    "what moves later": (partial(several, Slow), {}, "Slow goes on changing its obs_rms.count, obs_rms.mean"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_set_is_refused_with_the_remedy(name: str):
    make, training, message = REFUSED[name]
    envs = make()
    statistics = RunningStatistics(envs, training, None, 60)
    with pytest.raises(ConfigurationError, match=message) as refused:  # noqa: PT012
        statistics.follow(None)
        rolled(envs, 12)
        statistics.check()
    assert len(str(refused.value)) < 4 * 120


def test_statistics_of_the_environment_itself_are_found_too():
    envs, training = (several(lambda env: env, InTheEnvironment) for _ in range(2))
    rolled(training, 5)
    RunningStatistics(envs, {"model.envs": [training]}, None, 60).follow(None)
    assert np.array_equal(envs.envs[1].obs_rms.mean, training.envs[1].obs_rms.mean)


def test_a_wrapper_that_remembers_something_else_is_named_once():
    envs = several(Cycling)
    with pytest.warns(MesaWarning, match="Cycling shows the same seed and actions differently") as said:
        RunningStatistics(envs, {}, None, 60).follow(None)
    assert len(said) == 1


def test_a_function_sets_them_before_each_look():
    envs, looks = several(wrappers.NormalizeObservation), []

    def given(pl_module: Any, ours: Any) -> None:
        looks.append(pl_module)
        for env in ours.envs:
            env.obs_rms.mean = np.full(2, 100.0 + len(looks))

    statistics = RunningStatistics(envs, {}, given, 60)
    statistics.follow("first")
    rolled(envs, 3)
    statistics.check()
    statistics.follow("second")
    assert looks == ["first", "second"]
    assert all(np.array_equal(env.obs_rms.mean, [102, 102]) for env in envs.envs)


@pytest.mark.parametrize("make", [Own, lambda env, rms: shared(env, rms)])
def test_statistics_that_training_holds_too_are_not_moved_by_a_look(make: Any):
    """The user's function gives the monitor's environments the very object of training."""
    training = several(Own if make is Own else wrappers.NormalizeObservation)
    rolled(training, 3)
    rms = training.envs[0].obs_rms
    envs = several(lambda env: make(env, rms))
    before = copy.deepcopy(rms)
    statistics = RunningStatistics(envs, {"model.envs": [training]}, None, 60)
    statistics.follow(None)
    rolled(envs, 3)
    statistics.check()
    assert (rms.mean.tobytes(), rms.var.tobytes(), rms.count) == (
        before.mean.tobytes(),
        before.var.tobytes(),
        before.count,
    )
    rms.update(np.zeros((1, 2)))
    assert rms.count > before.count


def shared(env: gym.Env, rms: Any) -> gym.Env:
    env = wrappers.NormalizeObservation(env)
    env.obs_rms = rms
    return env


def test_those_of_training_that_do_not_move_for_three_looks_are_said_once():
    """Such as where training runs in copies of these environments in other processes."""
    envs, training = (several(wrappers.NormalizeObservation) for _ in range(2))
    statistics = RunningStatistics(envs, {"model.envs": [training]}, None, 60)
    statistics.follow(None)
    statistics.follow(None)
    with pytest.warns(MesaWarning, match=r"NormalizeObservation in model.envs have not moved for three looks"):
        statistics.follow(None)
    statistics.follow(None)  # and is silent


def test_what_moves_in_other_processes_is_refused():
    envs = AsyncVectorEnv([lambda: wrappers.NormalizeObservation(Walk())] * 2)
    try:
        with pytest.raises(ConfigurationError, match=r"AsyncVectorEnv .* pass a function that makes one environment"):
            RunningStatistics(envs, {}, None, 60).follow(None)
    finally:
        envs.close(terminate=True)
