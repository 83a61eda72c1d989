"""Does a model that learns in context answer as a known solver does?"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from lightning_mesa.errors import ConfigurationError, shown
from lightning_mesa.probes.controls import DRAWS, numbered, shape_of, swaps
from lightning_mesa.probes.probe import ENOUGH, Given, Lazy, ModelUnderProbe, Outputs, Probe, of_limits, without
from lightning_mesa.probes.solvers import Regressions, explained, explained_with_limits, match
from lightning_mesa.records import LEVEL, ProbeResult
from lightning_mesa.stats.splits import one_half

BAR = 0.98
"""R2 of a solver to a model that answers as it does, by the lower limit."""

MARGIN = 0.02
"""The solver has to be nearer by this than whatever solves nothing."""

FAR_BAR = 0.95
"""R2 of the same solver, nothing fitted again, out of distribution."""

TASK = 0.5
"""Normalised squared error of a model that does its task at all."""

STEPS = (1, 2, 3, 4)
"""Numbers of steps of gradient descent that are tried."""

_CONSTANT = 1e-6


@dataclass(frozen=True)
class Problems:
    """Regression problems that a model has to solve in context.

    Attributes:
        batch: What the model takes, as from the monitor's distributions.
        inputs: ``[n, k, d]`` what the context shows.
        targets: ``[n, k]`` with their targets.
        queries: ``[n, d]`` what is asked.
        answers: ``[n]`` what is right.
        groups: ``[n]`` int64, problems of one origin, such as queries in one context, have the same number; None where
            each is its own.
    """

    batch: Any
    inputs: Tensor
    targets: Tensor
    queries: Tensor
    answers: Tensor
    groups: Tensor | None = None

    @property
    def seen(self) -> Regressions:
        """What the solvers see, without what is right."""
        inputs, targets, queries = (x.detach().double().cpu() for x in (self.inputs, self.targets, self.queries))
        return Regressions(inputs, targets, queries)


class SolverMatch(Probe):
    """Compare a model's answers with those of gradient descent, GD++, ridge and least squares.

    What is free in a solver (rate, curvature, penalty; see :mod:`~lightning_mesa.probes.solvers`) is fitted on one half
    of the problems *to the model's answers*, not to the right ones, and so is the choice of the best solver. The value
    is its R2 to the model's answers on the other half, ``1 - sum (p - s)^2 / sum (p - mean p)^2``, with limits
    over groups. The bar alone is not enough: the solver has to be nearer by a margin than nearest neighbours,
    a kernel average, the mean of the targets and zero; the same solver has to match out of distribution; and the model
    has to do its task at all, ``mean (p - a)^2 / var a < 0.5``. Cosine is in ``detail`` and never judged: it is high in
    networks that have learned nothing.

    Null: squared correlation of the solver's answers with those that the model gives to other problems, which no R2
    exceeds. Two forward passes at each look, over problems and far problems, and one of an untrained copy.

    What it cannot see: a solver that is not in the list, such as one with momentum or of a nonlinear model; how the
    answers are computed, as two ways to the same answers are one to it; which objective is descended other than least
    squares.

    Args:
        problems: Problems as in training, about 200 or more; or a function without arguments that makes them when
            training starts, or its import path.
        far: The same out of distribution: inputs or targets of another scale or shape.
        steps: Numbers of steps of gradient descent to be tried.
        outputs: ``(outputs, batch) -> [n]`` or ``[n, 1]``, where the monitor's own give something else.
        bar: The lower limit has to reach this.
        seed: Of the null.
    """

    name = "solver_match"
    rung = 4

    problems = Lazy[Problems]()
    far = Lazy[Problems]()

    def __init__(
        self,
        problems: Given[Problems],
        far: Given[Problems],
        *,
        steps: Sequence[int] = STEPS,
        outputs: Outputs | None = None,
        bar: float = BAR,
        seed: int = 0,
    ) -> None:
        super().__init__(outputs=outputs, bar=bar, seed=seed)
        self.problems = problems
        self.far = far
        self.steps = tuple(steps)

    def check(self, model: ModelUnderProbe) -> str:
        """Refuse problems that do not fit together.

        Raises:
            ConfigurationError: If shapes differ, a number is not finite, or steps are none or not positive.
        """
        if not self.steps or min(self.steps) < 1:
            raise ConfigurationError(f"SolverMatch: steps is {shown(self.steps)}: list numbers from 1 on.")
        for what, problems in (("problems", self.problems), ("far", self.far)):
            self._check(problems, what)
        if self.problems.inputs.shape[2] != self.far.inputs.shape[2]:
            raise ConfigurationError(
                f"SolverMatch: inputs of problems have {self.problems.inputs.shape[2]} components, those of far "
                f"{self.far.inputs.shape[2]}; a solver fitted on the ones cannot be used on the others."
            )
        return f"2 forward passes, over {len(self.problems.answers)} problems and {len(self.far.answers)} far ones"

    def _check(self, problems: Problems, what: str) -> None:
        of = f"SolverMatch, {what}"
        if problems.inputs.ndim != 3 or 0 in problems.inputs.shape:
            raise ConfigurationError(
                f"{of}: inputs is {list(problems.inputs.shape)}; it must be [n, k, d], none of them 0."
            )
        n, k, d = problems.inputs.shape
        shapes = {
            "targets": (problems.targets, [n, k]),
            "queries": (problems.queries, [n, d]),
            "answers": (problems.answers, [n]),
            "groups": (problems.groups, [n]),
        }
        self.check_shapes(f", {what} with inputs {[n, k, d]}", **shapes)
        for name, (tensor, _) in shapes.items():
            if tensor is not None and not tensor.isfinite().all():
                raise ConfigurationError(f"{of}: {name} has numbers that are not finite.")
        if not problems.inputs.isfinite().all() or not problems.inputs.any():
            raise ConfigurationError(f"{of}: inputs has numbers that are not finite, or is all zero.")
        if not bool((problems.answers != problems.answers[0]).any()):
            raise ConfigurationError(f"{of}: answers are all alike; then nothing is to be told from the context.")

    def run(self, model: ModelUnderProbe) -> list[ProbeResult]:
        """One result, of the whole model."""
        problems, of_problems = self.problems, self.problems.seen
        answers = _answers(model, problems, "problems")
        groups = numbered(problems.groups, len(answers))
        fit = one_half(groups)
        n, fitted_on = (len(torch.unique(groups[half])) for half in (~fit, fit))
        if min(n, fitted_on) < 2:
            reason = f"{fitted_on} groups of problems to fit solvers on, {n} to judge them on; {ENOUGH} are needed"
            return [without("underpowered", reason, n=n, bar=self.bar)]
        if (undefined := _undefined(answers, fit)) is not None:
            return [without("not_applicable", undefined, n=n, bar=self.bar)]
        found = match(of_problems, answers, fit, self.steps)
        untrained = model.in_untrained(self, lambda copy: self._best(copy, fit))
        model_says, solver_says = answers[~fit], found.answers(of_problems)[~fit]
        judged = numbered(groups[~fit], n)
        value = explained_with_limits(model_says, solver_says, judged, LEVEL)
        null = [_correlated(solver_says, model_says[order]) for order in swaps(judged, DRAWS, self.seed)]
        right = problems.answers.detach().double().cpu()
        task_error = float((model_says - right[~fit]).square().mean() / right.var(correction=0))
        r2_far = explained(_answers(model, self.far, "far"), found.answers(self.far.seen))
        margin = value[0] - found.blank
        detail = {
            "solver": found.solver.name,
            "fitted": dict(zip(found.solver.free, found.values, strict=True)),
            "r2": dict(found.r2),
            "margin": margin,
            "r2_far": r2_far,
            "task_error": task_error,
            "cosine": float(torch.cosine_similarity(model_says, solver_says, dim=0)),
            "untrained": untrained,
        }
        result = of_limits(value, null, n, self.bar, untrained, detail=detail)
        lacking = _lacking(margin, r2_far, task_error)
        if result.status != "ok" or not lacking:
            return [result]
        return [replace(result, qualified=False, reason="; ".join(lacking))]

    def _best(self, model: ModelUnderProbe, fit: Tensor) -> float | None:
        """R2 of the nearest solver, None where it is not defined."""
        answers = _answers(model, self.problems, "problems")
        if _undefined(answers, fit) is not None:
            return None
        found = match(self.problems.seen, answers, fit, self.steps)
        return found.r2[found.solver.name]


def _answers(model: ModelUnderProbe, problems: Problems, what: str) -> Tensor:
    """``[n]`` float64 on the CPU, what the model answers."""
    outputs = model.run(problems.batch)
    n = len(problems.answers)
    if not isinstance(outputs, Tensor) or list(outputs.shape) not in ([n], [n, 1]):
        raise ConfigurationError(
            f"SolverMatch, {what}: the model gives {shape_of(outputs)} for {n} problems; it must give [{n}] or "
            f"[{n}, 1], one answer each. outputs= says how to take them out of what the model returns."
        )
    return outputs.detach().double().cpu().reshape(n)


def _undefined(answers: Tensor, fit: Tensor) -> str | None:
    """Why no R2 to these answers is defined."""
    if not answers.isfinite().all():
        return f"{int((~answers.isfinite()).sum())} of {len(answers)} answers are not finite"
    for half in (answers[fit], answers[~fit]):
        if float(half.std(correction=0)) <= _CONSTANT * float(half.abs().max()):
            return "the answers are all alike, whatever the problem: R2 to them is not defined"
    return None


def _correlated(a: Tensor, b: Tensor) -> float:
    return float(torch.corrcoef(torch.stack([a, b]))[0, 1].square().nan_to_num())


def _lacking(margin: float, r2_far: float | None, task_error: float) -> list[str]:
    lacking = []
    if margin < MARGIN:
        lacking.append(f"the margin over what solves nothing is {margin:.2f}, {MARGIN} is asked for")
    if r2_far is None:
        lacking.append("out of distribution R2 is not defined")
    elif r2_far < FAR_BAR:
        lacking.append(f"R2 is {r2_far:.2f} out of distribution, {FAR_BAR} is asked for")
    if task_error >= TASK:
        lacking.append(f"the model does not do its task: its squared error is {task_error:.2f} of the variance")
    return lacking
