"""Progress of a look on Lightning's progress bar, once it has taken so long that one may wonder."""

import sys
import time
from collections.abc import Generator
from typing import Any, TypeVar, cast

PATIENCE_SECONDS = 2.0

T = TypeVar("T")
R = TypeVar("R")


def progress(
    trainer: Any, batches: Generator[T, None, R], description: str, total: int | None, started: float
) -> Generator[T, None, R]:
    """Pass batches on, and show how many have been passed on when the look takes long.

    Args:
        trainer: The trainer; nothing is shown where its progress bar is absent or disabled.
        batches: What to pass on, from a generator.
        description: Shown beside the bar.
        total: Number of batches, or None where unknown.
        started: ``time.perf_counter()`` when the look began.

    Returns:
        What the generator returns.
    """
    bar = trainer.progress_bar_callback
    shown: _RichTask | _TqdmTask | None = None
    try:
        done = 0
        while True:
            try:
                batch = next(batches)
            except StopIteration as end:
                return cast(R, end.value)
            if shown is None and bar is not None and time.perf_counter() - started > PATIENCE_SECONDS:
                if getattr(bar, "is_disabled", True):
                    bar = None
                elif not hasattr(bar, "progress"):
                    shown = _TqdmTask(description, total)
                elif bar.progress is not None:  # Rich's is there only once training has begun
                    shown = _RichTask(bar, description, total)
            if shown is not None:
                shown.update(done)
            done += 1
            yield batch
    finally:
        if shown is not None:
            shown.close()


def finished(steps: Generator[Any, None, R]) -> R:
    """Run a generator to its end; what it returns."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return cast(R, end.value)


class _RichTask:
    def __init__(self, bar: Any, description: str, total: int | None) -> None:
        self.progress = bar.progress
        self.task = self.progress.add_task(description, total=float("inf") if total is None else total)

    def update(self, done: int) -> None:
        self.progress.update(self.task, completed=done)
        self.progress.refresh()

    def close(self) -> None:
        self.progress.update(self.task, visible=False)


class _TqdmTask:
    def __init__(self, description: str, total: int | None) -> None:
        from tqdm.auto import tqdm

        self.bar = tqdm(desc=description, total=total, leave=False, file=sys.stdout)

    def update(self, done: int) -> None:
        self.bar.update(done - self.bar.n)

    def close(self) -> None:
        self.bar.close()
