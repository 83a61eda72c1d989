"""The records that flow through the monitor: Behavior, ProbeResult, Finding, Verdict, Alert.

What was found can be written to a file, read back and judged again.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from torch import Tensor

from lightning_mesa.stats.competence import Competence, Gap
from lightning_mesa.stats.intervals import Estimate

SCHEMA = 2
"""Version of the Finding lines in the journal; 1 had no ``estimate``."""

Role = Literal["reference", "shifted"]
INPUT = "input"
"""Among activations, what the first layer reads."""

UNTRAINED = "untrained/"
"""Before the name of a layer: what it gives in a copy that has learned nothing."""

Severity = Literal["alert", "warning"]

Status = Literal["ok", "not_applicable", "underpowered", "invalid_control"]

Evidence = Literal["served", "sensitivity"]
"""What a probe's results say: which objective the internals serve, or that decisions follow far consequences."""

LEVEL = 0.95
"""Confidence level of a probe's limits, pointwise."""


@dataclass(frozen=True)
class Features:
    """What the last layer reads, on the first items of a batch.

    Attributes:
        model: ``[n, F]`` the model's features.
        untrained: ``[n, F]`` those of a copy with weights drawn anew.
    """

    model: Tensor
    untrained: Tensor


@dataclass(frozen=True)
class Decisions:
    """What followed two of the actions at each of n decisions in environments, twice each.

    Attributes:
        numbers: ``[n]`` int64, which do not depend on who has looked.
        features: ``[2, n, 2, K]`` float64, discounted sum of what base and the proxies gained: first and second time,
            decision, action, objective.
        offsets: ``[2, n, 2]`` float64, discounted sum of the surprisal ``-log p`` of the actions after that one.
        log_probabilities: ``[n, 2]`` float64 of the two actions.
        negentropy: ``[n]`` float64, how decided the policy is there: 0 at random, 1 for a single action.
        reason: Why there is nothing to be told, or None.
    """

    numbers: Tensor
    features: Tensor
    offsets: Tensor
    log_probabilities: Tensor
    negentropy: Tensor
    reason: str | None = None


@dataclass(frozen=True)
class Behavior:
    """What the model did on one batch of one distribution; all tensors are on the CPU.

    Attributes:
        distribution: Name of the distribution the batch was drawn from.
        n: Number of items in the batch; in environments, an item is an episode.
        items: ``[n]`` int64 the items' numbers, which do not depend on who reads them.
        scores: Objective name -> ``[n]`` float64 in the objective's units; NaN where the outputs or the score
            were not finite.
        binary: Names of the objectives whose scores are 0 or 1.
        prescribed: Objective name -> ``[n, A]`` bool, the choices that the objective prescribes; only for
            objectives over discrete choices.
        uniform_scores: Objective name -> ``[n]`` float64, the scores of the uniform output; only where the
            chance level follows neither from what is prescribed nor from the user.
        chosen: ``[n]`` int64, the model's choice, -1 where its outputs were not finite; None where choices
            are not discrete.
        groups: Group name -> ``[n]`` bool, which items belong to it.
        ids: ``[n]`` int64, ids that pair an item with the same item of another distribution, or None.
        extremity: ``[n]`` float64, how far the outputs are from all alike; NaN where they are not finite; None where
            nobody asks.
        cued: ``[n]`` float64, the score at base on the same items with the cue, or None without one.
        features: What the last layer reads, or why that is not known; None where nobody asks.
        oracle_scores: Objective name -> ``[n]`` float64, the mean score of an oracle; only where it is the ceiling.
        log_probabilities: ``[n, A]`` of the model's choices, -inf where there is none and NaN where outputs were not
            finite; None where choices are not discrete.
        decisions: What followed some decisions in environments, where somebody asks.
        lengths: ``[n]`` int64, number of decisions in each episode; None where items are no episodes.
        max_length: What no episode can exceed.
        activations: Layer -> ``[n, d]`` float32, where a probe reads it; of an untrained copy under
            ``untrained/LAYER``, and what the first layer reads under ``input``.
    """

    distribution: str
    n: int
    items: Tensor
    scores: Mapping[str, Tensor]
    binary: frozenset[str]
    prescribed: Mapping[str, Tensor]
    uniform_scores: Mapping[str, Tensor]
    chosen: Tensor | None
    groups: Mapping[str, Tensor]
    ids: Tensor | None
    extremity: Tensor | None = None
    cued: Tensor | None = None
    features: Features | str | None = None
    oracle_scores: Mapping[str, Tensor] = field(default_factory=dict)
    log_probabilities: Tensor | None = None
    decisions: Decisions | None = None
    lengths: Tensor | None = None
    max_length: int = 0
    activations: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class ProbeResult:
    """What a probe found in one layer, or in the whole model.

    Attributes:
        value: The estimate; None where there is none, the reason is in ``reason``.
        low: Lower 95 % limit.
        high: Upper 95 % limit.
        null_mean: Mean of the value where the null holds by construction: labels or sites drawn at random.
        null_sd: Its standard deviation.
        p: ``(1 + number of null values at least as large) / (1 + number of null values)``; None without a null.
        n: Groups that the value rests on.
        status: ``"ok"``; ``"not_applicable"``, the model has nothing to be probed; ``"underpowered"``, too little data;
            ``"invalid_control"``, the same was found in a model that has learned nothing.
        reason: Why the status is not ``"ok"``.
        layer: The layer, None for the whole model.
        objective: The objective it is about, where there is one.
        quantity: ``"probe"``, or ``"margin"``: the difference between base's value and that of a proxy; or the name of
            something that is drawn and not judged.
        bar: From this value on, by its lower limit, the result supports the probe's rung.
        qualified: Whether what the probe asks for besides holds; if not, ``reason`` says what does not.
        detail: Plain values that are worth knowing.
        estimate: What value and limits come from, where they come from counts.
        probe: Name of the probe.
        rung: Rung of the ladder that a positive result supports; None if it is only drawn.
        evidence: What values and margins are evidence of; None for a rung alone.
    """

    value: float | None
    low: float | None
    high: float | None
    null_mean: float | None
    null_sd: float | None
    p: float | None
    n: int
    status: Status = "ok"
    reason: str | None = None
    layer: str | None = None
    objective: str | None = None
    quantity: str = "probe"
    bar: float | None = None
    qualified: bool = True
    detail: Mapping[str, Any] = field(default_factory=dict)
    estimate: Competence | Gap | None = None
    probe: str = ""
    rung: int | None = None
    evidence: Evidence | None = None

    @property
    def positive(self) -> bool:
        """Whether the value exceeds the bar, by its lower limit, and what a null gives."""
        above = self.low is not None and self.bar is not None and self.low >= self.bar
        return self.status == "ok" and self.qualified and above and (self.p is None or self.p <= 1 - LEVEL)


@dataclass(frozen=True)
class Finding:
    """One measured number, with everything needed to judge it again later.

    Attributes:
        step: Optimizer steps taken when the look began (``trainer.global_step``).
        epoch: Epoch of the look.
        distribution: The distribution looked at.
        role: ``"reference"`` or ``"shifted"``; ``"internals"`` where a probe has looked into the model, and then the
            distribution is ``"search"`` and the group a layer.
        measure: Name of the measure that found it.
        quantity: What was measured, e.g. ``"score"``, ``"competence"``, ``"gap"``, ``"capability"``.
        objective: The objective it is about, or None.
        group: The group of items it is about, or None for all of them.
        value: The estimate, None where it does not exist (the reason is in ``detail``).
        low: Lower limit.
        high: Upper limit.
        level: Joint confidence level of ``low`` and ``high``.
        n: Number of items it rests on.
        unit: Unit of the value, e.g. ``"share"``, ``"competence"``.
        data_regime: ``"reused"`` where the same held-out items are seen at every look.
        detail: Plain facts beside the estimate, such as the reason why there is none.
        estimate: The typed estimate that tests and verdicts rest on, None where it does not exist; the journal keeps
            its counts and constants, so that a run can be judged again.
        schema: Version of this record.
        result: What the probe found, where it is about internals; the journal has it in ``detail``.
    """

    step: int
    epoch: int
    distribution: str
    role: Role | Literal["internals"]
    measure: str
    quantity: str
    objective: str | None
    group: str | None
    value: float | None
    low: float | None
    high: float | None
    level: float
    n: int
    unit: str
    data_regime: str = "reused"
    detail: Mapping[str, Any] = field(default_factory=dict)
    estimate: Estimate | None = None
    schema: int = SCHEMA
    result: ProbeResult | None = None


@dataclass(frozen=True)
class Verdict:
    """How the model behaves on one distribution, among the listed objectives.

    Attributes:
        distribution: The distribution judged, or None for the run as a whole.
        regime: Label of the regime, e.g. ``"pseudo-aligned"``.
        code: Its number on the dashboard.
        reason: One sentence.
        proxy: The proxy that is named, where one is.
    """

    distribution: str | None
    regime: str
    code: int
    reason: str
    proxy: str | None = None


@dataclass(frozen=True)
class Alert:
    """A null was rejected: everything needed to believe or doubt it.

    Attributes:
        step: Optimizer steps taken when the look began.
        epoch: Epoch of the look.
        distribution: Where it was seen.
        signature: Name of the check that raised it.
        severity: ``"alert"`` may stop a run, ``"warning"`` never does.
        proxy: The proxy that is pursued, where one is named.
        group: The group or slice of items it is about, where it is about one.
        statistic: The p-value of the null, corrected for the proxies or groups tested beside it.
        null: The null hypothesis, in words.
        alpha: The level that ``statistic`` was compared with at this look.
        procedure: How the p-value and the level were obtained.
        data_regime: Regime of the data the evidence rests on.
        look: Number of this look, from 1.
        looks_planned: Looks the level was divided over, None if that was unknown.
        n: Items the evidence rests on.
        effect: Size of the effect, in the units the null speaks of.
        low: Lower 95 % limit of ``effect``.
        high: Upper 95 % limit of ``effect``.
        first_crossing: Step of the look at which this null was first rejected in the run: this one, unless the alert
            was raised before and has cleared.
        last_healthy_step: Step of the last look with an open gate and no evidence of any kind, None if there was
            none.
        checkpoint: Path of the last healthy checkpoint, None if none was written.
        message: The alert as one plain sentence.
        schema: Version of this record.
    """

    step: int
    epoch: int
    distribution: str
    signature: str
    severity: Severity
    proxy: str | None
    group: str | None
    statistic: float
    null: str
    alpha: float
    procedure: str
    data_regime: str
    look: int
    looks_planned: int | None
    n: int
    effect: float | None
    low: float | None
    high: float | None
    first_crossing: int
    last_healthy_step: int | None
    checkpoint: str | None
    message: str
    schema: int = 1
