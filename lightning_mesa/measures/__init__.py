"""What is measured at a look; a new measure is a new file and a name in ``MEASURES``."""

from lightning_mesa.measures.behavioral_objective import BehavioralObjective
from lightning_mesa.measures.capability import Capability
from lightning_mesa.measures.cue import CueDependence
from lightning_mesa.measures.extremal import ExtremalBehavior
from lightning_mesa.measures.goal_failure import GoalFailure
from lightning_mesa.measures.measure import Measure, Stamp
from lightning_mesa.measures.objective_gap import ObjectiveGap
from lightning_mesa.measures.preference import Preference
from lightning_mesa.measures.readout import Readout
from lightning_mesa.measures.slices import Slices

MEASURES: tuple[type[Measure], ...] = (
    ObjectiveGap,
    Capability,
    Preference,
    GoalFailure,
    BehavioralObjective,
    Slices,
    CueDependence,
    ExtremalBehavior,
    Readout,
)

__all__ = [
    "MEASURES",
    "BehavioralObjective",
    "Capability",
    "CueDependence",
    "ExtremalBehavior",
    "GoalFailure",
    "Measure",
    "ObjectiveGap",
    "Preference",
    "Readout",
    "Slices",
    "Stamp",
]
