"""The face that every probe has, and the common form of what it finds."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Protocol

from torch import Tensor, nn

from lightning_mesa.records import Behavior
from lightning_mesa.stats.competence import Competence, Gap, limits
from lightning_mesa.stats.intervals import Estimate

Status = Literal["ok", "not_applicable", "underpowered", "invalid_control"]

LEVEL = 0.95
"""Confidence level of limits, pointwise."""

ENOUGH = 30
"""A probe with fewer groups than this is underpowered."""


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
        detail: Plain values from which value and limits can be computed again, and what else is worth knowing.
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

    @property
    def positive(self) -> bool:
        """Whether the value exceeds the bar, by its lower limit, and what a null gives."""
        above = self.low is not None and self.bar is not None and self.low >= self.bar
        return self.status == "ok" and self.qualified and above and (self.p is None or self.p <= 1 - LEVEL)


def without(status: Status, reason: str, *, n: int = 0, **about: Any) -> ProbeResult:
    """A result without a value."""
    return ProbeResult(None, None, None, None, None, None, n, status, reason, **about)


def of_estimate(
    estimate: Estimate, null: Sequence[float], n: int, bar: float | None, untrained: float | None, **about: Any
) -> ProbeResult:
    """A result from an estimate, values where the null holds, and the value in the untrained copy.

    Args:
        estimate: The estimate.
        null: Values where the null holds by construction.
        n: Number of groups.
        bar: See :class:`ProbeResult`.
        untrained: The value in a copy of the model that has learned nothing; above the bar, the control is invalid.
        about: Layer, objective and detail.
    """
    value = (estimate.value, *limits(estimate, LEVEL))
    return of_limits(value, null, n, bar, untrained, **about)


def of_limits(
    value: tuple[float, float, float],
    null: Sequence[float],
    n: int,
    bar: float | None,
    untrained: float | None,
    **about: Any,
) -> ProbeResult:
    """The same from a value with its lower and upper limit."""
    mean = sum(null) / len(null) if null else None
    sd = None if mean is None else (sum((x - mean) ** 2 for x in null) / max(len(null) - 1, 1)) ** 0.5
    p = (1 + sum(x >= value[0] for x in null)) / (1 + len(null)) if null else None
    status: Status = "ok"
    reason = None
    if n < ENOUGH:
        status, reason = "underpowered", f"{n} groups tell anything, {ENOUGH} are needed"
    elif bar is not None and untrained is not None and untrained >= bar:
        status, reason = "invalid_control", f"a copy that has learned nothing gives {untrained:.2f} as well"
    return ProbeResult(*value, mean, sd, p, n, status, reason, bar=bar, **about)


def margins(effects: Mapping[str, Competence], base: str, **about: Any) -> list[ProbeResult]:
    """Base's value minus that of each proxy; none without base's.

    Args:
        effects: Objective -> estimate.
        base: Name of the base objective.
        about: The layer, where there is one.
    """
    found = []
    for proxy, effect in effects.items():
        if proxy != base and base in effects:
            margin = Gap(effects[base], effect)
            detail = {"estimate": {"reference": effects[base].record(), "shifted": effect.record()}}
            about |= {"objective": proxy, "quantity": "margin", "detail": detail}
            found.append(of_estimate(margin, (), min(effects[base].n, effect.n), None, None, **about))
    return found


class ModelUnderProbe(Protocol):
    """What a probe can do with a model; see :class:`~lightning_mesa.observe.subject.Subject`."""

    @property
    def module(self) -> nn.Module:
        """The model itself; what a probe sets in it has to be set back."""

    def layers(self, patterns: Sequence[str]) -> list[str]:
        """Names of the layers that match the patterns."""

    def run(self, batch: Any, edits: Mapping[str, Callable[[Tensor, int], Tensor]] | None = None) -> Any:
        """The outputs on a batch, some layers patched."""

    def read(self, batch: Any, layers: Sequence[str]) -> tuple[Any, dict[str, list[Tensor]]]:
        """The outputs on a batch, and what the layers gave, one activation for each tick."""

    def run_and_see(self, batch: Any) -> tuple[Any, set[str]]:
        """The outputs on a batch, and the names of the modules with parameters of their own that were called."""

    def apply(self, layer: str, activation: Tensor) -> Tensor:
        """What a module of the model, such as its head, makes of an activation."""

    def like(self, module: Any) -> "ModelUnderProbe":
        """Another model that is called in the same way."""

    @property
    def untrained(self) -> "ModelUnderProbe":
        """The same model with its weights drawn anew."""


class Probe(ABC):
    """Looks into a model for internal search.

    Attributes:
        name: Part of the metric names.
        rung: Rung of the ladder that a positive result supports, see ``evidence/ladder.py``; None if it is only drawn.
        outputs: ``(outputs, batch) -> [n, A]`` or ``[n, A, ...]``; None takes the monitor's.
    """

    name: ClassVar[str]
    rung: ClassVar[int | None]
    outputs: Callable[[Any, Any], Any] | None = None

    @property
    def objectives(self) -> Sequence[str]:
        """Names of the objectives that the probe tells apart, base first; they must be listed in the monitor."""
        return ()

    @abstractmethod
    def check(self, model: ModelUnderProbe) -> str:
        """Refuse what cannot be probed, before training starts; says what the probe costs, in words.

        Raises:
            ConfigurationError: If a layer or the data cannot be right.
        """

    @abstractmethod
    def run(self, model: ModelUnderProbe) -> list[ProbeResult]:
        """Probe the model as it is now."""

    def forget(self) -> None:  # noqa: B027 (most probes remember nothing from look to look)
        """Begin anew: another run, perhaps of another model."""

    def state_dict(self) -> dict[str, Any]:
        """What it remembers from look to look, in plain values and tensors."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:  # noqa: B027
        """Go on where a checkpoint was written."""


class ReadingProbe(Probe):
    """A probe that reads layers in the forward pass over the shifted items that there is anyway.

    Attributes:
        reads: Names or patterns of the layers.
    """

    reads: Sequence[str]

    @property
    @abstractmethod
    def wants_untrained(self) -> bool:
        """Whether it has not seen yet what an untrained copy gives on these items."""

    @abstractmethod
    def update(self, behavior: Behavior) -> None:
        """Add what has been read on a batch of shifted items."""

    @abstractmethod
    def accumulated(self) -> Any:
        """What has been added at this look, for other processes."""

    @abstractmethod
    def gathered(self, parts: Sequence[Any]) -> None:
        """Go on with what all processes have added."""
