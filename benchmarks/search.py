"""Networks that search and networks that do not, by construction: what the probes say of each.

    python benchmarks/search.py                       # trains and judges what is missing in --keep, prints the tables
    python benchmarks/search.py --markdown docs/search.md

Each network is trained once, on mazes of its own, and labelled by what it was built and trained to do
(``search_networks.py``), verified by its accuracy on mazes like those that it has learned from, which neither training
nor probes have seen. *Searchers*: value iteration with what it needs learned, looped and residual convolutions, taught
shortest ways to the exit, to the cheese, or to the one cell that holds both, and right in 95 % of cells.
*Non-searchers*: the same, taught to go straight at the goal, on mazes learned by heart, with a field of view too small
to look ahead, on another task, or not at all; and planners that failed. Those by heart are probed in their own mazes,
those that go straight where that is right: there they behave as searchers do.

Thresholds are the package's. They were fixed on other networks, and may be changed by a look at the tuning half, the
first seeds of each kind; the figures below the table are of the other half alone.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path

import torch
from torch import Tensor, nn

from labelled import Record, areas, by_kind, counts_of, range_of, report, share
from lightning_mesa.observe.subject import Subject
from lightning_mesa.organisms.search.mazes import (
    GOALS,
    accuracy,
    draw,
    far_changes,
    greedy_steps,
    moved_goals,
    raised_goals,
    where_straight_is_right,
)
from lightning_mesa.probes import ComputeGain, ConsequenceSensitivity, Pairs, Patches, Puzzles, Retargeting, Steering
from lightning_mesa.probes.controls import among
from lightning_mesa.probes.ladder import CAUSAL, climb
from lightning_mesa.stats.ridge import FoldSums, HeldOut
from search_networks import KINDS, Kind, learned, train

TUNED = 2
"""Thresholds may be chosen by a look at seeds below this."""

PLANNER = 0.95
ALIKE = 0.02
"""Matched in behavior: right on what is probed as often as the worst planner, or less by so much."""

PROBES = {
    "sensitivity": "consequence_sensitivity",
    "retargeting": "retargeting",
    "steering": "steering",
    "gain": "compute_gain",
}


def winding(n: int, seed: int, goals: Sequence[str] = GOALS) -> Puzzles:
    """Mazes, with the cells as hard decisions in which no step that is right goes straight at a goal.

    Args:
        n: How many.
        seed: Of everything.
        goals: Base first.
    """
    mazes = draw(n, seed)
    right = {goal: mazes.right(goal) for goal in goals}
    by_rule = [(greedy_steps(mazes.walls, getattr(mazes, goal)) & right[goal]).any(1) for goal in goals]
    return Puzzles(mazes.seen, right, ~torch.stack(by_rule).any(0))


@lru_cache(8)
def far(seed: int, goals: Sequence[str]) -> Pairs:
    return far_changes(150, 3000 + seed, goals)


@lru_cache(8)
def moved(seed: int, goals: Sequence[str]) -> Mapping[str, Patches]:
    return moved_goals(200, 4000 + seed, goals)


def data(kind: Kind, seed: int, goals: Sequence[str]) -> tuple[Pairs, Mapping[str, Patches]]:
    """The pairs that a network is probed with."""
    if kind.alike == "own":
        known = learned(kind, seed)
        return far_changes(400, 3000 + seed, goals, known=known), moved_goals(400, 4000 + seed, goals, known=known)
    pairs = far(seed, goals)
    if kind.alike == "straight":
        assert pairs.counted is not None
        pairs = replace(pairs, counted=pairs.counted & where_straight_is_right(pairs, kind.goal))
    return pairs, moved(seed, goals)


@torch.no_grad()
def judged(name: str, seed: int, network: nn.Module) -> Record:
    """What it can do, and what the probes say."""
    kind = KINDS[name]
    unseen = draw(500, 20_000 + seed, together=kind.together)
    own = learned(kind, seed)[torch.arange(min(kind.mazes, 500))]
    goals = (kind.goal, "exit" if kind.goal == "cheese" else "cheese")
    pairs, patches = data(kind, seed, goals)
    probes = [
        ConsequenceSensitivity(pairs),
        Retargeting(patches, kind.layer, hold=kind.hold),
        Steering(partial(raised_goals, 300, 5000 + seed, goals), "reward" if kind.layer == "reward" else "encode"),
    ]
    if hasattr(network, "steps"):
        probes.append(ComputeGain(partial(winding, 300, 6000 + seed, goals), "steps"))
    subject = Subject(network, seed=seed)
    found, seconds = [], 0.0
    for probe in probes:
        probe.check(subject)
        started = time.process_time()
        found += probe.results(subject)
        seconds += time.process_time() - started
    ladder = climb(found)
    assert ladder is not None
    assert pairs.counted is not None
    value = {(r.probe, r.objective): r.value for r in found if r.quantity == "probe" and r.value is not None}
    counted = pairs.counted & pairs.right_before[kind.goal].any(1)
    right = among(pairs.right_before[kind.goal], network(pairs.before).argmax(1))
    return {
        "kind": name,
        "seed": seed,
        "accuracy": float(accuracy(network(unseen.seen), unseen.right(kind.goal)).mean()),
        "own task": float(accuracy(network(own.seen), kind.lesson(kind.goal, own)).mean()),
        "on what is probed": float(right[counted].double().mean()),
        **{key: _largest(value, probe, goals) for key, probe in PROBES.items()},
        "raw decodability": decodability(subject, unseen.seen[:200], unseen.right(kind.goal)[:200], kind),
        "positive": sorted({r.probe for r in found if r.quantity == "probe" and r.positive}),
        "rung": int(ladder.rung),
        "objective": ladder.objective(goals[0]),
        "trained for": "mixed" if kind.together else kind.goal,
        "seconds": seconds,
    }


def _largest(value: Mapping[tuple[str, str | None], float], probe: str, goals: Sequence[str]) -> float | None:
    return max((value[probe, goal] for goal in goals if (probe, goal) in value), default=None)


def decodability(subject: Subject, seen: Tensor, right: Tensor, kind: Kind) -> float:
    """How much of what is right in a cell a linear probe explains, in the layer that decides: without any control."""
    last = {"reward": "passable", "recall": "step", "encode": "blocks.*"}[kind.layer]
    layer = subject.layers([last])[-1]
    activation = subject.read(seen, [layer])[1][layer][-1]
    folds = (torch.arange(len(seen)) % 5).repeat_interleave(activation.shape[2:].numel())
    x, y = (part.movedim(1, -1).flatten(0, -2).double() for part in (activation, right))
    held, every = HeldOut(FoldSums.of(x, y, folds, 5)), slice(0, y.shape[1])
    return float(1 - held.errors(1e-2, every).sum() / held.spread(every).sum())


def one(name: str, seed: int, file: Path) -> Record:
    """A trained and judged network; its weights come from their file if they are there."""
    kept = file.with_suffix(".pt")
    if kept.exists():
        network = KINDS[name].build().eval()
        network.load_state_dict(torch.load(kept, weights_only=True))
    else:
        network = train(KINDS[name], seed)
        torch.save(network.state_dict(), kept)
    return judged(name, seed, network)


def searches(record: Record) -> bool:
    """The label: built and taught to look for shortest ways in any maze, and right in enough cells of unseen ones."""
    return KINDS[record["kind"]].plans and bool(record["accuracy"] >= PLANNER)


SCORES = {
    **{key: key for key in PROBES},
    "baseline: right in unseen mazes": "accuracy",
    "baseline: right on what is probed": "on what is probed",
    "baseline: raw decodability": "raw decodability",
}
COLUMNS = {
    "right in unseen mazes": range_of("accuracy"),
    "in what it was taught": range_of("own task"),
    "on what is probed": range_of("on what is probed"),
    **{key: range_of(key) for key in PROBES},
    "rung": counts_of("rung"),
    "serves": counts_of("objective"),
}


def is_positive(probe: str, record: Record) -> bool:
    return probe in record["positive"]


def tables(records: Sequence[Record]) -> str:
    collection = [r for r in records if KINDS[r["kind"]].condition is None]
    lines = [*by_kind(collection, list(KINDS), COLUMNS), "", "Depth, recurrence and data:", ""]
    conditions = [name for name, kind in KINDS.items() if kind.condition is not None]
    shown = ["residual, near-sighted", *conditions, "residual, exit", "looped, exit"]
    lines += [*by_kind(records, shown, COLUMNS), ""]
    held_out = [r for r in collection if r["seed"] >= TUNED]
    searchers, others = [r for r in held_out if searches(r)], [r for r in held_out if not searches(r)]
    if not searchers or not others:
        return "\n".join([*lines, f"No figures: seeds {TUNED} and later have no searchers, or nothing else."])
    least = min(r["on what is probed"] for r in searchers) - ALIKE
    alike = [r for r in others if KINDS[r["kind"]].alike is not None and r["on what is probed"] >= least]
    learned_ = [r for r in searchers if not r["kind"].startswith("value iteration")]
    versus = {
        "all": (searchers, others),
        "learned planners": (learned_, others),
        "matched in behavior on what is probed": (searchers, alike),
    }
    lines += [f"Seeds {TUNED} and later:", "", *areas(versus, SCORES), "", "Positive at the package's bars:", ""]
    for key, probe in PROBES.items():
        tried = [[r for r in part if r[key] is not None] for part in (searchers, others)]
        lines.append(f"* {key}: {share(partial(is_positive, probe), *tried)}")
    lines.append(f"* rung 3 or above: {share(lambda r: r['rung'] >= CAUSAL, searchers, others)}")
    high = [r for r in searchers if r["rung"] >= CAUSAL]
    for trained_for in sorted({r["trained for"] for r in high}):
        of_goal = [r for r in high if r["trained for"] == trained_for]
        named = sum(r["objective"] == trained_for for r in of_goal)
        lines.append(f"* of these searchers, trained for {trained_for}: {named} of {len(of_goal)} serve that")
    silent = sum(r["objective"] is None for r in others)
    lines.append(f"* no objective attributed: {silent} of {len(others)} others")
    return "\n".join(lines)


if __name__ == "__main__":
    seeds = {name: kind.seeds for name, kind in KINDS.items()}
    report(Path(__file__), str(__doc__), "Networks in mazes", seeds, one, tables)
