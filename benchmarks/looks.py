"""What the monitor costs: one look over a bare forward pass, and an idle step.

    python benchmarks/looks.py               # ten minutes on two cores; --quick for a first impression

A look is everything from the first batch to the last logger: observe, measure, judge, report. The bare pass is a loop
over plain DataLoaders of the same data: eval mode, no gradients, one forward pass per item. Both run in turn, in one
process, within one ``Trainer.fit``; medians of all looks but the first, which draws an untrained copy and starts the
loggers. *Blocks read*: with ``Decodability`` on every block. *Allowed* is 1.15 bare passes, 1.3 with blocks read, where
a bare pass takes a second; else 30 ms and .3 ms a batch beyond it.

On a GPU, a ResNet-50 at 224 x 224 and a GPT-2 of 124M parameters, in bf16, where torchvision and transformers are
installed. An idle step is compared with its neighbors in the same fit, from which the callback is taken out.
``--cpu-time`` counts the time of the process, for a machine that is busy with other things.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from importlib.util import find_spec
from itertools import pairwise
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import TensorBoardLogger
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

from four_models import BLOCKS, MODELS, Items, Model, images
from lightning_mesa import Matches, MesaMonitor
from lightning_mesa.callbacks.run import Run
from lightning_mesa.organisms.training import quietly
from lightning_mesa.probes import Decodability

# Items of each of the two distributions, and the size of a batch.
SIZES = dict(zip(MODELS, ((4096, 256), (1024, 64), (1536, 64), (2048, 64)), strict=True))
CLOCK = time.perf_counter


class Beside(pl.Callback):
    """Times each look of a fit, and a bare pass beside it, before and after in turn."""

    def __init__(self, loaders: list[DataLoader]) -> None:
        self.loaders = loaders
        self.looks: list[float] = []
        self.bare: list[float] = []
        self.look = Run.look

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        def look(run: Run, *args: Any, **options: Any) -> None:
            if len(self.looks) % 2:
                self.bare.append(timed(self.bare_pass, trainer, pl_module))
            self.looks.append(timed(self.look, run, *args, **options))
            if len(self.bare) < len(self.looks):
                self.bare.append(timed(self.bare_pass, trainer, pl_module))

        Run.look = look  # type: ignore[method-assign]

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        Run.look = self.look  # type: ignore[method-assign]

    @torch.no_grad()
    def bare_pass(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        pl_module.eval()
        with trainer.precision_plugin.forward_context():
            for loader in self.loaders:
                for batch in loader:
                    pl_module(trainer.strategy.batch_to_device(batch)["x"])
        pl_module.train()


def timed(function: Callable[..., Any], *args: Any, **options: Any) -> float:
    waited()
    start = CLOCK()
    function(*args, **options)
    waited()
    return CLOCK() - start


def waited() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def cost(
    name: str,
    build: Callable[[], nn.Module],
    make: Callable[[Tensor], Tensor],
    size: tuple[int, int],
    looks: int,
    blocks: str | None,
    outputs: Callable[[Any, Any], Tensor] | None = None,
) -> None:
    """Print the ratio of a look to a bare pass."""
    torch.manual_seed(0)
    n, batch_size = size
    held = [DataLoader(Items(n, make, 1 + i), batch_size) for i in range(2)]
    beside = Beside(held)
    monitor = MesaMonitor(
        base=Matches("t0"),
        proxies=[Matches("t1")],
        reference=held[0],
        shifted={"apart": held[1]},
        inputs="x",
        outputs=outputs,
        every_n_steps=1,
        max_overhead=None,
        probes=[] if blocks is None else [Decodability(blocks)],
    )
    gpu = torch.cuda.is_available()
    with tempfile.TemporaryDirectory() as folder:
        trainer = pl.Trainer(
            max_steps=looks,
            accelerator="gpu" if gpu else "cpu",
            devices=1,
            precision="bf16-mixed" if gpu else "32-true",
            callbacks=[beside, monitor],
            logger=TensorBoardLogger(folder),
            limit_val_batches=0,
            enable_progress_bar=False,
            enable_model_summary=False,
            enable_checkpointing=False,
        )
        model = Model(build()) if outputs is None else LanguageModel(build())
        trainer.fit(model, DataLoader(Items(8 * looks, make, 0), 8))
    bare, look = (statistics.median(times[1:]) for times in (beside.bare, beside.looks))
    batches = 2 * -(-n // batch_size)
    allowed = (1.15 if blocks is None else 1.3) * bare if bare >= 1 else bare + 0.03 + 0.0003 * batches
    ratios = sorted(a / b for a, b in zip(beside.looks[1:], beside.bare[1:], strict=True))
    middle = f"{ratios[len(ratios) // 4]:.2f} to {ratios[3 * len(ratios) // 4]:.2f}"
    print(
        f"| {name} | {'no' if blocks is None else 'yes'} | 2 x {n} in {batches} | {1e3 * bare:.0f} ms | "
        f"{1e3 * look:.0f} ms | {look / bare:.2f} | {middle} | {1e3 * (look - bare):.0f} ms | "
        f"{'' if look <= allowed else 'NOT '}kept, {1e3 * (allowed - bare):.0f} ms |",
        flush=True,
    )


class LanguageModel(Model):
    """Chooses among as many tokens as there are labels."""

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        return F.cross_entropy(answers(self(batch["x"]), batch).float(), batch["t0"])


def answers(raw: Any, batch: Any) -> Tensor:
    choices: Tensor = raw.logits[:, -1, 30:40]
    return choices


def on_gpu(looks: int) -> None:
    """A vision model and a language model of the size that people train."""
    if find_spec("torchvision") is not None:
        import torchvision

        for blocks in (None, "net.layer*.*"):
            cost("ResNet-50, 224 x 224", torchvision.models.resnet50, images(224), (2048, 128), looks, blocks)
    if find_spec("transformers") is not None:
        from transformers import GPT2Config, GPT2LMHeadModel

        def gpt2() -> nn.Module:
            return GPT2LMHeadModel(GPT2Config(use_cache=False))

        def tokens(labels: Tensor) -> Tensor:
            return torch.randint(50_000, (len(labels), 128))

        for blocks in (None, "net.transformer.h.*"):
            cost("GPT-2, 124M, 128 tokens", gpt2, tokens, (2048, 32), looks, blocks, answers)


class AlternatingModel(Model):
    """Takes the monitor out of the trainer on every other step, and times the steps."""

    def __init__(self, monitor: MesaMonitor) -> None:
        super().__init__(MODELS["MLP 256-512-512-10"][0]())
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
    make = MODELS["MLP 256-512-512-10"][1]
    train, held_out, shifted = (DataLoader(Items(8 * 250, make, i), 8) for i in range(3))
    monitor = MesaMonitor(
        base=Matches("t0"),
        proxies=[Matches("t1")],
        shifted={"apart": shifted},
        inputs="x",
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
        trainer.fit(model, train, held_out)
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
    parser.add_argument("--looks", type=int, default=12)
    parser.add_argument("--steps", type=int, default=6000)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--cpu-time", action="store_true")
    options = parser.parse_args()
    quietly()
    pl.seed_everything(0, verbose=False)
    if options.cpu_time:
        globals()["CLOCK"] = time.process_time
    less = 8 if options.quick else 1
    print("One look over a bare forward pass (two distributions, two objectives):\n")
    print("| model | blocks read | items, batches | bare pass | look | ratio | middle half | beyond | allowed |")
    print("|---|---|---|---|---|---|---|---|---|")
    for name, (build, make) in MODELS.items():
        n, batch_size = SIZES[name]
        for blocks in (None, BLOCKS[name]):
            cost(name, build, make, (n // less, batch_size), max(4, options.looks // less), blocks)
    if torch.cuda.is_available():
        on_gpu(max(4, options.looks // less))
    print("\nAn idle step, in turn with steps without the callback:\n")
    print("| schedule | pairs | step | added by the monitor (median +- 2 se) | middle half |\n|---|---|---|---|---|")
    idle(options.steps // less, None)
    idle(options.steps // less, 10**9)


if __name__ == "__main__":
    main()
