"""What an estimate of the behavioral objective says, and what it cannot say."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import torch
from scipy.special import stdtrit
from torch import Tensor

ENOUGH = 30.0
"""A contrast is identified only if it rests on so many effective items; with fewer, intervals are too short."""

NEGLIGIBLE = 1e-9
"""Directions with less than this share of the largest information cannot be told apart from none at all."""


@dataclass(frozen=True)
class ObjectiveFit:
    """Weights of features in the objective that a policy behaves as if it pursued.

    Attributes:
        names: Of the K features.
        solution: ``[K]`` the weights, those of the smallest norm where several fit alike; see :attr:`weights`.
        bread: ``[K, K]`` inverse of the information, in the directions that the features have at all.
        covariance: ``[K, K]`` of the weights, or None where nothing was sampled (the whole MDP is known).
        basis: ``[K, r]`` orthonormal; the directions in which the features differ at all.
        units: ``[G, K, K]`` information in each item, or cluster of items; None where nothing was sampled.
        log_likelihood: Mean log-likelihood of the choices at the weights, in nats.
        references: That of null models: ``"uniform"``, ``"marginal"`` (always the same frequencies), and of the choice
            probabilities themselves, ``"perfect"``; an objective that rewards whatever is done reaches the last one
            (the *bottle cap*), so that it bounds every fit and proves none. None where choices stand for several.
        converged: False where the weights have no finite value, as choices are deterministic.
    """

    names: tuple[str, ...]
    solution: Tensor
    bread: Tensor
    covariance: Tensor | None
    basis: Tensor
    units: Tensor | None
    log_likelihood: float
    references: Mapping[str, float]
    converged: bool = True

    @property
    def weights(self) -> Tensor:
        """``[K]`` the weights; NaN where one is not identified."""
        return torch.tensor([self.estimate(contrast) for contrast in self._coordinates], dtype=torch.float64)

    @property
    def scale(self) -> float:
        """Euclidean norm of the weights, or how rational the choices are: 0 at random, infinite if deterministic."""
        return float(self.solution.norm()) if self.converged else math.inf

    @property
    def direction(self) -> Tensor:
        """``[K]`` the weights over their norm; what is pursued, however consistently. 0 without any."""
        return torch.nn.functional.normalize(self.solution, dim=0)

    @property
    def identified(self) -> bool:
        """Whether every weight and every difference between two of them is identified."""
        return not self.unidentified

    @property
    def unidentified(self) -> tuple[str, ...]:
        """What is not identified, in words."""
        if not self.converged:
            return ("every weight: choices are deterministic, so no finite weight is the best",)
        missing = _complement(self.basis)
        if missing.shape[1]:
            return tuple(f"{in_words(column, self.names)}: no choice tells" for column in missing.T)
        each = list(zip(self.names, self._coordinates, strict=True))
        pairs = [(f"{one} against {other}", x - y) for (one, x), (other, y) in combinations(each, 2)]
        return tuple(
            f"{what}: rests on {int(self.effective(contrast))} effective items, {ENOUGH:.0f} are needed"
            for what, contrast in pairs + each
            if not self.identifies(contrast)
        )

    def estimate(self, contrast: Tensor | Sequence[float]) -> float:
        """``contrast . weights``, NaN where it is not identified."""
        contrast = torch.as_tensor(contrast, dtype=torch.float64)
        return float(contrast @ self.solution) if self.identifies(contrast) else math.nan

    def identifies(self, contrast: Tensor | Sequence[float]) -> bool:
        """Whether choices tell the value of ``contrast . weights``, and enough of them do."""
        return self.converged and self.effective(contrast) >= ENOUGH

    def effective(self, contrast: Tensor | Sequence[float]) -> float:
        """Effective number of items that tell the value of a contrast.

        ``(sum I)^2 / sum I^2`` over the items' information ``I_i = u' H_i u`` with ``u = H^-1 contrast`` (Kish 1965):
        the number of items that say something, where all of these say the same. Where choices are deterministic and
        weights have no value, items count by how much the features differ.
        """
        contrast = torch.as_tensor(contrast, dtype=torch.float64)
        outside = contrast - self.basis @ (self.basis.T @ contrast)
        if outside.norm() > 1e-6 * contrast.norm():
            return 0.0
        if self.units is None:
            return math.inf
        u = self.bread.T @ contrast
        information = torch.einsum("k,gkl,l->g", u, self.units, u)
        total = information.square().sum()
        # So many items that are alike are that many, whatever the rounding.
        return round(float(information.sum().square() / total), 6) if total > 0 else 0.0

    def interval(self, contrast: Tensor | Sequence[float], level: float = 0.95) -> tuple[float, float]:
        """Confidence interval of ``contrast . weights``; infinite where it is not identified, never a ridge's.

        By Student's t, with one degree of freedom less than effective items. Of a whole MDP that is known nothing is
        sampled, and the interval is a point.

        Args:
            contrast: ``[K]``.
            level: Confidence level, in (0, 1).
        """
        contrast = torch.as_tensor(contrast, dtype=torch.float64)
        if not self.identifies(contrast):
            return -math.inf, math.inf
        center = float(contrast @ self.solution)
        if self.covariance is None:
            return center, center
        freedom = self.effective(contrast) - 1
        error = math.sqrt(max(0.0, float(contrast @ self.covariance @ contrast)))
        reach = float(stdtrit(freedom, (1 + level) / 2)) * error
        return center - reach, center + reach

    @property
    def _coordinates(self) -> Tensor:
        return torch.eye(len(self.names), dtype=torch.float64)


def names_of(names: Sequence[str] | None, count: int) -> tuple[str, ...]:
    """The features' names, or numbers for them.

    Raises:
        ValueError: If there are not as many as features.
    """
    found = tuple(f"feature {i}" for i in range(count)) if names is None else tuple(names)
    if len(found) != count:
        raise ValueError(f"{len(found)} names for {count} features")
    return found


def informative(information: Tensor) -> Tensor:
    """``[K, r]`` orthonormal directions in which there is information, whatever the features' units.

    Args:
        information: ``[K, K]`` symmetric, not negative.
    """
    sizes = information.diagonal().clamp(min=0).sqrt()
    there = sizes > NEGLIGIBLE * sizes.max() if len(sizes) else sizes > 0
    relative = torch.where(there, sizes, torch.inf)
    values, vectors = torch.linalg.eigh(information / torch.outer(relative, relative))
    kept = vectors[:, values > NEGLIGIBLE] * torch.where(there, sizes, 0)[:, None]
    basis: Tensor = torch.linalg.qr(kept)[0] if kept.shape[1] else kept
    return basis


def _complement(basis: Tensor) -> Tensor:
    """``[K, K - r]`` orthonormal directions that the basis lacks."""
    rest = torch.eye(len(basis), dtype=torch.float64) - basis @ basis.T
    values, vectors = torch.linalg.eigh(rest)
    missing: Tensor = vectors[:, values > 0.5]
    return missing


def in_words(direction: Tensor, names: Sequence[str]) -> str:
    """A direction as "a against b", or "a" where it is one feature, or features that only add up to nothing."""
    relative = direction / direction.abs().max()
    direction = relative * relative[relative.abs() > 0.999][0].sign()  # of equals the first one, whatever the rounding
    more = [name for name, part in zip(names, direction.tolist(), strict=True) if part > 0.05]
    less = [name for name, part in zip(names, direction.tolist(), strict=True) if part < -0.05]
    return " and ".join(more) + (f" against {' and '.join(less)}" if less else "")
