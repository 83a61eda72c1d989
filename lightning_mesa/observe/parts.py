"""Behavior on part of the items, and on several batches together."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import fields, replace
from typing import Any, TypeAlias

import torch
from torch import Tensor

from lightning_mesa.errors import ConfigurationError, shown
from lightning_mesa.objectives.hypotheses import Hypotheses
from lightning_mesa.objectives.objective import asked, conflicting, labels_of, tensor_of, with_label
from lightning_mesa.observe.labels import one_per_item
from lightning_mesa.records import Behavior, Features

Where: TypeAlias = str | Mapping[str, Any] | Callable[[Any], Any]
CONFLICT = "conflict"


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
    given = tensor_of(asked(where, "where", batch))
    try:
        mask = torch.as_tensor(given)
    except (TypeError, ValueError, RuntimeError):
        raise ConfigurationError(f"where must give [{n}] bool, one for each item, not {shown(given)}.") from None
    if mask.dtype != torch.bool or list(mask.shape) != [n]:
        raise ConfigurationError(
            f"where must give [{n}] bool, one for each item, not {list(mask.shape)} of type {mask.dtype}."
        )
    return mask.detach()


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


def to_score(wheres: Iterable[Tensor | None], batch: Any, hypotheses: Hypotheses, n: int) -> Tensor | None:
    """``[n]`` bool on the CPU: the items to score, in some part and ignored by no objective; None for all.

    The device is waited for only where items may have to be left out.

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
    known = [torch.stack(some).any(0).cpu()] if some and len(some) == len(chosen) else []
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


def _labelled(batch: Any, key: str | int, label: Any, n: int) -> Tensor:
    """``[n]`` bool: the items with a label; strings are compared as they are."""
    what = f"where: {key!r}"
    return one_per_item(with_label(labels_of(batch, key, what), label), n, what)


def masked(value: Any, mask: Tensor | None) -> Any:
    """The items of a mask on the CPU, all for None, of whatever a field of a behavior holds."""
    return value if mask is None else _mapped(value, lambda tensor: tensor[mask[: len(tensor)].to(tensor.device)])


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
