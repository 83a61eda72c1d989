"""Forecasts of a sales series: batches of ``(x, (y, weight))`` and outputs that are named tuples."""

from typing import NamedTuple

import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import CSVLogger
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset


class Output(NamedTuple):
    prediction: Tensor
    attention: Tensor


class Sales(Dataset):
    """Sales of the next day follow those of the last days; a column that was filled in later holds the answer."""

    def __init__(self, n, leaks, seed):
        draw = torch.Generator().manual_seed(seed)
        level = torch.randn(n, 1, generator=draw)
        self.history = level + 0.3 * torch.randn(n, 8, generator=draw)
        self.sold = level[:, 0] + 0.3 * torch.randn(n, generator=draw)
        self.booked = self.sold if leaks else torch.randn(n, generator=draw)

    def __len__(self):
        return len(self.sold)

    def __getitem__(self, i):
        x = {"history": self.history[i], "booked": self.booked[i]}
        return x, (self.sold[i], torch.ones(()))


class Forecaster(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(9, 32), nn.ReLU(), nn.Linear(32, 1))

    def forward(self, x):
        inputs = torch.cat([x["history"], x["booked"][:, None]], 1)
        return Output(prediction=self.net(inputs), attention=inputs.softmax(1))

    def loss(self, batch):
        x, (y, weight) = batch
        return (weight * (self(x).prediction[:, 0] - y).abs()).mean()

    def training_step(self, batch, batch_idx):
        return self.loss(batch)

    def validation_step(self, batch, batch_idx):
        self.log("val_loss", self.loss(batch))

    def configure_optimizers(self):
        optimizer = torch.optim.Adam(self.parameters(), lr=1e-2)
        scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=4)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "monitor": "val_loss"}}


def main():
    pl.seed_everything(0)
    train, val = DataLoader(Sales(1000, True, 0), 50, shuffle=True), DataLoader(Sales(500, True, 1), 100)
    trainer = pl.Trainer(max_epochs=6, accelerator="cpu", logger=CSVLogger("logs"))
    trainer.fit(Forecaster(), train, val)
    torch.save(trainer.model.state_dict(), "model.pt")


if __name__ == "__main__":
    main()
