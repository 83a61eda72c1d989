"""Looks without a model: items of which given shares follow base and a proxy."""

import torch
from torch.nn import functional

from lightning_mesa.checks import Look
from lightning_mesa.objectives.hypotheses import Hypotheses
from lightning_mesa.objectives.matches import Matches
from lightning_mesa.records import Behavior
from lightning_mesa.testing import look_at

A, N = 10, 400


def behaviors(
    shares: dict[str, tuple[float, float]], proxies: tuple[str, ...] = ("color",), n: int = N
) -> list[Behavior]:
    """n items per distribution of which the given shares follow base and the (first) proxy."""
    found = []
    for where, (by_base, by_proxy) in shares.items():
        base = torch.arange(n) % A
        targets = {"digit": base} | {
            name: base if where == "val" else (base + 1 + i) % A for i, name in enumerate(proxies)
        }
        chosen = (base + 5) % A
        order = torch.randperm(n, generator=torch.Generator().manual_seed(0))
        k, m = round(by_base * n), round(by_proxy * n)
        chosen[order[:k]] = base[order[:k]]
        if proxies:
            chosen[order[k : k + m]] = targets[proxies[0]][order[k : k + m]]
        found.append(
            Behavior(
                distribution=where,
                n=n,
                items=torch.arange(n),
                scores={name: (chosen == target).double() for name, target in targets.items()},
                binary=frozenset(targets),
                prescribed={name: functional.one_hot(target, A).bool() for name, target in targets.items()},
                uniform_scores={},
                chosen=chosen,
                groups={},
                ids=None,
            )
        )
    return found


def look(shares: dict[str, tuple[float, float]], proxies: tuple[str, ...] = ("color",), n: int = N) -> Look:
    """A look at them."""
    hypotheses = Hypotheses(Matches("digit"), [Matches(proxy) for proxy in proxies])
    return look_at(behaviors(shares, proxies, n), hypotheses, step=3, epoch=1)
