"""What a user's module may hold."""

import os  # noqa: F401  a module must not be a way to what it imports
from functools import partial

import torch
from torch.utils.data import TensorDataset  # noqa: F401

import toy


def shifted():
    return toy.shifted()


def digit(batch):
    return batch["y"]


def number(batch):
    return batch["id"]


def agreement(batch, outputs):
    return (outputs.argmax(1) == batch["y"]).float()


def net(pl_module, batch):
    return pl_module.net(batch["x"])


class Makes:
    """Holds a factory."""

    @staticmethod
    def shifted():
        return toy.shifted()


shifted_small = partial(toy.shifted, 50)
THREE = 3
NOTHING = torch.zeros(0)
