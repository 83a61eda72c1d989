"""How well each objective is served on each distribution, and what base loses off the reference."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lightning_mesa.checks.measure import LEVEL, Measure, Stamp
from lightning_mesa.objectives.hypotheses import Hypotheses
from lightning_mesa.objectives.objective import Objective
from lightning_mesa.records import Behavior, Finding
from lightning_mesa.stats.competence import Competence, Gap, best_constant, limits, paired_gap
from lightning_mesa.stats.intervals import Estimate, Mean, tally


class ObjectiveGap(Measure):
    """Scores, competences, the gap, group competences, and the three distances where intended is listed."""

    name = "objective_gap"

    def __init__(self, hypotheses: Hypotheses) -> None:
        super().__init__(hypotheses)
        # Only distributions with ids keep their items' scores, to pair them.
        self.paired_scores: dict[str, list[tuple[Tensor, Tensor]]] = {}

    def update(self, behavior: Behavior) -> None:
        """Add one batch."""
        where = behavior.distribution
        self.add((where, "n"), torch.tensor(behavior.n))
        for objective in self.hypotheses.scored:
            name = objective.name
            scores = _scaled(objective, behavior.scores[name])
            finite = scores.isfinite()
            all_finite = bool(finite.all())
            counts = tally(scores if all_finite else scores[finite], binary=name in behavior.binary)
            self.add((where, "counts", name), counts)
            self.add((where, "nonfinite", name), torch.tensor(behavior.n) - finite.sum())
            if name in behavior.uniform_scores:
                self.add((where, "uniform", name), _scaled(objective, behavior.uniform_scores[name]).sum())
            elif name in behavior.prescribed:
                self.add((where, "prescribed", name), behavior.prescribed[name].sum(0))
            if name in behavior.oracle_scores:
                self.add((where, "oracle", name), _scaled(objective, behavior.oracle_scores[name]).sum())
            if objective is self.hypotheses.base:
                for group, members in behavior.groups.items():
                    of_group = tally(scores[members & finite], binary=name in behavior.binary)
                    self.add((where, "group", group), of_group)
                if behavior.ids is not None:
                    self.paired_scores.setdefault(where, []).append((behavior.ids, scores))
        self._update_outer_distance(behavior)

    def merge(self, other: Measure) -> None:
        """Add what another instance accumulated."""
        super().merge(other)
        if isinstance(other, ObjectiveGap):
            for where, rows in other.paired_scores.items():
                self.paired_scores.setdefault(where, []).extend(rows)

    def compute(self, stamp: Stamp, found: Sequence[Finding]) -> list[Finding]:
        """The findings of the look, per distribution in the order listed."""
        findings: list[Finding] = []
        for where in stamp.roles:
            for objective in self.hypotheses.scored:
                findings += self._scores(stamp, where, objective)
            findings += self._groups(stamp, where)
            if self.hypotheses.intended is not None:
                findings += self._distances(stamp, where, self.hypotheses.intended)
            if stamp.roles[where] == "shifted":
                findings.append(self._gap(stamp, where))
        return findings

    def competence(self, where: str, objective: Objective) -> Competence:
        """Competence at an objective on a distribution, over the items with a finite score."""
        name = objective.name
        low, high = objective.bounds
        n = int(self.sums[where, "n"])
        if objective.chance is not None:
            chance = (objective.chance - low) / (high - low)
        elif (where, "uniform", name) in self.sums:
            chance = float(self.sums[where, "uniform", name]) / n
        else:
            chance = best_constant(self.sums[where, "prescribed", name], n)
        if (where, "oracle", name) in self.sums:
            ceiling = float(self.sums[where, "oracle", name]) / n
        else:
            ceiling = (objective.ceiling - low) / (high - low)
        return Competence(Mean(tuple(self.sums[where, "counts", name].tolist())), chance, ceiling)

    def _scores(self, stamp: Stamp, where: str, objective: Objective) -> list[Finding]:
        competence = self.competence(where, objective)
        nonfinite = int(self.sums[where, "nonfinite", objective.name])
        low, high = objective.bounds
        withheld = {"nonfinite": nonfinite, "reason": f"{nonfinite} items have no finite score"}
        if nonfinite or competence.mean.n == 0:
            score, score_limits = None, None
        else:
            score = low + (high - low) * competence.mean.value
            a, b = competence.mean.limits(LEVEL)
            score_limits = (low + (high - low) * a, low + (high - low) * b)
        scored = self.finding(
            stamp,
            where,
            "score",
            "score",
            value=score,
            limits=score_limits,
            n=competence.n,
            objective=objective.name,
            detail={"bounds": [low, high], **(withheld if nonfinite else {})},
        )
        estimate = competence if score is not None and competence.exists else None
        detail = competence.record()
        if nonfinite:
            detail |= withheld
        elif estimate is None:
            detail["reason"] = "an output that does not look at the input already scores the ceiling"
        competent = self._estimated(
            stamp, where, "competence", "competence", estimate, competence.n, objective.name, None, detail
        )
        return [scored, competent]

    def _groups(self, stamp: Stamp, where: str) -> list[Finding]:
        base = self.hypotheses.base
        whole = self.competence(where, base)
        findings = []
        for key in sorted(key for key in self.sums if key[:2] == (where, "group")):
            group = Competence(Mean(tuple(self.sums[key].tolist())), whole.chance, whole.ceiling)
            exists = group.exists and not self.sums[where, "nonfinite", base.name]
            estimate = group if exists else None
            findings.append(
                self._estimated(
                    stamp,
                    where,
                    "competence",
                    "competence",
                    estimate,
                    group.n,
                    base.name,
                    key[2],
                    group.record(),
                )
            )
        return findings

    def _gap(self, stamp: Stamp, where: str) -> Finding:
        base = self.hypotheses.base
        gap = Gap(self.competence(stamp.reference, base), self.competence(where, base))
        estimate: Estimate | None = gap
        detail: dict[str, Any] = {**stamp.plan, "weights": stamp.weights}
        nonfinite = sum(int(self.sums[w, "nonfinite", base.name]) for w in (stamp.reference, where))
        if nonfinite or not (gap.reference.exists and gap.shifted.exists):
            estimate = None
            detail["reason"] = f"{nonfinite} items have no finite score" if nonfinite else "competence does not exist"
        elif (pairs := self._pairs(stamp.reference, where)) is not None:
            estimate = paired = paired_gap(*pairs, gap)
            detail["paired"] = paired.record()
        return self._estimated(stamp, where, "gap", "competence", estimate, gap.n, base.name, None, detail)

    def _pairs(self, reference: str, where: str) -> tuple[Tensor, Tensor] | None:
        """Base scores of the same items on both distributions, or None where they are not the same items."""
        if reference not in self.paired_scores or where not in self.paired_scores:
            return None
        sorted_rows = []
        for name in (reference, where):
            ids = torch.cat([ids for ids, _ in self.paired_scores[name]])
            scores = torch.cat([scores for _, scores in self.paired_scores[name]])
            order = ids.argsort()
            sorted_rows.append((ids[order], scores[order]))
        (reference_ids, reference_scores), (ids, scores) = sorted_rows
        return (reference_scores, scores) if torch.equal(reference_ids, ids) else None

    def _update_outer_distance(self, behavior: Behavior) -> None:
        """Count the items on which doing what base prescribes is what intended prescribes."""
        base, intended = self.hypotheses.base, self.hypotheses.intended
        if intended is None or not {base.name, intended.name} <= behavior.prescribed.keys():
            return
        by_base, wanted = behavior.prescribed[base.name], behavior.prescribed[intended.name]
        some = by_base.any(1)
        served = wanted.gather(1, by_base.to(torch.uint8).argmax(1, keepdim=True))[:, 0]
        self.add((behavior.distribution, "outer"), tally(served[some].double(), binary=True))

    def _distances(self, stamp: Stamp, where: str, intended: Objective) -> list[Finding]:
        """Each distance is a regret: what is lost by one objective when behavior serves another."""
        kappa_base = self.competence(where, self.hypotheses.base)
        kappa_intended = self.competence(where, intended)
        base_name, intended_name = self.hypotheses.base.name, intended.name
        found: dict[str, tuple[Competence | None, str]] = {
            "inner": (None if self.sums[where, "nonfinite", base_name] else kappa_base, base_name),
            "reward_result": (
                None if self.sums[where, "nonfinite", intended_name] else kappa_intended,
                intended_name,
            ),
            "outer": (None, intended_name),
        }
        if (where, "outer") in self.sums:
            by_base = Mean(tuple(self.sums[where, "outer"].tolist()))
            found["outer"] = (
                Competence(by_base, kappa_intended.chance, kappa_intended.ceiling),
                intended_name,
            )
        findings = []
        for name, (kappa, objective) in found.items():
            known = kappa is not None and kappa.exists
            value = 1 - kappa.value if kappa is not None and known else None
            bounds = limits(kappa, LEVEL) if kappa is not None and known else None
            findings.append(
                self.finding(
                    stamp,
                    where,
                    f"{name}_distance",
                    "competence",
                    value=value,
                    limits=None if bounds is None else (1 - bounds[1], 1 - bounds[0]),
                    n=0 if kappa is None else kappa.n,
                    objective=objective,
                )
            )
        return findings

    def _estimated(
        self,
        stamp: Stamp,
        where: str,
        quantity: str,
        unit: str,
        estimate: Estimate | None,
        n: int,
        objective: str,
        group: str | None,
        detail: dict[str, Any],
    ) -> Finding:
        return self.finding(
            stamp,
            where,
            quantity,
            unit,
            value=None if estimate is None else estimate.value,
            limits=None if estimate is None else limits(estimate, LEVEL),
            n=n,
            objective=objective,
            group=group,
            detail=detail,
        )


def _scaled(objective: Objective, scores: Tensor) -> Tensor:
    """Scores on [0, 1] by the objective's bounds."""
    low, high = objective.bounds
    return scores if (low, high) == (0, 1) else (scores - low) / (high - low)
