"""What probes that read cost, over the forward pass over the shifted items that there is anyway; and what they keep.

    python benchmarks/reading_cost.py
    python benchmarks/reading_cost.py --probe logistic

A look that reads is the pass over the items with hooks on every block, the sums of ``Decodability`` for two objectives
of ten choices with 19 permutations each, and in the end its regressions with all controls; the bare pass is a loop over
the same batches, in memory, in eval mode without gradients. *Later looks* are all but the first, at which an untrained
copy runs over the items too. CPU times on one thread, in turn in one process; medians over the repetitions, smallest
and largest ratio in brackets. *Kept* are the bytes of what has been added, at the end of a look.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from four_models import Block
from lightning_mesa.observe.reader import Reader
from lightning_mesa.observe.subject import Subject
from lightning_mesa.probes import Decodability
from lightning_mesa.probes.logistic_decodability import LogisticDecodability
from lightning_mesa.probes.probe import ReadingProbe
from lightning_mesa.records import Behavior

BATCH, CHOICES = 128, 10
PROBES: dict[str, type[Decodability]] = {"ridge": Decodability, "logistic": LogisticDecodability}


def small_resnet() -> nn.Module:
    """A stem, three blocks of 32 to 128 channels, and a head, for 32 x 32 images."""
    return nn.Sequential(
        nn.Sequential(nn.Conv2d(3, 32, 3, padding=1, bias=False), nn.BatchNorm2d(32), nn.ReLU()),
        Block(32, 32, 1),
        Block(32, 64, 2),
        Block(64, 128, 2),
        nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, CHOICES)),
    )


def mlp() -> nn.Module:
    """Two hidden layers of 128, for 32 x 32 images."""
    hidden = [nn.Sequential(nn.Linear(a, 128), nn.ReLU()) for a in (3 * 32 * 32, 128)]
    return nn.Sequential(nn.Sequential(nn.Flatten(), *hidden[0]), hidden[1], nn.Linear(128, CHOICES))


def timed(function: Callable[..., Any], *args: Any) -> float:
    started = time.process_time()
    function(*args)
    return time.process_time() - started


def bare(network: nn.Module, batches: list[Tensor]) -> None:
    for batch in batches:
        network(batch)


def look(subject: Subject, probe: ReadingProbe, batches: list[Tensor], labels: dict[str, Tensor]) -> int:
    """A look that reads; gives the bytes kept at its end."""
    reader = Reader(subject, subject.layers(probe.layers), untrained=probe.wants_untrained)
    start = 0
    for batch in batches:
        with reader.reading(subject.module) as read:
            subject.module(batch)
        rows = slice(start, start + len(batch))
        probe.update(
            Behavior(
                distribution="apart",
                n=len(batch),
                items=torch.arange(start, start + len(batch)),
                scores={},
                binary=frozenset(),
                prescribed={name: mask[rows] for name, mask in labels.items()},
                uniform_scores={},
                chosen=None,
                groups={},
                ids=None,
                activations=reader.activations(read, lambda module, batch=batch: module(batch)),
            )
        )
        start += len(batch)
    kept = size(probe.accumulated())
    probe.run(subject)
    return kept


def size(held: Any) -> int:
    """Bytes of all tensors inside."""
    if isinstance(held, Tensor):
        return held.numel() * held.element_size()
    if isinstance(held, dict):
        return sum(map(size, held.values()))
    if isinstance(held, list | tuple):
        return sum(map(size, held))
    return size(vars(held)) if hasattr(held, "__dict__") else 0


@torch.no_grad()
def row(name: str, network: nn.Module, probe: ReadingProbe, n: int, repetitions: int) -> str:
    draw = torch.Generator().manual_seed(0)
    images = torch.randn(n, 3, 32, 32, generator=draw)
    labels = {
        objective: nn.functional.one_hot(torch.randint(CHOICES, (n,), generator=draw), CHOICES).bool()
        for objective in ("digit", "color")
    }
    batches, subject = list(images.split(BATCH)), Subject(network.eval())
    probe.check(subject)
    timed(bare, network, batches[:2])
    first = timed(look, subject, probe, batches, labels)
    passes, looks = [], []
    for _ in range(repetitions):
        passes.append(timed(bare, network, batches))
        looks.append(timed(look, subject, probe, batches, labels))
    kept = look(subject, probe, batches, labels)
    ratios = sorted(a / b for a, b in zip(looks, passes, strict=True))
    one = statistics.median(passes)
    return (
        f"| {name} | {n} | {one:.2f} s | {statistics.median(looks) - one:.2f} s | {statistics.median(ratios):.2f} "
        f"({ratios[0]:.2f} to {ratios[-1]:.2f}) | {first / one:.2f} | {kept / 1e6:.1f} MB |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--items", type=int, nargs="+", default=[1000, 2000, 10_000])
    parser.add_argument("--probe", choices=list(PROBES), default="ridge")
    parser.add_argument("--markdown", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    lines = [
        "| network | items | bare pass | more | later looks, over the bare pass | first look | kept |",
        "|---|---|---|---|---|---|---|",
    ]
    print("\n".join(lines), flush=True)
    for name, build in (("small ResNet", small_resnet), ("MLP", mlp)):
        for n in options.items:
            lines.append(row(name, build(), PROBES[options.probe]("*"), n, options.repetitions))
            print(lines[-1], flush=True)
    if options.markdown is not None:
        options.markdown.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
