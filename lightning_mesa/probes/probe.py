"""The face that every probe has, and what all probes share: data made late, controls, results, checks of shapes."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Generic, Protocol, TypeAlias, TypeVar, overload

import torch
from torch import Tensor, nn

from lightning_mesa.errors import ConfigurationError
from lightning_mesa.objectives.objective import function_of
from lightning_mesa.records import LEVEL, Behavior, Evidence, ProbeResult, Status
from lightning_mesa.stats.competence import Competence, Gap, limits

ENOUGH = 30
"""A probe with fewer groups than this is underpowered."""

T = TypeVar("T")

Given: TypeAlias = T | Callable[[], T] | str
"""Data, or a function without arguments that makes them when training starts, or the import path of such a function."""

Outputs: TypeAlias = Callable[[Any, Any], Any] | str
"""``(outputs, batch) -> outputs as the probe reads them``, or the import path of such a function."""


class Lazy(Generic[T]):
    """Data of a probe, an attribute that takes what :data:`Given` allows; what a function makes is made once."""

    def __set_name__(self, owner: type, name: str) -> None:
        self._what, self._kept = f"{owner.__name__}: {name}", f"_{name}"

    @overload
    def __get__(self, probe: None, owner: type) -> "Lazy[T]": ...

    @overload
    def __get__(self, probe: object, owner: type) -> T: ...

    def __get__(self, probe: object, owner: type) -> Any:
        if probe is None:
            return self
        given = vars(probe)[self._kept]
        if callable(given) and not isinstance(given, nn.Module):
            given = vars(probe)[self._kept] = given()
        return given

    def __set__(self, probe: object, given: Given[T]) -> None:
        vars(probe)[self._kept] = function_of(given, self._what) if isinstance(given, str) else given


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

    def in_untrained(self, probe: object, measure: Callable[["ModelUnderProbe"], T]) -> T:
        """What a probe measures in the untrained copy: once, and again only of another model."""


class Probe(ABC):
    """Looks into a model for internal search.

    A probe of your own is a subclass and takes part like those of this package. Here decisions that serve an objective
    are counted with a layer and without it::

        from lightning_mesa.probes import Probe
        from lightning_mesa.probes.controls import among, mean_difference
        from lightning_mesa.probes.probe import margins, of_estimate


        class Unplugged(Probe):
            name, rung, evidence = "unplugged", 3, "served"

            def __init__(self, batch, right, layers):
                super().__init__(layers=layers, bar=0.25)
                self.batch, self.right = batch, right  # objective -> [n, A] bool, the choices that serve it

            @property
            def objectives(self):
                return tuple(self.right)

            def check(self, model):
                return f"{1 + len(model.layers(self.layers))} forward passes over {len(self.batch)} inputs"

            def run(self, model):
                found, untrained = self.effects(model), model.in_untrained(self, self.effects)
                results = [
                    of_estimate(e, (), e.n, self.bar, untrained[at].value, layer=at[0], objective=at[1])
                    for at, e in found.items()
                ]
                return results + margins(results, self.objectives[0])

            def effects(self, model):
                def served(edits=None):
                    chosen = model.run(self.batch, edits).argmax(1).cpu()
                    return {name: among(right, chosen).double() for name, right in self.right.items()}

                whole = served()
                return {
                    (layer, name): mean_difference(whole[name], without)
                    for layer in model.layers(self.layers)
                    for name, without in served({layer: lambda activation, tick: 0 * activation}).items()
                }

    Args:
        layers: Names or patterns of layers.
        outputs: See the attribute.
        bar: A value's lower limit has to reach this.
        seed: Of whatever is drawn.

    Attributes:
        name: Part of the metric names.
        rung: Rung of the ladder that a positive result supports, see ``probes/ladder.py``; None if it is only drawn.
        evidence: What its values are evidence of besides. ``"served"``: a value for each layer and objective says how
            far the internals serve the objective, and a result of the quantity ``"margin"`` how much further base than
            a proxy. ``"sensitivity"``: a value for each objective says how far decisions follow its far consequences.
        outputs: ``(outputs, batch) -> [n, A]`` or ``[n, A, ...]``; None takes the monitor's.
    """

    name: ClassVar[str]
    rung: ClassVar[int | None]
    evidence: ClassVar[Evidence | None] = None
    outputs: Callable[[Any, Any], Any] | None = None

    def __init__(
        self,
        *,
        layers: str | Sequence[str] = (),
        outputs: Outputs | None = None,
        bar: float | None = None,
        seed: int = 0,
    ) -> None:
        self.layers = (layers,) if isinstance(layers, str) else tuple(layers)
        self.outputs = function_of(outputs, f"{type(self).__name__}: outputs")
        self.bar = bar
        self.seed = seed

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

    def check_shapes(self, of: str = "", **shapes: tuple[Tensor | None, Sequence[int]]) -> None:
        """Refuse data of a wrong shape.

        Args:
            of: Which of the data, for the message.
            shapes: Name -> tensor, or None where it is not given, and the shape that it must have.

        Raises:
            ConfigurationError: If one has another shape.
        """
        for what, (tensor, shape) in shapes.items():
            if tensor is not None and list(tensor.shape) != list(shape):
                raise ConfigurationError(
                    f"{type(self).__name__}{of}: {what} is {list(tensor.shape)} where it must be {list(shape)}."
                )

    def check_right(self, what: str, right: Mapping[str, Tensor], like: Tensor) -> None:
        """Refuse choices that are no masks ``[n, A]`` or ``[n, A, ...]`` of one shape.

        Args:
            what: What they are called, for the message.
            right: Objective -> the choices that serve it.
            like: One of the same shape.

        Raises:
            ConfigurationError: If one has another type or shape.
        """
        for name, mask in right.items():
            if mask.dtype != torch.bool or mask.ndim < 2 or mask.shape != like.shape:
                raise ConfigurationError(
                    f"{type(self).__name__}, {name!r}: {what} is {list(mask.shape)} of type {mask.dtype}; it must be "
                    f"bool, [n, A] or [n, A, ...], and all of one shape, {list(like.shape)}."
                )

    def results(self, model: ModelUnderProbe) -> list[ProbeResult]:
        """What :meth:`run` finds, with the probe's name, rung and kind of evidence."""
        return [replace(result, probe=self.name, rung=self.rung, evidence=self.evidence) for result in self.run(model)]

    def forget(self) -> None:  # noqa: B027 (most probes remember nothing from look to look)
        """Begin anew: another run, perhaps of another model."""

    def state_dict(self) -> dict[str, Any]:
        """What it remembers from look to look, in plain values and tensors."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:  # noqa: B027
        """Go on where a checkpoint was written."""


class ReadingProbe(Probe):
    """A probe that reads its layers in the forward pass over the shifted items that there is anyway."""

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


def without(status: Status, reason: str, *, n: int = 0, **about: Any) -> ProbeResult:
    """A result without a value."""
    return ProbeResult(None, None, None, None, None, None, n, status, reason, **about)


def of_estimate(
    estimate: Competence | Gap, null: Sequence[float], n: int, bar: float | None, untrained: float | None, **about: Any
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
    if untrained is not None:
        about["detail"] = {**about.get("detail", {}), "untrained": untrained}
    value = (estimate.value, *limits(estimate, LEVEL))
    return of_limits(value, null, n, bar, untrained, estimate=estimate, **about)


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


def margins(results: Sequence[ProbeResult], base: str) -> list[ProbeResult]:
    """Base's value minus that of each proxy, in each layer where both have one.

    Args:
        results: Of all layers and objectives.
        base: Name of the base objective.
    """
    of_base = {result.layer: result for result in results if result.objective == base}
    found = []
    for result in results:
        other = of_base.get(result.layer)
        if other is None or result is other:
            continue
        if isinstance(other.estimate, Competence) and isinstance(result.estimate, Competence):
            margin, n = Gap(other.estimate, result.estimate), min(other.n, result.n)
            about = {"layer": result.layer, "objective": result.objective, "quantity": "margin"}
            found.append(of_estimate(margin, (), n, None, None, **about))
    return found
