"""Short runs in two and three processes: none hangs, all processes agree, and training is as without the monitor.

    PYTHONPATH=tests python benchmarks/ddp.py --runs 100

The options of each run are drawn: number of processes, looks after validations or every few steps, what follows an
alert, whether there are groups, accumulated gradients, and a budget. One in five has an error on one process at the
second look. After it comes a run without the monitor and of as many steps, whose weights must be the same bit by bit.
"""

import argparse
import random
import tempfile
import time
from math import ceil
from pathlib import Path
from typing import Any

import torch

import processes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=180, help="a run that takes longer hangs")
    options = parser.parse_args()
    draw, counts = random.Random(0), dict.fromkeys(("hung", "disagreed", "stopped early", "failed on purpose"), 0)
    started = time.perf_counter()
    for i in range(options.runs):
        one = sample(draw)
        with tempfile.TemporaryDirectory() as folder:
            try:
                result = attempt(Path(folder), one, options.seconds)
            except TimeoutError:
                result = {"hung"}
        for key in result:
            counts[key] += 1
        if result & {"hung", "disagreed"}:
            print(f"run {i}: {result} with {one}", flush=True)
    said = ", ".join(f"{count} {key}" for key, count in counts.items())
    good = options.runs - counts["hung"] - counts["disagreed"]
    print(f"{options.runs} runs in {time.perf_counter() - started:.0f} s: {said}")
    print(f"{good} ended with the same step, findings and alerts on all processes, and the weights of a run without us")


def sample(draw: random.Random) -> dict[str, Any]:
    """Options of one run."""
    watch: dict[str, Any] = {
        "every_n_steps": draw.choice([None, 1, 3, 5]),
        "on_alert": draw.choice(["log", "stop", ["checkpoint", "stop"]]),
        "max_overhead": draw.choice([None, 0.05]),
        "seed": draw.randrange(100),
    }
    if draw.random() < 0.3:
        watch["groups"] = ["y", "z"]
    return {
        "world_size": draw.choice([2, 3]),
        "watch": watch,
        "fails": (draw.choice(["observe", "report"]), draw.randrange(2)) if draw.random() < 0.2 else None,
        "accumulate_grad_batches": draw.choice([1, 2]),
        "max_epochs": draw.choice([2, 3]),
    }


def attempt(folder: Path, one: dict[str, Any], seconds: float) -> set[str]:
    """Run with and without the monitor; what happened."""
    trainer = {key: one[key] for key in ("accumulate_grad_batches", "max_epochs")}
    callbacks = [processes.FailsOnOne(*one["fails"])] if one["fails"] else []
    on = processes.run(folder / "on", one["world_size"], seconds, watch=one["watch"], callbacks=callbacks, **trainer)
    off = processes.run(folder / "off", one["world_size"], seconds, watch=None, max_steps=on[0]["step"], **trainer)
    result = set()
    if on[0]["step"] < off_steps(one):
        result.add("stopped early")
    if one["fails"]:
        result.add("failed on purpose")
    agreed = all(
        other[key] == on[0][key] for other in on[1:] for key in ("step", "findings", "alerts", "disabled", "stride")
    )
    same = all(
        torch.equal(mine["weights"][name], value)
        for mine, theirs in zip(on, off, strict=True)
        for name, value in theirs["weights"].items()
        if "running" not in name and "num_batches" not in name  # a stopped run validates once more
    )
    if not (agreed and same and all(process["disabled"] == bool(one["fails"]) for process in on)):
        result.add("disagreed")
    return result


def off_steps(one: dict[str, Any]) -> int:
    """Steps of a run that nothing stops: 256 items in batches of 16, shared."""
    batches = ceil(ceil(256 / one["world_size"]) / 16)
    return ceil(batches / one["accumulate_grad_batches"]) * int(one["max_epochs"])


if __name__ == "__main__":
    main()
