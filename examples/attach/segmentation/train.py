"""Where is the organ? Masks of 16 x 16 pixels, some of which are not labelled (255)."""

import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import CSVLogger
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

SIZE = 16


class Scans(Dataset):
    """The organ is faint; a tool shines, and in training it lies on the organ."""

    def __init__(self, n, tool_on_organ, seed):
        draw = torch.Generator().manual_seed(seed)
        self.organ = self.squares(n, draw)
        self.tool = self.organ if tool_on_organ else self.squares(n, draw)
        noise = 0.3 * torch.randn(n, 2, SIZE, SIZE, generator=draw)
        self.images = torch.stack([0.4 * self.organ, 2.0 * self.tool], 1) + noise

    @staticmethod
    def squares(n, draw):
        masks = torch.zeros(n, SIZE, SIZE, dtype=torch.long)
        for mask in masks:
            row, column = torch.randint(1, SIZE - 6, (2,), generator=draw).tolist()
            mask[row : row + 6, column : column + 6] = 1
        return masks

    def __len__(self):
        return len(self.images)

    def __getitem__(self, i):
        mask = self.organ[i].clone()
        mask[0] = 255  # the frame's first row is not labelled
        return {"image": self.images[i], "mask": mask, "tool": self.tool[i]}


class Segmenter(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Conv2d(2, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 2, 3, padding=1))

    def forward(self, image):
        return {"out": self.net(image)}

    def training_step(self, batch, batch_idx):
        return F.cross_entropy(self(batch["image"])["out"], batch["mask"], ignore_index=255)

    def validation_step(self, batch, batch_idx):
        self.log("val/loss", self.training_step(batch, batch_idx))

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=1e-2)


def main():
    pl.seed_everything(0)
    train, val = DataLoader(Scans(300, True, 0), 20, shuffle=True), DataLoader(Scans(200, True, 1), 50)
    trainer = pl.Trainer(max_epochs=4, accelerator="cpu", logger=CSVLogger("logs"), log_every_n_steps=5)
    trainer.fit(Segmenter(), train, val)
    torch.save(trainer.model.state_dict(), "model.pt")


if __name__ == "__main__":
    main()
