"""The engine: the conditional logit of McFadden (1974), fitted to choice probabilities that are known."""

from collections.abc import Sequence

import torch
from torch import Tensor

from lightning_mesa.irl.averages import sandwich, summed
from lightning_mesa.irl.fit import ObjectiveFit, informative, names_of

STEPS = 100
TOLERANCE = 1e-13
"""Newton's last step is one that gains less than this, in nats of log-likelihood."""

CERTAIN = 1e-10
"""With less of uniform choices' information than this, weights grow without end, and only rounding has stopped them."""

ROUNDING = 1e-12
"""Differences between choices that are smaller than this, relative to the feature, are none."""


def fit_conditional_logit(
    features: Tensor,
    probabilities: Tensor,
    *,
    weights: Tensor | None = None,
    offset: Tensor | None = None,
    counts: Tensor | None = None,
    clusters: Tensor | None = None,
    names: Sequence[str] | None = None,
    exhaustive: bool = False,
) -> ObjectiveFit:
    """Fit the objective ``w . features`` that a soft-optimal chooser with these probabilities behaves as if it had.

    The model is ``q_w(a | i) = softmax_a(features[i, a] . w + offset[i, a])``; the weights minimise
    ``sum_i c_i KL(p_i || q_w(. | i))``, by Newton's method, without a ridge. As the probabilities are known and not
    sampled, the only error is that of which items were drawn: a policy inside the class is recovered exactly. The
    covariance is White's sandwich, ``H^-1 (sum_g s_g s_g') H^-1``, with the scores ``s`` summed within clusters; it
    covers the weights of the best approximation, whether or not the policy is inside the class.

    Args:
        features: ``[n, A, K]``.
        probabilities: ``[n, A]`` the policy's, which add up to 1.
        weights: ``[n]`` of the items, not negative; else all alike.
        offset: ``[n, A]`` what is known of the utility; ``-inf`` for choices that are not available.
        counts: ``[n, A]`` for how many choices each one stands, that are alike in features and offset and whose
            probabilities are added up; 0 for none. See :class:`~lightning_mesa.irl.alike.Alike`.
        clusters: ``[n]`` integer labels of items that were drawn together, such as those of one episode.
        names: Of the features.
        exhaustive: Whether the items are all that there are, such as the states of a whole MDP: then nothing was
            sampled, and intervals are points.

    Raises:
        ValueError: If shapes do not fit, features or weights are not finite, or probabilities are none.
    """
    features, probabilities = features.double(), probabilities.double()
    n, _, count = _checked(features, probabilities)
    weights = torch.ones(n, dtype=torch.float64) if weights is None else weights.double()
    if weights.shape != (n,) or not bool(weights.isfinite().all() and (weights >= 0).all()):
        raise ValueError(f"weights must be [{n}], finite and not negative")
    weights = weights / weights.sum().clamp(min=1e-300)
    offset = torch.zeros_like(probabilities) if offset is None else offset.double()
    offset = offset if counts is None else offset + counts.double().log()
    available = _available(offset, probabilities)
    stands_for = available.double() if counts is None else counts.double()

    uniform = stands_for / stands_for.sum(1, keepdim=True)
    features = _apart(features, uniform)
    structure = _information(features, uniform, weights)
    basis = informative(structure)
    # Directions [K, r] in which the information of uniform choices is 1.
    directions = basis @ torch.linalg.cholesky(basis.T @ structure @ basis).inverse().T
    inside = features @ directions
    aims = torch.einsum("na,nak->nk", probabilities, inside)
    v = torch.zeros(inside.shape[2], dtype=torch.float64)
    log_q = _log_softmax(inside, v, offset)
    loss = _loss(weights, probabilities, log_q)
    converged = False
    for _ in range(STEPS):
        scores = aims - torch.einsum("na,nak->nk", log_q.exp(), inside)
        gradient = weights @ scores
        step = _solve(_information(inside, log_q.exp(), weights), gradient)
        gain = float(gradient @ step)
        if gain < TOLERANCE:
            v, converged = v + step, True
            break
        size = 1.0
        while size > 1e-8:
            tried = _log_softmax(inside, v + size * step, offset)
            if (lower := _loss(weights, probabilities, tried)) < loss:
                break
            size /= 2
        else:
            converged = gain < 1e-9  # no step gains any more than rounding errors
            break
        v, log_q, loss = v + size * step, tried, lower
    log_q = _log_softmax(inside, v, offset)
    converged &= bool((torch.linalg.eigvalsh(_information(inside, log_q.exp(), weights)) > CERTAIN).all())
    # Deterministic choices have no information left; what tells them apart is how much features differ.
    q = log_q.exp() if converged else uniform
    units = None if exhaustive else _unit_information(features, q, weights)
    information = _information(features, q, weights) if units is None else units.sum(0)
    bread = basis @ torch.linalg.pinv(basis.T @ information @ basis, hermitian=True) @ basis.T
    covariance = None
    if units is not None:
        moments = weights[:, None] * torch.einsum("na,nak->nk", probabilities - log_q.exp(), features)
        if clusters is not None:
            moments, units = summed(clusters, moments), summed(clusters, units)
        covariance = sandwich(bread, moments)
    return ObjectiveFit(
        names_of(names, count),
        directions @ v,
        bread,
        covariance,
        basis,
        units,
        -_loss(weights, probabilities, log_q) - float(weights @ torch.xlogy(probabilities, stands_for).sum(1)),
        references(probabilities, weights, available) if counts is None else {},
        converged,
    )


def log_likelihoods(
    features: Tensor,
    probabilities: Tensor,
    solution: Tensor,
    *,
    offset: Tensor | None = None,
    counts: Tensor | None = None,
) -> Tensor:
    """``[n]`` expected log-likelihoods ``sum_a p log q_w`` of items at given weights ``[K]``, in nats."""
    p = probabilities.double()
    offset = torch.zeros_like(p) if offset is None else offset.double()
    stands_for = torch.ones_like(p) if counts is None else counts.double()
    log_q = _log_softmax(features.double(), solution.double(), offset + stands_for.log())
    return _expected(p, log_q) - torch.xlogy(p, stands_for).sum(1)


def references(
    probabilities: Tensor, weights: Tensor | None = None, available: Tensor | None = None
) -> dict[str, float]:
    """Mean log-likelihood of the null models: uniform, marginal frequencies, and the probabilities themselves.

    Args:
        probabilities: ``[n, A]``.
        weights: ``[n]`` adding up to 1; else all alike.
        available: ``[n, A]`` bool; else all.
    """
    n = len(probabilities)
    weights = torch.full((n,), 1 / max(1, n), dtype=torch.float64) if weights is None else weights
    available = torch.ones_like(probabilities, dtype=torch.bool) if available is None else available
    uniform = -available.sum(1).clamp(min=1).double().log()
    frequencies = torch.where(available, weights @ probabilities, 0)
    marginal = (frequencies / frequencies.sum(1, keepdim=True)).clamp(min=1e-300).log()
    return {
        "uniform": float(weights @ uniform),
        "marginal": float(weights @ _expected(probabilities, marginal)),
        "perfect": -float(weights @ torch.special.entr(probabilities).sum(1)),
    }


def _checked(features: Tensor, probabilities: Tensor) -> tuple[int, int, int]:
    if features.ndim != 3 or probabilities.shape != features.shape[:2]:
        raise ValueError(
            f"features must be [n, A, K] and probabilities [n, A], not {list(features.shape)} and "
            f"{list(probabilities.shape)}"
        )
    if not features.isfinite().all():
        item, choice, feature = (~features.isfinite()).nonzero()[0].tolist()
        raise ValueError(f"feature {feature} of choice {choice} of item {item} is not finite")
    if len(probabilities):
        off = (probabilities.sum(1) - 1).abs().max()
        if not bool(probabilities.isfinite().all()) or probabilities.min() < 0 or off > 1e-4:
            raise ValueError("probabilities must be finite, not negative, and add up to 1 for each item")
    n, choices, count = features.shape
    return n, choices, count


def _apart(features: Tensor, uniform: Tensor) -> Tensor:
    """Features less their mean over the choices that there are, which is all that matters of them."""
    about = features - torch.einsum("na,nak->nk", uniform, features)[:, None]
    size = features.abs().amax((0, 1)) if len(features) else features.new_zeros(features.shape[2])
    return torch.where(about.abs() > ROUNDING * size, about, 0)


def _available(offset: Tensor, probabilities: Tensor) -> Tensor:
    available = offset > -torch.inf
    if offset.shape != probabilities.shape or bool(offset.isnan().any() or (offset == torch.inf).any()):
        raise ValueError(f"offset must be {list(probabilities.shape)}, finite, or -inf for choices that there are not")
    if bool((probabilities[~available] > 0).any()) or not available.any(1).all():
        raise ValueError("a choice that is not available (offset -inf) has a probability above 0, or none is available")
    return available


def _log_softmax(features: Tensor, solution: Tensor, offset: Tensor) -> Tensor:
    return (features @ solution + offset).log_softmax(1)


def _expected(probabilities: Tensor, log_q: Tensor) -> Tensor:
    return torch.where(probabilities > 0, probabilities * log_q, 0).sum(1)


def _loss(weights: Tensor, probabilities: Tensor, log_q: Tensor) -> float:
    return -float(weights @ _expected(probabilities, log_q))


def _spread(features: Tensor, q: Tensor) -> Tensor:
    """``[n, A, K]`` features about their mean under q, times the root of q."""
    about = features - torch.einsum("na,nak->nk", q, features)[:, None]
    return about * q.sqrt()[..., None]


def _information(features: Tensor, q: Tensor, weights: Tensor) -> Tensor:
    """``[K, K]`` sum over items of the features' covariance under q."""
    spread = (_spread(features, q) * weights.sqrt()[:, None, None]).flatten(0, 1)
    return spread.T @ spread


def _unit_information(features: Tensor, q: Tensor, weights: Tensor) -> Tensor:
    """``[n, K, K]`` what each item contributes to the information."""
    spread = _spread(features, q)
    return torch.bmm(spread.transpose(1, 2), spread) * weights[:, None, None]


def _solve(information: Tensor, gradient: Tensor) -> Tensor:
    """The Newton step, where necessary the shortest."""
    factor, failed = torch.linalg.cholesky_ex(information)
    if failed:
        step: Tensor = torch.linalg.pinv(information, hermitian=True) @ gradient
        return step
    return torch.cholesky_solve(gradient[:, None], factor)[:, 0]
