"""A distribution of episodes: what a policy does in environments of Gymnasium."""

from collections.abc import Callable, Iterable
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from typing import Any, TypeAlias

from lightning_mesa.callbacks.compat import find
from lightning_mesa.data.distribution import Distribution, checked_regime, imported_early, is_found_late, name_of
from lightning_mesa.data.env_source import EnvSource
from lightning_mesa.errors import ConfigurationError, shown
from lightning_mesa.objectives.episodes import EpisodeObjective
from lightning_mesa.objectives.objective import function_of
from lightning_mesa.observe.context import LookContext, Reading
from lightning_mesa.observe.generators import owned
from lightning_mesa.observe.policies import Policy
from lightning_mesa.observe.running_statistics import RunningStatistics, SetStatistics, is_env
from lightning_mesa.observe.sharding import is_sharded

EnvSpec: TypeAlias = str | Callable[[], Any] | Any


class EnvDistribution(Distribution):
    """A distribution of episodes: what a policy does in environments of Gymnasium.

    The environments are the monitor's own, and closed when the fit ends or fails. Exactly ``episodes``
    of them are run, and which ones is settled before they begin, so that short ones do not count more than long ones.
    The policy is called once per step for all environments together. The unit of evidence is the episode.

    Chance is measured once, before training, as the best mean score of a policy that does not look: random actions and,
    where there are at most 8 discrete ones, each always; a checkpoint keeps it.

    Args:
        env: A function without arguments that returns an environment, of which ``num_envs`` are stepped side by side,
            or a vector environment; its import path; ``"datamodule.ATTRIBUTE"`` or ``"model.ATTRIBUTE"``; the id of a
            registered environment; or a vector environment that nothing else uses.
        policy: ``(pl_module, observation, state) -> (logits or torch Distribution, state)``, or its import path.
            Observations are tensors on the model's device with one row per environment, in mappings or tuples as the
            environment gives them. The state is None when an episode begins, and for a policy without memory. Default:
            the LightningModule, called on the observation; of a tuple that it returns the first element.
        episodes: Number of episodes at a look.
        num_envs: Number of environments side by side.
        greedy: Take the most probable action (of a continuous distribution the mean); else draw one.
        max_steps: An episode that goes on for longer is cut there, and scored by what has happened.
        timeout: A step that takes more seconds than this is an error, where looks run in the main thread.
        oracle: A policy that acts as well as can be; its mean score is the ceiling of objectives that give none.
        chance_episodes: Number of episodes by which chance, and the oracle's score, are measured.
        decisions: Estimate the behavioral objective from this many decisions. Each is run to the end of its episode
            with two actions, 4 more times where the environment is random, and up to 5 random episodes for each are
            searched for what objectives gain from. Needs discrete actions, and an environment that its seed and the
            actions bring to the same situation again. 0 for none; with less than 200 weights are seldom identified.
        discount: Of what follows a decision, in (0, 1]; that of the training, where it has one.
        statistics: Where the training's environments are, ``"model.ATTRIBUTE"`` or ``"datamodule.ATTRIBUTE"``. Their
            running statistics of observations (``NormalizeObservation`` and the like) are copied before each look, and
            stand still during it. Or a function ``(pl_module, envs) -> None`` that sets them in the monitor's vector
            environment, or its import path. Default: the only environments with such a wrapper that the
            LightningModule, the DataModule or the training data hold.
        data_regime: ``"fresh"``: new episodes at every look. ``"reused"``: the same seeds at every look.
            ``"adaptive"``: as for a :class:`LoaderDistribution`. ``"auto"``: adaptive where a plateau scheduler
            monitors a value of these episodes, else fresh.

    Raises:
        ConfigurationError: If Gymnasium is not installed, or an argument cannot be right.
    """

    def __init__(
        self,
        env: EnvSpec,
        policy: Policy | str | None = None,
        *,
        episodes: int = 100,
        num_envs: int = 8,
        greedy: bool = False,
        max_steps: int = 10_000,
        timeout: float = 60.0,
        oracle: Policy | str | None = None,
        chance_episodes: int = 100,
        decisions: int = 0,
        discount: float = 0.99,
        statistics: str | SetStatistics | None = None,
        data_regime: str = "auto",
    ) -> None:
        if find_spec("gymnasium") is None:
            raise ConfigurationError("EnvDistribution needs Gymnasium: pip install 'lightning-mesa[rl]'.")
        counts = {"episodes": episodes, "num_envs": num_envs, "max_steps": max_steps}
        counts |= {"chance_episodes": chance_episodes, "decisions": decisions}
        for argument, number in counts.items():
            least = 0 if argument == "decisions" else 1
            if not isinstance(number, int) or number < least:
                raise ConfigurationError(f"{argument} must be a whole number of at least {least}, not {shown(number)}.")
        if not 0 < discount <= 1:
            raise ConfigurationError(f"discount must lie in (0, 1], not {shown(discount)}.")
        if not timeout > 0:
            raise ConfigurationError(f"timeout must be a positive number of seconds, not {shown(timeout)}.")
        self.env = imported_early(env, "environment")
        self.policy: Policy | None = function_of(policy, "policy")
        self.episodes = episodes
        self.num_envs = num_envs
        self.greedy = greedy
        self.max_steps = max_steps
        self.timeout = timeout
        self.oracle: Policy | None = function_of(oracle, "oracle")
        self.chance_episodes = chance_episodes
        self.decisions = decisions
        self.discount = discount
        late = isinstance(statistics, str) and is_found_late(statistics)
        self.statistics = statistics if late else function_of(statistics, "statistics")
        self.data_regime = checked_regime(data_regime)

    def default_name(self, default: str) -> str:
        """After the string that finds the environment."""
        return name_of(self.env, default)

    def open(self, name: str, context: LookContext) -> EnvSource:
        """Make the environments; see :class:`~lightning_mesa.Distribution`."""
        base, trainer, pl_module = context.hypotheses.base, context.trainer, context.pl_module
        if not isinstance(base, EpisodeObjective):
            raise ConfigurationError(
                f"objective {base.name!r} scores items, and distribution {name!r} has episodes: list objectives such "
                "as EpisodeReturn or Reached."
            )
        if context.reading != Reading():
            raise ConfigurationError(
                "episodes are in no batch: leave out forward=, inputs=, outputs=, groups= and cue=; EnvDistribution "
                "has policy=."
            )
        if is_sharded(trainer):
            raise ConfigurationError(
                f"distribution {name!r} has episodes, in which processes call the model differently often, and of a "
                "sharded model each holds a part: train the policy under DDP or on one device, or pass items."
            )
        envs = self.resolve(partial(find, trainer, pl_module))
        if _trains_in(envs, (pl_module, trainer.datamodule)):
            raise ConfigurationError(
                f"the environments of distribution {name!r} are those that the model trains in, and a look would "
                "interfere with that: pass a function that makes others."
            )
        asked = self.statistics
        if isinstance(asked, str):
            training, given = {asked: _found(trainer, pl_module, asked, name)}, None
        else:
            training, given = _held(trainer, pl_module), asked
        return EnvSource(name, self, envs, RunningStatistics(envs, training, given, self.timeout))

    def resolve(self, find: Callable[[str], object]) -> Any:
        """The vector environment.

        Args:
            find: Looks a name up in the trainer, the DataModule or the LightningModule.

        Raises:
            ConfigurationError: If there is none.
        """
        # Gymnasium is an extra.
        gymnasium, vector = import_module("gymnasium"), import_module("gymnasium.vector")
        make: Any = self.env
        if isinstance(make, str):
            make = find(make) if is_found_late(make) else partial(gymnasium.make, make)
        if isinstance(make, vector.VectorEnv):
            return make
        if isinstance(make, gymnasium.Env) or not callable(make):
            raise ConfigurationError(
                f"{shown(self.env)} is no environment of the monitor's own: pass a function without arguments that "
                "returns one, its import path, the id of a registered environment, or a vector environment."
            )
        envs = [make()]
        if isinstance(envs[0], vector.VectorEnv):
            return envs[0]
        envs += [make() for _ in range(self.num_envs - 1)]
        if not all(isinstance(env, gymnasium.Env) for env in envs) or len({id(env) for env in envs}) < len(envs):
            raise ConfigurationError(
                f"{shown(self.env)} gives {type(envs[0]).__name__}: it must give an environment of Gymnasium, and "
                "another one each time."
            )
        return vector.SyncVectorEnv(
            [partial(_itself, env) for env in envs], autoreset_mode=vector.AutoresetMode.DISABLED
        )


def _itself(env: Any) -> Any:
    return env


def _found(trainer: Any, pl_module: Any, asked: str, name: str) -> list[Any]:
    """The training's environments where the user says that they are."""
    try:
        return owned((find(trainer, pl_module, asked),), is_env)
    except ConfigurationError:
        raise ConfigurationError(
            f"distribution {name!r}: there is no statistics={asked!r}; name an attribute of the LightningModule or the "
            "DataModule that holds the training's environments, such as 'model.envs', or pass a function "
            "(pl_module, envs)."
        ) from None


def _held(trainer: Any, pl_module: Any) -> dict[str, list[Any]]:
    """Where training may hold its environments, and those that are there."""
    owners = {"model": pl_module, "datamodule": trainer.datamodule}
    held = {
        f"{owner}.{name}": owned((value,), is_env)
        for owner, of_one in owners.items()
        for name, value in getattr(of_one, "__dict__", {}).items()
        if name not in ("trainer", "_trainer", "_fabric")
    }
    if not getattr(trainer.train_dataloader, "num_workers", 0):  # else other processes have the environments
        held["train_dataloader"] = owned((trainer.train_dataloader,), is_env)
    return {place: envs for place, envs in held.items() if envs}


def _trains_in(envs: Any, owners: Iterable[object]) -> bool:
    """Whether one of these objects holds these very environments."""
    attributes = [held for owner in owners for held in getattr(owner, "__dict__", {}).values()]
    kind = import_module("gymnasium.vector").VectorEnv
    return any(isinstance(held, kind) and held.unwrapped is envs.unwrapped for held in attributes)
