"""A training-time monitor for pseudo-alignment, for PyTorch Lightning.

The public names are imported when they are first used: importing this package imports neither Lightning nor
TensorBoard nor SciPy.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lightning_mesa.callbacks.monitor import MesaMonitor as MesaMonitor
    from lightning_mesa.checks.check import Check as Check
    from lightning_mesa.checks.check import Test as Test
    from lightning_mesa.data.distribution import Distribution as Distribution
    from lightning_mesa.data.distribution import Source as Source
    from lightning_mesa.data.env_distribution import EnvDistribution as EnvDistribution
    from lightning_mesa.data.loader_distribution import LoaderDistribution as LoaderDistribution
    from lightning_mesa.errors import ConfigurationError as ConfigurationError
    from lightning_mesa.errors import MesaWarning as MesaWarning
    from lightning_mesa.judge.alarm import Alarm as Alarm
    from lightning_mesa.judge.regimes import Regime as Regime
    from lightning_mesa.objectives import EpisodeObjective as EpisodeObjective
    from lightning_mesa.objectives import EpisodeReturn as EpisodeReturn
    from lightning_mesa.objectives import Logged as Logged
    from lightning_mesa.objectives import Matches as Matches
    from lightning_mesa.objectives import NegativeLoss as NegativeLoss
    from lightning_mesa.objectives import Objective as Objective
    from lightning_mesa.objectives import Reached as Reached
    from lightning_mesa.objectives import ScoreFunction as ScoreFunction
    from lightning_mesa.objectives import Transition as Transition
    from lightning_mesa.observe.context import LookContext as LookContext
    from lightning_mesa.observe.forward import behave as behave
    from lightning_mesa.probes.probe import Probe as Probe
    from lightning_mesa.records import Alert as Alert
    from lightning_mesa.records import Behavior as Behavior
    from lightning_mesa.records import Finding as Finding
    from lightning_mesa.records import Verdict as Verdict
    from lightning_mesa.report.journal import read_journal as read_journal
    from lightning_mesa.stats.nulls import AllOf as AllOf
    from lightning_mesa.stats.nulls import AnyOf as AnyOf
    from lightning_mesa.stats.nulls import AtLeast as AtLeast
    from lightning_mesa.stats.nulls import AtMost as AtMost
    from lightning_mesa.stats.nulls import ByPValue as ByPValue
    from lightning_mesa.stats.nulls import Null as Null

__version__ = "0.1.0"

_HOME = {
    "Alarm": "judge.alarm",
    "Alert": "records",
    "AllOf": "stats.nulls",
    "AnyOf": "stats.nulls",
    "AtLeast": "stats.nulls",
    "AtMost": "stats.nulls",
    "Behavior": "records",
    "ByPValue": "stats.nulls",
    "Check": "checks.check",
    "ConfigurationError": "errors",
    "Distribution": "data.distribution",
    "EnvDistribution": "data.env_distribution",
    "EpisodeObjective": "objectives",
    "EpisodeReturn": "objectives",
    "Finding": "records",
    "LoaderDistribution": "data.loader_distribution",
    "Logged": "objectives",
    "LookContext": "observe.context",
    "Matches": "objectives",
    "MesaMonitor": "callbacks.monitor",
    "MesaWarning": "errors",
    "NegativeLoss": "objectives",
    "Null": "stats.nulls",
    "Objective": "objectives",
    "Probe": "probes.probe",
    "Reached": "objectives",
    "Regime": "judge.regimes",
    "ScoreFunction": "objectives",
    "Source": "data.distribution",
    "Test": "checks.check",
    "Transition": "objectives",
    "Verdict": "records",
    "behave": "observe.forward",
    "read_journal": "report.journal",
}

__all__ = list(_HOME)


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
