"""Training a policy, with manual optimisation and two optimizers, is bitwise the same with the monitor and without."""

import random
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.wrappers import NormalizeObservation, NormalizeReward

import environments
from environments import Agent, Closed, Failing, TwoDoors, all_are_closed, failing, watched
from lightning_mesa import EnvDistribution, MesaMonitor
from lightning_mesa.callbacks import run, session
from lightning_mesa.data import env_distribution, env_source
from lightning_mesa.observe import isolation
from quick import quick

pytestmark = pytest.mark.usefixtures(all_are_closed.__name__)


def sampled(pl_module: Any, observation: Any, state: Any) -> tuple[Any, None]:
    """Draws from the global streams itself."""
    noise = torch.rand(len(observation), 2).to(observation) + random.random() + np.random.rand()
    return torch.distributions.Categorical(logits=pl_module(observation) + noise), None


def remembering(pl_module: Any, observation: Any, state: Any) -> tuple[Any, Any]:
    """A memory of the sum of what was seen."""
    state = observation if state is None else state + observation
    return pl_module(state), state


def with_noise(pl_module: Any, observation: Any, state: Any) -> tuple[Any, None]:
    """The same, with logits that differ a little each time."""
    return pl_module(observation) + 1e-5 * torch.rand(len(observation), 1).to(observation), None


def watching(env: Any = lambda: Closed(together=False), **options: Any) -> MesaMonitor:
    where = EnvDistribution(env, **{"episodes": 20, "chance_episodes": 10} | options)
    return watched(shifted={"apart": where}, every_n_steps=2)


def vector(mode: AutoresetMode) -> SyncVectorEnv:
    return SyncVectorEnv([Closed] * 3, autoreset_mode=mode)


MONITORS: dict[str, Callable[[], MesaMonitor]] = {
    "new episodes": watching,
    "the same episodes": lambda: watching(data_regime="reused"),
    "greedy": lambda: watching(greedy=True),
    "a policy that draws itself": lambda: watching(policy=sampled),
    "a policy with a memory": lambda: watching(policy=remembering),
    "an oracle": lambda: watching(oracle=sampled),
    "decisions": lambda: watching(decisions=20),
    "decisions of a policy that draws itself": lambda: watching(decisions=20, policy=with_noise),
    **{f"autoreset {mode.name}": lambda mode=mode: watching(lambda: vector(mode)) for mode in AutoresetMode},
    "statistics of training": lambda: watching(lambda: NormalizeObservation(NormalizeReward(Closed(together=False)))),
    "an error": lambda: failing(Failing, after=120),
}


class Normalizing(Agent):
    """Trains on observations that running statistics normalise, which are left behind too."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.envs = SyncVectorEnv([lambda: NormalizeObservation(NormalizeReward(TwoDoors()))] * 8)


def trained(folder: Path, *callbacks: Any, model: Agent | None = None) -> list[Any]:
    """Everything that a training leaves behind."""
    torch.manual_seed(3)
    random.seed(3)
    np.random.seed(3)
    model = model or Normalizing(updates=12)
    trainer = environments.fit(folder, *callbacks, model=model, logger=True)
    momenta = [state for optimizer in trainer.optimizers for state in optimizer.state_dict()["state"].values()]
    return [
        [value.tolist() for value in model.state_dict().values()],
        [float(value.sum()) for state in momenta for value in state.values()],
        model.rewards,
        [env.unwrapped.np_random.bit_generator.state for env in model.envs.envs],
        [
            [*env.obs_rms.mean, *env.obs_rms.var, env.obs_rms.count, env.env.return_rms.var]
            for env in model.envs.envs
            if isinstance(env, NormalizeObservation)
        ],
        torch.get_rng_state().tolist(),
        random.getstate(),
        [np.random.get_state()[1].tolist(), np.random.get_state()[2:]],
    ]


@pytest.mark.filterwarnings("ignore:.*the simulator crashed", "ignore:.*reaches its ceiling")
@pytest.mark.parametrize(
    "what", quick(MONITORS, "new episodes", "decisions", "a policy with a memory", "statistics of training", "an error")
)
def test_training_is_bitwise_the_training_without_the_monitor(what: str, tmp_path: Path):
    mesa = MONITORS[what]()
    assert trained(tmp_path / "with", mesa) == trained(tmp_path / "without")
    assert mesa.disabled == (what == "an error")


def test_the_comparison_notices_actions_drawn_from_the_training_s_own_streams(tmp_path: Path, monkeypatch: Any):
    for module in (isolation, env_source, session, run):
        monkeypatch.setattr(module, "random_streams", lambda seed: nullcontext())
    with_it, without = trained(tmp_path / "with", watching(policy=sampled)), trained(tmp_path / "without")
    differs = [one != other for one, other in zip(with_it, without, strict=True)]
    assert differs == [
        True,
        True,
        True,
        False,
        True,
        True,
        True,
        True,
    ]  # the environments that train have streams of their own


def test_the_comparison_notices_a_look_in_the_environments_that_train(tmp_path: Path, monkeypatch: Any):
    monkeypatch.setattr(env_distribution, "_trains_in", lambda *_: False)
    model = Agent(updates=12)
    mesa = watching(model.envs)
    without = trained(tmp_path / "without", model=Agent(updates=12))
    assert trained(tmp_path / "with", mesa, model=model)[2] != without[2]
