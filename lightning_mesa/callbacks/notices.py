"""What a run says of itself in words: what it can see, why it saw nothing, and where healthy weights are."""

from lightning_utilities.core.rank_zero import rank_zero_info, rank_zero_warn

from lightning_mesa.callbacks.actions import Actions
from lightning_mesa.checks import Look
from lightning_mesa.errors import MesaWarning
from lightning_mesa.judge.alarm import Alarm
from lightning_mesa.judge.outlook import outlook


def say_outlook(name: str, look: Look, alarm: Alarm) -> None:
    """Say once, at the first look, what can be seen; warn where what is asked for cannot raise an alert.

    Args:
        name: The monitor's name.
        look: The first look.
        alarm: The alarm, its looks planned.
    """
    ahead = outlook(look, alarm, alarm.looks)
    severe = [check for check in alarm.checks if check.severity == "alert" and check.name in ahead.fires]
    none = not any(ahead.fires[check.name] for check in severe)
    rank_zero_info(f"{name} {ahead.short()}{'; it can raise no alert, only warnings' if none else ''}")
    # What nobody asked for is no fault.
    reasons = {why: None for check in severe for why in ahead.silent[check.name].values() if why != check.untested}
    if none and reasons:
        rank_zero_warn(
            f"MesaMonitor {name!r} can raise no alert in this run: {ahead.gate or '; '.join(reasons)}. Where items "
            "are too few, give more or look less often (every_n_steps=); where data are adaptive, give some that the "
            "training does not adapt to. `lightning-mesa doctor` shows all that can be seen.",
            category=MesaWarning,
        )


def no_memory(name: str, step: int) -> str:
    """That a run goes on from a checkpoint which knows nothing of the looks before it."""
    return (
        f"MesaMonitor {name!r} has no memory of the looks before step {step}: the checkpoint that this run goes on "
        "from does not hold its state. Its guarantee starts anew here; that of the whole run is weaker, at most alpha "
        "for each part."
    )


def no_look(name: str, *, began: bool) -> str:
    """Why a fit has ended without a look, and what to do.

    Args:
        name: The monitor's name.
        began: Whether training has begun, so that only values of a validation were waited for.
    """
    if not began:
        return f"MesaMonitor {name!r} took no look: this fit had no training step."
    return (
        f"MesaMonitor {name!r} took no look: no validation ended in this fit, and what it looks at is logged there. "
        "Train longer, or validate more often: Trainer(val_check_interval=..., check_val_every_n_epoch=1)."
    )


def healthy_weights(actions: Actions, checkpoint: str | None, alarm: Alarm) -> str:
    """Where the last healthy weights are, or why there are none, for a run that is stopped.

    Args:
        actions: What follows an alert.
        checkpoint: Path of the last healthy checkpoint, or None.
        alarm: The alarm, which remembers the last healthy look.
    """
    step = alarm.last_healthy_step
    if checkpoint is not None:
        return f"the last healthy weights, of step {step}, are in {checkpoint}"
    if step is None:
        return (
            "there are no healthy weights: at no look was the gate open, base kept everywhere and every check without "
            "evidence; look more often (every_n_steps=, max_overhead=None) to find such a step"
        )
    return f"step {step} was healthy, and its weights were not kept: pass on_alert=['checkpoint', 'stop']"
