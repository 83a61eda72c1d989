"""Episodes of the model's policy in environments, as a distribution to look at."""

import random
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from importlib import import_module
from typing import Any, cast

import torch
from torch import Tensor

from lightning_mesa.data.distributions import Distribution, EnvDistribution
from lightning_mesa.data.progress import progress
from lightning_mesa.errors import ConfigurationError
from lightning_mesa.objectives.episodes import EpisodeObjective
from lightning_mesa.objectives.hypotheses import Hypotheses
from lightning_mesa.observe.decisions import run_decisions
from lightning_mesa.observe.forward import Reading
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
from lightning_mesa.records import Behavior, Decisions

Levels = MutableMapping[str, dict[str, float]]
"""Chance and the oracle's score, as ``"chance/OBJECTIVE"``, by distribution: measured once in a run."""


@dataclass(frozen=True)
class EnvSource:
    """Environments, and the distribution that episodes in them make up.

    Attributes:
        name: Name of the distribution.
        distribution: What the user asked for.
        envs: The vector environment.
        levels: Chance and the oracle's score; what is missing is measured at the first look and kept here.
        limit: Run at most so many times as many episodes as there are environments.
        fresh: Whether the episodes are to be new ones at every look.
    """

    name: str
    distribution: EnvDistribution
    envs: Any
    levels: Levels
    limit: int | None
    fresh: bool = False

    @property
    def parts(self) -> Mapping[str, None]:
        """The distribution's name."""
        return {self.name: None}

    @property
    def owners(self) -> tuple[object, ...]:
        """Nothing of the user's: the environments are the monitor's own, and seeded at every look."""
        return ()

    @property
    def dataset(self) -> None:
        """There is none, so no validation loader holds the same items."""

    def draws_anew(self, seed: int) -> bool:
        """Episodes are new where their seeds are."""
        return True

    def behaviors(
        self,
        trainer: Any,
        pl_module: Any,
        hypotheses: Hypotheses,
        seed: int,
        untrained: object,
        title: str,
        started: float,
        reader: object = None,
    ) -> Iterator[Behavior]:
        """This process's share of the episodes, scored; to be iterated inside ``no_trace``.

        Args:
            trainer: The trainer.
            pl_module: The LightningModule.
            hypotheses: The listed objectives.
            seed: Seed of everything random.
            untrained: Not used.
            title: What to show beside a progress bar.
            started: When the look began.
            reader: Not used.

        Raises:
            ConfigurationError: If the environments or the policy are not as the objectives need them.
        """
        objectives = cast("list[EpisodeObjective]", list(hypotheses.scored))
        ours = self.distribution
        try:
            levels = self.levels.setdefault(self.name, {})
            self._measure_levels(trainer, pl_module, objectives, levels, seed)
            number = ours.episodes if self.limit is None else min(ours.episodes, self.limit * self.envs.num_envs)
            look = f"{seed}/{self.name}/{trainer.global_step if self.fresh else ''}"
            mine = range(trainer.global_rank, number, trainer.world_size)
            if not mine:
                return
            act = policy_of(trainer, pl_module, ours.policy, self.envs, greedy=ours.greedy)
            episodes = Episodes()
            ended = self._run(act, objectives, look, mine, episodes)
            try:
                for _ in progress(trainer, ended, f"{title}: {self.name}", None, started):
                    pass
            except NoActionError:
                nothing = torch.full((len(mine),), torch.nan, dtype=torch.float64)
                episodes = Episodes({o.name: nothing for o in objectives}, torch.zeros(len(mine), dtype=torch.long))
            yield replace(
                self._behavior(episodes, mine, objectives, levels),
                decisions=self._decisions(trainer, pl_module, hypotheses, look, title, started),
            )
        except ConfigurationError as error:
            raise ConfigurationError(f"distribution {self.name!r}: {error}") from error

    def _decisions(
        self, trainer: Any, pl_module: Any, hypotheses: Hypotheses, look: str, title: str, started: float
    ) -> Decisions | None:
        """This process's share of the decisions, where some are asked for."""
        ours = self.distribution
        number = ours.decisions if self.limit is None else min(ours.decisions, self.limit * self.envs.num_envs)
        mine = range(trainer.global_rank, number, trainer.world_size)
        if not mine:
            return None
        objectives = cast("list[EpisodeObjective]", [hypotheses.base, *hypotheses.proxies])
        seeds = [random.Random(f"{look}/decision {i}").getrandbits(31) for i in mine]
        found: list[Decisions] = []
        with random_streams(random.Random(f"{look}/decisions from {mine.start}").getrandbits(32)):
            ran = run_decisions(
                self.envs,
                preferences_of(trainer, pl_module, ours.policy, self.envs),
                objectives,
                seeds,
                found,
                discount=ours.discount,
                max_steps=ours.max_steps,
                timeout=ours.timeout,
            )
            with suppress(NoActionError):  # the scores of the episodes say so
                for _ in progress(trainer, ran, f"{title}: decisions on {self.name}", None, started):
                    pass
        return replace(found[0], numbers=found[0].numbers * trainer.world_size + mine.start) if found else None

    def close(self) -> None:
        """Close the environments, whatever state they are in."""
        with suppress(Exception):
            self.envs.close(terminate=True)

    def _run(
        self, act: Act, objectives: list[EpisodeObjective], name: str, numbers: range, into: Episodes
    ) -> Iterator[int]:
        """Run the episodes of these numbers: their seeds, and the stream that actions are drawn from, have a name."""
        seeds = [random.Random(f"{name}/{i}").getrandbits(31) for i in numbers]
        ours = self.distribution
        with random_streams(random.Random(f"{name}/{numbers.start}").getrandbits(32)):
            yield from run_episodes(
                self.envs, act, objectives, seeds, into, max_steps=ours.max_steps, timeout=ours.timeout
            )

    def _scores(self, act: Act, objectives: list[EpisodeObjective], name: str) -> Mapping[str, Tensor]:
        """``[chance_episodes]`` scores that a policy gets."""
        episodes = Episodes()
        for _ in self._run(act, objectives, name, range(self.distribution.chance_episodes), episodes):
            pass
        return episodes.scores

    def _measure_levels(
        self,
        trainer: Any,
        pl_module: Any,
        objectives: list[EpisodeObjective],
        levels: dict[str, float],
        seed: int,
    ) -> None:
        """Chance is what the best policy that does not look gets; the oracle's score may be the ceiling."""
        ours = self.distribution
        without_chance = [o for o in objectives if o.chance is None and f"chance/{o.name}" not in levels]
        if without_chance:
            name = f"{seed}/{self.name}/chance"
            blind = [random_policy(self.envs, random.Random(name).getrandbits(31)), *constant_policies(self.envs)]
            scores = [self._scores(act, without_chance, name) for act in blind]
            levels |= {f"chance/{o.name}": max(_mean(o, s[o.name]) for s in scores) for o in without_chance}
        without_ceiling = [o for o in objectives if not o.ceiling_given and f"oracle/{o.name}" not in levels]
        if without_ceiling and ours.oracle is not None:
            act = policy_of(trainer, pl_module, ours.oracle, self.envs, greedy=False)
            scored = self._scores(act, without_ceiling, f"{seed}/{self.name}/oracle")
            levels |= {f"oracle/{o.name}": _mean(o, scored[o.name]) for o in without_ceiling}

    def _behavior(
        self, episodes: Episodes, mine: range, objectives: list[EpisodeObjective], levels: Mapping[str, float]
    ) -> Behavior:
        n = len(mine)

        def level(kind: str) -> dict[str, Tensor]:
            found = {o.name: levels.get(f"{kind}/{o.name}") for o in objectives}
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


def env_sources(
    distributions: Mapping[str, Distribution],
    hypotheses: Hypotheses,
    look_up: Callable[[str], object],
    owners: Sequence[object],
    reading: Reading,
    limit_batches: int | None,
    levels: Levels,
) -> list[EnvSource]:
    """Make the environments.

    Args:
        distributions: The distributions by name.
        hypotheses: The listed objectives.
        look_up: Finds what is known by a name.
        owners: The LightningModule and the DataModule, whose own environments are refused.
        reading: Must say nothing, as there are no batches.
        limit_batches: Run at most so many times as many episodes as there are environments.
        levels: Chance and oracle's scores so far.

    Raises:
        ConfigurationError: If a distribution has no episodes, or its environments cannot be made.
    """
    if reading != Reading():
        raise ConfigurationError(
            "episodes are in no batch: leave out forward=, inputs=, outputs=, groups= and cue=; EnvDistribution has "
            "policy=."
        )
    sources: list[EnvSource] = []
    try:
        for where, one in distributions.items():
            if not isinstance(one, EnvDistribution):
                raise ConfigurationError(
                    f"objective {hypotheses.base.name!r} scores episodes, and distribution {where!r} has items: pass "
                    f"EnvDistribution(...) as {where}."
                )
            envs = one.resolve(look_up)
            if _trains_in(envs, owners):
                raise ConfigurationError(
                    f"the environments of distribution {where!r} are those that the model trains in, and a look would "
                    "interfere with that: pass a function that makes others."
                )
            sources.append(EnvSource(where, one, envs, levels, limit_batches))
    except BaseException:
        for source in sources:
            source.close()
        raise
    return sources


def _trains_in(envs: Any, owners: Iterable[object]) -> bool:
    """Whether one of these objects holds these very environments."""
    attributes = [held for owner in owners for held in getattr(owner, "__dict__", {}).values()]
    kind = import_module("gymnasium.vector").VectorEnv
    return any(isinstance(held, kind) and held.unwrapped is envs.unwrapped for held in attributes)


def _mean(objective: EpisodeObjective, scores: Tensor) -> float:
    finite = scores[scores.isfinite()]
    if not len(finite):
        raise ConfigurationError(
            f"objective {objective.name!r}: none of {len(scores)} episodes has a finite score, whatever the policy; "
            "see to the environment's rewards."
        )
    return float(finite.mean())
