"""Objectives: what a model may be pursuing; one file for each kind."""

from lightning_mesa.objectives.episodes import EpisodeObjective, EpisodeReturn, Reached, Transition
from lightning_mesa.objectives.logged import Logged
from lightning_mesa.objectives.matches import Matches
from lightning_mesa.objectives.objective import Objective
from lightning_mesa.objectives.scores import NegativeLoss, ScoreFunction

__all__ = [
    "EpisodeObjective",
    "EpisodeReturn",
    "Logged",
    "Matches",
    "NegativeLoss",
    "Objective",
    "Reached",
    "ScoreFunction",
    "Transition",
]
