"""Maximum entropy goal-directedness (MacDermott, Fox, Belardinelli and Everitt 2024, arXiv 2412.04758).

How much better a policy is predicted by "it pursues this objective, more or less rationally" than by "it chooses at
random". Being decided is not enough: the *negentropy* of a policy bounds its goal-directedness from above, and what it
explains of it is McFadden's (1974) pseudo R^2. Pursuing the opposite counts as well, with a sign.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_mesa.irl.averages import Average, mean, ratio
from lightning_mesa.irl.conditional_logit import fit_conditional_logit, log_likelihoods
from lightning_mesa.irl.fit import ObjectiveFit
from lightning_mesa.irl.tabular import TabularMDP, max_causal_entropy_irl


@dataclass(frozen=True)
class GoalDirectedness:
    """Goal-directedness per decision, as a share of the most that there can be, ``log A`` nats.

    Attributes:
        value: ``MEG / log A``, in [0, 1], with limits; 0 where choices have nothing to do with the objective.
        negentropy: ``(log A - H(p)) / log A``, how decided the policy is, in [0, 1].
        explained: ``MEG / (log A - H(p))``, in [0, 1]: how much of that the objective explains; NaN of a policy that is
            not decided at all.
        sign: 1 where a single objective is pursued, -1 where its opposite is, 0 for a class of several.
    """

    value: Average
    negentropy: Average
    explained: Average
    sign: int


def goal_directedness(
    features: Tensor,
    probabilities: Tensor,
    *,
    offset: Tensor | None = None,
    clusters: Tensor | None = None,
    level: float = 0.95,
) -> GoalDirectedness:
    """Goal-directedness of choices, towards one known utility (K = 1), or any combination of several (K > 1).

    ``max_w E_p[log softmax(w . features)] + log A``: the maximum over rationality, negative rationality included, which
    the paper's algorithm 1 finds by gradient steps, and over a class of utilities as its algorithm 2.

    Args:
        features: ``[n, A, K]``.
        probabilities: ``[n, A]``.
        offset: ``[n, A]``, see :func:`~lightning_mesa.irl.fit_conditional_logit`; ``-inf`` where there is no choice.
        clusters: ``[n]`` labels of items that were drawn together.
        level: Of the limits.
    """
    fit = fit_conditional_logit(features, probabilities, offset=offset, clusters=clusters)
    return goal_directedness_of(fit, features, probabilities, offset=offset, clusters=clusters, level=level)


def goal_directedness_of(
    fit: ObjectiveFit,
    features: Tensor,
    probabilities: Tensor,
    *,
    offset: Tensor | None = None,
    counts: Tensor | None = None,
    log_p: Tensor | None = None,
    clusters: Tensor | None = None,
    level: float = 0.95,
) -> GoalDirectedness:
    """The same where the conditional logit has been fitted already; that it was does not widen the limits.

    At the best weights the likelihood does not change with them in first order (the envelope theorem). Where choices
    stand for several, ``counts`` and ``log_p`` are as :class:`~lightning_mesa.irl.alike.Alike` has them.
    """
    p = probabilities.double()
    there = torch.ones_like(p) if offset is None else (offset > -torch.inf).double()
    most = (there if counts is None else counts.double()).sum(1).log()
    gained = log_likelihoods(features, p, fit.solution, offset=offset, counts=counts) + most
    decided = most - (torch.special.entr(p) if log_p is None else -p * log_p).sum(1)
    sign = int(fit.solution.sign()) if len(fit.solution) == 1 else 0
    return GoalDirectedness(
        ratio(gained, most, clusters=clusters, level=level).clamped(0, 1),
        ratio(decided, most, clusters=clusters, level=level).clamped(0, 1),
        _share(gained, decided, clusters, level),
        sign,
    )


def goal_directedness_in(
    mdp: TabularMDP, features: Tensor, policy: Tensor, *, names: Sequence[str] | None = None
) -> GoalDirectedness:
    """Goal-directedness of a policy in a decision process that is known; nothing is sampled, so limits are the value.

    Args:
        mdp: The decision process.
        features: ``[S, A, K]`` the utility (K = 1), or a class of them.
        policy: ``[S, A]``, or with a horizon H also ``[H, S, A]``.
        names: Of the features.
    """
    fit = max_causal_entropy_irl(mdp, features, policy, names=names)
    most = math.log(mdp.actions) if mdp.actions > 1 else math.nan
    gained, decided = (fit.log_likelihood - fit.references["uniform"]), fit.references["perfect"] + most
    sign = int(fit.solution.sign()) if len(fit.solution) == 1 else 0
    explained = gained / decided if decided > 1e-12 else math.nan
    value, negentropy, share = (Average(x, x, x).clamped(0, 1) for x in (gained / most, decided / most, explained))
    return GoalDirectedness(value, negentropy, share, sign)


def _share(gained: Tensor, decided: Tensor, clusters: Tensor | None, level: float) -> Average:
    if not len(decided) or float(decided.mean()) < 1e-12:
        return Average(math.nan, 0.0, 1.0)
    return ratio(gained, decided, clusters=clusters, level=level).clamped(0, 1)


def own_lights_regret(
    probabilities: Tensor,
    prescribed: Tensor,
    *,
    log_p: Tensor | None = None,
    clusters: Tensor | None = None,
    level: float = 0.95,
) -> Average:
    """What choices lose, by their own lights, if they are made as an objective prescribes; in nats, without any fit.

    Whatever reward a soft-optimal policy p pursues, that of a choice is ``log p`` up to a constant of the item (van der
    Laan, Bibaut and Kallus 2025, arXiv 2512.24407), so that the regret of other choices is a difference in log p:
    ``E_p[log p] - E_q[log p]``, where q is p restricted to what is prescribed. Positive where p had rather do something
    else; negative where it would do the same, with less noise.

    Args:
        probabilities: ``[n, A]``.
        prescribed: ``[n, A]`` bool; items for which nothing is prescribed do not count.
        log_p: ``[n, A]`` where choices stand for several, see :class:`~lightning_mesa.irl.alike.Alike`.
        clusters: ``[n]`` labels of items that were drawn together.
        level: Of the limits.
    """
    some = prescribed.any(1)
    p = probabilities[some].double()
    log_sums = p.clamp(min=1e-300).log()
    log_p = log_sums if log_p is None else log_p[some]
    restricted = log_sums.masked_fill(~prescribed[some], -torch.inf).softmax(1)
    regret = (p * log_p).sum(1) - (restricted * log_p).sum(1)
    return mean(regret, clusters=None if clusters is None else clusters[some], level=level)
