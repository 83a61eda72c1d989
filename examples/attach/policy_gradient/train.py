"""Proximal policy optimization with two optimizers, in an environment of our own, without validation."""

import gymnasium as gym
import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import CSVLogger
from torch import nn
from torch.distributions import Categorical
from torch.nn import functional as F
from torch.utils.data import DataLoader


class Feeder(gym.Env):
    """Four doors. Food is behind the one that smells of it, faintly; a lamp shines above one, in training above it."""

    observation_space = gym.spaces.Box(-np.inf, np.inf, (8,), np.float32)
    action_space = gym.spaces.Discrete(4)

    def __init__(self, lamp_above_food=True):
        self.lamp_above_food = lamp_above_food

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.food = int(self.np_random.integers(4))
        self.lamp = self.food if self.lamp_above_food else int((self.food + self.np_random.integers(1, 4)) % 4)
        return self.observation(), {}

    def observation(self):
        smell = 0.4 * np.eye(4)[self.food] + 0.1 * self.np_random.normal(size=4)
        return np.concatenate([smell, 2 * np.eye(4)[self.lamp]]).astype(np.float32)

    def step(self, action):
        info = {"food": action == self.food, "lamp": action == self.lamp}
        return self.observation(), float(action == self.food), True, False, info


def make_feeder():
    return Feeder()


class PPO(pl.LightningModule):
    def __init__(self, make_env, num_envs=32, updates=60):
        super().__init__()
        self.automatic_optimization = False
        self.actor = nn.Sequential(nn.Linear(8, 32), nn.Tanh(), nn.Linear(32, 4))
        self.critic = nn.Sequential(nn.Linear(8, 32), nn.Tanh(), nn.Linear(32, 1))
        self.updates = updates
        self.envs = gym.vector.SyncVectorEnv([make_env] * num_envs, autoreset_mode=gym.vector.AutoresetMode.SAME_STEP)
        self.seen = torch.as_tensor(self.envs.reset(seed=0)[0])

    def forward(self, observation):
        return Categorical(logits=self.actor(observation))

    def train_dataloader(self):
        return DataLoader(range(self.updates))

    def training_step(self, batch, batch_idx):
        steps = []
        for _ in range(8):
            with torch.no_grad():
                policy = self(self.seen)
                action = policy.sample()
            seen, reward, *_ = self.envs.step(action.numpy())
            steps.append((self.seen, action, policy.log_prob(action), torch.as_tensor(reward).float()))
            self.seen = torch.as_tensor(seen)
        seen, action, before, reward = (torch.cat(part) for part in zip(*steps, strict=True))
        actor, critic = self.optimizers()
        for _ in range(4):
            value = self.critic(seen)[:, 0]
            advantage = (reward - value).detach()
            ratio = (self(seen).log_prob(action) - before).exp()
            loss = -torch.min(ratio * advantage, ratio.clamp(0.8, 1.2) * advantage).mean()
            for optimizer, descent in ((actor, loss), (critic, F.mse_loss(value, reward))):
                optimizer.zero_grad()
                self.manual_backward(descent)
                optimizer.step()
        self.log("train/reward", reward.mean())

    def configure_optimizers(self):
        return [torch.optim.Adam(part.parameters(), lr=0.01) for part in (self.actor, self.critic)]


def main():
    pl.seed_everything(0)
    trainer = pl.Trainer(max_epochs=1, accelerator="cpu", logger=CSVLogger("logs"), log_every_n_steps=10)
    trainer.fit(PPO(make_feeder))
    torch.save(trainer.model.state_dict(), "model.pt")


if __name__ == "__main__":
    main()
