"""How to act in a vector environment: as the model does, or without looking."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution

from lightning_mesa.distributions import Policy
from lightning_mesa.errors import ConfigurationError

Act = Callable[[Any, Any], tuple[Any, Any]]
"""``(observation, state) -> (actions for the environments, state)``"""

MOST_CONSTANTS = 8
"""Of more actions than these, each is not tried alone."""


class NoActionError(ArithmeticError):
    """The policy's outputs are NaN, so that it does nothing."""


def policy_of(trainer: Any, pl_module: Any, policy: Policy | None, envs: Any, *, greedy: bool) -> Act:
    """Act as the model does.

    Args:
        trainer: The trainer, for its device and precision.
        pl_module: The LightningModule.
        policy: ``(pl_module, observation, state) -> (logits or Distribution, state)``; None calls the module.
        envs: The vector environment.
        greedy: Whether to take the most probable action.
    """
    space, n = envs.single_action_space, envs.num_envs
    precision, strategy = trainer.precision_plugin, trainer.strategy
    bounds = (torch.as_tensor(space.low), torch.as_tensor(space.high)) if hasattr(space, "low") else None  # a Box
    start = torch.as_tensor(getattr(space, "start", 0))  # of discrete actions

    def act(observation: Any, state: Any) -> tuple[Any, Any]:
        moved = strategy.batch_to_device(precision.convert_input(observation))
        with precision.forward_context():
            if policy is not None:
                answer = policy(pl_module, moved, state)
                if not isinstance(answer, tuple) or len(answer) != 2:
                    raise ConfigurationError(
                        f"the policy returned {type(answer).__name__}: it must return (logits or Distribution, state), "
                        "the state None where it has no memory."
                    )
                found, state = answer
            else:
                found = pl_module(moved)
                found = found[0] if isinstance(found, tuple) else found
        chosen = _chosen(found, n, greedy).cpu()
        if bounds is not None:  # which distributions do not know, as a rule
            chosen = chosen.float() if chosen.dtype == torch.bfloat16 else chosen
            chosen = chosen.reshape(n, *space.shape).clamp(*bounds)
        elif start.any():
            chosen = chosen + start
        return chosen.numpy().astype(space.dtype, copy=False), state

    return act


def random_policy(envs: Any, seed: int) -> Act:
    """Act at random, whatever is seen."""
    envs.action_space.seed(seed)
    return lambda observation, state: (envs.action_space.sample(), None)


def constant_policies(envs: Any) -> list[Act]:
    """Always take the same action: one policy for each, where actions are discrete and few."""
    space = envs.single_action_space
    if type(space).__name__ != "Discrete" or space.n > MOST_CONSTANTS:
        return []
    none = envs.action_space.sample() * 0
    return [partial(_always, none + space.start + action) for action in range(space.n)]


def _always(action: Any, observation: Any, state: Any) -> tuple[Any, None]:
    return action, None


def _chosen(found: Any, n: int, greedy: bool) -> Tensor:
    """``[n, ...]`` actions from what a policy returned."""
    if isinstance(found, Mapping):
        found = found.get("logits")
    elif not isinstance(found, (Tensor, Distribution)):
        found = getattr(found, "logits", None)
    if isinstance(found, Tensor):
        if found.ndim != 2 or len(found) != n:
            raise ConfigurationError(
                f"the policy returned logits of shape {list(found.shape)} for {n} environments: they must be [{n}, A], "
                "or a torch Distribution over actions."
            )
        if found.isnan().any():
            raise NoActionError("the policy's logits are NaN")
        # As Categorical does, without its checks.
        return found.argmax(1) if greedy else torch.multinomial(found.float().softmax(1), 1)[:, 0]
    if not isinstance(found, Distribution):
        raise ConfigurationError(
            "the policy must return logits [n, A] or a torch Distribution over actions; pass policy=, a function "
            "(pl_module, observation, state) -> (logits or Distribution, state)."
        )
    return found.mode if greedy else found.sample()
