"""Distributions as a user passes them: one, a list, or a mapping from names."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, TypeAlias

from lightning_mesa.data.distribution import Distribution, checked_regime, name_of
from lightning_mesa.data.loader_distribution import ItemsSpec, LoaderDistribution
from lightning_mesa.errors import ConfigurationError
from lightning_mesa.objectives.objective import check_name
from lightning_mesa.observe.kinds import holds_data

OneDistribution: TypeAlias = Distribution | ItemsSpec
if TYPE_CHECKING:
    DistributionSpec: TypeAlias = OneDistribution | Sequence[OneDistribution] | Mapping[str, OneDistribution]
else:
    DistributionSpec = Distribution | str | Mapping[str, OneDistribution] | Sequence[OneDistribution]

# Words that follow the monitor's name in other metrics.
RESERVED = ("gap", "base", "search", "alert", "overhead", "age_steps", "disabled")


def named_distributions(spec: DistributionSpec, default_name: str) -> dict[str, Distribution]:
    """Name distributions given as one, a list, or a mapping from names.

    Unnamed ones are called after the string that finds them, else ``default_name``, numbered where there are
    several. A list of items or of batches is one distribution.

    Raises:
        ConfigurationError: If there are none, or a name is reserved, taken, or unfit for a metric name.
    """
    if isinstance(spec, Mapping):
        entries = [(str(name), source) for name, source in spec.items()]
    elif isinstance(spec, (list, tuple)) and not holds_data(spec):
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
        named[name] = source if isinstance(source, Distribution) else LoaderDistribution(source)
        checked_regime(named[name].data_regime)
    return named


def _name(source: OneDistribution, default: str) -> str:
    return source.default_name(default) if isinstance(source, Distribution) else name_of(source, default)
