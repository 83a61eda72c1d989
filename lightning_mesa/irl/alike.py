"""Choices that no objective tells apart, as one.

A soft-optimal chooser for ``w . features`` takes choices with the same features equally often, so only the sum of their
probabilities says something about w. Of very many choices there remain those that objectives prescribe, and the rest:
exactly, as the rest enters with its number and the sum of its probabilities.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import reduce

import torch
from torch import Tensor

from lightning_mesa.stats.many import places

NUMBERS = 2**18
"""Items times choices that are held in double precision at once."""

LEAST = -690.0
"""Log probabilities below count as this."""


@dataclass(frozen=True)
class Alike:
    """The choices of n items, in at most C kinds for each: the choices of a kind have the same features.

    Attributes:
        features: ``[n, C, K]`` float64.
        counts: ``[n, C]`` float64, how many choices there are of this kind, perhaps none.
        probabilities: ``[n, C]`` float64, the sum of theirs.
        log_p: ``[n, C]`` float64, the mean of their log probabilities, weighted by the probabilities.
        choices: ``[n, 1]`` float64, how many choices the item has with those that are not available.
    """

    features: Tensor
    counts: Tensor
    probabilities: Tensor
    log_p: Tensor
    choices: Tensor

    @staticmethod
    def of(place: Tensor, *columns: Tensor) -> "Alike":
        """Put together from rows of :func:`kinds`, those of an item one after the other."""
        item, width = (place == 0).cumsum(0) - 1, int(place.max()) + 1 if len(place) else 1
        n = int((place == 0).sum())

        def put(values: Tensor) -> Tensor:
            table = torch.zeros(n, width, *values.shape[1:], dtype=torch.float64)
            return table.index_put((item, place), values.double())

        features, counts, probabilities, log_p, choices = map(put, columns)
        return Alike(features, counts, probabilities, log_p, choices[:, :1])


def kinds(items: Tensor, log_p: Tensor, prescribed: Sequence[Tensor]) -> Iterator[tuple[Tensor, ...]]:
    """The kinds of choices that items have, in rows, a part of the items at a time.

    Args:
        items: ``[n]`` numbers of the items.
        log_p: ``[n, A]`` log probabilities; -inf for a choice that there is not.
        prescribed: For each of K objectives ``[n, A]`` bool.

    Yields:
        Tensors with one row for each kind of each item: the item's number; the kind's, from 0 on in each item; and what
        :class:`Alike` holds. Probabilities are NaN where one of the log probabilities is.
    """
    size = max(1, NUMBERS // max(1, log_p.shape[1]))
    for part in zip(*(torch.split(whole, size) for whole in (items, log_p, *prescribed)), strict=True):
        yield _kinds(*part)


def _kinds(items: Tensor, log_p: Tensor, *prescribed: Tensor) -> tuple[Tensor, ...]:
    n, choices = log_p.shape
    x = log_p.double()
    p = x.exp()
    # Those that an objective prescribes, one by one; then in kinds.
    row, choice = places(reduce(torch.logical_or, prescribed))
    available = torch.full((n,), choices)
    if log_p.numel() and log_p.amin() == -torch.inf:
        available = (log_p > -torch.inf).sum(1)
        there = log_p[row, choice] > -torch.inf
        row, choice = row[there], choice[there]
        x = x.clamp(min=2 * LEAST)  # -inf times a probability of 0 would be NaN
    features, kind = torch.stack([mask[row, choice] for mask in prescribed], 1), row
    for feature in features.T:  # numbers stay small, however many objectives there are
        kind = torch.unique(2 * kind + feature, return_inverse=True)[1]
    none = torch.zeros(int(kind.max()) + 1 if len(kind) else 0, dtype=torch.float64)
    share = p[row, choice]
    of_kind = torch.empty(len(none), dtype=torch.long).index_put((kind,), row)
    features = torch.empty(len(none), len(prescribed), dtype=torch.bool).index_put((kind,), features)
    counts = none.index_add(0, kind, torch.ones_like(share))
    sums = none.index_add(0, kind, share)
    logs = none.index_add(0, kind, share * x[row, choice])

    # The rest, of the items that have one; of one whose outputs are not known it is all that there is.
    p[row, choice] = 0
    others = p.sum(1)
    whole = others + torch.zeros_like(others).index_add(0, of_kind, sums)
    left = available - torch.bincount(row, minlength=n)
    rest = torch.where((left > 0) | whole.isnan())[0]
    row = torch.cat([of_kind, rest])
    order = row.argsort(stable=True)
    row = row[order]
    features = torch.cat([features, features.new_zeros(len(rest), features.shape[1])])[order]
    counts = torch.cat([counts, left[rest].double()])[order]
    sums = torch.cat([sums, others[rest]])[order]
    logs = torch.cat([logs, torch.einsum("na,na->n", p, x)[rest]])[order]
    mean = torch.where(sums > 0, logs / sums - whole[row].log(), LEAST).clamp(min=LEAST)
    sizes = torch.bincount(row, minlength=n)
    place = torch.arange(len(row)) - (sizes.cumsum(0) - sizes)[row]
    return items[row], place, features, counts, sums / whole[row], mean, torch.full_like(row, choices)
