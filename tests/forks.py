"""Code in processes of its own, forked from one that has imported everything and has run nothing.

To import Lightning takes about ten CPU seconds; to fork a process that has imported it takes milliseconds. The server
is forked before the first test runs (``conftest.py``): it has no state, thread or device of any test.
"""

import atexit
import logging
import multiprocessing
import os
import pickle
import runpy
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

HANG = 600.0
"""Seconds after which a process hangs: far more than any takes, as other work may keep the machine busy."""

FORK = multiprocessing.get_context("fork")


@dataclass(frozen=True)
class Ended:
    """A process that has ended.

    Attributes:
        returncode: As of ``subprocess``: negative if a signal ended it.
        stdout: What it printed.
        stderr: What it printed there, and the traceback of an exception.
        value: What its code returned; None after an exception.
    """

    returncode: int
    stdout: str
    stderr: str
    value: Any


def run(*works: Callable[[], Any], seconds: float = HANG) -> list[Ended]:
    """Run each of these, which can be pickled, in a process of its own, all of them at a time.

    Raises:
        TimeoutError: If they hang. None of them goes on.
    """
    connection = server()
    connection.send_bytes(pickle.dumps((works, seconds)))
    ended: list[Ended] | str = pickle.loads(connection.recv_bytes())
    if isinstance(ended, str):
        raise TimeoutError(ended)
    return ended


def script(path: Path, *arguments: str, **environment: str | None) -> Ended:
    """Run a script as ``python path arguments`` in its folder does.

    Args:
        path: The script.
        arguments: What follows it.
        environment: Variables to set; None removes one.
    """
    return run(partial(_script, path, arguments, environment))[0]


def afresh(code: str, *without: str) -> Ended:
    """Run code where neither our package nor a Lightning is imported yet, and some packages cannot be."""
    return run(partial(_afresh, code, without))[0]


def enter(folder: Path, environment: dict[str, str | None] | None = None) -> None:
    """Make this process one that was started in a folder, which is the first place to import from."""
    os.chdir(folder)
    sys.path.insert(0, str(folder))
    for name, value in (environment or {}).items():
        os.environ.pop(name, None)
        if value is not None:
            os.environ[name] = value


@cache
def server() -> Connection:
    """The end of a pipe to the process that forks; it starts at the first call, and ends with this process."""
    ours, theirs = multiprocessing.Pipe()
    FORK.Process(target=_serve, args=(ours, theirs)).start()
    theirs.close()
    atexit.register(ours.close)
    return ours


def _serve(ours: Connection, theirs: Connection) -> None:
    ours.close()
    while True:
        try:
            asked = theirs.recv_bytes()
        except EOFError:
            return
        works, seconds = pickle.loads(asked)
        theirs.send_bytes(pickle.dumps(_run(works, seconds)))


def _run(works: Sequence[Callable[[], Any]], seconds: float) -> list[Ended] | str:
    """What became of each; what to say if they hang."""
    with tempfile.TemporaryDirectory() as temporary:
        folders = [Path(temporary) / str(i) for i in range(len(works))]
        processes = [FORK.Process(target=_work, args=pair) for pair in zip(works, folders, strict=True)]
        for process, folder in zip(processes, folders, strict=True):
            folder.mkdir()
            process.start()
        end = time.monotonic() + seconds
        for process in processes:
            process.join(max(0.0, end - time.monotonic()))
        hung = any(process.is_alive() for process in processes)
        for process in processes:
            process.kill()
            process.join()
        ended = [_ended(process.exitcode or 0, folder) for process, folder in zip(processes, folders, strict=True)]
    if hung:
        said = "\n".join(one.stderr[-2000:] for one in ended)
        return f"hung for {seconds / 60:g} minutes, or the machine is far too slow:\n{said}"
    return ended


def _ended(returncode: int, folder: Path) -> Ended:
    value = folder / "value"
    stdout, stderr = ((folder / name).read_text() for name in ("stdout", "stderr"))
    return Ended(returncode, stdout, stderr, pickle.loads(value.read_bytes()) if value.exists() else None)


def _work(work: Callable[[], Any], folder: Path) -> None:
    torch.set_num_threads(1)
    warnings.resetwarnings()
    for descriptor, name in ((1, "stdout"), (2, "stderr")):
        os.dup2(os.open(folder / name, os.O_CREAT | os.O_WRONLY), descriptor)
        setattr(sys, name, os.fdopen(descriptor, "w", buffering=1, closefd=False))
    for logger in (logging.root, *logging.root.manager.loggerDict.values()):
        for handler in getattr(logger, "handlers", ()):
            if type(handler) is logging.StreamHandler:
                handler.setStream(sys.stderr)
    value = work()
    (folder / "value").write_bytes(pickle.dumps(value))


def _afresh(code: str, without: Sequence[str]) -> None:
    imported_again = {"lightning_mesa", "pytorch_lightning", "lightning", "lightning_fabric", "gymnasium"}
    for name in list(sys.modules):
        if name.partition(".")[0] in imported_again:
            del sys.modules[name]
    sys.modules.update(dict.fromkeys(without))  # type: ignore[arg-type]
    exec(code, {})


def _script(path: Path, arguments: Sequence[str], environment: dict[str, str | None]) -> None:
    enter(path.parent, environment)
    sys.argv = [str(path), *arguments]
    runpy.run_path(str(path), run_name="__main__")
