"""How to act in a vector environment: as the model does, or without looking."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.distributions import Distribution

from lightning_mesa.errors import ConfigurationError

Policy: TypeAlias = Callable[[Any, Any, Any], Any]

Act = Callable[[Any, Any], tuple[Any, Any]]
"""``(observation, state) -> (actions for the environments, state)``"""

Prefer = Callable[[Any, Any], tuple[Tensor, Any]]
"""``(observation, state) -> ([n, A] log probabilities, state)``"""

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
    bounds = (torch.as_tensor(space.low), torch.as_tensor(space.high)) if hasattr(space, "low") else None  # a Box
    start = torch.as_tensor(getattr(space, "start", 0))  # of discrete actions
    ask = _asking(trainer, pl_module, policy)

    def act(observation: Any, state: Any) -> tuple[Any, Any]:
        found, state = ask(observation, state)
        chosen = _chosen(found, n, greedy).cpu()
        if bounds is not None:  # which distributions do not know, as a rule
            chosen = chosen.float() if chosen.dtype == torch.bfloat16 else chosen
            chosen = chosen.reshape(n, *space.shape).clamp(*bounds)
        elif start.any():
            chosen = chosen + start
        return chosen.numpy().astype(space.dtype, copy=False), state

    return act


def preferences_of(trainer: Any, pl_module: Any, policy: Policy | None, envs: Any) -> Prefer:
    """The log probabilities of the model's actions, which are discrete; arguments as of :func:`policy_of`."""
    n, ask = envs.num_envs, _asking(trainer, pl_module, policy)

    def prefer(observation: Any, state: Any) -> tuple[Tensor, Any]:
        found, state = ask(observation, state)
        return _logits(found, n).double().log_softmax(1), state

    return prefer


def _asking(trainer: Any, pl_module: Any, policy: Policy | None) -> Act:
    """What the model says to an observation, and its memory."""
    precision, strategy = trainer.precision_plugin, trainer.strategy

    def ask(observation: Any, state: Any) -> tuple[Any, Any]:
        moved = strategy.batch_to_device(precision.convert_input(observation))
        with precision.forward_context():
            if policy is None:
                found = pl_module(moved)
                return (found[0] if isinstance(found, tuple) else found), state
            answer = policy(pl_module, moved, state)
        if not isinstance(answer, tuple) or len(answer) != 2:
            raise ConfigurationError(
                f"the policy returned {type(answer).__name__}: it must return (logits or Distribution, state), "
                "the state None where it has no memory."
            )
        return answer

    return ask


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
    if isinstance(found, Distribution):
        return found.mode if greedy else found.sample()
    logits = _logits(found, n)
    # As Categorical does, without its checks.
    return logits.argmax(1) if greedy else torch.multinomial(logits.float().softmax(1), 1)[:, 0]


def _logits(found: Any, n: int) -> Tensor:
    """``[n, A]`` logits of discrete actions from what a policy returned, on the CPU: a step waits for it once."""
    if isinstance(found, Mapping):
        found = found.get("logits")
    elif not isinstance(found, Tensor):
        found = getattr(found, "logits", None)  # of a model's answer, or a Categorical
    if not isinstance(found, Tensor):
        raise ConfigurationError(
            "the policy must return logits [n, A] or a torch Distribution over actions; pass policy=, a function "
            "(pl_module, observation, state) -> (logits or Distribution, state)."
        )
    if found.ndim != 2 or len(found) != n:
        raise ConfigurationError(
            f"the policy returned logits of shape {list(found.shape)} for {n} environments: they must be [{n}, A], "
            "or a torch Distribution over actions."
        )
    logits = found.detach().cpu()
    if logits.isnan().any():
        raise NoActionError("the policy's logits are NaN")
    return logits
