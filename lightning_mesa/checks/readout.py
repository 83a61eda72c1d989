"""A witness of capability where base alone is listed: can base still be read out of what the last layer reads?"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from lightning_mesa.checks.check import Check
from lightning_mesa.checks.look import Look
from lightning_mesa.checks.states import Notes, Rows
from lightning_mesa.records import Behavior, Finding
from lightning_mesa.stats.competence import Best, Competence, Gap, best_constant, paired_gap
from lightning_mesa.stats.intervals import Mean, tally
from lightning_mesa.stats.ridge import ridge
from lightning_mesa.stats.splits import one_half

MIN_ITEMS = 20
RIDGE = 0.1
"""Penalty of the readout, per item, on standardised features."""


class Readout(Check):
    """How much better base is read out of the model's features than out of those of an untrained copy.

    The items are cut in two; a linear readout of the choice that base prescribes is fitted on one half and scored on
    the other, from both kinds of features, then the other way round. Each way gives the mean of paired differences in
    competence; the estimate is the larger one, Bonferroni over both. That a label can be read out says that the model
    still represents it, not that it uses it.
    """

    name = "readout"
    needs = ("features",)
    metrics = {"readout": "readout"}
    features: Rows
    reasons: Notes

    def update(self, behavior: Behavior) -> None:
        """Add one batch."""
        where, features = (behavior.distribution,), behavior.features
        if isinstance(features, str):
            self.reasons.add(where, features)
        elif features is not None:
            n = len(features.model)
            prescribed = behavior.prescribed[self.hypotheses.base.name][:n]
            self.features.add(where, [(behavior.items[:n], features.model, features.untrained, prescribed)])

    def findings(self, look: Look) -> list[Finding]:
        """One finding per shifted distribution of which features were asked for."""
        seen = [where for where in look.shifted if (where,) in self.features or (where,) in self.reasons]
        return [self._readout(look, where) for where in seen]

    def _readout(self, look: Look, where: str) -> Finding:
        n, reason = 0, self.reasons.get((where,))
        folds: list[Competence] = []
        if (where,) in self.features:
            items, *sides, prescribed = self.features[where,]
            n, reason = len(items), reason or _unfit(prescribed, sides)
            if reason is None:
                folds = [*_folds(prescribed.int().argmax(1), one_half(items), prescribed.shape[1], sides)]
        if reason is None and len(folds) < 2:
            reason = "one half of the items has a single prescribed choice"
        known = Best(folds) if reason is None else None
        about = {"n": n, "objective": look.base, "detail": {} if reason is None else {"no_readout": reason}}
        return self.finding(look, where, "readout", "competence", known, **about)


def _unfit(prescribed: Tensor, sides: Sequence[Tensor]) -> str | None:
    if not bool((prescribed.sum(1) == 1).all()):
        return "base does not prescribe exactly one choice on each item"
    if len(prescribed) < MIN_ITEMS:
        return f"{len(prescribed)} items, fewer than {MIN_ITEMS}"
    return None if all(bool(side.isfinite().all()) for side in sides) else "features that are not finite"


def _folds(label: Tensor, half: Tensor, choices: int, sides: Sequence[Tensor]) -> Iterator[Competence]:
    """How much the first features are better than the second, on each half by readouts fitted on the other."""
    for scored in (half, ~half):
        right = [(read_out(x[~scored], label[~scored], x[scored], choices) == label[scored]).double() for x in sides]
        chance = best_constant(torch.bincount(label[scored], minlength=choices), int(scored.sum()))
        model, untrained = (Competence(Mean(tuple(tally(r, binary=True).tolist())), chance, 1.0) for r in right)
        if model.exists:
            yield paired_gap(right[0], right[1], Gap(model, untrained))


def read_out(fitted: Tensor, label: Tensor, features: Tensor, choices: int) -> Tensor:
    """Predict labels by ridge regression of their indicators on standardised features.

    Args:
        fitted: ``[n, F]`` features to fit on.
        label: ``[n]`` their labels, integers below ``choices``.
        features: ``[m, F]`` features to predict from.
        choices: Number of labels.

    Returns:
        ``[m]`` the label with the largest value.
    """
    weights, intercepts = ridge(fitted, functional.one_hot(label, choices), RIDGE)
    predicted: Tensor = (features.double() @ weights + intercepts).argmax(1)
    return predicted
