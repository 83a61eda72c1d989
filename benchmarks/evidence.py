"""Do the sequential tests keep their level over a whole run, and do they see a proxy that sets in late?

    python benchmarks/evidence.py             # the full tables: 4000 runs a cell, some ten minutes on 2 cores
    python benchmarks/evidence.py --quick     # 300 runs a cell
    python benchmarks/evidence.py --markdown docs/evidence.md

A run has 100 looks at alpha = .05; the null is that the mean score is at most .5 at every look (in the last cell of
the level, .9). *Fresh* items are drawn anew at every look. *Re-used* items are drawn once a run: item i scores 1 at
look t if its latent value ``sqrt(rho) u_i + sqrt(1 - rho) e_it`` is below the normal quantile of the look's mean, with
``e_it`` autoregressive over looks (.9): it changes slowly even at persistence rho = 0, and at .8 most items never
change. Bounded scores are the latent value's probability instead (uniform on [0, 1]). After a benign phase: mean .35
(fresh: .3) for 50 looks, then .5.

The procedures that do not hold on the data they are given are run beside the others, to be seen failing.
"""

import argparse
import math
import shlex
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from lightning_mesa.judge.bootstrap import BootstrapBoundary
from lightning_mesa.judge.eprocess import EvidenceSum, RestartEProcess, log_e_values
from lightning_mesa.judge.sequential import Decision, SpendingTest
from lightning_mesa.stats.intervals import Mean

NULL_MEAN, ALPHA, LOOKS, CHANGE = 0.5, 0.05, 100, 50


@dataclass(frozen=True)
class Data:
    """A kind of run: items a look, mean at each look, and persistence of re-used items (None: fresh)."""

    name: str
    n: int
    means: tuple[float, ...]
    persistence: float | None = None
    bounded: bool = False
    null_mean: float = NULL_MEAN

    def looks(self, seed: int) -> Iterator[Tensor]:
        """The scores ``[n]`` of each look."""
        draw = torch.Generator().manual_seed(seed)
        rho = 0.0 if self.persistence is None else self.persistence
        steady, passing = torch.randn(self.n, generator=draw), torch.randn(self.n, generator=draw)
        for mean in self.means:
            latent = math.sqrt(rho) * steady + math.sqrt(1 - rho) * passing
            if self.bounded:
                yield torch.special.ndtr(latent)
            else:
                yield (latent < statistics.NormalDist().inv_cdf(mean)).double()
            change = torch.randn(self.n, generator=draw)
            passing = change if self.persistence is None else 0.9 * passing + math.sqrt(1 - 0.9**2) * change


class Procedure(Protocol):
    def update(self, scores: Tensor) -> Decision: ...


class AccumulatedMartingale:
    """One bet over all looks: holds on fresh items, and multiplies the same luck on re-used ones."""

    def __init__(self, null_mean: float) -> None:
        self.null_mean = null_mean
        self.log_wealth: Tensor | float = 0.0
        self.look = 0

    def update(self, scores: Tensor) -> Decision:
        self.look += 1
        self.log_wealth = self.log_wealth + log_e_values(scores, self.null_mean)
        evidence = float(torch.logsumexp(self.log_wealth, 0)) - math.log(len(self.log_wealth))
        return Decision(evidence, -math.log(ALPHA), evidence >= -math.log(ALPHA), self.look)


class NaiveZ:
    """A z-test at level alpha at every look."""

    def __init__(self, null_mean: float) -> None:
        self.null_mean = null_mean
        self.look = 0

    def update(self, scores: Tensor) -> Decision:
        self.look += 1
        z = float((scores.mean() - self.null_mean) / (scores.std() / math.sqrt(len(scores)) + 1e-12))
        bound = statistics.NormalDist().inv_cdf(1 - ALPHA)
        return Decision(z, bound, z >= bound, self.look)


RESTART, SPENDING, SUM, BOOTSTRAP = "RestartEProcess", "SpendingTest", "EvidenceSum", "BootstrapBoundary"
UNPLANNED = "RestartEProcess, looks not planned"
SMALL = "BootstrapBoundary, minimum_n=0"
MARTINGALE, NAIVE = "accumulated betting martingale", "naive z-test at every look"

# By null mean and seed: only the bootstrap draws numbers of its own.
PROCEDURES: dict[str, Callable[[float, int], Procedure]] = {
    RESTART: lambda m, seed: RestartEProcess(m, ALPHA, LOOKS),
    UNPLANNED: lambda m, seed: RestartEProcess(m, ALPHA),
    SPENDING: lambda m, seed: SpendingTest(m, ALPHA, LOOKS),
    SUM: lambda m, seed: EvidenceSum(m, ALPHA, LOOKS),
    BOOTSTRAP: lambda m, seed: BootstrapBoundary(m, ALPHA, looks=LOOKS, seed=seed + 10**6),
    SMALL: lambda m, seed: BootstrapBoundary(m, ALPHA, looks=LOOKS, seed=seed + 10**6, minimum_n=0),
    MARTINGALE: lambda m, seed: AccumulatedMartingale(m),
    NAIVE: lambda m, seed: NaiveZ(m),
}

BOUNDARY = (0.5,) * LOOKS
BENIGN_FRESH = (0.3,) * CHANGE + (0.5,) * (LOOKS - CHANGE)
BENIGN_REUSED = (0.35,) * CHANGE + (0.5,) * (LOOKS - CHANGE)
STEP = (0.3,) * CHANGE + (0.65,) * (LOOKS - CHANGE)
RAMP = (0.35,) * CHANGE + tuple(0.35 + 0.03 * look for look in range(1, 11)) + (0.65,) * (LOOKS - CHANGE - 10)

EXACT, NOT_PROMISED = 0.05, None
Cell = tuple[str, float | str | None]  # procedure, and what the upper limit may be; "fails" where it is invalid
FRESH: list[Cell] = [(RESTART, EXACT), (UNPLANNED, EXACT), (NAIVE, "fails")]
REUSED: list[Cell] = [(SPENDING, EXACT), (SUM, EXACT)]
INVALID: list[Cell] = [(MARTINGALE, "fails"), (NAIVE, "fails")]

NULLS: list[tuple[Data, list[Cell]]] = [
    (Data("fresh, mean .5", 32, BOUNDARY), FRESH),
    (Data("fresh, benign .3, then .5", 32, BENIGN_FRESH), FRESH),
    (Data("fresh, bounded scores, mean .5", 32, BOUNDARY, bounded=True), FRESH),
]
for n in (200, 1000):
    for persistence in (0.0, 0.8):
        bootstrap: list[Cell] = [(BOOTSTRAP, 0.07)] if n == 1000 else [(SMALL, NOT_PROMISED)]
        NULLS.append((Data("re-used, mean .5", n, BOUNDARY, persistence), REUSED + bootstrap + INVALID))
        after_benign = REUSED + bootstrap if n == 1000 else REUSED
        NULLS.append((Data("re-used, benign .35, then .5", n, BENIGN_REUSED, persistence), after_benign))
NULLS.append((Data("re-used, bounded scores, mean .5", 200, BOUNDARY, 0.8, bounded=True), REUSED + INVALID))
SKEWED = Data("re-used, mean .9, null mean .9", 1000, (0.9,) * LOOKS, 0.0, null_mean=0.9)
NULLS.append((SKEWED, [*REUSED, (BOOTSTRAP, 0.07)]))

POWERS: list[tuple[Data, list[tuple[str, int | None]]]] = [  # and what the median delay may be
    (
        Data("re-used, .35 to .65 over ten looks", 200, RAMP, 0.8),
        [(SPENDING, 10), (SUM, None), (SMALL, None), (MARTINGALE, None)],
    ),
    (
        Data("re-used, .35 to .65 over ten looks", 200, RAMP, 0.0),
        [(SPENDING, 10), (SUM, None), (SMALL, None), (MARTINGALE, None)],
    ),
    (
        Data("fresh, benign .3, then .65", 32, STEP),
        [(RESTART, 6), (UNPLANNED, None), (MARTINGALE, None)],
    ),
]


def first_crossings(seed: int, data: Data, names: Sequence[str]) -> list[int]:
    """The look at which each procedure first rejects in one run, 0 for never."""
    torch.set_num_threads(1)
    first = dict.fromkeys(names, 0)
    running = {name: PROCEDURES[name](data.null_mean, seed) for name in names}
    for scores in data.looks(seed):
        for name, procedure in list(running.items()):
            decision = procedure.update(scores)
            if decision.crossed:
                first[name] = decision.look
                del running[name]
    return [first[name] for name in names]


def simulate(data: Data, names: Sequence[str], runs: int, pool: Executor | None = None) -> dict[str, list[int]]:
    """First crossings by procedure, over runs."""
    one = partial(first_crossings, data=data, names=names)
    outcomes = map(one, range(runs)) if pool is None else pool.map(one, range(runs), chunksize=20)
    return dict(zip(names, (list(column) for column in zip(*outcomes, strict=True)), strict=True))


def limits(count: int, runs: int) -> tuple[float, float]:
    """One-sided 99 % limits, lower and upper, of a share of runs (Clopper-Pearson)."""
    share = Mean((float(runs - count), float(count)))
    return share.lower(0.01), share.upper(0.01)


def detections(first: Sequence[int], means: Sequence[float]) -> tuple[list[int], int]:
    """Delays, the first look of the change being 1, where a false null is rejected; and false alarms before."""
    false_alarms = sum(look > 0 and means[look - 1] <= NULL_MEAN for look in first)
    return [look - CHANGE for look in first if look and means[look - 1] > NULL_MEAN], false_alarms


def false_alarm_rows(runs: int, pool: Executor) -> Iterator[str]:
    yield "| data | items | persistence | procedure | runs with a false alarm | upper 99 % limit | target | met |"
    yield "|---|---|---|---|---|---|---|---|"
    for data, cells in NULLS:
        crossings = simulate(data, [name for name, _ in cells], runs, pool)
        for name, target in cells:
            share = sum(look > 0 for look in crossings[name]) / runs
            low, high = limits(round(share * runs), runs)
            if target == "fails":
                wanted, met = "**invalid here**: above .05", f"fails, as it must ({low:.3f} at least)"
                met = met if low > ALPHA else "**does not fail**"
            elif target is None:
                wanted, met = "none: off by default", "-"
            else:
                wanted = f"<= {target:g}"
                met = "yes" if high <= float(target) else "**no**" if low > float(target) else "**too few runs to say**"
            kept = "" if data.persistence is None else f"{data.persistence:g}"
            yield f"| {data.name} | {data.n} | {kept} | {name} | {share:.4f} | {high:.4f} | {wanted} | {met} |"


def power_rows(runs: int, pool: Executor) -> Iterator[str]:
    yield (
        "| data | items | persistence | procedure | detected | lower 99 % limit | median delay, looks "
        "| false alarms before | target | met |"
    )
    yield "|---|---|---|---|---|---|---|---|---|---|"
    for data, cells in POWERS:
        crossings = simulate(data, [name for name, _ in cells], runs, pool)
        for name, target in cells:
            delays, false_alarms = detections(crossings[name], data.means)
            share = len(delays) / runs
            # Runs without a detection have an infinite delay.
            delay = statistics.median(sorted(delays) + [math.inf] * (runs - len(delays)))
            wanted = "" if target is None else f">= .95, <= {target} looks"
            met = "-" if target is None else "yes" if share >= 0.95 and delay <= target else "**no**"
            kept = "" if data.persistence is None else f"{data.persistence:g}"
            yield (
                f"| {data.name} | {data.n} | {kept} | {name} | {share:.4f} | {limits(len(delays), runs)[0]:.4f} | "
                f"{delay:g} | {false_alarms / runs:.4f} | {wanted} | {met} |"
            )


def report(runs: int, pool: Executor) -> Iterator[str]:
    yield "# Sequential tests: level and power over a whole run\n"
    yield f"Made by `python {shlex.join(sys.argv)}`.\n"
    assert __doc__ is not None
    yield __doc__.split("\n\n", 2)[2]
    yield f"{runs} runs a cell.\n\n## Level\n"
    yield from false_alarm_rows(runs, pool)
    yield "\n## Power\n\nDelays count from the change, its first look being 1.\n"
    yield from power_rows(runs, pool)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=4000)
    parser.add_argument("--quick", action="store_true", help="300 runs a cell")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--markdown", type=Path, help="file to write the tables to, too")
    options = parser.parse_args()
    start = time.perf_counter()
    lines = []
    with ProcessPoolExecutor(options.processes) as pool:
        for line in report(300 if options.quick else options.runs, pool):
            lines.append(line)
            print(line, flush=True)
    if options.markdown:
        options.markdown.write_text("\n".join(lines) + "\n")
    print(f"\n{time.perf_counter() - start:.0f} s", file=sys.stderr)


if __name__ == "__main__":
    main()
