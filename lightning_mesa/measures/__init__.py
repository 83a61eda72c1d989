"""What is measured at a look; a new measure is a new file and a name in ``MEASURES``."""

from lightning_mesa.measures.capability import Capability
from lightning_mesa.measures.measure import Measure, Stamp
from lightning_mesa.measures.objective_gap import ObjectiveGap

MEASURES: tuple[type[Measure], ...] = (ObjectiveGap, Capability)

__all__ = ["MEASURES", "Capability", "Measure", "ObjectiveGap", "Stamp"]
