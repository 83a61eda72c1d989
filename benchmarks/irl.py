"""Inverse reinforcement learning beside `imitation` 1.0.1: CPU time and errors on the same decision processes.

    python benchmarks/irl.py

`imitation` (maximum causal entropy IRL) is given the transitions, a linear reward, and the policy's exact occupancy as
its demonstration, with its default optimizer and stopping rules. As it pins older packages, it runs in a virtual
environment of its own, which is made at the first call. Its CPU time is that of ``train`` alone. Ours is that of all
from the array of transitions to the weights, by Newton's method (``max_causal_entropy_irl``) and by the conditional
logit on successor features: the median of 3 calls. All have one thread, and are called once before they are timed.

Policies are soft-optimal for 8 features of states, horizon 30, discount 1, all states alike at first. *Policy error* is
the largest absolute difference between a probability of the policy and of the one that was found, over times t and
states s with P(s_t = s) > 1e-6 under the policy, and over seeds; *weight error* that between weights, in the directions
that are identified. Weights have a standard deviation of 0.5: with larger ones `imitation` ends on grids at its limit
of 1000 iterations. Rows of dense transitions are Dirichlet(0.1): with uniform ones all policies visit states so much
alike that it stops at the first iterations.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lightning_mesa.irl.conditional_logit import fit_conditional_logit
from lightning_mesa.irl.fit import ObjectiveFit
from lightning_mesa.irl.tabular import (
    TabularMDP,
    max_causal_entropy_irl,
    occupancy,
    soft_value_iteration,
    successor_features,
)

ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
PACKAGES = ("torch==2.13.0", "imitation==1.0.1")
HORIZON, FEATURES, REPEATS, REACHED = 30, 8, 3, 1e-6


@dataclass
class Problem:
    """Transitions ``[S, A, S]``, features ``[S, K]`` of states, and their weights."""

    transitions: Tensor
    features: Tensor
    weights: Tensor
    initial: Tensor

    @property
    def mdp(self) -> TabularMDP:
        return TabularMDP(self.transitions, self.initial, horizon=HORIZON)

    @property
    def of_actions(self) -> Tensor:
        """``[S, A, K]``."""
        return self.features[:, None].expand(-1, self.transitions.shape[1], -1).contiguous()

    def policy(self, weights: Tensor) -> Tensor:
        return soft_value_iteration(self.mdp, self.of_actions @ weights).policy


def grid(side: int) -> Tensor:
    """Stay or go to a neighbor; one move in five is drawn at random, and walls hold."""
    moves = [(0, 0), (0, 1), (0, -1), (1, 0), (-1, 0)]
    certain = torch.zeros(side * side, len(moves), side * side, dtype=torch.float64)
    for state in range(side * side):
        for action, (down, right) in enumerate(moves):
            row, column = state // side + down, state % side + right
            inside = 0 <= row < side and 0 <= column < side
            certain[state, action, row * side + column if inside else state] = 1
    return 0.8 * certain + 0.2 * certain.mean(1, keepdim=True)


def dense(states: int, actions: int) -> Tensor:
    """Rows Dirichlet(0.1)."""
    return torch.distributions.Dirichlet(torch.full((states,), 0.1).double()).sample((states, actions))


# How transitions are drawn, and the ratios to be reached by Newton's method and by successor features.
PROBLEMS: dict[str, tuple[Callable[[], Tensor], float | None, float]] = {
    "grid, 100 states": (lambda: grid(10), 30, 15),
    "grid, 400 states": (lambda: grid(20), 30, 15),
    "dense, 100 states": (lambda: dense(100, 4), None, 15),
    "dense, 400 states": (lambda: dense(400, 5), 5, 15),
}


def drawn(transitions: Callable[[], Tensor], seed: int) -> Problem:
    torch.manual_seed(seed)
    moves = transitions()
    states = len(moves)
    features = torch.randn(states, FEATURES, dtype=torch.float64)
    weights = 0.5 * torch.randn(FEATURES, dtype=torch.float64)
    return Problem(moves, features, weights, torch.full((states,), 1 / states, dtype=torch.float64))


def by_newton(problem: Problem, policy: Tensor) -> ObjectiveFit:
    return max_causal_entropy_irl(problem.mdp, problem.of_actions, policy)


def by_successor_features(problem: Problem, policy: Tensor) -> ObjectiveFit:
    mdp = problem.mdp
    psi, entropy = successor_features(mdp, problem.of_actions, policy)
    return fit_conditional_logit(
        psi.flatten(0, 1),
        policy.flatten(0, 1),
        weights=occupancy(mdp, policy).flatten(),
        offset=entropy.flatten(0, 1),
        exhaustive=True,
    )


@dataclass
class Outcome:
    """CPU seconds and errors of one way on one problem."""

    seconds: float
    policy_error: float
    weight_error: float = 0.0


def ours(fit: Callable[[Problem, Tensor], ObjectiveFit], problem: Problem, policy: Tensor, reached: Tensor) -> Outcome:
    found, seconds = fit(problem, policy), []
    for _ in range(REPEATS):
        started = time.process_time()
        found = fit(problem, policy)
        seconds.append(time.process_time() - started)
    off = found.basis.T @ (found.solution - problem.weights)
    error = (problem.policy(found.solution) - policy)[reached].abs().max()
    return Outcome(statistics.median(seconds), float(error), float((found.basis @ off).abs().max()))


def imitations(python: Path, problem: Problem, policy: Tensor, reached: Tensor) -> Outcome:
    with tempfile.TemporaryDirectory() as folder:
        given, found = Path(folder, "given.npz"), Path(folder, "found.npz")
        arrays = {name: value.numpy() for name, value in vars(problem).items()}
        np.savez(given, policy=policy.numpy(), **arrays)
        worker = Path(__file__).with_name("irl_imitation.py")
        subprocess.run([python, worker, given, found], check=True, env=os.environ | {"PYTHONPATH": ""})
        result = np.load(found)
        error = (torch.from_numpy(result["policy"]) - policy)[reached].abs().max()
        return Outcome(float(result["seconds"]), float(error))


def environment(folder: Path) -> Path:
    """The Python of a virtual environment with `imitation`, made if there is none."""
    python = folder / "bin" / "python"
    if not any(folder.glob("lib/python*/site-packages/imitation")):
        print(f"Installing {' and '.join(PACKAGES)} in {folder} ...", file=sys.stderr)
        venv.create(folder, with_pip=True)
        for package in PACKAGES:
            subprocess.run([python, "-m", "pip", "install", "--quiet", package], check=True)
    return python


def row(name: str, python: Path, seeds: int) -> str:
    transitions, *targets = PROBLEMS[name]
    outcomes: dict[str, list[Outcome]] = {"imitation": [], "newton": [], "successor": []}
    for seed in range(seeds):
        problem = drawn(transitions, seed)
        policy = problem.policy(problem.weights)
        reached = occupancy(problem.mdp, policy) > REACHED
        outcomes["imitation"].append(imitations(python, problem, policy, reached))
        outcomes["newton"].append(ours(by_newton, problem, policy, reached))
        outcomes["successor"].append(ours(by_successor_features, problem, policy, reached))
    theirs, *own = outcomes.values()
    cells = [f"{statistics.median(one.seconds for one in each):.3g} s" for each in outcomes.values()]
    for each, target in zip(own, targets, strict=True):
        ratios = [a.seconds / b.seconds for a, b in zip(theirs, each, strict=True)]
        wanted = "" if target is None else f", to reach {target:.0f}"
        cells.append(f"{statistics.median(ratios):.0f} (worst {min(ratios):.0f}{wanted})")
    cells += [f"{max(one.policy_error for one in each):.0e}" for each in outcomes.values()]
    cells += [f"{max(one.weight_error for one in each):.0e}" for each in own]
    return f"| {name} | {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--only", choices=PROBLEMS, help="one problem instead of all")
    parser.add_argument("--venv", type=Path, default=Path("runs/imitation"), help="where `imitation` is or will be")
    options = parser.parse_args()
    if ONE_THREAD.items() - os.environ.items():  # too late for NumPy, which is imported
        sys.exit(subprocess.run([sys.executable, *sys.argv], env=os.environ | ONE_THREAD).returncode)
    python = environment(options.venv)
    print(f"Horizon {HORIZON}, {FEATURES} features, {options.seeds} seeds, one thread; CPU seconds are medians.\n")
    ways = ["`imitation`", "Newton", "successor features"]
    heads = ["problem", *ways, *[f"`imitation` / {way}" for way in ways[1:]]]
    heads += [f"policy error: {way}" for way in ways] + [f"weight error: {way}" for way in ways[1:]]
    print(f"| {' | '.join(heads)} |")
    print("|---|" + "---:|" * 10)
    for name in [options.only] if options.only else PROBLEMS:
        print(row(name, python, options.seeds), flush=True)


if __name__ == "__main__":
    main()
