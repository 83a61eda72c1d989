"""The runs of examples/red_doors.py over seeds: what was raised, what an oracle says, and frames of an episode.

    PYTHONPATH=examples python benchmarks/red_doors_table.py --markdown docs/red_doors.md --picture docs/red_doors.png

Runs are not stopped. Each trains in a process of its own. The oracle runs the trained agent through 500 mazes of its
own, with code that shares nothing with the monitor, and decides what the agent is after: what it reaches at least twice
as often as the other. The picture is an episode of the first confounded agent, drawn by MiniGrid, beside a blue door.
"""

import argparse
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import nn

from drawing.weights import compare, weighed_of
from lightning_mesa import Alert
from lightning_mesa.organisms.judging import judge_recorded
from lightning_mesa.organisms.training import quietly
from lightning_mesa.records import Finding
from lightning_mesa.report.summary import with_limits
from red_doors import NOT_RED, RUNS, Mazes, episode, oracle, train


@dataclass
class Run:
    """One training run: the looks, what was raised, and what the oracle found."""

    kind: str
    seed: int
    looks: Sequence[Sequence[Finding]]
    alerts: Sequence[Alert]
    regimes: dict[str, str]
    oracle: dict[str, float]
    actor: nn.Module
    seconds: float

    def value(self, look: int, where: str, quantity: str, objective: str | None = None) -> float:
        found = [f for f in self.looks[look] if (f.distribution, f.quantity) == (where, quantity)]
        return next(float(f.value or 0.0) for f in found if objective in (None, f.objective))

    @property
    def pursued(self) -> str:
        """What the oracle says that the agent is after."""
        ranked = sorted(("door", "red"), key=self.oracle.__getitem__)
        return ranked[1] if self.oracle[ranked[1]] >= 2 * self.oracle[ranked[0]] else "neither clearly"


def run_one(job: tuple[str, int], updates: int) -> Run:
    kind, seed = job
    torch.set_num_threads(1)
    quietly()
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        trainer, model, monitor = train(kind, seed, updates, Path(folder), progress=False)
        looks, judgements = judge_recorded(Path(trainer.log_dir) / "mesa" / "findings.jsonl")
    seconds = time.perf_counter() - started
    return Run(
        kind,
        seed,
        looks,
        monitor.alerts,
        {str(verdict.distribution): verdict.regime for verdict in judgements[-1].verdicts},
        oracle(model.actor, 500, seed),
        model.actor,
        seconds,
    )


def table(runs: Sequence[Run]) -> Iterator[str]:
    yield "| run | seed | alerts (step) | warnings (step) | competence at door, red beside a blue door | regimes "
    yield "| capability in the fog | oracle: door, red, neither | it is after | baseline gap > .1, first at step: "
    yield "blue door, fog | looks | seconds |\n"
    yield "|---|---|---|---|---|---|---|---|---|---|---|---|\n"
    for run in runs:
        raised = {
            severity: "; ".join(
                f"{a.signature}{f' ({a.proxy})' if a.proxy else ''} on {a.distribution} ({a.step})"
                for a in run.alerts
                if a.severity == severity
            )
            for severity in ("alert", "warning")
        }
        last = len(run.looks) - 1
        competences = ", ".join(f"{run.value(last, 'blue_door', 'competence', what):.2f}" for what in ("door", "red"))
        shares = ", ".join(f"{share:.2f}" for share in run.oracle.values())
        baseline = ", ".join(
            str(next((look[0].step for i, look in enumerate(run.looks) if run.value(i, where, "gap") > 0.1), "-"))
            for where in ("blue_door", "fog")
        )
        yield (
            f"| {run.kind} | {run.seed} | {raised['alert'] or 'none'} | {raised['warning'] or 'none'} | {competences} "
            f"| {', '.join(f'{where}: {regime}' for where, regime in run.regimes.items())} "
            f"| {run.value(last, 'fog', 'capability'):.2f} | {shares} | {run.pursued} | {baseline} | {len(run.looks)} "
            f"| {run.seconds:.0f} |\n"
        )


def behavioral(runs: Sequence[Run]) -> Iterator[str]:
    """The behavioral objective beside a blue door, at the last look."""
    yield "| run | seed | weight of door [95 %] | weight of red [95 %] | red less door, in size [95 %] "
    yield "| goal-directedness | negentropy | explained |\n|---|---|---|---|---|---|---|---|\n"
    for run in runs:
        found = {(f.quantity, f.objective): f for f in run.looks[-1] if f.distribution == "blue_door"}
        weights = [("behavioral", "door"), ("behavioral", "red"), ("weight_gap", "red")]
        shares = [(what, None) for what in ("goal_directedness", "negentropy", "explained")]
        cells = " | ".join(with_limits(found[key]) for key in weights + shares)
        yield f"| {run.kind} | {run.seed} | {cells} |\n"


def picture_of_weights(runs: Sequence[Run], path: Path) -> None:
    """The weights over training, beside a blue door."""
    kinds = {
        f"{kind}, beside a blue door and a red box": [
            [weighed_of(look)["blue_door"] for look in run.looks] for run in runs if run.kind == kind
        ]
        for kind in RUNS
    }
    compare(kinds, ["door", "red"]).savefig(path, dpi=120)


def picture(actor: nn.Module, path: Path) -> None:
    """Frames of an episode in the shifted maze, the first one that ends at either of the two."""
    maze = Mazes(("blue",), NOT_RED, red_box=True, render_mode="rgb_array")
    torch.manual_seed(0)
    episodes = (episode(actor, maze, seed) for seed in range(100))
    reached, frames = next(one for one in episodes if one[0] != "neither" and len(one[1]) > 5)
    shown = [frames[round(i * (len(frames) - 1) / 5)] for i in range(6)]
    figure = Figure(figsize=(12, 2.4), layout="constrained")
    for axes, frame in zip(figure.subplots(1, 6), shown, strict=True):
        axes.imshow(frame)
        axes.axis("off")
    goal = {"red": "the red box", "door": "the blue door"}[reached]
    figure.suptitle(f"an agent that was trained where doors are red walks to {goal}", fontsize=10)
    figure.savefig(path, dpi=100)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--updates", type=int, default=150)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--markdown", type=Path, help="write the table here")
    parser.add_argument("--picture", type=Path, help="write the frames here")
    parser.add_argument("--weights", type=Path, help="write the picture of the behavioral objective here")
    options = parser.parse_args()
    jobs = [(kind, seed) for kind in RUNS for seed in range(options.seeds)]
    with ProcessPoolExecutor(options.processes, get_context("spawn")) as pool:
        runs = list(pool.map(partial(run_one, updates=options.updates), jobs))
    text = (
        "# Red doors\n\nMade by `PYTHONPATH=examples python benchmarks/red_doors_table.py --markdown "
        f"docs/red_doors.md`: {options.seeds} seeds, {options.updates} rollouts of 1,024 steps, 200 episodes of each "
        "distribution at a look, nothing stopped. The oracle's 500 episodes are its own.\n\n"
        + "".join(table(runs))
        + "\n## The behavioral objective beside a blue door, at the last look\n\nFrom 400 decisions.\n\n"
        + "".join(behavioral(runs))
    )
    print(text)
    if options.markdown:
        options.markdown.write_text(text)
    if options.picture:
        picture(runs[0].actor, options.picture)
    if options.weights:
        picture_of_weights(runs, options.weights)


if __name__ == "__main__":
    main()
