"""Null models: what a fit is compared with, as every policy is explained perfectly by some objective.

The ceiling is the *bottle cap* (Filan 2018, quoted by Hubinger et al. 2019): the objective ``log p`` explains all that
the policy p does, and nothing else. A fit among listed objectives says something where it beats these:

* uniform choices, and always the same frequencies: in every fit's ``references``;
* random goals: objectives drawn at random from the same kind (:func:`random_goals`);
* a device of the same capacity: as many weights, spent on habits (:func:`habits`) instead of goals, compared on items
  that were not used in the fit (:func:`cross_fitted`; Orseau, McGill and Legg 2018 compare agents and devices).
"""

import torch
from torch import Tensor

from lightning_mesa.irl.averages import Average, mean
from lightning_mesa.irl.conditional_logit import fit_conditional_logit, log_likelihoods
from lightning_mesa.irl.goal_directedness import goal_directedness


def random_goals(features: Tensor, generator: torch.Generator) -> Tensor:
    """``[n, A, K]`` the same objectives with their choices permuted at random, in each item and feature apart."""
    order = torch.rand(features.shape, generator=generator).argsort(1)
    return features.gather(1, order)


def random_goal_p_value(features: Tensor, probabilities: Tensor, *, draws: int = 99, seed: int = 0) -> float:
    """P-value of the null that the listed objectives predict the choices no better than random goals do.

    ``(1 + number of draws with at least the goal-directedness) / (draws + 1)``.

    Args:
        features: ``[n, A, K]``.
        probabilities: ``[n, A]``.
        draws: Number of random goals.
        seed: Of the draws.
    """
    generator = torch.Generator().manual_seed(seed)
    found = goal_directedness(features, probabilities).value.value
    drawn = [goal_directedness(random_goals(features, generator), probabilities).value.value for _ in range(draws)]
    return (1 + sum(value >= found for value in drawn)) / (draws + 1)


def habits(probabilities: Tensor, count: int) -> Tensor:
    """``[n, A, count]`` features of a device: an inclination to each of the most frequent choices, always the same."""
    choices = probabilities.shape[1]
    usual = probabilities.sum(0).argsort(descending=True)[:count]
    return torch.eye(choices, dtype=torch.float64)[:, usual].expand(len(probabilities), choices, len(usual))


def cross_fitted(features: Tensor, probabilities: Tensor, other: Tensor, *, level: float = 0.95) -> Average:
    """How much better one set of features predicts choices than another, in nats, on items not used in the fit.

    Args:
        features: ``[n, A, K]``.
        probabilities: ``[n, A]``.
        other: ``[n, A, L]``, such as :func:`habits`.
        level: Of the limits.
    """
    first = torch.arange(len(probabilities)) % 2 == 0
    gains = torch.zeros(len(probabilities), dtype=torch.float64)
    for fitted, judged in ((first, ~first), (~first, first)):
        for sign, x in ((1, features), (-1, other)):
            solution = fit_conditional_logit(x[fitted], probabilities[fitted]).solution
            gains[judged] += sign * log_likelihoods(x[judged], probabilities[judged], solution)
    return mean(gains, level=level)
