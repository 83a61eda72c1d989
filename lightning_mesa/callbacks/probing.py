"""Probes at a look: the model made ready for them, and what they find as findings."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from lightning_utilities.core.rank_zero import rank_zero_warn
from torch import nn

from lightning_mesa.checks import Look
from lightning_mesa.errors import ConfigurationError, MesaWarning
from lightning_mesa.objectives.hypotheses import Hypotheses
from lightning_mesa.observe.context import Reading
from lightning_mesa.observe.forward import call_model, choices
from lightning_mesa.observe.processes import gather_shares
from lightning_mesa.observe.reader import Projections, Reader
from lightning_mesa.observe.sharding import is_sharded
from lightning_mesa.observe.subject import NotWholeError, Subject
from lightning_mesa.probes.probe import Probe, ReadingProbe, without
from lightning_mesa.records import Behavior, Finding, ProbeResult
from lightning_mesa.report.journal import recorded

SEARCH = "search"
"""What stands for the distribution in findings about internals."""


class Probing:
    """The probes of a session, each with the model as it wants to call it.

    To be used inside ``no_trace``.

    Args:
        trainer: The trainer, for its device and precision.
        pl_module: The LightningModule.
        probes: The probes.
        reading: How batches reach the model, and what comes out.
        seed: Of untrained copies.
        hypotheses: The listed objectives, among which those of the probes must be.

    Raises:
        ConfigurationError: If a probe cannot probe this model.
    """

    def __init__(
        self,
        trainer: Any,
        pl_module: nn.Module,
        probes: Sequence[Probe],
        reading: Reading,
        seed: int,
        hypotheses: Hypotheses,
    ) -> None:
        self.trainer = trainer
        not_copied = [owner for owner in (trainer, getattr(trainer, "datamodule", None)) if owner is not None]
        self.model = Subject(pl_module, seed=seed, not_copied=not_copied, whole=not is_sharded(trainer))
        self.subjects = [(probe, self.model.called(partial(self._call, probe, reading))) for probe in probes]
        self._cannot: dict[int, str] = {}  # by id, as a probe need not have a hash
        self._reading = [probe for probe in probes if isinstance(probe, ReadingProbe)]
        self._drawn: Projections = {}
        costs = []
        for probe, subject in self.subjects:
            costs.append(f"{probe.name} ({probe.check(subject)})")
            _check_listed(probe, hypotheses)
        self.costs = ", ".join(costs)

    def reader(self) -> Reader | None:
        """What reads layers in the pass over the items, where a probe wants some."""
        patterns = [pattern for probe in self._reading for pattern in probe.layers]
        if not patterns:
            return None
        untrained = self.model.whole and any(probe.wants_untrained for probe in self._reading)
        return Reader(self.model, self.model.layers(patterns), untrained=untrained, drawn=self._drawn)

    def close(self) -> None:
        """Let go of what was drawn for the readers."""
        self._drawn.clear()

    def update(self, behavior: Behavior) -> None:
        """Give the probes what has been read on a batch of shifted items."""
        for probe in self._reading:
            probe.update(behavior)

    def share(self) -> None:
        """Give all processes what each has read."""
        for probe in self._reading:
            probe.gathered(gather_shares(self.trainer, probe.accumulated()))

    def measure(self, look: Look) -> list[Finding]:
        """What the probes find now."""
        return [finding(look, result) for probe, subject in self.subjects for result in self._results(probe, subject)]

    def _results(self, probe: Probe, subject: Subject) -> list[ProbeResult]:
        """What a probe finds, or that it cannot probe a model of which each process holds a part."""
        if id(probe) not in self._cannot:
            try:
                results = probe.results(subject)
            except NotWholeError as error:
                self._cannot[id(probe)] = str(error)
                rank_zero_warn(
                    f"probe {probe.name!r} finds nothing: {error}. Probe one of its checkpoints on a single device.",
                    category=MesaWarning,
                )
            else:
                lacks_copy = not subject.whole and isinstance(probe, ReadingProbe) and probe.wants_untrained
                return [*map(_unqualified, results)] if lacks_copy else results
        about: dict[str, Any] = {"probe": probe.name, "rung": probe.rung, "evidence": probe.evidence}
        return [without("not_applicable", self._cannot[id(probe)], **about)]

    def _call(self, probe: Probe, reading: Reading, module: nn.Module, batch: Any) -> Any:
        precision, strategy = self.trainer.precision_plugin, self.trainer.strategy
        batch = strategy.batch_to_device(precision.convert_input(batch))
        with precision.forward_context():
            raw = call_model(module, batch, reading)
        return choices(raw, batch, probe.outputs or reading.outputs)


def finding(look: Look, result: ProbeResult) -> Finding:
    """A probe's result as a finding: of a layer, where that is the group, about an objective where there is one.

    ``detail`` tells the journal what :func:`~lightning_mesa.report.journal.result_of` makes the result of again.
    """
    about = {
        "estimate": recorded(result.estimate),
        "status": result.status,
        "reason": result.reason,
        "rung": result.rung,
        "evidence": result.evidence,
        "bar": result.bar,
        "positive": result.positive,
        "p": result.p,
        "null_mean": result.null_mean,
        "null_sd": result.null_sd,
    }
    shown = None
    if result.value is not None:
        shown = (result.value, result.low, result.high)
    found = look.finding(
        result.probe,
        SEARCH,
        result.quantity,
        "share",
        shown=shown,
        n=result.n,
        objective=result.objective,
        group=result.layer,
        detail={**result.detail, **{key: value for key, value in about.items() if value is not None}},
    )
    return replace(found, result=result)


def _unqualified(result: ProbeResult) -> ProbeResult:
    """A result that says nothing of what a model that has learned nothing would give."""
    reason = "no untrained copy of a sharded model can be made to compare with"
    return replace(result, qualified=False, reason=result.reason or reason)


def _check_listed(probe: Probe, hypotheses: Hypotheses) -> None:
    listed = [objective.name for objective in (hypotheses.base, *hypotheses.proxies)]
    objectives = list(probe.objectives)
    for name in objectives:
        if name not in listed:
            raise ConfigurationError(f"probe {probe.name!r}: {name!r} is none of the listed objectives, {listed}.")
    if len(objectives) > 1 and objectives[0] != listed[0]:
        raise ConfigurationError(f"probe {probe.name!r}: name base, {listed[0]!r}, before the proxies {objectives}.")
