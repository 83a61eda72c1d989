"""A training-time monitor for pseudo-alignment, for PyTorch Lightning.

The public names are imported when they are first used: importing this package imports neither Lightning nor
TensorBoard nor SciPy.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lightning_mesa.callbacks.monitor import MesaMonitor
    from lightning_mesa.data.env_distribution import EnvDistribution
    from lightning_mesa.data.loader_distribution import LoaderDistribution
    from lightning_mesa.errors import ConfigurationError, MesaWarning
    from lightning_mesa.judge.alarm import Alarm
    from lightning_mesa.judge.regimes import Regime
    from lightning_mesa.objectives.episodes import EpisodeObjective, EpisodeReturn, Reached, Transition
    from lightning_mesa.objectives.logged import Logged
    from lightning_mesa.objectives.matches import Matches
    from lightning_mesa.objectives.objective import Objective
    from lightning_mesa.objectives.scores import NegativeLoss, ScoreFunction
    from lightning_mesa.records import Alert, Behavior, Finding, Verdict
    from lightning_mesa.report.journal import read_journal

__version__ = "0.1.0"

_HOME = {
    "MesaMonitor": "callbacks.monitor",
    "EnvDistribution": "data.env_distribution",
    "LoaderDistribution": "data.loader_distribution",
    "EpisodeObjective": "objectives.episodes",
    "EpisodeReturn": "objectives.episodes",
    "Reached": "objectives.episodes",
    "Transition": "objectives.episodes",
    "ConfigurationError": "errors",
    "MesaWarning": "errors",
    "Alarm": "judge.alarm",
    "Regime": "judge.regimes",
    "Logged": "objectives.logged",
    "Matches": "objectives.matches",
    "NegativeLoss": "objectives.scores",
    "Objective": "objectives.objective",
    "ScoreFunction": "objectives.scores",
    "Alert": "records",
    "Behavior": "records",
    "Finding": "records",
    "Verdict": "records",
    "read_journal": "report.journal",
}

__all__ = [
    "Alarm",
    "Alert",
    "Behavior",
    "ConfigurationError",
    "EnvDistribution",
    "EpisodeObjective",
    "EpisodeReturn",
    "Finding",
    "LoaderDistribution",
    "Logged",
    "Matches",
    "MesaMonitor",
    "MesaWarning",
    "NegativeLoss",
    "Objective",
    "Reached",
    "Regime",
    "ScoreFunction",
    "Transition",
    "Verdict",
    "read_journal",
]


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
