"""Everything that is not public in Lightning, and its two names, in one place."""

import re
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning_mesa.errors import ConfigurationError
from lightning_mesa.observe.kinds import holds_data, is_function

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
            ``"model.ATTRIBUTE"``; after an attribute that holds or returns several loaders an index or a key,
            ``"datamodule.test_dataloader.1"``.

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
    root: Any = {"datamodule": trainer.datamodule, "model": pl_module}.get(owner)
    found = None if root is None or not path else _within(root, path, owner)
    if found is None:
        raise ConfigurationError(
            f"no distribution {name!r}: a name is 'val', 'val/1', 'datamodule.ATTRIBUTE' or 'model.ATTRIBUTE', and "
            f"the trainer has {'a' if trainer.datamodule is not None else 'no'} DataModule."
        )
    return found


def _within(found: Any, path: str, so_far: str) -> object:
    """What a path of attributes, keys and indices leads to; methods on the way are called."""
    if not path:
        return found
    entries = None if callable(found) else _entries(found)
    if entries is not None:
        # The longest first: a key may have dots.
        for key in sorted(entries, key=len, reverse=True):
            if path == key or path.startswith(f"{key}."):
                return _within(entries[key], path[len(key) + 1 :], f"{so_far}.{key}")
        raise ConfigurationError(f"no distribution '{so_far}.{path}': {so_far} has {', '.join(entries) or 'nothing'}.")
    part, _, rest = path.partition(".")
    if hasattr(found, part):
        return _within(getattr(found, part), rest, f"{so_far}.{part}")
    return _within(called(found, so_far), path, so_far) if is_function(found) else None


def called(function: Any, name: str) -> Any:
    """What a function of the user's makes.

    Args:
        function: Without arguments.
        name: What it is called, for the message.

    Raises:
        ConfigurationError: If it fails.
    """
    try:
        return function()
    except Exception as error:
        late = ". In a fit Lightning calls setup('fit') alone, so prepare there what it needs"
        raise ConfigurationError(
            f"{name}() failed with {type(error).__name__}: {error}{late if name.startswith('datamodule.') else ''}."
        ) from error


def loaders_in(found: Any) -> dict[str, Any] | None:
    """The loaders of a mapping, a list or a CombinedLoader, by key or number; None for what is one loader.

    Those of a mapping or list inside are called ``KEY.KEY``.
    """
    entries = _entries(found)
    if entries is None or (isinstance(found, (list, tuple)) and holds_data(found)):
        return None
    flat: dict[str, Any] = {}
    for key, entry in entries.items():
        inside = loaders_in(entry)
        flat |= {key: entry} if inside is None else {f"{key}.{k}": loader for k, loader in inside.items()}
    return flat


def _entries(found: Any) -> dict[str, Any] | None:
    """What a collection holds, by keys that can be part of a metric's name; None for what is no collection."""
    if hasattr(found, "iterables") and hasattr(found, "flattened"):  # a CombinedLoader, of either Lightning
        return _entries(found.iterables) or {"0": found.iterables}
    if not isinstance(found, (Mapping, list, tuple)):
        return None
    items = found.items() if isinstance(found, Mapping) else enumerate(found)
    named = {re.sub(r"[^\w.-]", "_", str(key)): entry for key, entry in items}
    if len(named) < len(found):
        raise ConfigurationError(
            f"two of the loaders {', '.join(map(repr, found))} get the same name, as a name has letters, digits, '_', "
            "'.' and '-' alone: give them other keys."
        )
    return named


def validation_loaders(trainer: Any) -> dict[str, Any]:
    """The validation loaders, in order, by what they are called: numbers, or the keys of a mapping."""
    loaders = trainer.val_dataloaders
    source = trainer.fit_loop.epoch_loop.val_loop._data_source
    # Lightning asks for the validation loaders late where the first epochs have no validation, or none has.
    if loaders is None and source.instance is not None and source.is_defined():
        loaders = source.dataloader()
    if loaders is None:
        return {}
    named = loaders_in(loaders)
    return {"0": loaders} if named is None else named


def reloaded(trainer: Any, since: tuple[int, object]) -> bool:
    """Whether the trainer has its loaders made anew since then (``reload_dataloaders_every_n_epochs``).

    Args:
        trainer: The trainer.
        since: What :func:`loaded` gave.
    """
    every = trainer.reload_dataloaders_every_n_epochs
    epoch, loaders = since
    return bool(every) and (trainer.current_epoch - epoch >= every or loaded(trainer)[1] is not loaders)


def loaded(trainer: Any) -> tuple[int, object]:
    """The epoch, and the validation loaders of it."""
    return trainer.current_epoch, trainer.fit_loop.epoch_loop.val_loop._combined_loader


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
