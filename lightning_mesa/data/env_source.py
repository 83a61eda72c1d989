"""Episodes of the model's policy in environments, observed as the behavior on a distribution."""

import random
from collections.abc import Generator, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor

from lightning_mesa.data.distribution import Source
from lightning_mesa.data.progress import finished, progress
from lightning_mesa.errors import ConfigurationError
from lightning_mesa.objectives.episodes import EpisodeObjective
from lightning_mesa.observe.context import LookContext
from lightning_mesa.observe.decisions import run_decisions
from lightning_mesa.observe.isolation import random_streams
from lightning_mesa.observe.policies import (
    Act,
    NoActionError,
    constant_policies,
    policy_of,
    preferences_of,
    random_policy,
)
from lightning_mesa.observe.rollouts import Episodes, run_episodes
from lightning_mesa.observe.running_statistics import RunningStatistics
from lightning_mesa.records import Behavior, Decisions

if TYPE_CHECKING:
    from lightning_mesa.data.env_distribution import EnvDistribution


class EnvSource(Source):
    """Environments, and the distribution that episodes in them make up.

    The environments are the monitor's own and seeded at every look, so a look disturbs nothing of the user's.

    Args:
        name: Name of the distribution.
        distribution: What the user asked for.
        envs: The vector environment.
        statistics: The running statistics in it.

    Attributes:
        levels: Chance and the oracle's score, as ``"chance/OBJECTIVE"``: measured once in a run, at the first look.
    """

    reusable = False

    def __init__(self, name: str, distribution: "EnvDistribution", envs: Any, statistics: RunningStatistics) -> None:
        self.name = name
        self.parts = {name: None}
        self.distribution = distribution
        self.envs = envs
        self.statistics = statistics
        self._checked = False
        self.levels: dict[str, float] = {}

    @property
    def owners(self) -> tuple[object, ...]:
        """The environments, whose code may draw from a generator of the user's script."""
        return (self.envs, self.distribution)

    def draws_anew(self, seed: int) -> bool:
        """Episodes are new where their seeds are."""
        return True

    def state_dict(self) -> dict[str, float]:
        """Chance and the oracle's score."""
        return dict(self.levels)

    def load_state_dict(self, state: Mapping[str, float]) -> None:
        """Take chance and the oracle's score as they were measured."""
        self.levels = dict(state)

    def close(self) -> None:
        """Close the environments, whatever state they are in."""
        with suppress(Exception):
            self.envs.close(terminate=True)

    def behaviors(self, context: LookContext) -> Iterator[Behavior]:
        """This process's share of the episodes, scored; see :class:`Source`.

        Raises:
            ConfigurationError: If the environments or the policy are not as the objectives need them.
        """
        objectives = cast("list[EpisodeObjective]", list(context.hypotheses.scored))
        ours, trainer = self.distribution, context.trainer
        try:
            self.statistics.follow(context.pl_module)
            self._measure_levels(context, objectives)
            if not (mine := self._share(context, ours.episodes)):
                return
            act = policy_of(trainer, context.pl_module, ours.policy, self.envs, greedy=ours.greedy)
            ran = self._run(act, objectives, context.stream(self.name), mine)
            try:
                episodes = finished(progress(trainer, ran, f"{context.name}: {self.name}", None, context.started))
            except NoActionError:
                nothing = torch.full((len(mine),), torch.nan, dtype=torch.float64)
                episodes = Episodes({o.name: nothing for o in objectives}, torch.zeros(len(mine), dtype=torch.long))
            if not self._checked:
                self.statistics.check()
                self._checked = True
            yield replace(self._behavior(episodes, mine, objectives), decisions=self._decisions(context))
        except ConfigurationError as error:
            raise ConfigurationError(f"distribution {self.name!r}: {error}") from error

    def _share(self, context: LookContext, n: int) -> range:
        """This process's share of n episodes, or of as many as are to be run at most."""
        return context.share(n if context.limit is None else min(n, context.limit * self.envs.num_envs))

    def _decisions(self, context: LookContext) -> Decisions | None:
        """This process's share of the decisions, where some are asked for."""
        ours, trainer, look = self.distribution, context.trainer, context.stream(self.name)
        if not (mine := self._share(context, ours.decisions)):
            return None
        objectives = cast("list[EpisodeObjective]", [context.hypotheses.base, *context.hypotheses.proxies])
        seeds = [random.Random(f"{look}/decision {i}").getrandbits(31) for i in mine]
        with random_streams(random.Random(f"{look}/decisions from {mine.start}").getrandbits(32)):
            ran = run_decisions(
                self.envs,
                preferences_of(trainer, context.pl_module, ours.policy, self.envs),
                objectives,
                seeds,
                discount=ours.discount,
                max_steps=ours.max_steps,
                timeout=ours.timeout,
            )
            title = f"{context.name}: decisions on {self.name}"
            try:
                told = finished(progress(trainer, ran, title, None, context.started))
            except NoActionError:  # the scores of the episodes say so
                return None
        return replace(told, numbers=told.numbers * mine.step + mine.start)

    def _run(
        self, act: Act, objectives: list[EpisodeObjective], name: str, numbers: range
    ) -> Generator[int, None, Episodes]:
        """Run the episodes of these numbers: their seeds, and the stream that actions are drawn from, have a name."""
        seeds = [random.Random(f"{name}/{i}").getrandbits(31) for i in numbers]
        ours = self.distribution
        with random_streams(random.Random(f"{name}/{numbers.start}").getrandbits(32)):
            return (
                yield from run_episodes(
                    self.envs, act, objectives, seeds, max_steps=ours.max_steps, timeout=ours.timeout
                )
            )

    def _measure_levels(self, context: LookContext, objectives: list[EpisodeObjective]) -> None:
        """Chance is what the best policy that does not look gets; the oracle's score may be the ceiling."""
        ours, levels = self.distribution, self.levels
        numbers = range(ours.chance_episodes)
        without_chance = [o for o in objectives if o.chance is None and f"chance/{o.name}" not in levels]
        if without_chance:
            name = f"{context.seed}/{self.name}/chance"
            blind = [random_policy(self.envs, random.Random(name).getrandbits(31)), *constant_policies(self.envs)]
            scores = [finished(self._run(act, without_chance, name, numbers)).scores for act in blind]
            levels |= {f"chance/{o.name}": max(_mean(o, s[o.name]) for s in scores) for o in without_chance}
        without_ceiling = [o for o in objectives if not o.ceiling_given and f"oracle/{o.name}" not in levels]
        if without_ceiling and ours.oracle is not None:
            act = policy_of(context.trainer, context.pl_module, ours.oracle, self.envs, greedy=False)
            name = f"{context.seed}/{self.name}/oracle"
            scored = finished(self._run(act, without_ceiling, name, numbers)).scores
            levels |= {f"oracle/{o.name}": _mean(o, scored[o.name]) for o in without_ceiling}

    def _behavior(self, episodes: Episodes, mine: range, objectives: list[EpisodeObjective]) -> Behavior:
        n = len(mine)

        def level(kind: str) -> dict[str, Tensor]:
            found = {o.name: self.levels.get(f"{kind}/{o.name}") for o in objectives}
            return {name: torch.full((n,), at, dtype=torch.float64) for name, at in found.items() if at is not None}

        return Behavior(
            distribution=self.name,
            n=n,
            items=torch.tensor(mine),
            scores=episodes.scores,
            binary=frozenset(o.name for o in objectives if o.binary),
            prescribed={},
            uniform_scores=level("chance"),
            chosen=None,
            groups={},
            ids=None,
            oracle_scores=level("oracle"),
            lengths=episodes.lengths,
            max_length=self.distribution.max_steps,
        )


def _mean(objective: EpisodeObjective, scores: Tensor) -> float:
    finite = scores[scores.isfinite()]
    if not len(finite):
        raise ConfigurationError(
            f"objective {objective.name!r}: none of {len(scores)} episodes has a finite score, whatever the policy; "
            "see to the environment's rewards."
        )
    return float(finite.mean())
