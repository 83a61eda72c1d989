"""Which data regime each distribution has, and why: it decides which alerts may claim a level."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn
from torch.utils.hooks import RemovableHandle

from lightning_mesa.records import Role

_IN_WORDS = {
    "reused": "the same held-out items at every look",
    "fresh": "new items at every look",
    "adaptive": "adaptive, numbers without alerts that rest on them",
}
_REMEDY = "for alerts, pass items that nothing in the training depends on, or declare data_regime='reused'"
# Values of a shifted distribution that are measured against the reference.
_USES_REFERENCE = ("/gap", "/regime", "/evidence/", "/extremal_excess")


@dataclass(frozen=True)
class DataRegime:
    """A data regime and, where it was concluded that data are adaptive, from what."""

    label: str
    reason: str = ""


@dataclass(frozen=True)
class Place:
    """A distribution, as far as its data regime depends on it.

    Attributes:
        name: Its name.
        role: Its role.
        declared: The regime that the user gave, perhaps ``"auto"``.
        validation: Number of the validation loader that holds the same items, where one does.
    """

    name: str
    role: Role
    declared: str
    validation: int | None


def at_start(trainer: Any, monitor: str, place: Place, draws_anew: Callable[[], bool]) -> DataRegime:
    """The regime as declared; "auto" looks for a plateau scheduler first, then whether the items are new.

    Args:
        trainer: The trainer.
        monitor: The monitor's name.
        place: The distribution.
        draws_anew: Finds out whether its items are new at every look.
    """
    if place.declared != "auto":
        return DataRegime(place.declared)
    monitored = [str(config.monitor) for config in trainer.lr_scheduler_configs if config.reduce_on_plateau]
    for key in monitored:
        if rests_on(key, monitor, place):
            return DataRegime("adaptive", f"ReduceLROnPlateau monitors {key!r}")
    return DataRegime("fresh" if draws_anew() else "reused")


def after_reload(trainer: Any, monitor: str, place: Place) -> DataRegime | None:
    """The regime once the training goes on from the best weights so far; None where this place did not choose them."""
    if place.declared != "auto":
        return None
    for key in (str(callback.monitor) for callback in _choosing(trainer)):
        if rests_on(key, monitor, place):
            return DataRegime("adaptive", f"weights were loaded in this run, and ModelCheckpoint monitors {key!r}")
    return None


def rests_on(key: str, monitor: str, place: Place) -> bool:
    """Whether a logged value is measured on a distribution.

    Our own keys say so. All others are taken to be measured on the validation data, but for those of the training.

    Args:
        key: The value's name.
        monitor: The monitor's name.
        place: The distribution.
    """
    if key.startswith(f"{monitor}/"):
        # A worst value rests on all of them.
        return key.split("/")[1] in (place.name, "gap", "base", "alert") or (
            place.role == "reference" and any(part in key for part in _USES_REFERENCE)
        )
    if place.validation is None or "train" in key.lower():
        return False
    _, _, index = key.partition("/dataloader_idx_")  # Lightning's, where there are several loaders
    return index in ("", str(place.validation))


class Reloads:
    """Sees weights that are loaded while the training goes on: as a rule the best ones so far.

    Only whole models count: parts are loaded for other reasons, as when a target network follows.
    """

    def __init__(self) -> None:
        self._seen = False
        self._loads: dict[Any, Any] = {}
        self._hook: RemovableHandle | None = None

    @property
    def seen(self) -> bool:
        """Whether weights have been loaded; to be kept in checkpoints."""
        if self._loads:
            self._seen = True
            self._loads.clear()
        return self._seen

    @seen.setter
    def seen(self, seen: bool) -> None:
        self._seen = seen

    def watch(self, module: nn.Module) -> None:
        """See from now on what is loaded into a module."""
        if self._hook is None:
            # A method of a dict's, so that a model that is copied or pickled takes nothing of ours along.
            self._hook = module.register_load_state_dict_post_hook(self._loads.__setitem__)  # type: ignore[no-untyped-call]

    def unwatch(self) -> None:
        """Leave no hook on the module."""
        if self._hook is not None:
            self._hook.remove()
            self._hook = None

    def __getstate__(self) -> dict[str, Any]:
        """Without the hook, which leads to the module."""
        return {"_seen": self.seen, "_loads": {}, "_hook": None}


def goes_on_from_best(trainer: Any) -> bool:
    """Whether this fit starts from a checkpoint that was kept as the best one."""
    if not trainer.ckpt_path:
        return False
    best = [getattr(callback, "best_model_path", "") for callback in _choosing(trainer)]
    return any(path and Path(path).resolve() == Path(trainer.ckpt_path).resolve() for path in best)


def _choosing(trainer: Any) -> list[Any]:
    """The ModelCheckpoints that keep the best weights; without a monitored value they keep the last ones."""
    return [callback for callback in trainer.checkpoint_callbacks if getattr(callback, "monitor", None)]


def in_words(regimes: Mapping[str, DataRegime]) -> str:
    """Which data regime each distribution has, in one line, and where it costs alerts why and what helps."""
    names: dict[str, list[str]] = {}
    for where, regime in regimes.items():
        because = f" ({regime.reason}; {_REMEDY})" if regime.reason else ""
        names.setdefault(_IN_WORDS[regime.label] + because, []).append(where)
    return "; ".join(f"{', '.join(where)}: {words}" for words, where in names.items())
