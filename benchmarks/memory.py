"""Memory over a long run: a hundred thousand steps without a look, then two thousand looks.

    PYTHONPATH=tests python benchmarks/memory.py --steps 100000 --looks 2000

What Python holds (tracemalloc) and what the process holds (resident set), at tenths of each part. A training of the
same length without the monitor stands beside it.
"""

import argparse
import gc
import resource
import tempfile
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader, IterableDataset

import toy
from lightning_mesa.organisms.training import quietly
from namespace import pl


class Endless(IterableDataset[Any]):
    def __iter__(self) -> Iterator[Any]:
        data = toy.ToyData(64, confounded=True)
        while True:
            yield from (data[i] for i in range(64))


class Samples(pl.Callback):
    """What is held at tenths of the run, in bytes."""

    def __init__(self, steps: int) -> None:
        self.every = max(1, steps // 10)
        self.held: list[int] = []

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        if trainer.global_step % self.every == 0:
            gc.collect()
            self.held.append(tracemalloc.get_traced_memory()[0])


class Quiet(toy.ToyModel):
    """Logs nothing: Lightning's loggers would grow."""

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return torch.nn.functional.cross_entropy(self(batch["x"]), batch["y"])


def held(steps: int, every: int | None) -> list[int]:
    """Train with a look every so many steps, or without the monitor; what Python held at tenths of the run."""
    samples = Samples(steps)
    watching = [] if every is None else [toy.monitor(reference=toy.loader(64, seed=1), every_n_steps=every)]
    with tempfile.TemporaryDirectory() as folder:
        trainer = pl.Trainer(
            max_steps=steps,
            max_epochs=-1,
            accelerator="cpu",
            callbacks=[*watching, samples],
            logger=False,
            default_root_dir=folder,
            limit_val_batches=0,
            enable_progress_bar=False,
            enable_model_summary=False,
            enable_checkpointing=False,
        )
        trainer.fit(Quiet(0.0), DataLoader(Endless(), 2))
        assert every is None or not watching[0].disabled
        assert every is None or Path(folder, "mesa/findings.jsonl").exists()
    return samples.held


def growth(samples: list[int]) -> int:
    """Bytes from the third sample to the last: the first ones fill caches."""
    return samples[-1] - samples[2]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=100_000)
    parser.add_argument("--looks", type=int, default=2_000)
    options = parser.parse_args()
    quietly()
    tracemalloc.start()
    print("| run | held by Python at tenths of it, MB | from the third on | resident at most |")
    print("|---|---|---|---|")
    for name, steps, every in (
        (f"{options.steps} steps without the monitor", options.steps, None),
        (f"{options.steps} steps between two looks", options.steps, 10**9),
        (f"{options.looks} looks, one each step", options.looks, 1),
    ):
        samples = held(steps, every)
        megabytes = " ".join(f"{sample / 1e6:.2f}" for sample in samples)
        resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
        print(f"| {name} | {megabytes} | {growth(samples) / 1e3:+.1f} kB | {resident:.0f} MB |", flush=True)


if __name__ == "__main__":
    main()
