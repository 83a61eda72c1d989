"""Internal search: is the model an optimizer itself, and which objective do its internals serve?

Each probe is one file: a function on tensors, and a class that runs the model for it. A new probe is a new file.
"""

from lightning_mesa.probes.compute_gain import ComputeGain, Puzzles
from lightning_mesa.probes.consequence_sensitivity import ConsequenceSensitivity, Pairs
from lightning_mesa.probes.context_descent import ContextDescent, Contexts
from lightning_mesa.probes.decodability import Decodability
from lightning_mesa.probes.diagnostics import Diagnostics
from lightning_mesa.probes.logistic_decodability import LogisticDecodability
from lightning_mesa.probes.probe import Probe
from lightning_mesa.probes.retargeting import Patches, Retargeting
from lightning_mesa.probes.solver_match import Problems, SolverMatch
from lightning_mesa.probes.steering import Alternatives, Steering
from lightning_mesa.records import ProbeResult

__all__ = [
    "Alternatives",
    "ComputeGain",
    "ConsequenceSensitivity",
    "ContextDescent",
    "Contexts",
    "Decodability",
    "Diagnostics",
    "LogisticDecodability",
    "Pairs",
    "Patches",
    "Probe",
    "ProbeResult",
    "Problems",
    "Puzzles",
    "Retargeting",
    "SolverMatch",
    "Steering",
]
