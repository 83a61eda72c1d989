"""Digits on colored paper: ``python train.py trainer.max_epochs=20``."""

from typing import Any

import hydra
import pytorch_lightning as pl
import torch
from omegaconf import DictConfig
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, Dataset


class PaperDigits(Dataset):
    """Dict items: image [3, 8, 8], label, paper. Most of a class is on paper of its own color."""

    def __init__(self, images, labels, own_share, seed):
        draw = torch.Generator().manual_seed(seed)
        own = torch.rand(len(labels), generator=draw) < own_share
        self.paper = torch.where(own, labels, torch.randint(10, labels.shape, generator=draw))
        colors = torch.rand(10, 3, generator=torch.Generator().manual_seed(0))
        self.images = colors[self.paper][:, :, None, None] * (1 - images[:, None])
        self.labels = labels

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, i):
        return {"image": self.images[i], "label": self.labels[i], "paper": self.paper[i]}


class PaperDataModule(pl.LightningDataModule):
    def __init__(self, batch_size: int = 64, own_share: float = 0.9):
        super().__init__()
        self.save_hyperparameters(logger=False)

    def setup(self, stage=None):
        digits = load_digits()
        images, labels = torch.tensor(digits.images, dtype=torch.float32) / 16, torch.tensor(digits.target)
        self.data_train = PaperDigits(images[:900], labels[:900], self.hparams.own_share, seed=0)
        self.data_val = PaperDigits(images[900:], labels[900:], self.hparams.own_share, seed=1)

    def train_dataloader(self):
        return DataLoader(self.data_train, self.hparams.batch_size, shuffle=True)

    def val_dataloader(self):
        return DataLoader(self.data_val, 256)


class PaperClassifier(pl.LightningModule):
    def __init__(self, net: nn.Module, optimizer: Any):
        super().__init__()
        self.save_hyperparameters(logger=False, ignore=["net"])
        self.net = net

    def forward(self, x):
        return self.net(x)

    def training_step(self, batch, batch_idx):
        loss = nn.functional.cross_entropy(self(batch["image"]), batch["label"])
        self.log("train/loss", loss)
        return loss

    def validation_step(self, batch, batch_idx):
        self.log("val/acc", (self(batch["image"]).argmax(1) == batch["label"]).float().mean())

    def configure_optimizers(self):
        return self.hparams.optimizer(params=self.parameters())


class SmallNet(nn.Sequential):
    def __init__(self, width: int = 16):
        super().__init__(
            nn.Conv2d(3, width, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(width * 16, 10)
        )


@hydra.main(version_base="1.3", config_path="configs", config_name="train.yaml")
def main(cfg: DictConfig):
    pl.seed_everything(cfg.seed, workers=True)
    datamodule = hydra.utils.instantiate(cfg.data)
    model = hydra.utils.instantiate(cfg.model)
    callbacks = [hydra.utils.instantiate(callback) for callback in cfg.callbacks.values() if "_target_" in callback]
    trainer = hydra.utils.instantiate(cfg.trainer, callbacks=callbacks)
    trainer.fit(model=model, datamodule=datamodule)


if __name__ == "__main__":
    main()
