"""The whole default alarm at once: 3 shifted distributions, 4 proxies, 5 groups, a cue, every signature.

    python benchmarks/whole_alarm.py             # 2,000 runs a cell
    python benchmarks/whole_alarm.py --runs 50   # quick
    python benchmarks/whole_alarm.py --fresh     # 100 new items at every look

In the null cells every null holds at every look (but those named), one part of each union exactly at its boundary,
where a false alarm is likeliest; a run counts if it raises any alert or warning whose null is true. In the last cell
one distribution of three develops a gap of .3 half way, and a run counts if ``objective_lost`` is raised there within
three looks (six, with fresh items). Re-used items are drawn once per run; an item keeps its outcome from look to look
with probability 0.8. Fresh ones, a fifth as many, are drawn anew at every look.
"""

import argparse
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_mesa.judge.alarm import Alarm
from lightning_mesa.objectives.hypotheses import Hypotheses
from lightning_mesa.objectives.matches import Matches
from lightning_mesa.records import Behavior
from lightning_mesa.stats.intervals import Mean
from lightning_mesa.testing import look_at

A, GROUPS = 20, 5
N = {"reused": 500, "fresh": 100}
DELAY = {"reused": 3, "fresh": 6}
"""Looks within which a gap of .3 is to be seen."""
PROXIES = ("p1", "p2", "p3", "p4")
SHIFTED = ("d1", "d2", "d3")
EVERYWHERE = ("val", *SHIFTED)
HYPOTHESES = Hypotheses(Matches("base"), [Matches(proxy) for proxy in PROXIES])


Targets = dict[str, Tensor]  # objective -> the choice it prescribes on each item [n]


@dataclass
class Following:
    """Probabilities, of all items or one by one, that the choice follows base, or else the first proxy."""

    base: Tensor
    proxy: Tensor


@dataclass
class World:
    """A kind of run.

    Attributes:
        follow: (targets of R, targets of a distribution, its name, whether the second half has begun) -> Following.
        apart_on_reference: Whether base and proxies disagree on the reference too.
        cue: Difference in competence with the cue.
        extremal: Share of shifted items beyond the reference's most extreme.
        constant: The model always chooses 0, which is on a quarter of the items.
        true: Signatures whose null is false here, which therefore may speak.
        detects: Count detections instead.
    """

    follow: Callable[[Targets, Targets, str, bool], Following]
    apart_on_reference: bool = False
    cue: float = 0.0
    extremal: float = 0.0
    constant: bool = False
    true: frozenset[str] = frozenset()
    detects: bool = False


def chance(prescribed: Tensor) -> float:
    """Share of the best constant choice; the probabilities below are set by it, run by run."""
    return float(prescribed.bincount(minlength=A).max()) / len(prescribed)


def chance_of_any(targets: Targets) -> float:
    masks = torch.stack([F.one_hot(target, A).bool() for target in targets.values()]).any(0)
    return float(masks.sum(0).max()) / len(masks)


def everywhere(base: float, proxy: float) -> Following:
    return Following(torch.tensor(base), torch.tensor(proxy))


def gaps_at_their_bounds(reference: Targets, here: Targets, where: str, late: bool) -> Following:
    """Competence .9 on R; .8 on the others, .7 in two of five groups there."""
    c = chance(here["base"])
    if where == "val":
        return everywhere(c + 0.9 * (1 - c), 0.0)
    kappa = torch.tensor([0.7, 0.7, 0.8 + 0.2 / 3, 0.8 + 0.2 / 3, 0.8 + 0.2 / 3])
    return Following(c + kappa[torch.arange(len(here["base"])) % GROUPS] * (1 - c), torch.tensor(0.0))


def tied(reference: Targets, here: Targets, where: str, late: bool) -> Following:
    return everywhere(0.47, 0.47)


def capability_at_half(reference: Targets, here: Targets, where: str, late: bool) -> Following:
    """Everything the model can do off the reference is the proxy's, and it is just not enough."""
    return everywhere(0.95, 0.0) if where == "val" else everywhere(0.0, 0.5 + 0.5 * chance_of_any(here))


def mostly_neither(reference: Targets, here: Targets, where: str, late: bool) -> Following:
    return everywhere(0.95, 0.0) if where == "val" else everywhere(0.1, 0.16)


def one_gap(reference: Targets, here: Targets, where: str, late: bool) -> Following:
    return everywhere(0.65, 0.3) if where == "d1" and late else everywhere(0.95, 0.0)


CELLS = {
    "gaps at .1, two groups at .2, cue at .1, extremes at .05": World(gaps_at_their_bounds, cue=0.1, extremal=0.05),
    "base and first proxy tied, here and on the reference": World(tied, apart_on_reference=True),
    "capability at .5, all of it the proxy's": World(capability_at_half, true=frozenset({"slice_failure"})),
    "mostly neither, proxy before base": World(mostly_neither, true=frozenset({"capability_failure", "slice_failure"})),
    "constant predictor, unbalanced classes": World(tied, constant=True),
    "one gap of .3 from half way on": World(one_gap, detects=True),
}


def run(cell: str, seed: int, looks: int, regime: str) -> bool:
    """Simulate one run; returns whether it counts."""
    torch.set_num_threads(1)
    world, n = CELLS[cell], N[regime]
    draw = torch.Generator().manual_seed(seed)
    alarm = Alarm()
    alarm.start(looks)
    for look in range(looks):
        late = look >= looks // 2
        if look == 0 or regime == "fresh":
            targets = {where: draw_targets(where, world, n, draw) for where in EVERYWHERE}
            uniform = {
                kind: {where: torch.rand(n, generator=draw) for where in EVERYWHERE}
                for kind in ("choice", "cue", "extreme")
            }
        behaviors = []
        for where in targets:
            for kind in ("choice", "cue"):
                drawn, again = torch.rand(n, generator=draw), torch.rand(n, generator=draw) < 0.2
                uniform[kind][where] = torch.where(again, drawn, uniform[kind][where])
            behaviors.append(behave(world, targets, where, late, {kind: u[where] for kind, u in uniform.items()}))
        regimes = dict.fromkeys(EVERYWHERE, regime)
        taken = look_at(behaviors, HYPOTHESES, plan=(look + 1, looks, 0), data_regimes=regimes, step=look)
        raised = {(alert.signature, alert.distribution) for alert in alarm.judge(taken).alerts}
        if world.detects and ("objective_lost", "d1") in raised:
            return 0 <= look - looks // 2 < DELAY[regime]
        if not world.detects and {signature for signature, _ in raised} - world.true:
            return True
    return False


def draw_targets(where: str, world: World, n: int, draw: torch.Generator) -> Targets:
    weights = torch.tensor([6.0] + [1.0] * (A - 1)) if world.constant else torch.ones(A)
    base, *own = (torch.multinomial(weights, n, replacement=True, generator=draw) for _ in range(1 + len(PROXIES)))
    apart = where != "val" or world.apart_on_reference
    return {"base": base} | dict(zip(PROXIES, own if apart else [base] * len(PROXIES), strict=True))


def behave(world: World, targets: dict[str, Targets], where: str, late: bool, uniform: dict[str, Tensor]) -> Behavior:
    here = targets[where]
    n = len(here["base"])
    group = torch.arange(n) % GROUPS
    follow = world.follow(targets["val"], here, where, late)
    # A choice that nothing prescribes, for items on which neither is followed.
    free = torch.zeros(n, A).scatter(1, torch.stack(list(here.values()), 1), 1.0).argmin(1)
    chosen = torch.where(uniform["choice"] < follow.base + follow.proxy, here["p1"], free)
    chosen = torch.where(uniform["choice"] < follow.base, here["base"], chosen)
    chosen = torch.zeros_like(chosen) if world.constant else chosen
    scores = {name: (chosen == target).double() for name, target in here.items()}
    right = float(follow.base.mean())
    lost = uniform["cue"] < world.cue * (1 - chance(here["base"])) / max(right, 1e-9)  # of the items that were right
    beyond = (uniform["extreme"] < world.extremal) & (where != "val")
    return Behavior(
        distribution=where,
        n=n,
        items=torch.arange(n),
        scores=scores,
        binary=frozenset(scores),
        prescribed={name: F.one_hot(target, A).bool() for name, target in here.items()},
        uniform_scores={},
        chosen=chosen,
        groups={f"group.{g}": group == g for g in range(GROUPS)},
        ids=None,
        extremity=uniform["extreme"] + 2.0 * beyond,
        cued=scores["base"] * ~lost if world.cue else None,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=2000)
    parser.add_argument("--looks", type=int, default=20)
    parser.add_argument("--fresh", dest="regime", action="store_const", const="fresh", default="reused")
    options = parser.parse_args()
    regime, items = options.regime, N[options.regime]
    print(f"{options.runs} runs a cell, {options.looks} looks, {items} {regime} items each, default alarm\n")
    print("| cell | counts if | runs that count | 99 % limit |\n|---|---|---|---|")
    with ProcessPoolExecutor(2) as pool:
        for cell, world in CELLS.items():
            counts = partial(run, cell, looks=options.looks, regime=regime)
            count = sum(pool.map(counts, range(options.runs), chunksize=5))
            mean = Mean((float(options.runs - count), float(count)))
            counts_if = f"detected within {DELAY[regime]} looks" if world.detects else "any alert or warning"
            counts_if += f", but {' and '.join(sorted(world.true))}" if world.true else ""
            limit = mean.lower(0.01) if world.detects else mean.upper(0.01)
            print(f"| {cell} | {counts_if} | {count} of {options.runs} | {limit:.4f} |", flush=True)


if __name__ == "__main__":
    main()
