"""Ridge regression from sums: of any number of items, in one pass, all targets and penalties at once.

The sums add up over batches and over processes, so that memory does not grow with the number of items, and two
processes find what one does. Double precision; sums of products are centered after they have been added, which costs
about as many digits as the mean is larger than the spread.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Protocol

import torch
from torch import Tensor

PENALTIES = (1e-3, 1e-2, 1e-1, 1.0, 10.0)
"""Penalties to choose from, per item and for features of spread 1."""

EVERY = slice(None)


@dataclass(frozen=True)
class FoldSums:
    """Sums over the items of each of F folds, with d features and T targets.

    Attributes:
        products: ``[F, 1 + d, 1 + d + T]`` sums of ``[1, x]^T [1, x, y]``, of which the sums below are parts.
        yy: ``[F, T]`` sums of squared targets.
    """

    products: Tensor
    yy: Tensor

    @staticmethod
    def zeros(features: int, targets: int, number: int) -> "FoldSums":
        """Sums over nothing, of so many features, targets and folds."""
        of = 1 + features
        products = torch.zeros(number, of, of + targets, dtype=torch.float64)
        return FoldSums(products, torch.zeros(number, targets, dtype=torch.float64))

    @staticmethod
    def of(features: Tensor, targets: Tensor, folds: Tensor, number: int) -> "FoldSums":
        """Sums over items; the arguments are those of :meth:`add`, with the number of folds F."""
        sums = FoldSums.zeros(features.shape[1], targets.shape[1], number)
        sums.add(features, targets, folds)
        return sums

    def add(self, features: Tensor, targets: Tensor, folds: Tensor) -> None:
        """Add items, in place.

        Args:
            features: ``[n, d]``.
            targets: ``[n, T]``.
            folds: ``[n]`` int64, the fold of each item, below F.
        """
        order, sizes = folds.argsort(stable=True), torch.bincount(folds, minlength=len(self.yy)).tolist()
        parts = (torch.split(features[order], sizes), torch.split(targets[order], sizes))
        for products, yy, x, y in zip(self.products, self.yy, *parts, strict=True):
            of, y = torch.cat([x.new_ones(len(x), 1), x], 1).double(), y.double()
            products[:, : of.shape[1]].addmm_(of.T, of)
            products[:, of.shape[1] :].addmm_(of.T, y)
            yy += y.square().sum(0)

    def __add__(self, other: "FoldSums") -> "FoldSums":
        """The sums over both."""
        return FoldSums(self.products + other.products, self.yy + other.yy)

    def joined(self, spans: Sequence[tuple[int, int]]) -> "FoldSums":
        """Several folds as one, from the first of each span to before the last."""
        products, yy = (
            torch.stack([part[start:stop].sum(0) for start, stop in spans]) for part in (self.products, self.yy)
        )
        return FoldSums(products, yy)

    def others(self) -> "FoldSums":
        """For each fold the sums over all others."""
        return FoldSums(self.products.sum(0) - self.products, self.yy.sum(0) - self.yy)

    @property
    def n(self) -> Tensor:
        """``[F]`` number of items."""
        return self.products[:, 0, 0]

    @property
    def x(self) -> Tensor:
        """``[F, d]`` sums of features."""
        return self.products[:, 1:, 0]

    @property
    def y(self) -> Tensor:
        """``[F, T]`` sums of targets."""
        return self.products[:, 0, self.products.shape[1] :]

    @property
    def xx(self) -> Tensor:
        """``[F, d, d]`` sums of products of features."""
        return self.products[:, 1:, 1 : self.products.shape[1]]

    @property
    def xy(self) -> Tensor:
        """``[F, d, T]`` sums of products of features and targets."""
        return self.products[:, 1:, self.products.shape[1] :]


def ridge(features: Tensor, targets: Tensor, penalty: float) -> tuple[Tensor, Tensor]:
    """One ridge regression on standardised features, from items that are all there; see :class:`Ridge` for sums.

    Args:
        features: ``[n, d]``.
        targets: ``[n, T]``.
        penalty: Per item.

    Returns:
        ``[d, T]`` weights of the features as they are and ``[T]`` intercepts, float64.
    """
    x, y = features.double(), targets.double()
    n, mean_x, mean_y = len(x), x.mean(0), y.mean(0)
    scale = usable_spread(mean_x, x.std(0, correction=0))
    x, y = (x - mean_x) / scale, y - mean_y
    # Whichever is smaller: the products of features, or those of items.
    wide = x.shape[1] > n
    products = x @ x.T if wide else x.T @ x
    products.diagonal().add_(penalty * n)
    weights = x.T @ torch.linalg.solve(products, y) if wide else torch.linalg.solve(products, x.T @ y)
    weights = weights / scale[:, None]
    return weights, mean_y - mean_x @ weights


def usable_spread(mean: Tensor, spread: Tensor) -> Tensor:
    """The spread of features to divide by: infinite where a feature is constant, whose spread is rounding errors."""
    return torch.where(spread > 1e-7 * mean.abs().clamp(min=1e-12), spread, torch.inf)


class Ridge:
    """Ridge regressions on standardised features: ``|y - x w - b|^2 + n penalty |w|^2`` at its minimum.

    One eigendecomposition ``X^T X = Q diag(l) Q^T`` of the centered features serves all penalties and targets:
    ``w = Q c``, ``c = (l + n penalty)^-1 Q^T X^T y``.

    Args:
        sums: Of F folds, each with a regression of its own.

    Attributes:
        axes: ``[F, 1 + d, d]``, what makes ``[1, x]`` centered features, scaled, along Q.
        rotated: ``[F, d, T]``, ``Q^T X^T y``.
        mean_y: ``[F, T]`` means of the targets.
    """

    def __init__(self, sums: FoldSums) -> None:
        n = sums.n[:, None]
        mean_x, self.mean_y = sums.x / n, sums.y / n
        products = sums.xx - mean_x[:, :, None] * sums.x[:, None]
        spread = (products.diagonal(dim1=1, dim2=2) / n).clamp(min=0).sqrt()
        scale = usable_spread(mean_x, spread)
        values, vectors = torch.linalg.eigh(products / (scale[:, :, None] * scale[:, None]))
        axes = vectors / scale[:, :, None]
        self.axes = torch.cat([-mean_x[:, None] @ axes, axes], 1)
        self.rotated = self.axes.mT @ sums.products[:, :, self.axes.shape[1] :]
        self._values, self._n = values.clamp(min=0), n

    def shrunk(self, penalty: float) -> Tensor:
        """``[F, d]`` what :attr:`rotated` is multiplied with to be weights c."""
        factors: Tensor = 1 / (self._values + penalty * self._n)
        return factors

    def fit(self, penalty: float, columns: slice = EVERY) -> tuple[Tensor, Tensor]:
        """``[F, d, T]`` weights of the features as they are, and ``[F, T]`` intercepts, of some of the targets."""
        weights = self.axes @ (self.rotated[:, :, columns] * self.shrunk(penalty)[:, :, None])
        return weights[:, 1:], self.mean_y[:, columns] + weights[:, 0]


class Unseen:
    """What ridges miss on items that they have not been fitted to, from their sums.

    With ``u = [1, x] axes`` and weights c of these, ``sum (y - mean - u c)^2`` is
    ``sum (y - mean)^2 - 2 c sum u (y - mean) + c (sum u^T u) c``.

    Args:
        ridge: F ridges.
        sums: Of F folds, one for each.

    Attributes:
        n: ``[F]`` number of items.
        spread: ``[F, T]`` sums of squared errors of the mean of the items that the ridge has been fitted to.
    """

    def __init__(self, ridge: Ridge, sums: FoldSums) -> None:
        self.ridge, self.n = ridge, sums.n
        of = ridge.axes.shape[1]
        turned = ridge.axes.mT @ sums.products
        self._uu = turned[:, :, :of] @ ridge.axes
        # All penalties multiply the same products of rotated targets.
        self._uy = (turned[:, :, of:] - turned[:, :, :1] * ridge.mean_y[:, None]).mul_(ridge.rotated)
        self.spread = (sums.yy - ridge.mean_y * (2 * sums.y - sums.n[:, None] * ridge.mean_y)).clamp(min=0)

    def errors(self, penalty: float, columns: slice = EVERY) -> Tensor:
        """``[F, T]`` sums of squared errors, of some of the targets."""
        shrunk = self.ridge.shrunk(penalty)
        c = self.ridge.rotated[:, :, columns] * shrunk[:, :, None]
        told = 2 * (shrunk[:, None] @ self._uy[:, :, columns])[:, 0] - (self._uu @ c).mul_(c).sum(1)
        return (self.spread[:, columns] - told).clamp(min=0)


class HeldOut:
    """Each fold predicted by a fit to the others; all targets and penalties share one decomposition per fold.

    Args:
        sums: Of F folds.
    """

    def __init__(self, sums: FoldSums) -> None:
        self._sums = sums
        self._unseen = Unseen(Ridge(sums.others()), sums)

    def errors(self, penalty: float, columns: slice = EVERY) -> Tensor:
        """``[F, T]`` sums of squared errors of some of the targets; the penalty is per item."""
        return self._unseen.errors(penalty, columns)

    def spread(self, columns: slice = EVERY) -> Tensor:
        """``[F, T]`` sums of squared errors of the mean of the other folds."""
        return self._unseen.spread[:, columns]

    def detail(self, penalty: float, columns: slice) -> dict[str, float]:
        """What else is worth knowing: see :class:`OnlineCode`."""
        return {"compression": self._code.saved(penalty, columns)}

    @cached_property
    def _code(self) -> "OnlineCode":
        return OnlineCode(self._sums)


class OnlineCode:
    """How much shorter targets become by coding them with the features: the online code of Voita and Titov (2020).

    Folds are sent in portions that double, each with a normal code fitted to all before it; a code of the same kind
    that knows the mean alone is what it is compared with. ``n log s`` nats each, s the root mean square of the errors
    on the portion. The first fold is sent for free.

    Args:
        sums: Of F folds, at least two.
    """

    def __init__(self, sums: FoldSums) -> None:
        portions = doubling(len(sums.n))
        before = sums.joined([(0, start) for start, _ in portions])
        self._unseen = Unseen(Ridge(before), sums.joined(portions))

    def saved(self, penalty: float, columns: slice = EVERY) -> float:
        """Nats saved per item and target; 0 or less where the features tell nothing."""
        n = self._unseen.n
        missed = torch.stack([self._unseen.spread[:, columns], self._unseen.errors(penalty, columns)])
        lengths = 0.5 * (missed / n[:, None]).clamp(min=1e-12).log().mean(2)
        return float(n @ (lengths[0] - lengths[1]) / n.sum())


def doubling(number: int) -> list[tuple[int, int]]:
    """From which fold to which each portion goes, the first fold left out: 1 to 2, 2 to 4, 4 to 8, and so on."""
    ends = [1]
    while ends[-1] < number:
        ends.append(min(2 * ends[-1], number))
    return list(pairwise(ends))


class Held(Protocol):
    """Each of F folds predicted from the others."""

    def errors(self, penalty: float, columns: slice) -> Tensor:
        """``[F, T]`` what is missed of some of the targets."""

    def spread(self, columns: slice) -> Tensor:
        """``[F, T]`` what is missed by the mean of the other folds."""

    def detail(self, penalty: float, columns: slice) -> dict[str, float]:
        """What else is worth knowing about some of the targets."""


@dataclass(frozen=True)
class Curve:
    """What is missed on held-out items, at the penalty that misses least.

    Attributes:
        errors: ``[F]`` sums of errors.
        spread: ``[F]`` those of the mean.
        penalty: The penalty.
    """

    errors: Tensor
    spread: Tensor
    penalty: float

    @property
    def explained(self) -> float:
        """Share explained."""
        return float(1 - self.errors.sum() / self.spread.sum())

    @property
    def leaving_out(self) -> Tensor:
        """``[F]`` the share explained without each fold."""
        return 1 - (self.errors.sum() - self.errors) / (self.spread.sum() - self.spread)


def best(held: Held, columns: slice) -> Curve:
    """The curve of some targets at the best penalty."""
    errors = [held.errors(penalty, columns).sum(1) for penalty in PENALTIES]
    chosen = min(range(len(PENALTIES)), key=lambda i: float(errors[i].sum()))
    return Curve(errors[chosen], held.spread(columns).sum(1), PENALTIES[chosen])
