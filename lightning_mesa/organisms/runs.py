"""All runs of the benchmark in parallel processes, within a budget; what is there already is not run again."""

import multiprocessing
import os
import shutil
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import BrokenExecutor, Executor, ProcessPoolExecutor
from pathlib import Path

from lightning_mesa.organisms import training
from lightning_mesa.organisms.search import training as search_training
from lightning_mesa.organisms.training import Kind, Plan

COUNTS: Mapping[Kind, int] = {"strong": 4, "weak": 3, "clean": 12, "blurred": 7, "incapable": 6}
"""Seeds of each kind, for each family, in the full benchmark."""

SEARCH_SEEDS = 4
"""Of each family of networks in mazes."""

QUICK: Mapping[Kind, int] = {"strong": 1, "weak": 0, "clean": 1, "blurred": 0, "incapable": 1}


def plans(families: Sequence[str], counts: Mapping[Kind, int]) -> list[Plan]:
    """What is to be run: every kind of the first seed of every family first, so that a small budget has some of all."""
    most = max(counts.values())
    each = [(seed, family, kind) for seed in range(most) for family in families for kind in counts]
    return [Plan(family, kind, seed) for seed, family, kind in each if seed < counts[kind]]


def train(plan: Plan, folder: Path) -> None:
    """Run one of either sort.

    Args:
        plan: What is run.
        folder: Where.
    """
    (search_training if plan.kind == "search" else training).train(plan, folder)


def run_all(
    todo: Sequence[Plan],
    out: Path,
    processes: int,
    seconds: float,
    say: Callable[[str], None],
    one: Callable[[Plan, Path], None] = train,
    process: Callable[[Path], Executor] | None = None,
) -> Mapping[str, str]:
    """Run what has no result yet.

    A run that fails, or whose process dies, is noted and lost; the others go on.

    Args:
        todo: What is to be run.
        out: A folder for each run comes here.
        processes: How many at once.
        seconds: No run is begun after so long.
        say: Told after each run.
        one: What runs one.
        process: What a worker runs it in; default: a process of its own, whose output goes into a file.

    Returns:
        Name of each run that has failed -> why.
    """
    out.mkdir(parents=True, exist_ok=True)
    left = [plan for plan in todo if not (out / plan.name / "oracle.json").exists()]
    lock, started, done, failed = threading.Lock(), time.monotonic(), len(todo) - len(left), {}
    queue, begin, stopped = iter(left), process or _process, threading.Event()

    def next_plan() -> Plan | None:
        with lock:
            over = stopped.is_set() or time.monotonic() - started >= seconds
            return None if over else next(queue, None)

    def work() -> None:
        nonlocal done
        pool = begin(out)
        for plan in iter(next_plan, None):
            folder = out / plan.name
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            try:
                pool.submit(one, plan, folder).result()
                why = None
            except Exception as error:  # of any kind: the process may be dead, and the rest has to go on
                why = f"{type(error).__name__}: {error}"
                (folder / "crash.txt").write_text("".join(traceback.format_exception(error)))
                if isinstance(error, BrokenExecutor):
                    pool = begin(out)
            with lock:
                done += 1
                if why is not None:
                    failed[plan.name] = why
                say(f"{done} of {len(todo)}: {plan.name}{'' if why is None else ' failed: ' + why}")
        pool.shutdown()

    workers = [threading.Thread(target=work) for _ in range(processes)]
    for worker in workers:
        worker.start()
    try:
        for worker in workers:
            worker.join()
    except KeyboardInterrupt:
        stopped.set()  # runs under way end, and no other begins
        raise
    return failed


def _process(out: Path) -> Executor:
    # A process of its own for each worker, so that it is known which run it was that has killed one.
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(1, mp_context=context, initializer=_quiet, initargs=(out / "output.txt",))


def _quiet(path: Path) -> None:
    """What training prints goes into a file."""
    stream = path.open("a", buffering=1)
    for descriptor in (sys.stdout.fileno(), sys.stderr.fileno()):
        os.dup2(stream.fileno(), descriptor)
