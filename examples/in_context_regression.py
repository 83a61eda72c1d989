"""Linear regression in context: is what a network has learned a step of gradient descent?

    python examples/in_context_regression.py attention   # linear self-attention, one layer
    python examples/in_context_regression.py mlp         # an MLP that sees the same, and learns it about as well

The base objective is the right answer to the query, the proxy the target of the input that is nearest to it. How often
answers are right does not tell how they come about: the monitor's probe compares them with those of known solvers, in
and out of distribution. Attention is found to match one step of gradient descent; the MLP and an untrained copy are
not.
"""

import argparse
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import TensorBoardLogger
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from in_context import Flat, LinearAttention, Regression, draw
from lightning_mesa import MesaMonitor, Objective, read_journal
from lightning_mesa.probes import SolverMatch

RUNS = ("attention", "mlp")
TOLERANCE = 0.5
"""An answer serves an objective if it is so near, in units of the spread of the targets that are shown."""


class Answers(Objective):
    """The answer is near the one that an objective wants."""

    bounds, ceiling = (0.0, 1.0), 1.0

    def __init__(self, name: str) -> None:
        self.name = name

    def score(self, batch: dict[str, Tensor], outputs: Tensor) -> Tensor:
        return (outputs - batch[self.name]).abs() < TOLERANCE * batch["spread"]


class Queries(Dataset):
    """Tokens, the right answer, the nearest target, and how far targets are spread."""

    def __init__(self, of: Regression) -> None:
        spread = of.targets.square().mean(1).sqrt()
        self.columns = {"tokens": of.tokens, "answer": of.answers, "nearest": of.nearest, "spread": spread}

    def __len__(self) -> int:
        return len(self.columns["answer"])

    def __getitem__(self, i: int) -> dict[str, Tensor]:
        return {name: column[i] for name, column in self.columns.items()}


class RegressionModule(pl.LightningDataModule):
    """Problems to train on, 500 to validate on, and 500 with other inputs and larger weights."""

    def __init__(self, seed: int, problems: int) -> None:
        super().__init__()
        random = torch.Generator().manual_seed(seed)
        self.train_set, self.val_set = (Queries(draw(n, random)) for n in (problems, 500))
        self.far_set = Queries(draw(500, random, far=True))

    def train_dataloader(self) -> DataLoader:
        return DataLoader(self.train_set, 128, shuffle=True)

    def val_dataloader(self) -> DataLoader:
        return DataLoader(self.val_set, 250)

    def far_dataloader(self) -> DataLoader:
        return DataLoader(self.far_set, 250)


class Learner(pl.LightningModule):
    """Learns to answer, by squared error."""

    def __init__(self, run: str) -> None:
        super().__init__()
        self.net = LinearAttention() if run == "attention" else Flat()
        self.learning_rate = 2e-2 if run == "attention" else 3e-3

    def forward(self, tokens: Tensor) -> Tensor:
        return self.net(tokens)

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        loss = F.mse_loss(self(batch["tokens"]), batch["answer"])
        self.log("train/loss", loss)
        return loss

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        error = F.mse_loss(self(batch["tokens"]), batch["answer"])
        self.log("val/error", error / batch["answer"].square().mean(), prog_bar=True)

    def configure_optimizers(self) -> dict[str, Any]:
        optimizer = torch.optim.Adam(self.parameters(), lr=self.learning_rate)
        return {"optimizer": optimizer, "lr_scheduler": torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.7)}


def mesa_monitor(seed: int, **options: Any) -> MesaMonitor:
    """The lines a user adds."""
    random = torch.Generator().manual_seed(1000 + seed)
    # A batch of the probe is what the model takes: its input alone.
    return MesaMonitor(
        base=Answers("answer"),
        proxies=[Answers("nearest")],
        shifted={"far": "datamodule.far_dataloader"},
        forward=lambda model, batch: model(batch["tokens"] if isinstance(batch, dict) else batch),
        probes=[SolverMatch(draw(400, random).problems, draw(400, random, far=True).problems)],
        max_overhead=None,  # the whole training takes less than a minute: look, whatever that costs
        **options,
    )


def train(
    run: str, seed: int, epochs: int, out: Path, *, problems: int = 25_600, progress: bool = True, **options: Any
) -> tuple[pl.Trainer, Learner, MesaMonitor]:
    """Train a network with the monitor attached."""
    pl.seed_everything(seed)
    monitor = mesa_monitor(seed, **options)
    trainer = pl.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        callbacks=[monitor],
        logger=TensorBoardLogger(out, name=run),
        log_every_n_steps=10,
        gradient_clip_val=1.0,
        enable_progress_bar=progress,
        enable_checkpointing=False,
    )
    model = Learner(run)
    trainer.fit(model, datamodule=RegressionModule(seed, problems))
    return trainer, model, monitor


def verdict(trainer: pl.Trainer) -> str:
    """What the probe said at the last look."""
    found = read_journal(Path(trainer.logger.log_dir) / "mesa/findings.jsonl")
    last = [finding for finding in found if finding["measure"] == "solver_match"][-1]
    detail = last["detail"]
    if last["value"] is None:
        return f"{detail['status']}: {detail['reason']}"
    untrained = "not defined" if detail["untrained"] is None else f"{detail['untrained']:.2f}"
    lines = [
        f"nearest to {detail['solver']}: R2 {last['value']:.4f} ({last['low']:.4f} to {last['high']:.4f})",
        f"out of distribution {detail['r2_far']:.4f}, margin over what solves nothing {detail['margin']:.2f}, "
        f"of an untrained copy to its own nearest {untrained}",
        f"squared error {detail['task_error']:.2f} of the variance",
        "it MATCHES" if detail["positive"] else f"it does NOT match: {detail.get('reason', 'R2 is below the bar')}",
    ]
    return "\n  ".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", choices=RUNS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=8, help="passes over 25,600 problems")
    parser.add_argument("--on-alert", default="log", choices=["log", "stop", "checkpoint"])
    parser.add_argument("--out", type=Path, default=Path("runs"), help="where TensorBoard finds the runs")
    options = parser.parse_args()
    for run in options.runs:
        trainer, _, monitor = train(run, options.seed, options.epochs, options.out, on_alert=options.on_alert)
        alerts = [f"{alert.signature} on {alert.distribution}" for alert in monitor.alerts if alert.severity == "alert"]
        print(f"\n{run}: {'; '.join(alerts) or 'no alert'}\n  {verdict(trainer)}\n")
    print(f"all of it: tensorboard --logdir {options.out}  (tabs Custom Scalars and Text)")


if __name__ == "__main__":
    main()
