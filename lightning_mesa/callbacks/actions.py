"""What follows an alert: the only room that may touch training."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from lightning_mesa.attach.importing import imported, is_path
from lightning_mesa.errors import ConfigurationError, shown
from lightning_mesa.records import Alert

Action: TypeAlias = Callable[[Alert, Any, Any], Any]
OnAlert: TypeAlias = str | Sequence[str | Action] | Action

KNOWN = ("log", "checkpoint", "stop")


class Actions:
    """Carries out ``on_alert``.

    Args:
        on_alert: ``"log"``, ``"checkpoint"``, ``"stop"``, a function ``(alert, trainer, pl_module)`` or its
            import path, or a list of these. Alerts are logged in any case.

    Raises:
        ConfigurationError: If an action is unknown.
    """

    def __init__(self, on_alert: OnAlert) -> None:
        listed = list(on_alert) if isinstance(on_alert, Sequence) and not isinstance(on_alert, str) else [on_alert]
        actions = [imported(str(action), "on_alert") if is_path(action) else action for action in listed]
        for action in actions:
            if not callable(action) and action not in KNOWN:
                raise ConfigurationError(
                    f"on_alert: unknown action {shown(action)}; use {', '.join(map(repr, KNOWN))}, a function "
                    "(alert, trainer, pl_module), or a list of these."
                )
        self.stops = "stop" in actions
        self.checkpoints = "checkpoint" in actions
        self.callables = [action for action in actions if callable(action)]

    def act(self, alerts: Sequence[Alert], trainer: Any, pl_module: Any, folder: Path) -> str | None:
        """Act on the alerts of one look.

        Returns:
            Why the run is to stop, or None.
        """
        if alerts and self.checkpoints:
            trainer.save_checkpoint(folder / f"alert-{alerts[0].step}.ckpt")
        for alert in alerts:
            for action in self.callables:
                action(alert, trainer, pl_module)
        severe = [alert for alert in alerts if alert.severity == "alert"]
        if not (severe and self.stops):
            return None
        # Lightning goes on until min_epochs and min_steps are met.
        trainer.should_stop = True
        return f"{severe[0].signature} on {severe[0].distribution!r} at step {severe[0].step}"
