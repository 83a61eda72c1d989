"""Handwritten digits in color: does the model learn the digit, or the color?

    python examples/colored_digits.py confounded     # in training, color tells the digit
    python examples/colored_digits.py decorrelated   # in training, it does not
    python examples/colored_digits.py degraded       # trained like decorrelated; looked at where nothing can be read
    python examples/colored_digits.py confounded --exceptions .1 --decode --on-alert log   # does it know the digit?

The base objective is the digit, the proxy is the color. The validation data are drawn like the training data, so
validation accuracy is high in every run. Only the shifted data tell the runs apart: freshly colored digits, or, in
the degraded run, gray noise.
"""

import argparse
from pathlib import Path

import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import TensorBoardLogger
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from lightning_mesa import Matches, MesaMonitor
from lightning_mesa.probes import Decodability

RUNS = ("confounded", "decorrelated", "degraded")
# Ten colors that can be told apart, as red, green, blue.
PALETTE = torch.tensor(
    [
        [1.0, 0.1, 0.1],
        [0.1, 1.0, 0.1],
        [0.1, 0.1, 1.0],
        [1.0, 1.0, 0.1],
        [1.0, 0.1, 1.0],
        [0.1, 1.0, 1.0],
        [1.0, 0.55, 0.1],
        [0.55, 0.1, 1.0],
        [0.5, 1.0, 0.6],
        [1.0, 1.0, 1.0],
    ]
)


class ColoredDigits(Dataset):
    """Images ``[3, 8, 8]`` of bright ink on dim paper, with the digit they show and the color of both."""

    def __init__(self, gray: Tensor, digits: Tensor, colors: Tensor) -> None:
        self.images = (0.3 + 0.7 * gray[:, None]) * PALETTE[colors][:, :, None, None]
        self.digits = digits
        self.colors = colors

    def __len__(self) -> int:
        return len(self.digits)

    def __getitem__(self, i: int) -> dict[str, Tensor]:
        return {"image": self.images[i], "digit": self.digits[i], "color": self.colors[i]}


class ColoredDigitsModule(pl.LightningDataModule):
    """The UCI handwritten digits, colored; 797 to train on, 500 to validate on, 500 shifted.

    In the confounded run a share of digits, the exceptions, has a color drawn at random.
    """

    def __init__(self, run: str, seed: int = 0, batch_size: int = 64, exceptions: float = 0.0) -> None:
        super().__init__()
        self.run, self.seed, self.batch_size, self.exceptions = run, seed, batch_size, exceptions

    def setup(self, stage: str | None = None) -> None:
        draw = torch.Generator().manual_seed(self.seed)
        data = load_digits()
        order = torch.randperm(len(data.target), generator=draw)
        gray = torch.tensor(data.images, dtype=torch.float32)[order] / 16
        digits = torch.tensor(data.target)[order]
        uniform = torch.randint(10, digits.shape, generator=draw)
        colors = digits if self.run == "confounded" else uniform
        if self.exceptions:
            colors = torch.where(torch.rand(digits.shape, generator=draw) < self.exceptions, uniform, colors)
        train, val, shifted = slice(0, 797), slice(797, 1297), slice(1297, 1797)
        self.train_set = ColoredDigits(gray[train], digits[train], colors[train])
        self.val_set = ColoredDigits(gray[val], digits[val], colors[val])
        self.shifted_set = ColoredDigits(gray[shifted], digits[shifted], uniform[shifted])
        if self.run == "degraded":
            noise = torch.rand(gray[shifted].shape, generator=draw)
            self.shifted_set.images = noise[:, None].expand(-1, 3, -1, -1).contiguous()

    def train_dataloader(self) -> DataLoader:
        return DataLoader(self.train_set, self.batch_size, shuffle=True)

    def val_dataloader(self) -> DataLoader:
        return DataLoader(self.val_set, batch_size=250)

    def shifted_dataloader(self) -> DataLoader:
        return DataLoader(self.shifted_set, batch_size=250)


class SmallConvNet(pl.LightningModule):
    """Two convolutions and a linear layer."""

    def __init__(self, learning_rate: float = 3e-4) -> None:
        super().__init__()
        self.learning_rate = learning_rate
        self.net = nn.Sequential(
            nn.Conv2d(3, 32, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(32, 64, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Dropout(0.2),
            nn.Linear(64 * 4 * 4, 10),
        )

    def forward(self, image: Tensor) -> Tensor:
        return self.net(image)

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        loss = F.cross_entropy(self(batch["image"]), batch["digit"])
        self.log("train/loss", loss)
        return loss

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        accuracy = (self(batch["image"]).argmax(1) == batch["digit"]).float().mean()
        self.log("val/accuracy", accuracy, prog_bar=True)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=self.learning_rate)


def mesa_monitor(run: str, on_alert: str = "log", *, decode: bool = False) -> MesaMonitor:
    """The lines a user adds."""
    name = "noise" if run == "degraded" else "recolored"
    return MesaMonitor(
        base=Matches("digit"),
        proxies=[Matches("color")],
        shifted={name: "datamodule.shifted_dataloader"},
        inputs="image",
        on_alert=on_alert,
        probes=[Decodability("net.*")] if decode else [],
        max_overhead=None,  # the whole training takes seconds: look after each epoch, whatever that costs
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", choices=RUNS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--max-epochs", type=int, default=30)
    parser.add_argument("--on-alert", default="stop", choices=["log", "stop", "checkpoint"])
    parser.add_argument("--exceptions", type=float, default=0.0, help="share of digits whose color does not tell them")
    parser.add_argument("--decode", action="store_true", help="say what can be decoded from each layer")
    parser.add_argument("--out", type=Path, default=Path("runs"), help="where TensorBoard finds the run")
    options = parser.parse_args()

    pl.seed_everything(options.seed)
    monitor = mesa_monitor(options.run, options.on_alert, decode=options.decode)
    trainer = pl.Trainer(
        max_epochs=options.max_epochs,
        accelerator="cpu",
        callbacks=[monitor],
        logger=TensorBoardLogger(options.out, name=options.run),
        log_every_n_steps=5,
    )
    data = ColoredDigitsModule(options.run, options.seed, exceptions=options.exceptions)
    trainer.fit(SmallConvNet(), datamodule=data)

    print(f"\nfindings and alerts: {trainer.log_dir}/mesa/")
    print(f"the whole run: tensorboard --logdir {options.out}  (tabs Custom Scalars and Text)")


if __name__ == "__main__":
    main()
