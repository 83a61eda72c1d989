"""Several processes train one model: they find the same, and fail together or not at all."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from lightning_mesa.errors import ConfigurationError, said


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


@contextmanager
def together(trainer: Any) -> Iterator[None]:
    """Raise on every process what is raised on one, so that none waits for another for ever; all must enter it.

    Raises:
        RuntimeError: Where the error is another process's; a ConfigurationError if that is one.
    """
    error: Exception | None = None
    try:
        yield
    except Exception as caught:
        error = caught
    reports = gather(trainer, error and (isinstance(error, ConfigurationError), said(error)))
    if error is not None:
        raise error
    for rank, report in enumerate(reports):
        if report is not None:
            configuration, message = report
            kind = ConfigurationError if configuration else RuntimeError
            raise kind(f"process {rank} failed: {message}")
