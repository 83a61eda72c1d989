"""Distances between rewards that do not see what no behavior depends on: a reward's scale and its shaping."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lightning_mesa.irl.tabular import TabularMDP, successor_features

PRECISE, COARSE = 1e-13, 1e-5
"""What is this small relative to the reward is rounding: in double precision, and where something came in single."""

CANCELLED = 1e-12
"""Squared norm, relative to the largest that weights of these sizes can have, at which features cancel out."""


def starc_distance(mdp: TabularMDP, first: Tensor, second: Tensor, *, policy: Tensor | None = None) -> float | None:
    """STARC distance between two rewards, with canonicalisation by values (Skalse et al. 2024).

    ``c(R)(s, a) = E_S'[R(s, a, S') + discount V(S') - V(s)]``, the advantage of an action under the policy; the
    distance is half the Euclidean one of ``c / |c|``. Shaping by a potential, scale, and how a reward is spread over
    next states at the same expectation do not matter.

    Args:
        mdp: The decision process, without a horizon. Where a row of its transitions adds up to less than 1, the
            episode ends with the rest, and a reward ``[S, A, S]`` pays nothing for that.
        first: ``[S, A]``, or ``[S, A, S]`` with the next state.
        second: As ``first``.
        policy: ``[S, A]``, whose values are used; uniform by default.

    Returns:
        In [0, 1]: 0 if the rewards are the same but for shaping and scale, 1 if they are opposite. None if one of them
        is nothing but shaping: it is no objective, but would be at a distance of 0.5 from every objective.

    Raises:
        ValueError: If the process has a horizon, a shape does not fit, a reward is not finite, or the policy is none.
    """
    expected = torch.stack([_expected(mdp, reward) for reward in (first, second)], -1)
    one, other = torch.eye(2, dtype=torch.float64)
    return weight_distance(gram(_canonical(mdp, expected, policy, (first, second))), one, other)


def canonical_features(mdp: TabularMDP, features: Tensor, *, policy: Tensor | None = None) -> Tensor:
    """``[S, A, K]`` the canonical form ``c`` of each feature; that of ``w . features`` is ``w .`` these.

    A feature that is nothing but shaping becomes exactly 0. Arguments and errors are those of :func:`starc_distance`.

    Args:
        mdp: The decision process.
        features: ``[S, A, K]``.
        policy: ``[S, A]``.
    """
    return _canonical(mdp, features, policy, features.unbind(-1))


def one_step_features(features: Tensor, available: Tensor | None = None) -> Tensor:
    """``[n, A, K]`` canonical features where one decision is all: minus their mean over the choices of the item.

    Args:
        features: ``[n, A, K]``.
        available: ``[n, A]`` bool, which choices there are, or for how many each one stands: one by default. The result
            is 0 where there is none.

    Raises:
        ValueError: If shapes do not fit, a feature is not finite, or an item has no choice.
    """
    if features.ndim != 3 or (available is not None and available.shape != features.shape[:2]):
        raise ValueError(f"features must be [n, A, K], not {list(features.shape)}, and available [n, A]")
    counts = torch.ones(features.shape[:2], dtype=torch.float64) if available is None else available.double()
    there = counts > 0
    known = torch.where(there[..., None], features.double(), 0)
    if not bool(there.any(1).all() and known.isfinite().all()):
        raise ValueError("features must be finite, and each item must have a choice that is available")
    mean = torch.einsum("na,nak->nk", counts, known) / counts.sum(1, keepdim=True)
    about = torch.where(there[..., None], known - mean[:, None], 0)
    return _rounded(about, _rounding(features) * _sizes(known.unbind(-1)))


def gram(canonical: Tensor, weights: Tensor | None = None) -> Tensor:
    """``[K, K]`` mean products of canonical features over pairs; with it each :func:`weight_distance` is cheap.

    Args:
        canonical: ``[S, A, K]`` or ``[n, A, K]``.
        weights: ``[S]`` or ``[n]``, not negative; all alike by default.

    Raises:
        ValueError: If shapes do not fit, or weights are negative, not finite, or all 0.
    """
    weights = torch.ones(len(canonical), dtype=torch.float64) if weights is None else weights.double()
    if canonical.ndim != 3 or weights.shape != canonical.shape[:1]:
        raise ValueError(f"features must be [n, A, K] and weights [n], not {[*canonical.shape]} and {[*weights.shape]}")
    if not bool((weights >= 0).all() and 0 < weights.sum() < torch.inf):
        raise ValueError("weights must be finite, not negative, and not all 0")
    share = weights / (weights.sum() * canonical.shape[1])
    spread = (canonical.double() * share.sqrt()[:, None, None]).flatten(0, 1)
    return spread.T @ spread


def weight_distance(gram: Tensor, first: Tensor, second: Tensor) -> float | None:
    """STARC distance between the rewards ``first . features`` and ``second . features``, accurate to 1e-7.

    Args:
        gram: ``[K, K]`` of the canonical features, see :func:`gram`.
        first: ``[K]``.
        second: ``[K]``.

    Returns:
        As :func:`starc_distance`.

    Raises:
        ValueError: If shapes do not fit, or something is not finite.
    """
    gram, first, second = gram.double(), first.double(), second.double()
    if gram.ndim != 2 or not first.shape == second.shape == gram.shape[:1] == gram.shape[1:]:
        raise ValueError(f"gram must be [K, K], not {list(gram.shape)}, and both weights [K]")
    if not all(bool(part.isfinite().all()) for part in (gram, first, second)):
        raise ValueError("gram and weights must be finite")
    units = []
    for weights in (first, second):
        square, most = weights @ gram @ weights, weights.abs() @ gram.diagonal().clamp(min=0).sqrt()
        if square <= CANCELLED * most.square():
            return None
        units.append(weights / square.sqrt())
    gap = units[0] - units[1]
    return min(1.0, float((gap @ gram @ gap).clamp(min=0).sqrt()) / 2)


def epic_distance(
    mdp: TabularMDP, first: Tensor, second: Tensor, *, states: Tensor | None = None, actions: Tensor | None = None
) -> float | None:
    """EPIC distance between two rewards (Gleave et al. 2021); it looks at transitions that are impossible, too.

    ``C(R)(s, a, s') = R(s, a, s') + discount E[R(s', A, S')] - E[R(s, A, S')] - discount E[R(S, A, S')]``, and the
    distance is ``sqrt((1 - rho) / 2)`` with Pearson's correlation rho over s, s' ~ ``states`` and a ~ ``actions``.

    Args:
        mdp: The decision process, of which only the discount matters.
        first: ``[S, A]``, or ``[S, A, S]`` with the next state.
        second: As ``first``.
        states: ``[S]`` probabilities of S and S'; uniform by default.
        actions: ``[A]`` probabilities of A; uniform by default.

    Returns:
        In [0, 1]: 0 if the rewards are the same but for shaping, scale and a constant, 1 if they are opposite. None if
        a canonical reward is constant.

    Raises:
        ValueError: If a shape does not fit, a reward is not finite, or probabilities are none.
    """
    seen, done = _chances(states, mdp.states, "states"), _chances(actions, mdp.actions, "actions")

    def canonical(reward: Tensor) -> Tensor:
        mean = torch.einsum("a,sat,t->s", done, reward, seen)
        return reward + mdp.discount * (mean - seen @ mean) - mean[:, None, None]

    return _correlation_distance(mdp, (first, second), canonical, torch.einsum("s,a,t->sat", seen, done, seen))


def dard_distance(
    mdp: TabularMDP, first: Tensor, second: Tensor, *, states: Tensor | None = None, actions: Tensor | None = None
) -> float | None:
    """DARD distance between two rewards (Wulfe et al. 2022); it looks only at states within two actions.

    ``C(R)(s, a, s') = R(s, a, s') + E[discount R(s', A, S'') - R(s, A, S') - discount R(S', A, S'')]``, S' ~ T(s, A),
    S'' ~ T(s', A); the distance is Pearson's as in :func:`epic_distance`, over s ~ ``states``, a ~ ``actions``,
    s' ~ T(s, a). Shaping cancels only as S'' follows s' in the last term, too, so that the step from S' to S'' may be
    impossible. How a reward is spread over next states matters. Arguments and errors are those of
    :func:`epic_distance`, and a ValueError if an episode can end: transitions must add up to 1.
    """
    seen, done = _chances(states, mdp.states, "states"), _chances(actions, mdp.actions, "actions")
    rows = mdp.matrix if isinstance(mdp.matrix, np.ndarray) else mdp.matrix.toarray()
    moves = torch.from_numpy(rows).reshape(mdp.states, mdp.actions, mdp.states)
    sums = moves.sum(-1, keepdim=True)
    if bool((sums < 1 - 1e-4).any()):
        raise ValueError("transitions must add up to 1: add a state to be in when the episode has ended")
    moves = moves / sums

    def canonical(reward: Tensor) -> Tensor:
        mean = torch.einsum("a,sat,sat->s", done, moves, reward)
        onward = torch.einsum("xay,tay->axt", reward, moves)
        cross = torch.einsum("a,sax,axt->st", done, moves, onward)
        return reward + mdp.discount * (mean - cross)[:, None] - mean[:, None, None]

    return _correlation_distance(mdp, (first, second), canonical, torch.einsum("s,a,sat->sat", seen, done, moves))


def _canonical(mdp: TabularMDP, features: Tensor, policy: Tensor | None, given: Sequence[Tensor]) -> Tensor:
    """Canonical features; ``given`` is what each was computed from, against which what is left may be rounding."""
    if mdp.horizon is not None:
        raise ValueError("with a horizon values depend on the time: give a discount below 1, and no horizon")
    if policy is None:
        policy = torch.full((mdp.states, mdp.actions), 1 / mdp.actions, dtype=torch.float64)
    psi, _ = successor_features(mdp, features, policy)
    values = torch.einsum("sa,sak->sk", policy.detach().cpu().double(), psi)
    noise = _rounding(*given, mdp.transitions, policy) * (_sizes(given) + values.abs().amax(0))
    return _rounded(psi - values[:, None], noise)


def _correlation_distance(
    mdp: TabularMDP, given: Sequence[Tensor], canonical: Callable[[Tensor], Tensor], weights: Tensor
) -> float | None:
    units = []
    for reward in given:
        form = canonical(_checked(mdp, reward).expand(mdp.states, mdp.actions, mdp.states))
        about = form - (weights * form).sum()
        deviation = (weights * about.square()).sum().sqrt()
        if deviation <= _rounding(reward) * float(_sizes([reward])):
            return None
        units.append(about / deviation)
    return min(1.0, float((weights * (units[0] - units[1]).square()).sum().sqrt()) / 2)


def _expected(mdp: TabularMDP, reward: Tensor) -> Tensor:
    """``[S, A]`` a reward's expectation over next states."""
    found = _checked(mdp, reward)
    if reward.ndim == 2:
        return found[..., 0]
    paid = mdp.matrix * found.numpy().reshape(-1, mdp.states)
    return torch.from_numpy(np.asarray(paid.sum(1))).reshape(mdp.states, mdp.actions)


def _checked(mdp: TabularMDP, reward: Tensor) -> Tensor:
    """``[S, A, S]``, or ``[S, A, 1]`` where the next state does not matter."""
    shape = (mdp.states, mdp.actions)
    if reward.shape not in (shape, (*shape, mdp.states)):
        raise ValueError(f"a reward must be {list(shape)} or {[*shape, mdp.states]}, not {list(reward.shape)}")
    if not bool(reward.isfinite().all()):
        raise ValueError("rewards must be finite")
    return reward.detach().cpu().double().reshape(*shape, -1)


def _chances(given: Tensor | None, count: int, what: str) -> Tensor:
    found = torch.ones(count).double() / count if given is None else given.detach().cpu().double()
    if found.shape != (count,) or not bool((found >= 0).all() and (found.sum() - 1).abs() < 1e-4):
        raise ValueError(f"{what} must be [{count}] probabilities that add up to 1")
    return found / found.sum()


def _sizes(rewards: Sequence[Tensor]) -> Tensor:
    return torch.tensor([float(reward.double().abs().max()) for reward in rewards], dtype=torch.float64)


def _rounding(*parts: Any) -> float:
    return PRECISE if all("64" in str(part.dtype) for part in parts) else COARSE


def _rounded(canonical: Tensor, noise: Tensor) -> Tensor:
    """Features that are no more than noise become 0, so that no distance is taken of noise."""
    return torch.where(canonical.abs().amax((0, 1)) > noise, canonical, 0)
