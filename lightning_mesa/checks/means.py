"""Findings from mean scores alone, as other tools log them: no items, so no conflicts, groups or pairs."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from lightning_mesa.checks.look import Look
from lightning_mesa.records import LEVEL, Finding
from lightning_mesa.stats.competence import Best, Competence, Gap

Kind = Literal["base", "proxy", "intended", "capability"]


@dataclass(frozen=True)
class MeanScore:
    """One objective's mean score on one distribution.

    Attributes:
        distribution: Name of the distribution.
        objective: Name of the objective.
        kind: What it is to the run.
        bounds: Smallest and largest possible score.
        competence: Competence at it, by the mean.
        known: Whether the mean is a number; else the findings have no value and say so.
    """

    distribution: str
    objective: str
    kind: Kind
    bounds: tuple[float, float]
    competence: Competence
    known: bool = True


def findings_of_means(scores: Sequence[MeanScore], look: Look, measure: str) -> list[Finding]:
    """What a monitor would have found, but for what takes more than means.

    Args:
        scores: One of each objective on each distribution.
        look: Where and when.
        measure: Name to record.
    """
    by_place = {(score.distribution, score.objective): score for score in scores}
    reference = by_place[look.reference, look.base]
    findings = []
    for where, role in look.roles.items():
        here = [score for score in scores if score.distribution == where]
        n, found = here[0].competence.n, partial(look.finding, measure, where)
        for score in here:
            (low, high), mean = score.bounds, score.competence.mean
            value, lower, upper = (low + (high - low) * x for x in (mean.value, *mean.limits(LEVEL)))
            shown = (value, lower, upper) if score.known else None
            about: dict[str, Any] = {"n": n, "objective": score.objective}
            lacking = {} if score.known else _no_number(n)
            findings.append(found("score", "score", shown=shown, detail={"bounds": [low, high], **lacking}, **about))
            competence = score.competence if score.known else None
            findings.append(found("competence", "competence", competence, detail=lacking, **about))
        given = [score for score in here if score.kind == "capability"] or here
        known = [score.competence for score in given if score.known]
        best, lacking = (Best(known), {}) if known else (None, _no_number(n))
        findings.append(found("capability", "competence", best, n=n, detail=lacking))
        if role == "shifted":
            shifted = by_place[where, look.base]
            both = reference.known and shifted.known
            gap, lacking = (Gap(reference.competence, shifted.competence), {}) if both else (None, _no_number(n))
            detail = {**look.recorded_plan, **lacking}
            findings.append(found("gap", "competence", gap, n=n, objective=look.base, detail=detail))
    return findings


def _no_number(n: int) -> dict[str, Any]:
    return {"nonfinite": n, "reason": "the mean that was logged is no number"}
