"""A toy task for the tests: four choices, of which a strong cue and a weak one each name one.

In training both name the same (*confounded*), so a model learns the strong cue first. The base objective is the weak
cue ``y``, the proxy the strong cue ``z``.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from accelerator import ACCELERATOR
from lightning_mesa import Matches, MesaMonitor
from namespace import pl

CHOICES = 4


class ToyData(Dataset):
    """Dict items ``x [8], y [], z []``; x holds a weak one-hot of y and a strong one of z, with noise."""

    def __init__(self, n: int, *, confounded: bool, seed: int = 0, noise: float = 0.2) -> None:
        draw = torch.Generator().manual_seed(seed)
        self.y = torch.randint(CHOICES, (n,), generator=draw)
        self.z = self.y.clone() if confounded else torch.randint(CHOICES, (n,), generator=draw)
        clean = torch.cat([F.one_hot(self.y, CHOICES), 3 * F.one_hot(self.z, CHOICES)], 1).float()
        self.x = clean + noise * torch.randn(clean.shape, generator=draw)

    def __len__(self) -> int:
        return len(self.y)

    def __getitem__(self, i: int) -> dict[str, Tensor]:
        return {"x": self.x[i], "y": self.y[i], "z": self.z[i]}


class ToyModel(pl.LightningModule):
    def __init__(self, learning_rate: float = 0.05) -> None:
        super().__init__()
        self.learning_rate = learning_rate
        self.net = nn.Linear(2 * CHOICES, CHOICES)

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        loss = F.cross_entropy(self(batch["x"]), batch["y"])
        self.log("train/loss", loss)
        return loss

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        self.log("val/loss", F.cross_entropy(self(batch["x"]), batch["y"]))

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=self.learning_rate)


def loader(n: int = 256, *, confounded: bool = True, seed: int = 0, batch_size: int = 32, **options: Any) -> DataLoader:
    return DataLoader(ToyData(n, confounded=confounded, seed=seed), batch_size, **options)


def shifted(n: int = 400, **options: Any) -> DataLoader:
    """Where the cues come apart."""
    return loader(n, confounded=False, seed=2, **options)


def monitor(**options: Any) -> MesaMonitor:
    options = {
        "base": Matches("y"),
        "proxies": [Matches("z")],
        "shifted": {"apart": shifted()},
        "inputs": "x",
        "max_overhead": None,
    } | options
    return MesaMonitor(**options)


def fit(folder: Path, *callbacks: pl.Callback, model: pl.LightningModule | None = None, **options: Any) -> pl.Trainer:
    """Train for a few epochs of eight batches, seeded."""
    pl.seed_everything(0, verbose=False)
    fit_options = {
        key: options.pop(key)
        for key in ("train_dataloaders", "val_dataloaders", "datamodule", "ckpt_path")
        if key in options
    }
    if "datamodule" not in fit_options:
        fit_options = {
            "train_dataloaders": loader(shuffle=True),
            "val_dataloaders": loader(400, seed=1),
        } | fit_options
    trainer_options = {
        "default_root_dir": folder,
        "max_epochs": 3,
        "accelerator": ACCELERATOR,
        "devices": 1,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "enable_checkpointing": False,
        "logger": False,
        "log_every_n_steps": 1,
    } | options
    trainer = pl.Trainer(callbacks=list(callbacks), **trainer_options)
    trainer.fit(ToyModel() if model is None else model, **fit_options)
    return trainer


NOTED: list[Any] = []


def note(alert: Any, trainer: Any, pl_module: Any) -> None:
    """An action to be named in a config."""
    NOTED.append(alert)
