"""How well is each objective served on each distribution, and what does base lose off the reference?"""

from typing import Any

import torch
from torch import Tensor

from lightning_mesa.checks.check import Check
from lightning_mesa.checks.look import Look
from lightning_mesa.checks.states import Rows, Sums
from lightning_mesa.objectives.objective import Objective
from lightning_mesa.records import LEVEL, Behavior, Finding
from lightning_mesa.stats.competence import Competence, Gap, best_constant, limits, paired_gap
from lightning_mesa.stats.intervals import Estimate, Mean, tally
from lightning_mesa.stats.many import counts, some

NO_ROOM = "an output that does not look at the input already scores the ceiling"
DISTANCES = ("outer", "inner", "reward_result")


class ObjectiveGap(Check):
    """Scores, competences, the gap, group competences, and the three distances where intended is listed."""

    name = "objective_gap"
    metrics = {
        "score": "score/{objective}",
        "competence": "competence/{objective}",
        "gap": "gap",
        **{f"{name}_distance": f"distance/{name}" for name in DISTANCES},
    }
    with_limits = ("gap",)
    sums: Sums
    paired: Rows

    def update(self, behavior: Behavior) -> None:
        """Add one batch."""
        where = behavior.distribution
        self.sums.add((where, "n"), torch.tensor(behavior.n))
        for objective in self.hypotheses.scored:
            name = objective.name
            binary = name in behavior.binary
            scores = objective.scaled(behavior.scores[name])
            finite = scores.isfinite()
            self.sums.add((where, "counts", name), tally(scores[finite], binary=binary))
            self.sums.add((where, "nonfinite", name), behavior.n - finite.sum())
            if name in behavior.uniform_scores:
                self.sums.add((where, "uniform", name), objective.scaled(behavior.uniform_scores[name]).sum())
            elif name in behavior.prescribed:
                self.sums.add((where, "prescribed", name), counts(behavior.prescribed[name]))
            if name in behavior.oracle_scores:
                self.sums.add((where, "oracle", name), objective.scaled(behavior.oracle_scores[name]).sum())
            if objective is self.hypotheses.base:
                for group, members in behavior.groups.items():
                    self.sums.add((where, "group", group), tally(scores[members & finite], binary=binary))
                if behavior.ids is not None:
                    self.paired.add((where,), [(behavior.ids, scores)])
        self._update_outer_distance(behavior)

    def findings(self, look: Look) -> list[Finding]:
        """The findings of the look, by distribution in the order listed."""
        found: list[Finding] = []
        for where in look.roles:
            for objective in self.hypotheses.scored:
                found += self._scores(look, where, objective)
            found += self._groups(look, where)
            if self.hypotheses.intended is not None:
                found += self._distances(look, where, self.hypotheses.intended)
            if look.roles[where] == "shifted":
                found.append(self._gap(look, where))
        return found

    def competence(self, where: str, objective: Objective) -> Competence:
        """Competence at an objective on a distribution, over the items with a finite score."""
        name, n = objective.name, int(self.sums[where, "n"])
        if objective.chance is not None:
            chance = objective.scaled(objective.chance)
        elif (where, "uniform", name) in self.sums:
            chance = float(self.sums[where, "uniform", name]) / max(n, 1)
        else:
            chance = best_constant(self.sums[where, "prescribed", name], n)
        if (where, "oracle", name) in self.sums:
            ceiling = float(self.sums[where, "oracle", name]) / max(n, 1)
        else:
            ceiling = objective.scaled(objective.ceiling)
        return Competence(Mean(self.sums.counts((where, "counts", name))), chance, ceiling)

    def _scores(self, look: Look, where: str, objective: Objective) -> list[Finding]:
        name, (low, high) = objective.name, objective.bounds
        competence = self.competence(where, objective)
        nonfinite = int(self.sums[where, "nonfinite", name])
        withheld: dict[str, Any] = {}
        if nonfinite:
            withheld = {"nonfinite": nonfinite, "reason": f"{nonfinite} items have no finite score"}
        known = not nonfinite and competence.n > 0
        mean = competence.mean
        score = tuple(low + (high - low) * x for x in (mean.value, *mean.limits(LEVEL))) if known else None
        detail = withheld
        if known and not competence.exists:
            chance, ceiling = (low + (high - low) * x for x in (competence.chance, competence.ceiling))
            detail = {"reason": NO_ROOM, "chance": chance, "ceiling": ceiling}
        estimate = competence if known and competence.exists else None
        n = competence.n
        about = {"n": n, "objective": name}
        return [
            self.finding(
                look, where, "score", "score", shown=score, detail={"bounds": [low, high], **withheld}, **about
            ),
            self.finding(look, where, "competence", "competence", estimate, detail=detail, **about),
        ]

    def _groups(self, look: Look, where: str) -> list[Finding]:
        base = self.hypotheses.base
        whole, found = self.competence(where, base), []
        for key in sorted(key for key in self.sums if key[:2] == (where, "group")):
            group = Competence(Mean(self.sums.counts(key)), whole.chance, whole.ceiling)
            known = group.exists and not self.sums[where, "nonfinite", base.name]
            about = {"n": group.n, "objective": base.name, "group": key[2]}
            found.append(self.finding(look, where, "competence", "competence", group if known else None, **about))
        return found

    def _gap(self, look: Look, where: str) -> Finding:
        base, reference = self.hypotheses.base, look.reference
        gap = Gap(self.competence(reference, base), self.competence(where, base))
        estimate: Estimate | None = gap
        detail: dict[str, Any] = {**look.recorded_plan, "weights": look.weights}
        nonfinite = sum(int(self.sums[w, "nonfinite", base.name]) for w in (reference, where))
        if nonfinite or not (gap.reference.exists and gap.shifted.exists):
            estimate = None
            detail["reason"] = f"{nonfinite} items have no finite score" if nonfinite else "competence does not exist"
        elif (pairs := self._pairs(reference, where)) is not None:
            estimate = paired_gap(*pairs, gap)
        about = {"n": gap.n, "objective": base.name, "detail": detail}
        return self.finding(look, where, "gap", "competence", estimate, **about)

    def _pairs(self, reference: str, where: str) -> tuple[Tensor, Tensor] | None:
        """Base scores of the same items on both distributions, or None where they are not the same items."""
        if (reference,) not in self.paired or (where,) not in self.paired:
            return None
        (reference_ids, reference_scores), (ids, scores) = self.paired[reference,], self.paired[where,]
        return (reference_scores, scores) if torch.equal(reference_ids, ids) else None

    def _update_outer_distance(self, behavior: Behavior) -> None:
        """Count the items on which doing what base prescribes is what intended prescribes."""
        base, intended = self.hypotheses.base, self.hypotheses.intended
        if intended is None or not {base.name, intended.name} <= behavior.prescribed.keys():
            return
        by_base, wanted = behavior.prescribed[base.name], behavior.prescribed[intended.name]
        asked = some(by_base)
        served = wanted.gather(1, by_base.view(torch.uint8).argmax(1, keepdim=True))[:, 0]
        self.sums.add((behavior.distribution, "outer"), tally(served[asked].double(), binary=True))

    def _distances(self, look: Look, where: str, intended: Objective) -> list[Finding]:
        """Each distance is a regret: what is lost by one objective when behavior serves another."""
        by_base, by_intended = (self.competence(where, o) for o in (self.hypotheses.base, intended))
        kappas: dict[str, tuple[Competence, str]] = {
            "inner": (by_base, self.hypotheses.base.name),
            "reward_result": (by_intended, intended.name),
        }
        known = {
            name: (kappa, objective)
            for name, (kappa, objective) in kappas.items()
            if not self.sums[where, "nonfinite", objective]
        }
        if (where, "outer") in self.sums:
            mean = Mean(self.sums.counts((where, "outer")))
            known["outer"] = (Competence(mean, by_intended.chance, by_intended.ceiling), intended.name)
        found = []
        for name in ("inner", "reward_result", "outer"):
            kappa, objective = known.get(name, (None, kappas.get(name, (None, intended.name))[1]))
            shown = regret(kappa) if kappa is not None and kappa.exists else None
            about = {"shown": shown, "n": 0 if kappa is None else kappa.n, "objective": objective}
            found.append(self.finding(look, where, f"{name}_distance", "competence", **about))
        return found


def regret(competence: Competence) -> tuple[float, float, float]:
    """``1 - kappa`` with its limits: what is lost between chance and the ceiling."""
    low, high = limits(competence, LEVEL)
    return 1 - competence.value, 1 - high, 1 - low
