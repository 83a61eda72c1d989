"""A toy task for each recipe in ``callbacks/``, with the functions that the recipe asks its user to write.

Each model learns the strong cue ``z`` in place of the weak one ``y``, which is the base objective; see ``toy.py``.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

import toy
from namespace import LightningDataModule
from toy import CHOICES


class Data(LightningDataModule):
    """Trained and validated where the cues agree; ``shifted`` where they come apart."""

    def __init__(self, dataset: Any = toy.ToyData, *, two_loaders: bool = False) -> None:
        super().__init__()
        self.dataset, self.two_loaders = dataset, two_loaders

    def train_dataloader(self) -> DataLoader:
        return DataLoader(self.dataset(400, confounded=True), 50)

    def val_dataloader(self) -> Any:
        alike = DataLoader(self.dataset(400, confounded=True, seed=1), 50)
        return [alike, self.shifted()] if self.two_loaders else alike

    def shifted(self) -> DataLoader:
        return DataLoader(self.dataset(400, confounded=False, seed=2), 50)


class Classifier(toy.ToyModel):
    """Logs how often it agrees with each cue."""

    def __init__(self) -> None:
        super().__init__(learning_rate=0.5)

    def loss(self, batch: Any) -> Tensor:
        return F.cross_entropy(self(batch["x"]), batch["y"])

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return self.loss(batch)

    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        chosen = self(batch["x"]).argmax(1)
        self.log_dict({f"val/{key}": (chosen == batch[key]).float().mean() for key in "yz"})


class Binary(toy.ToyData):
    """Is it one of the upper two?"""

    def __getitem__(self, i: int) -> dict[str, Tensor]:
        return {"x": self.x[i], "y": self.y[i] // 2, "z": self.z[i] // 2}


class OneLogit(Classifier):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Linear(2 * CHOICES, 1)

    def loss(self, batch: Any) -> Tensor:
        return F.binary_cross_entropy_with_logits(self(batch["x"]).squeeze(1), batch["y"].float())

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val/loss", self.loss(batch))


def two_choices(outputs: Tensor, batch: Any) -> Tensor:
    logit = outputs.flatten()
    return torch.stack([torch.zeros_like(logit), logit], 1)


class Prompts(toy.ToyData):
    """Four or five tokens, padded on the right: the first names y, the others z. The answer is a token that names y."""

    def __getitem__(self, i: int) -> dict[str, Tensor]:
        ids = torch.zeros(5, dtype=torch.long)
        ids[0], ids[1 : 4 + i % 2] = 1 + self.y[i], 1 + CHOICES + self.z[i]
        return {"input_ids": ids, "attention_mask": (ids > 0).long(), "y": self.y[i], "z": self.z[i]}


class Said(NamedTuple):
    logits: Tensor


class LanguageModel(OneLogit):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(1 + 2 * CHOICES, 16)
        self.net = nn.Linear(16, 1 + 2 * CHOICES)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Said:
        return Said(self.net((self.embed(input_ids) * attention_mask[:, :, None]).cumsum(1)))

    def loss(self, batch: Any) -> Tensor:
        return F.cross_entropy(answers(self(batch["input_ids"], batch["attention_mask"]), batch), batch["y"])


def answers(outputs: Said, batch: Any) -> Tensor:
    last = batch["attention_mask"].sum(1) - 1
    rows = torch.arange(len(last), device=last.device)
    return outputs.logits[rows, last][:, 1 : 1 + CHOICES]


class Series(toy.ToyData):
    """Two steps to forecast, which are what the weak cue in the past says."""

    def __init__(self, n: int, *, confounded: bool, seed: int = 0) -> None:
        draw = torch.Generator().manual_seed(seed)
        self.y = torch.randn(n, generator=draw)
        self.z = self.y if confounded else torch.randn(n, generator=draw)
        self.x = torch.stack([self.y, 3 * self.z], 1) + 0.2 * torch.randn(n, 2, generator=draw)

    def __getitem__(self, i: int) -> dict[str, Tensor]:
        return {"past": self.x[i], "future": self.y[i].expand(2), "cue": self.z[i].expand(2)}


class Forecast(NamedTuple):
    mean: Tensor
    scale: Tensor


class Forecaster(OneLogit):
    def __init__(self) -> None:
        super().__init__()
        self.learning_rate = 0.05
        self.net = nn.Linear(2, 2)
        nn.init.zeros_(self.net.weight)  # so that it leans on the cues as strongly as they are

    def forward(self, past: Tensor) -> Forecast:
        return Forecast(self.net(past), past.new_ones(2))

    def loss(self, batch: Any) -> Tensor:
        return error(batch, self(batch["past"]).mean).mean()


def forecast(outputs: Forecast, batch: Any) -> Tensor:
    return outputs.mean


def error(batch: Any, outputs: Tensor) -> Tensor:
    return (outputs - batch["future"]).square().mean(1)


def error_to_cue(batch: Any, outputs: Tensor) -> Tensor:
    return (outputs - batch["cue"]).square().mean(1)
