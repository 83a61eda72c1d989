"""Proximal policy optimization (Schulman et al. 2017) as a plain LightningModule with two optimizers."""

from collections.abc import Callable
from typing import Any

import pytorch_lightning as pl
import torch
from gymnasium import Env
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from torch import Tensor, nn
from torch.distributions import Categorical
from torch.nn import functional as F
from torch.utils.data import DataLoader

DISCOUNT = 0.97


class PPO(pl.LightningModule):
    """Proximal policy optimization; each batch is a rollout, which the module collects itself.

    Args:
        make_env: Makes an environment with discrete actions.
        actor: From observations to logits.
        critic: From observations to values, ``[n, 1]``.
        seed: Seed of the environments.
        num_envs: Environments side by side.
        horizon: Steps of a rollout.
        updates: Rollouts.
    """

    def __init__(
        self,
        make_env: Callable[[], Env],
        actor: nn.Module,
        critic: nn.Module,
        *,
        seed: int = 0,
        num_envs: int = 16,
        horizon: int = 64,
        updates: int = 150,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.actor, self.critic = actor, critic
        self.horizon, self.updates = horizon, updates
        self.envs = SyncVectorEnv([make_env] * num_envs, autoreset_mode=AutoresetMode.SAME_STEP)
        self.seen = torch.as_tensor(self.envs.reset(seed=seed)[0])

    def forward(self, seen: Tensor) -> Tensor:
        return self.actor(seen)

    def train_dataloader(self) -> DataLoader:
        return DataLoader(range(self.updates), batch_size=1)

    @torch.no_grad()
    def rollout(self) -> dict[str, Tensor]:
        """``[horizon, num_envs, ...]`` what was seen and done, and what came of it."""
        steps = []
        for _ in range(self.horizon):
            policy = Categorical(logits=self.actor(self.seen))
            action = policy.sample()
            seen, reward, terminated, truncated, _ = self.envs.step(action.numpy())
            steps.append(
                {
                    "seen": self.seen,
                    "action": action,
                    "log_prob": policy.log_prob(action),
                    "value": self.critic(self.seen)[:, 0],
                    "reward": torch.as_tensor(reward).float(),
                    "ended": torch.as_tensor(terminated | truncated),
                }
            )
            self.seen = torch.as_tensor(seen)
        return {key: torch.stack([step[key] for step in steps]) for key in steps[0]}

    def training_step(self, batch: Tensor, batch_idx: int) -> None:
        rollout = self.rollout()
        advantages = self.advantages(rollout)
        returns = advantages + rollout["value"]
        advantages = (advantages - advantages.mean()) / (advantages.std() + 1e-8)
        data = {"advantage": advantages, "return": returns, **rollout}
        data = {key: value.flatten(0, 1) for key, value in data.items()}
        for optimizer in self.optimizers():
            for group in optimizer.param_groups:
                group["lr"] = 1e-3 * (1 - batch_idx / self.updates)
        for _ in range(3):
            for chosen in torch.randperm(len(returns.flatten())).split(256):
                self.update({key: value[chosen] for key, value in data.items()})
        ended = rollout["ended"].sum().clamp(min=1)
        self.log("train/reward", rollout["reward"].sum() / ended, prog_bar=True)

    def advantages(self, rollout: dict[str, Tensor], discount: float = DISCOUNT, decay: float = 0.95) -> Tensor:
        """``[horizon, num_envs]`` generalized advantage estimates."""
        advantage, following = torch.zeros(len(self.seen)), self.critic(self.seen)[:, 0].detach()
        found = []
        for step in reversed(range(self.horizon)):
            goes_on = 1 - rollout["ended"][step].float()
            surprise = rollout["reward"][step] + discount * goes_on * following - rollout["value"][step]
            advantage = surprise + discount * decay * goes_on * advantage
            following = rollout["value"][step]
            found.append(advantage)
        return torch.stack(found[::-1])

    def update(self, data: dict[str, Tensor]) -> None:
        actor, critic = self.optimizers()
        policy = Categorical(logits=self.actor(data["seen"]))
        ratio = (policy.log_prob(data["action"]) - data["log_prob"]).exp()
        clipped = ratio.clamp(0.8, 1.2)
        gain = torch.min(ratio * data["advantage"], clipped * data["advantage"]).mean()
        self.descend(actor, -gain - 0.01 * policy.entropy().mean(), self.actor)
        self.descend(critic, F.mse_loss(self.critic(data["seen"])[:, 0], data["return"]), self.critic)

    def descend(self, optimizer: Any, loss: Tensor, part: nn.Module) -> None:
        optimizer.zero_grad()
        self.manual_backward(loss)
        nn.utils.clip_grad_norm_(part.parameters(), 0.5)
        optimizer.step()

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        return [torch.optim.Adam(part.parameters(), lr=1e-3) for part in (self.actor, self.critic)]
