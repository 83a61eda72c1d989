"""Markov decision processes whose transitions are known: soft values, and maximum causal entropy IRL by Newton.

Ziebart 2010, "Modeling purposeful adaptive behavior with the principle of maximum causal entropy". With the policy
known, its expected log-likelihood is concave in the weights, and the Hessian a covariance of successor features.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy import sparse
from scipy.sparse import csgraph
from scipy.sparse import linalg as sparse_linalg
from torch import Tensor

from lightning_mesa.irl.conditional_logit import references
from lightning_mesa.irl.fit import ObjectiveFit, informative, names_of

STEPS = 100
TOLERANCE, SMALL = 1e-13, 1e-5
"""What is rounding, relative to losses or features; a Newton step of log-policies after which the next would be."""

CERTAIN = 1e-10
"""With less of a uniform policy's information than this, weights grow without end, and only rounding has stopped."""

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
        shape, (rows, states) = tuple(self.transitions.shape), self.matrix.shape
        fits = rows % states == 0 if len(shape) == 2 else len(shape) == 3 and shape[0] == states
        if not rows or not fits or self.initial.shape != (states,):
            given = f"{list(shape)} and {list(self.initial.shape)}"
            raise ValueError(f"transitions and initial must be [S, A, S] (or SciPy's [S * A, S]) and [S], not {given}")
        sums = self.matrix @ np.ones(states)
        if not np.isfinite(sums).all() or self.matrix.min() < 0 or sums.max() > 1 + 1e-6:
            raise ValueError("transitions must be probabilities: finite, not negative, with sums of at most 1")
        if not bool((self.initial >= 0).all()) or not abs(float(self.initial.sum()) - 1) <= 1e-6:
            raise ValueError("initial must be probabilities that add up to 1")
        if not 0 < self.discount <= 1 or (self.horizon is None and self.discount == 1):
            raise ValueError("discount must lie in (0, 1], and below 1 where there is no horizon")
        if self.horizon is not None and self.horizon < 1:
            raise ValueError(f"horizon must be at least 1, not {self.horizon}")

    @cached_property
    def matrix(self) -> Any:
        """``[S * A, S]`` the transitions in double precision: SciPy's sparse rows, or NumPy's array if few are 0."""
        given = self.transitions
        rows: Any = (
            given.detach().cpu().to_dense().double().numpy() if isinstance(given, Tensor) else given.astype(float)
        )
        rows = rows.reshape(-1, rows.shape[-1])
        filled = np.count_nonzero(rows) if isinstance(rows, np.ndarray) else rows.nnz
        if filled <= DENSE * np.prod(rows.shape):
            return sparse.csr_array(rows)
        return rows if isinstance(rows, np.ndarray) else rows.toarray()

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
        found = self.discount * (self.matrix @ values.reshape(self.states, -1))
        return found.reshape(self.states, self.actions, *values.shape[1:])

    def under(self, policy: Any) -> Any:
        """``[S, S]`` discounted transitions of a policy ``[S, A]``."""
        if isinstance(self.matrix, np.ndarray):
            rows = self.matrix.reshape(self.states, self.actions, self.states)
            return self.discount * np.einsum("sa,sat->st", policy, rows)
        starts = np.arange(self.states + 1) * self.actions
        choose = sparse.csr_array((policy.reshape(-1), np.arange(starts[-1]), starts))
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
        ValueError: If a shape does not fit, a feature is not finite, or the policy is none.
    """
    phi, pi = _array(mdp, features, "features"), _policy(mdp, policy)
    with_entropy = np.concatenate([phi, np.zeros((*phi.shape[:2], 1))], 2)
    psi = _collected(mdp, with_entropy, pi, entropy=True)
    return torch.from_numpy(np.ascontiguousarray(psi[..., :-1])), torch.from_numpy(np.ascontiguousarray(psi[..., -1]))


def occupancy(mdp: TabularMDP, policy: Tensor) -> Tensor:
    """Discounted expected number of visits of a ``policy`` as above: ``[S]``, with a horizon H ``[H, S]``."""
    return torch.from_numpy(_visits(mdp, _policy(mdp, policy)))


def max_causal_entropy_irl(
    mdp: TabularMDP, features: Tensor, policy: Tensor, *, names: Sequence[str] | None = None
) -> ObjectiveFit:
    """The weights whose soft-optimal policy is nearest to a policy that is known.

    Maximises ``E_policy[sum_t discount^t log pi_w(a_t | s_t)]``, whose gradient is ``mu(policy) - mu(pi_w)``, the
    difference in what is collected of the features, and whose Hessian is minus ``sum_t discount^t E[Cov_a psi_w]``
    under pi_w. States that the policy never reaches do not count. Nothing is sampled, so intervals are points; what
    is not identified cannot be told from a *shaping* of the reward in this process. Arguments and errors are those of
    :func:`successor_features`, and ``names`` of the features.
    """
    phi, pi = _array(mdp, features, "features"), _policy(mdp, policy)
    names = names_of(names, phi.shape[2])
    phi = np.where(_reachable(mdp)[:, None, None], phi, 0)  # else numbers of any size would leak in by rounding
    visits, uniform = _visits(mdp, pi), np.full_like(pi, 1 / mdp.actions)
    total, done = visits.sum(), visits[..., None] * pi
    structure = _gram(_apart(mdp, phi, uniform), (visits + _visits(mdp, uniform))[..., None] * uniform / total)
    basis = informative(torch.from_numpy(structure))
    # Directions [K, r] in which the information of a uniform policy is 1.
    units = basis.numpy() @ np.linalg.inv(np.linalg.cholesky(basis.numpy().T @ structure @ basis.numpy())).T
    inside = phi @ units

    def at(v: Any) -> tuple[Any, float, float]:
        """The policy at weights ``v``, the loss, that is less log-likelihood, and what of it may be rounding."""
        model, values, q = _soft(mdp, inside @ v)
        return model, float((done * (values[..., None] - q)).sum()), TOLERANCE * total * (1 + np.abs(values).max())

    v, converged = np.zeros(inside.shape[2]), False
    model, loss, rounding = at(v)
    for _ in range(STEPS):
        apart = _apart(mdp, inside, model)
        # As mu(policy) - mu(pi_w), but exact where the policies are almost the same.
        gradient = (visits[..., None] * (pi - model)).reshape(-1) @ apart.reshape(pi.size, len(v))
        information = _gram(apart, _visits(mdp, model)[..., None] * model / total)
        # Where choices have become certain for now, there is a gradient, but no information but for rounding.
        step = np.linalg.solve(information + 1e-14 * np.eye(len(v)), gradient / total)
        told = bool((np.linalg.eigvalsh(information) > CERTAIN).all())
        small = np.abs(apart @ step).max() < SMALL
        if gradient @ step < rounding and (small or not told):
            v, converged = v + step * small, told
            break
        tried, lower, rounding = at(v + step)
        while not lower < loss + rounding:
            step = step / 2
            tried, lower, rounding = at(v + step)
        v, model, loss = v + step, tried, lower
    return ObjectiveFit(
        names,
        torch.from_numpy(units @ v),
        torch.from_numpy(units @ np.linalg.pinv(information, hermitian=True) @ units.T),
        None,
        basis,
        None,
        -float(loss / total),
        references(torch.from_numpy(pi).flatten(0, -2), torch.from_numpy(visits / total).flatten()),
        converged,
    )


def _soft(mdp: TabularMDP, reward: Any) -> tuple[Any, Any, Any]:
    if mdp.horizon is not None:
        q, values = np.empty((mdp.horizon, *reward.shape)), np.zeros((mdp.horizon + 1, mdp.states))
        for t in reversed(range(mdp.horizon)):
            q[t] = reward + mdp.following(values[t + 1])
            values[t] = np.logaddexp.reduce(q[t], -1)
        return np.exp(q - values[:-1, :, None]), values[:-1], q
    q = reward
    for _ in range(STEPS):
        values = np.logaddexp.reduce(q, -1)
        policy = np.exp(q - values[:, None])
        gained = np.einsum("sa,sa->s", policy, reward - (q - values[:, None]))
        following = reward + mdp.following(_solve(mdp, policy, gained))
        small = np.abs(following - q) <= 1e-9 * np.maximum(1, np.abs(q))
        q = following  # with twice as many correct digits
        if small.all():
            break
    values = np.logaddexp.reduce(q, -1)
    return np.exp(q - values[:, None]), values, q


def _collected(mdp: TabularMDP, phi: Any, pi: Any, *, entropy: bool = False) -> Any:
    """Successor features; with ``entropy``, the last feature is the policy's entropy from the next state on."""

    def at_state(psi: Any, policy: Any) -> Any:
        worth = np.einsum("sa,sak->sk", policy, psi)
        if entropy:
            worth[:, -1] -= np.einsum("sa,sa->s", policy, np.log(np.maximum(policy, 1e-300)))
        return worth

    if mdp.horizon is not None:
        psi = np.empty((mdp.horizon, *phi.shape))
        psi[-1] = phi
        for t in reversed(range(mdp.horizon - 1)):
            psi[t] = phi + mdp.following(at_state(psi[t + 1], pi[t + 1]))
        return psi
    return phi + mdp.following(_solve(mdp, pi, at_state(phi, pi)))


def _apart(mdp: TabularMDP, phi: Any, pi: Any) -> Any:
    """``[..., S, A, K]`` successor features about their mean over actions."""
    psi = _collected(mdp, phi, pi)
    about = psi - np.einsum("...sa,...sak->...sk", pi, psi)[..., None, :]
    flat = psi.reshape(pi.size, phi.shape[2])
    about[np.abs(about) < TOLERANCE * np.sqrt(np.einsum("ik,ik->k", flat, flat))] = (
        0  # they were equal but for rounding
    )
    return about


def _gram(apart: Any, weights: Any) -> Any:
    spread = (apart * np.sqrt(weights)[..., None]).reshape(weights.size, apart.shape[-1])
    return spread.T @ spread


def _visits(mdp: TabularMDP, pi: Any) -> Any:
    initial = mdp.initial.double().numpy()
    if mdp.horizon is None:
        return np.maximum(_solve(mdp, pi, initial, transposed=True), 0)
    visits = np.empty((mdp.horizon, mdp.states))
    visits[0] = initial
    back = mdp.matrix.T
    for t in range(mdp.horizon - 1):
        visits[t + 1] = mdp.discount * (back @ (visits[t, :, None] * pi[t]).reshape(-1))
    return visits


def _reachable(mdp: TabularMDP) -> Any:
    """``[S]`` whether any policy gets there at any time."""
    moves, first = mdp.under(np.ones((mdp.states, mdp.actions))), np.flatnonzero(mdp.initial.numpy() > 0)
    return np.isfinite(csgraph.dijkstra(moves, indices=first, unweighted=True, min_only=True))


def _solve(mdp: TabularMDP, pi: Any, right: Any, *, transposed: bool = False) -> Any:
    """``(I - discount P_pi)^-1 right``, or with the transposed matrix."""
    moves = mdp.under(pi)
    if isinstance(moves, np.ndarray):
        left = np.eye(mdp.states) - moves
        return np.linalg.solve(left.T if transposed else left, right)
    left = sparse.eye_array(mdp.states, format="csc") - moves.tocsc()
    return sparse_linalg.splu(left.T.tocsc() if transposed else left).solve(np.ascontiguousarray(right))


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
    return found / found.sum(-1, keepdims=True)  # single precision is some 1e-7 off
