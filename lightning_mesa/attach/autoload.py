"""What Lightning calls whenever a Trainer is made: ``LIGHTNING_MESA_CONFIG=mesa.yaml python train.py``."""

import os
from typing import Any

CONFIG, ALLOW = "LIGHTNING_MESA_CONFIG", "LIGHTNING_MESA_ALLOW"


def factory() -> list[Any]:
    """The monitors of the configuration that ``LIGHTNING_MESA_CONFIG`` names; none, and no import, without it.

    ``LIGHTNING_MESA_ALLOW`` holds dotted names, divided by commas, of what may be imported beside this package.
    """
    path = os.environ.get(CONFIG)
    return _monitors(path) if path else []


def allowed(names: str) -> list[str]:
    """The dotted names in a value of ``LIGHTNING_MESA_ALLOW``."""
    return [stripped for name in names.split(",") if (stripped := name.strip())]


def _monitors(path: str) -> list[Any]:
    try:
        from lightning_mesa.attach.config import build
        from lightning_mesa.callbacks.monitor import MesaMonitor

        monitors: list[MesaMonitor] = build(path, MesaMonitor, allowed(os.environ.get(ALLOW, "")))
        for monitor in monitors:
            monitor.autoloaded = True
        if "LIGHTNING_MESA_DRY_RUN" not in os.environ:
            return monitors
        from lightning_mesa.attach.dry_run import DryRun

        return [DryRun(monitor) for monitor in monitors]
    except (Exception, SystemExit) as error:  # a Trainer that has nothing to do with us must live
        import warnings

        from lightning_mesa.errors import ConfigurationError, MesaWarning, said

        reason = str(error) if isinstance(error, ConfigurationError) else said(error)
        warnings.warn(f"{CONFIG}={path} attaches no monitor: {reason}", MesaWarning, stacklevel=2)
        return []
