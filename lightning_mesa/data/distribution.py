"""The face of a distribution: what a look needs of it, whether we or a user wrote it."""

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

from lightning_mesa.attach.importing import imported, is_path
from lightning_mesa.errors import ConfigurationError, shown
from lightning_mesa.observe.context import LookContext
from lightning_mesa.observe.parts import Where
from lightning_mesa.records import Behavior

_FOUND_LATE = re.compile(r"val(/.+)?|(datamodule|model)\..+")
DATA_REGIMES = ("auto", "fresh", "reused", "adaptive")


class Source(ABC):
    """What a distribution has opened: it is observed at every look, and closed when the fit ends.

    Attributes:
        parts: The distributions that it holds: name -> which of the items belong to it, None for all.
        limit: Batches that are read at most; None where a look reads all items.
        reusable: Whether it can still be observed after :meth:`close`, by a test that follows the fit.
        reloads: Whether it is opened anew when the trainer reloads its loaders (``reload_dataloaders_every_n_epochs``).
    """

    parts: Mapping[str, Where | None]
    limit: int | None = None
    reusable: bool = True
    reloads: ClassVar[bool] = False

    @property
    def owners(self) -> tuple[object, ...]:
        """Objects of the user's that own random generators, or whose code uses some, which a look must not advance."""
        return ()

    @property
    def dataset(self) -> object:
        """The items, where a validation loader may hold the same ones; else None."""
        return None

    @abstractmethod
    def behaviors(self, context: LookContext) -> Iterator[Behavior]:
        """This process's share of the behavior on each part; iterated inside ``no_trace``.

        Of a sharded model (``ModelParallelStrategy``) every process must call it equally often, whatever its share.

        Args:
            context: Who looks, at what, and how.

        Raises:
            ConfigurationError: If the model cannot be observed as the objectives need it.
        """

    def joined(self, other: "Source") -> "Source | None":
        """One source for both, where one pass over the items can serve both; else None."""
        return None

    def draws_anew(self, seed: int) -> bool:
        """Whether its items can be new at every look; asked inside ``no_trace`` when training starts.

        If so, and no data regime is given, looks come with ``context.fresh``, and the alarm adds evidence up. Then seed
        what items are drawn from by ``context.stream``.
        """
        return False

    def in_words(self) -> str:
        """How it is read, where a user might expect otherwise; said when training starts."""
        return ""

    def state_dict(self) -> dict[str, Any]:
        """What it remembers from look to look, in plain values; kept in checkpoints."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:  # noqa: B027 (most sources remember nothing)
        """Go on from what was remembered."""

    def close(self) -> None:  # noqa: B027 (most sources own nothing)
        """Close what it has opened itself, such as environments."""


class Distribution(ABC):
    """Where the model is looked at: items, episodes, or whatever a class of your own gives.

    A distribution is passed to the monitor before training, and opens its :class:`Source` when training starts. What
    the source gives at a look is :class:`~lightning_mesa.Behavior`; ``behave`` scores a batch of outputs by all listed
    objectives.

    Attributes:
        where: Which of the items, see :class:`~lightning_mesa.LoaderDistribution`; None for all.
        data_regime: ``"reused"``: the same at every look. ``"fresh"``: new items at every look. ``"adaptive"``: the
            training may depend on it, so no alert rests on it. ``"auto"``: found out when training starts.

    Example:
        A simulator with a random generator of its own. The source names it as an owner, so the training finds the
        generator as it was; and it asks the same questions at every look.

        >>> import torch
        >>> from lightning_mesa import Distribution, Source, behave
        >>> class Simulated(Distribution):
        ...     def __init__(self, simulator, questions=100):
        ...         self.simulator, self.questions = simulator, questions
        ...
        ...     def open(self, name, context):
        ...         return Asked(name, self)
        >>> class Asked(Source):
        ...     def __init__(self, name, simulated):
        ...         self.parts, self.simulated = {name: None}, simulated
        ...
        ...     @property
        ...     def owners(self):
        ...         return (self.simulated.simulator,)
        ...
        ...     def behaviors(self, context):
        ...         mine = torch.tensor(context.share(self.simulated.questions))  # this process's share
        ...         batch = self.simulated.simulator.ask(mine)
        ...         (name,), outputs = self.parts, context.pl_module(batch["question"])
        ...         yield behave(name, batch, outputs, context.hypotheses, context.reading, mine)
    """

    where: Where | None = None
    data_regime: str = "auto"

    @abstractmethod
    def open(self, name: str, context: LookContext) -> Source:
        """Find what is to be looked at; called once in a fit, when training starts.

        Random numbers that are drawn here do not reach the training.

        Args:
            name: Name of the distribution.
            context: Who will look, and for which objectives.

        Raises:
            ConfigurationError: If it cannot be found, or does not hold what the objectives score.
        """

    def each(self, name: str, context: LookContext) -> "Mapping[str, Distribution]":
        """Itself by its name; or, where it stands for several loaders, one for each. Called before :meth:`open`.

        Args:
            name: Name of the distribution.
            context: Who will look, and for which objectives.

        Raises:
            ConfigurationError: If it cannot be found.
        """
        return {name: self}

    def default_name(self, default: str) -> str:
        """Its name where the user gives none; ``default`` where it knows no better one."""
        return default


def checked_regime(data_regime: str) -> str:
    """The data regime.

    Raises:
        ConfigurationError: If there is no such regime.
    """
    if data_regime not in DATA_REGIMES:
        raise ConfigurationError(f"data_regime must be one of {', '.join(DATA_REGIMES)}, not {shown(data_regime)}.")
    return data_regime


def is_found_late(name: str) -> bool:
    """Whether a string names what the trainer, the DataModule or the LightningModule has once training starts."""
    return _FOUND_LATE.fullmatch(name) is not None


def imported_early(source: Any, kind: str) -> Any:
    """The source itself, imported where it is an import path.

    Args:
        source: What the user passed.
        kind: What it is for, in one word.

    Raises:
        ConfigurationError: If it cannot be imported.
    """
    return imported(source, f"{kind} {source!r}") if is_path(source) and not is_found_late(source) else source


def name_of(source: object, default: str) -> str:
    """A name from the string that finds something, such as ``"val/1"``; else the default."""
    if isinstance(source, str):
        return source.removeprefix("datamodule.").removeprefix("model.").replace("/", ".")
    return default


def expanded(distributions: Mapping[str, Distribution], context: LookContext) -> dict[str, Distribution]:
    """The distributions, one for each loader where a name stands for several.

    Raises:
        ConfigurationError: If one cannot be found, or two have the same name.
    """
    found: dict[str, Distribution] = {}
    for name, distribution in distributions.items():
        for where, one in distribution.each(name, context).items():
            if where in found:
                raise ConfigurationError(f"two distributions are named {where!r}: give one of them another name.")
            found[where] = one
    return found


def opened(distributions: Mapping[str, Distribution], context: LookContext) -> list[Source]:
    """Open all distributions; those that one pass can serve share a source.

    Raises:
        ConfigurationError: If one cannot be opened, or evidence from shared items is to add up over looks.
    """
    sources: list[Source] = []
    try:
        for name, distribution in distributions.items():
            sources.append(distribution.open(name, context))
            for i, other in enumerate(sources[:-1]):
                if (both := other.joined(sources[-1])) is not None:
                    sources[i] = both
                    del sources[-1]
                    break
        for source in sources:
            fresh = [where for where in source.parts if distributions[where].data_regime == "fresh"]
            if fresh and len(source.parts) > 1:
                raise ConfigurationError(
                    f"distributions {' and '.join(map(repr, source.parts))} share their items, and evidence from "
                    f"{fresh[0]!r} adds up over looks only if its items are its own: give each a source of its own."
                )
    except BaseException:
        for source in sources:
            source.close()
        raise
    return sources
