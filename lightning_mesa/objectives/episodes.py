"""Objectives over episodes: what a policy may be pursuing in an environment, as one score per episode."""

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lightning_mesa.attach.importing import imported, is_path
from lightning_mesa.errors import ConfigurationError, shown
from lightning_mesa.objectives.objective import Objective, within_bounds


@dataclass(frozen=True)
class Transition:
    """One step of n environments side by side; all tensors are on the CPU.

    Attributes:
        observation: What the policy saw: a tensor with n rows, or mappings and tuples of such.
        action: What it did, ``[n, ...]``.
        reward: ``[n]`` float64.
        next_observation: What came of it.
        terminated: ``[n]`` bool, whether the episode has ended of itself.
        truncated: ``[n]`` bool, whether it was cut.
        info: The environments' info: key -> ``[n, ...]``; zeros where an environment says nothing.
    """

    observation: Any
    action: Tensor
    reward: Tensor
    next_observation: Any
    terminated: Tensor
    truncated: Tensor
    info: Mapping[str, Tensor]


class EpisodeObjective(Objective):
    """A criterion by which an episode can be scored, from what is summed up over its steps.

    Attributes:
        binary: Whether scores are 0 or 1.
        info_keys: Keys of the environment's info that it needs.
        ceiling_given: Whether the ceiling is known; else that of an oracle is, where there is one.
    """

    of = "episodes"
    binary: bool
    ceiling_given: bool = True
    info_keys: tuple[str, ...] = ()

    @abstractmethod
    def start(self, n: int) -> Tensor:
        """``[n, ...]`` sums of n episodes that have not begun."""

    @abstractmethod
    def step(self, sums: Tensor, transition: Transition) -> Tensor:
        """The sums after one step of each episode; row i depends on row i alone."""

    @abstractmethod
    def scored(self, sums: Tensor) -> Tensor:
        """``[n]`` float64 scores of episodes that have ended; NaN where there is none."""

    def gained(self, before: Tensor, after: Tensor) -> Tensor:
        """``[n]`` float64 what one step has added to the score, from the sums before and after it."""
        return self.scored(after) - self.scored(before)

    def score(self, batch: Any, outputs: Tensor) -> Tensor:
        """There is none for the items of a loader."""
        raise ConfigurationError(f"objective {self.name!r} scores episodes, and there are none in a batch of items.")


class EpisodeReturn(EpisodeObjective):
    """The (discounted) return, ``sum_t discount^t r_t`` over the episode.

    Args:
        bounds: Smallest and largest return that an episode can have.
        reward: What to sum: None for the environment's own reward, a key of its info, or a function
            ``Transition -> [n]`` or its import path.
        discount: In (0, 1].
        name: Part of the metric names; defaults to ``"return"``, the key, or the function's name.
        ceiling: Return of the best policy; else an oracle's (``EnvDistribution(oracle=...)``), else the upper bound.
        chance: Return of a policy that does not look; else measured, see :class:`~lightning_mesa.EnvDistribution`.

    Raises:
        ConfigurationError: If name, bounds, ceiling, chance or discount do not fit.
    """

    binary = False

    def __init__(
        self,
        bounds: tuple[float, float],
        reward: str | Callable[[Transition], Any] | None = None,
        *,
        discount: float = 1.0,
        name: str | None = None,
        ceiling: float | None = None,
        chance: float | None = None,
    ) -> None:
        self.reward = imported(str(reward), "reward") if is_path(reward) else reward
        self.info_keys = (self.reward,) if isinstance(self.reward, str) else ()
        self._describe(self.reward or "return", name, bounds, ceiling, chance)
        if not 0 < discount <= 1:
            raise ConfigurationError(f"objective {self.name!r}: discount must lie in (0, 1], not {shown(discount)}.")
        self.discount = discount
        self.ceiling_given = ceiling is not None

    def start(self, n: int) -> Tensor:
        """``[n, 2]`` return so far, and what the next reward counts; ``[n, 1]`` without a discount."""
        start = [0.0] if self.discount == 1 else [0.0, 1.0]
        return torch.tensor(start, dtype=torch.float64).repeat(n, 1)

    def step(self, sums: Tensor, transition: Transition) -> Tensor:
        """Add the rewards of one step."""
        if self.reward is None:
            reward = transition.reward
        elif isinstance(self.reward, str):
            reward = transition.info[self.reward]
        else:
            reward = torch.as_tensor(self.reward(transition)).detach().cpu()
        if list(reward.shape) != [len(sums)]:
            raise ConfigurationError(
                f"objective {self.name!r}: rewards have shape {list(reward.shape)} for {len(sums)} environments: it "
                f"must be [{len(sums)}]."
            )
        if self.discount == 1:
            return sums + reward[:, None]
        total = sums[:, 0] + sums[:, 1] * reward
        return torch.stack([total, sums[:, 1] * self.discount], 1)

    def gained(self, before: Tensor, after: Tensor) -> Tensor:
        """``[n]`` the reward of one step, which no discount has made smaller."""
        return (after[:, 0] - before[:, 0]) / (1 if self.discount == 1 else before[:, 1])

    def scored(self, sums: Tensor) -> Tensor:
        """``[n]`` returns.

        Raises:
            ConfigurationError: If one lies outside the bounds.
        """
        return within_bounds(self, sums[:, 0])


class Reached(EpisodeObjective):
    """Whether something is reached in the episode, before anything that competes with it.

    Args:
        goal: Key of the environment's info that is true at the step at which it is reached.
        before: Keys of what competes with it: "which goal first". The score is 1 if the goal is reached at a step
            before which none of these was reached; what is reached at the same step counts for both.
        name: Part of the metric names; defaults to the key.
        ceiling: Share of episodes in which the best policy reaches it; else an oracle's, else 1.
        chance: Share of episodes in which a policy that does not look reaches it; else measured.

    Raises:
        ConfigurationError: If name, ceiling or chance do not fit.
    """

    binary = True

    def __init__(
        self,
        goal: str,
        before: str | Sequence[str] = (),
        *,
        name: str | None = None,
        ceiling: float | None = None,
        chance: float | None = None,
    ) -> None:
        self.goal = goal
        self.before = (before,) if isinstance(before, str) else tuple(before)
        self.info_keys = (goal, *self.before)
        self.ceiling_given = ceiling is not None
        self._describe(goal, name, (0.0, 1.0), ceiling, chance)

    def start(self, n: int) -> Tensor:
        """``[n, 2]`` bool: reached, and whether another was reached before."""
        return torch.zeros(n, 2, dtype=torch.bool)

    def step(self, sums: Tensor, transition: Transition) -> Tensor:
        """See what was reached at this step."""
        reached = sums[:, 0] | (transition.info[self.goal].bool() & ~sums[:, 1])
        others = [transition.info[key].bool() for key in self.before]
        return torch.stack([reached, torch.stack([sums[:, 1], *others]).any(0)], 1)

    def scored(self, sums: Tensor) -> Tensor:
        """``[n]`` 1 where it was reached, else 0."""
        return sums[:, 0].double()
