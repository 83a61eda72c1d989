"""Small environments for the tests, and a policy that learns in one of them."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Categorical
from torch.utils.data import DataLoader

from accelerator import ACCELERATOR
from lightning_mesa import EnvDistribution, Finding, MesaMonitor, Reached, read_journal
from lightning_mesa.report.journal import findings_of
from namespace import pl


class TwoDoors(gym.Env):
    """One step: the left or the right door. One is the goal, one is red; in training they are the same.

    The observation says on which side they are, weakly which is the goal and strongly which is red.
    """

    observation_space = gym.spaces.Box(-3, 3, (2,), np.float32)
    action_space = gym.spaces.Discrete(2)

    def __init__(self, *, together: bool = True, noise: float = 0.2) -> None:
        self.together, self.noise = together, noise

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self.goal = int(self.np_random.integers(2))
        self.red = self.goal if self.together else int(self.np_random.integers(2))
        clean = np.array([2 * self.goal - 1, 3 * (2 * self.red - 1)]) / 2
        self.seen = (clean + self.noise * self.np_random.normal(size=2)).astype(np.float32)
        return self.seen, {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, bool]]:
        goal, red = bool(action == self.goal), bool(action == self.red)
        return self.seen, float(goal), True, False, {"goal": goal, "red": red}


class Corridor(gym.Env):
    """Episodes whose length tells their return: 1 step and 0, or ``long`` steps and 1; each kind half of the time.

    The observation counts steps.
    """

    observation_space = gym.spaces.Box(0, np.inf, (1,), np.float32)
    action_space = gym.spaces.Discrete(2)

    def __init__(self, long: int = 20) -> None:
        self.long = long

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self.steps, self.last = 0, self.long if self.np_random.random() < 0.5 else 1
        return self._seen(), {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self.steps += 1
        over = self.steps >= self.last
        return self._seen(), float(over and self.last > 1), over, False, {"steps": self.steps, "over": over}

    def _seen(self) -> np.ndarray:
        return np.array([self.steps], np.float32)


class Agent(pl.LightningModule):
    """An actor and a critic with an optimizer each, trained by REINFORCE in environments that it holds itself."""

    def __init__(self, updates: int = 40, **options: Any) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.actor = nn.Sequential(nn.Linear(2, 8), nn.Dropout(0.1), nn.Tanh(), nn.Linear(8, 2))
        self.critic = nn.Linear(2, 1)
        self.updates = updates
        self.envs = gym.vector.SyncVectorEnv([lambda: TwoDoors(**options)] * 8)
        self.rewards: list[float] = []

    def forward(self, seen: Tensor) -> Tensor:
        return self.actor(seen)

    def train_dataloader(self) -> DataLoader:
        return DataLoader(range(self.updates), batch_size=1)

    def on_fit_start(self) -> None:
        self.seen = torch.as_tensor(self.envs.reset(seed=0)[0], device=self.device)

    def training_step(self, batch: Tensor, batch_idx: int) -> None:
        policy = Categorical(logits=self(self.seen))
        action = policy.sample()
        reward = torch.as_tensor(self.envs.step(action.cpu().numpy())[1], dtype=torch.float32, device=self.device)
        value = self.critic(self.seen)[:, 0]
        losses = (-(policy.log_prob(action) * (reward - value.detach())).mean(), (reward - value).square().mean())
        for optimizer, loss in zip(self.optimizers(), losses, strict=True):
            optimizer.zero_grad()
            self.manual_backward(loss)
            optimizer.step()
        self.rewards.append(float(reward.sum()))
        self.log("train/reward", reward.mean())
        # Gymnasium's default: the step after the last one begins the next episode.
        self.seen = torch.as_tensor(self.envs.step(action.cpu().numpy())[0], device=self.device)

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        return [torch.optim.Adam(part.parameters(), lr=0.05) for part in (self.actor, self.critic)]


def monitor(**options: Any) -> MesaMonitor:
    options = {
        "base": Reached("goal"),
        "proxies": [Reached("red")],
        "reference": EnvDistribution(TwoDoors, episodes=100),
        "shifted": {"apart": EnvDistribution(apart, episodes=100)},
        "max_overhead": None,
        "every_n_steps": 10,
    } | options
    return MesaMonitor(**options)


def apart() -> TwoDoors:
    return TwoDoors(together=False)


def fit(folder: Path, *callbacks: Any, model: Agent | None = None, **options: Any) -> pl.Trainer:
    """Train for one epoch, seeded."""
    pl.seed_everything(0, verbose=False)
    model = model or Agent()
    trainer = pl.Trainer(
        default_root_dir=folder,
        max_epochs=1,
        accelerator=ACCELERATOR,
        devices=1,
        callbacks=list(callbacks),
        enable_progress_bar=False,
        enable_model_summary=False,
        **{"enable_checkpointing": False, "logger": False} | options,
    )
    trainer.fit(model)
    return trainer


def padded(pl_module: Any, observation: Tensor, state: Any) -> tuple[Tensor, Any]:
    """A policy out of a model with eight inputs and four outputs."""
    return pl_module(nn.functional.pad(observation, (0, 6)))[:, :2], state


class Closed(TwoDoors):
    """Counts how many are open."""

    open = 0

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        Closed.open += 1

    def close(self) -> None:
        Closed.open -= 1


@pytest.fixture
def all_are_closed() -> Iterator[None]:
    """Whatever happens in a test, the monitor closes its environments."""
    Closed.open = 0
    yield
    assert Closed.open == 0


def watched(**options: Any) -> MesaMonitor:
    where = {
        "reference": EnvDistribution(Closed, episodes=40),
        "shifted": {"apart": EnvDistribution(lambda: Closed(together=False), episodes=40)},
    }
    return monitor(**where | options)


def findings(trainer: Any) -> list[Finding]:
    return list(findings_of(read_journal(Path(trainer.log_dir) / "mesa/findings.jsonl")))


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
