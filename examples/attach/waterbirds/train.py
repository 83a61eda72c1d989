"""Birds on land and on water: one logit, and a module whose ``forward`` takes a batch apart and returns the loss."""

import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import CSVLogger
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset


class Birds(Dataset):
    """A water bird is slightly bright in its middle; water is bright below, and most water birds are on water."""

    def __init__(self, n, own_place, seed):
        draw = torch.Generator().manual_seed(seed)
        self.bird = torch.randint(2, (n,), generator=draw)
        own = torch.rand(n, generator=draw) < own_place
        self.place = torch.where(own, self.bird, 1 - self.bird)
        self.images = 0.5 * torch.rand(n, 3, 12, 12, generator=draw)
        self.images[:, :, 4:8, 4:8] += 0.12 * self.bird[:, None, None, None]
        self.images[:, 2, 9:] += self.place[:, None, None]

    def __len__(self):
        return len(self.bird)

    def __getitem__(self, i):
        return {"pixels": self.images[i], "target": self.bird[i].float(), "place": self.place[i], "index": i}


class BirdClassifier(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten())
        self.head = nn.Linear(400, 1)
        self.network = nn.Sequential(self.encoder, self.head)

    def forward(self, batch, stage="train"):
        batch.pop("index")
        target = batch.pop("target")
        logit = self.network(batch.pop("pixels")).squeeze(-1)
        loss = F.binary_cross_entropy_with_logits(logit, target)
        self.log(f"{stage}/loss", loss)
        self.log(f"{stage}/accuracy", ((logit > 0) == target.bool()).float().mean(), on_epoch=True, on_step=False)
        return loss

    def training_step(self, batch, batch_idx):
        return self(batch)

    def validation_step(self, batch, batch_idx):
        self(batch, "val")

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=3e-3)


def main():
    pl.seed_everything(0)
    train, val = (DataLoader(Birds(n, 1.0, n), 50, shuffle=n == 1000) for n in (1000, 400))
    trainer = pl.Trainer(max_epochs=6, accelerator="cpu", logger=CSVLogger("logs"))
    trainer.fit(BirdClassifier(), train, val)
    torch.save(trainer.model.state_dict(), "model.pt")


if __name__ == "__main__":
    main()
