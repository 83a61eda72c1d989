"""What one look needs to know: handed whole to everything that observes, in place of eight arguments."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from lightning_mesa.objectives.hypotheses import Hypotheses
from lightning_mesa.objectives.objective import Target
from lightning_mesa.observe.processes import share
from lightning_mesa.observe.reader import Reader
from lightning_mesa.observe.subject import Subject

Outputs: TypeAlias = Callable[[Any, Any], Any]
Inputs: TypeAlias = str | int | Sequence[str]
# A function last: a command line would take a list for one, and could not write it down.
Groups: TypeAlias = str | int | Sequence[Target] | Mapping[str, Target] | Callable[[Any], Any]
Forward: TypeAlias = Callable[[Any, Any], Any] | str

WHOLE_BATCH = "*"
"""As ``inputs``: the model takes the whole batch as its one argument."""


@dataclass(frozen=True)
class Reading:
    """How to read one distribution: how its batches reach the model and what comes out.

    Attributes:
        forward: ``(pl_module, batch) -> outputs``; or the path of a submodule or method of the LightningModule, which
            is called on ``inputs``; None calls the LightningModule itself.
        inputs: Index, key, or keys passed by keyword; ``"*"`` takes the whole batch; None takes a tensor batch whole
            and the first element of a tuple.
        outputs: ``(outputs, batch) -> [n, A]``; None takes a tensor, ``["logits"]`` or ``.logits``.
        groups: Name -> key of group labels in the batch, or a function ``batch -> [n]`` labels.
        ids: Key or index of item ids in the batch, or a function ``batch -> [n]`` ids.
        cue: ``batch -> batch``, the same inputs with a cue; costs a second forward pass.
    """

    forward: Forward | None = None
    inputs: Inputs | None = None
    outputs: Outputs | None = None
    groups: Mapping[str, Target] = field(default_factory=dict)
    ids: Target | None = None
    cue: Callable[[Any], Any] | None = None


@dataclass(frozen=True)
class LookContext:
    """Who looks, at which model, for which objectives, and how.

    Attributes:
        trainer: The Lightning trainer, for its device, precision and processes.
        pl_module: The LightningModule.
        hypotheses: The listed objectives.
        reading: How to read batches.
        seed: Seed of everything random inside a look, the same at every look.
        name: The monitor's name, shown beside a progress bar.
        limit: Read at most this many batches; of episodes, this many times the number of environments.
        fresh: Whether items must be new ones at this look; else they are the same at every look.
        started: ``time.perf_counter()`` when the look began.
        untrained: The model whose untrained copy features are compared with.
        reader: Reads layers in the same forward pass.
    """

    trainer: Any
    pl_module: Any
    hypotheses: Hypotheses
    reading: Reading
    seed: int
    name: str
    limit: int | None = None
    fresh: bool = False
    started: float = 0.0
    untrained: Subject | None = None
    reader: Reader | None = None

    def stream(self, name: str) -> str:
        """A name for the randomness of this look, to seed generators by: ``random.Random(context.stream("x"))``.

        It is the same at every look, unless the items must be new ones; others draw from other streams.

        Args:
            name: What draws, such as the distribution.
        """
        return f"{self.seed}/{name}/{self.trainer.global_step if self.fresh else ''}"

    def share(self, n: int) -> range:
        """Which of n items this process looks at, by number: every k-th where there are k shares of them."""
        first, number = share(self.trainer)
        return range(first, n, number)
