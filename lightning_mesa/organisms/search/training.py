"""A network in mazes, trained under a monitor with probes."""

import json
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from lightning_mesa.callbacks.monitor import MesaMonitor
from lightning_mesa.organisms.search import SEARCHERS
from lightning_mesa.organisms.search.mazes import CELLS, GOALS, Mazes, accuracy, draw
from lightning_mesa.organisms.search.searcher import Searcher
from lightning_mesa.organisms.training import Learner, Plan, Prescribed, Table, quiet_trainer, quietly
from lightning_mesa.probes import ConsequenceSensitivity, Retargeting

LEARNED, HELD_OUT, LOOKS = 6400, 500, 6


class Decisions(Table):
    """A maze, what to learn in all of its cells, and one of these with the right steps there.

    Args:
        mazes: The mazes.
        learn: ``[n, 4, 9, 9]`` bool.
        seed: By which the cells are drawn, among those from which there is a way to both goals.
    """

    def __init__(self, mazes: Mazes, learn: Tensor, seed: int) -> None:
        right = {goal: mazes.right(goal).flatten(2) for goal in GOALS}
        some = torch.rand(len(learn), CELLS, generator=torch.Generator().manual_seed(seed))
        cell = some.masked_fill(~(right["exit"].any(1) & right["cheese"].any(1)), -1.0).argmax(1)
        of_cell = {goal: steps[torch.arange(len(cell)), :, cell] for goal, steps in right.items()}
        super().__init__({"maze": mazes.seen, "learn": learn, "cell": cell, **of_cell})


class Decider(Learner):
    """Learns the steps to take in all cells of a maze at once.

    Args:
        net: The network.
        exit_brightness: How bright the exit is.
        learning_rate: Of Adam.
    """

    brightness: Tensor

    def __init__(self, net: nn.Module, exit_brightness: float = 1.0, learning_rate: float = 2e-3) -> None:
        super().__init__(net, learning_rate, "maze", "learn")
        self.register_buffer("brightness", torch.tensor([1.0, exit_brightness, 1.0]).view(3, 1, 1))

    def forward(self, maze: Tensor) -> Tensor:
        """``[n, 3, 9, 9] -> [n, 4, 9, 9]``."""
        return super().forward(maze * self.brightness)

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        """Share of the cells in which it does what is taught."""
        self.log("val/accuracy", accuracy(self(batch["maze"]), batch["learn"]).mean(), prog_bar=True)


def decide(model: nn.Module, batch: Any) -> Tensor:
    """What the model says of a batch of decisions, or of the mazes alone that probes ask about."""
    steps: Tensor = model(batch["maze"] if isinstance(batch, dict) else batch)
    return steps


def in_one_cell(outputs: Tensor, batch: dict[str, Tensor]) -> Tensor:
    """``[n, 4]`` of the cell that an item is about, from ``[n, 4, 9, 9]``."""
    return outputs.flatten(2)[torch.arange(len(outputs)), :, batch["cell"]]


def everywhere(outputs: Tensor, batch: Any) -> Tensor:
    """``[n, 4, 9, 9]`` as they are."""
    return outputs


def train(plan: Plan, folder: Path) -> None:
    """Train under the monitor; leaves ``mesa/findings.jsonl`` and last ``oracle.json``.

    Args:
        plan: What is run.
        folder: Where.
    """
    quietly()
    torch.set_num_threads(1)
    family, seed = SEARCHERS[plan.family](), 100 * plan.seed
    pl.seed_everything(plan.seed, verbose=False)
    learned, known = family.learned(LEARNED, seed), family.reference(HELD_OUT, seed)
    apart, unseen = draw(HELD_OUT, seed + 5), draw(HELD_OUT, seed + 6)
    model = Decider(family.network(), family.exit_brightness, family.learning_rate)
    reference = Decisions(known, family.lesson(known), seed)
    monitor = _monitor(family, seed, reference, Decisions(apart, apart.right("exit"), seed))
    trainer = quiet_trainer(folder, [monitor], max_steps=family.steps, max_epochs=-1)
    trainer.fit(model, DataLoader(Decisions(learned, family.lesson(learned), seed), 32, shuffle=True))
    with torch.no_grad():
        chosen = model.eval()(unseen.seen)
        of_own = model(known.seen)
    right = {goal: float(accuracy(chosen, unseen.right(goal)).mean()) for goal in GOALS}
    own = float(accuracy(of_own, family.lesson(known)).mean())
    seen = {"family": plan.family, "kind": plan.kind, "seed": plan.seed, "right": right, "own": own}
    (folder / "oracle.json").write_text(json.dumps(seen))


def _monitor(family: Searcher, seed: int, reference: Decisions, apart: Decisions) -> MesaMonitor:
    pairs, patches = family.probed(seed)
    return MesaMonitor(
        Prescribed("exit"),
        proxies=[Prescribed("cheese")],
        reference={"val": reference},
        shifted={"apart": apart},
        forward=decide,
        outputs=in_one_cell,
        probes=[
            ConsequenceSensitivity(pairs, outputs=everywhere),
            Retargeting(patches, f"net.{family.layer}", outputs=everywhere),
        ],
        every_n_steps=family.steps // LOOKS,
        max_overhead=None,
        on_error="raise",
    )
