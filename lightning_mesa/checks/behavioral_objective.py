"""The objective that the model behaves as if it pursued, among the listed ones, and how far it is from base."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from scipy.special import stdtrit
from torch import Tensor

from lightning_mesa.checks.check import Check
from lightning_mesa.checks.look import Look
from lightning_mesa.checks.objective_gap import regret
from lightning_mesa.checks.states import Notes, Rows
from lightning_mesa.irl import (
    Average,
    ObjectiveFit,
    explained_share,
    fit_conditional_logit,
    fit_successor_features,
    goal_directedness_of,
    gram,
    one_step_features,
    own_lights_regret,
    weight_distance,
)
from lightning_mesa.irl.alike import Alike, kinds
from lightning_mesa.irl.averages import mean
from lightning_mesa.records import LEVEL, Behavior, Finding

MOST_ITEMS = 4_000
"""The objective is estimated from this many items of a distribution at most, the first ones."""

DIRECTED = ("goal_directedness", "negentropy", "explained")

PURSUES_NOTHING = 1e-3
"""Weights that make a difference of less than this, in nats between two choices, are no objective."""


@dataclass(frozen=True)
class Estimated:
    """What one distribution tells.

    Attributes:
        fit: Of the features of base and the proxies, in that order; in environments also of the steps that are taken.
        gram: ``[K, K]`` inner products of the features, canonicalised.
        goal: How goal-directed the choices are, how decided, and how much of that the objectives explain.
        n: Number of items, or decisions in environments.
        own_lights: Regret by the model's own lights of doing what base prescribes; of items only.
    """

    fit: ObjectiveFit
    gram: Tensor
    goal: tuple[Average, Average, Average]
    n: int
    own_lights: Average | None


class BehavioralObjective(Check):
    """Weights of base and the proxies by inverse reinforcement learning, with limits, and what follows from them.

    The model's choice probabilities are compared with those of a soft-optimal chooser for a weighted sum of the listed
    objectives; of items by what each prescribes, in environments by what follows an action. Beside the weights there
    are three distances to base: the regret, the reward distance, and for each proxy its weight less that of base. Where
    the data cannot tell the weights, there is a reason and no number.
    """

    name = "behavioral_objective"
    metrics = {
        "regret": "regret",
        "behavioral": "behavioral/{objective}",
        "weight_gap": "weight_gap/{objective}",
        **{quantity: quantity for quantity in ("reward_distance", *DIRECTED, "own_lights_regret")},
    }
    with_limits = ("behavioral", "weight_gap")
    choices: Rows
    decisions: Rows
    reasons: Notes

    @property
    def names(self) -> list[str]:
        """Base and the proxies."""
        return [objective.name for objective in (self.hypotheses.base, *self.hypotheses.proxies)]

    def update(self, behavior: Behavior) -> None:
        """Add one batch."""
        where, log_p, seen = (behavior.distribution,), behavior.log_probabilities, behavior.decisions
        if seen is not None:
            pairs = (seen.features.movedim(1, 0), seen.offsets.movedim(1, 0))
            self.decisions.add(where, [(seen.numbers, *pairs, seen.log_probabilities, seen.negentropy)])
            if seen.reason is not None:
                self.reasons.add(where, seen.reason)
        if log_p is None or not set(self.names) <= behavior.prescribed.keys():
            return
        kept = behavior.items < MOST_ITEMS
        some = slice(None) if kept.all() else kept  # a mask makes a copy
        if kept.any():
            prescribed = [behavior.prescribed[name][some] for name in self.names]
            self.choices.add(where, [*kinds(behavior.items[some], log_p[some], prescribed)])

    def findings(self, look: Look) -> list[Finding]:
        """The findings of the look, by distribution in the order listed."""
        found: list[Finding] = []
        for where in look.roles:
            if (base := look.finding_of("competence", where, look.base)) is not None:
                competence = look.competence(where)
                shown = None if competence is None else regret(competence)
                about = {"shown": shown, "n": base.n, "objective": look.base}
                found.append(self.finding(look, where, "regret", "competence", **about))
            if (where,) in self.choices:
                alike = Alike.of(*self.choices[where,][1:])
                found += self._findings(look, where, _of_items(self.names, alike), len(alike.counts))
            elif (where,) in self.decisions:
                reason = self.reasons.get((where,))
                of_decisions = reason or _of_decisions(self.names, *self.decisions[where,])
                found += self._findings(look, where, of_decisions, len(self.decisions[where,][0]))
        return found

    def _findings(self, look: Look, where: str, known: Estimated | str, n: int) -> list[Finding]:
        """What is known, or why nothing is."""

        def found(
            quantity: str, unit: str, value: Average | None, objective: str | None, why: str, **detail: Any
        ) -> Finding:
            shown = None
            if value is not None and all(map(math.isfinite, vars(value).values())):
                shown = (value.value, value.low, value.high)
            detail |= {"unknown": why} if shown is None else {}
            return self.finding(look, where, quantity, unit, shown=shown, n=n, objective=objective, detail=detail)

        base, *proxies = self.names
        if isinstance(known, str):
            return [found("behavioral", "nats", None, name, known) for name in self.names]
        fit, sizes = known.fit, known.gram.diagonal().clamp(min=0).sqrt()
        contrasts = torch.eye(len(fit.names), dtype=torch.float64)[: len(self.names)]
        unidentified = "; ".join(fit.unidentified) or "not identified"
        findings = [
            found("behavioral", "nats", _average(fit, row), name, unidentified)
            for name, row in zip(self.names, contrasts, strict=True)
        ]
        for name, row, size in zip(proxies, contrasts[1:], sizes[1:], strict=True):
            more = _average(fit, size * row - sizes[0] * contrasts[0]) if sizes[0] * size > 0 else None
            effective = fit.effective(row - contrasts[0])
            findings.append(found("weight_gap", "nats", more, name, unidentified, effective=effective))
        distance, why = _reward_distance(known, unidentified)
        findings.append(found("reward_distance", "share", distance, base, why))
        findings += [
            found(quantity, "share", value, None, "the choices are not decided")
            for quantity, value in zip(DIRECTED, known.goal, strict=True)
        ]
        if known.own_lights is not None:
            findings.append(found("own_lights_regret", "nats", known.own_lights, base, "base prescribes nothing"))
        return findings


def _average(fit: ObjectiveFit, contrast: Tensor) -> Average:
    return Average(fit.estimate(contrast), *fit.interval(contrast, LEVEL))


def _of_items(names: Sequence[str], alike: Alike) -> Estimated | str:
    """The estimate, or why there is none."""
    x, p, counts, log_p = alike.features, alike.probabilities, alike.counts, alike.log_p
    unknown = int(p.isnan().any(1).sum())
    if unknown:
        return f"{unknown} items have no finite outputs"
    fit = fit_conditional_logit(x, p, counts=counts, names=names)
    goal = goal_directedness_of(fit, x, p, counts=counts, log_p=log_p)
    own = own_lights_regret(p, (x[..., 0] > 0) & (counts > 0), log_p=log_p)
    directed = (goal.value, goal.negentropy, goal.explained)
    about = one_step_features(x, counts) * (counts * counts.shape[1] / alike.choices).sqrt()[..., None]
    return Estimated(fit, gram(about), directed, len(counts), own)


def _of_decisions(
    names: Sequence[str], numbers: Tensor, features: Tensor, offsets: Tensor, log_p: Tensor, decided: Tensor
) -> Estimated | str:
    """The same from pairs of actions at decisions, and what follows each of them."""
    features, offsets, n = features.movedim(0, 1), offsets.movedim(0, 1), len(numbers)
    if n < 2:
        return f"{n} decisions are too few"
    if not all(bool(x.isfinite().all()) for x in (features, offsets, log_p)):
        return "probabilities of 0, or features that are not finite"
    fit = fit_successor_features(features, offsets, log_p, names=[*names, "a step"])
    goals = fit_successor_features(features[..., :-1], offsets, log_p, names=names)
    if goals.basis.shape[1] == fit.basis.shape[1]:
        # Where every episode ends at a goal, a step's cost is a shaping of what goals are worth, and counts as that.
        fit, features = goals, features[..., :-1]
    level = (1 + LEVEL) / 2  # for two at once
    explained = explained_share(fit, features, offsets, log_p, level=level)
    negentropy = mean(decided, level=level).clamped(0, 1)
    directed = negentropy if math.isnan(explained.value) else _times(explained, negentropy)
    about = features - features.mean(2, keepdim=True)
    inner = torch.einsum("nak,nal->kl", about[0], about[1])[: len(names), : len(names)] / (2 * n)
    return Estimated(fit, (inner + inner.T) / 2, (directed, negentropy, explained), n, None)


def _times(first: Average, second: Average) -> Average:
    return Average(first.value * second.value, first.low * second.low, first.high * second.high)


def _reward_distance(known: Estimated, unidentified: str) -> tuple[Average | None, str]:
    """Distance of the recovered reward to base, with limits by the delta method, or why there is none."""
    inner, count = known.gram, len(known.gram)
    rows = torch.eye(len(known.fit.names), dtype=torch.float64)[:count]
    if known.fit.covariance is None or not all(map(known.fit.identifies, rows)):
        return None, unidentified
    w, covariance = known.fit.solution[:count], known.fit.covariance[:count, :count]
    base = rows[0, :count]
    size, base_size = (math.sqrt(max(0.0, float(v @ inner @ v))) for v in (w, base))
    distance = weight_distance(inner, w, base)
    reach = float(stdtrit(max(1, known.n - 1), (1 + LEVEL) / 2))
    of_size = inner @ w / size if size > 0 else w
    spread = math.sqrt(max(0.0, float(of_size @ covariance @ of_size)))
    if distance is None or size * base_size == 0 or size - reach * spread < PURSUES_NOTHING:
        return None, "no objective: the weights are not told from none at all"
    cosine = float(w @ inner @ base) / (size * base_size)
    slope = (inner @ base / base_size - cosine * of_size) / size
    error = reach * math.sqrt(max(0.0, float(slope @ covariance @ slope)))
    low, high = (math.sqrt((1 - min(1.0, max(-1.0, c))) / 2) for c in (cosine + error, cosine - error))
    return Average(distance, low, high), ""
