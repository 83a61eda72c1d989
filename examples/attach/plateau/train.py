"""Two kinds of fruit in a tray, as the Hydra template for Lightning has it: ``python train.py optimizer.lr=0.01``."""

import hydra
import pytorch_lightning as pl
import torch
from omegaconf import DictConfig
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


def fruit(n, same_tray, seed):
    """Images [n, 3, 8, 8] and labels [n]: the fruit is one of four shapes, and most trays have its own color."""
    draw = torch.Generator().manual_seed(seed)
    label = torch.randint(4, (n,), generator=draw)
    tray = torch.where(torch.rand(n, generator=draw) < same_tray, label, torch.randint(4, (n,), generator=draw))
    image = 0.3 * torch.rand(n, 3, 8, 8, generator=draw)
    colors = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [1.0, 1.0, 0.0]])
    image[:, :, 6:] += colors[tray][:, :, None, None]
    for i, (row, column) in enumerate([(0, 0), (0, 4), (3, 0), (3, 4)]):
        image[label == i, :, row : row + 3, column : column + 3] += 0.15
    return TensorDataset(image, label)


class FruitData(pl.LightningDataModule):
    def __init__(self, batch_size: int = 64):
        super().__init__()
        self.save_hyperparameters(logger=False)

    def setup(self, stage=None):
        self.data_train, self.data_val, self.data_test = (fruit(n, 1.0, i) for i, n in enumerate((1000, 500, 500)))

    def train_dataloader(self):
        return DataLoader(self.data_train, self.hparams.batch_size, shuffle=True)

    def val_dataloader(self):
        return DataLoader(self.data_val, 250)

    def test_dataloader(self):
        return DataLoader(self.data_test, 250)


class FruitModule(pl.LightningModule):
    def __init__(self, net: nn.Module, optimizer, scheduler):
        super().__init__()
        self.save_hyperparameters(logger=False, ignore=["net"])
        self.net = net

    def forward(self, x):
        return self.net(x)

    def model_step(self, batch):
        x, y = batch
        logits = self(x)
        return nn.functional.cross_entropy(logits, y), (logits.argmax(1) == y).float().mean()

    def training_step(self, batch, batch_idx):
        loss, accuracy = self.model_step(batch)
        self.log("train/acc", accuracy, on_step=False, on_epoch=True)
        return loss

    def validation_step(self, batch, batch_idx):
        loss, accuracy = self.model_step(batch)
        self.log("val/loss", loss)
        self.log("val/acc", accuracy)

    def configure_optimizers(self):
        optimizer = self.hparams.optimizer(params=self.parameters())
        scheduler = self.hparams.scheduler(optimizer=optimizer)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "monitor": "val/loss"}}


class SmallNet(nn.Sequential):
    def __init__(self, width: int = 32):
        super().__init__(nn.Flatten(), nn.Linear(192, width), nn.ReLU(), nn.Linear(width, 4))


@hydra.main(version_base="1.3", config_path="configs", config_name="train.yaml")
def main(cfg: DictConfig):
    pl.seed_everything(cfg.seed, workers=True)
    datamodule, model = hydra.utils.instantiate(cfg.data), hydra.utils.instantiate(cfg.model)
    trainer = hydra.utils.instantiate(cfg.trainer)
    trainer.fit(model=model, datamodule=datamodule)
    torch.save(model.state_dict(), f"{cfg.trainer.default_root_dir}/model.pt")


if __name__ == "__main__":
    main()
