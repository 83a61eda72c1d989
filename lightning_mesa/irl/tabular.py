"""Markov decision processes whose transitions are known: soft values, and maximum causal entropy IRL by Newton.

Ziebart 2010, "Modeling purposeful adaptive behavior with the principle of maximum causal entropy". With the policy
known instead of demonstrations, the expected log-likelihood of what it does is concave in the weights, and its Hessian
is a covariance of successor features.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy import sparse
from scipy.sparse import linalg as sparse_linalg
from torch import Tensor

from lightning_mesa.irl.fit import ObjectiveFit, informative, names_of

STEPS = 100
TOLERANCE = 1e-13
"""Newton's last step is one that gains less than this, in nats."""

DENSE = 0.1
"""Transitions of which so large a share is not 0 are kept as a dense matrix."""


@dataclass(frozen=True)
class TabularMDP:
    """A Markov decision process without a reward.

    Args:
        transitions: ``[S, A, S]`` probabilities of the next state, a dense or a sparse tensor, or the same as a SciPy
            sparse matrix ``[S * A, S]``. A row may add up to less than 1: the episode ends with the rest.
        initial: ``[S]`` probabilities of the first state.
        discount: In (0, 1]; below 1 where there is no horizon.
        horizon: Number of decisions in an episode, or None for no end but that of the transitions.

    Raises:
        ValueError: If these are no probabilities, or shapes, discount or horizon do not fit.
    """

    transitions: Any
    initial: Tensor
    discount: float = 1.0
    horizon: int | None = None

    def __post_init__(self) -> None:
        rows, states = self.matrix.shape
        if self.initial.shape != (states,) or rows % states or not rows:
            raise ValueError(
                f"transitions {list(self.transitions.shape)} and initial {list(self.initial.shape)} do not fit: "
                "they must be [S, A, S] (or a sparse matrix [S * A, S]) and [S]"
            )
        sums = self.matrix @ np.ones(states)
        least = self.matrix.min() if rows else 0.0
        if not np.isfinite(sums).all() or least < 0 or sums.max() > 1 + 1e-6:
            raise ValueError(
                "transitions must be probabilities: finite, not negative, at most 1 in sum over next states"
            )
        if bool((self.initial < 0).any()) or abs(float(self.initial.sum()) - 1) > 1e-6:
            raise ValueError("initial must be probabilities that add up to 1")
        if not 0 < self.discount <= 1 or (self.horizon is None and self.discount == 1):
            raise ValueError("discount must lie in (0, 1], and below 1 where there is no horizon")
        if self.horizon is not None and self.horizon < 1:
            raise ValueError(f"horizon must be at least 1, not {self.horizon}")

    @cached_property
    def matrix(self) -> Any:
        """``[S * A, S]`` the transitions in double precision: SciPy's sparse rows, or NumPy's array if few are 0."""
        given = self.transitions
        if isinstance(given, Tensor):
            dense = given.to_dense() if given.layout != torch.strided else given
            rows: Any = dense.detach().cpu().double().numpy().reshape(-1, given.shape[-1])
        else:
            rows = given.astype(np.float64)
        filled = np.count_nonzero(rows) if isinstance(rows, np.ndarray) else rows.nnz
        if filled > DENSE * np.prod(rows.shape):
            return rows if isinstance(rows, np.ndarray) else rows.toarray()
        return sparse.csr_array(rows)

    @property
    def states(self) -> int:
        """Number of states S."""
        return int(self.matrix.shape[1])

    @property
    def actions(self) -> int:
        """Number of actions A."""
        return int(self.matrix.shape[0]) // self.states

    def following(self, values: Any) -> Any:
        """``[S, A, ...]`` the expected values ``[S, ...]`` of the next state, discounted."""
        flat = values.reshape(self.states, -1)
        found = self.discount * (self.matrix @ flat)
        return found.reshape(self.states, self.actions, *values.shape[1:])

    def under(self, policy: Any) -> Any:
        """``[S, S]`` discounted transitions of a policy ``[S, A]``."""
        weight = policy.reshape(-1)
        if isinstance(self.matrix, np.ndarray):
            chosen = (self.matrix * weight[:, None]).reshape(self.states, self.actions, self.states).sum(1)
            return self.discount * chosen
        rows = np.repeat(np.arange(self.states), self.actions)
        choose = sparse.csr_array((weight, (rows, np.arange(len(weight)))), shape=(self.states, len(weight)))
        return self.discount * (choose @ self.matrix)


class Soft(NamedTuple):
    """A soft-optimal policy and its values; with a horizon H, each has a first dimension ``[H]`` more.

    Attributes:
        policy: ``[S, A]``.
        values: ``[S]`` soft values, in nats.
        action_values: ``[S, A]``.
    """

    policy: Tensor
    values: Tensor
    action_values: Tensor


def soft_value_iteration(mdp: TabularMDP, reward: Tensor) -> Soft:
    """The policy that maximises return plus entropy.

    ``Q = r + discount P V``, ``V = log sum_a exp Q``, ``policy = exp(Q - V)``; by dynamic programming backward from the
    horizon, or without one by soft policy iteration, which is Newton's method on the Bellman equation and doubles the
    number of correct digits at each step.

    Args:
        mdp: The decision process.
        reward: ``[S, A]``, in nats: already divided by the temperature.

    Raises:
        ValueError: If the reward has another shape, or is not finite.
    """
    found = _soft(mdp, _array(mdp, reward[..., None], "reward")[..., 0])
    return Soft(*(torch.from_numpy(np.ascontiguousarray(part)) for part in found))


def successor_features(mdp: TabularMDP, features: Tensor, policy: Tensor) -> tuple[Tensor, Tensor]:
    """What a policy will collect of each feature after an action, and how random it will be.

    ``psi = phi + discount P sum_a pi psi`` and ``h = discount P (H(pi) + sum_a pi h)`` (Hotz and Miller 1993; Sharma,
    Kitani and Groeger 2017): a soft-optimal policy for ``w . phi`` is ``softmax_a(w . psi + h)``.

    Args:
        mdp: The decision process.
        features: ``[S, A, K]`` phi.
        policy: ``[S, A]``, or with a horizon H also ``[H, S, A]``.

    Returns:
        psi ``[S, A, K]`` and h ``[S, A]``, with a horizon ``[H, S, A, K]`` and ``[H, S, A]``.

    Raises:
        ValueError: If a shape does not fit.
    """
    phi, pi = _array(mdp, features, "features"), _policy(mdp, policy)
    with_entropy = np.concatenate([phi, np.zeros((*phi.shape[:2], 1))], 2)
    psi = _collected(mdp, with_entropy, pi, entropy=True)
    return torch.from_numpy(np.ascontiguousarray(psi[..., :-1])), torch.from_numpy(np.ascontiguousarray(psi[..., -1]))


def occupancy(mdp: TabularMDP, policy: Tensor) -> Tensor:
    """Discounted expected number of visits: ``[S]``, with a horizon H ``[H, S]``.

    Args:
        mdp: The decision process.
        policy: ``[S, A]``, or with a horizon H also ``[H, S, A]``.
    """
    return torch.from_numpy(_visits(mdp, _policy(mdp, policy)))


def max_causal_entropy_irl(
    mdp: TabularMDP, features: Tensor, policy: Tensor, *, names: Sequence[str] | None = None
) -> ObjectiveFit:
    """The weights whose soft-optimal policy is nearest to a policy that is known.

    Maximises ``E_policy[sum_t discount^t log pi_w(a_t | s_t)]``, whose gradient is ``mu(policy) - mu(pi_w)``, the
    difference in what is collected of the features, and whose Hessian is minus ``sum_t discount^t E[Cov_a psi_w]``
    under pi_w. States that the policy never reaches do not count. Nothing is sampled, so intervals are points; what
    is not identified cannot be told from a *shaping* of the reward in this process.

    Args:
        mdp: The decision process.
        features: ``[S, A, K]``.
        policy: ``[S, A]``, or with a horizon H also ``[H, S, A]``.
        names: Of the features.

    Raises:
        ValueError: If a shape does not fit, a feature is not finite, or the policy is none.
    """
    phi, pi = _array(mdp, features, "features"), _policy(mdp, policy)
    count, visits = phi.shape[2], _visits(mdp, pi)
    total = visits.sum()
    aims = np.einsum("sa,sak->k", _done(visits, pi), phi)
    uniform = np.full_like(pi, 1 / mdp.actions)
    basis = informative(torch.from_numpy(_hessian(mdp, phi, uniform)))
    inside = phi @ basis.numpy()

    def at(v: Any) -> tuple[Any, float]:
        """The policy at weights ``v`` and the loss, that is less log-likelihood."""
        model, values, _ = _soft(mdp, inside @ v)
        first = values if mdp.horizon is None else values[0]
        return model, float(mdp.initial.double().numpy() @ first - v @ (aims @ basis.numpy()))

    v = np.zeros(inside.shape[2])
    model, loss = at(v)
    converged = False
    for _ in range(STEPS):
        gradient = aims @ basis.numpy() - np.einsum("sa,sak->k", _done(_visits(mdp, model), model), inside)
        step = np.linalg.pinv(_hessian(mdp, inside, model), hermitian=True) @ gradient
        gain = float(gradient @ step)
        if gain < TOLERANCE * total:
            v, converged = v + step, True
            break
        size = 1.0
        while size > 1e-8:
            tried, lower = at(v + size * step)
            if lower < loss:
                break
            size /= 2
        else:
            converged = gain < 1e-9 * total
            break
        v, model, loss = v + size * step, tried, lower
    model, loss = at(v)
    reached = visits > 1e-12 * total
    if len(v) and reached.any() and bool((model[reached].max(-1) > 1 - 1e-12).all()):
        converged = False
    information = basis.numpy() @ _hessian(mdp, inside, model) @ basis.numpy().T / total
    bread = torch.linalg.pinv(torch.from_numpy(information), hermitian=True, rtol=1e-12)
    return ObjectiveFit(
        names_of(names, count),
        basis @ torch.from_numpy(v),
        bread,
        None,
        basis,
        None,
        -loss / total,
        _references(visits / total, pi),
        converged,
    )


def _soft(mdp: TabularMDP, reward: Any) -> tuple[Any, Any, Any]:
    if mdp.horizon is not None:
        values, found = np.zeros(mdp.states), []
        for _ in range(mdp.horizon):
            q = reward + mdp.following(values)
            values = _logsumexp(q)
            found.append((np.exp(q - values[:, None]), values, q))
        policy, value, action = zip(*found[::-1], strict=True)
        return np.stack(policy), np.stack(value), np.stack(action)
    q = reward
    for _ in range(STEPS):
        values = _logsumexp(q)
        policy = np.exp(q - values[:, None])
        gained = np.einsum("sa,sa->s", policy, reward - (q - values[:, None]))
        exact = _solve(mdp, policy, gained)
        following = reward + mdp.following(exact)
        change = np.abs(following - q).max()
        q = following
        if change <= 1e-13 * max(1.0, np.abs(q).max()):
            break
    values = _logsumexp(q)
    return np.exp(q - values[:, None]), values, q


def _collected(mdp: TabularMDP, phi: Any, pi: Any, *, entropy: bool = False) -> Any:
    """Successor features; with ``entropy``, the last feature is the policy's entropy from the next state on."""

    def at_state(psi: Any, policy: Any) -> Any:
        worth = np.einsum("sa,sak->sk", policy, psi)
        if entropy:
            worth[:, -1] -= np.einsum("sa,sa->s", policy, np.log(np.maximum(policy, 1e-300)))
        return worth

    if mdp.horizon is not None:
        psi, found = phi, [phi]
        for policy in pi[:0:-1]:
            psi = phi + mdp.following(at_state(psi, policy))
            found.append(psi)
        return np.stack(found[::-1])
    return phi + mdp.following(_solve(mdp, pi, at_state(phi, pi)))


def _hessian(mdp: TabularMDP, phi: Any, pi: Any) -> Any:
    psi = _collected(mdp, phi, pi)
    about = psi - np.einsum("...sa,...sak->...sk", pi, psi)[..., None, :]
    weight = _visits(mdp, pi)[..., None] * pi
    spread = (about * np.sqrt(np.maximum(weight, 0))[..., None]).reshape(-1, phi.shape[2])
    return spread.T @ spread


def _visits(mdp: TabularMDP, pi: Any) -> Any:
    initial = mdp.initial.double().numpy()
    if mdp.horizon is None:
        return np.maximum(_solve(mdp, pi, initial, transposed=True), 0)
    visits = [initial]
    for policy in pi[:-1]:
        visits.append(mdp.discount * (mdp.matrix.T @ (visits[-1][:, None] * policy).reshape(-1)))
    return np.stack(visits)


def _solve(mdp: TabularMDP, pi: Any, right: Any, *, transposed: bool = False) -> Any:
    """``(I - discount P_pi)^-1 right``, or with the transposed matrix."""
    moves = mdp.under(pi)
    if isinstance(moves, np.ndarray):
        left = np.eye(mdp.states) - moves
        return np.linalg.solve(left.T if transposed else left, right)
    left = sparse.eye_array(mdp.states, format="csc") - moves.tocsc()
    return sparse_linalg.splu(left.T.tocsc() if transposed else left).solve(np.ascontiguousarray(right))


def _done(visits: Any, pi: Any) -> Any:
    """``[S, A]`` how often each action is done."""
    done = visits[..., None] * pi
    return done.reshape(-1, *pi.shape[-2:]).sum(0)


def _references(weights: Any, pi: Any) -> dict[str, float]:
    frequencies = _done(weights, pi).sum(0)
    return {
        "uniform": -float(np.log(pi.shape[-1])),
        "marginal": float(frequencies @ np.log(np.maximum(frequencies, 1e-300))),
        "perfect": float((weights[..., None] * pi * np.log(np.maximum(pi, 1e-300))).sum()),
    }


def _logsumexp(q: Any) -> Any:
    top = q.max(-1)
    return top + np.log(np.exp(q - top[..., None]).sum(-1))


def _array(mdp: TabularMDP, values: Tensor, what: str) -> Any:
    found = values.detach().cpu().double().numpy()
    if found.ndim != 3 or found.shape[:2] != (mdp.states, mdp.actions):
        raise ValueError(f"{what} must be [{mdp.states}, {mdp.actions}, ...], not {list(values.shape)}")
    if not np.isfinite(found).all():
        raise ValueError(f"{what} must be finite")
    return found


def _policy(mdp: TabularMDP, policy: Tensor) -> Any:
    shape = (mdp.states, mdp.actions)
    found = policy.detach().cpu().double().numpy()
    if mdp.horizon is not None and found.shape == shape:
        found = np.broadcast_to(found, (mdp.horizon, *shape))
    if found.shape != (shape if mdp.horizon is None else (mdp.horizon, *shape)):
        raise ValueError(f"policy must be {list(shape)}, with a horizon also [H, S, A], not {list(policy.shape)}")
    if not np.isfinite(found).all() or found.min() < 0 or np.abs(found.sum(-1) - 1).max() > 1e-4:
        raise ValueError("policy must be probabilities that add up to 1 in each state")
    return found
