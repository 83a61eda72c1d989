"""Behavior on part of the items, and on several batches together."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields, replace
from typing import Any, TypeAlias

import torch
from torch import Tensor

from lightning_mesa.errors import ConfigurationError
from lightning_mesa.objectives.hypotheses import Hypotheses
from lightning_mesa.objectives.objective import conflicting, pick
from lightning_mesa.records import Behavior, Features

Where: TypeAlias = str | Mapping[str, Any] | Callable[[Any], Any]
CONFLICT = "conflict"


def chosen(where: Where, batch: Any, behavior: Behavior, hypotheses: Hypotheses) -> Tensor:
    """``[n]`` bool: the items that a predicate chooses.

    Args:
        where: ``"conflict"``, a mapping from keys of the batch to labels, or a function ``batch -> [n]``.
        batch: The batch, as the model takes it.
        behavior: What the model did on it.
        hypotheses: The listed objectives.

    Raises:
        ConfigurationError: If the predicate gives no bool per item, or cannot be asked of these objectives.
    """
    if isinstance(where, Mapping):
        return torch.stack([_labelled(batch, key, label, behavior.n) for key, label in where.items()]).all(0)
    if where == CONFLICT:
        by_base = behavior.prescribed.get(hypotheses.base.name)
        by_proxies = [p for proxy in hypotheses.proxies if (p := behavior.prescribed.get(proxy.name)) is not None]
        if by_base is None or not by_proxies:
            raise ConfigurationError(
                "where='conflict' chooses the items on which base and a proxy prescribe different choices, so both "
                "must prescribe some, as Matches does."
            )
        return torch.stack([conflicting(by_base, by_proxy) for by_proxy in by_proxies]).any(0)
    assert callable(where)
    mask = where(batch)
    mask = mask if isinstance(mask, Tensor) else torch.as_tensor(mask)
    if mask.dtype != torch.bool or list(mask.shape) != [behavior.n]:
        raise ConfigurationError(
            f"where must give [{behavior.n}] bool, one for each item, not {list(mask.shape)} of type {mask.dtype}."
        )
    return mask.detach()


def part_of(behavior: Behavior, name: str, mask: Tensor | None) -> Behavior:
    """The behavior on some of the items, all of them for None, as that on a distribution of this name."""
    if mask is None:
        return replace(behavior, distribution=name)
    part = mapped(behavior, lambda tensor: tensor[mask[: len(tensor)]])  # features are there for the first items alone
    groups = {label: members for label, members in part.groups.items() if members.any()}
    return replace(part, distribution=name, n=int(mask.sum()), groups=groups)


def mapped(behavior: Behavior, change: Callable[[Tensor], Tensor]) -> Behavior:
    """The same behavior, with something done to every tensor."""
    return Behavior(**{of.name: _mapped(getattr(behavior, of.name), change) for of in fields(Behavior)})


def tensors(value: object) -> Iterator[Tensor]:
    """All tensors of a behavior, or of whatever one of its fields holds."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (Behavior, Features)):
        yield from tensors(vars(value))
    elif isinstance(value, Mapping):
        for part in value.values():
            yield from tensors(part)


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


def labels_of(batch: Any, key: str | int, n: int, what: str) -> Tensor:
    """``[n]`` labels of the items; strings are numbered.

    Raises:
        ConfigurationError: If there are none, or not one for each item.
    """
    labels = pick(batch, key, what)
    if not isinstance(labels, Tensor):
        numbers: dict[Any, int] = {}
        labels = torch.tensor([numbers.setdefault(label, len(numbers)) for label in labels])
    return _one_per_item(labels, n, what)


def group_labels(batch: Any, key: str | int, n: int) -> Tensor | Sequence[Any]:
    """``[n]`` labels of the items: a tensor where the batch has one, else as they are.

    Raises:
        ConfigurationError: If there are none, or not one for each item.
    """
    what = f"group {key!r}"
    labels = pick(batch, key, what)
    if isinstance(labels, Tensor):
        return _one_per_item(labels, n, what)
    if len(labels) != n:
        raise ConfigurationError(f"{what}: there are {len(labels)} labels for {n} items: there must be one for each.")
    return list(labels)


def _labelled(batch: Any, key: str | int, label: Any, n: int) -> Tensor:
    """``[n]`` bool: the items with a label; strings are compared as they are."""
    what = f"where: {key!r}"
    labels = pick(batch, key, what)
    if not isinstance(labels, Tensor):
        labels, label = torch.tensor([one == label for one in labels]), True
    of_items: Tensor = _one_per_item(labels, n, what) == label
    return of_items


def _one_per_item(labels: Tensor, n: int, what: str) -> Tensor:
    if list(labels.shape) != [n]:
        raise ConfigurationError(f"{what}: labels have shape {list(labels.shape)} for {n} items: it must be [{n}].")
    return labels.detach()


def _mapped(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, Mapping):
        return {name: change(tensor) for name, tensor in value.items()}
    if isinstance(value, Features):
        return Features(change(value.model), change(value.untrained))
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
