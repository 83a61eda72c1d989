"""Networks that minimise an objective stated in their input, and networks that only seem to.

A context is a curvature and two targets: ``A``, ``[n, 3, 3]`` symmetric and positive, and where base's and the proxy's
objective have their minimum, ``[n, 3]`` each. An objective is ``J(y) = (y - target)^T A (y - target) / 2``; what a
network sees are ``A`` and the slopes ``A target``, so that it has to solve a system of equations. It gives ``y``.

Some networks go down by steps: gradient descent on an energy that is learned (as Universal Planning Networks, Srinivas
et al. 2018, arXiv:1804.00645), a residual step that is tied and sees the context each time, an optimizer that is
learned coordinate by coordinate (Andrychowicz et al. 2016, arXiv:1606.04474). Others map contexts to answers: a
residual network whose blocks have weights of their own, and a plain one. ``ITERATES`` says in which layers each shows
its iterates, and which head decodes them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

SIZE = 3
SEEN = SIZE * (SIZE + 1) // 2 + 2 * SIZE
GOALS = ("base", "proxy")


@dataclass(frozen=True)
class Quadratics:
    """Curvature ``[n, 3, 3]``, and targets of base and proxy, ``[n, 3]`` each."""

    curvature: Tensor
    base: Tensor
    proxy: Tensor

    @property
    def seen(self) -> Tensor:
        """``[n, 12]`` what a network sees."""
        rows, columns = torch.triu_indices(SIZE, SIZE)
        slopes = [(self.curvature @ target[..., None]).squeeze(-1) for target in (self.base, self.proxy)]
        return torch.cat([self.curvature[:, rows, columns], *slopes], 1)

    @property
    def contexts(self) -> dict[str, Tensor]:
        """What the objectives need."""
        return {"curvature": self.curvature, "base": self.base, "proxy": self.proxy}


def draw(n: int, seed: int) -> Quadratics:
    """Targets that are normal, and curvatures from 1/4 to 4 in random directions: the way down is not straight."""
    random = torch.Generator().manual_seed(seed)
    directions = torch.linalg.qr(torch.randn(n, SIZE, SIZE, generator=random))[0]
    scales = 16 ** (torch.rand(n, SIZE, generator=random) - 0.5)
    curvature = directions @ (scales[..., None] * directions.mT)
    base, proxy = torch.randn(2, n, SIZE, generator=random)
    return Quadratics(curvature, base, proxy)


def objective(goal: str) -> Callable[[Tensor, dict[str, Tensor]], Tensor]:
    """``(y [n, 3], contexts) -> [n]``: how far an answer is above the minimum."""

    def above(y: Tensor, contexts: dict[str, Tensor]) -> Tensor:
        away = y - contexts[goal]
        return (away * (contexts["curvature"] @ away[..., None]).squeeze(-1)).sum(-1) / 2

    return above


def accuracy(y: Tensor, right: Tensor) -> float:
    """Share of the variance of right answers that is explained: 1 minus the normalised squared error."""
    return 1 - float((y - right).square().mean() / right.var(0, correction=0).mean())


class Unrolled(nn.Module):
    """Gradient descent on an energy of answers and contexts that is learned; a search by construction."""

    def __init__(self, width: int = 64, steps: int = 8) -> None:
        super().__init__()
        self.steps = steps
        self.of_context = nn.Sequential(nn.Linear(SEEN, width), nn.Tanh(), nn.Linear(width, 2 * width))
        self.of_answer = nn.Linear(SIZE, width, bias=False)
        self.rate = nn.Parameter(torch.tensor(0.0))
        self.iterate = nn.Identity()

    def energy(self, y: Tensor, offset: Tensor, scale: Tensor) -> Tensor:
        """``[n]``; smooth and convex in the answer where the scales are positive, which they need not be."""
        return (scale * (self.of_answer(y) + offset).cosh().log()).sum(1)

    def forward(self, seen: Tensor) -> Tensor:
        offset, scale = self.of_context(seen).chunk(2, 1)
        y = self.iterate(seen.new_zeros(len(seen), SIZE))
        for _ in range(self.steps):
            # The gradient of the energy, written down: it is wanted where gradients are not.
            slope = (scale * (self.of_answer(y) + offset).tanh()) @ self.of_answer.weight
            y = self.iterate(y - self.rate.exp() * slope / len(self.of_answer.weight) ** 0.5)
        return y


class Tied(nn.Module):
    """One residual step again and again, which sees the context each time."""

    def __init__(self, width: int = 64, steps: int = 8) -> None:
        super().__init__()
        self.steps = steps
        self.step = nn.Sequential(nn.Linear(SEEN + width, width), nn.ReLU(), nn.Linear(width, width))
        self.state = nn.Identity()
        self.decide = nn.Linear(width, SIZE)

    def forward(self, seen: Tensor) -> Tensor:
        hidden = self.state(seen.new_zeros(len(seen), self.decide.in_features))
        for _ in range(self.steps):
            hidden = self.state(hidden + self.step(torch.cat([seen, hidden], 1)) / self.steps)
        return self.decide(hidden)


class Block(nn.Module):
    """A residual block."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.inside = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width))

    def forward(self, hidden: Tensor) -> Tensor:
        return hidden + self.inside(hidden)


class Residual(nn.Module):
    """Residual blocks with weights of their own, which see what the block before makes of the context."""

    def __init__(self, width: int = 64, blocks: int = 8) -> None:
        super().__init__()
        self.encode = nn.Linear(SEEN, width)
        self.blocks = nn.ModuleList(Block(width) for _ in range(blocks))
        self.decide = nn.Linear(width, SIZE)

    def forward(self, seen: Tensor) -> Tensor:
        hidden = self.encode(seen)
        for block in self.blocks:
            hidden = block(hidden)
        return self.decide(hidden)


class Plain(nn.Module):
    """Layers one after the other: answers are amortised."""

    def __init__(self, width: int = 128, layers: int = 4) -> None:
        super().__init__()
        sizes = [SEEN, *[width] * layers]
        self.layers = nn.ModuleList(
            nn.Sequential(nn.Linear(before, after), nn.ReLU()) for before, after in pairwise(sizes)
        )
        self.decide = nn.Linear(width, SIZE)

    def forward(self, seen: Tensor) -> Tensor:
        hidden = seen
        for layer in self.layers:
            hidden = layer(hidden)
        return self.decide(hidden)


class LearnedOptimizer(nn.Module):
    """A small recurrent network for each coordinate, which is given the gradient there and says where to go.

    Its iterates are the answers; the gradient is that of the objective in its context.
    """

    def __init__(self, goal: str = "base", width: int = 20, steps: int = 12) -> None:
        super().__init__()
        self.goal, self.steps = GOALS.index(goal), steps
        self.cell = nn.LSTMCell(1, width)
        self.move = nn.Linear(width, 1)
        self.iterate = nn.Identity()

    def forward(self, seen: Tensor) -> Tensor:
        return self.path(seen)[-1]

    def path(self, seen: Tensor) -> list[Tensor]:
        """All iterates but the first."""
        curvature, slopes = _from_seen(seen)
        y = self.iterate(seen.new_zeros(len(seen), SIZE))
        state, path = None, []
        for _ in range(self.steps):
            gradient = (curvature @ y[..., None]).squeeze(-1) - slopes[self.goal]
            state = self.cell(gradient.detach().reshape(-1, 1), state)
            y = self.iterate(y + self.move(state[0]).view_as(y))
            path.append(y)
        return path


def _from_seen(seen: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    upper, base, proxy = seen.split([SEEN - 2 * SIZE, SIZE, SIZE], 1)
    rows, columns = torch.triu_indices(SIZE, SIZE)
    curvature = seen.new_zeros(len(seen), SIZE, SIZE)
    curvature[:, rows, columns] = upper
    curvature[:, columns, rows] = upper
    return curvature, (base, proxy)


ITERATES: dict[type[nn.Module], tuple[tuple[str, ...], str | None]] = {
    Unrolled: (("iterate",), None),
    Tied: (("state",), "decide"),
    Residual: (("encode", "blocks.*"), "decide"),
    Plain: (("layers.*",), "decide"),
    LearnedOptimizer: (("iterate",), None),
}
"""Network -> the layers that give its iterates, and the head that decodes them."""


def train(network: nn.Module, seen: Tensor, right: Tensor, steps: int, seed: int, rate: float = 2e-3) -> nn.Module:
    """Learn right answers; batches of 256, a rate that falls to zero."""
    random = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(network.parameters(), rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, steps)
    for _ in range(steps):
        some = torch.randint(len(seen), (256,), generator=random)
        path = network.path(seen[some]) if isinstance(network, LearnedOptimizer) else [network(seen[some])]
        loss = torch.stack([F.mse_loss(y, right[some]) for y in path]).mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    return network.eval()
