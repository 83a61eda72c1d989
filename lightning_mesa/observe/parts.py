"""Behavior on part of the items, and on several batches together."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
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
        masks = [_labelled(batch, key, label, behavior.n) for key, label in where.items()]
        return torch.stack(masks).all(0)
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
    return mask.detach().cpu()


def part_of(behavior: Behavior, name: str, mask: Tensor | None) -> Behavior:
    """The behavior on some of the items, all of them for None, as that on a distribution of this name."""
    if mask is None:
        return replace(behavior, distribution=name)
    features = behavior.features
    if isinstance(features, Features):
        first = mask[: len(features.model)]
        features = Features(features.model[first], features.untrained[first])
    return Behavior(
        distribution=name,
        n=int(mask.sum()),
        items=behavior.items[mask],
        scores=_each(behavior.scores, mask),
        binary=behavior.binary,
        prescribed=_each(behavior.prescribed, mask),
        uniform_scores=_each(behavior.uniform_scores, mask),
        chosen=_some(behavior.chosen, mask),
        groups={label: members[mask] for label, members in behavior.groups.items() if (members & mask).any()},
        ids=_some(behavior.ids, mask),
        extremity=_some(behavior.extremity, mask),
        cued=_some(behavior.cued, mask),
        features=features,
        log_probabilities=_some(behavior.log_probabilities, mask),
        activations=_each(behavior.activations, mask),
    )


def joined(behaviors: Sequence[Behavior]) -> Behavior:
    """Several batches of one distribution as one."""
    if len(behaviors) == 1:
        return behaviors[0]
    first = behaviors[0]
    groups = {label for behavior in behaviors for label in behavior.groups}
    return Behavior(
        distribution=first.distribution,
        n=sum(behavior.n for behavior in behaviors),
        items=torch.cat([behavior.items for behavior in behaviors]),
        scores=_cat([behavior.scores for behavior in behaviors]),
        binary=first.binary,
        prescribed=_cat([behavior.prescribed for behavior in behaviors]),
        uniform_scores=_cat([behavior.uniform_scores for behavior in behaviors]),
        chosen=_cat_some([behavior.chosen for behavior in behaviors]),
        groups={
            label: torch.cat([b.groups.get(label, torch.zeros(b.n, dtype=torch.bool)) for b in behaviors])
            for label in groups
        },
        ids=_cat_some([behavior.ids for behavior in behaviors]),
        extremity=_cat_some([behavior.extremity for behavior in behaviors]),
        cued=_cat_some([behavior.cued for behavior in behaviors]),
        features=_joined_features([b.features for b in behaviors if b.features is not None]),
        log_probabilities=_cat_some([behavior.log_probabilities for behavior in behaviors]),
        activations=_cat([behavior.activations for behavior in behaviors]),
    )


def _cat(parts: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def _cat_some(parts: Sequence[Tensor | None]) -> Tensor | None:
    there = [part for part in parts if part is not None]
    return torch.cat(there) if there else None


def _joined_features(parts: Sequence[Features | str]) -> Features | str | None:
    known = [part for part in parts if isinstance(part, Features)]
    if len(known) < len(parts) or not known:
        return next((part for part in parts if isinstance(part, str)), None)
    return Features(torch.cat([part.model for part in known]), torch.cat([part.untrained for part in known]))


def _labelled(batch: Any, key: str | int, label: Any, n: int) -> Tensor:
    """``[n]`` bool: the items with a label; strings are compared as they are."""
    what = f"where: {key!r}"
    labels = pick(batch, key, what)
    if not isinstance(labels, Tensor):
        labels = torch.tensor([one == label for one in labels])
        label = True
    if list(labels.shape) != [n]:
        raise ConfigurationError(f"{what}: labels have shape {list(labels.shape)} for {n} items: it must be [{n}].")
    of_items: Tensor = labels == label
    return of_items.detach().cpu()


def _each(tensors: Mapping[str, Tensor], mask: Tensor) -> dict[str, Tensor]:
    return {name: tensor[mask] for name, tensor in tensors.items()}


def _some(tensor: Tensor | None, mask: Tensor) -> Tensor | None:
    return None if tensor is None else tensor[mask]
