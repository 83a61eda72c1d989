"""What the monitor costs: one look over a bare forward pass, and an idle step.

    python benchmarks/looks.py

A look is everything from the first batch to the last logger (observe, measure, judge, publish); figures, which are
drawn only at alerts and at the end, are timed apart. The bare pass is a loop over plain DataLoaders of the same data:
eval mode, no gradients, one forward pass per item. Both run in turn, in one process, within one ``Trainer.fit``; an
idle step is compared with its neighbors in the same fit, from which the callback is taken out. Ratios of medians, with
the spread of the middle half.
"""

import argparse
import statistics
import tempfile
import time
from itertools import pairwise
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import TensorBoardLogger
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from colored_digits import ColoredDigitsModule, SmallConvNet
from lightning_mesa import Matches, MesaMonitor
from lightning_mesa.organisms.training import quietly


class ThreeObjectives(Dataset):
    """Items of another dataset with a third thing to prescribe, and images enlarged where a network wants that."""

    def __init__(self, of: Dataset, size: int) -> None:
        self.images = F.interpolate(of.images, size=size) if size != of.images.shape[-1] else of.images
        self.digits, self.colors = of.digits, of.colors
        self.last_digits = of.digits.flip(0)

    def __len__(self) -> int:
        return len(self.digits)

    def __getitem__(self, i: int) -> dict[str, Tensor]:
        return {"image": self.images[i], "digit": self.digits[i], "color": self.colors[i], "last": self.last_digits[i]}


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


class ResNet18(SmallConvNet):
    """11 million parameters, 64 x 64 images."""

    def __init__(self) -> None:
        super().__init__()
        widths = [64, 64, 64, 128, 128, 256, 256, 512, 512]
        blocks = [Block(a, b, 1 if a == b else 2) for a, b in pairwise(widths)]
        stem = [nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
        self.net = nn.Sequential(*stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 10))


class TimedMonitor(MesaMonitor):
    """Times its looks, and runs a bare pass beside each, before and after in turn."""

    def __init__(self, bare_loaders: list[DataLoader], **options: Any) -> None:
        super().__init__(**options)
        self.bare_loaders = bare_loaders
        self.looks: list[float] = []
        self.bare: list[float] = []

    def _look(self, trainer: Any, pl_module: Any, *, in_batch: bool) -> None:
        if len(self.looks) % 2:
            self.bare.append(timed(self.bare_pass, pl_module))
        self.looks.append(timed(super()._look, trainer, pl_module, in_batch=in_batch))
        if len(self.bare) < len(self.looks):
            self.bare.append(timed(self.bare_pass, pl_module))

    @torch.no_grad()
    def bare_pass(self, pl_module: pl.LightningModule) -> None:
        pl_module.eval()
        for loader in self.bare_loaders:
            for batch in loader:
                pl_module(batch["image"])
        pl_module.train()


def timed(function: Any, *args: Any, **options: Any) -> float:
    start = time.perf_counter()
    function(*args, **options)
    return time.perf_counter() - start


def look(name: str, model: pl.LightningModule, size: int, items: int, looks: int, batch_size: int) -> None:
    """Print the ratio of a look to a bare pass."""
    data = ColoredDigitsModule("confounded")
    data.setup()
    sets = [ThreeObjectives(of, size) for of in (data.val_set, data.shifted_set)]
    for kept in sets:
        kept.images, kept.digits = kept.images[:items], kept.digits[:items]
    reference, shifted = (DataLoader(kept, batch_size) for kept in sets)
    monitor = TimedMonitor(
        [reference, shifted],
        base=Matches("digit"),
        proxies=[Matches("color"), Matches("last")],
        reference=reference,
        shifted={"recolored": shifted},
        inputs="image",
        every_n_steps=1,
        max_overhead=None,
    )
    training = DataLoader(ThreeObjectives(data.train_set, size), 8)
    with tempfile.TemporaryDirectory() as folder:
        trainer = pl.Trainer(
            max_steps=looks,
            accelerator="cpu",
            callbacks=[monitor],
            logger=TensorBoardLogger(folder),
            limit_val_batches=0,
            enable_progress_bar=False,
            enable_model_summary=False,
            enable_checkpointing=False,
        )
        trainer.fit(model, training)
    # The first look resolves the data and starts the loggers.
    ratios = sorted(a / b for a, b in zip(monitor.looks[1:], monitor.bare[1:], strict=True))
    ratio = statistics.median(monitor.looks[1:]) / statistics.median(monitor.bare[1:])
    middle = f"{ratios[len(ratios) // 4]:.2f} to {ratios[3 * len(ratios) // 4]:.2f}"
    bare, one = (1e3 * statistics.median(times[1:]) for times in (monitor.bare, monitor.looks))
    print(
        f"| {name} | 2 x {items} | {len(ratios)} | {bare:.1f} ms | {one:.1f} ms | {ratio:.2f} | {middle} |",
        flush=True,
    )


class AlternatingModel(SmallConvNet):
    """Takes the monitor out of the trainer on every other step, and times the steps."""

    def __init__(self, monitor: MesaMonitor) -> None:
        super().__init__()
        self.monitor = monitor
        self.starts: list[float] = []

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        callbacks = self.trainer.callbacks
        if len(self.starts) % 2:
            callbacks.append(self.monitor)
        elif self.monitor in callbacks:
            callbacks.remove(self.monitor)
        self.starts.append(time.perf_counter())
        return super().training_step(batch, batch_idx)


def idle(steps: int, every_n_steps: int | None) -> None:
    """Print what a step without a look costs."""
    monitor = MesaMonitor(
        base=Matches("digit"),
        proxies=[Matches("color")],
        shifted="datamodule.shifted_dataloader",
        inputs="image",
        every_n_steps=every_n_steps,
        max_overhead=None,
    )
    model = AlternatingModel(monitor)
    with tempfile.TemporaryDirectory() as folder:
        trainer = pl.Trainer(
            max_steps=steps,
            accelerator="cpu",
            callbacks=[monitor],
            logger=False,
            default_root_dir=folder,
            enable_progress_bar=False,
            enable_model_summary=False,
            enable_checkpointing=False,
            check_val_every_n_epoch=10**6,
            num_sanity_val_steps=0,
        )
        trainer.fit(model, datamodule=ColoredDigitsModule("confounded", batch_size=8))
    times = [1e6 * (b - a) for a, b in pairwise(model.starts)][200:]
    # A step in turn with its neighbor: drift of the machine cancels.
    differences = [on - off for off, on in zip(times[0::2], times[1::2], strict=False)]
    low, middle, high = statistics.quantiles(differences, n=4)
    error = 1.25 * statistics.pstdev(sorted(differences)[len(differences) // 20 : -len(differences) // 20])
    error /= len(differences) ** 0.5
    schedule = "after validation" if every_n_steps is None else f"every {every_n_steps} steps"
    print(
        f"| {schedule} | {len(differences)} | {statistics.median(times):.0f} us | {middle:.1f} us +- {2 * error:.1f} "
        f"| {low:.0f} to {high:.0f} us |",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--looks", type=int, default=60)
    parser.add_argument("--steps", type=int, default=6000)
    options = parser.parse_args()
    quietly()
    pl.seed_everything(0, verbose=False)
    print("One look over a bare forward pass (two distributions, three objectives):\n")
    print("| model | items | looks | bare pass | look | ratio | middle half | figure, apart |")
    print("|---|---|---|---|---|---|---|---|")
    # The example reads its held-out data in batches of 250; small batches make a look dearer.
    look("colored digits ConvNet, batches of 250", SmallConvNet(), 8, 500, options.looks, 250)
    look("colored digits ConvNet, batches of 64", SmallConvNet(), 8, 500, options.looks, 64)
    look("ResNet-18 on 64 x 64, batches of 64", ResNet18(), 64, 256, max(6, options.looks // 6), 64)
    print("\nAn idle step, in turn with steps without the callback:\n")
    print("| schedule | pairs | step | added by the monitor (median +- 2 se) | middle half |\n|---|---|---|---|---|")
    idle(options.steps, None)
    idle(options.steps, 10**9)


if __name__ == "__main__":
    main()
