"""The behavioral objective of a policy in an environment too large to plan in, from what it collects after a choice.

A soft-optimal policy for ``w . phi`` satisfies ``log pi(a|s) = w . psi(s,a) + h(s,a) - V(s)``, with the successor
features ``psi`` of that very policy and the entropy ``h`` it will have (Hotz and Miller 1993; Sharma, Kitani and
Groeger 2017). Nothing is planned: psi and h are what is seen to follow. They are seen with noise, which biases a plain
fit towards 0 and cannot be averaged away; instruments can (Reiersol 1941): a second, independent look at what follows.

The entropy may be replaced by the *surprisal* ``-log pi`` of the actions that were really taken: its expectation is the
same, and where the environment itself is deterministic its noise and that of the features cancel, as then
``sum_k discount^k (log pi_k - w . phi_k) = -V(s)`` holds along every path. So it does whoever chooses the actions.
"""

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from lightning_mesa.irl.averages import Average, ratio, sandwich, summed
from lightning_mesa.irl.conditional_logit import fit_conditional_logit, log_likelihoods, references
from lightning_mesa.irl.fit import ObjectiveFit, informative, names_of
from lightning_mesa.irl.tabular import TabularMDP, occupancy, successor_features


def successor_irl(
    mdp: TabularMDP, features: Tensor, policy: Tensor, *, names: Sequence[str] | None = None
) -> ObjectiveFit:
    """The weights by successor features in a process that is known: one policy evaluation, and no planning.

    The conditional logit of the policy on its successor features, with their entropy as offset and the policy's own
    visits as weights; exact for a soft-optimal policy, as :func:`~lightning_mesa.irl.max_causal_entropy_irl` is.

    Args:
        mdp: The decision process.
        features: ``[S, A, K]``.
        policy: ``[S, A]``, or with a horizon H also ``[H, S, A]``.
        names: Of the features.
    """
    psi, entropy = successor_features(mdp, features, policy)
    visits = occupancy(mdp, policy)
    return fit_conditional_logit(
        psi.flatten(0, -3),
        policy.double().expand(entropy.shape).flatten(0, -2),
        weights=visits.flatten(),
        offset=entropy.flatten(0, -2),
        names=names,
        exhaustive=True,
    )


def fit_successor_features(
    features: Tensor,
    offsets: Tensor,
    log_probabilities: Tensor,
    *,
    clusters: Tensor | None = None,
    names: Sequence[str] | None = None,
) -> ObjectiveFit:
    """Fit the objective from two independent estimates of successor features and offset at each decision.

    Two-stage least squares on log probabilities that are centred over the choices: features and offset of one half,
    instruments of the other, and the other way round; ``w = (Z'X)^-1 Z'(log p - h)``.

    Args:
        features: ``[2, n, A, K]`` two estimates of what is collected after each choice, of a resettable simulator,
            say: their noise is independent given the decision.
        offsets: ``[2, n, A]`` the same of the entropy, or surprisal, from the next decision on.
        log_probabilities: ``[n, A]`` of the policy, finite; over some of its choices will do.
        clusters: ``[n]`` integer labels of decisions that were drawn together, such as those of one episode.
        names: Of the features.

    Raises:
        ValueError: If shapes do not fit, or something is not finite.
    """
    if features.ndim != 4 or features.shape[:3] != (2, *log_probabilities.shape) or offsets.shape != features.shape[:3]:
        raise ValueError(
            f"features must be [2, n, A, K], offsets [2, n, A] and log_probabilities [n, A], not "
            f"{list(features.shape)}, {list(offsets.shape)} and {list(log_probabilities.shape)}"
        )
    found = features.double(), offsets.double(), log_probabilities.double()
    for what, values in zip(("features", "offsets", "log_probabilities"), found, strict=True):
        if not values.isfinite().all():
            raise ValueError(f"{what} must be finite")
    x, h, log_p = found
    n, choices, count = x.shape[1:]
    log_p = log_p.log_softmax(1)
    about, own = x - x.mean(2, keepdim=True), _own_lights(h, log_p)
    labels = torch.arange(n) if clusters is None else clusters
    fit = _instrumented(
        torch.cat([about[1], about[0]]).flatten(0, 1),
        torch.cat([about[0], about[1]]).flatten(0, 1),
        own.flatten(),
        labels.repeat_interleave(choices).repeat(2),
        names_of(names, count),
    )
    both = log_likelihoods(x.mean(0), log_p.exp(), fit.solution, offset=h.mean(0))
    return replace(fit, log_likelihood=float(both.mean()), references=references(log_p.exp()))


def explained_share(
    fit: ObjectiveFit,
    features: Tensor,
    offsets: Tensor,
    log_probabilities: Tensor,
    *,
    clusters: Tensor | None = None,
    level: float = 0.95,
) -> Average:
    """How much of what a policy prefers its fitted objective explains, in [0, 1]; arguments as in the fit.

    ``1 - sum r_1 r_2 / sum u_1 u_2``, with ``u`` the centred advantage by the policy's own lights, ``log p`` less the
    offset, ``r`` what the objective leaves of it, and products over the two halves, which have no noise in common. A
    policy that prefers nothing has none: NaN.
    """
    x, own = features.double(), _own_lights(offsets.double(), log_probabilities.double())
    left = own - (x - x.mean(2, keepdim=True)) @ fit.solution
    missed = ratio((left[0] * left[1]).sum(1), (own[0] * own[1]).sum(1), clusters=clusters, level=level)
    return Average(1 - missed.value, 1 - missed.high, 1 - missed.low).clamped(0, 1)


def fit_rollouts(
    features: Tensor,
    log_probabilities: Tensor,
    actions: Tensor,
    episodes: Tensor,
    encodings: Tensor,
    *,
    discount: float,
    behavior: Tensor | None = None,
    names: Sequence[str] | None = None,
) -> ObjectiveFit:
    """Fit the objective from recorded episodes, in which one action was taken at each decision.

    ``sum_k discount^k (log pi_k - w . phi_k)`` from a decision on is ``-V(s)`` in expectation, whatever was done. So is
    uncorrelated with everything that depends on the action and averages to 0 over those that could have been taken:
    these are the instruments. The best would be the successor features; a linear prediction of them from
    ``encodings``, fitted to the other half of the episodes, is enough for valid intervals, if not for short ones.

    Args:
        features: ``[N, K]`` phi of each step; the steps of an episode follow each other, up to its end.
        log_probabilities: ``[N, A]`` of the policy, finite.
        actions: ``[N]`` what was done.
        episodes: ``[N]`` integer labels; episodes are the clusters.
        encodings: ``[N, A, D]`` anything that helps to predict what follows an action in a state.
        discount: In (0, 1].
        behavior: ``[N, A]`` probabilities with which actions were chosen, if not the policy's.
        names: Of the features.

    Raises:
        ValueError: If shapes do not fit, something is not finite, or there are fewer than two episodes.
    """
    log_p, phi, x = log_probabilities.double().log_softmax(1), features.double(), encodings.double()
    if phi.ndim != 2 or x.ndim != 3 or x.shape[:2] != log_p.shape or not len(phi) == len(actions) == len(episodes):
        raise ValueError("features must be [N, K], log_probabilities [N, A], encodings [N, A, D], the others [N]")
    if not bool(phi.isfinite().all() and log_p.isfinite().all() and x.isfinite().all()):
        raise ValueError("features, log_probabilities and encodings must be finite")
    labels, of_step = torch.unique(episodes, return_inverse=True)
    if len(labels) < 2:
        raise ValueError("two episodes at least are needed: each half lends the other its instruments")
    chosen = actions.long()[:, None]
    steps = torch.cat([phi, log_p.gather(1, chosen)], 1)
    later = discounted_sums(steps, of_step, discount)
    probabilities = log_p.exp() if behavior is None else behavior.double()
    taken = x.gather(1, chosen[..., None].expand(-1, 1, x.shape[2]))[:, 0]
    instruments, regressors = torch.zeros_like(later), torch.zeros_like(later)
    for half in (0, 1):
        here = of_step % 2 == half
        predicted = x[here] @ torch.linalg.lstsq(taken[~here], later[~here], driver="gelsd").solution
        expected = torch.einsum("na,nak->nk", probabilities[here], predicted)
        at = chosen[here][..., None].expand(-1, 1, predicted.shape[2])
        instruments[here] = predicted.gather(1, at)[:, 0] - expected
        regressors[here] = later[here] - expected  # less variance, as the instruments average to 0 in each state
    fit = _instrumented(
        instruments[:, :-1], regressors[:, :-1], regressors[:, -1], of_step, names_of(names, phi.shape[1])
    )
    return replace(fit, references=references(log_p.exp()))


def discounted_sums(steps: Tensor, episodes: Tensor, discount: float) -> Tensor:
    """``[N, K]`` what is collected of ``[N, K]`` steps from each one on to the end of its episode, discounted.

    Args:
        steps: ``[N, K]``; those of an episode follow each other.
        episodes: ``[N]`` labels.
        discount: In (0, 1].
    """
    collected = steps.clone()
    for i in range(len(steps) - 2, -1, -1):
        if episodes[i] == episodes[i + 1]:
            collected[i] += discount * collected[i + 1]
    return collected


def _own_lights(offsets: Tensor, log_probabilities: Tensor) -> Tensor:
    """``[2, n, A]`` what a policy thinks of its choices: their advantage over the average one, in nats."""
    own = log_probabilities.log_softmax(1) - offsets
    return own - own.mean(2, keepdim=True)


def _instrumented(z: Tensor, x: Tensor, y: Tensor, clusters: Tensor, names: tuple[str, ...]) -> ObjectiveFit:
    """Two-stage least squares of ``y`` ``[m]`` on ``x`` ``[m, K]`` with as many instruments ``z``, by clusters."""
    basis = informative(x.T @ x)
    z, x = z @ basis, x @ basis
    units = summed(clusters, z[:, :, None] * x[:, None])
    inverse = torch.linalg.pinv(units.sum(0))
    solution = inverse @ (z.T @ y)
    moments = summed(clusters, z * (y - x @ solution)[:, None])
    return ObjectiveFit(
        names,
        basis @ solution,
        basis @ inverse @ basis.T,
        sandwich(basis @ inverse, moments),
        basis,
        basis @ units @ basis.T,
        math.nan,
        {},
    )
