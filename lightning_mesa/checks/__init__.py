"""What is measured at a look; a new measure is a new file and a name in ``MEASURES``."""

from lightning_mesa.checks.behavioral_objective import BehavioralObjective
from lightning_mesa.checks.capability import Capability
from lightning_mesa.checks.cue import CueDependence
from lightning_mesa.checks.extremal import ExtremalBehavior
from lightning_mesa.checks.goal_failure import GoalFailure
from lightning_mesa.checks.measure import Measure, Stamp
from lightning_mesa.checks.objective_gap import ObjectiveGap
from lightning_mesa.checks.preference import Preference
from lightning_mesa.checks.readout import Readout
from lightning_mesa.checks.slices import Slices

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
