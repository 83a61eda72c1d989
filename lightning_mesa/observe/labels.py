"""The ids and the groups of items, from what a batch says of them."""

import re
from collections.abc import Collection, Iterable, Iterator
from hashlib import blake2b
from typing import Any

import torch
from torch import Tensor

from lightning_mesa.errors import ConfigurationError, shown
from lightning_mesa.objectives.objective import Target, labels_of

MAX_GROUPS = 64
"""A key with more labels than this on a distribution does not tell groups apart."""


def ids_of(batch: Any, key: Target, n: int) -> Tensor:
    """``[n]`` int64 ids of the items, on the CPU; strings are hashed.

    Raises:
        ConfigurationError: If there are none, or not one for each item.
    """
    ids = labels_of(batch, key, "ids")
    if isinstance(ids, list):
        hashes = [blake2b(one.encode(), digest_size=8).digest() for one in ids]
        ids = torch.tensor([int.from_bytes(one, "big", signed=True) for one in hashes])
    if ids.is_floating_point() or ids.is_complex():
        raise ConfigurationError(f"ids must be integers or strings, and {shown(key)} holds {ids.dtype}.")
    return one_per_item(ids, n, "ids").long()


def groups_of(batch: Any, name: str, key: Target, n: int) -> Iterator[tuple[str, Tensor]]:
    """Each group under a key, ``NAME.LABEL``, and which of the n items belong to it.

    Raises:
        ConfigurationError: If there are no labels, or not one for each item.
    """
    what = f"group {name!r}"
    labels = labels_of(batch, key, what)
    if isinstance(labels, list):
        known: list[Any] = list(dict.fromkeys(labels))
        number = {label: i for i, label in enumerate(known)}
        numbers = torch.tensor([number[label] for label in labels])
    else:
        if labels.is_floating_point() or labels.is_complex():
            raise ConfigurationError(
                f"{what}: labels have type {labels.dtype}; groups need integers, bool or strings. Pass a function that "
                f"cuts them into a few, groups={{{name!r}: fn}}."
            )
        values, numbers = one_per_item(labels, n, what).unique(return_inverse=True)
        known = values.tolist()
    numbers = one_per_item(numbers, n, what)
    for i, label in enumerate(known):
        yield _group(name, label), numbers == i


def check_groups(names: Iterable[str], labels: Collection[str], where: str) -> None:
    """Refuse a key with so many labels that they do not tell groups apart.

    Args:
        names: Names of the keys.
        labels: All groups of a distribution, ``NAME.LABEL``.
        where: The distribution.

    Raises:
        ConfigurationError: If a key has more than ``MAX_GROUPS``.
    """
    for name in names:
        of_key = sorted(label for label in labels if label.startswith(_group(name, "")))
        if len(of_key) > MAX_GROUPS:
            raise ConfigurationError(
                f"group {name!r} has more than {MAX_GROUPS} different labels on {where!r} ({', '.join(of_key[:3])}, "
                "...), too many to watch each. Join them by a function batch -> [n] of fewer labels, "
                f"groups={{{name!r}: function}}, or leave this key out."
            )


def one_per_item(labels: Tensor, n: int, what: str) -> Tensor:
    """The labels on the CPU.

    Raises:
        ConfigurationError: If there are not n of them.
    """
    if list(labels.shape) != [n]:
        raise ConfigurationError(
            f"{what}: labels have shape {list(labels.shape)} for {n} items: it must be [{n}]. In place of the key, "
            "pass a function that takes them out of the batch, such as lambda batch: batch[...][:, 0]."
        )
    return labels.detach().cpu()


def _group(name: str, label: object) -> str:
    return re.sub(r"[^\w.-]", "_", f"{name}.{label}")
