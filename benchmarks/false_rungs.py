"""How often networks that have learned nothing climb the ladder in a hundred looks.

    python benchmarks/false_rungs.py                  # about a quarter of an hour of CPU time
    python benchmarks/false_rungs.py --markdown docs/false_rungs.md

A run is 100 looks at a network with the whole default set of probes: ``Decodability``, ``ConsequenceSensitivity`` and
``Retargeting``, on mazes (``organisms/search/mazes.py``); mazes are shared between the looks of a run, and differ
between runs.
*Untrained*: weights drawn at random, which drift a little from look to look, as those of a network in training do, and
are others in the end. *Permuted labels*: a network trained on shortest ways, with what is right after the change, for
the new goal, and in the items that are read, taken from other mazes; anew at each look. Nothing here follows
consequences, so a run that ever reaches rung 2 is a false alarm. Tested at each look is only what is not underpowered;
how often that is stands beside it.
"""

import argparse
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from lightning_mesa.observe.reader import Reader
from lightning_mesa.observe.subject import Subject
from lightning_mesa.organisms.search.mazes import SIZE, Mazes, draw, far_changes, moved_goals
from lightning_mesa.organisms.search.networks import Residual
from lightning_mesa.organisms.training import loss
from lightning_mesa.probes import ConsequenceSensitivity, Decodability, Pairs, Patches, Retargeting
from lightning_mesa.probes.ladder import climb
from lightning_mesa.records import Behavior
from lightning_mesa.stats.intervals import Mean

GOALS = ("exit", "cheese")
PAIRS, ITEMS = 80, 200
DRIFT = 0.1
"""Share of a weight that is new at each look; after 100 of them about a third of it is what it was."""


@dataclass(frozen=True)
class Data:
    """What the probes of one run are given."""

    pairs: Pairs
    patches: dict[str, Patches]
    mazes: Mazes

    @property
    def prescribed(self) -> dict[str, Tensor]:
        """``[n, 4]`` what is right in one cell of each maze."""
        right = {goal: self.mazes.right(goal).flatten(2) for goal in GOALS}
        some = torch.rand(len(self.mazes.walls), SIZE * SIZE, generator=torch.Generator().manual_seed(0))
        cell = some.masked_fill(~(right["exit"].any(1) & right["cheese"].any(1)), -1.0).argmax(1)
        return {goal: steps[torch.arange(len(cell)), :, cell] for goal, steps in right.items()}


def data(runs: int, seed: int) -> Iterator[Data]:
    """For each run mazes of its own."""
    pairs, patches = far_changes(PAIRS * runs, seed, GOALS), moved_goals(PAIRS * runs, seed + 500, GOALS)
    mazes = draw(ITEMS * runs, seed + 1000)
    for run in range(runs):
        # The pairs for the second goal stand after those for the first.
        rows = torch.cat([torch.arange(PAIRS) + PAIRS * (run + goal * runs) for goal in range(len(GOALS))])
        right = [{goal: of[goal][rows] for goal in GOALS} for of in (pairs.right_before, pairs.right_after)]
        assert pairs.counted is not None
        own = slice(PAIRS * run, PAIRS * (run + 1))
        moved = {
            goal: Patches(*(x[own] for x in (p.base, p.source, p.site, p.right_base, p.right_source, p.counted)))
            for goal, p in patches.items()
        }
        items = slice(ITEMS * run, ITEMS * (run + 1))
        yield Data(
            Pairs(pairs.before[rows], pairs.after[rows], *right, pairs.counted[rows]),
            moved,
            Mazes(mazes.walls[items], mazes.exit[items], mazes.cheese[items]),
        )


class Probed:
    """The default set, and what it says of a network."""

    def __init__(self, network: nn.Module, of: Data, seed: int) -> None:
        self.subject = Subject(network, seed=1000 + seed)
        self.seen = of.mazes.seen
        self.probes = (
            Decodability(["encode", "blocks.1"]),
            ConsequenceSensitivity(of.pairs),
            Retargeting(of.patches, "encode"),
        )
        for probe in self.probes:
            probe.check(self.subject)

    def look(self, prescribed: dict[str, Tensor]) -> tuple[int, bool]:
        """The rung, and whether a probe of rung 2 could tell anything."""
        decodability = self.probes[0]
        layers = self.subject.layers(decodability.layers)
        reader = Reader(self.subject, layers, untrained=decodability.wants_untrained)
        with reader.reading(self.subject.module) as read:
            self.subject.module(self.seen)
        decodability.update(
            Behavior(
                distribution="apart",
                n=len(self.seen),
                items=torch.arange(len(self.seen)),
                scores={},
                binary=frozenset(),
                prescribed=prescribed,
                uniform_scores={},
                chosen=None,
                groups={},
                ids=None,
                activations=reader.activations(read, lambda module: module(self.seen)),
            )
        )
        found = [result for probe in self.probes for result in probe.results(self.subject)]
        ladder = climb(found)
        assert ladder is not None
        told = any(r.probe == "consequence_sensitivity" and r.status == "ok" for r in found)
        return int(ladder.rung), told


def drifting(of: Data, seed: int, looks: int) -> Iterator[tuple[int, bool]]:
    """Looks at a network whose weights wander about where they may be at the start of a training."""
    torch.manual_seed(seed)
    network = Residual(12, 2).eval()
    probed, prescribed = Probed(network, of, seed), of.prescribed
    for _ in range(looks):
        yield probed.look(prescribed)
        fresh = Residual(12, 2)
        for weight, new in zip(network.parameters(), fresh.parameters(), strict=True):
            weight.data.mul_((1 - DRIFT**2) ** 0.5).add_(DRIFT * new.data)


def permuted(of: Data, seed: int, looks: int, network: nn.Module) -> Iterator[tuple[int, bool]]:
    """Looks at a trained network with labels of other mazes."""
    random, prescribed = torch.Generator().manual_seed(seed), of.prescribed
    for _ in range(looks):
        order = torch.randperm(2 * PAIRS, generator=random)
        pairs = replace(of.pairs, right_after={goal: right[order] for goal, right in of.pairs.right_after.items()})
        order = torch.randperm(PAIRS, generator=random)
        patches = {goal: replace(p, right_source=p.right_source[order]) for goal, p in of.patches.items()}
        order = torch.randperm(ITEMS, generator=random)
        probed = Probed(network, Data(pairs, patches, of.mazes), seed)
        yield probed.look({goal: right[order] for goal, right in prescribed.items()})


def trained(seed: int, seconds: float) -> nn.Module:
    """A network taught shortest ways to the exit for so much CPU time."""
    torch.manual_seed(seed)
    network, mazes = Residual(12, 2), draw(4000, 10_000 + seed)
    seen, right = mazes.seen, mazes.right("exit")
    optimizer = torch.optim.Adam(network.parameters(), 4e-3)
    started = time.process_time()
    while time.process_time() - started < seconds:
        some = torch.randint(len(seen), (64,))
        of_batch = loss(network(seen[some]), right[some])
        optimizer.zero_grad()
        of_batch.backward()
        optimizer.step()
    return network.eval()


@torch.no_grad()
def climbed(looks: Callable[[], Iterator[tuple[int, bool]]]) -> tuple[int, float]:
    """The highest rung of a run, and the share of its looks at which rung 2 could be told."""
    rungs, told = zip(*looks(), strict=True)
    return max(rungs), sum(told) / len(told)


def row(name: str, found: list[tuple[int, float]], looks: int) -> str:
    cells = [name, str(len(found)), str(looks), f"{sum(told for _, told in found) / len(found):.2f}"]
    for rung in (1, 2):
        reached = sum(highest >= rung for highest, _ in found)
        upper = Mean((float(len(found) - reached), float(reached))).upper(0.05)
        cells.append(f"{reached} of {len(found)} (at most {upper:.2f})")
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=20, help="of each kind")
    parser.add_argument("--looks", type=int, default=100)
    parser.add_argument("--networks", type=int, default=4, help="trained ones, for permuted labels")
    parser.add_argument("--markdown", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    started = time.process_time()
    networks = [trained(seed, 10.0) for seed in range(options.networks)]
    rows: dict[str, list[tuple[int, float]]] = {"untrained": [], "permuted labels": []}
    for seed, of in enumerate(data(options.runs, 5000)):
        network = networks[seed % len(networks)]
        rows["untrained"].append(climbed(lambda of=of, seed=seed: drifting(of, seed, options.looks)))
        rows["permuted labels"].append(
            climbed(lambda of=of, seed=seed, network=network: permuted(of, seed, options.looks, network))
        )
        print(seed + 1, "of", options.runs, {name: found[-1] for name, found in rows.items()}, flush=True)
    lines = [
        "| network | runs | looks each | looks at which rung 2 could be told | ever rung 1 | ever rung 2 or above |",
        "|---|---|---|---|---|---|",
        *(row(name, found, options.looks) for name, found in rows.items()),
        "",
        f"In brackets the upper 95 % limit of the share. {time.process_time() - started:.0f} CPU seconds.",
    ]
    text = "\n".join(lines)
    print(text)
    if options.markdown is not None:
        options.markdown.write_text(f"{text}\n")


if __name__ == "__main__":
    main()
