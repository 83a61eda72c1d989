"""Findings from mean scores alone, as other tools log them: no items, so no conflicts, groups or pairs."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from lightning_mesa.checks.measure import LEVEL, Stamp
from lightning_mesa.records import Finding
from lightning_mesa.stats.competence import Best, Competence, Gap, limits
from lightning_mesa.stats.intervals import Estimate

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


def findings_of_means(scores: Sequence[MeanScore], stamp: Stamp, measure: str) -> list[Finding]:
    """What a monitor would have found, but for what takes more than means.

    Args:
        scores: One of each objective on each distribution.
        stamp: Where and when.
        measure: Name to record.
    """
    by_place = {(score.distribution, score.objective): score for score in scores}
    base = next(score.objective for score in scores if score.kind == "base")
    reference = by_place[stamp.reference, base]
    findings = []
    for where, role in stamp.roles.items():
        here = [score for score in scores if score.distribution == where]
        for score in here:
            low, high = score.bounds
            mean = score.competence.mean
            value, lower, upper = (low + (high - low) * x for x in (mean.value, *mean.limits(LEVEL)))
            detail: dict[str, Any] = {"bounds": [low, high]}
            known = (value, lower, upper) if score.known else None
            findings.append(_finding(stamp, measure, score, "score", known, detail))
            findings.append(
                _estimated(stamp, measure, score, "competence", score.competence, score.competence.record())
            )
        given = [score for score in here if score.kind == "capability"] or here
        best = [score for score in given if score.known]
        detail = {"rule": "best", "objectives": [score.objective for score in best]}
        capability = Best([score.competence for score in best]) if best else None
        findings.append(_estimated(stamp, measure, given[0], "capability", capability, detail, about=None))
        if role == "shifted":
            gap = Gap(reference.competence, by_place[where, base].competence)
            both = reference.known and by_place[where, base].known
            detail = {} if stamp.look is None else stamp.plan
            findings.append(_estimated(stamp, measure, by_place[where, base], "gap", gap if both else None, detail))
    return findings


def _estimated(
    stamp: Stamp,
    measure: str,
    score: MeanScore,
    quantity: str,
    estimate: Estimate | None,
    detail: dict[str, Any],
    about: str | None = "",
) -> Finding:
    exists = estimate is not None and (score.known or quantity != "competence")
    known = (estimate.value, *limits(estimate, LEVEL)) if estimate is not None and exists else None
    return _finding(stamp, measure, score, quantity, known, detail, about)


def _finding(
    stamp: Stamp,
    measure: str,
    score: MeanScore,
    quantity: str,
    known: tuple[float, float, float] | None,
    detail: dict[str, Any],
    about: str | None = "",
) -> Finding:
    n = score.competence.n
    value, low, high = (None, None, None) if known is None else known
    if known is None:
        detail |= {"nonfinite": n, "reason": "the mean that was logged is no number"}
    return Finding(
        step=stamp.step,
        epoch=stamp.epoch,
        distribution=score.distribution,
        role=stamp.roles[score.distribution],
        measure=measure,
        quantity=quantity,
        objective=score.objective if about == "" else about,
        group=None,
        value=value,
        low=low,
        high=high,
        level=LEVEL,
        n=n,
        unit="score" if quantity == "score" else "competence",
        data_regime=stamp.data_regimes.get(score.distribution, "reused"),
        detail=detail,
    )
