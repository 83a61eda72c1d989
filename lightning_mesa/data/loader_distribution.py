"""A distribution of items that a loader or a dataset holds."""

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeAlias

from torch.utils.data import DataLoader, Dataset, IterableDataset

from lightning_mesa.attach.importing import is_path
from lightning_mesa.callbacks.compat import called, find, loaders_in
from lightning_mesa.data.distribution import Distribution, checked_regime, imported_early, name_of
from lightning_mesa.data.items import ItemSource, batches_in
from lightning_mesa.errors import ConfigurationError, shown
from lightning_mesa.objectives.episodes import EpisodeObjective
from lightning_mesa.objectives.objective import Target, function_of, key_of
from lightning_mesa.observe.arguments import forward_of
from lightning_mesa.observe.context import Forward, Inputs, LookContext
from lightning_mesa.observe.generators import generators
from lightning_mesa.observe.isolation import random_streams
from lightning_mesa.observe.kinds import holds_data, is_batch, is_function, is_loader, is_map_style
from lightning_mesa.observe.loaders import Batches, Items
from lightning_mesa.observe.parts import CONFLICT, Where
from lightning_mesa.observe.positions import positions

if TYPE_CHECKING:
    OneLoader: TypeAlias = Items | Iterable[Any] | str
    ItemsSpec: TypeAlias = OneLoader | Callable[[], OneLoader] | Mapping[str, OneLoader]
else:
    # What a command line needs to know: else its help lists every dataset class there is.
    ItemsSpec = str | Any


class LoaderDistribution(Distribution):
    """A distribution of items that a loader or a dataset holds.

    A DataLoader is never iterated: its dataset is read through a loader of our own with the same batch size, collate
    function, workers and ``drop_last``, each item once and in order. Where it has a sampler of another kind than
    shuffling, that sampler is asked which items there are.

    Args:
        source: One of these; ``docs/attach.md`` has more on each.

            * A DataLoader, or a dataset: torch's, or any object with ``__len__`` and ``__getitem__``.
            * Any other iterable, for its batches. It is iterated at each look, and stands afterwards where it stood.
              An iterator can be read once, so pass the function that makes it.
            * A list of items, or of batches; the shapes must tell which, see :func:`~.observe.kinds.is_batch`.
            * A function without arguments that returns one of these.
            * The name of one: ``"val"``, ``"val/1"``, ``"datamodule.ATTRIBUTE"``, ``"model.ATTRIBUTE"``, with an index
              or a key after it where there are several, ``"datamodule.test_dataloader.1"``; other strings with a dot
              are import paths.
            * A mapping, a list or a CombinedLoader of several loaders: a distribution each, ``NAME.KEY``.

            Functions are called, and names looked up, when training starts, and again whenever the trainer reloads its
            loaders (``reload_dataloaders_every_n_epochs``).
        forward: What is called, where it differs from the monitor's; a function, or a path as there.
        inputs: The model's input in the batch, where it differs from the monitor's; written as there.
        ids: Key or index of ``[n]`` integer or string ids in the batch, or a function ``batch -> [n]``, also written
            ``"package.module:name"``. Where the reference and a shifted distribution both have ids and hold the same
            ones, the gap is measured on pairs, with narrower limits.
        where: Which of the items: a mapping from keys of the batch to labels that they must have; ``"conflict"``, those
            on which base and a proxy prescribe different choices; or a function ``batch -> [n]`` bool. Distributions of
            the same source share one forward pass per item. What is left out is not scored.
        batch_size: Batch size for a dataset; a DataLoader has its own.
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
        if not isinstance(batch_size, int) or batch_size < 1:
            raise ConfigurationError(f"batch_size must be a whole number of at least 1, not {shown(batch_size)}.")
        self.source: ItemsSpec = imported_early(source, "distribution")
        self._found: object = None  # once it has been looked up
        self.forward = forward_of(forward)
        self.inputs = inputs
        self.ids = None if ids is None else key_of(ids, "ids")
        self.where = _checked_where(where)
        self.batch_size = batch_size
        self.data_regime = checked_regime(data_regime)

    def default_name(self, default: str) -> str:
        """After the string that finds it."""
        return name_of(self.source, default)

    def each(self, name: str, context: LookContext) -> Mapping[str, Distribution]:
        """A distribution for each loader that is found; see :class:`~lightning_mesa.Distribution`."""
        if isinstance(context.hypotheses.base, EpisodeObjective):
            return {name: self}
        found = self._look_up(partial(find, context.trainer, context.pl_module))
        loaders = loaders_in(found)
        if loaders is None:
            here = copy.copy(self)
            here._found = found
            return {name: here}
        each: dict[str, Distribution] = {}
        for key, one in loaders.items():
            here = copy.copy(self)
            here.source = one
            each |= (one if isinstance(one, Distribution) else here).each(f"{name}.{key}", context)
        if not each:
            raise ConfigurationError(
                f"distribution {name!r} is an empty {type(found).__name__}: there is no loader in it."
            )
        return each

    def open(self, name: str, context: LookContext) -> ItemSource:
        """Find the items; see :class:`~lightning_mesa.Distribution`."""
        base, trainer, reading = context.hypotheses.base, context.trainer, context.reading
        if isinstance(base, EpisodeObjective):
            raise ConfigurationError(
                f"objective {base.name!r} scores episodes, and distribution {name!r} has items: pass "
                f"EnvDistribution(...) as {name}."
            )
        try:
            items = self.resolve(partial(find, trainer, context.pl_module))
        except ConfigurationError as error:
            raise ConfigurationError(f"distribution {name!r}: {error}") from error
        limit = context.limit
        # Validation data without a length may be endless: then the trainer's own limit holds.
        if self._validates and isinstance(trainer.limit_val_batches, int) and batches_in(items) is None:
            limit = min(limit or trainer.limit_val_batches, trainer.limit_val_batches)
        inputs = reading.inputs if self.inputs is None else self.inputs
        reading = replace(reading, forward=self.forward or reading.forward, inputs=inputs, ids=self.ids)
        return ItemSource(items, {name: self.where}, reading, self.batch_size, limit)

    def resolve(self, find: Callable[[str], object]) -> Items:
        """Find the items.

        Args:
            find: Looks a name up in the trainer, the DataModule or the LightningModule.

        Returns:
            The user's DataLoader, dataset or batches.

        Raises:
            ConfigurationError: If it is none of them, or can be read once alone, or a list's shapes do not tell whether
                it holds items or batches.
        """
        found = self._look_up(find) if self._found is None else self._found
        items = _items(found, validates=self._validates)
        if items is not None:
            return items
        kind = type(found).__name__
        what = f"{self.source!r} gives {kind}" if isinstance(self.source, str) else f"{kind} is given"
        raise ConfigurationError(
            f"{what}: a distribution is a DataLoader, a Dataset, an iterable of batches, a function "
            "without arguments that returns one of these, or a name like 'val' or 'datamodule.recolored_dataloader'."
        )

    @property
    def _validates(self) -> bool:
        """Whether the source is the validation data, by name."""
        return isinstance(self.source, str) and self.source.partition("/")[0] == "val"

    def _look_up(self, find: Callable[[str], object]) -> object:
        found: Any = self.source
        if isinstance(found, str):
            found = find(found)
        if not is_function(found):
            return found
        made = called(found, self.source if isinstance(self.source, str) else getattr(found, "__qualname__", "source"))
        # What can be read once is made anew at every look.
        return Batches(found) if isinstance(made, Iterator) and loaders_in(made) is None else made


def _items(found: Any, *, validates: bool) -> Items | None:
    """The items that an object holds, None where it holds none.

    Args:
        found: What was passed, or found by name.
        validates: Whether Lightning reads it as a loader, so that it gives batches whatever else it is.

    Raises:
        ConfigurationError: If it can be read once, or a list's shapes do not tell what it holds.
    """
    if isinstance(found, (DataLoader, Batches)):
        return found
    if isinstance(found, (list, tuple)):
        return _listed(found)
    if not is_loader(found):
        return None
    if isinstance(found, IterableDataset):
        return Batches(found) if validates or _gives_batches(found) else found
    if isinstance(found, Dataset) or (is_map_style(found) and not validates):
        items: Items = found
        return items
    if isinstance(found, Iterator):
        raise ConfigurationError(
            f"{type(found).__name__} is an iterator: every look reads it from its start, which would move it under the "
            "training, or is not possible. Pass a function that makes one, or an object whose __iter__ starts anew."
        )
    return Batches(found) if hasattr(found, "__iter__") else found


def _listed(found: "list[Any] | tuple[Any, ...]") -> Items | None:
    if not holds_data(found) or not hasattr(found[0], "__getitem__"):
        return None
    batches = is_batch(found[0])
    if batches is None:
        raise ConfigurationError(
            f"a list of {len(found)} {type(found[0]).__name__} may hold items or batches, and the shapes do not tell "
            "which: pass DataLoader(..., batch_size=None) for batches, or DataLoader(..., batch_size=32) for items."
        )
    return Batches(found) if batches else found


def _gives_batches(stream: "IterableDataset[Any]") -> bool:
    """Whether a stream puts its batches together itself, as a loader of webdataset does."""
    with random_streams(0), generators(stream, seed=0), positions(stream):
        try:
            return any(is_batch(entry) is True for entry in islice(stream, 1))
        except Exception:  # the first look will meet it too, and say what is wrong
            return False


def _checked_where(where: Where | None) -> Where | None:
    if is_path(where):
        where = function_of(where, "where")
    if where is None or (isinstance(where, str) and where == CONFLICT) or callable(where):
        return where
    if isinstance(where, Mapping) and where:
        return dict(where)
    raise ConfigurationError(
        f"where must be {CONFLICT!r}, a mapping from keys of the batch to labels, or a function batch -> [n] bool, not "
        f"{shown(where)}."
    )
