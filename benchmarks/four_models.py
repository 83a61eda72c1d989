"""Four small models that are measured, items for them, and how long a fit takes."""

import tempfile
import time
from collections.abc import Callable
from itertools import pairwise

import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

CLASSES = 10


class Items(Dataset):
    """Items of a model's input, with a label and four other things to prescribe, and two keys of groups."""

    def __init__(self, n: int, make: Callable[[Tensor], Tensor], seed: int) -> None:
        draw = torch.Generator().manual_seed(seed)
        self.targets = torch.randint(CLASSES, (n, 5), generator=draw)
        self.x = make(self.targets[:, 0])

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, i: int) -> dict[str, Tensor]:
        return {"x": self.x[i], "group": self.targets[i, 3] % 3, "kind": self.targets[i, 4] % 2} | {
            f"t{j}": self.targets[i, j] for j in range(5)
        }


class Model(pl.LightningModule):
    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        return F.cross_entropy(self(batch["x"]), batch["t0"])

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        self.log("val/loss", F.cross_entropy(self(batch["x"]), batch["t0"]))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=1e-4)


class Encoder(nn.Module):
    """A transformer over tokens or patches; the answer is read from the mean or the last place."""

    def __init__(self, embed: nn.Module, places: int, width: int, layers: int, causal: bool) -> None:
        super().__init__()
        self.embed, self.causal = embed, causal
        self.places = nn.Parameter(torch.randn(places, width) * 0.02)
        layer = nn.TransformerEncoderLayer(width, 4, 4 * width, 0.0, batch_first=True)
        self.body = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.head = nn.Linear(width, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x) + self.places
        mask = nn.Transformer.generate_square_subsequent_mask(x.shape[1], device=x.device) if self.causal else None
        x = self.body(x, mask, is_causal=self.causal)
        return self.head(x[:, -1] if self.causal else x.mean(1))


class Patches(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.cut = nn.Conv2d(3, width, 8, 8)

    def forward(self, x: Tensor) -> Tensor:
        return self.cut(x).flatten(2).transpose(1, 2)


class Block(nn.Module):
    """The basic block of ResNet-18 (He et al. 2016)."""

    def __init__(self, channels: int, out: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, out, 3, stride, 1, bias=False),
            nn.BatchNorm2d(out),
            nn.ReLU(),
            nn.Conv2d(out, out, 3, 1, 1, bias=False),
            nn.BatchNorm2d(out),
        )
        same = stride == 1 and channels == out
        self.skip = nn.Identity() if same else nn.Conv2d(channels, out, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.body(x) + self.skip(x))


def resnet18() -> nn.Module:
    """11 million parameters, for images of 3 x 32 x 32 and larger."""
    widths = [64, 64, 64, 128, 128, 256, 256, 512, 512]
    blocks = [Block(a, b, 1 if a == b else 2) for a, b in pairwise(widths)]
    stem = [nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
    return nn.Sequential(*stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 10))


def images(size: int) -> Callable[[Tensor], Tensor]:
    return lambda labels: torch.randn(len(labels), 3, size, size)


# Name -> what builds the network, and its inputs from labels.
MODELS: dict[str, tuple[Callable[[], nn.Module], Callable[[Tensor], Tensor]]] = {
    "MLP 256-512-512-10": (
        lambda: nn.Sequential(
            *[nn.Linear(256, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, CLASSES)]
        ),
        lambda labels: torch.randn(len(labels), 256),
    ),
    "ResNet-18, 32 x 32": (resnet18, images(32)),
    "ViT, 4 layers of 96, 64 patches": (lambda: Encoder(Patches(96), 64, 96, 4, causal=False), images(64)),
    "GPT, 3 layers of 96, 64 tokens": (
        lambda: Encoder(nn.Embedding(512, 96), 64, 96, 3, causal=True),
        lambda labels: torch.randint(512, (len(labels), 64)),
    ),
}

# The blocks of each.
BLOCKS = {
    "MLP 256-512-512-10": "net.*",
    "ResNet-18, 32 x 32": "net.*",
    "ViT, 4 layers of 96, 64 patches": "net.body.layers.*",
    "GPT, 3 layers of 96, 64 tokens": "net.body.layers.*",
}


def seconds_of_fit(
    model: pl.LightningModule,
    train: DataLoader,
    held_out: DataLoader,
    steps: int,
    every: int,
    *callbacks: pl.Callback,
    loggers: int = 1,
    device: str = "cpu",
) -> float:
    """Wall clock of a training with validations, TensorBoard and perhaps a second logger.

    Args:
        every: Steps between validations.
        loggers: 1 or 2.
    """
    with tempfile.TemporaryDirectory() as folder:
        trainer = pl.Trainer(
            max_steps=steps,
            max_epochs=-1,
            check_val_every_n_epoch=None,
            val_check_interval=every,
            accelerator=device,
            devices=1,
            callbacks=[*callbacks],
            logger=[TensorBoardLogger(folder), CSVLogger(folder)][:loggers],
            enable_progress_bar=False,
            enable_model_summary=False,
            enable_checkpointing=False,
            num_sanity_val_steps=0,
        )
        started = time.perf_counter()
        trainer.fit(model, train, held_out)
        return time.perf_counter() - started
