"""What to look at: named distributions of items or episodes, found when training starts."""

import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, TypeAlias

from torch.utils.data import DataLoader, Dataset

from lightning_mesa.attach.importing import imported, is_path
from lightning_mesa.errors import ConfigurationError
from lightning_mesa.objectives.objective import check_name, function_of
from lightning_mesa.observe.forward import Inputs
from lightning_mesa.observe.parts import CONFLICT, Where
from lightning_mesa.observe.policies import Policy

Forward: TypeAlias = Callable[[Any, Any], Any] | str
Items: TypeAlias = DataLoader[Any] | Dataset[Any]
EnvSpec: TypeAlias = str | Callable[[], Any] | Any
if TYPE_CHECKING:
    Source: TypeAlias = Items | Callable[[], Items] | str
else:
    # What a command line needs to know: else its help lists every dataset class there is.
    Source = str | Any

_FOUND_LATE = re.compile(r"val(/.+)?|(datamodule|model)\..+")

# Words that follow the monitor's name in other metrics.
RESERVED = ("gap", "base", "search", "alert", "overhead", "age_steps", "disabled")


DATA_REGIMES = ("auto", "fresh", "reused", "adaptive")


class LoaderDistribution:
    """A distribution of items that a DataLoader or a Dataset holds.

    A DataLoader is never iterated: its dataset, collate function and batch size are read through a loader of
    our own, each item once and in order. Where it has a sampler of another kind than shuffling, that sampler
    is asked which items there are.

    Args:
        source: A DataLoader, a Dataset, a function without arguments that returns either, or the name of
            one: ``"val"``, ``"val/1"``, ``"datamodule.ATTRIBUTE"``, ``"model.ATTRIBUTE"``; other strings with a dot
            are import paths. Functions are called, and names looked up, when training starts.
        forward: ``(pl_module, batch) -> outputs``, where it differs from the monitor's.
        inputs: The model's input in the batch, where it differs from the monitor's.
        ids: Key or index of ``[n]`` integer ids in the batch. Where the reference and a shifted distribution
            both have ids and hold the same ones, the gap is measured on pairs, with narrower limits.
        where: Which of the items: a mapping from keys of the batch to labels that they must have; ``"conflict"``, those
            on which base and a proxy prescribe different choices; or a function ``batch -> [n]`` bool. Distributions of
            the same source share one forward pass per item.
        batch_size: Batch size for a Dataset; a DataLoader has its own.
        data_regime: ``"reused"``: the same held-out items at every look. ``"fresh"``: new items at every look, drawn
            from random streams that advance. ``"adaptive"``: values measured on them may change the training, or chose
            its hyperparameters; they get numbers with limits, and no alert. ``"auto"``: adaptive if a plateau scheduler
            monitors a value that rests on them, or once a fit goes on from weights that were chosen by such a value;
            else fresh for a stream that draws new items when it is seeded anew, and reused for all others.

    Raises:
        ConfigurationError: If the batch size is not positive, or the data regime unknown.
    """

    def __init__(
        self,
        source: Source,
        *,
        forward: Forward | None = None,
        inputs: Inputs | None = None,
        ids: str | int | None = None,
        where: Where | None = None,
        batch_size: int = 256,
        data_regime: str = "auto",
    ) -> None:
        if batch_size < 1:
            raise ConfigurationError(f"batch_size must be at least 1, not {batch_size}.")
        if is_path(source) and not _FOUND_LATE.fullmatch(str(source)):
            source = imported(str(source), f"distribution {source!r}")
        self.source: Source = source
        self.forward = function_of(forward, "forward")
        self.inputs = inputs
        self.ids = ids
        self.where = _where(where)
        self.batch_size = batch_size
        self.data_regime = _data_regime(data_regime)

    def resolve(self, find: Callable[[str], object]) -> Items:
        """Find the items.

        Args:
            find: Looks a name up in the trainer, the DataModule or the LightningModule.

        Returns:
            The user's DataLoader or Dataset.

        Raises:
            ConfigurationError: If it is neither.
        """
        found: object = self.source
        if isinstance(found, str):
            found = find(found)
        if callable(found) and not isinstance(found, (DataLoader, Dataset)):
            found = found()
        if isinstance(found, (DataLoader, Dataset)):
            return found
        raise ConfigurationError(
            f"{self.source!r} gives {type(found).__name__}: a distribution is a DataLoader, a Dataset, a function "
            "without arguments that returns either, or a name like 'val' or 'datamodule.recolored_dataloader'."
        )


def _where(where: Where | None) -> Where | None:
    if is_path(where):
        where = function_of(where, "where")
    if where is None or where == CONFLICT or callable(where):
        return where
    if isinstance(where, Mapping) and where:
        return dict(where)
    raise ConfigurationError(
        f"where must be {CONFLICT!r}, a mapping from keys of the batch to labels, or a function batch -> [n] bool, not "
        f"{where!r}."
    )


class EnvDistribution:
    """A distribution of episodes: what a policy does in environments of Gymnasium.

    The environments are the monitor's own, and closed when the fit ends or fails. Exactly so many episodes are run, and
    which ones is settled before they begin, so that short ones do not count more than long ones. The policy is called
    once per step for all environments together. The unit of evidence is the episode.

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
        decisions: Estimate the behavioral objective from so many decisions: each is run to the end of its episode with
            two actions, 4 more times where the environment is random, and up to 5 random episodes for each are looked
            through for what objectives gain from. Needs discrete actions, and an environment that its seed and the
            actions bring to the same situation again. 0 for none; with less than 200 weights are seldom identified.
        discount: Of what follows a decision, in (0, 1]; that of the training, where it has one.
        data_regime: ``"fresh"``: new episodes at every look. ``"reused"``: the same seeds at every look.
            ``"adaptive"``: as for a :class:`LoaderDistribution`. ``"auto"``: adaptive where a plateau scheduler
            monitors a value of these episodes, else fresh.

    Raises:
        ConfigurationError: If Gymnasium is not installed, or an argument cannot be right.
    """

    where = None

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
        data_regime: str = "auto",
    ) -> None:
        if find_spec("gymnasium") is None:
            raise ConfigurationError("EnvDistribution needs Gymnasium: pip install 'lightning-mesa[rl]'.")
        for argument, number in {
            "episodes": episodes,
            "num_envs": num_envs,
            "max_steps": max_steps,
            "chance_episodes": chance_episodes,
        }.items():
            if not isinstance(number, int) or number < 1:
                raise ConfigurationError(f"{argument} must be a whole number of at least 1, not {number!r}.")
        if not isinstance(decisions, int) or decisions < 0:
            raise ConfigurationError(f"decisions must be a whole number of at least 0, not {decisions!r}.")
        if not 0 < discount <= 1:
            raise ConfigurationError(f"discount must lie in (0, 1], not {discount!r}.")
        if not timeout > 0:
            raise ConfigurationError(f"timeout must be a positive number of seconds, not {timeout!r}.")
        if is_path(env) and not _FOUND_LATE.fullmatch(str(env)):
            env = imported(str(env), f"environment {env!r}")
        self.env = env
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
        self.data_regime = _data_regime(data_regime)

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
            make = find(make) if _FOUND_LATE.fullmatch(make) else partial(gymnasium.make, make)
        if isinstance(make, vector.VectorEnv):
            return make
        if isinstance(make, gymnasium.Env) or not callable(make):
            raise ConfigurationError(
                f"{self.env!r} is no environment of the monitor's own: pass a function without arguments that returns "
                "one, its import path, the id of a registered environment, or a vector environment."
            )
        envs = [make()]
        if isinstance(envs[0], vector.VectorEnv):
            return envs[0]
        envs += [make() for _ in range(self.num_envs - 1)]
        if not all(isinstance(env, gymnasium.Env) for env in envs) or len({id(env) for env in envs}) < len(envs):
            raise ConfigurationError(
                f"{self.env!r} gives {type(envs[0]).__name__}: it must give an environment of Gymnasium, and "
                "another one each time."
            )
        return vector.SyncVectorEnv(
            [partial(_itself, env) for env in envs], autoreset_mode=vector.AutoresetMode.DISABLED
        )


def _itself(env: Any) -> Any:
    return env


def _data_regime(data_regime: str) -> str:
    if data_regime not in DATA_REGIMES:
        raise ConfigurationError(f"data_regime must be one of {', '.join(DATA_REGIMES)}, not {data_regime!r}.")
    return data_regime


Distribution: TypeAlias = LoaderDistribution | EnvDistribution
OneDistribution: TypeAlias = Distribution | Source
if TYPE_CHECKING:
    DistributionSpec: TypeAlias = OneDistribution | Sequence[OneDistribution] | Mapping[str, OneDistribution]
else:
    DistributionSpec = Distribution | str | Mapping[str, OneDistribution] | Sequence[OneDistribution]


def named_distributions(spec: DistributionSpec, default_name: str) -> dict[str, Distribution]:
    """Name distributions given as one, a list, or a mapping from names.

    Unnamed ones are called after the string that finds them, else ``default_name``, numbered where there are
    several.

    Raises:
        ConfigurationError: If there are none, or a name is reserved, taken, or unfit for a metric name.
    """
    if isinstance(spec, Mapping):
        entries = [(str(name), source) for name, source in spec.items()]
    elif isinstance(spec, Sequence) and not isinstance(spec, str):
        entries = [(_name(source, f"{default_name}.{i}"), source) for i, source in enumerate(spec)]
    else:
        entries = [(_name(spec, default_name), spec)]
    if not entries:
        raise ConfigurationError(f"no {default_name} distribution is given: pass at least one.")
    named: dict[str, Distribution] = {}
    for name, source in entries:
        check_name(name, f"{default_name} distribution", reserved=RESERVED)
        if name in named:
            raise ConfigurationError(f"two {default_name} distributions are named {name!r}: pass a mapping.")
        named[name] = (
            source if isinstance(source, (LoaderDistribution, EnvDistribution)) else LoaderDistribution(source)
        )
    return named


def _name(source: Any, default: str) -> str:
    if isinstance(source, LoaderDistribution):
        source = source.source
    elif isinstance(source, EnvDistribution):
        source = source.env
    if isinstance(source, str):
        return source.removeprefix("datamodule.").removeprefix("model.").replace("/", ".")
    return default
