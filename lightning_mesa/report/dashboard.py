"""Everything that is written about a look, in its places."""

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from lightning_mesa.evidence.alarm import Judgement
from lightning_mesa.objectives import Hypotheses
from lightning_mesa.records import Alert, Finding
from lightning_mesa.report import internals, journal, preference, publish, tensorboard, weights
from lightning_mesa.report.internals import Probed, probed_of
from lightning_mesa.report.preference import Placed, placed_of
from lightning_mesa.report.sinks import Sink, Sinks, to_log
from lightning_mesa.report.triangle import Point, draw, points_of
from lightning_mesa.report.weights import Weighed, weighed_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_POINTS = 200
"""Of a longer path every other point is left out."""

JOURNALS = ("findings.jsonl", "alerts.jsonl")


P = TypeVar("P", Point, Placed, Weighed, Probed)


class Dashboard:
    """Writes looks to ``callback_metrics``, the loggers, TensorBoard and the journal.

    Args:
        name: The monitor's name.
        hypotheses: The listed objectives.
        sinks: The user's sinks of alerts.

    Attributes:
        values: The last published values by metric name.
        paths: The path of each shifted distribution between base, proxy and neither.
        preferences: Preference and capability at each look, by distribution and proxy; in environments.
        weights: The behavioral objective at each look, by shifted distribution.
        probed: What probes found at each look.
    """

    def __init__(self, name: str, hypotheses: Hypotheses, sinks: Sinks) -> None:
        self.name = name
        self.hypotheses = hypotheses
        self.sinks = sinks
        self.values: dict[str, float] = {}
        self.paths: dict[str, list[Point]] = {}
        self.preferences: dict[str, list[Placed]] = {}
        self.weights: dict[str, list[Weighed]] = {}
        self.probed: list[Probed] = []
        self._written: frozenset[journal.Identity] = frozenset()

    @property
    def seconds_to_draw(self) -> float:
        """What the figures of the looks so far take, about: matplotlib's import, and each figure or row of one."""
        figures = len(self.paths) + len(self.preferences) + len(self.weights)
        figures += internals.rows(self.probed) if self.probed else 0
        return 0.6 + 0.15 * figures if figures and find_spec("matplotlib") is not None else 0.0

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
        publish.to_callback_metrics(trainer, self.values)
        if folder is not None:
            self._written = frozenset().union(*(journal.written_after(folder / file, step) for file in JOURNALS))

    def write(
        self,
        trainer: Any,
        folder: Path | None,
        findings: Sequence[Finding],
        judgement: Judgement,
        step: int,
        extra: dict[str, float],
    ) -> None:
        """Write one look.

        Args:
            trainer: The trainer.
            folder: Where the journal is, or None to keep none.
            findings: The look's findings.
            judgement: What the alarm says of them.
            step: The loggers' x axis.
            extra: Metrics about the monitor itself.
        """
        if not self.values:
            self._lay_out(trainer, findings)
        current = publish.metrics(self.name, findings, judgement) | extra
        self.values |= current
        publish.to_callback_metrics(trainer, current)
        publish.to_loggers(trainer, current, step)
        for where, point in points_of(findings).items():
            _add(self.paths.setdefault(where, []), point)
        for where, placed in placed_of(findings).items():
            _add(self.preferences.setdefault(where, []), placed)
        for where, weighed in weighed_of(findings).items():
            _add(self.weights.setdefault(where, []), weighed)
        if (probed := probed_of(findings, judgement.internals)) is not None:
            _add(self.probed, probed)
        if folder is not None and trainer.is_global_zero:
            new = [f for f in findings if journal.identity(vars(f)) not in self._written]
            journal.append(folder / "findings.jsonl", new)
        if trainer.is_global_zero:
            self._send(trainer, folder, judgement, step)
        if judgement.alerts:
            self.draw(trainer, folder, step)

    def write_disabled(self, trainer: Any, step: int) -> None:
        """Say that the monitor is off after an error."""
        publish.to_callback_metrics(trainer, {f"{self.name}/disabled": 1.0})
        publish.to_loggers(trainer, {f"{self.name}/disabled": 1.0}, step)

    def draw(self, trainer: Any, folder: Path | None, step: int) -> None:
        """Draw what there is so far, for TensorBoard and as ``FOLDER/DISTRIBUTION*.png``; needs the extra ``plots``."""
        if folder is None or not trainer.is_global_zero or find_spec("matplotlib") is None:
            return
        proxies = " or ".join(proxy.name for proxy in self.hypotheses.proxies)
        for where, path in self.paths.items():
            figure = draw(path, f"{where}: where base and proxy disagree", proxies, self.hypotheses.base.name)
            self._show(trainer, figure, folder / f"{where}.png", f"{where}/path", step)
        for where, looks in self.preferences.items():
            figure = preference.draw(looks, where, self.hypotheses.base.name)
            file = folder / f"{where.replace('/', '.')}.preference.png"
            self._show(trainer, figure, file, f"{where}/preference", step)
        pursuable = [objective.name for objective in (self.hypotheses.base, *self.hypotheses.proxies)]
        for where, weighed in self.weights.items():
            figure = weights.draw(weighed, where, pursuable)
            self._show(trainer, figure, folder / f"{where}.weights.png", f"{where}/weights", step)
        if self.probed:
            self._show(trainer, internals.draw(self.probed), folder / "search.png", "search", step)

    def state_dict(self) -> dict[str, Any]:
        """Plain values."""
        paths, preferences, weights = (
            {where: [dict(vars(point)) for point in path] for where, path in drawn.items()}
            for drawn in (self.paths, self.preferences, self.weights)
        )
        drawn = {"paths": paths, "preferences": preferences, "weights": weights}
        return {"values": dict(self.values), **drawn, "probed": [dict(vars(look)) for look in self.probed]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved state."""
        self.values = dict(state["values"])
        self.paths = {where: [Point(**point) for point in path] for where, path in state["paths"].items()}
        self.preferences = {where: [Placed(**at) for at in looks] for where, looks in state["preferences"].items()}
        self.weights = {where: [Weighed(**at) for at in looks] for where, looks in state["weights"].items()}
        self.probed = [Probed(**look) for look in state["probed"]]

    def _show(self, trainer: Any, figure: "Figure", file: Path, tag: str, step: int) -> None:
        """Write a figure as a file and on the Images tab; it is rendered once, which is most of what it costs."""
        from PIL import Image  # comes with matplotlib

        figure.set_dpi(120)
        figure.canvas.draw()
        pixels = np.asarray(figure.canvas.buffer_rgba())[..., :3]  # type: ignore[attr-defined]  # of Agg's canvas
        Image.fromarray(pixels).save(file)
        tensorboard.add_image(trainer, f"{self.name}/{tag}", pixels, step)

    def _send(self, trainer: Any, folder: Path | None, judgement: Judgement, step: int) -> None:
        """Send the alerts of a look to all sinks; without a folder, under ``fast_dev_run``, only to the log."""

        def to_tensorboard(alert: Alert) -> None:
            tensorboard.add_alert(trainer, self.name, alert, judgement.verdicts, step)

        def to_journal(alert: Alert) -> None:
            if folder is not None:
                journal.append(folder / "alerts.jsonl", [alert])

        built_in: dict[str, Sink] = {"the log": to_log, "alerts.jsonl": to_journal, "TensorBoard": to_tensorboard}
        new = [alert for alert in judgement.alerts if journal.identity(vars(alert)) not in self._written]
        for alert in new:
            if folder is None:
                to_log(alert)
            else:
                self.sinks.send(alert, built_in)

    def _lay_out(self, trainer: Any, findings: Sequence[Finding]) -> None:
        roles = {finding.distribution: finding.role for finding in findings}
        reference = next(where for where, role in roles.items() if role == "reference")
        shifted = [where for where, role in roles.items() if role == "shifted"]
        objectives = [objective.name for objective in self.hypotheses.all]
        weighed = [
            (f.distribution, str(f.objective)) for f in findings if f.quantity == "behavioral" and f.role == "shifted"
        ]
        margins = [f for f in findings if f.quantity == "margin" and f.group is not None]
        probed = list(dict.fromkeys((str(f.group), str(f.objective)) for f in margins))
        tensorboard.add_layout(trainer, self.name, reference, shifted, objectives, weighed, probed)


def _add(path: list[P], point: P) -> None:
    path.append(point)
    if len(path) > MOST_POINTS:  # a long run holds no more memory than a short one
        del path[1:-1:2]
