"""Steps and the way down: cosines with the gradients of an objective, in its own context and in others."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import pairwise
from typing import Any, TypeAlias

import torch
from torch import Tensor

from lightning_mesa.stats.competence import Competence
from lightning_mesa.stats.intervals import Mean, tally

Objective: TypeAlias = Callable[[Tensor, Any], Tensor]
"""``(y, contexts) -> [n]``, differentiable in y, lower is better; row i depends on row i of both alone."""


def cosines(
    iterates: Sequence[Tensor], objective: Objective, contexts: Any, orders: Sequence[Tensor]
) -> tuple[Tensor, Tensor]:
    """``cos(y_{k+1} - y_k, -grad J_c(y_k))`` for the own context and for those of others.

    Args:
        iterates: K + 1 of ``[n, ...]``.
        objective: J.
        contexts: A tensor ``[n, ...]``, or a mapping or tuple of such.
        orders: M of ``[n]`` int64, whose contexts are taken instead.

    Returns:
        ``[1 + M, K, n]`` cosines, the own context first, NaN where a step or a gradient has no length (a step: none
        beyond rounding) or is not finite; and ``[K, n]`` bool, which steps lower J. Both on the CPU.

    Raises:
        ValueError: If J does not give ``[n]``, or does not depend on y.
    """
    with torch.inference_mode(False), torch.enable_grad():
        contexts = _mapped(contexts, _outside_inference)
        given = [part for _, part in parts(contexts)]
        like = next((part for part in given if part.is_floating_point()), given[0].float())
        ys = [y.detach().clone().to(like) for y in iterates]
        found = [_along(objective, ys, contexts)]
        for order in orders:
            found.append(_along(objective, ys, _mapped(contexts, partial(_in_order, order))))
        heights = [objective(y, contexts).detach() for y in ys]
    lowered = torch.stack([after < before for before, after in pairwise(heights)])
    return torch.stack(found).double().cpu(), lowered.cpu()


def contrasts(cosines: Tensor) -> Tensor:
    """What the first row has more than the mean of the others, and each of the others more than the rest of them.

    Args:
        cosines: ``[1 + M, K, n]``, NaN where there is none.

    Returns:
        ``[1 + M, n]``, averaged over steps, NaN where none is left; rows from 1 on are the null.
    """
    others = cosines[1:]
    total, count = others.nansum(0), others.isfinite().sum(0)
    rest = (total - others.nan_to_num()) / (count - others.isfinite().long())
    return torch.cat([cosines[:1] - total / count, others - rest]).nanmean(1)


def mean_contrast(per_group: Tensor) -> Competence:
    """The mean of differences of cosines, which lie in [-2, 2], with betting limits.

    Args:
        per_group: ``[G]`` in [-2, 2].
    """
    scaled = ((per_group + 2) / 4).clamp(0, 1)  # cosines exceed 1 by rounding
    return Competence(Mean(tuple(tally(scaled, binary=False).tolist())), 0.5, 0.75)


def _along(objective: Objective, ys: Sequence[Tensor], contexts: Any) -> Tensor:
    """``[K, n]`` cosines of steps with the way down."""
    found = []
    for before, after in pairwise(ys):
        step = (after - before).flatten(1)
        down = -_gradient(objective, before, contexts).flatten(1)
        length, steepness = step.norm(dim=1), down.norm(dim=1)
        by_rounding = 8 * torch.finfo(step.dtype).eps * before.flatten(1).norm(dim=1)
        cosine = ((step / length[:, None]) * (down / steepness[:, None])).sum(1)
        found.append(cosine.where(cosine.isfinite() & (length > by_rounding), torch.nan))
    return torch.stack(found)


def _gradient(objective: Objective, y: Tensor, contexts: Any) -> Tensor:
    y = y.detach().requires_grad_()
    height = objective(y, contexts)
    if height.shape != y.shape[:1]:
        raise ValueError(f"it gives {list(height.shape)} where it must be {list(y.shape[:1])}")
    if not height.requires_grad:
        raise ValueError("it cannot be differentiated by y")
    (gradient,) = torch.autograd.grad(height.sum(), y)
    return gradient


def _outside_inference(part: Tensor) -> Tensor:
    return part.clone() if part.is_inference() else part


def _in_order(order: Tensor, part: Tensor) -> Tensor:
    return part[order.to(part.device)]


def parts(contexts: Any, name: str = "contexts") -> Iterator[tuple[str, Any]]:
    """What contexts are made of, with names."""
    if isinstance(contexts, Mapping):
        for key, part in contexts.items():
            yield from parts(part, f"{name}[{key!r}]")
    elif isinstance(contexts, (tuple, list)):
        for i, part in enumerate(contexts):
            yield from parts(part, f"{name}[{i}]")
    else:
        yield name, contexts


def _mapped(contexts: Any, change: Callable[[Tensor], Tensor]) -> Any:
    if isinstance(contexts, Mapping):
        return {key: _mapped(part, change) for key, part in contexts.items()}
    if isinstance(contexts, (tuple, list)):
        return tuple(_mapped(part, change) for part in contexts)
    return change(contexts)
