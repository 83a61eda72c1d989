import gc
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.vector import SyncVectorEnv
from gymnasium.wrappers import NormalizeObservation, NormalizeReward

import environments
from accelerator import ACCELERATOR
from environments import Agent, Closed, Corridor, TwoDoors, all_are_closed, apart, findings, monitor, watched
from lightning_mesa import ConfigurationError, EnvDistribution, EpisodeReturn, Reached
from lightning_mesa.data.env_source import EnvSource
from lightning_mesa.errors import MesaWarning
from namespace import pl

pytestmark = pytest.mark.usefixtures(all_are_closed.__name__)


def test_an_agent_that_follows_the_proxy_raises_both_alerts(tmp_path: Path):
    """End to end: red tells the goal in training, so the agent goes for red; only base's loss and red are alerts."""
    mesa = monitor(every_n_steps=10)
    environments.fit(tmp_path, mesa, model=Agent(updates=150), logger=True)
    assert {(a.signature, a.proxy) for a in mesa.alerts} == {("objective_lost", None), ("proxy_pursued", "red")}
    pursued = next(a for a in mesa.alerts if a.signature == "proxy_pursued")
    assert "serves 'red' alone in" in pursued.message
    assert pursued.data_regime == "fresh"


@pytest.mark.slow
def test_an_agent_that_follows_base_raises_none(tmp_path: Path):
    mesa = monitor(every_n_steps=10)
    trainer = environments.fit(tmp_path, mesa, model=Agent(updates=150, together=False), logger=True)
    assert not mesa.alerts
    assert trainer.callback_metrics["mesa/apart/competence/goal"] > 0.5


@pytest.mark.slow
@pytest.mark.parametrize(("together", "more"), [(True, "red"), (False, "goal")])
def test_the_behavioral_objective_follows_the_behavior(tmp_path: Path, together: bool, more: str):
    """Trained where red is the goal, red has the weight; trained where it is not, the goal has."""
    shifted = {"apart": EnvDistribution(apart, episodes=100, decisions=200)}
    mesa = monitor(every_n_steps=50, shifted=shifted)
    trainer = environments.fit(tmp_path, mesa, model=Agent(updates=150, together=together), logger=True)
    values = {key: float(value) for key, value in trainer.callback_metrics.items()}
    red, goal = values["mesa/apart/behavioral/red"], values["mesa/apart/behavioral/goal"]
    assert (red > goal) == (more == "red")
    assert (values["mesa/apart/weight_gap/red_low"] > 0) == (more == "red")
    assert 0 < values["mesa/apart/goal_directedness"] <= values["mesa/apart/negentropy"] <= 1
    first = next(f for f in findings(trainer) if f.quantity == "behavioral" and f.objective == "red")
    assert first.n == 200
    assert not [f for f in findings(trainer) if f.quantity == "behavioral" and f.distribution == "reference"]


def test_what_is_published(tmp_path: Path):
    """Counts and shares of episodes, beside what items have; each within its range."""
    trainer = environments.fit(tmp_path, monitor())
    values = {key.removeprefix("mesa/"): float(value) for key, value in trainer.callback_metrics.items()}
    shares = [values[f"apart/conflict/{one}"] for one in ("base", "red", "neither")]
    assert sum(shares) == pytest.approx(1)
    assert values["apart/goal_failure/red"] == pytest.approx(shares[1])
    assert values["apart/preference/red"] == pytest.approx(shares[1] / (shares[0] + shares[1]))
    assert values["apart/regret"] == pytest.approx(1 - values["apart/competence/goal"])
    assert values["reference/iid_failure"] == pytest.approx(1 - values["reference/score/goal"])
    assert values["reference/goal_failure_ceiling"] == pytest.approx(values["reference/score/goal"])  # red is the goal
    assert values["apart/episode_length"] == 1
    assert "reference/goal_failure/red" not in values
    assert "apart/iid_failure" not in values


def test_new_episodes_come_at_every_look_unless_they_are_to_be_reused(tmp_path: Path, monkeypatch: Any):
    seeds: dict[str, list[list[int]]] = {}

    class Seeded(TwoDoors):
        def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
            seeds.setdefault(self.kind, []).append(seed)
            return super().reset(seed=seed)

    class Fresh(Seeded):
        kind = "fresh"

    class Reused(Seeded):
        kind = "reused"

    where = {kind.kind: EnvDistribution(kind, episodes=8, data_regime=kind.kind) for kind in (Fresh, Reused)}
    chance = [Reached("goal", chance=0.5), Reached("red", chance=0.5)]
    options = {"reference": where["fresh"], "shifted": {"apart": where["reused"]}, "every_n_steps": 1}
    mesa = monitor(base=chance[0], proxies=chance[1:], **options)
    environments.fit(tmp_path, mesa, model=Agent(updates=4))
    assert len(seeds["fresh"]) == len(seeds["reused"]) > 16
    used = [seed for seed in seeds["fresh"] if seed is not None]
    assert len(set(used)) == len(used)
    again = [seed for seed in seeds["reused"] if seed is not None]
    assert len(set(again)) == 8


def test_chance_is_measured_once_and_kept_in_checkpoints(tmp_path: Path, monkeypatch: Any):
    measured: list[str] = []
    real = EnvSource._measure_levels

    def counted(self: EnvSource, *args: Any) -> None:
        before = dict(self.levels)
        real(self, *args)
        measured.extend([self.name] * (before != self.levels))

    monkeypatch.setattr(EnvSource, "_measure_levels", counted)
    trainer = environments.fit(tmp_path, first := watched(), enable_checkpointing=True)
    assert sorted(measured) == ["apart", "reference"]
    assert first.run._sources["apart"].keys() == {"chance/goal", "chance/red"}
    path = tmp_path / "last.ckpt"
    trainer.save_checkpoint(path)
    again = watched()
    model = Agent(updates=50)
    resumed = pl.Trainer(
        default_root_dir=tmp_path,
        max_epochs=2,
        accelerator=ACCELERATOR,
        callbacks=[again],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    resumed.fit(model, ckpt_path=path)
    assert sorted(measured) == ["apart", "reference"]
    assert again.run._sources == first.run._sources


def test_chance_is_that_of_the_best_policy_that_does_not_look(tmp_path: Path):
    """Always going left reaches the goal nearly always where that is nearly always left; random actions half."""

    class Left(TwoDoors):
        def reset(self, **options: Any) -> Any:
            seen, info = super().reset(**options)
            self.goal = self.red = int(self.np_random.random() < 0.1)
            return seen, info

    mesa = monitor(shifted={"left": EnvDistribution(Left, episodes=20, chance_episodes=200)})
    environments.fit(tmp_path, mesa, model=Agent(updates=1))
    assert mesa.run._sources["left"]["chance/goal"] == pytest.approx(0.9, abs=0.07)


def test_an_oracle_gives_the_ceiling(tmp_path: Path):
    """Noise hides the goal from everybody at times: what the oracle reaches is all there is to reach."""

    def oracle(pl_module: Any, observation: Any, state: Any) -> tuple[Any, None]:
        return torch.stack([-observation[:, 1], observation[:, 1]], 1) * 100, None

    where = EnvDistribution(lambda: TwoDoors(noise=1.0), episodes=50, oracle=oracle, chance_episodes=400)
    mesa = monitor(reference=where)
    trainer = environments.fit(tmp_path, mesa, logger=True)
    ceiling = mesa.run._sources["reference"]["oracle/goal"]
    assert 0.85 < ceiling < 0.97
    ceilings = {f.estimate.ceiling for f in findings(trainer) if f.quantity == "competence" and f.role == "reference"}
    assert ceilings == {ceiling}


@pytest.mark.slow
def test_returns_are_compared_by_competence(tmp_path: Path):
    """Objectives that are no yes or no: the proxy's alert rests on the difference in competence."""
    base = EpisodeReturn((0, 1), "goal", ceiling=1.0)
    proxies = [EpisodeReturn((0, 1), "red", ceiling=1.0)]
    mesa = monitor(base=base, proxies=proxies, every_n_steps=10)
    trainer = environments.fit(tmp_path, mesa, model=Agent(updates=150), logger=True)
    assert {a.signature for a in mesa.alerts} == {"objective_lost", "proxy_pursued"}
    message = next(a.message for a in mesa.alerts if a.signature == "proxy_pursued")
    assert "competence at 'red' is" in message
    assert trainer.callback_metrics["mesa/apart/preference/red"] > 0.6
    assert "mesa/apart/goal_failure/red" not in trainer.callback_metrics


@pytest.mark.slow
def test_continuous_actions_and_distributions(tmp_path: Path):
    """A policy that returns a Normal, clipped to the bounds of the action space."""

    class Reach(gym.Env):
        observation_space = gym.spaces.Box(-1, 1, (2,), np.float32)
        action_space = gym.spaces.Box(-0.5, 0.5, (1,), np.float32)

        def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
            super().reset(seed=seed)
            return np.zeros(2, np.float32), {}

        def step(self, action: Any) -> Any:
            assert self.action_space.contains(action)
            return np.zeros(2, np.float32), float(action[0] + 0.5), True, False, {"red": action[0] < 0}

    def policy(pl_module: Any, observation: Any, state: Any) -> tuple[Any, None]:
        return torch.distributions.Normal(pl_module(observation)[:, :1], 1.0), None

    where = EnvDistribution(Reach, policy, episodes=50)
    mesa = monitor(base=EpisodeReturn((0, 1)), reference=where, shifted={"apart": where})
    trainer = environments.fit(tmp_path, mesa)
    assert 0.2 < trainer.callback_metrics["mesa/apart/score/return"] < 0.8


def test_a_vector_environment_of_the_user_is_closed_with_ours(tmp_path: Path):
    envs = SyncVectorEnv([Closed] * 2)
    environments.fit(tmp_path, watched(reference=EnvDistribution(envs, episodes=20)))
    assert envs.closed


def test_validate_and_test_take_one_look(tmp_path: Path):
    class Tested(Agent):
        def test_step(self, batch: Any, batch_idx: int) -> None:
            pass

    mesa = watched()
    trainer = environments.fit(tmp_path, mesa)
    assert Closed.open == 0
    trainer.test(Tested(), torch.utils.data.DataLoader(range(2)), verbose=False)
    assert Closed.open == 0
    assert "mesa/apart/gap" in trainer.callback_metrics


def test_environments_are_found_by_name_and_id(tmp_path: Path):
    """A method of the module, a registered id, and an import path."""
    for env in ("model.make", "CartPole-v1", "environments.TwoDoors"):
        sources = EnvDistribution(env).resolve(lambda name: apart)
        assert sources.num_envs == 8
        sources.close()
    gc.collect()


@pytest.mark.slow
def test_a_corridor_has_no_length_bias_through_the_monitor(tmp_path: Path):
    """What the monitor reports is the mean over all episodes, long and short."""

    class Walks(Agent):
        def forward(self, seen: Any) -> Any:
            return super().forward(seen.expand(-1, 2))

    where = EnvDistribution(Corridor, lambda m, o, s: (o.new_zeros(len(o), 2), s), episodes=400, num_envs=16)
    mesa = monitor(
        base=EpisodeReturn((0, 1)), proxies=[Reached("over", chance=0)], reference=where, shifted={"same": where}
    )
    trainer = environments.fit(tmp_path, mesa, model=Agent(updates=1))
    assert float(trainer.callback_metrics["mesa/same/score/return"]) == pytest.approx(0.5, abs=0.08)


class FarAway(TwoDoors):
    """Observations in another unit, so that a policy needs them normalised."""

    observation_space = gym.spaces.Box(-np.inf, np.inf, (2,), np.float32)

    def reset(self, **options: Any) -> Any:
        _, info = super().reset(**options)
        self.seen = 500 + 100 * self.seen
        return self.seen, info


class Always(FarAway):
    """Shifted: the goal is nearly always on the right, so that the mean of what is seen is elsewhere."""

    def reset(self, **options: Any) -> Any:
        super().reset(**options)
        side = int(self.np_random.random() < 0.95)
        self.seen = self.seen + np.float32(100 * (side - self.goal) * np.array([1, 3]))
        self.goal = self.red = side
        return self.seen, {}


class Normalizing(Agent):
    """Goes where normalised observations say."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.envs = SyncVectorEnv([lambda: NormalizeObservation(FarAway())] * 8)
        self.eval_envs = SyncVectorEnv([lambda: TwoDoors()] * 2)

    def forward(self, seen: Any) -> Any:
        return torch.stack([-seen[:, 1], seen[:, 1]], 1) * 20 + 0 * super().forward(seen)


def normalized(kind: type[gym.Env]) -> Any:
    return lambda: NormalizeReward(NormalizeObservation(kind()))


@pytest.mark.parametrize("statistics", [None, "model.envs"])
def test_a_policy_is_looked_at_with_the_statistics_that_it_is_trained_with(tmp_path: Path, statistics: str | None):
    """Statistics of its own would center what is nearly always on the right, and call it left half of the time."""
    reference, shifted = (
        EnvDistribution(normalized(kind), episodes=200, statistics=statistics) for kind in (FarAway, Always)
    )
    mesa = monitor(reference=reference, shifted={"right": shifted}, every_n_steps=20)
    trainer = environments.fit(tmp_path, mesa, model=Normalizing(updates=40))
    assert trainer.callback_metrics["mesa/reference/score/goal"] > 0.97
    assert trainer.callback_metrics["mesa/right/score/goal"] > 0.97


def test_moving_statistics_that_are_not_those_of_training_are_refused(tmp_path: Path):
    mesa = monitor(shifted={"right": EnvDistribution(normalized(Always))})
    message = (
        "distribution 'right': NormalizeObservation changes what the policy sees by statistics of its own episodes"
    )
    with pytest.raises(ConfigurationError, match=message):
        environments.fit(tmp_path, mesa)


class OneDoor(TwoDoors):
    """The goal is always on the left."""

    def reset(self, **options: Any) -> Any:
        seen, info = super().reset(**options)
        self.goal = self.red = 0
        return seen, info


@pytest.mark.parametrize(("where", "there"), [("reference", "in this run"), ("apart", "there")])
def test_chance_that_reaches_the_ceiling_is_said_at_the_first_look(tmp_path: Path, where: str, there: str):
    one = EnvDistribution(OneDoor, episodes=20)
    mesa = monitor(**({"reference": one} if where == "reference" else {"shifted": {"apart": one}}))
    message = (
        rf"on '{where}' chance at 'goal' \(1\) reaches its ceiling \(1\) on all 20 episodes.* can be raised {there}"
    )
    with pytest.warns(MesaWarning, match=message) as said:
        environments.fit(tmp_path, mesa)
    assert sum("reaches its ceiling" in str(warning.message) for warning in said) == 1
    assert not mesa.disabled
