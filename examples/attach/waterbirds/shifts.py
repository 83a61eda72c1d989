"""Birds where they seldom are; and what one logit says, as two choices."""

import torch
from train import Birds


def other_place():
    return Birds(400, 0.0, seed=9)


def bird(batch):
    return batch["target"].long()


def two_choices(logit, batch):
    return torch.cat([torch.zeros_like(logit), logit], 1)
