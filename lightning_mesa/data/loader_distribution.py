"""A distribution of items that a DataLoader or a Dataset holds."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

from torch.utils.data import DataLoader, Dataset

from lightning_mesa.attach.importing import is_path
from lightning_mesa.callbacks.compat import find
from lightning_mesa.data.distribution import Distribution, checked_regime, imported_early, name_of
from lightning_mesa.data.items import Items, ItemSource, batches_in
from lightning_mesa.errors import ConfigurationError, shown
from lightning_mesa.objectives.episodes import EpisodeObjective
from lightning_mesa.objectives.objective import Target, function_of, key_of
from lightning_mesa.observe.arguments import forward_of
from lightning_mesa.observe.context import Forward, Inputs, LookContext
from lightning_mesa.observe.parts import CONFLICT, Where

if TYPE_CHECKING:
    ItemsSpec: TypeAlias = Items | Callable[[], Items] | str
else:
    # What a command line needs to know: else its help lists every dataset class there is.
    ItemsSpec = str | Any


class LoaderDistribution(Distribution):
    """A distribution of items that a DataLoader or a Dataset holds.

    A DataLoader is never iterated: its dataset, collate function and batch size are read through a loader of
    our own, each item once and in order. Where it has a sampler of another kind than shuffling, that sampler
    is asked which items there are.

    Args:
        source: A DataLoader, a Dataset, a function without arguments that returns either, or the name of
            one: ``"val"``, ``"val/1"``, ``"datamodule.ATTRIBUTE"``, ``"model.ATTRIBUTE"``; other strings with a dot
            are import paths. Functions are called, and names looked up, when training starts.
        forward: What is called, where it differs from the monitor's; a function, or a path as there.
        inputs: The model's input in the batch, where it differs from the monitor's; written as there.
        ids: Key or index of ``[n]`` integer or string ids in the batch, or a function ``batch -> [n]``, also written
            ``"package.module:name"``. Where the reference and a shifted distribution both have ids and hold the same
            ones, the gap is measured on pairs, with narrower limits.
        where: Which of the items: a mapping from keys of the batch to labels that they must have; ``"conflict"``, those
            on which base and a proxy prescribe different choices; or a function ``batch -> [n]`` bool. Distributions of
            the same source share one forward pass per item. What is left out is not scored.
        batch_size: Batch size for a Dataset; a DataLoader has its own.
        data_regime: ``"reused"``: the same held-out items at every look. ``"fresh"``: new items at every look, drawn
            from random streams that advance. ``"adaptive"``: values measured on them may change the training, or chose
            its hyperparameters; they get numbers with limits, and no alert. ``"auto"``: adaptive if a plateau scheduler
            monitors a value that rests on them, or once a fit goes on from weights that were chosen by such a value;
            else fresh for a stream that draws new items when it is seeded anew, and reused for all others.

    Raises:
        ConfigurationError: If the batch size is not positive, or the data regime unknown.
    """

    def __init__(
        self,
        source: ItemsSpec,
        *,
        forward: Forward | None = None,
        inputs: Inputs | None = None,
        ids: Target | None = None,
        where: Where | None = None,
        batch_size: int = 256,
        data_regime: str = "auto",
    ) -> None:
        if batch_size < 1:
            raise ConfigurationError(f"batch_size must be at least 1, not {shown(batch_size)}.")
        self.source: ItemsSpec = imported_early(source, f"distribution {shown(source)}")
        self.forward = forward_of(forward)
        self.inputs = inputs
        self.ids = None if ids is None else key_of(ids, "ids")
        self.where = _checked_where(where)
        self.batch_size = batch_size
        self.data_regime = checked_regime(data_regime)

    def default_name(self, default: str) -> str:
        """After the string that finds it."""
        return name_of(self.source, default)

    def open(self, name: str, context: LookContext) -> ItemSource:
        """Find the items; see :class:`~lightning_mesa.Distribution`."""
        base, trainer, reading = context.hypotheses.base, context.trainer, context.reading
        if isinstance(base, EpisodeObjective):
            raise ConfigurationError(
                f"objective {base.name!r} scores episodes, and distribution {name!r} has items: pass "
                f"EnvDistribution(...) as {name}."
            )
        items = self.resolve(partial(find, trainer, context.pl_module))
        limit = context.limit
        # Validation data without a length may be endless: then the trainer's own limit holds.
        named = isinstance(self.source, str) and self.source.partition("/")[0] == "val"
        if named and isinstance(trainer.limit_val_batches, int) and batches_in(items) is None:
            limit = min(limit or trainer.limit_val_batches, trainer.limit_val_batches)
        inputs = reading.inputs if self.inputs is None else self.inputs
        reading = replace(reading, forward=self.forward or reading.forward, inputs=inputs, ids=self.ids)
        return ItemSource(items, {name: self.where}, reading, self.batch_size, limit)

    def resolve(self, find: Callable[[str], object]) -> Items:
        """Find the items.

        Args:
            find: Looks a name up in the trainer, the DataModule or the LightningModule.

        Returns:
            The user's DataLoader or Dataset.

        Raises:
            ConfigurationError: If it is neither.
        """
        found: object = self.source
        if isinstance(found, str):
            found = find(found)
        if callable(found) and not isinstance(found, (DataLoader, Dataset)):
            found = found()
        if isinstance(found, (DataLoader, Dataset)):
            return found
        raise ConfigurationError(
            f"{shown(self.source)} gives {type(found).__name__}: a distribution is a DataLoader, a Dataset, a function "
            "without arguments that returns either, or a name like 'val' or 'datamodule.recolored_dataloader'."
        )


def _checked_where(where: Where | None) -> Where | None:
    if is_path(where):
        where = function_of(where, "where")
    if where is None or callable(where) or (isinstance(where, str) and where == CONFLICT):
        return where
    if isinstance(where, Mapping) and where:
        return dict(where)
    raise ConfigurationError(
        f"where must be {CONFLICT!r}, a mapping from keys of the batch to labels, or a function batch -> [n] bool, not "
        f"{shown(where)}."
    )
