"""Everything that is written about a look, in its places."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning_mesa.checks import Check, Look
from lightning_mesa.judge.alarm import Judgement
from lightning_mesa.objectives.hypotheses import Hypotheses
from lightning_mesa.report import journal, metrics, tensorboard
from lightning_mesa.report.sinks import Sink, Sinks, to_log

JOURNALS = ("findings.jsonl", "alerts.jsonl")


class Dashboard:
    """Writes looks to ``callback_metrics``, the loggers, TensorBoard and the journal.

    Args:
        name: The monitor's name.
        hypotheses: The listed objectives.
        checks: The checks, which name what they find.
        sinks: The user's sinks of alerts.

    Attributes:
        values: The last published values by metric name.
    """

    def __init__(self, name: str, hypotheses: Hypotheses, checks: Sequence[Check], sinks: Sinks) -> None:
        self.name = name
        self.hypotheses = hypotheses
        self.checks = checks
        self.sinks = sinks
        self.values: dict[str, float] = {}
        self._written: frozenset[journal.Identity] = frozenset()
        self._laid_out: set[str] = set()  # a logger may be replaced, and a resumed run write elsewhere

    def begin(self, trainer: Any, folder: Path | None) -> None:
        """At the start of a run: make room for its journal."""
        if folder is not None and trainer.is_global_zero:
            for file in JOURNALS:
                journal.set_aside(folder / file)

    def go_on(self, trainer: Any, folder: Path | None, step: int) -> None:
        """After a resume: publish the last values, which Lightning does not keep, and see what is written already.

        Args:
            trainer: The trainer.
            folder: Where the journal is, or None.
            step: Step of the last look that the checkpoint knows.
        """
        metrics.to_callback_metrics(trainer, self.values)
        if folder is not None:
            self._written = frozenset().union(*(journal.written_after(folder / file, step) for file in JOURNALS))

    def write(
        self,
        trainer: Any,
        folder: Path | None,
        look: Look,
        judgement: Judgement,
        step: int,
        extra: dict[str, float],
    ) -> None:
        """Write one look.

        Args:
            trainer: The trainer.
            folder: Where the journal is, or None to keep none.
            look: The look, with all its findings.
            judgement: What the alarm says of them.
            step: The loggers' x axis.
            extra: Metrics about the monitor itself.
        """
        for log_dir in tensorboard.folders(trainer) - self._laid_out:
            tensorboard.add_layout(f"{log_dir}/{self.name}", self._layout(look))
            self._laid_out.add(log_dir)
        current = metrics.of_look(self.name, look, judgement, self.checks) | extra
        self.values |= current
        metrics.to_callback_metrics(trainer, current)
        metrics.to_loggers(trainer, current, step)
        if not trainer.is_global_zero:
            return
        new = [alert for alert in judgement.alerts if journal.identity(vars(alert)) not in self._written]
        if folder is None:  # under fast_dev_run
            for alert in new:
                to_log(alert)
            return
        found = [f for f in look.findings if journal.identity(vars(f)) not in self._written]
        journal.append(folder / "findings.jsonl", found)
        alerts = folder / "alerts.jsonl"
        built_in: dict[str, Sink] = {
            "the log": to_log,
            "alerts.jsonl": lambda alert: journal.append(alerts, [alert]),
            "TensorBoard": lambda alert: tensorboard.add_alert(trainer, self.name, alert, judgement.verdicts, step),
        }
        for alert in new:
            self.sinks.send(alert, built_in)

    def write_disabled(self, trainer: Any, step: int) -> None:
        """Say that the monitor is off after an error."""
        metrics.to_callback_metrics(trainer, {f"{self.name}/disabled": 1.0})
        metrics.to_loggers(trainer, {f"{self.name}/disabled": 1.0}, step)

    def state_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {"values": dict(self.values)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved state."""
        self.values = dict(state["values"])

    def _layout(self, look: Look) -> tensorboard.Layout:
        objectives = [objective.name for objective in self.hypotheses.all]
        weighed = [(f.distribution, str(f.objective)) for f in look.found("behavioral") if f.role == "shifted"]
        margins = [f for f in look.found("margin") if f.group is not None]
        probed = list(dict.fromkeys((str(f.group), str(f.objective)) for f in margins))
        return tensorboard.layout_of(self.name, look.reference, look.shifted, objectives, weighed, probed)
