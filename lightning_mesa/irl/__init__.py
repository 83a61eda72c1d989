"""Inverse reinforcement learning: pure functions on tensors, for one decision and for many."""

from lightning_mesa.irl.averages import Average
from lightning_mesa.irl.conditional_logit import fit_conditional_logit
from lightning_mesa.irl.distances import (
    canonical_features,
    dard_distance,
    epic_distance,
    gram,
    one_step_features,
    starc_distance,
    weight_distance,
)
from lightning_mesa.irl.fit import ObjectiveFit
from lightning_mesa.irl.goal_directedness import (
    GoalDirectedness,
    goal_directedness,
    goal_directedness_in,
    goal_directedness_of,
    own_lights_regret,
)
from lightning_mesa.irl.identification import InverseBellman, inverse_bellman
from lightning_mesa.irl.null_models import cross_fitted, habits, random_goal_p_value, random_goals
from lightning_mesa.irl.successor import (
    discounted_sums,
    explained_share,
    fit_rollouts,
    fit_successor_features,
    successor_irl,
)
from lightning_mesa.irl.tabular import (
    Soft,
    TabularMDP,
    max_causal_entropy_irl,
    occupancy,
    soft_value_iteration,
    successor_features,
)

__all__ = [
    "Average",
    "GoalDirectedness",
    "InverseBellman",
    "ObjectiveFit",
    "Soft",
    "TabularMDP",
    "canonical_features",
    "cross_fitted",
    "dard_distance",
    "discounted_sums",
    "epic_distance",
    "explained_share",
    "fit_conditional_logit",
    "fit_rollouts",
    "fit_successor_features",
    "goal_directedness",
    "goal_directedness_in",
    "goal_directedness_of",
    "gram",
    "habits",
    "inverse_bellman",
    "max_causal_entropy_irl",
    "occupancy",
    "one_step_features",
    "own_lights_regret",
    "random_goal_p_value",
    "random_goals",
    "soft_value_iteration",
    "starc_distance",
    "successor_features",
    "successor_irl",
    "weight_distance",
]
