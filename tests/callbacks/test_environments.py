import gc
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv

import environments
from environments import Agent, Corridor, TwoDoors, apart, monitor
from lightning_mesa import (
    ConfigurationError,
    EnvDistribution,
    EpisodeReturn,
    Finding,
    Matches,
    MesaMonitor,
    Reached,
    read_journal,
)
from lightning_mesa.callbacks.env_source import EnvSource
from lightning_mesa.errors import MesaWarning
from lightning_mesa.report.journal import findings_of
from namespace import pl


class Closed(TwoDoors):
    """Counts how many are open."""

    open = 0

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        Closed.open += 1

    def close(self) -> None:
        Closed.open -= 1


@pytest.fixture(autouse=True)
def _all_are_closed() -> Iterator[None]:
    """Whatever happens in a test, the monitor closes its environments."""
    Closed.open = 0
    yield
    assert Closed.open == 0


SHARED = TwoDoors()


def findings(trainer: Any) -> list[Finding]:
    return list(findings_of(read_journal(Path(trainer.log_dir) / "mesa/findings.jsonl")))


def watched(**options: Any) -> MesaMonitor:
    where = {
        "reference": EnvDistribution(Closed, episodes=40),
        "shifted": {"apart": EnvDistribution(lambda: Closed(together=False), episodes=40)},
    }
    return monitor(**where | options)


class Failing(Closed):
    """Does something wrong from a number of steps of all such environments on."""

    steps = 0
    after = 1000

    def step(self, action: int) -> Any:
        Failing.steps += 1
        if Failing.steps > Failing.after:
            return self.fail(action)
        return super().step(action)

    def fail(self, action: int) -> Any:
        raise RuntimeError("the simulator crashed")


class Hanging(Failing):
    def fail(self, action: int) -> Any:
        time.sleep(30)


class NanReward(Failing):
    def fail(self, action: int) -> Any:
        seen, _, *rest = TwoDoors.step(self, action)
        return seen, float("nan"), *rest


class Endless(Failing):
    def fail(self, action: int) -> Any:
        return self.seen, 0.0, False, False, {"goal": False, "red": False}


def failing(kind: type[Failing], after: int, **options: Any) -> MesaMonitor:
    Failing.steps, Failing.after = 0, after
    return watched(shifted={"apart": EnvDistribution(kind, **{"episodes": 40, "chance_episodes": 10} | options)})


def test_an_agent_that_follows_the_proxy_raises_both_alerts(tmp_path: Path):
    """End to end: red tells the goal in training, so the agent goes for red; only base's loss and red are alerts."""
    mesa = monitor(every_n_steps=10)
    environments.fit(tmp_path, mesa, model=Agent(updates=150), logger=True)
    assert {(a.signature, a.proxy) for a in mesa.alerts} == {("objective_lost", None), ("proxy_pursued", "red")}
    pursued = next(a for a in mesa.alerts if a.signature == "proxy_pursued")
    assert "serves 'red' alone in" in pursued.message
    assert pursued.data_regime == "fresh"
    assert (tmp_path / "lightning_logs/version_0/mesa/apart.red.preference.png").exists()


def test_an_agent_that_follows_base_raises_none(tmp_path: Path):
    mesa = monitor(every_n_steps=10)
    trainer = environments.fit(tmp_path, mesa, model=Agent(updates=150, together=False), logger=True)
    assert not mesa.alerts
    assert trainer.callback_metrics["mesa/apart/competence/goal"] > 0.5


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


def trained(folder: Path, **options: Any) -> tuple[Any, ...]:
    torch.manual_seed(3)
    random.seed(3)
    np.random.seed(3)
    model = Agent(updates=12)
    trainer = environments.fit(folder, *options.pop("callbacks", ()), model=model, logger=True, **options)
    streams = [env.unwrapped.np_random.bit_generator.state for env in model.envs.envs]
    optimizers = [
        value
        for optimizer in trainer.optimizers
        for state in optimizer.state_dict()["state"].values()
        for value in state.values()
    ]
    return (
        [*model.state_dict().values(), *optimizers],
        model.rewards,
        streams,
        torch.get_rng_state(),
        random.getstate(),
        np.random.get_state()[1].tolist(),
    )


@pytest.mark.parametrize(
    "what", ["usual", "reused", "greedy", "own policy", "stateful", "error", "vector", "every mode"]
)
def test_training_is_bitwise_the_training_without_the_monitor(what: str, tmp_path: Path):
    """Manual optimisation with two optimizers, environments and action sampling included."""
    options: dict[str, Any] = {}
    where: dict[str, Any] = {"episodes": 20, "chance_episodes": 10}
    if what == "reused":
        where["data_regime"] = "reused"
    elif what == "greedy":
        where["greedy"] = True
    elif what == "own policy":
        where["policy"] = sampled
    elif what == "stateful":
        where["policy"] = remembering
    elif what == "vector":
        options["reference"] = EnvDistribution(lambda: SyncVectorEnv([TwoDoors] * 3), **where)
    elif what == "same step":
        make = lambda: SyncVectorEnv([TwoDoors] * 3, autoreset_mode=AutoresetMode.SAME_STEP)  # noqa: E731
        options["reference"] = EnvDistribution(make, **where)
    mesa = watched(
        every_n_steps=2, **{"shifted": {"apart": EnvDistribution(lambda: Closed(together=False), **where)}} | options
    )
    if what == "error":
        mesa = failing(Failing, after=120)
    without = trained(tmp_path / "without")
    if what == "error":
        with pytest.warns(MesaWarning, match="the simulator crashed"):
            with_it = trained(tmp_path / "with", callbacks=[mesa])
    else:
        with_it = trained(tmp_path / "with", callbacks=[mesa])
        assert not mesa.disabled
    for one, other in zip(without[0], with_it[0], strict=True):
        assert torch.equal(torch.as_tensor(one), torch.as_tensor(other))
    assert without[1] == with_it[1]
    assert without[2] == with_it[2]
    assert torch.equal(without[3], with_it[3])
    assert without[4:] == with_it[4:]


def sampled(pl_module: Any, observation: Any, state: Any) -> tuple[Any, None]:
    """Draws from the global streams itself."""
    noise = torch.rand(len(observation), 2) + random.random() + np.random.rand()
    return torch.distributions.Categorical(logits=pl_module(observation) + noise), None


def remembering(pl_module: Any, observation: Any, state: Any) -> tuple[Any, Any]:
    """A memory of the sum of what was seen."""
    state = observation if state is None else state + observation
    return pl_module(state), state


def test_an_environment_that_raises_ends_the_monitor_and_not_the_training(tmp_path: Path):
    mesa = failing(Failing, after=120)
    with pytest.warns(MesaWarning, match=r"is off from step \d+ on, training goes on: RuntimeError: the simulator"):
        trainer = environments.fit(tmp_path, mesa)
    assert mesa.disabled
    assert trainer.global_step == 80  # forty batches, two optimizers


def test_an_environment_that_hangs_is_interrupted_and_training_goes_on(tmp_path: Path):
    mesa = failing(Hanging, after=120, timeout=0.2)
    with pytest.warns(MesaWarning, match="TimeoutError: the environment's step has not come back within 0.2 s"):
        environments.fit(tmp_path, mesa)
    assert mesa.disabled


def test_a_reward_that_is_nan_withholds_the_numbers_and_raises_nothing(tmp_path: Path):
    mesa = failing(NanReward, after=120)
    mesa = MesaMonitor(
        EpisodeReturn((0, 1)),
        proxies=[Reached("red")],
        reference=mesa.reference["reference"],
        shifted=mesa.shifted,
        max_overhead=None,
    )
    trainer = environments.fit(tmp_path, mesa, logger=True)
    assert not mesa.disabled
    assert not mesa.alerts
    last = [f for f in findings(trainer) if f.quantity == "gap"][-1]
    assert last.value is None
    assert "have no finite score" in last.detail["reason"]


def test_episodes_without_end_are_cut_and_count_as_they_stand(tmp_path: Path):
    mesa = failing(Endless, after=120, max_steps=20)
    trainer = environments.fit(tmp_path, mesa)
    assert not mesa.disabled
    assert trainer.callback_metrics["mesa/apart/episode_length"] == 20
    assert trainer.callback_metrics["mesa/apart/score/goal"] == 0


def test_a_policy_that_is_nan_withholds_the_numbers(tmp_path: Path):
    """A training that has diverged."""

    class Diverging(Agent):
        def training_step(self, batch: Any, batch_idx: int) -> None:
            super().training_step(batch, batch_idx)
            if batch_idx == 20:
                with torch.no_grad():
                    self.actor[0].weight.fill_(torch.nan)

        def forward(self, seen: Any) -> Any:
            logits = super().forward(seen)
            return logits.nan_to_num() if self.training else logits

    mesa = watched()
    trainer = environments.fit(tmp_path, mesa, model=Diverging(), logger=True)
    assert not mesa.disabled
    gaps = [f for f in findings(trainer) if f.quantity == "gap"]
    assert gaps[0].value is not None
    assert gaps[-1].value is None


def test_environments_are_closed_after_an_exception_in_training(tmp_path: Path):
    class Stops(pl.Callback):
        def on_train_batch_end(self, *args: Any) -> None:
            raise RuntimeError("somebody else's")

    with pytest.raises(RuntimeError, match="somebody else's"):
        environments.fit(tmp_path, watched(), Stops())


def test_environments_are_closed_where_the_first_look_fails(tmp_path: Path):
    with pytest.raises(ConfigurationError, match="info never had 'chest'"):
        environments.fit(tmp_path, watched(base=Reached("chest")))


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
    mesa = monitor(base=chance[0], proxies=chance[1:], reference=where["fresh"], shifted={"apart": where["reused"]})
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
        before = dict(args[3])
        real(self, *args)
        measured.extend([self.name] * (before != args[3]))

    monkeypatch.setattr(EnvSource, "_measure_levels", counted)
    trainer = environments.fit(tmp_path, first := watched(), enable_checkpointing=True)
    assert sorted(measured) == ["apart", "reference"]
    assert first._levels["apart"].keys() == {"chance/goal", "chance/red"}
    path = tmp_path / "last.ckpt"
    trainer.save_checkpoint(path)
    again = watched()
    model = Agent(updates=50)
    resumed = pl.Trainer(
        max_epochs=2,
        accelerator="cpu",
        callbacks=[again],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    resumed.fit(model, ckpt_path=path)
    assert sorted(measured) == ["apart", "reference"]
    assert again._levels == first._levels


def test_chance_is_that_of_the_best_policy_that_does_not_look(tmp_path: Path):
    """Always going left reaches the goal nearly always where that is nearly always left; random actions half."""

    class Left(TwoDoors):
        def reset(self, **options: Any) -> Any:
            seen, info = super().reset(**options)
            self.goal = self.red = int(self.np_random.random() < 0.1)
            return seen, info

    mesa = monitor(shifted={"left": EnvDistribution(Left, episodes=20, chance_episodes=200)})
    environments.fit(tmp_path, mesa, model=Agent(updates=1))
    assert mesa._levels["left"]["chance/goal"] == pytest.approx(0.9, abs=0.07)


def test_an_oracle_gives_the_ceiling(tmp_path: Path):
    """Noise hides the goal from everybody at times: what the oracle reaches is all there is to reach."""

    def oracle(pl_module: Any, observation: Any, state: Any) -> tuple[Any, None]:
        return torch.stack([-observation[:, 1], observation[:, 1]], 1) * 100, None

    where = EnvDistribution(lambda: TwoDoors(noise=1.0), episodes=50, oracle=oracle, chance_episodes=400)
    mesa = monitor(reference=where)
    trainer = environments.fit(tmp_path, mesa, logger=True)
    ceiling = mesa._levels["reference"]["oracle/goal"]
    assert 0.85 < ceiling < 0.97
    ceilings = {f.detail["ceiling"] for f in findings(trainer) if f.quantity == "competence" and f.role == "reference"}
    assert ceilings == {ceiling}


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


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"inputs": "x"}, "episodes are in no batch: leave out forward=, inputs="),
        ({"groups": "color"}, "episodes are in no batch"),
        ({"reference": "val"}, "scores episodes, and distribution 'val' has items"),
        ({"base": Matches("goal")}, "must be of one kind"),
        ({"base": Matches("goal"), "proxies": []}, "scores items, and distribution 'reference' has episodes"),
        ({"reference": EnvDistribution(lambda: 3)}, "gives int: it must give an environment of Gymnasium"),
        ({"reference": EnvDistribution(TwoDoors())}, "is no environment of the monitor's own"),
        ({"reference": EnvDistribution("model.nothing")}, "no distribution 'model.nothing'"),
        ({"reference": EnvDistribution(lambda: SHARED)}, "another one each time"),
        ({"reference": EnvDistribution(TwoDoors, lambda m, o, s: m(o))}, r"it must return \(logits or Distribution"),
        ({"reference": EnvDistribution(TwoDoors, lambda m, o, s: (m(o)[0], s))}, "logits of shape"),
        ({"reference": EnvDistribution("model.envs")}, "are those of the LightningModule"),
    ],
)
def test_what_cannot_be_looked_at_is_refused_before_training(tmp_path: Path, options: Any, message: str):
    model = Agent()
    with pytest.raises(ConfigurationError, match=message):
        environments.fit(tmp_path, watched(**options), model=model)
    assert not model.rewards


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"episodes": 0}, "episodes must be a whole number of at least 1"),
        ({"num_envs": 1.5}, "num_envs must be"),
        ({"timeout": 0}, "timeout must be a positive number"),
        ({"data_regime": "new"}, "data_regime must be one of"),
        ({"policy": 3}, "policy must be a function"),
    ],
)
def test_arguments_that_cannot_be_right_are_refused(options: Any, message: str):
    with pytest.raises(ConfigurationError, match=message):
        EnvDistribution(TwoDoors, **options)


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


def test_a_corridor_has_no_length_bias_through_the_monitor(tmp_path: Path):
    """What the monitor reports is the mean over all episodes, long and short."""

    class Walks(Agent):
        def forward(self, seen: Any) -> Any:
            return super().forward(seen.expand(-1, 2))

    where = EnvDistribution(Corridor, lambda m, o, s: (torch.zeros(len(o), 2), s), episodes=400, num_envs=16)
    mesa = monitor(
        base=EpisodeReturn((0, 1)), proxies=[Reached("over", chance=0)], reference=where, shifted={"same": where}
    )
    trainer = environments.fit(tmp_path, mesa, model=Agent(updates=1))
    assert float(trainer.callback_metrics["mesa/same/score/return"]) == pytest.approx(0.5, abs=0.08)
