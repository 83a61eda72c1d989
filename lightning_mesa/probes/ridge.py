"""Ridge regression from sums: of any number of items, in one pass, all targets and penalties at once.

The sums add up over batches and over processes, so that memory does not grow with the number of items, and two
processes find what one does. Double precision; sums of products are centered after they have been added, which costs
about as many digits as the mean is larger than the spread.
"""

from dataclasses import dataclass
from itertools import pairwise

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


class Ridge:
    """Ridge regression on standardised or plain features: ``|y - x w - b|^2 + penalty |w|^2`` at its minimum.

    One eigendecomposition ``X^T X = Q diag(l) Q^T`` of the centered features serves all penalties and targets:
    ``w = Q (l + penalty)^-1 Q^T X^T y``.

    Args:
        sums: Of one fold.
        standardized: Whether to divide features by their spread first, and take penalties per item.
    """

    def __init__(self, sums: FoldSums, *, standardized: bool = True) -> None:
        n, x, y, xx, xy, _ = (part[0] for part in sums.tensors)
        self.mean_x, self.mean_y, self.per = x / n, y / n, n if standardized else torch.ones(())
        products = xx - n * torch.outer(self.mean_x, self.mean_x)
        spread = (products.diagonal() / n).clamp(min=0).sqrt() if standardized else torch.ones_like(x)
        # A constant feature has a spread of rounding errors.
        self.scale = torch.where(spread > 1e-7 * self.mean_x.abs().clamp(min=1e-12), spread, torch.inf)
        self.values, self.vectors = torch.linalg.eigh(products / torch.outer(self.scale, self.scale))
        cross = (xy - n * torch.outer(self.mean_x, self.mean_y)) / self.scale[:, None]
        self.rotated = self.vectors.T @ cross

    def fit(self, penalty: float, columns: slice = slice(None)) -> tuple[Tensor, Tensor]:
        """``[d, T]`` weights of the features as they are, and ``[T]`` intercepts, of some of the targets."""
        shrunk = self.rotated[:, columns] / (self.values.clamp(min=0) + penalty * self.per)[:, None]
        weights = (self.vectors @ shrunk) / self.scale[:, None]
        return weights, self.mean_y[columns] - self.mean_x @ weights


def squared_errors(sums: FoldSums, weights: Tensor, intercepts: Tensor, columns: slice = slice(None)) -> Tensor:
    """``[T]`` sums of squared errors on the items of one fold, of some of the targets.

    Args:
        sums: Of one fold.
        weights: ``[d, T]``.
        intercepts: ``[T]``.
        columns: Which targets.
    """
    n, x, y, xx, xy, yy = (part[0] for part in sums.tensors)
    quadratic = (weights * (xx @ weights)).sum(0) + 2 * intercepts * (x @ weights) + n * intercepts**2
    missed = yy[columns] - 2 * (weights * xy[:, columns]).sum(0) - 2 * intercepts * y[columns] + quadratic
    return missed.clamp(min=0)


class HeldOut:
    """Each fold predicted by a fit to the others; all targets and penalties share one decomposition per fold.

    Args:
        sums: Of F folds.
    """

    def __init__(self, sums: FoldSums) -> None:
        self.folds = [(sums.only(fold), Ridge(sums.without(fold))) for fold in range(len(sums.n))]

    def errors(self, penalty: float, columns: slice = slice(None)) -> Tensor:
        """``[F, T]`` sums of squared errors of some of the targets; the penalty is per item."""
        return torch.stack(
            [squared_errors(here, *others.fit(penalty, columns), columns) for here, others in self.folds]
        )

    def spread(self, columns: slice = slice(None)) -> Tensor:
        """``[F, T]`` sums of squared errors of the mean of the other folds."""
        spreads = []
        for here, others in self.folds:
            mean = others.mean_y[columns]
            missed = here.yy[0, columns] - 2 * mean * here.y[0, columns] + here.n[0] * mean**2
            spreads.append(missed.clamp(min=0))
        return torch.stack(spreads)


class OnlineCode:
    """How much shorter targets become by coding them with the features: the online code of Voita and Titov (2020).

    Folds are sent in portions that double, each with a normal code fitted to all before it; a code of the same kind
    that knows the mean alone is what it is compared with. ``n log s`` nats each, s the root mean square of the errors
    on the portion. The first fold is sent for free.

    Args:
        sums: Of F folds.
    """

    def __init__(self, sums: FoldSums) -> None:
        number, ends = len(sums.n), [1]
        while ends[-1] < number:
            ends.append(min(2 * ends[-1], number))
        self.portions = [
            (sums.only(*range(start, end)), Ridge(sums.only(*range(start)))) for start, end in pairwise(ends)
        ]

    def saved(self, penalty: float, columns: slice) -> float:
        """Nats saved per item and target; 0 or less where the features tell nothing."""
        saved = items = 0.0
        for here, before in self.portions:
            weights, intercepts = before.fit(penalty, columns)
            lengths = [
                0.5 * (squared_errors(here, *fitted, columns) / here.n).clamp(min=1e-12).log()
                for fitted in ((torch.zeros_like(weights), before.mean_y[columns]), (weights, intercepts))
            ]
            saved += float(here.n * (lengths[0] - lengths[1]).mean())
            items += float(here.n)
        return saved / items if items else 0.0
