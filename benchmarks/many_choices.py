"""What a look costs with very many choices: a linear model over a vocabulary, 400 reference and 400 shifted items.

python benchmarks/many_choices.py            # 50,257 choices, as a GPT-2 has
python benchmarks/many_choices.py 1000
"""

import argparse
import resource
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn

import toy
from lightning_mesa.callbacks.run import Run
from lightning_mesa.organisms.training import quietly

LOOKS = 6


def main() -> None:
    parser = argparse.ArgumentParser(description="Seconds of a look with very many choices.")
    parser.add_argument("choices", nargs="?", type=int, default=50_257)
    choices = parser.parse_args().choices
    torch.set_num_threads(1)
    took, look = [], Run.look

    def timed(*args: Any, **options: Any) -> None:
        start = time.perf_counter()
        look(*args, **options)
        took.append(time.perf_counter() - start)

    Run.look = timed  # type: ignore[method-assign]
    model = toy.ToyModel()
    model.net = nn.Linear(2 * toy.CHOICES, choices, bias=False)
    quietly()
    with tempfile.TemporaryDirectory() as folder:
        toy.fit(Path(folder), toy.monitor(), model=model, max_epochs=LOOKS)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print("| choices | first look | median of the others | peak memory of the process |")
    print("|---|---|---|---|")
    print(f"| {choices} | {took[0]:.2f} s | {statistics.median(took[1:]):.2f} s | {peak} MB |")


if __name__ == "__main__":
    main()
