"""A training run in a process of its own, to be killed at any moment and resumed."""

import os
import random
import signal
import time
import warnings
from pathlib import Path

import toy
from lightning_mesa import MesaWarning, read_journal
from lightning_mesa.report.journal import identity
from namespace import CSVLogger, ModelCheckpoint


class Slow(toy.ToyModel):
    """Leaves time to be killed in."""

    def training_step(self, batch, batch_idx):
        time.sleep(0.004)
        return super().training_step(batch, batch_idx)


def train(folder: Path) -> None:
    """A run that goes on from its last checkpoint, if there is one, into the same folder."""
    warnings.simplefilter("ignore")
    last = folder / "checkpoints" / "last.ckpt"
    checkpoints = ModelCheckpoint(folder / "checkpoints", save_last=True, every_n_epochs=2)
    toy.fit(
        folder,
        toy.monitor(),
        checkpoints,
        model=Slow(),
        max_epochs=14,
        train_dataloaders=toy.loader(),  # Lightning does not keep the random state that a shuffle needs
        enable_checkpointing=True,
        logger=CSVLogger(folder, name="", version="log"),
        ckpt_path=last if last.exists() else None,
    )


def in_a_child(folder: Path, kill_after: float | None) -> bool:
    """Train in a process of its own; returns whether it was killed."""
    child = os.fork()
    if child == 0:
        silence = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silence, 1)
        os.dup2(silence, 2)
        try:
            train(folder)
            os._exit(0)
        except BaseException:
            os._exit(1)
    if kill_after is not None:
        time.sleep(kill_after)
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
    return os.WIFSIGNALED(status)


def killed_run(folder: Path, kills: int, longest: float, draw: random.Random) -> int:
    """Kill and resume a run until it ends; returns how often it was killed."""
    killed = 0
    while in_a_child(folder, draw.uniform(0.05, longest) if killed < kills else None):
        killed += 1
    return killed


def story(folder: Path) -> tuple[list, dict]:
    """Alerts in order, and findings by identity, from the journal of a run; torn lines are reported and left out."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MesaWarning)
        alerts = [{**alert, "checkpoint": None} for alert in read_journal(folder / "log/mesa/alerts.jsonl")]
        findings = read_journal(folder / "log/mesa/findings.jsonl")
    assert len({identity(finding) for finding in findings}) == len(findings)
    return alerts, {identity(finding): finding for finding in findings}
