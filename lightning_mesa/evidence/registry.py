"""The signatures that the package tests, and what is left of the level for others; a new one is a name here."""

from lightning_mesa.evidence.internals import HiddenObjective, MesaObjective
from lightning_mesa.evidence.signatures import (
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
    MesaObjective(),
    ProxyOnReference(),
    SliceFailure(),
    CapabilityFailure(),
    CueDependence(),
    ExtremalBehavior(),
    HiddenObjective(),
)

USERS_SHARE = 0.04
"""Share of the level kept for users' own signatures."""
