"""Logistic regression of what objectives prescribe, on a bounded sample of items.

Logistic regression has no sums that are enough, so items are kept: those that come first in an order that is as if
drawn at random and the same everywhere. The first of two processes' first ones are the first of all, so that
memory does not grow with the number of items, and two processes find what one does.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_mesa.probes.decodability import FOLDS, Decodability, Items
from lightning_mesa.records import INPUT, UNTRAINED
from lightning_mesa.stats.logistic import Logistic, base_rate, varies
from lightning_mesa.stats.ridge import EVERY, Held, doubling
from lightning_mesa.stats.splits import folds, mixed

KEPT = 2048
"""Items of a layer that are kept."""


class LogisticDecodability(Decodability):
    """Logistic regression of what each objective prescribes, one choice against the rest, on a sample of shifted items.

    As :class:`~lightning_mesa.probes.decodability.Decodability`, whose controls, limits and null it shares, with two
    differences. What is explained is the share of the log-loss of the base rate that is saved on held-out items, summed
    over choices. And it rests on at most :data:`KEPT` items of all, so that labels of groups change places among all of
    these. *Compression* is by the online code with its own probabilities, in nats per item and choice.

    Where several items have one id, ``detail`` also has *selectivity_seen*: what is explained less what the control
    task gives (Hewitt and Liang 2019), both with folds in which other items of the same groups have been seen, so that
    labels can be learned by heart. Near 0, the probe can tell groups apart as well as labels.

    It costs no forward pass, and more time than ridge at each look: one to three seconds on one core for each layer of
    128 features and objective of four choices.

    What it cannot see: as for ridge; and what shows in more than :data:`KEPT` items only.
    """

    name = "logistic_decodability"

    def _added(self, held: Any, items: Items, layer: str) -> "Sample":
        finite = items.activations[layer].isfinite().all(1)
        is_control = layer == INPUT or layer.startswith(UNTRAINED)
        part = Sample(items.only(finite, layer), layer, with_permutations=not is_control)
        return part.first() if held is None else held + part

    def _held_out(self, sums: Any) -> Held:
        return HeldOutSample(sums)


@dataclass(frozen=True)
class Sample:
    """Items of which one layer was read.

    Attributes:
        of: The items.
        layer: The layer.
        with_permutations: Whether targets are wanted with labels that have changed places too.
    """

    of: Items
    layer: str
    with_permutations: bool

    def __add__(self, other: "Sample") -> "Sample":
        """The first of both."""
        return replace(self, of=Items.joined([self.of, other.of])).first()

    def first(self) -> "Sample":
        """At most :data:`KEPT` of the items, in an order that does not depend on who has read them."""
        # Mixed twice: folds are told by a number mixed once.
        order = mixed(mixed(self.of.items)).argsort(stable=True)[:KEPT]
        return replace(self, of=self.of.only(order, self.layer))

    @property
    def n(self) -> Tensor:
        """``[F]`` number of items in each fold."""
        return torch.bincount(folds(self.of.ids, FOLDS), minlength=FOLDS)

    @property
    def features(self) -> Tensor:
        """``[m, d]`` what the layer gave."""
        return self.of.activations[self.layer]

    @property
    def targets(self) -> Tensor:
        """``[m, T]`` what is prescribed, objective by objective, each with its permutations if they are wanted."""
        return self.of.permuted if self.with_permutations else self.of.observed


class HeldOutSample:
    """Each fold of a sample predicted by a fit to the others.

    Args:
        sample: The sample.
    """

    def __init__(self, sample: Sample) -> None:
        self._sample, self._targets = sample, sample.targets
        self._folds = folds(sample.of.ids, FOLDS)
        self._splits = [self._split(self._folds != fold, self._folds == fold) for fold in range(FOLDS)]

    def errors(self, penalty: float, columns: slice = EVERY) -> Tensor:
        """``[F, T]`` log-loss of some of the targets in nats, 0 where all are the same; the penalty is per item."""
        labels = self._targets[:, columns]
        return torch.stack([split.errors(labels, penalty) for split in self._splits]) * varies(labels)

    def spread(self, columns: slice = EVERY) -> Tensor:
        """``[F, T]`` log-loss of the base rate in the other folds."""
        labels = self._targets[:, columns]
        return torch.stack([split.spread(labels) for split in self._splits]) * varies(labels)

    def detail(self, penalty: float, columns: slice) -> dict[str, float]:
        """Compression, and where items share groups the selectivity with groups that have been seen."""
        found = {"compression": _saved(self._code, self._targets[:, columns], penalty)}
        if self._seen:
            width = columns.stop - columns.start
            true, control = (self._targets[:, at : at + width] for at in (columns.start, columns.stop))
            of_true, of_control = (_explained(self._seen, labels, penalty) for labels in (true, control))
            found["selectivity_seen"] = of_true - of_control
        return found

    def _split(self, fitted: Tensor, judged: Tensor) -> "Split":
        return Split(self._sample.features, fitted, judged)

    @cached_property
    def _code(self) -> "list[Split]":
        return [
            self._split(self._folds < start, (self._folds >= start) & (self._folds < stop))
            for start, stop in doubling(FOLDS)
        ]

    @cached_property
    def _seen(self) -> "list[Split]":
        if len(torch.unique(self._sample.of.ids)) == len(self._sample.of.ids):
            return []
        of_items = folds(self._sample.of.items, FOLDS)
        return [self._split(of_items != fold, of_items == fold) for fold in range(FOLDS)]


class Split:
    """Some items to fit, and others to judge the fit.

    Args:
        features: ``[n, d]``.
        fitted: ``[n]`` bool.
        judged: ``[n]`` bool.
    """

    def __init__(self, features: Tensor, fitted: Tensor, judged: Tensor) -> None:
        self.fitted, self.judged = fitted, judged
        self.n = int(judged.sum())
        self._regression = Logistic(features[fitted])
        self._features = features[judged].double()

    def errors(self, targets: Tensor, penalty: float) -> Tensor:
        """``[T]`` log-loss on the items to be judged.

        Args:
            targets: ``[n, T]`` bool of all items.
            penalty: Per item.
        """
        weights, intercepts = self._regression.fit(targets[self.fitted], penalty)
        return self._loss(self._features @ weights + intercepts, targets)

    def spread(self, targets: Tensor) -> Tensor:
        """``[T]`` the same of the base rate."""
        rate = base_rate(targets[self.fitted])
        return self._loss(rate.logit().expand(self.n, -1), targets)

    def _loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        # Nobody dares more than the base rate of a choice that has never been right.
        most = math.log(2 * int(self.fitted.sum()) + 1)
        logits, right = logits.clamp(-most, most), targets[self.judged].double()
        return F.binary_cross_entropy_with_logits(logits, right, reduction="none").sum(0)


def _explained(splits: Sequence[Split], targets: Tensor, penalty: float) -> float:
    missed, spread = (
        float(sum(of.sum() for of in losses))
        for losses in ([s.errors(targets, penalty) for s in splits], [s.spread(targets) for s in splits])
    )
    return 1 - missed / spread


def _saved(splits: Sequence[Split], targets: Tensor, penalty: float) -> float:
    saved = sum(float((s.spread(targets) - s.errors(targets, penalty)).mean()) for s in splits)
    return saved / sum(s.n for s in splits)
