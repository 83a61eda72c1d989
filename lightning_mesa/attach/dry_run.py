"""The look before training and nothing more, for ``lightning-mesa doctor``."""

import json
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning_mesa.callbacks.compat import callback_base
from lightning_mesa.callbacks.monitor import MesaMonitor
from lightning_mesa.callbacks.watch import Watch
from lightning_mesa.errors import said
from lightning_mesa.judge.outlook import outlook
from lightning_mesa.report.summary import summary

if TYPE_CHECKING:
    from pytorch_lightning import Callback
else:
    Callback = callback_base()

DRY_RUN = "LIGHTNING_MESA_DRY_RUN"
"""Set by ``lightning-mesa doctor`` alone, to where it wants the report."""


class DryRun(Callback):
    """Takes a monitor's look before training, writes what it found where the environment says, and ends the script.

    Args:
        monitor: The monitor, which is not attached itself.
    """

    def __init__(self, monitor: MesaMonitor) -> None:
        self.monitor = monitor

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Refuse a trainer that cannot be monitored."""
        self.monitor.setup(trainer, pl_module, stage)

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        """Take note of what the sanity check has logged."""
        self.monitor.on_validation_end(trainer, pl_module)

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Look once, report, exit: nothing is trained and nothing else is written."""
        try:
            report = self._report(trainer, pl_module)
        except Exception as error:
            report = {"error": said(error)}
        if trainer.is_global_zero:
            Path(os.environ[DRY_RUN]).write_text(json.dumps(report), encoding="utf-8")
        raise SystemExit(1 if "error" in report else 0)

    def _report(self, trainer: Any, pl_module: Any) -> dict[str, Any]:
        session = self.monitor.run.open(trainer, pl_module)
        try:
            return self._report_on(session, trainer, pl_module)
        finally:
            session.close()

    def _report_on(self, session: Watch, trainer: Any, pl_module: Any) -> dict[str, Any]:
        mesa = self.monitor
        schedule = session.plan(mesa.every_n_steps)
        every = f"every {schedule.every_n_steps} steps" if schedule.every_n_steps else "after each validation"
        report: dict[str, Any] = {
            "trainer": f"{type(trainer).__module__.partition('.trainer')[0]}.Trainer, "
            f"{type(trainer.strategy).__name__}, precision {trainer.precision}",
            "model": type(pl_module).__name__,
            "data": session.data_in_words(),
            "looks": f"{every}, {schedule.looks or 'an unknown number'} in all",
        }
        if not session.any_time:
            return report | {"table": "values come with the first validation"}
        started = time.perf_counter()
        look = session.measure((1, 1, 0))
        session.check_identified(look)
        seconds = time.perf_counter() - started
        seen = "\n".join(outlook(look, mesa.alarm, schedule.looks).lines())
        mesa.alarm.start(1)
        table = summary(f"{mesa.name} (before training)", look, mesa.alarm.judge(look), (), mesa.alarm)
        cost = f"this look took {seconds:.3g} s"
        if mesa.max_overhead is not None:
            least = seconds / mesa.max_overhead
            cost += f"; with max_overhead={mesa.max_overhead:g}, at most one every {least:.3g} s of training"
        return report | {"seen": seen, "table": table, "cost": cost}
