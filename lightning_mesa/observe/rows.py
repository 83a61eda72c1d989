"""Some items of a batch, taken out of whatever a batch may be."""

import copy
from collections import UserDict
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor


def cut(batch: Any, outputs: Tensor, keep: Tensor | None) -> tuple[Any, Tensor, Tensor | None]:
    """Some items of a batch and of its outputs, and what is still to be left out of what is made of them.

    A batch is cut if it consists of nothing but tensors, arrays and lists with a row for each item, and single values.
    Another one is left whole.
    """
    if keep is None:
        return batch, outputs, None
    try:
        return _rows(batch, keep, top=True), outputs[keep.to(outputs.device)], None
    except _NoRowsError:
        return batch, outputs, keep


class _NoRowsError(Exception):
    """A batch holds something else than rows."""


def _rows(value: Any, keep: Tensor, top: bool = False) -> Any:
    """The rows of a batch, or of what it holds, that are kept."""
    n = len(keep)
    if isinstance(value, (Tensor, np.ndarray)):
        if value.ndim == 0:
            return value
        if _has_rows(value, n):
            return value[keep.to(value.device)] if isinstance(value, Tensor) else value[keep.numpy()]
    elif value is None or isinstance(value, (str, bytes, bool, int, float)):
        return value
    elif isinstance(value, (dict, UserDict)):
        some = copy.copy(value)
        for key, held in value.items():
            some[key] = _rows(held, keep)
        return some
    elif isinstance(value, (list, tuple)):
        fields_of_batch = hasattr(value, "_fields") or (top and not all(isinstance(held, str) for held in value))
        if len(value) != n or fields_of_batch:
            of_each = [_rows(held, keep) for held in value]
            return type(value)(*of_each) if hasattr(value, "_fields") else type(value)(of_each)
        if not any(_has_rows(held, n) for held in value):  # else it may be n fields, or n items
            return type(value)(held for held, kept in zip(value, keep.tolist(), strict=True) if kept)
    elif is_dataclass(value) and not isinstance(value, type):
        record = copy.copy(value)
        for of in fields(value):
            object.__setattr__(record, of.name, _rows(getattr(value, of.name), keep))  # it may be frozen
        return record
    raise _NoRowsError


def _has_rows(value: Any, n: int) -> bool:
    rows = isinstance(value, np.ndarray) or (isinstance(value, Tensor) and value.layout == torch.strided)
    return rows and value.ndim > 0 and len(value) == n
