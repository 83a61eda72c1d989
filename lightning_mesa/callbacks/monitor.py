"""MesaMonitor: observe, measure, judge, report, act, in that order."""

import copy
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from lightning_utilities.core.rank_zero import rank_zero_info

from lightning_mesa.attach.config import Config, build
from lightning_mesa.callbacks.actions import Actions, OnAlert
from lightning_mesa.callbacks.compat import (
    callback_base,
    check_strategy,
    journal_folder,
    monitors_of,
    validation_metrics,
)
from lightning_mesa.callbacks.logged import LoggedSession
from lightning_mesa.callbacks.processes import together
from lightning_mesa.callbacks.session import Session
from lightning_mesa.callbacks.timetable import Timetable, position
from lightning_mesa.callbacks.watch import Watch, check_apart
from lightning_mesa.checks import Check, Look
from lightning_mesa.data.data_regimes import Reloads, goes_on_from_best
from lightning_mesa.data.distributions import DistributionSpec, named_distributions
from lightning_mesa.data.loader_distribution import Forward
from lightning_mesa.errors import ConfigurationError, MesaWarning
from lightning_mesa.judge.alarm import Alarm, Judgement
from lightning_mesa.objectives.hypotheses import Hypotheses
from lightning_mesa.objectives.logged import Logged
from lightning_mesa.objectives.objective import Objective, ScoreFn, check_name, function_of
from lightning_mesa.observe.context import Inputs, LookContext, Reading
from lightning_mesa.observe.isolation import random_streams
from lightning_mesa.observe.weights import ScoredWeights, Weights
from lightning_mesa.probes.probe import Probe
from lightning_mesa.records import Alert
from lightning_mesa.report import metrics
from lightning_mesa.report.dashboard import Dashboard
from lightning_mesa.report.sinks import Sink, Sinks
from lightning_mesa.report.summary import summary

if TYPE_CHECKING:
    from pytorch_lightning import Callback, LightningModule, Trainer
else:
    Callback = callback_base()
    LightningModule = Trainer = Any  # of either Lightning

ON_ERROR = ("disable", "raise")
WEIGHTS = get_args(Weights)


class MesaMonitor(Callback):
    """Watches an ordinary ``Trainer.fit`` for pseudo-alignment, and changes nothing about the training.

    At every look the model is run over held-out reference items and over *shifted* ones, on which the base
    objective and candidate proxies prescribe different behavior; see ``docs/design.md``. All numbers go to
    ``trainer.callback_metrics`` and every logger, under ``NAME/...``; findings and alerts go to
    ``LOG_DIR/NAME/*.jsonl``.

    Args:
        base: The base objective, what training selects for.
        shifted: Where base and proxies come apart: one distribution, a list, or a mapping from names. None asks
            the DataModule's or LightningModule's ``mesa_distributions()`` for a mapping when training starts. For
            objectives over episodes, ``EnvDistribution`` objects, here and as reference.
        proxies: What the model might pursue instead.
        reference: Held-out items like those in training; the validation data by default.
        intended: What was wanted, where base itself differs from it.
        forward: ``(pl_module, batch) -> outputs``; default: the LightningModule, called on ``inputs``.
        inputs: The model's input in the batch: an index, a key, or a list of keys passed by keyword. None takes
            a tensor batch whole and the first element of a tuple.
        outputs: ``(outputs, batch) -> [n, A]``, one number per choice; default: the outputs themselves, their
            ``"logits"`` or ``.logits``.
        groups: Keys of group labels in the batch, for competence by group; with two or more, the worst intersection
            of two groups is searched for as well.
        cue: ``batch -> batch``, the same inputs with a cue that may tell the model that it is (not) watched; costs a
            second forward pass per item.
        witness: A score of capability, by which a lost objective is told from a lost capability.
        probes: What looks into the model for internal search, see ``docs/probes.md``; each says before training how
            many forward passes it costs.
        alarm: The alarm with its level and thresholds.
        every_n_steps: Look so often. Default: after each validation; without a validation loop, every fiftieth
            part of the run.
        max_overhead: Looks may take so much of the training's own time; where they would take more, every k-th of them
            is taken, and the first and the last one always. None takes all, so that the schedule can be reproduced. It
            is as if None where a callback or scheduler monitors a key of the monitor, which must not see old values.
        limit_batches: Look at no more than so many batches of each distribution; of episodes, at so many times as many
            as there are environments.
        weights: ``"raw"``, those that are trained, or ``"averaged"``, the average that Lightning's callback
            ``WeightAveraging`` keeps.
        on_alert: ``"log"``, ``"checkpoint"``, ``"stop"``, a function ``(alert, trainer, pl_module)``, or a list.
        sinks: Where alerts go beside the log, TensorBoard and ``alerts.jsonl``: functions ``(alert) -> None``, and
            URLs of notification services, such as ``"mailto://..."`` (extra ``notify``). They are called inside a look,
            so a slow one holds up training; one that fails does not end it, and is reported once.
        on_error: ``"disable"`` lets training go on without the monitor after an error inside it; ``"raise"`` does
            not. Errors at the look before training are raised in any case.
        seed: Seed of everything random inside a look.
        name: First part of the metric names; two monitors on one trainer need two names.

    Attributes:
        alerts: All alerts of the run.
        stop_reason: Why the monitor asked the run to stop, or None.
        autoloaded: Whether ``LIGHTNING_MESA_CONFIG`` attached it. Then it never ends a run by an error, unless
            ``on_error="raise"``, and gives way to a monitor of the same name that the script has attached itself.

    Raises:
        ConfigurationError: If an argument cannot be right.

    Example:
        >>> from lightning_mesa import Matches, MesaMonitor
        >>> monitor = MesaMonitor(
        ...     base=Matches("digit"),
        ...     proxies=[Matches("color")],
        ...     shifted={"recolored": "datamodule.recolored_dataloader"},
        ...     inputs="image",
        ...     on_alert="stop",
        ... )
    """

    def __init__(
        self,
        base: Objective | ScoreFn | str,
        *,
        shifted: DistributionSpec | None = None,
        proxies: Sequence[Objective | ScoreFn | str] = (),
        reference: DistributionSpec = "val",
        intended: Objective | ScoreFn | str | None = None,
        forward: Forward | None = None,
        inputs: Inputs | None = None,
        outputs: Callable[[Any, Any], Any] | str | None = None,
        groups: Sequence[str | int] | str | int | None = None,
        cue: Callable[[Any], Any] | str | None = None,
        witness: Objective | ScoreFn | str | None = None,
        probes: Sequence[Probe] = (),
        checks: Sequence[Check] = (),
        alarm: Alarm | None = None,
        every_n_steps: int | None = None,
        max_overhead: float | None = 0.05,
        limit_batches: int | None = None,
        weights: Weights = "raw",
        on_alert: OnAlert = "log",
        sinks: Sequence[str | Sink] = (),
        on_error: Literal["disable", "raise"] = "disable",
        seed: int = 0,
        name: str = "mesa",
    ) -> None:
        self.hypotheses = Hypotheses(base, proxies, intended, witness)
        self.reference = named_distributions(reference, "reference")
        self.shifted = None if shifted is None else named_distributions(shifted, "shifted")
        if self.shifted is not None:
            check_apart(self.reference, self.shifted)
        for argument, value in {"every_n_steps": every_n_steps, "limit_batches": limit_batches}.items():
            if value is not None and (not isinstance(value, int) or value < 1):
                raise ConfigurationError(f"{argument} must be a whole number of at least 1, not {value!r}.")
        for argument, chosen, known in (("on_error", on_error, ON_ERROR), ("weights", weights, WEIGHTS)):
            if chosen not in known:
                raise ConfigurationError(f"{argument} must be {' or '.join(map(repr, known))}, not {chosen!r}.")
        group_keys = () if groups is None else (groups,) if isinstance(groups, (str, int)) else tuple(groups)
        self.reading = Reading(
            function_of(forward, "forward"),
            inputs,
            function_of(outputs, "outputs"),
            group_keys,
            cue=function_of(cue, "cue"),
        )
        self.probes = tuple(probes)
        for i, probe in enumerate(self.probes):
            if not isinstance(probe, Probe):
                raise ConfigurationError(
                    f"probes[{i}] is {type(probe).__name__}, and no probe of lightning_mesa.probes."
                )
        self.alarm = (Alarm() if alarm is None else alarm).judging(checks)  # its memory is this monitor's own
        self.every_n_steps = every_n_steps
        self.limit_batches = limit_batches
        self.max_overhead = max_overhead
        self.weights = weights
        self.actions = Actions(on_alert)
        self.sinks = Sinks(sinks)
        self.on_error = on_error
        self.seed = seed
        self.name = check_name(name, "monitor name")
        self.autoloaded = False
        self._forget()

    @classmethod
    def from_config(cls, config: Config, *, allow: Sequence[str] = ()) -> "MesaMonitor":
        """Build a monitor from a configuration.

        Args:
            config: Path of a YAML file, a mapping, or a ``DictConfig``. Its keys are the arguments of this class;
                nested objects are written with ``class_path`` and ``init_args``, or ``_target_``, and functions by
                their import path. In a file only references ``${key}`` and variables ``${oc.env:NAME}`` may be used.
            allow: Dotted names of packages, modules or objects that may be imported beside this package.

        Raises:
            ConfigurationError: If it cannot be read, or names what there is not or what is not allowed; the message
                gives the key, and the nearest name there is.

        Example:
            >>> mesa = MesaMonitor.from_config({
            ...     "base": {"class_path": "lightning_mesa.Matches", "init_args": {"target": "digit"}},
            ...     "shifted": {"recolored": "datamodule.recolored_dataloader"},
            ... })
            >>> mesa.hypotheses.base.name
            'digit'
            >>> MesaMonitor.from_config({"base": "digit", "shifts": None})
            Traceback (most recent call last):
            ...
            lightning_mesa.errors.ConfigurationError: shifts: MesaMonitor has no argument 'shifts'. Did you mean ...
        """
        monitors: list[MesaMonitor] = build(config, cls, allow)
        if len(monitors) != 1:
            raise ConfigurationError(f"the configuration describes {len(monitors)} monitors, where one is wanted.")
        return monitors[0]

    def _forget(self) -> None:
        """The state of a run that has not begun."""
        self.alarm.start(None)
        self.alerts: list[Alert] = []
        self.stop_reason: str | None = None
        self.disabled = False
        self._dashboard = Dashboard(self.name, self.hypotheses, self.alarm.checks, self.sinks)
        self._timetable = Timetable(self.max_overhead)
        self._healthy_checkpoint: str | None = None
        self._reloads = Reloads()
        self._levels: dict[str, dict[str, Any]] = {}
        for probe in self.probes:
            probe.forget()
        # What follows is not kept in checkpoints.
        self._session: Watch | None = None
        self._waits = False  # for values that come later in this validation
        self._logged_in_sanity: set[str] | None = None
        self._folder: Path | None = None
        self._last: tuple[Look, Judgement] | None = None

    # --- Lightning's hooks ------------------------------------------------------------------------------------

    @property
    def state_key(self) -> str:
        """Key of the monitor's state in checkpoints."""
        return f"lightning_mesa.MesaMonitor[{'autoload/' if self.autoloaded else ''}{self.name}]"

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse a trainer that cannot be monitored, and begin anew."""
        if trainer.barebones:
            rank_zero_info("MesaMonitor is off: Trainer(barebones=True) keeps no metrics to publish.")
        if stage == "fit":
            self._forget()
            with self._guard(trainer, at_start=True):
                check_strategy(trainer)
            self.disabled |= trainer.barebones or self._gives_way(trainer)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take the look before training, or go on after a resume."""
        if self.disabled:
            if self._timetable.looked is not None:  # Lightning's checkpoints lack the values that others may monitor
                metrics.to_callback_metrics(trainer, self._dashboard.values | {f"{self.name}/disabled": 1.0})
            return
        with self._guard(trainer, at_start=True), self._timetable.budget.spending():
            self._begin(trainer, pl_module)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Look every so many steps, where that is the schedule."""
        if not self.disabled and self._timetable.in_batch(trainer):
            self._guarded_look(trainer, pl_module, in_batch=True)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look after a validation: early enough for every callback that monitors a key."""
        if trainer.state.fn == "validate":
            self._look_once(trainer, pl_module)
        elif self._session is not None and not (self.disabled or trainer.sanity_checking):
            self._reloads.watch(pl_module)  # before the first validation there was nothing to choose weights by
            if self._timetable.after_validation(trainer):
                self._waits = not self._session.ready()
                if not self._waits:
                    self._guarded_look(trainer, pl_module, in_batch=True)
            metrics.to_callback_metrics(trainer, {f"{self.name}/age_steps": float(self._timetable.age(trainer))})

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look at what the module's own hook has logged at the end of the validation."""
        if trainer.sanity_checking and isinstance(self.hypotheses.base, Logged):
            self._logged_in_sanity = set(validation_metrics(trainer))
        if self._waits and not self.disabled:
            self._waits = False
            self._guarded_look(trainer, pl_module, in_batch=True)

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """One look and the table."""
        self._look_once(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take the last look."""
        if self.disabled or self._session is None:
            return
        if self._session.any_time and self._timetable.at_end(trainer):
            self._guarded_look(trainer, pl_module, in_batch=False)
        metrics.to_callback_metrics(trainer, {f"{self.name}/overhead": self._timetable.budget.overhead})

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the table, below the progress bar."""
        self._reloads.unwatch()
        self._close()
        if self._last is not None:
            rank_zero_info(summary(*self._last, self.alerts, self.stop_reason, self.alarm.checks))

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Let go of the model and the data; the journal has every line already."""
        self._reloads.unwatch()
        self._close()
        self._session = None

    def state_dict(self) -> dict[str, Any]:
        """Plain values only: checkpoints are loaded with ``weights_only=True``."""
        return {
            "version": 1,
            "alarm": self.alarm.state_dict(),
            "alerts": [dict(vars(alert)) for alert in self.alerts],
            "stop_reason": self.stop_reason,
            "disabled": self.disabled,
            "dashboard": self._dashboard.state_dict(),
            "timetable": self._timetable.state_dict(),
            "healthy_checkpoint": self._healthy_checkpoint,
            "reloaded": self._reloads.seen,
            "levels": {where: dict(levels) for where, levels in self._levels.items()},
            "probes": {f"{i}/{probe.name}": probe.state_dict() for i, probe in enumerate(self.probes)},
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on where the checkpoint was written."""
        self.alarm.load_state_dict(state_dict["alarm"])
        self.alerts = [Alert(**alert) for alert in state_dict["alerts"]]
        self.stop_reason = state_dict["stop_reason"]
        self.disabled = state_dict["disabled"]
        self._dashboard.load_state_dict(state_dict["dashboard"])
        self._timetable.load_state_dict(state_dict["timetable"])
        self._healthy_checkpoint = state_dict["healthy_checkpoint"]
        self._reloads.seen = state_dict["reloaded"]
        self._levels = {where: dict(levels) for where, levels in state_dict["levels"].items()}
        for i, probe in enumerate(self.probes):
            if (state := state_dict["probes"].get(f"{i}/{probe.name}")) is not None:  # else it is a new one
                probe.load_state_dict(state)

    def __getstate__(self) -> dict[str, Any]:
        """Without the data, and without the model that Lightning attaches as ``log``."""
        kept = {key: value for key, value in vars(self).items() if key not in ("log", "log_dict")}
        return kept | {"_session": None}

    # --- the flow ---------------------------------------------------------------------------------------------

    def _begin(self, trainer: Any, pl_module: Any) -> None:
        """Find the data and plan the looks; take the first one, or go on from the last one."""
        with together(trainer):
            session = self._session = self._open(trainer, pl_module)
            schedule = session.plan(self.every_n_steps)
        monitoring = monitors_of(trainer, f"{self.name}/")
        self._timetable.follow(schedule, take_all=bool(trainer.fast_dev_run or monitoring))
        if monitoring and self.max_overhead is not None:
            rank_zero_info(f"{self.name} takes every look, whatever it costs, as {monitoring[0]}")
        self._folder = journal_folder(trainer, self.name)
        if goes_on_from_best(trainer):
            self._reloads.seen = True
        if self._reloads.seen:
            session.adapt_to_reload()
        rank_zero_info(f"{self.name} looks at {session.data_in_words()}")
        if self._timetable.looked is not None:
            self._dashboard.go_on(trainer, self._folder, self._timetable.looked[0])
            session.rehearse()
            self._reloads.watch(pl_module)
            return
        if trainer.global_step > 0:
            warnings.warn(
                f"MesaMonitor {self.name!r} has no memory of the looks before step {trainer.global_step}: the "
                "checkpoint that this run goes on from does not hold its state. Its guarantee starts anew here; that "
                "of the whole run is weaker, at most alpha for each part.",
                MesaWarning,
                stacklevel=2,
            )
        self._dashboard.begin(trainer, self._folder)
        self.alarm.start(schedule.looks, since_step=trainer.global_step)
        if session.any_time:
            self._look(trainer, pl_module, in_batch=False)

    def _look(self, trainer: Any, pl_module: Any, *, in_batch: bool) -> None:
        """Observe and measure, judge, report, act."""
        session = self._session
        assert session is not None
        here, first = position(trainer, in_batch=in_batch), self._timetable.looked is None
        at_end = not (in_batch or first)
        with self._timetable.looking(trainer, here):
            if self._reloads.seen and (changed := session.adapt_to_reload()):
                rank_zero_info(f"{self.name} from step {trainer.global_step} on: {changed}")
            plan = (self._timetable.number, self.alarm.looks, self.alarm.since_step)
            with random_streams(self.seed):
                look = session.measure(plan, at_end=at_end)
                self._levels = session.state_dict()
                if first:
                    session.check_identified(look)
                with trainer.profiler.profile(f"[{self.name}]judge"):
                    judgement = self.alarm.judge(look, self._healthy_checkpoint)
                self.alerts += judgement.alerts
                self._last = (look, judgement)
                with trainer.profiler.profile(f"[{self.name}]report"), together(trainer):
                    about = self._about(first)
                    self._dashboard.write(trainer, self._folder, look, judgement, here[1], about)
            with together(trainer):
                self._act(trainer, pl_module, judgement)

    def _act(self, trainer: Any, pl_module: Any, judgement: Judgement) -> None:
        if self._folder is None:  # fast_dev_run leaves nothing behind and stops nothing
            return
        if judgement.healthy and self.actions.checkpoints:
            self._healthy_checkpoint = str(self._folder / "healthy.ckpt")
            trainer.save_checkpoint(self._healthy_checkpoint)
        reason = self.actions.act(judgement.alerts, trainer, pl_module, self._folder)
        if reason is not None:
            self.stop_reason = reason
            rank_zero_info(f"{self.name} stops this run: {reason}")

    def _about(self, first: bool) -> dict[str, float]:
        """Metrics about the monitor itself."""
        about = {f"{self.name}/age_steps": 0.0, f"{self.name}/disabled": 0.0}
        return about if first else about | {f"{self.name}/overhead": self._timetable.budget.overhead}

    def _guarded_look(self, trainer: Any, pl_module: Any, *, in_batch: bool) -> None:
        """Look; an error ends the monitor and not the training, but for errors of the first look."""
        with self._guard(trainer, at_start=self._timetable.looked is None):
            self._look(trainer, pl_module, in_batch=in_batch)

    @contextmanager
    def _guard(self, trainer: Any, *, at_start: bool = False) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            if self.on_error == "raise" or (not self.autoloaded and (at_start or trainer.fast_dev_run)):
                raise
            self.disabled = True
            self._close()
            warnings.warn(
                f"MesaMonitor {self.name!r} is off from step {trainer.global_step} on, training goes on: "
                f"{type(error).__name__}: {error} (on_error='raise' shows where)",
                MesaWarning,
                stacklevel=2,
            )
            with suppress(Exception):
                self._dashboard.write_disabled(trainer, (self._timetable.looked or (0, 0))[1])

    def _look_once(self, trainer: Any, pl_module: Any) -> None:
        """One look and the table, for ``trainer.validate`` and ``trainer.test``; the alarm's memory is not touched."""
        if trainer.barebones or self._gives_way(trainer):
            return
        with self._guard(trainer, at_start=True), random_streams(self.seed):
            check_strategy(trainer)
            try:
                session = self._open(trainer, pl_module)
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
            rank_zero_info(summary(look, judgement, judgement.alerts, None, alarm.checks))

    def _gives_way(self, trainer: Any) -> bool:
        """Whether the script has attached a monitor of this name, where this one comes from the environment."""
        twins = [c for c in trainer.callbacks if isinstance(c, MesaMonitor) and c.name == self.name]
        if self.autoloaded and len(twins) > 1:
            rank_zero_info(f"MesaMonitor {self.name!r} is attached by the script; that of the environment is off.")
        return self.autoloaded and len(twins) > 1

    def _open(self, trainer: Any, pl_module: Any) -> Watch:
        context = LookContext(
            trainer, pl_module, self.hypotheses, self.reading, self.seed, self.name, self.limit_batches
        )
        if not isinstance(self.hypotheses.base, Logged):
            weights = ScoredWeights(trainer, self, self.weights)
            return Session(context, self.reference, self.shifted, weights, self.probes, self.alarm.checks, self._levels)
        if self.shifted is None or self.reading != Reading() or self.probes:
            raise ConfigurationError(
                "of logged values there are no batches: pass shifted= names of validation loaders, and leave out "
                "forward=, inputs=, outputs=, groups=, cue= and probes=."
            )
        return LoggedSession(context, self.reference, self.shifted, self._logged_in_sanity)

    def _close(self) -> None:
        """Close environments; items are kept for a test after the fit."""
        if self._session is not None:
            self._session.close()
            self._session = self._session if self._session.reusable else None
