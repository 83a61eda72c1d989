"""One fit under the monitor: its memory, and the five verbs of a look."""

import copy
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning_utilities.core.rank_zero import rank_zero_info, rank_zero_warn

from lightning_mesa.callbacks.compat import check_strategy, journal_folder, monitors_of, validation_metrics
from lightning_mesa.callbacks.logged import LoggedSession
from lightning_mesa.callbacks.notices import healthy_weights, no_look, no_memory, say_outlook
from lightning_mesa.callbacks.session import Session
from lightning_mesa.callbacks.timetable import Timetable, position
from lightning_mesa.callbacks.watch import Watch
from lightning_mesa.checks import Look
from lightning_mesa.data.data_regimes import Reloads, goes_on_from_best
from lightning_mesa.errors import ConfigurationError, MesaWarning, said
from lightning_mesa.judge.alarm import Judgement
from lightning_mesa.objectives.logged import Logged
from lightning_mesa.observe.context import LookContext, Reading
from lightning_mesa.observe.isolation import random_streams
from lightning_mesa.observe.processes import together
from lightning_mesa.observe.weights import ScoredWeights
from lightning_mesa.records import Alert
from lightning_mesa.report import metrics
from lightning_mesa.report.dashboard import Dashboard
from lightning_mesa.report.summary import muted, summary

if TYPE_CHECKING:
    from lightning_mesa.callbacks.monitor import MesaMonitor


class Run:
    """What a monitor remembers of one fit, and how it looks.

    Args:
        monitor: What the user asked for.

    Attributes:
        alerts: All alerts of the run.
        stop_reason: Why the monitor asked the run to stop, or None.
        disabled: Whether the monitor is off, after an error or by the trainer's settings.
        timetable: When looks are due and what they have cost.
        last: The last look and what the alarm said of it, None before the first.
    """

    def __init__(self, monitor: "MesaMonitor") -> None:
        self.monitor, self.name, self.alarm = monitor, monitor.name, monitor.alarm
        self.alarm.start(None)
        self.alerts: list[Alert] = []
        self.stop_reason: str | None = None
        self.disabled = False
        self.timetable = Timetable(monitor.max_overhead)
        self._dashboard = Dashboard(self.name, monitor.hypotheses, self.alarm.checks, monitor.sinks)
        self._healthy_checkpoint: str | None = None
        self._reloads = Reloads()
        self._sources: dict[str, dict[str, Any]] = {}
        for probe in monitor.probes:
            probe.forget()
        # What follows is not kept in checkpoints.
        self.last: tuple[Look, Judgement] | None = None
        self._session: Watch | None = None
        self._waits = False  # for values that come later in this validation
        self._logged_in_sanity: set[str] | None = None
        self._folder: Path | None = None
        self._off = ""  # why, after an error

    def start(self, trainer: Any, pl_module: Any) -> None:
        """Find the data and plan the looks; take the first one, or go on from the last one."""
        if self.disabled:
            if self.timetable.looked is not None:  # Lightning's checkpoints lack the values that others may monitor
                metrics.to_callback_metrics(trainer, self._dashboard.values | {f"{self.name}/disabled": 1.0})
            return
        device = trainer.strategy.root_device
        with self.guard(trainer, at_start=True), self.timetable.budget.spending(device):
            self._begin(trainer, pl_module)

    def after_batch(self, trainer: Any, pl_module: Any) -> None:
        """Look in steps of ``every_n_steps``, where that is the schedule."""
        if not self.disabled and self.timetable.in_batch(trainer):
            self.look(trainer, pl_module, in_batch=True)

    def after_validation(self, trainer: Any, pl_module: Any) -> None:
        """Look, if all values are there by now."""
        if self._session is None or self.disabled or trainer.sanity_checking:
            return
        self._reloads.watch(pl_module)  # before the first validation there was nothing to choose weights by
        if self.timetable.after_validation(trainer):
            self._waits = not self._session.ready()
            if not self._waits:
                self.look(trainer, pl_module, in_batch=True)
        metrics.to_callback_metrics(trainer, {f"{self.name}/age_steps": float(self.timetable.age(trainer))})

    def at_end_of_validation(self, trainer: Any, pl_module: Any) -> None:
        """Look at what the module's own hook has logged at the end of the validation."""
        if trainer.sanity_checking and isinstance(self.monitor.hypotheses.base, Logged):
            self._logged_in_sanity = set(validation_metrics(trainer))
        if self._waits and not self.disabled:
            self._waits = False
            self.look(trainer, pl_module, in_batch=True)

    def finish(self, trainer: Any, pl_module: Any) -> None:
        """Take the last look."""
        if self.disabled or self._session is None:
            return
        if self._session.any_time and self.timetable.at_end(trainer):
            self.look(trainer, pl_module, in_batch=False)
        metrics.to_callback_metrics(trainer, {f"{self.name}/overhead": self.timetable.budget.overhead})

    def print_table(self) -> None:
        """The last look and all alerts, in the log; or why there was none."""
        if self.last is not None:
            remarks = [
                *muted(self.last[0], self.alarm),
                *filter(None, [self._off and f"{self.name} is {self._off}", self._stopped()]),
            ]
            rank_zero_info(summary(f"{self.name} (fit)", *self.last, self.alerts, self.alarm, remarks))
        elif self.timetable.looked is None and not self.disabled:
            rank_zero_warn(no_look(self.name, began=self._session is not None), category=MesaWarning)

    def let_go(self, *, keep_items: bool) -> None:
        """Close the environments; items are kept for a test after the fit, if asked."""
        self._reloads.unwatch()
        self._close()
        self._session = self._session if keep_items else None

    def state_dict(self) -> dict[str, Any]:
        """Plain values only: checkpoints are loaded with ``weights_only=True``."""
        return {
            "version": 1,
            "alarm": self.alarm.state_dict(),
            "alerts": [dict(vars(alert)) for alert in self.alerts],
            "stop_reason": self.stop_reason,
            "disabled": self.disabled,
            "dashboard": self._dashboard.state_dict(),
            "timetable": self.timetable.state_dict(),
            "healthy_checkpoint": self._healthy_checkpoint,
            "reloaded": self._reloads.seen,
            "levels": {where: dict(state) for where, state in self._sources.items()},
            "probes": {f"{i}/{probe.name}": probe.state_dict() for i, probe in enumerate(self.monitor.probes)},
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on where the checkpoint was written."""
        self.alarm.load_state_dict(state_dict["alarm"])
        self.alerts = [Alert(**alert) for alert in state_dict["alerts"]]
        self.stop_reason = state_dict["stop_reason"]
        self.disabled = state_dict["disabled"]
        self._dashboard.load_state_dict(state_dict["dashboard"])
        self.timetable.load_state_dict(state_dict["timetable"])
        self._healthy_checkpoint = state_dict["healthy_checkpoint"]
        self._reloads.seen = state_dict["reloaded"]
        self._sources = {where: dict(state) for where, state in state_dict["levels"].items()}
        for i, probe in enumerate(self.monitor.probes):
            if (state := state_dict["probes"].get(f"{i}/{probe.name}")) is not None:  # else it is a new one
                probe.load_state_dict(state)

    def __getstate__(self) -> dict[str, Any]:
        """Without the data."""
        return vars(self) | {"_session": None}

    @contextmanager
    def guard(self, trainer: Any, *, at_start: bool = False) -> Iterator[None]:
        """An error inside ends the monitor and not the training, but for errors of the first look."""
        try:
            yield
        except Exception as error:
            asked_for = self.monitor.on_error == "raise"
            if asked_for or (not self.monitor.autoloaded and (at_start or trainer.fast_dev_run)):
                raise
            self.disabled = True
            self._close()
            self._off = f"off from step {trainer.global_step} on, training goes on: {said(error)}"
            warnings.warn(
                f"MesaMonitor {self.name!r} is {self._off} (on_error='raise' shows where)", MesaWarning, stacklevel=2
            )
            with suppress(Exception), random_streams(self.monitor.seed):  # loggers may draw
                self._dashboard.write_disabled(trainer, (self.timetable.looked or (0, 0))[1])

    def look_once(self, trainer: Any, pl_module: Any) -> None:
        """One look and the table, for ``trainer.validate`` and ``trainer.test``; the alarm's memory is not touched."""
        with self.guard(trainer, at_start=True), random_streams(self.monitor.seed):
            check_strategy(trainer)
            try:
                session = self.open(trainer, pl_module)
            except ConfigurationError as error:
                # Lightning lets go of validation data between a fit and a test.
                if self._session is None or self._session.pl_module is not pl_module:
                    if trainer.state.fn != "test":
                        raise
                    warnings.warn(f"MesaMonitor {self.name!r} takes no look: {error}", MesaWarning, stacklevel=2)
                    return
                session = self._session
            try:
                look = session.measure((1, 1, 0))
            finally:
                if session is not self._session:
                    session.close()
            alarm = copy.copy(self.alarm)
            alarm.start(1)
            judgement = alarm.judge(look)
            metrics.to_callback_metrics(trainer, metrics.of_look(self.name, look, judgement, alarm.checks))
            title = f"{self.name} ({trainer.state.fn.value})"
            rank_zero_info(summary(title, look, judgement, judgement.alerts, alarm))

    def open(self, trainer: Any, pl_module: Any) -> Watch:
        """Find the data.

        Raises:
            ConfigurationError: If there are none, or they do not hold what the objectives score.
        """
        asked = self.monitor
        context = LookContext(
            trainer, pl_module, asked.hypotheses, asked.reading, asked.seed, self.name, asked.limit_batches
        )
        if not isinstance(asked.hypotheses.base, Logged):
            weights = ScoredWeights(trainer, asked, asked.weights)
            return Session(
                context, asked.reference, asked.shifted, weights, asked.probes, self.alarm.checks, self._sources
            )
        if asked.shifted is None or asked.reading != Reading() or asked.probes:
            raise ConfigurationError(
                "of logged values there are no batches: pass shifted= names of validation loaders, and leave out "
                "forward=, inputs=, outputs=, groups=, cue= and probes=."
            )
        return LoggedSession(context, asked.reference, asked.shifted, self._logged_in_sanity)

    def _begin(self, trainer: Any, pl_module: Any) -> None:
        with together(trainer):
            session = self._session = self.open(trainer, pl_module)
            schedule = session.plan(self.monitor.every_n_steps)
        monitoring = monitors_of(trainer, f"{self.name}/")
        self.timetable.follow(schedule, take_all=bool(trainer.fast_dev_run or monitoring))
        if monitoring and self.monitor.max_overhead is not None:
            rank_zero_info(f"{self.name} takes every look, whatever it costs, as {monitoring[0]}")
        self._folder = journal_folder(trainer, self.name)
        if goes_on_from_best(trainer):
            self._reloads.seen = True
        if self._reloads.seen:
            session.adapt_to_reload()
        rank_zero_info(f"{self.name} looks at {session.data_in_words()}")
        if self.timetable.looked is not None:
            self._dashboard.go_on(trainer, self._folder, self.timetable.looked[0])
            session.rehearse()
            self._reloads.watch(pl_module)
            return
        if trainer.global_step > 0:
            warnings.warn(no_memory(self.name, trainer.global_step), MesaWarning, stacklevel=2)
        self._dashboard.begin(trainer, self._folder)
        self.alarm.start(schedule.looks, since_step=trainer.global_step)
        if session.any_time:
            self.look(trainer, pl_module, in_batch=False)
            if cost := session.cost_in_words(self.timetable.cost):
                rank_zero_info(f"{self.name}: {cost}")

    def look(self, trainer: Any, pl_module: Any, *, in_batch: bool) -> None:
        """Observe and measure, judge, report, act; an error ends the monitor, see :meth:`guard`."""
        session = self._session
        assert session is not None
        here, first = position(trainer, in_batch=in_batch), self.timetable.looked is None
        with self.guard(trainer, at_start=first), self.timetable.looking(trainer, here):
            if self._reloads.seen and (changed := session.adapt_to_reload()):
                rank_zero_info(f"{self.name} from step {trainer.global_step} on: {changed}")
            plan = (self.timetable.number, self.alarm.looks, self.alarm.since_step)
            with random_streams(self.monitor.seed):
                look = session.measure(plan, at_end=not (in_batch or first))
                self._sources = session.state_dict()
                if first:
                    session.check_identified(look)
                    session.warn_without_room(look)
                    if self._folder is not None:
                        say_outlook(self.name, look, self.alarm)
                with trainer.profiler.profile(f"[{self.name}]judge"):
                    judgement = self.alarm.judge(look, self._healthy_checkpoint)
                self.alerts += judgement.alerts
                self.last = (look, judgement)
                with trainer.profiler.profile(f"[{self.name}]report"), together(trainer):
                    about = self._about(first)
                    self._dashboard.write(trainer, self._folder, look, judgement, here[1], about)
            with together(trainer):
                self._act(trainer, pl_module, judgement)

    def _act(self, trainer: Any, pl_module: Any, judgement: Judgement) -> None:
        if self._folder is None:  # fast_dev_run leaves nothing behind and stops nothing
            return
        actions = self.monitor.actions
        if judgement.healthy and actions.checkpoints:
            self._healthy_checkpoint = str(self._folder / "healthy.ckpt")
            trainer.save_checkpoint(self._healthy_checkpoint)
        reason = actions.act(judgement.alerts, trainer, pl_module, self._folder)
        if reason is not None:
            self.stop_reason = reason
            rank_zero_info(f"{self.name}: {self._stopped()}")

    def _stopped(self) -> str:
        """Why the run was stopped and where healthy weights are; empty where it was not."""
        weights = healthy_weights(self.monitor.actions, self._healthy_checkpoint, self.alarm)
        return f"stopped by the monitor: {self.stop_reason}; {weights}" if self.stop_reason else ""

    def _about(self, first: bool) -> dict[str, float]:
        """Metrics about the monitor itself."""
        about = {f"{self.name}/age_steps": 0.0, f"{self.name}/disabled": 0.0}
        return about if first else about | {f"{self.name}/overhead": self.timetable.budget.overhead}

    def _close(self) -> None:
        """Close environments; items are kept for a test after the fit."""
        if self._session is not None:
            self._session.close()
            self._session = self._session if self._session.reusable else None
