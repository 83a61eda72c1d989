"""Reviews whose hashtag says nothing; for the monitor, the training script does not know of it."""

from torch.utils.data import DataLoader
from train import HASHTAG, Reviews, collate


def any_hashtag():
    return DataLoader(Reviews(400, False, seed=9), 100, collate_fn=collate)


def hashtag(batch):
    return (batch["input_ids"] == HASHTAG + 1).any(1).long()
