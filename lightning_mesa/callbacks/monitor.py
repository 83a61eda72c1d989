"""MesaMonitor: the face that Lightning sees; what happens at its hooks is in ``run.py``."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal, get_args

from lightning_utilities.core.rank_zero import rank_zero_info

from lightning_mesa.attach.config import Config, build
from lightning_mesa.callbacks.actions import Actions, OnAlert
from lightning_mesa.callbacks.compat import callback_base, check_strategy
from lightning_mesa.callbacks.run import Run
from lightning_mesa.callbacks.watch import check_apart
from lightning_mesa.checks import Check
from lightning_mesa.data.distributions import DistributionSpec, named_distributions
from lightning_mesa.errors import ConfigurationError, shown
from lightning_mesa.judge.alarm import Alarm
from lightning_mesa.objectives.hypotheses import Hypotheses
from lightning_mesa.objectives.objective import Objective, ScoreFn, check_name, function_of, named_keys
from lightning_mesa.observe.arguments import forward_of
from lightning_mesa.observe.context import Forward, Groups, Inputs, Reading
from lightning_mesa.observe.weights import Weights
from lightning_mesa.probes.probe import Probe
from lightning_mesa.records import Alert
from lightning_mesa.report.sinks import Sink, Sinks

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
        forward: What is called: a function ``(pl_module, batch) -> outputs``, perhaps by its import path
            ``"package.module:name"``; or a submodule or method of the LightningModule by its path, such as ``"net"``,
            ``"model.encoder"`` or ``"predict"``, called on ``inputs``. Default: the LightningModule itself.
        inputs: The model's input in the batch: an index, a key, or a list of keys, which are passed by keyword.
            ``"*"`` passes the whole batch as the one argument. None takes a tensor batch whole and the first element
            of a tuple.
        outputs: ``(outputs, batch) -> [n, A]``, one number per choice; default: the outputs themselves, their
            ``"logits"`` or ``.logits``.
        groups: Keys of group labels in the batch, or functions ``batch -> [n]`` labels, for competence by group: one, a
            list, or a mapping from names. With two or more, the worst intersection of two groups is searched for too.
        cue: ``batch -> batch``, the same inputs with a cue that may tell the model that it is (not) watched; costs a
            second forward pass per item.
        witness: A score of capability, by which a lost objective is told from a lost capability.
        probes: What looks into the model for internal search, see ``docs/probes.md``; each says before training how
            many forward passes it costs.
        checks: Checks of your own, asked and tested beside the built-in ones; see ``docs/checks.md``.
        alarm: The alarm with its level and thresholds.
        every_n_steps: Training batches between two looks, counted where an optimizer has stepped (one a batch, however
            many optimizers). Default: after each validation; without a validation loop, every fiftieth part of the run.
        max_overhead: Largest share of the training's own time that looks may use. Where they would use more, only every
            k-th is taken; the first and the last are always taken. ``None`` takes every scheduled look, so that the
            schedule can be reproduced; so does any callback or scheduler that monitors a key of the monitor.
        limit_batches: Most batches of each distribution that a look reads; of episodes, this many times the number of
            environments.
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
        run: What it remembers of this fit.
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
        groups: Groups | None = None,
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
                raise ConfigurationError(f"{argument} must be a whole number of at least 1, not {shown(value)}.")
        for argument, chosen, known in (("on_error", on_error, ON_ERROR), ("weights", weights, WEIGHTS)):
            if chosen not in known:
                raise ConfigurationError(f"{argument} must be {' or '.join(map(repr, known))}, not {shown(chosen)}.")
        self.reading = Reading(
            forward_of(forward),
            inputs,
            function_of(outputs, "outputs"),
            {} if groups is None else named_keys(groups, "groups"),
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
        self.run = Run(self)

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

    @property
    def alerts(self) -> list[Alert]:
        """All alerts of the run."""
        return self.run.alerts

    @property
    def stop_reason(self) -> str | None:
        """Why the monitor asked the run to stop, or None."""
        return self.run.stop_reason

    @property
    def disabled(self) -> bool:
        """Whether the monitor is off, after an error or by the trainer's settings."""
        return self.run.disabled

    # --- Lightning's hooks ------------------------------------------------------------------------------------

    @property
    def state_key(self) -> str:
        """Key of the monitor's state in checkpoints."""
        return f"lightning_mesa.MesaMonitor[{'autoload/' if self.autoloaded else ''}{self.name}]"

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse a trainer that cannot be monitored, and begin anew."""
        if trainer.barebones:
            rank_zero_info("MesaMonitor is off: Trainer(barebones=True) keeps no metrics to publish.")
        if stage == "predict":
            rank_zero_info(f"MesaMonitor {self.name!r} takes no look in trainer.predict; trainer.validate takes one.")
        if stage == "fit":
            self.run = Run(self)
            with self.run.guard(trainer, at_start=True):
                check_strategy(trainer)
            self.run.disabled |= trainer.barebones or self._gives_way(trainer)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take the look before training, or go on after a resume."""
        self.run.start(trainer, pl_module)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Look in steps of ``every_n_steps``, where that is the schedule."""
        self.run.after_batch(trainer, pl_module)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look after a validation: early enough for every callback that monitors a key."""
        if trainer.state.fn == "validate":
            self._look_once(trainer, pl_module)
        else:
            self.run.after_validation(trainer, pl_module)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look at what the module's own hook has logged at the end of the validation."""
        self.run.at_end_of_validation(trainer, pl_module)

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """One look and the table."""
        self._look_once(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take the last look."""
        self.run.finish(trainer, pl_module)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the table, below the progress bar."""
        self.run.let_go(keep_items=True)
        self.run.print_table()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Let go of the model and the data; the journal has every line already."""
        self.run.let_go(keep_items=False)

    def state_dict(self) -> dict[str, Any]:
        """Plain values only: checkpoints are loaded with ``weights_only=True``."""
        return self.run.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on where the checkpoint was written."""
        self.run.load_state_dict(state_dict)

    def __getstate__(self) -> dict[str, Any]:
        """Without the model that Lightning attaches as ``log``."""
        return {key: value for key, value in vars(self).items() if key not in ("log", "log_dict")}

    def _look_once(self, trainer: Any, pl_module: Any) -> None:
        if not trainer.barebones and not self._gives_way(trainer):
            self.run.look_once(trainer, pl_module)

    def _gives_way(self, trainer: Any) -> bool:
        """Whether the script has attached a monitor of this name, where this one comes from the environment."""
        twins = [c for c in trainer.callbacks if isinstance(c, MesaMonitor) and c.name == self.name]
        if self.autoloaded and len(twins) > 1:
            rank_zero_info(f"MesaMonitor {self.name!r} is attached by the script; that of the environment is off.")
        return self.autoloaded and len(twins) > 1
