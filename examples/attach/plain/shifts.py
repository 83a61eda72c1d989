"""Where the digits are the same and their looks are not; for the monitor, the training script does not know of it."""

import torch
from sklearn.datasets import load_digits
from torch.utils.data import DataLoader, TensorDataset


def inverted():
    """The last 500 digits, dark on light."""
    digits = load_digits()
    x = 1 - torch.tensor(digits.images[-500:], dtype=torch.float32).unsqueeze(1) / 16
    return DataLoader(TensorDataset(x, torch.tensor(digits.target[-500:])), batch_size=128)
