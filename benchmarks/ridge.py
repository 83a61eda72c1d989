"""What the streaming ridge of ``Decodability`` costs, beside scikit-learn's ``RidgeCV`` on one thread.

    python benchmarks/ridge.py

Features of layers at random, some of which tell the choices that objectives prescribe; each objective also with labels
that have changed places. Sums are added up in portions of the size that the probe uses. *All errors*: then the held-out
errors of all folds, layers, targets and penalties. *As the probe*: the best penalty for each objective, and labels that
that have changed places at this one alone, which is what the probe does. Beside them scikit-learn, on the same folds,
layers, targets and penalties, in double precision:

* *one call for each labelling*: ``RidgeCV(alphas, cv=folds)`` for each layer, objective and copy of its labels: each
  has a penalty of its own, as here. Measured on some labellings of a layer, and multiplied.
* *one call*: ``RidgeCV(alphas, cv=folds)`` for each layer, with a single penalty for all objectives and all copies.
* *leave-one-out*: ``RidgeCV(alphas)`` for each layer and on all folds but each one, all targets in one call: what one
  would write to have a penalty chosen inside and a fold held out. It does not predict the fold.

CPU times, taken in turn in one process; medians over the repetitions, with smallest and largest ratio.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.linear_model import Ridge as KnownRidge
from sklearn.linear_model import RidgeCV
from threadpoolctl import threadpool_limits
from torch import Tensor

from lightning_mesa.probes.decodability import COPIES, FOLDS, PORTION, permuted, with_permuted
from lightning_mesa.stats.ridge import PENALTIES, FoldSums, HeldOut, Ridge, best
from lightning_mesa.stats.splits import folds

LAYERS, FEATURES, OBJECTIVES, CHOICES = 4, 128, 4, 4
MEASURED = 4


def data(items: int) -> tuple[list[Tensor], Tensor, Tensor]:
    """Features of each layer ``[n, d]`` float32, targets ``[n, T]`` bool, and folds."""
    draw = torch.Generator().manual_seed(0)
    labels = torch.randint(CHOICES, (OBJECTIVES, items), generator=draw)
    prescribed = torch.nn.functional.one_hot(labels).bool()
    layers = []
    for _ in range(LAYERS):
        noise = torch.randn(items, FEATURES, generator=draw)
        mixing = torch.randn(OBJECTIVES * CHOICES, FEATURES, generator=draw)
        layers.append(3 + noise + 0.2 * torch.cat([*prescribed], 1).float() @ mixing)
    numbers = torch.arange(items)
    return layers, with_permuted([*prescribed], numbers, 0), folds(numbers, FOLDS)


def added_up(features: Tensor, targets: Tensor, where: Tensor) -> HeldOut:
    sums = FoldSums.zeros(FEATURES, targets.shape[1], FOLDS)
    for x, y, fold in zip(*(of.split(PORTION) for of in (features, targets, where)), strict=True):
        sums.add(x, y, fold)
    return HeldOut(sums)


def all_errors(layers: list[Tensor], targets: Tensor, where: Tensor) -> None:
    for features in layers:
        held = added_up(features, targets, where)
        for penalty in PENALTIES:
            held.errors(penalty)


def as_the_probe(layers: list[Tensor], targets: Tensor, where: Tensor) -> None:
    for features in layers:
        held = added_up(features, targets, where)
        for objective in range(OBJECTIVES):
            columns = slice(COPIES * objective * CHOICES, (COPIES * objective + 1) * CHOICES)
            permuted(held, best(held, columns).penalty, columns)


def cv_over_folds(layers: list[np.ndarray], targets: np.ndarray, splits: list[Any]) -> None:
    alphas = [penalty * len(splits[0][0]) for penalty in PENALTIES]
    for features in layers:
        RidgeCV(alphas, cv=splits).fit(features, targets)


def leave_one_out(layers: list[np.ndarray], targets: np.ndarray, splits: list[Any]) -> None:
    for features in layers:
        for others, _ in splits:
            RidgeCV([penalty * len(others) for penalty in PENALTIES]).fit(features[others], targets[others])


def timed(function: Callable[..., Any], *args: Any) -> float:
    started = time.process_time()
    function(*args)
    return time.process_time() - started


def apart(features: Tensor, targets: Tensor) -> float:
    """The largest difference of a weight or intercept from scikit-learn's ``Ridge``, of standardised features."""
    most = 0.0
    features = (features.double() - features.double().mean(0)) / features.double().std(0, correction=0)
    sums = FoldSums.of(features, targets, torch.zeros(len(features), dtype=torch.int64), 1)
    fitted = Ridge(sums)
    for penalty in PENALTIES:
        (weights,), (intercepts,) = fitted.fit(penalty)
        known = KnownRidge(alpha=penalty * len(features)).fit(features.double().numpy(), targets.double().numpy())
        most = max(most, float(np.abs(weights.numpy() - known.coef_.T).max()))
        most = max(most, float(np.abs(intercepts.numpy() - known.intercept_).max()))
    return most


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=4000)
    parser.add_argument("--repetitions", type=int, default=7)
    parser.add_argument("--markdown", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    threadpool_limits(1)
    layers, targets, where = data(options.items)
    of_layers, of_targets = [x.double().numpy() for x in layers], targets.double().numpy()
    splits = [
        ((where != fold).nonzero()[:, 0].numpy(), (where == fold).nonzero()[:, 0].numpy()) for fold in range(FOLDS)
    ]
    labellings = of_targets.shape[1] // CHOICES
    chosen = np.linspace(0, labellings - 1, MEASURED).astype(int)
    some = [of_targets[:, CHOICES * i : CHOICES * (i + 1)] for i in chosen]
    theirs: dict[str, list[float]] = {"one call for each labelling": [], "one call": [], "leave-one-out": []}
    own: dict[str, list[float]] = {"all errors": [], "as the probe": []}
    all_errors(layers, targets, where)  # what a first call costs is nobody's
    for _ in range(options.repetitions):
        own["all errors"].append(timed(all_errors, layers, targets, where))
        own["as the probe"].append(timed(as_the_probe, layers, targets, where))
        each = sum(timed(cv_over_folds, of_layers[:1], labels, splits) for labels in some)
        theirs["one call for each labelling"].append(each * LAYERS * labellings / MEASURED)
        theirs["one call"].append(timed(cv_over_folds, of_layers, of_targets, splits))
        theirs["leave-one-out"].append(timed(leave_one_out, of_layers, of_targets, splits))
    lines = [
        f"{LAYERS} layers of {FEATURES}, {FOLDS} folds, {of_targets.shape[1]} targets, {len(PENALTIES)} penalties, "
        f"{options.items} items; {options.repetitions} repetitions.",
        "",
        "| RidgeCV | its CPU s | ours | CPU s | times as much | smallest to largest |",
        "|---|---|---|---|---|---|",
    ]
    for name, times in theirs.items():
        for mine, of_mine in own.items():
            ratios = sorted(a / b for a, b in zip(times, of_mine, strict=True))
            lines.append(
                f"| {name} | {statistics.median(times):.2f} | {mine} | {statistics.median(of_mine):.3f} "
                f"| {statistics.median(ratios):.0f} | {ratios[0]:.0f} to {ratios[-1]:.0f} |"
            )
    lines += ["", f"Largest difference of a weight or intercept from `Ridge`: {apart(layers[0], targets):.1e}."]
    text = "\n".join(lines)
    print(text)
    if options.markdown is not None:
        options.markdown.write_text(f"{text}\n")


if __name__ == "__main__":
    main()
