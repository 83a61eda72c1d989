"""Digits from two scanners: ``python main.py fit --config config.yaml``."""

import torch
from lightning.pytorch import LightningDataModule, LightningModule
from lightning.pytorch.cli import LightningCLI
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics.classification import MulticlassAccuracy


class TwoScanners(LightningDataModule):
    """The second scanner has a dirty glass; validation is on both, training on the first."""

    def __init__(self, batch_size: int = 32, dirt: float = 0.6):
        super().__init__()
        self.save_hyperparameters()

    def setup(self, stage: str):
        digits = load_digits()
        images = torch.tensor(digits.images, dtype=torch.float32).flatten(1) / 16
        labels = torch.tensor(digits.target)
        order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
        train, clean, dirty = order[:997], order[997:1397], order[1397:]
        dirt = self.hparams.dirt * torch.rand(len(dirty), 64, generator=torch.Generator().manual_seed(1))
        self.train = TensorDataset(images[train], labels[train])
        self.clean = TensorDataset(images[clean], labels[clean])
        self.dirty = TensorDataset((images[dirty] + dirt).clamp(max=1), labels[dirty])

    def train_dataloader(self):
        return DataLoader(self.train, self.hparams.batch_size, shuffle=True)

    def val_dataloader(self):
        return [DataLoader(self.clean, 200), DataLoader(self.dirty, 200)]


class Classifier(LightningModule):
    def __init__(self, hidden: int = 64, lr: float = 1e-3):
        super().__init__()
        self.save_hyperparameters()
        self.net = nn.Sequential(nn.Linear(64, hidden), nn.ReLU(), nn.Linear(hidden, 10))
        self.criterion = nn.CrossEntropyLoss()
        self.accuracy = nn.ModuleList([MulticlassAccuracy(10, average="micro") for _ in range(2)])

    def training_step(self, batch, batch_idx):
        x, y = batch
        return self.criterion(self.net(x), y)

    def validation_step(self, batch, batch_idx, dataloader_idx=0):
        x, y = batch
        self.accuracy[dataloader_idx](self.net(x), y)
        self.log("val/acc", self.accuracy[dataloader_idx], on_epoch=True)

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=self.hparams.lr)


def cli_main():
    LightningCLI(Classifier, TwoScanners)


if __name__ == "__main__":
    cli_main()
