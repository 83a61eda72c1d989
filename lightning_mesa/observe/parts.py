"""Behavior on part of the items, and on several batches together."""

import copy
import re
from collections import UserDict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from hashlib import blake2b
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from lightning_mesa.errors import ConfigurationError, shown
from lightning_mesa.objectives.hypotheses import Hypotheses
from lightning_mesa.objectives.objective import Target, asked, conflicting, labels_of, tensor_of, with_label
from lightning_mesa.records import Behavior, Features

Where: TypeAlias = str | Mapping[str, Any] | Callable[[Any], Any]
CONFLICT = "conflict"

MAX_GROUPS = 64
"""A key with more labels than this on a distribution does not tell groups apart."""


def asked_of(where: Where | None, batch: Any, n: int) -> Tensor | None:
    """``[n]`` bool: the items that a predicate on the batch chooses; None for all, and where behavior must be known.

    Args:
        where: ``"conflict"``, a mapping from keys of the batch to labels, or a function ``batch -> [n]``.
        batch: The batch, as the model takes it.
        n: Number of items in it.

    Raises:
        ConfigurationError: If the predicate gives no bool per item.
    """
    if where is None or isinstance(where, str):
        return None
    if isinstance(where, Mapping):
        return torch.stack([_labelled(batch, key, label, n) for key, label in where.items()]).all(0)
    mask = tensor_of(asked(where, "where", batch))
    if not isinstance(mask, Tensor):
        raise ConfigurationError(f"where must give [{n}] bool, one for each item, not {shown(mask)}.")
    if mask.dtype != torch.bool or list(mask.shape) != [n]:
        raise ConfigurationError(
            f"where must give [{n}] bool, one for each item, not {list(mask.shape)} of type {mask.dtype}."
        )
    return mask.detach().cpu()


def in_conflict(behavior: Behavior, hypotheses: Hypotheses) -> Tensor:
    """``[n]`` bool: the items on which base and a proxy prescribe different choices.

    Raises:
        ConfigurationError: If they do not prescribe choices.
    """
    by_base = behavior.prescribed.get(hypotheses.base.name)
    by_proxies = [p for proxy in hypotheses.proxies if (p := behavior.prescribed.get(proxy.name)) is not None]
    if by_base is None or not by_proxies:
        raise ConfigurationError(
            "where='conflict' chooses the items on which base and a proxy prescribe different choices, so both "
            "must prescribe some, as Matches does."
        )
    return torch.stack([conflicting(by_base, by_proxy) for by_proxy in by_proxies]).any(0)


def scored(wheres: Iterable[Tensor | None], batch: Any, hypotheses: Hypotheses, n: int) -> Tensor | None:
    """``[n]`` bool: the items to score, in some part and ignored by no objective; None for all.

    Args:
        wheres: Of each part the items that a predicate chooses, None for all.
        batch: The batch.
        hypotheses: The listed objectives.
        n: Number of items in the batch.

    Raises:
        ConfigurationError: If an objective does not say of each item whether it ignores it.
    """
    chosen = [*wheres]
    some = [mask for mask in chosen if mask is not None]
    known = [torch.stack(some).any(0)] if some and len(some) == len(chosen) else []
    for objective in hypotheses.scored:
        if (ignored := objective.ignores(batch)) is None:
            continue
        if ignored.dtype != torch.bool or list(ignored.shape) != [n]:
            raise ConfigurationError(
                f"objective {objective.name!r} has labels for {list(ignored.shape)} items where the outputs have {n} "
                "rows; the outputs must be [n, A], one row per item. Pass outputs=, a function (outputs, batch) -> "
                "[n, A]."
            )
        known.append(~ignored.cpu())
    keep = torch.stack(known).all(0) if known else None
    return None if keep is None or keep.all() else keep


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
        some = copy.copy(value)
        for of in fields(value):
            object.__setattr__(some, of.name, _rows(getattr(value, of.name), keep))
        return some
    raise _NoRowsError


def _has_rows(value: Any, n: int) -> bool:
    rows = isinstance(value, np.ndarray) or (isinstance(value, Tensor) and value.layout == torch.strided)
    return rows and value.ndim > 0 and len(value) == n


def part_of(behavior: Behavior, name: str, mask: Tensor | None) -> Behavior:
    """The behavior on some of the items, all of them for None, as that on a distribution of this name."""
    if mask is None:
        return replace(behavior, distribution=name)
    part = {of.name: masked(getattr(behavior, of.name), mask) for of in fields(Behavior)}
    groups = {label: members for label, members in part["groups"].items() if members.any()}
    return Behavior(**part | {"distribution": name, "n": int(mask.sum()), "groups": groups})


def joined(behaviors: Sequence[Behavior]) -> Behavior:
    """Several batches of one distribution as one."""
    if len(behaviors) == 1:
        return behaviors[0]
    whole = {of.name: _cat([getattr(behavior, of.name) for behavior in behaviors]) for of in fields(Behavior)}
    labels = {label for behavior in behaviors for label in behavior.groups}
    groups = {
        label: torch.cat([b.groups.get(label, torch.zeros(b.n, dtype=torch.bool)) for b in behaviors])
        for label in labels
    }
    return Behavior(**whole | {"n": sum(behavior.n for behavior in behaviors), "groups": groups})


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
    return _one_per_item(ids, n, "ids").long()


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
        values, numbers = _one_per_item(labels, n, what).unique(return_inverse=True)
        known = values.tolist()
    numbers = _one_per_item(numbers, n, what)
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
                f"...), too many to watch each. Join them, groups={{{name!r}: a function batch -> [n] of fewer labels}}, "
                "or leave this key out."
            )


def _group(name: str, label: object) -> str:
    return re.sub(r"[^\w.-]", "_", f"{name}.{label}")


def _labelled(batch: Any, key: str | int, label: Any, n: int) -> Tensor:
    """``[n]`` bool: the items with a label; strings are compared as they are."""
    what = f"where: {key!r}"
    return _one_per_item(with_label(labels_of(batch, key, what), label), n, what)


def _one_per_item(labels: Tensor, n: int, what: str) -> Tensor:
    if list(labels.shape) != [n]:
        raise ConfigurationError(
            f"{what}: labels have shape {list(labels.shape)} for {n} items: it must be [{n}]. In place of the key, "
            "pass a function that takes them out of the batch, such as lambda batch: batch[...][:, 0]."
        )
    return labels.detach().cpu()


def masked(value: Any, mask: Tensor | None) -> Any:
    """The items of a mask, of whatever a field of a behavior holds; features are there for the first items alone."""
    if mask is None:
        return value
    if isinstance(value, Tensor):
        return value[mask[: len(value)]]
    if isinstance(value, Mapping):
        return {name: tensor[mask] for name, tensor in value.items()}
    if isinstance(value, Features):
        return Features(masked(value.model, mask), masked(value.untrained, mask))
    return value


def _cat(values: Sequence[Any]) -> Any:
    """What a field holds in several batches, one after the other."""
    known = [value for value in values if value is not None]
    if known and all(isinstance(value, Tensor) for value in known):
        return torch.cat(known)
    if known and all(isinstance(value, Features) for value in known):
        return Features(torch.cat([f.model for f in known]), torch.cat([f.untrained for f in known]))
    if known and isinstance(known[0], Mapping):
        return {name: torch.cat([part[name] for part in known if name in part]) for name in known[0]}
    # A reason why there are no features, in some of the batches, holds for all.
    return next((value for value in known if not isinstance(value, Features)), None)
