"""Several processes train one model: they find the same, and fail together or not at all."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch

from lightning_mesa.errors import ConfigurationError, said


class Elsewhere(BaseException):
    """What is wrong is known to all processes; :func:`together` raises ``error`` in its place.

    No ``Exception``: what a forward pass raises is caught, and told in other words, on its way there.
    """

    def __init__(self, error: Exception) -> None:
        super().__init__(error)
        self.error = error


class _Report(NamedTuple):
    """What a process says where all meet."""

    at: str
    value: Any = None
    failed: tuple[bool, str] | None = None  # whether by a ConfigurationError, and its message


_END = "the end of the look"


def gather(trainer: Any, value: Any) -> list[Any]:
    """Everybody's value, on every process, in the order of their ranks; all must call it.

    Args:
        trainer: The trainer.
        value: What can be pickled.
    """
    if trainer.world_size == 1:
        return [value]
    values: list[Any] = [None] * trainer.world_size
    torch.distributed.all_gather_object(values, value)
    return values


def share(trainer: Any) -> tuple[int, int]:
    """Number of this process's share of the data, and how many shares there are.

    Processes that hold parts of the same tensors (tensor parallelism) have one share, as in Lightning's own samplers.
    """
    given = trainer.distributed_sampler_kwargs or {"rank": 0, "num_replicas": 1}
    return int(given["rank"]), int(given["num_replicas"])


def gather_shares(trainer: Any, value: Any) -> list[Any]:
    """The value of each share of the data, on every process, in order; all must call it.

    Args:
        trainer: The trainer.
        value: What can be pickled.
    """
    return [*dict(gather(trainer, (share(trainer)[0], value))).values()]


def meet(trainer: Any, at: str, value: Any = None) -> list[Any]:
    """Everybody's value, where all processes are at the same place; to be called inside :func:`together`.

    Args:
        trainer: The trainer.
        at: The place, in words.
        value: What can be pickled.

    Raises:
        Elsewhere: On all processes, if one of them has failed or is at another place.
    """
    reports = gather(trainer, _Report(at, value))
    for rank, report in enumerate(reports):
        if report.failed is not None:
            configuration, message = report.failed
            kind = ConfigurationError if configuration else RuntimeError
            raise Elsewhere(kind(f"process {rank} failed: {message}"))
        if report.at != reports[0].at:
            raise Elsewhere(
                ConfigurationError(
                    f"process 0 is at {reports[0].at} and process {rank} at {report.at}, but each holds a part of the "
                    "model, so all must call it equally often. Let forward=, or the Source of your own, make as many "
                    "calls on every process; one that has run out of items calls it once more, and yields nothing."
                )
            )
    return [report.value for report in reports]


@contextmanager
def together(trainer: Any) -> Iterator[None]:
    """Raise on every process what is raised on one, so that none waits for another for ever; all must enter it.

    Raises:
        RuntimeError: Where the error is another process's; a ConfigurationError if that is one.
    """
    try:
        try:
            yield
        except Exception as error:
            # Others hear of it where they meet next.
            failed = isinstance(error, ConfigurationError), said(error)
            gather(trainer, _Report(_END, failed=failed))
            raise
        meet(trainer, _END)
    except Elsewhere as known:
        raise known.error from None
