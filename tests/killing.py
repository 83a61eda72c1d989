"""A training run in a process of its own, which is killed at any moment and resumed."""

import os
import random
import signal
import sys
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import forks
import toy
from lightning_mesa import MesaWarning, read_journal
from lightning_mesa.records import Finding
from lightning_mesa.report import journal
from namespace import CSVLogger, ModelCheckpoint


def train(folder: Path, *prepare: Callable[[Path], Any]) -> None:
    """A run that goes on from its last checkpoint, if there is one, into the same folder."""
    warnings.simplefilter("ignore")
    for one in prepare:
        one(folder)
    last = folder / "checkpoints" / "last.ckpt"
    checkpoints = ModelCheckpoint(folder / "checkpoints", save_last=True, every_n_epochs=2)
    toy.fit(
        folder,
        toy.monitor(),
        checkpoints,
        max_epochs=14,
        train_dataloaders=toy.loader(),  # Lightning does not keep the random state that a shuffle needs
        enable_checkpointing=True,
        logger=CSVLogger(folder, name="", version="log"),
        ckpt_path=last if last.exists() else None,
    )


def counted(folder: Path) -> int:
    """Train; returns how many calls and returns of Python functions that takes."""
    calls = 0

    def count(*_: Any) -> None:
        nonlocal calls
        calls += 1

    sys.setprofile(count)
    train(folder)
    sys.setprofile(None)
    return calls


def kill_after(folder: Path, calls: int) -> None:
    """End this process after that many more of them: a moment that does not depend on how fast the machine is."""
    left = calls

    def count(*_: Any) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.setprofile(count)


def kill_within_a_finding(folder: Path, number: int) -> None:
    """End this process when half of a finding's line is in the journal."""
    line_of, left = journal.json_line, number

    def torn(record: Any) -> str:
        nonlocal left
        line = line_of(record)
        left -= isinstance(record, Finding)
        if left == 0:
            with (folder / "log/mesa/findings.jsonl").open("a") as file:
                file.write(line[: len(line) // 2])
            os.kill(os.getpid(), signal.SIGKILL)
        return line

    journal.json_line = torn


def whole_run(folder: Path) -> int:
    """A run that nothing kills; returns its length in calls."""
    (ended,) = forks.run(partial(counted, folder))
    assert ended.returncode == 0, ended.stderr
    return int(ended.value)


def in_a_child(folder: Path, *prepare: Callable[[Path], Any]) -> bool:
    """Train in a process of its own; returns whether it was killed."""
    (ended,) = forks.run(partial(train, folder, *prepare))
    assert ended.returncode in (0, -signal.SIGKILL), ended.stderr
    return ended.returncode != 0


def killed_run(folder: Path, kills: int, longest: float, draw: random.Random) -> int:
    """Kill and resume a run until it ends, at moments drawn from its first calls; returns how often it was killed."""
    killed = 0
    while in_a_child(folder, *([partial(kill_after, calls=draw.randint(1, int(longest)))] if killed < kills else [])):
        killed += 1
    return killed


def story(folder: Path) -> tuple[list[dict[str, Any]], dict[Any, dict[str, Any]], int]:
    """Alerts in order, findings by identity, and the number of torn lines, from the journal of a run."""
    with warnings.catch_warnings(record=True) as torn:
        warnings.simplefilter("always", MesaWarning)
        alerts = [{**alert, "checkpoint": None} for alert in read_journal(folder / "log/mesa/alerts.jsonl")]
        findings = read_journal(folder / "log/mesa/findings.jsonl")
    by_identity = {journal.identity(finding): finding for finding in findings}
    assert len(by_identity) == len(findings)
    return alerts, by_identity, len(torn)
