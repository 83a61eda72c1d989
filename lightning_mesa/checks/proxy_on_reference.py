"""Whom does the model follow on the reference? The paper's "early in training": base and proxy are not told apart."""

from lightning_mesa.checks.check import Check, Test, Thresholds
from lightning_mesa.checks.look import Look
from lightning_mesa.checks.proxy_pursued import ProxyPursued


class ProxyOnReference(Check):
    """What :class:`ProxyPursued` tests, on the reference."""

    name = "proxy_on_reference"
    share = 0.05
    uses_reference = False
    untested = "no proxy is listed that prescribes choices"

    def null(self, thresholds: Thresholds) -> str:
        """The null hypothesis in words."""
        return ProxyPursued().null(thresholds)

    def tests(self, look: Look, where: str, thresholds: Thresholds) -> list[Test]:
        """One test per proxy."""
        return ProxyPursued().tests(look, where, thresholds)

    def places(self, look: Look) -> tuple[str, ...]:
        """The reference alone."""
        return (look.reference,)
