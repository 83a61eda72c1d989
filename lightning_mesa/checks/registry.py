"""The signatures that the package tests, and what is left of the level for others; a new one is a name here."""

from lightning_mesa.checks.internals import HiddenObjective, MesaObjective
from lightning_mesa.checks.signatures import (
    BaseLost,
    CapabilityFailure,
    CueDependence,
    ExtremalBehavior,
    ObjectiveLost,
    ProxyOnReference,
    ProxyPursued,
    Signature,
    SliceFailure,
)

SIGNATURES: tuple[Signature, ...] = (
    ObjectiveLost(),
    BaseLost(),
    ProxyPursued(),
    ProxyOnReference(),
    SliceFailure(),
    CapabilityFailure(),
    CueDependence(),
    ExtremalBehavior(),
)

OF_PROBES: tuple[Signature, ...] = (MesaObjective(), HiddenObjective())
"""Tested where there are probes, on the share of users' own."""

USERS_SHARE = 0.05
"""Share of the level kept for users' own signatures."""
