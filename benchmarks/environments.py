"""What a look at a policy costs beside a bare rollout loop over the same vector environment and policy.

    PYTHONPATH=examples python benchmarks/environments.py

A look is everything the monitor does to measure: its isolation, the episodes, their scores, limits and findings. The
bare loop resets, calls the policy under ``no_grad``, draws an action and steps, with Gymnasium's autoreset. Both are
timed in turn in one process. *per step* compares as many steps of the vector environment; *per episode* as many
episodes, the bare loop taking those that end first, which is biased: no environment has to wait for the last ones.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import pytorch_lightning as pl
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from torch import nn
from torch.distributions import Categorical
from torch.utils.data import DataLoader

from lightning_mesa import EnvDistribution, EpisodeReturn, MesaMonitor, Reached
from red_doors import MAZES, Agent

NUM_ENVS, EPISODES = 16, 400


class Idle(pl.LightningModule):
    """A policy that is not trained."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, seen: torch.Tensor) -> torch.Tensor:
        return self.net(seen)

    def training_step(self, batch: Any, batch_idx: int) -> None:
        return None

    def configure_optimizers(self) -> None:
        return None


def cart_policy() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 2))


# The environment, its policy, and objectives.
TASKS: dict[str, tuple[Callable[[], gym.Env], Callable[[], nn.Module], list[Any]]] = {
    "red doors, two convolutions": (MAZES["blue door"], lambda: Agent(3), [Reached("door"), Reached("red")]),
    "CartPole, MLP 4-64-64-2": (lambda: gym.make("CartPole-v1"), cart_policy, [EpisodeReturn((0, 500), chance=22)]),
}


def bare(envs: SyncVectorEnv, policy: nn.Module, episodes: int) -> tuple[float, int]:
    """Seconds and steps of a rollout loop."""
    ended = steps = 0
    started = time.perf_counter()
    seen = torch.as_tensor(envs.reset(seed=0)[0])
    with torch.no_grad():
        while ended < episodes:
            action = Categorical(logits=policy(seen)).sample()
            observed, _, terminated, truncated, _ = envs.step(action.numpy())
            seen = torch.as_tensor(observed)
            ended += int((terminated | truncated).sum())
            steps += 1
    return time.perf_counter() - started, steps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--looks", type=int, default=12)
    options = parser.parse_args()
    print(f"{EPISODES} episodes in {NUM_ENVS} environments; medians of {options.looks} looks\n")
    print("| environment, policy | steps of a look | per step | per episode |")
    print("|---|---|---|---|")
    for name, (make, policy, objectives) in TASKS.items():
        print(row(name, make, Idle(policy()), objectives, options.looks), flush=True)


def row(name: str, make: Callable[[], gym.Env], model: Idle, objectives: list[Any], looks: int) -> str:
    base, *proxies = objectives
    where = [EnvDistribution(make, episodes=EPISODES, num_envs=NUM_ENVS) for _ in range(2)]
    monitor = MesaMonitor(
        base, proxies=proxies, reference=where[0], shifted={"same": where[1]}, every_n_steps=1, max_overhead=None
    )
    envs = SyncVectorEnv([make] * NUM_ENVS, autoreset_mode=AutoresetMode.SAME_STEP)
    per_step, per_episode, steps = [], [], []

    class Beside(pl.Callback):
        """Looks, and runs the bare loop, in turn."""

        def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
            session = monitor._session
            counted = [0]
            for source in session.sources:
                step = type(source.envs).step

                def counting(*arguments: Any, step: Any = step, of: Any = source.envs) -> Any:
                    counted[0] += 1
                    return step(of, *arguments)

                source.envs.step = counting
            started = time.perf_counter()
            session.measure((1, 1, 0))
            ours = time.perf_counter() - started
            for source in session.sources:
                del source.envs.step
            model.eval()
            seconds, bare_steps = bare(envs, model, 2 * EPISODES)
            model.train()
            per_step.append(ours / counted[0] / (seconds / bare_steps))
            per_episode.append(ours / seconds)
            steps.append(counted[0])

    with tempfile.TemporaryDirectory() as folder:
        trainer = pl.Trainer(
            default_root_dir=folder,
            max_epochs=1,
            limit_train_batches=looks,
            accelerator="cpu",
            callbacks=[Beside(), monitor],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(model, DataLoader(range(looks)))
    envs.close()
    medians = [statistics.median(values) for values in (steps, per_step, per_episode)]
    return f"| {name} | {medians[0]:.0f} | {medians[1]:.2f} | {medians[2]:.2f} |"


if __name__ == "__main__":
    main()
