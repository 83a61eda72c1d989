"""The ids and the groups of items, from what a batch says of them."""

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from hashlib import blake2b
from typing import Any

import torch
from torch import Tensor

from lightning_mesa.errors import ConfigurationError, shown
from lightning_mesa.objectives.objective import Target, labels_of

MAX_GROUPS = 64
"""A key with more labels than this on a distribution does not tell groups apart."""


def ids_of(batch: Any, key: Target, n: int) -> Tensor:
    """``[n]`` int64 ids of the items, strings are hashed.

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


def group_labels(batch: Any, name: str, key: Target, n: int) -> Tensor | list[str]:
    """``[n]`` labels of the items, by which they are grouped: a tensor, or strings.

    Raises:
        ConfigurationError: If there are none, or not one for each item.
    """
    what = f"group {name!r}"
    labels = labels_of(batch, key, what)
    if isinstance(labels, list):
        one_per_item(torch.empty(len(labels)), n, what)
        return labels
    if labels.is_floating_point() or labels.is_complex():
        raise ConfigurationError(
            f"{what}: labels have type {labels.dtype}; groups need integers, bool or strings. Pass a function that "
            f"cuts them into a few, groups={{{name!r}: fn}}."
        )
    return one_per_item(labels, n, what)


def members(
    name: str, batches: Sequence[Tensor | list[str]], parts: Mapping[str, Tensor | None]
) -> Iterator[tuple[str, Tensor]]:
    """Each group under a key, ``NAME.LABEL``, and ``[N]`` bool, which items of some batches belong to it.

    Args:
        name: Name of the key.
        batches: Labels of each batch, from :func:`group_labels`.
        parts: The distributions that the items make up: name -> ``[N]`` bool, which of them, None for all.

    Raises:
        ConfigurationError: If there are too many groups on a distribution.
    """
    if all(isinstance(labels, Tensor) for labels in batches):
        of_all = torch.cat([labels for labels in batches if isinstance(labels, Tensor)]).cpu()
        values, numbers = torch.unique(of_all, return_inverse=True)
        known = [_group(name, value) for value in values.tolist()]
    else:
        listed = [labels if isinstance(labels, list) else labels.tolist() for labels in batches]
        words = [str(label) for labels in listed for label in labels]
        number = {word: i for i, word in enumerate(dict.fromkeys(words))}
        numbers = torch.tensor([number[word] for word in words])
        known = [_group(name, word) for word in number]
    for where, mask in parts.items():
        there = numbers if mask is None else numbers[mask]
        check_groups([name], {known[i] for i in there.unique().tolist()}, where)
    for i, group in enumerate(known):
        yield group, numbers == i


def check_groups(names: Iterable[str], labels: Collection[str], where: str) -> None:
    """Refuse a key with too many labels for groups.

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
    """The labels, if there are n of them.

    Raises:
        ConfigurationError: If there are not n of them.
    """
    if list(labels.shape) != [n]:
        raise ConfigurationError(
            f"{what}: labels have shape {list(labels.shape)} for {n} items: it must be [{n}]. In place of the key, "
            "pass a function that takes them out of the batch, such as lambda batch: batch[...][:, 0]."
        )
    return labels.detach()


def _group(name: str, label: object) -> str:
    return re.sub(r"[^\w.-]", "_", f"{name}.{label}")
