"""Ridge regression from sums: of any number of items, in one pass, all targets and penalties at once.

The sums add up over batches and over processes, so that memory does not grow with the number of items, and two
processes find what one does. Double precision; sums of products are centered after they have been added, which costs
about as many digits as the mean is larger than the spread.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

PENALTIES = (1e-3, 1e-2, 1e-1, 1.0, 10.0)
"""Penalties to choose from, per item and for features of spread 1."""


@dataclass(frozen=True)
class FoldSums:
    """Sums over the items of each of F folds, with d features and T targets.

    Attributes:
        n: ``[F]`` number of items.
        x: ``[F, d]`` sums of features.
        y: ``[F, T]`` sums of targets.
        xx: ``[F, d, d]`` sums of products of features.
        xy: ``[F, d, T]`` sums of products of features and targets.
        yy: ``[F, T]`` sums of squared targets.
    """

    n: Tensor
    x: Tensor
    y: Tensor
    xx: Tensor
    xy: Tensor
    yy: Tensor

    @staticmethod
    def of(features: Tensor, targets: Tensor, folds: Tensor, number: int) -> "FoldSums":
        """Sum up items.

        Args:
            features: ``[n, d]``.
            targets: ``[n, T]``.
            folds: ``[n]`` int64, the fold of each item, below ``number``.
            number: Number of folds F.
        """
        parts = []
        for fold in range(number):
            x, y = features[folds == fold].double(), targets[folds == fold].double()
            n = torch.tensor(len(x), dtype=torch.float64)
            parts.append((n, x.sum(0), y.sum(0), x.T @ x, x.T @ y, (y * y).sum(0)))
        return FoldSums(*(torch.stack(part) for part in zip(*parts, strict=True)))

    def __add__(self, other: "FoldSums") -> "FoldSums":
        """The sums over both."""
        return FoldSums(*(mine + theirs for mine, theirs in zip(self.tensors, other.tensors, strict=True)))

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """All six."""
        return self.n, self.x, self.y, self.xx, self.xy, self.yy

    def without(self, fold: int) -> "FoldSums":
        """All other folds, as one."""
        return FoldSums(*((part.sum(0) - part[fold])[None] for part in self.tensors))

    def only(self, *folds: int) -> "FoldSums":
        """Some folds, as one."""
        return FoldSums(*(part[list(folds)].sum(0, keepdim=True) for part in self.tensors))


def ridge(sums: FoldSums, penalties: Tensor, *, standardized: bool = False) -> tuple[Tensor, Tensor]:
    """Weights and intercepts that minimise ``|y - x w - b|^2 + penalty |w|^2``.

    One eigendecomposition ``X^T X = Q diag(l) Q^T`` of the centered features serves all penalties and targets:
    ``w = Q (l + penalty)^-1 Q^T X^T y``.

    Args:
        sums: Of one fold.
        penalties: ``[P]``, positive.
        standardized: Whether to divide features by their spread first, and penalties to be per item.

    Returns:
        ``[P, d, T]`` weights of the features as they are, and ``[P, T]`` intercepts.
    """
    n, x, y, xx, xy, _ = (part[0] for part in sums.tensors)
    mean_x, mean_y = x / n, y / n
    products, cross = xx - n * torch.outer(mean_x, mean_x), xy - n * torch.outer(mean_x, mean_y)
    scale = torch.ones_like(mean_x)
    if standardized:
        spread = (products.diagonal() / n).clamp(min=0).sqrt()
        # A constant feature has a spread of rounding errors.
        scale = torch.where(spread > 1e-7 * mean_x.abs().clamp(min=1e-12), spread, torch.inf)
        penalties = penalties * n
    values, vectors = torch.linalg.eigh(products / torch.outer(scale, scale))
    rotated = vectors.T @ (cross / scale[:, None])
    shrunk = rotated / (values.clamp(min=0) + penalties[:, None])[:, :, None]
    weights = (vectors @ shrunk) / scale[:, None]
    return weights, mean_y - mean_x @ weights


def squared_errors(sums: FoldSums, weights: Tensor, intercepts: Tensor) -> Tensor:
    """``[P, T]`` sums of squared errors on the items of one fold.

    Args:
        sums: Of one fold.
        weights: ``[P, d, T]``.
        intercepts: ``[P, T]``.
    """
    n, x, y, xx, xy, yy = (part[0] for part in sums.tensors)
    quadratic = (weights * (xx @ weights)).sum(1) + 2 * intercepts * (x @ weights) + n * intercepts**2
    return (yy - 2 * (weights * xy).sum(1) - 2 * intercepts * y + quadratic).clamp(min=0)


def held_out(sums: FoldSums, penalties: Tensor) -> tuple[Tensor, Tensor]:
    """Each fold predicted by a fit to the others.

    Args:
        sums: Of F folds.
        penalties: ``[P]`` per item, for features of spread 1.

    Returns:
        ``[P, F, T]`` sums of squared errors, and ``[F, T]`` those of the mean of the other folds.
    """
    errors, spreads = [], []
    for fold in range(len(sums.n)):
        here, others = sums.only(fold), sums.without(fold)
        errors.append(squared_errors(here, *ridge(others, penalties, standardized=True)))
        mean = (others.y / others.n)[0]
        spreads.append((here.yy - 2 * mean * here.y + here.n[:, None] * mean**2)[0])
    return torch.stack(errors, 1), torch.stack(spreads)


def compression(sums: FoldSums, penalty: float, columns: slice) -> float:
    """How much shorter the targets become by coding them with the features: the online code of Voita and Titov (2020).

    Each fold in turn is sent with a normal code fitted to those before it; a code of the same kind that knows the mean
    alone is what it is compared with. ``n log s + n`` nats each, s the standard deviation of the errors.

    Args:
        sums: Of F folds, sent in their order; the first is sent for free.
        penalty: Per item, for features of spread 1.
        columns: The targets.

    Returns:
        Nats saved per item and target; 0 or less where the features tell nothing.
    """
    saved, items = 0.0, 0.0
    for fold in range(1, len(sums.n)):
        before, here = sums.only(*range(fold)), sums.only(fold)
        penalties = torch.tensor([penalty], dtype=torch.float64)
        weights, intercepts = ridge(before, penalties, standardized=True)
        means = torch.zeros_like(weights), (before.y / before.n)
        lengths = []
        for fitted in ((weights, intercepts), means):
            # Errors on what a code was fitted to are smaller than on what comes, so each is priced by those that come.
            mean_error = squared_errors(here, *fitted)[0, columns] / here.n
            lengths.append(0.5 * mean_error.clamp(min=1e-12).log())
        saved += float(here.n * (lengths[1] - lengths[0]).mean())
        items += float(here.n)
    return saved / items if items else 0.0
