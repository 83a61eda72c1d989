"""Progress of a look on Lightning's progress bar, once it has taken so long that one may wonder."""

import sys
import time
from collections.abc import Callable, Generator
from contextlib import ExitStack
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
    bar, done = trainer.progress_bar_callback, 0
    show: Callable[[int], Any] | None = None
    with ExitStack() as stack:
        while True:
            try:
                batch = next(batches)
            except StopIteration as end:
                return cast(R, end.value)
            if show is None and bar is not None and time.perf_counter() - started > PATIENCE_SECONDS:
                bar = None if getattr(bar, "is_disabled", True) else bar
                show = bar and _shown(bar, description, total, stack)
            if show is not None:
                show(done)
            done += 1
            yield batch


def finished(steps: Generator[Any, None, R]) -> R:
    """Run a generator to its end; what it returns."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return cast(R, end.value)


def _shown(bar: Any, description: str, total: int | None, stack: ExitStack) -> Callable[[int], Any] | None:
    """Shows how many are done, until the stack closes; None as long as Rich's bar is not there."""
    if not hasattr(bar, "progress"):
        from tqdm.auto import tqdm

        beside = stack.enter_context(tqdm(desc=description, total=total, leave=False, file=sys.stdout))
        return lambda done: beside.update(done - beside.n)
    if (rich := bar.progress) is None:  # before training has begun
        return None
    task = rich.add_task(description, total=float("inf") if total is None else total)
    stack.callback(rich.update, task, visible=False)
    return lambda done: (rich.update(task, completed=done), rich.refresh())
