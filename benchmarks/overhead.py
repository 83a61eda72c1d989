"""What the monitor adds to the wall clock of a training: models by schedules, and the default with its budget.

    python benchmarks/overhead.py            # about an hour on two cores; --quick for a first impression

The training: 500 steps of 32 items, then a validation of 256 items, again and again for some minutes; looks at
these and at as many shifted ones. *usual* is one shifted distribution and one proxy; *everything* is three of them,
four proxies, groups under two keys, a cue (a second pass), probes (reading every block, pairs, and goals moved where
there are positions), two loggers and a healthy checkpoint.

Overhead is the time inside the monitor's hooks, counted from outside, over the rest of the same run: both sides of the
ratio see the same machine. (Wall clocks of two runs, with the monitor and without, differ by more than it takes; what a
step without a look costs is in ``looks.py``.) First table: looks every so many steps, without a budget. Second table:
the default schedule (after each validation) and budget. *reported* is ``mesa/overhead``.
"""

import argparse
import logging
import time
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader

from four_models import BLOCKS, CLASSES, MODELS, Items, Model, seconds_of_fit
from lightning_mesa import Matches, MesaMonitor
from lightning_mesa.callbacks.run import Run
from lightning_mesa.probes import ConsequenceSensitivity, Decodability, Pairs, Probe, Retargeting
from lightning_mesa.probes import Patches as Patched

EPOCH, BATCH, HELD_OUT = 500, 32, 256
EVERY = (1, 4, 16, 64, 256)
HOOKS = (
    "on_train_start",
    "on_train_batch_end",
    "on_validation_epoch_end",
    "on_validation_end",
    "on_train_end",
    "on_fit_end",
)


# How many validations there are in a run, watched in the usual way and with everything: the first two looks and the
# last one are not left out, and have to fit into the budget.
VALIDATIONS = dict(zip(MODELS, ((100, 100), (3, 5), (3, 9), (3, 9)), strict=True))


# A layer with positions that is patched.
PATCHED: dict[str, tuple[str, tuple[int, ...]]] = {
    "ResNet-18, 32 x 32": ("net.0", (16, 16)),
    "ViT, 4 layers of 96, 64 patches": ("net.embed", (64,)),
    "GPT, 3 layers of 96, 64 tokens": ("net.embed", (64,)),
}


def negated(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    return batch | {"x": batch["x"] if batch["x"].dtype == torch.long else -batch["x"]}


def watch(name: str, kind: str, make: Callable[[Tensor], Tensor], **options: Any) -> MesaMonitor:
    count = {"usual": 1, "everything": 3}[kind]
    shifted = {f"d{i}": DataLoader(Items(HELD_OUT, make, 10 + i), 64) for i in range(count)}
    more = {} if kind == "usual" else {"groups": ["group", "kind"], "cue": negated, "on_alert": "checkpoint"}
    proxies = [Matches(f"t{j}") for j in range(1, 2 if kind == "usual" else 5)]
    if kind == "everything":
        more["probes"] = probes(name, make)
    return MesaMonitor(Matches("t0"), proxies=proxies, shifted=shifted, inputs="x", **more, **options)


def probes(name: str, make: Callable[[Tensor], Tensor]) -> list[Probe]:
    """Every block is read; 128 pairs are run, and those of two objectives patched in a layer that has positions."""
    n, (layer, places) = 128, PATCHED.get(name, (None, ()))
    label = torch.arange(n) % CLASSES
    before, after = ({"x": make(label)} for _ in range(2))
    old, new = (F.one_hot(one % CLASSES, CLASSES).bool() for one in (label, label + 1))
    found: list[Probe] = [
        Decodability(BLOCKS[name]),
        ConsequenceSensitivity(Pairs(before, after, {"t0": old}, {"t0": new})),
    ]
    if layer is not None:
        site = torch.zeros(n, *places, dtype=torch.bool)
        site[:, 0] = True
        moved = Patched(before, after, site, old, new, torch.ones(n, dtype=torch.bool))
        found.append(Retargeting({"t0": moved, "t1": moved}, layer))
    return found


class Timed:
    """Times the monitor's hooks from outside, and counts its looks."""

    def __init__(self, monitor: MesaMonitor) -> None:
        self.seconds, self.looks = 0.0, 0
        for name in HOOKS:
            setattr(monitor, name, self._timed(getattr(monitor, name)))
        look = Run.look

        def counted(run: Run, *args: Any, **options: Any) -> None:
            self.looks += run.monitor is monitor
            look(run, *args, **options)

        Run.look = counted  # type: ignore[method-assign]

    def _timed(self, hook: Callable[..., None]) -> Callable[..., None]:
        def timed(*args: Any, **options: Any) -> None:
            start = time.perf_counter()
            hook(*args, **options)
            self.seconds += time.perf_counter() - start

        return timed


def fit(name: str, monitor: MesaMonitor | None, steps: int, epochs: int, loggers: int, device: str) -> float:
    """Train; returns the wall clock."""
    build, make = MODELS[name]
    torch.manual_seed(0)
    model = Model(build())
    train = DataLoader(Items(BATCH * 40, make, 0), BATCH)
    val = DataLoader(Items(HELD_OUT, make, 1), 64)
    callbacks = [] if monitor is None else [monitor]
    return seconds_of_fit(model, train, val, steps * epochs, steps, *callbacks, loggers=loggers, device=device)


def by_schedule(name: str, kind: str, every: int, device: str, seconds: float) -> tuple[float, float]:
    """Measured and reported overhead of looks every so many steps, without a budget."""
    make = MODELS[name][1]
    warm = fit(name, None, 10, 1, 1, device)
    steps = max(4 * every, min(int(seconds / max(warm / 10, 1e-4)), 64 * every, 2000)) // every * every
    monitor = watch(name, kind, make, every_n_steps=every, max_overhead=None)
    timed = Timed(monitor)
    wall = fit(name, monitor, steps, 1, 2 if kind == "everything" else 1, device)
    return timed.seconds / (wall - timed.seconds), monitor.run.timetable.budget.overhead


def by_default(name: str, kind: str, device: str) -> str:
    """A row of the second table."""
    make, epochs = MODELS[name][1], VALIDATIONS[name][kind == "everything"]
    monitor = watch(name, kind, make)
    timed = Timed(monitor)
    wall = fit(name, monitor, EPOCH, epochs, 2 if kind == "everything" else 1, device)
    measured, reported = timed.seconds / (wall - timed.seconds), monitor.run.timetable.budget.overhead
    return (
        f"| {name} | {kind} | {epochs * EPOCH} | {timed.looks} | {1 + measured:.3f} | {1 + reported:.3f} "
        f"| {100 * abs(measured - reported):.2f} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    for logger in ("pytorch_lightning", "lightning_mesa", "lightning_utilities"):
        logging.getLogger(logger).setLevel(logging.ERROR)
    device = "gpu" if torch.cuda.is_available() else "cpu"
    print(f"on a {device}, torch {torch.__version__}, {torch.get_num_threads()} threads\n")
    print("| model | watched | " + " | ".join(f"every {every}" for every in EVERY) + " |")
    print("|---|---|" + "---|" * len(EVERY))
    furthest = 0.0
    for name in MODELS:
        for kind in ("usual", "everything"):
            cells = []
            for every in EVERY[2:3] if options.quick else EVERY:
                measured, reported = by_schedule(name, kind, every, device, 4 if options.quick else 12)
                furthest = max(furthest, abs(measured - reported) / (1 + measured))
                cells.append(f"{1 + measured:.2f}")
            print(f"| {name} | {kind} | {' | '.join(cells)} |", flush=True)
    print(f"\nreported and measured differ by at most {100 * furthest:.2f} % of the run\n")
    print("| model | watched | steps | looks | measured | reported | off by, points |")
    print("|---|---|---|---|---|---|---|")
    for name in MODELS:
        for kind in ("usual", "everything"):
            print(by_default(name, kind, device), flush=True)


if __name__ == "__main__":
    main()
