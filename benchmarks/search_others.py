"""Three more of the networks that are said to search: how far they get in minutes, and what the probes say.

    python benchmarks/search_others.py                       # trains what is missing in --keep, then prints the table
    python benchmarks/search_others.py --markdown docs/search_others.md

* *VIN*, the original value-iteration network (Tamar et al. 2016, arXiv:1602.02867): rewards and values in planes, a
  convolution that looks ahead, the largest over its channels, again and again; on ``organisms/search/mazes.py``.
* *TreeQN* (Farquhar et al. 2018, arXiv:1710.11417): a transition for each action, applied as a tree of depth 3 in a
  space that is learned, rewards and values backed up; supervised, on small trees of rewards.
* *RL2* (Duan et al. 2016, arXiv:1611.02779): a recurrent network that sees its own actions and rewards, trained by
  policy gradient over bandits, each of 40 pulls.

Beside what each reaches stands what a random choice gets, a rule without foresight or memory, and an oracle.
"""

import argparse
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_mesa.observe.subject import Subject
from lightning_mesa.organisms.search import mazes
from lightning_mesa.organisms.training import loss
from lightning_mesa.probes import ConsequenceSensitivity, Pairs, Probe, Retargeting

SECONDS = 80.0
"""CPU time for the training of each."""


@dataclass(frozen=True)
class Task:
    """What a network is trained on, and what it can be compared with.

    Attributes:
        build: The network.
        loss: ``(network, step) ->`` loss on fresh items.
        reached: ``network ->`` share of right choices, or mean reward, on items that training has not seen.
        references: ``network ->`` the same of something else, by name.
        probes: Those that apply.
        why: Why no others do.
        rate: Of learning.
    """

    build: Callable[[], nn.Module]
    loss: Callable[[nn.Module, int], Tensor]
    reached: Callable[[nn.Module], float]
    references: Callable[[nn.Module], dict[str, float]]
    probes: Callable[[], Sequence[Probe]]
    why: str
    rate: float = 1e-3


class ValueIterationNetwork(nn.Module):
    """Tamar et al. 2016, deciding in every cell."""

    def __init__(self, steps: int = 24, channels: int = 10, hidden: int = 150) -> None:
        super().__init__()
        self.steps = steps
        self.hidden = nn.Conv2d(3, hidden, 3, padding=1)
        self.reward = nn.Conv2d(hidden, 1, 1, bias=False)
        self.look_ahead = nn.Conv2d(2, channels, 3, padding=1, bias=False)
        self.decide = nn.Conv2d(channels, len(mazes.STEPS), 1, bias=False)

    def forward(self, seen: Tensor) -> Tensor:
        reward = self.reward(self.hidden(seen))
        values = torch.zeros_like(reward)
        for _ in range(self.steps):
            of_actions = self.look_ahead(torch.cat([reward, values], 1))
            values = of_actions.amax(1, keepdim=True)
        return self.decide(of_actions)


MAZES, MANY_MAZES, SOME_MAZES = 7000, 20_000, 500


@cache
def lessons() -> tuple[Tensor, Tensor]:
    drawn = mazes.draw(MANY_MAZES, MAZES)
    return drawn.seen, drawn.right("exit")


def maze_loss(network: nn.Module, step: int) -> Tensor:
    seen, right = lessons()
    some = torch.randint(MANY_MAZES, (64,))
    return loss(network(seen[some]), right[some])


def mazes_right(choose: Callable[[mazes.Mazes], Tensor]) -> float:
    unseen = mazes.draw(SOME_MAZES, MAZES + 1)
    return float(mazes.accuracy(choose(unseen), unseen.right("exit")).mean())


def by_chance(unseen: mazes.Mazes) -> Tensor:
    shape = (len(unseen.walls), len(mazes.STEPS), mazes.SIZE, mazes.SIZE)
    return torch.rand(shape, generator=torch.Generator().manual_seed(0))


ACTIONS, DEPTH, NODES = 3, 3, 3 + 9 + 27


class TreeQN(nn.Module):
    """Farquhar et al. 2018: a tree in a space that is learned; what an action is worth is backed up from its leaves."""

    def __init__(self, width: int = 96) -> None:
        super().__init__()
        self.encode = nn.Sequential(nn.Linear(NODES, width), nn.ReLU(), nn.Linear(width, width), nn.Tanh())
        self.move = nn.Linear(width, ACTIONS * width)
        self.reward = nn.Sequential(nn.Linear(width, 64), nn.ReLU(), nn.Linear(64, ACTIONS))
        self.value = nn.Linear(width, 1)

    def forward(self, seen: Tensor) -> Tensor:
        return self.worth(self.encode(seen), DEPTH)

    def worth(self, state: Tensor, depth: int) -> Tensor:
        """``[..., A]`` rewards, and below them what the tree gives."""
        after = state[..., None, :] + self.move(state).tanh().unflatten(-1, (ACTIONS, -1))
        after = after / after.norm(dim=-1, keepdim=True) * after.shape[-1] ** 0.5
        if depth == 1:
            return self.reward(state) + self.value(after).squeeze(-1)
        below = self.worth(after, depth - 1)
        return self.reward(state) + (below.softmax(-1) * below).sum(-1)


def best_sums(rewards: Tensor) -> Tensor:
    """``[n, A]`` the largest sum of rewards from each first action on, of trees ``[n, 3 + 9 + 27]``."""
    first, second, third = (
        part.reshape(len(rewards), *[ACTIONS] * (i + 1)) for i, part in enumerate(rewards.split([3, 9, 27], 1))
    )
    best: Tensor = first + (second + third.amax(-1)).amax(-1)
    return best


def trees(n: int, seed: int) -> Tensor:
    return torch.randn(n, NODES, generator=torch.Generator().manual_seed(seed))


def tree_loss(network: nn.Module, step: int) -> Tensor:
    given = torch.randn(256, NODES)
    return F.cross_entropy(network(given), best_sums(given).argmax(1))


def trees_right(choose: Callable[[Tensor], Tensor]) -> float:
    unseen = trees(2000, 1)
    return float((choose(unseen).argmax(1) == best_sums(unseen).argmax(1)).double().mean())


def distant_rewards() -> Pairs:
    """Trees whose last rewards are drawn anew: what that changes two steps before."""
    before, leaves = trees(2000, 2), trees(2000, 3)[:, :27]
    after = torch.cat([before[:, : NODES - 27], leaves], 1)
    rights = [{"base": F.one_hot(best_sums(given).argmax(1), ACTIONS).bool()} for given in (before, after)]
    return Pairs(before, after, *rights)


ARMS, PULLS = 5, 40


class Bandit(nn.Module):
    """Duan et al. 2016: sees the arm that it has pulled and what it got."""

    def __init__(self, width: int = 48) -> None:
        super().__init__()
        self.cell = nn.GRUCell(ARMS + 1, width)
        self.policy = nn.Linear(width, ARMS)
        self.value = nn.Linear(width, 1)


def pulled(network: nn.Module, arms: Tensor, remembers: bool = True) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """``[T, n]`` each: rewards, log-probabilities of what was pulled, entropies, and expected returns."""
    n = len(arms)
    hidden, seen = arms.new_zeros(n, network.cell.hidden_size), arms.new_zeros(n, ARMS + 1)
    found = []
    for _ in range(PULLS):
        hidden = network.cell(seen, hidden if remembers else torch.zeros_like(hidden))
        policy = torch.distributions.Categorical(logits=network.policy(hidden))
        arm = policy.sample()
        reward = (torch.rand(n) < arms.gather(1, arm[:, None]).squeeze(1)).float()
        found.append((reward, policy.log_prob(arm), policy.entropy(), network.value(hidden).squeeze(1)))
        seen = torch.cat([F.one_hot(arm, ARMS).float(), reward[:, None]], 1)
    rewards, log_probabilities, entropies, values = (torch.stack(x) for x in zip(*found, strict=True))
    return rewards, log_probabilities, entropies, values


def bandit_loss(network: nn.Module, step: int) -> Tensor:
    """Advantage actor-critic, with returns discounted by .9 and an entropy bonus that fades."""
    rewards, log_probabilities, entropies, values = pulled(network, torch.rand(256, ARMS))
    returns, last = torch.zeros_like(rewards), torch.zeros(rewards.shape[1])
    for t in reversed(range(PULLS)):
        returns[t] = last = rewards[t] + 0.9 * last
    advantages = returns - values.detach()
    advantages = (advantages - advantages.mean()) / advantages.std()
    bonus = 0.05 * max(0.0, 1 - step / 1500)
    return -(advantages * log_probabilities).mean() + 0.1 * F.mse_loss(values, returns) - bonus * entropies.mean()


@torch.no_grad()
def late_reward(network: nn.Module, remembers: bool = True) -> float:
    """Mean reward in the last ten pulls, over 2000 bandits."""
    torch.manual_seed(1)
    return float(pulled(network, torch.rand(2000, ARMS), remembers)[0][-10:].mean())


def bandit_references(network: nn.Module) -> dict[str, float]:
    return {"random": 0.5, "its memory taken": late_reward(network, remembers=False), "oracle": ARMS / (ARMS + 1)}


TASKS = {
    "VIN": Task(
        ValueIterationNetwork,
        maze_loss,
        lambda network: mazes_right(lambda unseen: network(unseen.seen)),
        lambda network: {
            "random": mazes_right(by_chance),
            "straight at the exit": mazes_right(lambda unseen: mazes.greedy_steps(unseen.walls, unseen.exit).float()),
            "oracle": 1.0,
        },
        lambda: [
            ConsequenceSensitivity(mazes.far_changes(150, 3000)),
            Retargeting(mazes.moved_goals(200, 4000), "reward"),
        ],
        "ContextDescent: no differentiable objective of its iterates",
        5e-3,
    ),
    "TreeQN": Task(
        TreeQN,
        tree_loss,
        trees_right,
        lambda network: {
            "random": 1 / ACTIONS,
            "the next reward alone": trees_right(lambda unseen: unseen[:, :ACTIONS]),
            "oracle": 1.0,
        },
        lambda: [ConsequenceSensitivity(distant_rewards)],
        "Retargeting: no positions; ContextDescent: its states form a tree, not a sequence, and are not answers",
    ),
    "RL2": Task(
        Bandit,
        bandit_loss,
        late_reward,
        bandit_references,
        lambda: [],
        "what it learns about is in its memory and not in its input: no far change can be built into an input, no "
        "target has a place, and it states no objective that an iterate could descend",
        3e-3,
    ),
}


def trained(task: Task, seed: int, seconds: float) -> tuple[nn.Module, int]:
    torch.manual_seed(seed)
    network = task.build()
    optimizer = torch.optim.Adam(network.parameters(), task.rate)
    task.loss(network, 0)  # draws mazes before the clock starts
    started, steps = time.process_time(), 0
    while (spent := time.process_time() - started) < seconds:
        for group in optimizer.param_groups:
            group["lr"] = task.rate * min(1.0, 3 * (1 - spent / seconds))  # falls in the last third
        optimizer.zero_grad()
        task.loss(network, steps).backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        steps += 1
    return network.eval(), steps


def judged(kind: str, seed: int, seconds: float) -> dict[str, object]:
    task = TASKS[kind]
    network, steps = trained(task, seed, seconds)
    found, subject = [], Subject(network, seed=seed)
    with torch.no_grad():
        for probe in task.probes():
            probe.check(subject)
            found += [(probe.name, result) for result in probe.run(subject) if result.quantity == "probe"]
        said = [
            f"{name}, {result.objective}: {result.status if result.value is None else f'{result.value:.2f}'}"
            + (" (positive)" if result.positive else "")
            for name, result in found
        ]
        return {
            "kind": kind,
            "seed": seed,
            "seconds": seconds,
            "steps": steps,
            "reached": task.reached(network),
            "references": task.references(network),
            "probes": said,
            "why": task.why,
        }


def table(records: Sequence[dict[str, object]]) -> str:
    lines = ["| network | seed | steps in CPU-seconds | reached | beside | probes | none other, as |", "|---" * 7 + "|"]
    for r in records:
        references = r["references"]
        assert isinstance(references, dict)
        beside = ", ".join(f"{name} {value:.2f}" for name, value in references.items())
        said = "; ".join(map(str, r["probes"])) or "none"  # type: ignore[call-overload]
        cells = (r["kind"], r["seed"], f"{r['steps']} in {r['seconds']:.0f}", f"{r['reached']:.2f}", beside, said)
        lines.append("| " + " | ".join(map(str, (*cells, r["why"]))) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keep", type=Path, default=Path("runs/search_others"), help="one file for each network")
    parser.add_argument("--seeds", type=int, default=1, help="so many of each")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="CPU time for the training of each")
    parser.add_argument("--markdown", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    options.keep.mkdir(parents=True, exist_ok=True)
    records = []
    for kind in TASKS:
        for seed in range(options.seeds):
            file = options.keep / f"{kind}-{seed}-{options.seconds:.0f}.json"
            if not file.exists():
                file.write_text(json.dumps(judged(kind, seed, options.seconds)))
            records.append(json.loads(file.read_text()))
            print(records[-1], flush=True)
    made = "Made by `python benchmarks/search_others.py`, which says what each network is and what it is trained on."
    text = f"# Others that are said to search\n\n{made}\n\n{table(records)}"
    print(text)
    if options.markdown is not None:
        options.markdown.write_text(f"{text}\n")


if __name__ == "__main__":
    main()
