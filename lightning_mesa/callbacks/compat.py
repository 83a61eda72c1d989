"""Everything that is not public in Lightning, and its two names, in one place."""

import re
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch.utils.data import DataLoader

from lightning_mesa.errors import ConfigurationError

if TYPE_CHECKING:
    from pytorch_lightning import Callback

NAMESPACES = ("pytorch_lightning", "lightning.pytorch")
"""The same code under two names: a trainer of the one does not know the callbacks of the other."""


def callback_base() -> "type[Callback]":
    """A class that is a ``Callback`` to every Lightning that is installed.

    Raises:
        ImportError: If none is.
    """
    bases, failures = [], []
    for namespace in NAMESPACES:
        try:
            bases.append(import_module(namespace).Callback)
        except ImportError as error:
            failures.append(f"{namespace}: {error}")
    if not bases:
        raise ImportError(
            "lightning-mesa watches a Lightning Trainer, and no Lightning can be imported: pip install "
            f"pytorch-lightning, or lightning ({'; '.join(failures)})."
        )
    return type("Callback", tuple(bases), {"__doc__": "A callback of every Lightning that is installed."})


def stepped_batches(trainer: Any, *, in_batch: bool) -> int:
    """Number of batches after which the optimizer has stepped: the x axis of the loggers.

    Lightning stamps what a training step logs with this number *before* the step, and raises it after the
    hooks of the batch and its validation have run.

    Args:
        trainer: The trainer.
        in_batch: Whether those hooks are running now.
    """
    loop = trainer.fit_loop.epoch_loop
    return int(loop._batches_that_stepped) + (in_batch and not loop._should_accumulate())


def journal_folder(trainer: Any, name: str) -> Path | None:
    """Where a monitor of that name keeps its files; None under ``fast_dev_run``, which leaves nothing behind.

    To be called on all processes.
    """
    folder = trainer.log_dir or trainer.default_root_dir
    return None if trainer.fast_dev_run else Path(folder) / name


def check_strategy(trainer: Any) -> None:
    """Refuse a strategy under which a call of ``pl_module(...)`` does not run the model.

    Raises:
        ConfigurationError: For anything but a single device, DDP, and ModelParallelStrategy.
    """
    names = {cls.__name__ for cls in type(trainer.strategy).__mro__}
    known = {"SingleDeviceStrategy", "DDPStrategy", "ModelParallelStrategy"} & names
    if not known or names & {"DeepSpeedStrategy", "XLAStrategy", "SingleDeviceXLAStrategy"}:
        raise ConfigurationError(
            f"MesaMonitor does not support {type(trainer.strategy).__name__}, under which it cannot run the model on "
            "its own: train on a single device, under DDP, Trainer(strategy='ddp'), or a sharded model (FSDP2) under "
            "ModelParallelStrategy(data_parallel_size=..., tensor_parallel_size=1); or without the monitor."
        )


def monitors_of(trainer: Any, prefix: str) -> list[str]:
    """Which callbacks and schedulers monitor a value whose name begins so, in words."""
    monitored = [(type(c).__name__, getattr(c, "monitor", None)) for c in trainer.callbacks]
    monitored += [(type(c.scheduler).__name__, c.monitor) for c in trainer.lr_scheduler_configs if c.reduce_on_plateau]
    return [f"{name} monitors {key!r}" for name, key in monitored if isinstance(key, str) and key.startswith(prefix)]


def find(trainer: Any, pl_module: Any, name: str) -> object:
    """Find what a distribution given by name stands for.

    Args:
        trainer: The trainer.
        pl_module: The LightningModule.
        name: ``"val"`` (the first validation loader), ``"val/1"`` or ``"val/KEY"``, ``"datamodule.ATTRIBUTE"``,
            ``"model.ATTRIBUTE"``.

    Raises:
        ConfigurationError: If there is no such thing.
    """
    if name == "val" or name.startswith("val/"):
        named, key = validation_loaders(trainer), name.partition("/")[2]
        if not named:
            raise ConfigurationError(
                f"the distribution {name!r} is the validation data, and this run has none: pass reference=, a "
                "DataLoader or Dataset of held-out items like those in training."
            )
        if key and key not in named:
            raise ConfigurationError(
                f"no validation loader {name!r}: there are {', '.join(f'val/{k}' for k in named)}."
            )
        return named[key or next(iter(named))]
    owner, _, path = name.partition(".")
    found: Any = {"datamodule": trainer.datamodule, "model": pl_module}.get(owner)
    for attribute in filter(None, path.split(".")):
        found = getattr(found, attribute, None)
    if found is None or not path:
        raise ConfigurationError(
            f"no distribution {name!r}: a name is 'val', 'val/1', 'datamodule.ATTRIBUTE' or 'model.ATTRIBUTE', and "
            f"the trainer has {'a' if trainer.datamodule is not None else 'no'} DataModule."
        )
    return found


def validation_loaders(trainer: Any) -> dict[str, Any]:
    """The validation loaders, in order, by what they are called: numbers, or the keys of a mapping."""
    loaders = trainer.val_dataloaders
    source = trainer.fit_loop.epoch_loop.val_loop._data_source
    # Lightning asks for the validation loaders late where the first epochs have no validation, or none has.
    if loaders is None and source.instance is not None and source.is_defined():
        loaders = source.dataloader()
    if loaders is None:
        return {}
    if isinstance(loaders, Mapping):
        return {re.sub(r"[^\w.-]", "_", str(key)): loader for key, loader in loaders.items()}
    if isinstance(loaders, (list, tuple)) and not isinstance(loaders, DataLoader):
        return {str(i): loader for i, loader in enumerate(loaders)}
    return {"0": loaders}


def validation_metrics(trainer: Any) -> dict[str, Any]:
    """What the validation that is going on has logged so far; None for values of a sanity check, which are not kept."""
    names = []
    for logged in trainer._results.values():
        meta = logged.meta
        if meta.on_epoch and not logged.has_reset:
            numbered = meta.add_dataloader_idx and meta.dataloader_idx is not None
            names.append(f"{meta.name}/dataloader_idx_{meta.dataloader_idx}" if numbered else meta.name)
    values = trainer.callback_metrics
    return {name: values.get(name) for name in names}
