"""Controls that probes share: groups as the unit of evidence, labels of other groups, random sites."""

import math

import torch
from torch import Tensor

from lightning_mesa.errors import ConfigurationError
from lightning_mesa.stats.competence import Competence
from lightning_mesa.stats.intervals import Mean, tally

DRAWS = 100
"""How many times a null is drawn."""


def generator(seed: int) -> torch.Generator:
    """Random numbers of a control's own."""
    return torch.Generator().manual_seed(seed)


def group_means(values: Tensor, counted: Tensor, groups: Tensor) -> Tensor:
    """``[G]`` mean of what counts in each group, NaN where nothing does.

    Args:
        values: ``[n, ...]``, of any value where they do not count.
        counted: ``[n, ...]`` bool.
        groups: ``[n]`` int64, from 0 on.
    """
    values, counted = (x.reshape(len(groups), math.prod(x.shape[1:])) for x in (values, counted))
    zeros = torch.zeros(int(groups.max()) + 1 if len(groups) else 0, dtype=torch.float64)
    total = zeros.index_add(0, groups, values.double().where(counted, 0.0).sum(1))
    return total / zeros.index_add(0, groups, counted.sum(1).double())


def shares(true: Tensor, counted: Tensor, groups: Tensor) -> Tensor:
    """``[G]`` for each group with anything that counts, how much of that is true, in the order of the groups.

    Decisions of one input depend on each other, so a group of them is one piece of evidence.

    Args:
        true: ``[n, ...]`` bool.
        counted: ``[n, ...]`` bool.
        groups: ``[n]`` int64, from 0 on.
    """
    means = group_means(true, counted, groups)
    return means[means.isfinite()]


def mean_share(per_group: Tensor) -> Competence:
    """The mean of shares, with betting limits.

    Args:
        per_group: ``[G]`` in [0, 1].
    """
    return Competence(Mean(tuple(tally(per_group, binary=False).tolist())), 0.0, 1.0)


def mean_difference(more: Tensor, less: Tensor) -> Competence:
    """The mean of paired differences of shares, which lie in [-1, 1], with betting limits.

    Args:
        more: ``[G]`` in [0, 1].
        less: ``[G]`` in [0, 1].
    """
    return Competence(Mean(tuple(tally((more - less + 1) / 2, binary=False).tolist())), 0.5, 1.0)


def numbered(groups: Tensor | None, n: int) -> Tensor:
    """``[n]`` groups numbered from 0 on, on the CPU; each item is its own where none are given."""
    return torch.arange(n) if groups is None else torch.unique(groups.cpu(), return_inverse=True)[1]


def of_other_groups(groups: Tensor, draw: torch.Generator) -> Tensor:
    """``[n]`` for each item another one, from the group whose place its own takes when groups change places.

    Groups move as a whole: items of one group are not told apart by chance.

    Args:
        groups: ``[n]`` int64, from 0 on.
        draw: Where the places are drawn from.
    """
    order = torch.randperm(int(groups.max()) + 1, generator=draw)
    place = torch.empty_like(order)
    place[order] = order.roll(1)  # a single cycle: no group keeps its place
    by_group = groups.argsort(stable=True)
    sizes = torch.bincount(groups)
    first = sizes.cumsum(0) - sizes
    rank = torch.empty_like(groups)
    rank[by_group] = torch.arange(len(groups)) - first[groups[by_group]]
    other = place[groups]
    return by_group[first[other] + rank % sizes[other]]


def swaps(groups: Tensor, number: int, seed: int) -> list[Tensor]:
    """``[n]`` for each item another one, see :func:`of_other_groups`, as often as asked.

    Args:
        groups: ``[n]`` int64, from 0 on.
        number: How often groups change places.
        seed: Of the places.
    """
    draw = generator(seed)
    return [of_other_groups(groups, draw) for _ in range(number)]


def random_signs(values: Tensor, seed: int) -> list[float]:
    """Means of values whose signs are drawn, :data:`DRAWS` of them.

    Args:
        values: ``[n]`` float64.
        seed: Of the signs.
    """
    signs = torch.randint(2, (DRAWS, len(values)), generator=generator(seed)) * 2.0 - 1.0
    return [float(x) for x in (signs.double() @ values) / len(values)]


def random_site(site: Tensor, draw: torch.Generator) -> Tensor:
    """For each item as many positions as the site has, drawn from those outside of it.

    Args:
        site: ``[n, ...]`` bool.
        draw: Where they are drawn from.
    """
    flat = site.flatten(1)
    ranks = torch.rand(flat.shape, generator=draw).masked_fill(flat, 2.0).argsort(1).argsort(1)
    drawn = (ranks < flat.sum(1, keepdim=True)) & ~flat
    return drawn.view_as(site)


def channel_axis(positions: torch.Size, activation: Tensor, layer: str, of: str) -> int:
    """Where the channels of an activation are: 1 for ``[n, C, ...]``, -1 for ``[n, ..., C]``.

    Args:
        positions: The positions ``...``.
        activation: What the layer gave.
        layer: Its name, for the error.
        of: The probe, for the error.

    Raises:
        ConfigurationError: If the positions of the activation are others.
    """
    if activation.shape[2:] == positions:
        return 1
    if activation.shape[1:-1] == positions:
        return -1
    raise ConfigurationError(
        f"{of}: layer {layer!r} gives {list(activation.shape)}, whose positions are not those of the site, "
        f"{list(positions)}."
    )


def mean_excess(more: Tensor, less: Tensor) -> float:
    """How much larger one mean over groups is than another, 0 where either has no group.

    Args:
        more: ``[G]``.
        less: ``[H]``.
    """
    return float(more.mean() - less.mean()) if len(more) and len(less) else 0.0


def among(right: Tensor, chosen: Tensor) -> Tensor:
    """``[n, ...]`` bool, whether choices are right.

    Args:
        right: ``[n, A, ...]`` bool.
        chosen: ``[n, ...]`` int64.
    """
    return right.gather(1, chosen[:, None]).squeeze(1)


def choices(outputs: object, what: str, like: Tensor) -> Tensor:
    """``[n, ...]`` the most probable choices, from outputs ``[n, A, ...]`` as cross-entropy takes them.

    Args:
        outputs: What the model gave.
        what: Which data, for the error.
        like: ``[n, A, ...]`` what the choices will be compared with.

    Raises:
        ConfigurationError: If the shapes differ.
    """
    if not isinstance(outputs, Tensor) or outputs.shape != like.shape:
        raise ConfigurationError(
            f"{what}: the model gives {shape_of(outputs)} where the right choices are {list(like.shape)}; they must "
            "agree, [n, A] or [n, A, ...]. outputs= says how to take them out of what the model returns."
        )
    return outputs.detach().argmax(1).cpu()


def shape_of(outputs: object) -> list[int] | str:
    """The shape of what should be a tensor, for messages; its type where it is none."""
    return list(outputs.shape) if isinstance(outputs, Tensor) else type(outputs).__name__
