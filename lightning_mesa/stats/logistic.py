"""Logistic regressions of many targets at once, by accelerated steps downhill."""

import torch
from torch import Tensor

from lightning_mesa.stats.ridge import usable_spread

TOLERANCE = 1e-8
"""Nats per item and target to which a fit is at its best, about."""

STEPS = 1000


class Logistic:
    """Logistic regressions on standardised features: ``mean of log(1 + e^z) - y z + penalty / 2 |w|^2`` at its minimum.

    With ``z = x w + b``; the intercept b is free. The curvature is at most a quarter of the features' covariance
    (Boehning 1992), whose eigenvectors serve all targets: steps of that length go downhill, and Nesterov's, begun anew
    where they turn back (O'Donoghue and Candes 2015), are fast.

    Args:
        features: ``[n, d]``.
    """

    def __init__(self, features: Tensor) -> None:
        features = features.double()
        self._mean = features.mean(0)
        scale = usable_spread(self._mean, features.std(0, correction=0))
        standard = (features - self._mean) / scale
        values, vectors = torch.linalg.eigh(standard.T @ standard / max(len(features), 1))
        self._axes = vectors / scale[:, None]
        self._rotated = torch.cat([standard @ vectors, torch.ones(len(features), 1, dtype=torch.float64)], 1)
        self._curvature = torch.cat([values.clamp(min=0), values.new_ones(1)])[:, None] / 4

    def fit(self, targets: Tensor, penalty: float, tolerance: float = TOLERANCE) -> tuple[Tensor, Tensor]:
        """``[d, T]`` weights of the features as they are, and ``[T]`` intercepts: the base rate where all are the same.

        Args:
            targets: ``[n, T]`` bool.
            penalty: Per item.
            tolerance: See :data:`TOLERANCE`.
        """
        n, right, free = len(targets), targets.double(), varies(targets)
        shrinks = torch.full_like(self._curvature, penalty)
        shrinks[-1] = 0.0
        at = torch.zeros(len(shrinks), right.shape[1], dtype=torch.float64)
        at[-1] = base_rate(targets).logit()
        ahead, age = at, torch.zeros(right.shape[1], dtype=torch.float64)
        for _ in range(STEPS):
            slope = self._rotated.T @ (torch.sigmoid(self._rotated @ ahead) - right) / n + shrinks * ahead
            slope *= free
            step = slope / (self._curvature + shrinks)
            moved = ahead - step - at
            at = at + moved
            if float((slope * step).sum(0).max()) < tolerance:
                break
            age = torch.where((slope * moved).sum(0) > 0, 0.0, age + 1)
            ahead = at + age / (age + 3) * moved
        weights = self._axes @ at[:-1]
        return weights, at[-1] - self._mean @ weights


def base_rate(targets: Tensor) -> Tensor:
    """``[T]`` share of items where a choice is right, with half an item more on either side.

    Args:
        targets: ``[n, T]`` bool.
    """
    return (targets.double().sum(0) + 0.5) / (len(targets) + 1)


def varies(targets: Tensor) -> Tensor:
    """``[T]`` bool, whether a choice is right in some items and not in others.

    Args:
        targets: ``[n, T]`` bool.
    """
    return targets.any(0) & ~targets.all(0)
