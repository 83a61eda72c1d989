"""Is base lost here, where nothing tells whether capability was lost with it?"""

from lightning_mesa.checks.check import Check, Test, Thresholds, items
from lightning_mesa.checks.look import Look
from lightning_mesa.checks.objective_lost import ObjectiveLost, kept, lost
from lightning_mesa.stats.competence import limits
from lightning_mesa.stats.nulls import AnyOf, AtMost


class BaseLost(Check):
    """Base is lost here, and nothing tells whether capability was lost with it."""

    name = "base_lost"
    # It stands in for the other one: wherever both are tested, this null is part of that one.
    share = ObjectiveLost.share
    untested = "more than base is listed: objective_lost asks this"

    def null(self, thresholds: Thresholds) -> str:
        """The null hypothesis in words."""
        return (
            f"competence at base on the reference is below {thresholds.capability:g}, or the gap is at most "
            f"{thresholds.gap:g}"
        )

    def tests(self, look: Look, where: str, thresholds: Thresholds) -> list[Test]:
        """One test, where base is the only objective listed; silent where a readout shows capability."""
        if look.witnessed:
            return []
        null = kept(look, where, thresholds)
        gap, readout = look.estimate("gap", where), look.estimate("readout", where)
        if readout is not None and limits(readout, 0.95)[0] > thresholds.readout:
            null = AnyOf(null, AtMost(None, 0.0))  # may lose evidence and gains none
        sentence = f"{lost(look, where)}; cause undetermined: no proxy is listed that it might pursue instead."
        return [Test(null, None, items(gap), gap, sentence)]
