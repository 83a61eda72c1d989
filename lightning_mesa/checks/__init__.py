"""Checks: one question about behavior, one file.

A new check is a new file and a name in ``CHECKS``, in the order in which they find and test.
"""

from lightning_mesa.checks.base_lost import BaseLost
from lightning_mesa.checks.behavioral_objective import BehavioralObjective
from lightning_mesa.checks.capability_failure import CapabilityFailure
from lightning_mesa.checks.check import Check, Test, Thresholds, check_own
from lightning_mesa.checks.cue_dependence import CueDependence
from lightning_mesa.checks.extremal_behavior import ExtremalBehavior
from lightning_mesa.checks.goal_failure import GoalFailure
from lightning_mesa.checks.hidden_objective import HiddenObjective
from lightning_mesa.checks.look import Look
from lightning_mesa.checks.mesa_objective import MesaObjective
from lightning_mesa.checks.objective_gap import ObjectiveGap
from lightning_mesa.checks.objective_lost import ObjectiveLost
from lightning_mesa.checks.preference import Preference
from lightning_mesa.checks.proxy_on_reference import ProxyOnReference
from lightning_mesa.checks.proxy_pursued import ProxyPursued
from lightning_mesa.checks.readout import Readout
from lightning_mesa.checks.slice_failure import SliceFailure
from lightning_mesa.checks.states import Notes, Rows, State, Sums

CHECKS: tuple[Check, ...] = (
    ObjectiveGap(),
    Readout(),
    ObjectiveLost(),
    BaseLost(),
    ProxyPursued(),
    ProxyOnReference(),
    Preference(),
    GoalFailure(),
    BehavioralObjective(),
    SliceFailure(),
    CapabilityFailure(),
    CueDependence(),
    ExtremalBehavior(),
    MesaObjective(),
    HiddenObjective(),
)


def checks_with(own: tuple[object, ...]) -> tuple[Check, ...]:
    """The built-in checks, and those of a user's own after them; see :func:`check_own`."""
    return (*CHECKS, *check_own(own, CHECKS))


__all__ = [
    "CHECKS",
    "BaseLost",
    "BehavioralObjective",
    "CapabilityFailure",
    "Check",
    "CueDependence",
    "ExtremalBehavior",
    "GoalFailure",
    "HiddenObjective",
    "Look",
    "MesaObjective",
    "Notes",
    "ObjectiveGap",
    "ObjectiveLost",
    "Preference",
    "ProxyOnReference",
    "ProxyPursued",
    "Readout",
    "Rows",
    "SliceFailure",
    "State",
    "Sums",
    "Test",
    "Thresholds",
    "checks_with",
]
