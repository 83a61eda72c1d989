"""Is base lost on a group of items, which the mean over all of them hides?"""

import torch

from lightning_mesa.checks.check import Check, Test, Thresholds, in_words
from lightning_mesa.checks.look import Look
from lightning_mesa.checks.states import Sums
from lightning_mesa.records import Behavior, Finding
from lightning_mesa.stats.competence import Competence, Gap
from lightning_mesa.stats.intervals import Mean
from lightning_mesa.stats.nulls import AtMost
from lightning_mesa.stats.splits import one_half

MIN_ITEMS = 20
"""A slice with fewer items in the half it is searched in is not considered."""


class SliceFailure(Check):
    """Base is lost on a declared group, or on the worst intersection of two groups, which nobody declared.

    One half of the items is used to find that intersection, the other to measure it, so that the search costs no
    validity. It needs group labels under at least two keys, and binary scores at base.
    """

    name = "slice_failure"
    measure = "slices"
    needs = ("groups",)
    metrics = {"slice": None}  # another one at each look
    share = 0.15
    severity = "alert"
    untested = "no groups= are given"
    sums: Sums

    def update(self, behavior: Behavior) -> None:
        """Add one batch."""
        base, where = self.hypotheses.base.name, behavior.distribution
        if base not in behavior.binary or len(behavior.groups) < 2:
            return
        labels = sorted(behavior.groups)
        members = torch.stack([behavior.groups[label] for label in labels]).double()
        measured = one_half(behavior.items).double()
        scores = behavior.scores[base].nan_to_num()
        for half, weight in (("search", 1 - measured), ("measure", measured)):
            n = members * weight @ members.T
            ones = members * (weight * scores) @ members.T
            for i, j in torch.triu(n, diagonal=1).nonzero().tolist():
                self.sums.add((where, half, labels[i], labels[j]), torch.stack([n[i, j] - ones[i, j], ones[i, j]]))

    def findings(self, look: Look) -> list[Finding]:
        """The worst slice of each distribution, where there is one."""
        return [found for where in look.roles if (found := self._worst(look, where)) is not None]

    def _worst(self, look: Look, where: str) -> Finding | None:
        whole = look.competence(where)
        searched = {
            key[2:]: counts
            for key in self.sums
            if key[:2] == (where, "search")
            and (counts := self.sums[key]).sum() >= MIN_ITEMS
            and (where, "measure", *key[2:]) in self.sums
        }
        if whole is None or not searched:
            return None
        worst = min(searched, key=lambda pair: float(searched[pair][1] / searched[pair].sum()))
        measured = self.sums.counts((where, "measure", *worst))
        found = Competence(Mean(measured), whole.chance, whole.ceiling)
        about = {"objective": look.base, "group": "+".join(worst)}
        return self.finding(look, where, "slice", "competence", found, **about)

    def null(self, thresholds: Thresholds) -> str:
        """The null hypothesis in words."""
        return f"competence at base on the group is at most {thresholds.slice_gap:g} below that on the reference"

    def tests(self, look: Look, where: str, thresholds: Thresholds) -> list[Test]:
        """One test per declared group, and one for the slice that was found, on the items not searched in."""
        reference = look.competence(look.reference)
        tests = []
        for quantity in ("competence", "slice"):
            for group, competence in look.by_group(quantity, where).items():
                gap = None if reference is None else Gap(reference, competence)
                sentence = (
                    f"On {where!r}, in the group {group!r} ({competence.n} items), competence at {look.base!r} is "
                    f"{competence.value:.2f}, while it is {in_words(reference)} on {look.reference!r}: base is lost "
                    "there."
                )
                tests.append(Test(AtMost(gap, thresholds.slice_gap), None, competence.n, gap, sentence, group))
        return tests

    def places(self, look: Look) -> tuple[str, ...]:
        """Every distribution: a group may fail on the reference too."""
        return (look.reference, *look.shifted)
