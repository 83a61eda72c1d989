"""The face that every check has: one question about behavior, from what it accumulates to what an alert says."""

import copy
import inspect
from abc import ABC
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar, Literal

from lightning_mesa.checks.look import Look
from lightning_mesa.checks.states import Key, State
from lightning_mesa.errors import ConfigurationError, shown
from lightning_mesa.objectives.hypotheses import Hypotheses
from lightning_mesa.objectives.objective import check_name
from lightning_mesa.records import Behavior, Finding, Severity
from lightning_mesa.stats.intervals import Estimate
from lightning_mesa.stats.nulls import Null
from lightning_mesa.thresholds import Thresholds as Thresholds  # every check names it

Need = Literal[
    "prescribed",
    "chosen",
    "log_probabilities",
    "groups",
    "ids",
    "extremity",
    "cued",
    "features",
    "lengths",
    "decisions",
]
"""What a batch of behavior may hold beside scores; see :class:`~lightning_mesa.Behavior`."""

SHARE_OF_USERS = 0.05
"""Share of the level that checks of a user's own divide among them, together with those that rest on probes."""


@dataclass(frozen=True)
class Test:
    """A null tested on one distribution at one look.

    Attributes:
        null: The null hypothesis.
        proxy: The proxy it is about, where it is about one.
        n: Number of items it rests on.
        effect: The effect, None where it cannot be estimated; an alert gives it with limits.
        sentence: What was seen, in plain words.
        group: The group or slice it is about, where it is about one.
    """

    __test__: ClassVar[bool] = False  # pytest would collect it by its name

    null: Null
    proxy: str | None
    n: int
    effect: Estimate | None
    sentence: str
    group: str | None = None


class Check(ABC):
    """One question about behavior.

    A check declares what it accumulates by annotations with a kind of :class:`~lightning_mesa.checks.State`. It adds
    to that in ``update``, batch by batch. ``findings`` makes typed findings from it, once all processes have merged
    theirs. ``tests`` says which nulls are tested, from all findings of the look. A check without states tests what
    others have found; a check that tests nothing only measures.

    Attributes:
        name: Part of the metric name of its evidence, and of alerts.
        measure: What its findings are recorded as; default: its name.
        needs: What a batch must hold for ``update`` to be called, beside scores.
        metrics: Quantity -> metric name below ``MONITOR/DISTRIBUTION/``, None for a quantity that is not published. It
            may hold ``{objective}``. Default for a quantity that is not listed: ``QUANTITY/OBJECTIVE``.
        with_limits: Quantities whose limits are published too, as ``NAME_low`` and ``NAME_high``.
        share: Its share of the level of the whole run, 0 if it tests nothing. For a check of your own it is a weight:
            these divide .05 of the level among them.
        severity: ``"alert"`` may stop a run, ``"warning"`` never does.
        uses_reference: Whether its null speaks of the reference too, so that the evidence rests on both data.
        of_probes: Whether it is tested only where there are probes.
        untested: Why it tests nothing where ``tests`` gives none, for a user who asks what can be raised.
        hypotheses: The listed objectives, while a look is measured.

    Example:
        >>> import torch
        >>> from lightning_mesa import AtMost, Check, Test
        >>> from lightning_mesa.checks import Sums
        >>> from lightning_mesa.stats.competence import Competence
        >>> from lightning_mesa.stats.intervals import Mean, tally
        >>> class Hesitation(Check):
        ...     '''How often is the model unsure, and more often than one time in two?'''
        ...
        ...     name, severity, share, uses_reference = "hesitation", "alert", 1.0, False
        ...     needs = ("log_probabilities",)
        ...     metrics = {"hesitation": "hesitation"}
        ...     unsure: Sums
        ...
        ...     def update(self, behavior):
        ...         unsure = behavior.log_probabilities.exp().amax(1) < 0.5
        ...         self.unsure.add((behavior.distribution,), tally(unsure, binary=True))
        ...
        ...     def findings(self, look):
        ...         return [
        ...             self.finding(look, where, "hesitation", "share", Mean(self.unsure.counts((where,))))
        ...             for where in look.roles if (where,) in self.unsure
        ...         ]
        ...
        ...     def null(self, thresholds):
        ...         return "the model is unsure on at most half of the items"
        ...
        ...     def tests(self, look, where, thresholds):
        ...         share = look.estimate("hesitation", where)
        ...         n = 0 if share is None else share.n
        ...         return [Test(AtMost(share, 0.5), None, n, share, f"On {where!r} the model is mostly unsure.")]
    """

    name: ClassVar[str]
    measure: ClassVar[str] = ""
    needs: ClassVar[tuple[Need, ...]] = ()
    metrics: ClassVar[Mapping[str, str | None]] = {}
    with_limits: ClassVar[tuple[str, ...]] = ()
    share: ClassVar[float] = 0.0
    severity: ClassVar[Severity] = "warning"
    uses_reference: ClassVar[bool] = True
    of_probes: ClassVar[bool] = False
    untested: ClassVar[str] = "it has nothing to test"
    hypotheses: Hypotheses

    def update(self, behavior: Behavior) -> None:
        """Add one batch, which holds what the check needs."""
        return

    def findings(self, look: Look) -> list[Finding]:
        """What is found at a look.

        Args:
            look: The look, with the findings of the checks before this one.
        """
        return []

    def null(self, thresholds: Thresholds) -> str:
        """The null hypothesis in words."""
        return ""

    def tests(self, look: Look, where: str, thresholds: Thresholds) -> list[Test]:
        """Test the null on one distribution; one test for each proxy or group, where the null is about one.

        Args:
            look: The look, with all its findings.
            where: The distribution.
            thresholds: What counts as lost and as capable.
        """
        return []

    def places(self, look: Look) -> tuple[str, ...]:
        """The distributions it is tested on; its share of the level is divided equally over them."""
        return look.shifted

    @classmethod
    def states(cls) -> Mapping[str, type[State]]:
        """Name -> kind of each state, from the annotations of the class and those that it extends."""
        return _states(cls)

    def begun(self, hypotheses: Hypotheses) -> "Check":
        """A copy for one look, its states empty."""
        check = copy.copy(self)
        check.hypotheses = hypotheses
        for name, kind in self.states().items():
            setattr(check, name, kind())
        return check

    def saw(self, behavior: Behavior) -> None:
        """Update with a batch, if it holds what the check needs."""
        held = (getattr(behavior, need) for need in self.needs)
        if all(value is not None and not (isinstance(value, Mapping) and not value) for value in held):
            self.update(behavior)

    def accumulated(self) -> dict[str, dict[Key, Any]]:
        """The values of each state: tensors and plain values, for another process."""
        return {name: getattr(self, name).values for name in self.states()}

    def merge(self, accumulated: Mapping[str, dict[Key, Any]]) -> None:
        """Add what a check like this one has accumulated, on other batches or another process."""
        for name, values in accumulated.items():
            getattr(self, name).merge(values)

    def finding(self, look: Look, where: str, quantity: str, unit: str, *args: Any, **about: Any) -> Finding:
        """A finding of this check; arguments as for :meth:`Look.finding <lightning_mesa.checks.Look.finding>`."""
        return look.finding(self.measure or self.name, where, quantity, unit, *args, **about)


@cache
def _states(check: type[Check]) -> Mapping[str, type[State]]:
    found: dict[str, type[State]] = {}
    for owner in reversed(check.__mro__):
        for name, kind in inspect.get_annotations(owner, eval_str=True).items():
            if isinstance(kind, type) and issubclass(kind, State):
                found[name] = kind
    return found


def check_own(checks: tuple[object, ...], built_in: tuple[Check, ...]) -> tuple[Check, ...]:
    """The checks of a user's own, if they can stand beside the built-in ones.

    Raises:
        ConfigurationError: If one is no check, its name cannot be part of a metric name or is taken, or it tests a null
            without a share of the level.
    """
    own: list[Check] = []
    for i, check in enumerate(checks):
        if not isinstance(check, Check):
            raise ConfigurationError(
                f"checks[{i}] is {shown(check)}, and no Check: pass objects, like checks=[MyCheck()]."
            )
        check_name(check.name, "check name")
        if check.name in [other.name for other in (*built_in, *own)]:
            raise ConfigurationError(f"checks[{i}]: there is another check named {check.name!r}.")
        if type(check).tests is not Check.tests and not check.share > 0:
            raise ConfigurationError(
                f"checks[{i}], {check.name!r}, tests a null without a share of the level: give it share = 1.0, a "
                "weight among the checks of your own."
            )
        own.append(check)
    return tuple(own)


def items(estimate: Estimate | None) -> int:
    """Number of items that an estimate rests on."""
    return 0 if estimate is None else estimate.n


def in_words(estimate: Estimate | None) -> str:
    """The value, or that it is unknown."""
    return "unknown" if estimate is None else f"{estimate.value:.2f}"
