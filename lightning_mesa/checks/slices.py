"""Slices of the items that nobody declared: found on one half, measured on the other."""

from collections.abc import Sequence

import torch

from lightning_mesa.checks.measure import LEVEL, Measure, Stamp
from lightning_mesa.records import Behavior, Finding
from lightning_mesa.stats.competence import Competence, limits
from lightning_mesa.stats.intervals import Mean
from lightning_mesa.stats.splits import one_half

MIN_ITEMS = 20
"""A slice with fewer items in the half it is searched in is not considered."""


class Slices(Measure):
    """Base competence on the worst intersection of two groups.

    One half of the items is used to find it, the other to measure it, so that the search costs no validity. Needs group
    labels under at least two keys, and binary scores at base.
    """

    name = "slices"

    def update(self, behavior: Behavior) -> None:
        """Add one batch."""
        base, where = self.hypotheses.base.name, behavior.distribution
        if base not in behavior.binary or len(behavior.groups) < 2:
            return
        labels = sorted(behavior.groups)
        members = torch.stack([behavior.groups[label] for label in labels]).double()
        scores = behavior.scores[base]
        measured = one_half(behavior.items).double()
        self.add((where, "nonfinite"), (~scores.isfinite()).sum())
        scores = scores.nan_to_num()
        for half, weight in (("search", 1 - measured), ("measure", measured)):
            n = members * weight @ members.T
            ones = members * (weight * scores) @ members.T
            for i, j in torch.triu(n, diagonal=1).nonzero().tolist():
                self.add((where, half, labels[i], labels[j]), torch.stack([n[i, j] - ones[i, j], ones[i, j]]))

    def compute(self, stamp: Stamp, found: Sequence[Finding]) -> list[Finding]:
        """The worst slice of each distribution, where there is one."""
        base = self.hypotheses.base.name
        findings = []
        for f in found:
            where = f.distribution
            whole = f.quantity == "competence" and f.objective == base and f.group is None
            if not whole or f.value is None:
                continue
            searched = {
                key[2:]: counts
                for key, counts in self.sums.items()
                if key[:2] == (where, "search") and counts.sum() >= MIN_ITEMS
            }
            searched = {pair: c for pair, c in searched.items() if (where, "measure", *pair) in self.sums}
            if not searched:
                continue
            worst = min(searched, key=lambda pair: float(searched[pair][1] / searched[pair].sum()))
            counts = self.sums[(where, "measure", *worst)]
            slice_ = Competence(Mean(tuple(counts.tolist())), f.detail["chance"], f.detail["ceiling"])
            findings.append(
                self.finding(
                    stamp,
                    where,
                    "slice",
                    "competence",
                    value=slice_.value,
                    limits=limits(slice_, LEVEL),
                    n=slice_.n,
                    objective=base,
                    group="+".join(worst),
                    detail=slice_.record(),
                )
            )
        return findings
