"""Which rewards a policy can tell from shaping, and from how many environments: the inverse of Bellman's equation."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.linalg import qr, solve_triangular
from torch import Tensor

from lightning_mesa.irl.fit import NEGLIGIBLE, in_words, names_of
from lightning_mesa.irl.tabular import TabularMDP, _array, _policy

LEAST = -12.0
"""Log-probabilities below are clipped to it: those of actions that are never done have no finite value."""

SMALL = float(np.sqrt(NEGLIGIBLE))
"""What shaping leaves of a norm, where it leaves no more than this share, is rounding."""


@dataclass(frozen=True)
class InverseBellman:
    """Weights of features that are soft-optimal for a policy, and what is left open.

    Attributes:
        names: Of the K features.
        weights: ``[K]``, in nats; NaN where one is not identified.
        singular_values: ``[K]``, falling, of the features once shaping is projected out, each of norm 1 before: in
            [0, sqrt(K)], 0 but for rounding for each direction that is not identified.
        residual: In [0, 1], the share of the log-policy's square, once shaping is projected out, that the features do
            not explain. 0 if the policy is inside the class, as one that pursues nothing is.
        clipped: Share of state-action pairs whose log-probability was clipped; the rest rests on full support.
        unidentified: What is not identified, in words.
    """

    names: tuple[str, ...]
    weights: Tensor
    singular_values: Tensor
    residual: float
    clipped: float
    unidentified: tuple[str, ...]

    @property
    def identified(self) -> bool:
        """Whether every weight is identified."""
        return not self.unidentified


def inverse_bellman(
    mdps: TabularMDP | Sequence[TabularMDP],
    features: Tensor | Sequence[Tensor],
    policies: Tensor | Sequence[Tensor],
    *,
    names: Sequence[str] | None = None,
) -> InverseBellman:
    """Weights for which a policy is soft-optimal, by least squares, and those that no weights can be told from.

    A policy is soft-optimal for exactly the rewards ``log pi(a|s) + v(s) - discount E[v(S')]`` with any ``v`` (Cao,
    Cohen and Szpruch 2021, "Identifiability in inverse reinforcement learning"). So the weights and one ``v`` per
    environment minimise ``sum_sa (w . phi - log pi(a|s) - v(s) + discount E[v(S')])^2``. What a ``v`` can explain, the
    shaping, is projected out first. Environments with other transitions or another discount take away from it.

    Dense, of order A S^3: for small processes. States count alike, reached or not.

    Args:
        mdps: One environment or several, without a horizon.
        features: ``[S, A, K]``, one for each environment, of the same K.
        policies: ``[S, A]``, one for each environment.
        names: Of the features.

    Raises:
        ValueError: If there are not as many of each, a process has a horizon, a shape does not fit, a feature is not
            finite, or a policy is none.
    """
    mdps = [mdps] if isinstance(mdps, TabularMDP) else mdps
    features = [features] if isinstance(features, Tensor) else features
    policies = [policies] if isinstance(policies, Tensor) else policies
    if not len(mdps) == len(features) == len(policies) > 0:
        raise ValueError(f"{len(mdps)} environments, {len(features)} features and {len(policies)} policies do not fit")
    found = [_columns(*block) for block in zip(mdps, features, policies, strict=True)]
    counts = {before.shape[1] - 1 for before, _ in found}
    if len(counts) > 1:
        raise ValueError(f"environments must have the same features, not {' and '.join(map(str, sorted(counts)))}")
    count = counts.pop()
    named = names_of(names, count)
    sizes = np.sqrt(sum((before**2).sum(0) for before, _ in found))
    left = np.concatenate([after for _, after in found])
    units, target = np.where(sizes[:-1] > 0, sizes[:-1], 1.0), left[:, -1]

    # K rows of 0, so that there are K singular values, and vectors, of fewer pairs as well
    inside = np.concatenate([left[:, :-1] / units, np.zeros((count, count))])
    outer, values, inner = np.linalg.svd(inside, full_matrices=False)
    kept = values > SMALL
    solution = inner[kept].T @ ((outer[: len(target), kept].T @ target) / values[kept])
    missed = ((target - inside[: len(target)] @ solution) ** 2).sum() / max((target**2).sum(), 1e-300)
    hidden = inner[~kept]
    told = np.linalg.norm(hidden, axis=0) < 1e-6
    where = "this environment" if len(found) == 1 else "these environments"
    return InverseBellman(
        named,
        torch.from_numpy(np.where(told, solution / units, np.nan)),
        torch.from_numpy(values),
        min(1.0, float(missed)) if np.linalg.norm(target) > SMALL * sizes[-1] else 0.0,
        float(np.mean(np.concatenate([before[:, -1] for before, _ in found]) <= LEAST)),
        tuple(f"{in_words(way, named)}: cannot be told from shaping in {where}" for way in _apart(hidden)),
    )


def _columns(mdp: TabularMDP, features: Tensor, policy: Tensor) -> tuple[Any, Any]:
    """``[S * A, K + 1]`` features and log-policy, and the same without what shaping explains."""
    if mdp.horizon is not None:
        raise ValueError("with a horizon shaping depends on the time: use max_causal_entropy_irl")
    log_policy = np.maximum(np.log(np.maximum(_policy(mdp, policy), 1e-300)), LEAST)
    before = np.concatenate([_array(mdp, features, "features"), log_policy[..., None]], 2)
    before = before.reshape(mdp.states * mdp.actions, -1)
    identity = np.eye(mdp.states)
    shaping = np.linalg.qr((identity[:, None] - mdp.following(identity)).reshape(len(before), -1))[0]
    after = before - shaping @ (shaping.T @ before)
    return before, after - shaping @ (shaping.T @ after)  # twice: once leaves rounding of the features' full size


def _apart(hidden: Any) -> Any:
    """Directions that span the same, each with a feature that no other one has: features on their own stay so."""
    count = len(hidden)
    if not count:
        return torch.zeros(0)
    _, upper, order = qr(hidden, mode="economic", pivoting=True)
    found = np.zeros(hidden.shape)
    found[:, order] = solve_triangular(upper[:, :count], upper)
    return torch.from_numpy(found)
