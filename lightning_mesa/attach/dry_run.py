"""The look before training and nothing more, for ``lightning-mesa doctor``."""

import json
import os
import time
from pathlib import Path
from typing import Any

from lightning_mesa.callbacks.logged import LoggedSession
from lightning_mesa.callbacks.monitor import MesaMonitor
from lightning_mesa.report.summary import summary

DRY_RUN = "LIGHTNING_MESA_DRY_RUN"
"""Set by ``lightning-mesa doctor`` alone, to where it wants the report."""


class DryRun(MesaMonitor):
    """Takes the look before training, writes what it found where the environment says, and ends the script."""

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Look once, report, exit: nothing is trained and nothing else is written."""
        try:
            report = self._report(trainer, pl_module)
        except Exception as error:
            report = {"error": f"{type(error).__name__}: {error}"}
        if trainer.is_global_zero:
            Path(os.environ[DRY_RUN]).write_text(json.dumps(report), encoding="utf-8")
        raise SystemExit(1 if "error" in report else 0)

    def _report(self, trainer: Any, pl_module: Any) -> dict[str, Any]:
        session = self._session = self._open(trainer, pl_module)  # closed as the script ends
        schedule = session.plan(self.every_n_steps)
        every = f"every {schedule.every_n_steps} steps" if schedule.every_n_steps else "after each validation"
        report: dict[str, Any] = {
            "trainer": f"{type(trainer).__module__.partition('.trainer')[0]}.Trainer, "
            f"{type(trainer.strategy).__name__}, precision {trainer.precision}",
            "model": type(pl_module).__name__,
            "data": session.data_in_words(),
            "looks": f"{every}, {schedule.looks or 'an unknown number'} in all",
        }
        if isinstance(session, LoggedSession):
            return report | {"table": "values come with the first validation"}
        started = time.perf_counter()
        look = session.measure((1, 1, 0))
        session.check_identified(look)
        seconds = time.perf_counter() - started
        self.alarm.start(1)
        table = summary(look, self.alarm.judge(look), (), None, self.alarm.checks)
        budget = "" if self.max_overhead is None else f"; with max_overhead={self.max_overhead:g}, at most one every "
        budget += "" if self.max_overhead is None else f"{seconds / self.max_overhead:.3g} s of training"
        return report | {"table": table, "cost": f"this look took {seconds:.3g} s{budget}"}
