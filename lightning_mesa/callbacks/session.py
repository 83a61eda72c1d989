"""One call of the trainer: the distributions that were found, and a look at them."""

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

from lightning_utilities.core.rank_zero import rank_zero_warn

from lightning_mesa.callbacks.compat import loaded, monitors_of, reloaded, validation_loaders
from lightning_mesa.callbacks.probing import Probing
from lightning_mesa.callbacks.watch import Watch
from lightning_mesa.checks import CHECKS, Check, Look
from lightning_mesa.checks.look import Plan
from lightning_mesa.data.distribution import Distribution, Source, expanded, opened
from lightning_mesa.data.distributions import named_distributions
from lightning_mesa.errors import ConfigurationError, MesaWarning, shown
from lightning_mesa.observe.context import LookContext
from lightning_mesa.observe.generators import generators
from lightning_mesa.observe.isolation import no_trace, random_streams
from lightning_mesa.observe.labels import check_groups
from lightning_mesa.observe.loaders import dataset_of
from lightning_mesa.observe.processes import gather, gather_shares, together
from lightning_mesa.observe.traces import Traces
from lightning_mesa.observe.weights import ScoredWeights
from lightning_mesa.probes.probe import Probe
from lightning_mesa.records import Behavior

MANY = 1_000
"""With this many choices for an item or more, it is said before training what a look takes."""


class Session(Watch):
    """Finds the distributions when training starts, and observes and measures them at every look.

    Args:
        context: Who looks, at what, and how; the limit is on the batches of each distribution.
        reference: The reference distributions by name.
        shifted: The shifted ones, or None to ask ``mesa_distributions()``.
        weights: Which weights to look at.
        probes: What looks into the model.
        checks: What is asked about behavior.
        state: What the sources of an earlier session remember, see :meth:`state_dict`.

    Raises:
        ConfigurationError: If a distribution cannot be found, or does not hold what the objectives score.
    """

    any_time = True

    def __init__(
        self,
        context: LookContext,
        reference: Mapping[str, Distribution],
        shifted: Mapping[str, Distribution] | None,
        weights: ScoredWeights,
        probes: Sequence[Probe] = (),
        checks: Sequence[Check] = CHECKS,
        state: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        trainer, pl_module, seed = context.trainer, context.pl_module, context.seed
        if batches := int(trainer.fast_dev_run):
            context = replace(context, limit=min(batches, context.limit or batches))
        self.weights = weights
        self._average_seen = False
        self.checks = checks
        self._traces = Traces(context.name, comparing=trainer.state.fn == "fit")
        # Factories and dataloader hooks may draw random numbers.
        self._asked = reference, shifted
        with random_streams(seed), generators(pl_module, trainer.datamodule, *self._asked):
            super().__init__(context, *self._expanded(context))
            validation = validation_loaders(trainer).values()
            self.sources = opened(self.distributions, context)
        self._loaded = loaded(trainer)
        datasets = [dataset_of(loader) for loader in validation]
        with self._no_trace():
            for source in self.sources:
                source.load_state_dict((state or {}).get(next(iter(source.parts)), {}))
                number = next((i for i, held in enumerate(datasets) if held is source.dataset), None)
                for where in source.parts:
                    self.put(where, number, partial(source.draws_anew, seed))
            self.probing = Probing(trainer, pl_module, probes, context.reading, seed, self.hypotheses)
        self._choices = 0  # the most that an item has
        self._fresh = {where for where, regime in self.data_regimes.items() if regime.label == "fresh"}
        # Without another objective, only its features can tell what the model is still capable of.
        self.untrained = self.probing.model if self.hypotheses.base_alone else None

    def measure(self, plan: Plan, *, at_end: bool = False) -> Look:
        """Observe every distribution, one forward pass per item, and let the checks find.

        Args:
            plan: Number of the look, how many there will be, and from which step on they are counted; recorded.
            at_end: Whether ``on_train_end`` is running.

        Raises:
            ConfigurationError: If a distribution is empty, or cannot be read as the objectives need it.
        """
        trainer = self.trainer
        if not at_end and reloaded(trainer, self._loaded):
            self._reload()
        with (
            trainer.profiler.profile(f"[{self.name}]observe"),
            self.weights.inside(self.pl_module, at_end=at_end) as weights,
        ):
            self._check_average(weights)
            checks = self._observed()
            look = self.look(plan, weights)
            with trainer.profiler.profile(f"[{self.name}]probe"), self._alone_together():
                probed = self.probing.measure(look)
        self._traces.comparing = False  # every later look would leave what the first one has left
        with trainer.profiler.profile(f"[{self.name}]measure"):
            for check in checks:
                look.findings += check.findings(look)
        look.findings += probed
        return look

    def _observed(self) -> list[Check]:
        """The checks, with everything that all processes have seen."""
        own = [check.begun(self.hypotheses) for check in self.checks]
        seen = dict.fromkeys(self.distributions, 0)
        groups = {where: set[str]() for where in self.distributions}
        with self._alone_together():
            for behavior in self._behaviors(self.sources):
                seen[behavior.distribution] += behavior.n
                groups[behavior.distribution] |= behavior.groups.keys()
                self._choices = max([self._choices, *(mask.shape[1] for mask in behavior.prescribed.values())])
                for check in own:
                    check.saw(behavior)
                if self.roles[behavior.distribution] == "shifted":
                    self.probing.update(behavior)
        self._check_seen(seen, groups)
        self.probing.share()
        if self.trainer.world_size == 1:
            return own
        merged = [check.begun(self.hypotheses) for check in self.checks]
        for accumulated in gather_shares(self.trainer, [check.accumulated() for check in own]):
            for check, part in zip(merged, accumulated, strict=True):
                check.merge(part)
        return merged

    def _expanded(self, context: LookContext) -> tuple[dict[str, Distribution], dict[str, Distribution]]:
        """The distributions that the user asked for, one for each loader."""
        reference, shifted = self._asked
        if shifted is None:
            shifted = _offered(context.trainer, context.pl_module)
        return expanded(reference, context), expanded(shifted, context)

    def _reload(self) -> None:
        """Find the items of this epoch, as the trainer does with its loaders; environments go on.

        Raises:
            ConfigurationError: If they have other names than before.
        """
        with random_streams(self.context.seed), generators(self.pl_module, self.trainer.datamodule, *self._asked):
            reference, shifted = self._expanded(self.context)
            anew = {**reference, **shifted}
            if anew.keys() != self.distributions.keys():
                raise ConfigurationError(
                    f"the loaders of epoch {self.trainer.current_epoch} are {', '.join(anew)}, and those before were "
                    f"{', '.join(self.distributions)}: give the same names at each reload."
                )
            kept = [source for source in self.sources if not source.reloads]
            of_kept = {where for source in kept for where in source.parts}
            self.distributions = anew
            self.sources = kept + opened({w: one for w, one in anew.items() if w not in of_kept}, self.context)
        self._loaded = loaded(self.trainer)

    def rehearse(self) -> None:
        """Read one batch of each source, so that what cannot be read is refused before a resumed training."""
        # Of those that leave items out, one batch may hold none.
        seen = {name: int(one.where is not None or bool(self._ignoring)) for name, one in self.distributions.items()}
        with self._alone_together():
            for source in self.sources:
                for behavior in self._behaviors([source], limit=self.trainer.world_size):
                    seen |= dict.fromkeys(source.parts, behavior.n + seen[behavior.distribution])
        self._check_seen(seen, {})

    def _behaviors(self, sources: Iterable[Source], limit: int | None = None) -> Iterator[Behavior]:
        """The behavior on some sources, of this many batches at most."""
        context = replace(self.context, started=time.perf_counter(), limit=limit or self.context.limit)
        for source in sources:
            of_source = replace(context, fresh=not self._fresh.isdisjoint(source.parts))
            if "shifted" in map(self.roles.get, source.parts):
                of_source = replace(of_source, untrained=self.untrained, reader=self.probing.reader())
            for behavior in source.behaviors(of_source):
                if not behavior.n:  # all left out, and nothing of them is known
                    continue
                is_shifted = self.roles[behavior.distribution] == "shifted"
                yield behavior if is_shifted else replace(behavior, features=None)

    @contextmanager
    def _alone_together(self) -> Iterator[None]:
        """Leave no trace, and fail on all processes if one fails."""
        with together(self.trainer), self._no_trace():
            yield

    def _no_trace(self) -> AbstractContextManager[None]:
        owners = [owner for source in self.sources for owner in source.owners]
        asked = (self.context.reading, self.hypotheses)  # whose functions may draw too
        return no_trace(self.trainer, self.pl_module, self.context.seed, *owners, *asked, traces=self._traces)

    def check_identified(self, look: Look) -> None:
        """Refuse distributions on none of which base and a proxy disagree, once all items have been seen.

        Raises:
            ConfigurationError: Then no look can tell them apart.
        """
        conflicts = [finding.n for finding in look.found("conflict")]
        whole = self.context.limit is None and all(source.limit is None for source in self.sources)
        if conflicts and not any(conflicts) and whole:
            base, proxies = self.hypotheses.base.name, [proxy.name for proxy in self.hypotheses.proxies]
            raise ConfigurationError(
                f"no distribution has an item on which {base!r} and {' or '.join(map(repr, proxies))} prescribe "
                "different choices, so nothing can tell which of them the model pursues: pass shifted= a distribution "
                "where they come apart."
            )

    def data_in_words(self) -> str:
        """Which data regime each distribution has, how data are read that are unusual, and what probes cost."""
        said = [super().data_in_words(), *(source.in_words() for source in self.sources)]
        if every := self.trainer.reload_dataloaders_every_n_epochs:
            said.append(
                "what names and functions stand for is found anew with the trainer's loaders "
                f"(reload_dataloaders_every_n_epochs={every}), and is the same until then"
            )
        said.append(f"probes the model by {self.probing.costs}" if self.probing.costs else "")
        return "; ".join(filter(None, said))

    def cost_in_words(self, seconds: float) -> str:
        """What a look takes, where many choices make it slow; else nothing."""
        if self._choices < MANY:
            return ""
        return (
            f"a look takes {seconds:.1f} s, at {self._choices} choices for an item; pass outputs=, a function that "
            "takes those that matter, or limit_batches=, to make it cheaper"
        )

    def state_dict(self) -> dict[str, dict[str, Any]]:
        """What the sources remember, by the first distribution of each."""
        return {next(iter(source.parts)): state for source in self.sources if (state := source.state_dict())}

    @property
    def reusable(self) -> bool:
        """Whether all sources can be read after they are closed."""
        return all(source.reusable for source in self.sources)

    def close(self) -> None:
        """Close the sources."""
        self.probing.close()
        for source in self.sources:
            source.close()

    def _check_average(self, weights: str) -> None:
        """Say once where the average that is looked at is still the untrained weights."""
        trainer = self.trainer
        if weights != "averaged" or self._average_seen or trainer.state.fn != "fit" or not trainer.global_step:
            return
        self._average_seen = True
        if not self.weights.begun:
            chosen = "".join(f"; {one}, and may keep or stop on them" for one in monitors_of(trainer, f"{self.name}/"))
            rank_zero_warn(
                f"MesaMonitor {self.name!r} looks at weights='averaged' at step {trainer.global_step}, before the "
                f"first average: these are the untrained weights{chosen}. Let the average begin before the first look, "
                "or look at weights='raw'.",
                category=MesaWarning,
            )

    @property
    def _ignoring(self) -> list[str]:
        """Names of the objectives that leave out items without a label."""
        return [o.name for o in self.hypotheses.scored if getattr(o, "ignore_index", None) is not None]

    def _check_seen(self, seen: Mapping[str, int], groups: Mapping[str, set[str]]) -> None:
        everybodys = gather(self.trainer, (seen, groups))
        for where, distribution in self.distributions.items():
            if not sum(of_one[where] for of_one, _ in everybodys):
                rest = "" if distribution.where is None else f" where {shown(distribution.where)} holds"
                rest += f" with a label of {' and '.join(map(repr, self._ignoring))}" if self._ignoring else ""
                read = next(
                    (how for source in self.sources if where in source.parts and (how := source.in_words())), ""
                )
                read = f" ({read})" if read else ""
                raise ConfigurationError(
                    f"distribution {where!r} is empty: there is no item{rest} to look at{read}; give it some."
                )
            labels = set[str]().union(*(of_one.get(where, ()) for _, of_one in everybodys))
            check_groups(self.context.reading.groups, labels, where)


def _offered(trainer: Any, pl_module: Any) -> dict[str, Distribution]:
    for owner in (trainer.datamodule, pl_module):
        offer = getattr(owner, "mesa_distributions", None)
        if offer is not None:
            return named_distributions(offer(), "shifted")
    raise ConfigurationError(
        "no shifted distribution: pass shifted=, or give the DataModule or LightningModule a method "
        "mesa_distributions() that returns a mapping from names to distributions."
    )
