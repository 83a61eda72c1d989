"""Do the limits of the behavioral objective cover it, and are there none where nothing tells it?

    python benchmarks/irl_coverage.py [--runs 1000]

In all tables the contrast is the proxy's weight less base's, limits are of 95 %, and brackets behind a number hold 95 %
Monte-Carlo limits: exact ones of shares (Clopper-Pearson), of the others by a bootstrap of the runs. A number outside
its target is bold. Tables that take long have fewer runs.
"""

import argparse
import math
import statistics
import sys
import textwrap
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path

import torch
from scipy.special import stdtrit
from torch import Tensor

from lightning_mesa.irl.conditional_logit import fit_conditional_logit
from lightning_mesa.irl.fit import ENOUGH, ObjectiveFit
from lightning_mesa.irl.successor import fit_rollouts, fit_successor_features
from lightning_mesa.irl.tabular import TabularMDP, soft_value_iteration
from lightning_mesa.stats.intervals import Mean

CONTRAST = torch.tensor([-1.0, 1.0], dtype=torch.float64)
WEIGHTS = torch.tensor([1.0, 2.0], dtype=torch.float64)
CHOICES = 10
RATIO = 1e-4
"""A usual rule calls weights identified if the information's smallest eigenvalue is more than this of the largest."""

AGREEMENTS = (0.0, 0.5, 0.9, 0.99, 0.999, 1.0)
UNEQUAL = (0.0, 0.5, 1.0)
CONFLICTS = (0.01, 0.03, 0.1, 0.3)
NOISES = (0.1, 0.3, 0.5)
EPISODES, DECISIONS = 200, 5


@dataclass(frozen=True)
class Outcome:
    """What one fit says of the contrast.

    Attributes:
        identified: By the package's rule.
        finite: Whether any number comes out, be it an estimate or the end of an interval.
        covers: Whether the interval contains the truth.
        estimate: Also where the package would not print it, as the next ones.
        error: Standard error.
        effective: Items, or clusters of items.
        passes: The rule of the eigenvalues.
        truth: What should be covered.
    """

    identified: bool
    finite: bool
    covers: bool
    estimate: float
    error: float
    effective: float
    passes: bool
    truth: float

    @property
    def covers_by_t(self) -> bool:
        """By the same formula without the rule."""
        reach = float(stdtrit(max(self.effective - 1, 0.05), 0.975))
        return abs(self.estimate - self.truth) <= reach * self.error

    @property
    def covers_by_z(self) -> bool:
        """As usual, by the normal quantile."""
        return abs(self.estimate - self.truth) <= 1.96 * self.error


def outcome(fit: ObjectiveFit, truth: float) -> Outcome:
    low, high = fit.interval(CONTRAST)
    assert fit.covariance is not None
    assert fit.units is not None
    values = torch.linalg.eigvalsh((fit.units + fit.units.mT).sum(0))
    return Outcome(
        fit.identifies(CONTRAST),
        any(math.isfinite(x) for x in (low, high, fit.estimate(CONTRAST))),
        low <= truth <= high,
        float(CONTRAST @ fit.solution),
        math.sqrt(max(0.0, float(CONTRAST @ fit.covariance @ CONTRAST))),
        fit.effective(CONTRAST),
        fit.converged and bool(values[0] > RATIO * values[-1]),
        truth,
    )


# One decision


def one_step(n: int, agree: float) -> tuple[Tensor, Tensor]:
    """``[n, A, 2]`` features and ``[n, A]`` probabilities of a chooser with weights 1 and 2, and noise of .5 sd."""
    base = torch.randint(CHOICES, (n,))
    other = (base + torch.randint(1, CHOICES, (n,))) % CHOICES
    features = _one_hot(base, torch.where(torch.rand(n) < agree, base, other))
    return features, (features @ WEIGHTS + 0.5 * torch.randn(n, CHOICES)).softmax(1)


@cache
def best_approximation(agree: float, n: int = 100_000) -> float:
    """The contrast that the fit of ever more items comes to: items that agree and that do not count as often as drawn.

    NaN where all agree.
    """
    if agree == 1:
        return math.nan
    parts = [one_step(n, 1.0), one_step(n, 0.0)]
    features, probabilities = (torch.cat(part) for part in zip(*parts, strict=True))
    counts = torch.tensor([agree, 1 - agree]).repeat_interleave(n)
    return fit_conditional_logit(features, probabilities, weights=counts).estimate(CONTRAST)


def known_and_sampled(n: int, runs: int, agree: float = 0.3) -> tuple[list[Outcome], list[Outcome]]:
    """From the probabilities, and from one action drawn at each item."""
    truth = best_approximation(agree)
    found: tuple[list[Outcome], list[Outcome]] = ([], [])
    for _ in range(runs):
        features, p = one_step(n, agree)
        drawn = torch.nn.functional.one_hot(torch.multinomial(p, 1)[:, 0], CHOICES)
        for part, probabilities in zip(found, (p, drawn), strict=True):
            part.append(outcome(fit_conditional_logit(features, probabilities), truth))
    return found


def agreement(agree: float, runs: int, n: int = 2000) -> list[Outcome]:
    truth = best_approximation(agree)
    return [outcome(fit_conditional_logit(*one_step(n, agree)), truth) for _ in range(runs)]


# Information in few clusters


def unequal(conflict: Tensor, spread: float) -> tuple[Tensor, Tensor, Tensor]:
    """Features, probabilities and labels of episodes of five items, in which base and proxy agree on all items or none.

    What is at stake differs between episodes, log-normally, and so do the weights, with .5 sd.

    Args:
        conflict: ``[episodes]`` bool.
        spread: Standard deviation of the log of the stakes.
    """
    count = len(conflict)
    labels = torch.arange(count).repeat_interleave(DECISIONS)
    base = torch.randint(CHOICES, (len(labels),))
    other = (base + torch.randint(1, CHOICES, (len(labels),))) % CHOICES
    features = _one_hot(base, torch.where(conflict[labels], other, base))
    features *= (spread * torch.randn(count, dtype=torch.float64)).exp()[labels, None, None]
    weights = (WEIGHTS + 0.5 * torch.randn(count, 2, dtype=torch.float64))[labels]
    return features, torch.einsum("nak,nk->na", features, weights).softmax(1), labels


def concentrated(spread: float, runs: int, episodes: int = 400) -> list[Outcome]:
    """``runs`` for each share of episodes with a conflict; those that happen to have none are left out."""
    known = torch.arange(25_000) < 20_000
    features, probabilities, labels = unequal(known, spread)
    found = []
    for share in CONFLICTS:
        counts = torch.where(known, share / 20_000, (1 - share) / 5_000)[labels]
        truth = fit_conditional_logit(features, probabilities, weights=counts).estimate(CONTRAST)
        for _ in range(runs):
            x, p, clusters = unequal(torch.rand(episodes) < share, spread)
            fit = fit_conditional_logit(x, p, clusters=clusters)
            if fit.converged and fit.basis.shape[1] == 2:
                found.append(outcome(fit, truth))
    return found


# Many decisions


def two_looks(noise: float, choices: int = 4) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Arguments of :func:`fit_successor_features`; the truth is 1, and half of all variance is the episode's."""

    def drawn(*looks: int) -> Tensor:
        each = torch.randn(*looks, EPISODES, DECISIONS, choices, 3, dtype=torch.float64)
        together = torch.randn(*looks, EPISODES, 1, choices, 3, dtype=torch.float64)
        return ((each + together) / math.sqrt(2)).flatten(-4, -3)

    true = drawn()
    seen = true + noise * drawn(2)
    log_p = (true[..., :2] @ WEIGHTS + true[..., 2]).log_softmax(1)
    return seen[..., :2], seen[..., 2], log_p, torch.arange(EPISODES).repeat_interleave(DECISIONS)


def successor(noise: float, runs: int) -> dict[str, list[Outcome]]:
    """By instruments, with and without clusters, and plainly from the average of both looks."""
    found: dict[str, list[Outcome]] = {"instruments": [], "no clusters": [], "plain": []}
    for _ in range(runs):
        x, h, log_p, clusters = two_looks(noise)
        plain = fit_conditional_logit(x.mean(0), log_p.exp(), offset=h.mean(0), clusters=clusters)
        found["instruments"].append(outcome(fit_successor_features(x, h, log_p, clusters=clusters), 1.0))
        found["no clusters"].append(outcome(fit_successor_features(x, h, log_p), 1.0))
        found["plain"].append(outcome(plain, 1.0))
    return found


@dataclass(frozen=True)
class World:
    """A random process of 12 states and 3 actions whose episodes end with probability .1, and a soft-optimal policy."""

    mdp: TabularMDP
    features: Tensor
    policy: Tensor

    @classmethod
    def drawn(cls, discount: float, seed: int = 0, states: int = 12, actions: int = 3) -> "World":
        draw = torch.Generator().manual_seed(seed)
        moves = torch.randn(states, actions, states, generator=draw, dtype=torch.float64)
        features = torch.randn(states, actions, 2, generator=draw, dtype=torch.float64)
        initial = torch.full((states,), 1 / states, dtype=torch.float64)
        mdp = TabularMDP(0.9 * (2 * moves).softmax(-1), initial, discount)
        return cls(mdp, features, soft_value_iteration(mdp, features @ WEIGHTS / 2).policy)

    def recorded(self, behavior: Tensor, episodes: int = EPISODES) -> tuple[Tensor, Tensor, Tensor]:
        """``[N]`` states, actions and episodes."""
        ends = 1 - self.mdp.transitions.sum(-1, keepdim=True)
        following = torch.cat([self.mdp.transitions, ends], -1)
        episode, state = torch.arange(episodes), torch.multinomial(self.mdp.initial, episodes, replacement=True)
        steps = []
        while len(state):
            action = torch.multinomial(behavior[state], 1)[:, 0]
            steps.append(torch.stack([state, action, episode]))
            state = torch.multinomial(following[state, action], 1)[:, 0]
            episode, state = episode[state < self.mdp.states], state[state < self.mdp.states]
        found = torch.cat(steps, 1)  # by time; within an episode a stable sort keeps it
        state, action, episode = found[:, found[2].argsort(stable=True)]
        return state, action, episode

    def fit(self, behavior: Tensor) -> ObjectiveFit:
        state, action, episode = self.recorded(behavior)
        pairs = self.mdp.states * self.mdp.actions
        encodings = torch.eye(pairs, dtype=torch.float64).reshape(self.mdp.states, self.mdp.actions, pairs)
        return fit_rollouts(
            self.features[state, action],
            self.policy[state].log(),
            action,
            episode,
            encodings[state],
            discount=self.mdp.discount,
            behavior=behavior[state],
        )


def rollouts(discount: float, exploring: float, runs: int) -> list[Outcome]:
    """Truth .5; ``exploring`` is the share of uniform choices in the behavior."""
    world = World.drawn(discount)
    behavior = (1 - exploring) * world.policy + exploring / world.mdp.actions
    return [outcome(world.fit(behavior), 0.5) for _ in range(runs)]


# Cost


def cost(repeats: int = 20) -> tuple[float, float]:
    """Median seconds of a fit (n = 1000, A = 10, K = 4), and of a forward pass of as many images, taken by turns."""
    sys.path.append(str(Path(__file__).parents[1] / "examples"))
    from colored_digits import SmallConvNet

    features = torch.randn(1000, CHOICES, 4)
    probabilities = (features.sum(2) + 0.5 * torch.randn(1000, CHOICES)).softmax(1)
    network, images = SmallConvNet().eval(), torch.rand(1000, 3, 8, 8)
    calls = (lambda: fit_conditional_logit(features, probabilities), lambda: network(images))
    seconds: tuple[list[float], list[float]] = ([], [])
    with torch.no_grad():
        for repeat in range(repeats + 3):
            for taken, call in zip(seconds, calls, strict=True):
                started = time.perf_counter()
                call()
                if repeat >= 3:
                    taken.append(time.perf_counter() - started)
    return statistics.median(seconds[0]), statistics.median(seconds[1])


# Tables


def share(hits: Sequence[bool], target: tuple[float, float] = (0.0, 1.0)) -> str:
    if not hits:
        return "-"
    mean = Mean((float(len(hits) - sum(hits)), float(sum(hits))))
    low, high = mean.limits(0.95)
    return f"{_judged(f'{mean.value:.3f}', mean.value, target)} [{low:.3f}, {high:.3f}]"


def number(draws: Tensor, statistic: Callable[[Tensor], Tensor], target: tuple[float, float] = (0.0, math.inf)) -> str:
    """A statistic ``[..., runs, k] -> [...]`` of ``[runs, k]`` draws, with limits by 500 bootstrap samples."""
    value = float(statistic(draws))
    again = statistic(draws[torch.randint(len(draws), (500, len(draws)))])
    low, high = again.quantile(torch.tensor([0.025, 0.975], dtype=draws.dtype)).tolist()
    shown = [f"{x:,.0f}" if abs(x) >= 100 else f"{x:.3g}" for x in (value, low, high)]
    return f"{_judged(shown[0], value, target)} [{shown[1]}, {shown[2]}]"


def one_step_rows(runs: int) -> Iterator[str]:
    yield from _head(
        "items",
        "coverage",
        "mean standard error",
        "coverage, sampled",
        "mean standard error, sampled",
        "variance ratio",
    )
    for n in (100, 300, 1000, 3000):
        known, sampled = known_and_sampled(n, runs)
        estimates = _columns(known, "estimate"), _columns(sampled, "estimate")
        yield _row(
            f"{n:,}",
            share([one.covers for one in known], (0.93, 0.97) if n >= 300 else (0.0, 1.0)),
            number(_columns(known, "error"), _mean),
            share([one.covers for one in sampled]),
            number(_columns(sampled, "error"), _mean),
            number(torch.cat(estimates, 1), lambda x: x[..., 1].var(-1) / x[..., 0].var(-1), (5.0, math.inf)),
        )


def agreement_rows(runs: int) -> Iterator[str]:
    yield from _head(
        "agreement", "identified", "any finite number", "coverage if identified", "effective items, median"
    )
    for agree in AGREEMENTS:
        found = agreement(agree, runs)
        possible = (0.0, 1.0 if agree < 1 else 0.0)
        yield _row(
            f"{agree:g}",
            share([one.identified for one in found], possible),
            share([one.finite for one in found], possible),
            share([one.covers for one in found if one.identified], (0.93, 1.0)),
            number(_columns(found, "effective"), _median),
        )


def concentrated_rows(runs: int) -> Iterator[str]:
    yield from _head(
        "sd of log stakes", "effective clusters", "runs", "eigenvalue rule passes", "coverage by t", "by 1.96"
    )
    bounds = (0, 5, 10, ENOUGH, 60, math.inf)
    for spread in UNEQUAL:
        found = concentrated(spread, runs)
        for low, high in pairwise(bounds):
            here = [one for one in found if low <= one.effective < high]
            yield _row(
                f"{spread:g}",
                f"{low:g} to {high:g}" if high < math.inf else f"more than {low:g}",
                str(len(here)),
                share([one.passes for one in here]),
                share([one.covers_by_t for one in here], (0.93 if low >= ENOUGH else 0.0, 1.0)),
                share([one.covers_by_z for one in here]),
            )


def successor_rows(runs: int) -> Iterator[str]:
    yield from _head(
        "noise, sd",
        "coverage",
        "standard error",
        "estimate",
        "coverage without clusters",
        "plain: coverage",
        "estimate",
    )
    for noise in NOISES:
        found = successor(noise, runs)
        instruments, plain = found["instruments"], found["plain"]
        yield _row(
            f"{noise:g}",
            share([one.covers for one in instruments], (0.92, 0.98)),
            number(_columns(instruments, "error"), _median),
            number(_columns(instruments, "estimate"), _mean),
            share([one.covers for one in found["no clusters"]]),
            share([one.covers for one in plain]),
            number(_columns(plain, "estimate"), _mean),
        )


def rollout_rows(runs: int) -> Iterator[str]:
    yield from _head(
        "discount", "behavior", "identified", "coverage if identified", "coverage by t of all", "standard error, median"
    )
    for discount, exploring in ((0.8, 0.0), (0.9, 0.0), (0.9, 0.5), (0.95, 0.0)):
        found = rollouts(discount, exploring, runs)
        yield _row(
            f"{discount:g}",
            "half uniform" if exploring else "the policy",
            share([one.identified for one in found]),
            share([one.covers for one in found if one.identified], (0.92, 0.98)),
            share([one.covers_by_t for one in found], (0.92, 0.98)),
            number(_columns(found, "error"), _median),
        )


def cost_rows(default_threads: int) -> Iterator[str]:
    yield from _head("threads", "fit, ms", "forward pass, ms", "fit / forward pass")
    for threads in (1, default_threads):
        torch.set_num_threads(threads)
        fit, forward = cost()
        yield _row(f"{threads}", f"{1e3 * fit:.1f}", f"{1e3 * forward:.1f}", f"{fit / forward:.2f}")
    torch.set_num_threads(1)


def report(runs: int, default_threads: int) -> Iterator[str]:
    assert __doc__ is not None
    yield f"# Coverage of the behavioral objective\n\n{__doc__.split(chr(10) * 2, 2)[2]}"
    half, fourth = (max(1, runs // part) for part in (2, 4))
    yield _section(
        "One decision: known probabilities, and sampled actions",
        f"""{runs:,} runs a row. Ten choices; base and proxy agree on 30 % of items; log-probabilities have noise of .5
        that no objective explains. Targets: .93 to .97 from 300 items on, and a variance from sampled actions of at
        least 5 times that from probabilities.""",
    )
    yield from one_step_rows(runs)
    yield _section(
        "Identification",
        f"""{half:,} runs a row of 2,000 items. Targets: nothing identified and nothing finite where all agree, and
        coverage of at least .93 where identified.""",
    )
    yield from agreement_rows(half)
    yield _section(
        "Few clusters of unequal information",
        f"""{len(CONFLICTS)} times {fourth:,} runs a block, of 400 episodes of five items, in
        {", ".join(f"{100 * x:g}" for x in CONFLICTS)} % of which base and proxy are in conflict. Weights differ between
        episodes, and so does what is at stake. Runs are sorted by their effective clusters, of which {ENOUGH:.0f} are
        needed: the target is .93 from there on. Beside it a usual rule, that the smallest eigenvalue is more than
        {RATIO:g} of the largest. Where stakes are very unequal, few runs meet those that count most.""",
    )
    yield from concentrated_rows(fourth)
    yield _section(
        "Two looks at what follows",
        f"""{runs:,} runs a row of {EPISODES} episodes of {DECISIONS} decisions among four choices; the truth is 1.
        Target: .92 to .98 by instruments with clusters; the plain fit, of the average of both looks, has to fail.""",
    )
    yield from successor_rows(runs)
    yield _section(
        "Recorded episodes",
        f"""{fourth:,} runs a row of {EPISODES} episodes of a random process of 12 states and 3 actions, which end with
        probability .1 at each step; the truth is .5. Target: .92 to .98.""",
    )
    yield from rollout_rows(fourth)
    yield _section(
        "Cost",
        """Of a fit of 1,000 items, ten choices and four objectives, and of a forward pass of the small network of the
        first example on 1,000 images: medians of 20, by turns. With several threads, each of a fit's many small
        operations waits for all of them, and so for any other process that takes a core.""",
    )
    yield from cost_rows(default_threads)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=1000)
    options = parser.parse_args()
    default_threads, start = torch.get_num_threads(), time.perf_counter()
    torch.manual_seed(0)
    torch.set_num_threads(1)
    for line in report(options.runs, default_threads):
        print(line, flush=True)
    print(f"\n{time.perf_counter() - start:.0f} s", file=sys.stderr)


def _one_hot(base: Tensor, proxy: Tensor) -> Tensor:
    return torch.nn.functional.one_hot(torch.stack([base, proxy], 1), CHOICES).transpose(1, 2).double()


def _columns(found: Sequence[Outcome], name: str) -> Tensor:
    """``[runs, 1]``."""
    return torch.tensor([[getattr(one, name)] for one in found], dtype=torch.float64)


def _mean(draws: Tensor) -> Tensor:
    return draws.mean((-2, -1))


def _median(draws: Tensor) -> Tensor:
    return draws[..., 0].median(-1).values


def _judged(text: str, value: float, target: tuple[float, float]) -> str:
    return text if target[0] <= value <= target[1] else f"**{text}**"


def _section(title: str, text: str) -> str:
    return f"\n## {title}\n\n{textwrap.fill(' '.join(text.split()), 120)}\n"


def _head(*cells: str) -> Iterator[str]:
    yield _row(*cells)
    yield f"|{'---|' * len(cells)}"


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
