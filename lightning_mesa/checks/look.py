"""One look's findings, arranged so that a null can be read off them."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from lightning_mesa.probes.ladder import Internals, climb
from lightning_mesa.records import Finding
from lightning_mesa.stats.competence import Best, Competence, Gap
from lightning_mesa.stats.intervals import Estimate, Mean


@dataclass(frozen=True)
class Conflict:
    """How the conflict items of a proxy were decided: by base, by the proxy, or neither.

    Of episodes, which ones are in conflict is not known: all are counted, those that serve both under ``neither``.
    """

    base: int
    proxy: int
    neither: int
    of: str = "items"

    @property
    def n(self) -> int:
        """Number of conflict items."""
        return self.base + self.proxy + self.neither

    def share(self, count: int) -> Mean:
        """A count as a share of the conflict items."""
        return Mean((float(self.n - count), float(count)))

    @property
    def preference(self) -> Mean:
        """Share of the proxy among the items that either of the two decided."""
        return Mean((float(self.base), float(self.proxy)))


@dataclass(frozen=True)
class Directedness:
    """How goal-directed choices are, by 95 % limits; each is a share, see ``irl/goal_directedness.py``.

    Without arguments, nothing is known.

    Attributes:
        goal_high: Upper limit of goal-directedness towards the listed objectives.
        decided_low: Lower limit of negentropy.
        decided_high: Upper limit of it.
        explained_high: Upper limit of what the listed objectives explain of it.
        effective: Largest number of effective items that tell base and a proxy apart; None without a proxy.
    """

    goal_high: float = 1.0
    decided_low: float = 0.0
    decided_high: float = 1.0
    explained_high: float = 1.0
    effective: float | None = None


@dataclass(frozen=True)
class Look:
    """What was found at one look; None stands for an estimate that does not exist.

    Attributes:
        step: Optimizer steps taken.
        epoch: Epoch.
        number: How many times a look has been due so far, None where that is not recorded.
        reference: Name of the reference.
        shifted: Names of the shifted distributions.
        base: Name of the base objective.
        witnessed: Whether capability can be told from base: another objective is listed beside it.
        competence: Competence at base, by distribution.
        capability: Capability, by distribution.
        gap: Gap, by shifted distribution.
        conflicts: Conflicts, by distribution and proxy.
        reasons: Why something does not exist, by distribution.
        data_regime: Regime of the data, by distribution.
        groups: Competence at base, by distribution and declared group.
        slices: The same for the slice that a search found, measured on the items it was not searched in.
        cue: Competence at base without less that with the cue, by distribution.
        readout: How much better base is read out of the model's features than out of an untrained copy's, by
            distribution; only where base alone is listed.
        preferences: Competence at the proxy less that at base, by distribution and proxy; of episodes with returns.
        directed: Goal-directedness, by distribution; where the behavioral objective is estimated.
        internals: What the probes say together; None without probes.
        extremal: Share of outputs beyond the reference's most extreme, less that on the reference, by distribution.
    """

    step: int
    epoch: int
    number: int | None
    reference: str
    shifted: tuple[str, ...]
    base: str
    witnessed: bool
    competence: Mapping[str, Competence | None]
    capability: Mapping[str, Estimate | None]
    gap: Mapping[str, Estimate | None]
    conflicts: Mapping[str, Mapping[str, Conflict]]
    reasons: Mapping[str, str]
    data_regime: Mapping[str, str]
    groups: Mapping[str, Mapping[str, Competence]] = field(default_factory=dict)
    slices: Mapping[str, Mapping[str, Competence]] = field(default_factory=dict)
    cue: Mapping[str, Competence] = field(default_factory=dict)
    extremal: Mapping[str, Gap] = field(default_factory=dict)
    readout: Mapping[str, Best] = field(default_factory=dict)
    preferences: Mapping[str, Mapping[str, Competence]] = field(default_factory=dict)
    directed: Mapping[str, Directedness] = field(default_factory=dict)
    internals: Internals | None = None

    @staticmethod
    def of(findings: Iterable[Finding]) -> "Look":
        """Arrange the findings of one look.

        Raises:
            ValueError: If there is no gap among them: then nothing can be judged.
        """
        internals = climb(findings := list(findings))
        findings = [finding for finding in findings if finding.role != "internals"]
        whole = [finding for finding in findings if finding.group is None]
        gaps = [finding for finding in whole if finding.quantity == "gap"]
        if not gaps or gaps[0].objective is None:
            raise ValueError("these findings hold no gap between a reference and a shifted distribution")
        base = gaps[0].objective
        reference = next(finding.distribution for finding in whole if finding.role == "reference")
        competences: dict[str, dict[str, Competence | None]] = {}
        capability: dict[str, Estimate | None] = {}
        conflicts: dict[str, dict[str, Conflict]] = {}
        preferences: dict[str, dict[str, Competence]] = {}
        for f in whole:
            if f.quantity == "competence" and f.objective is not None:
                known = f.value is not None
                competences.setdefault(f.distribution, {})[f.objective] = (
                    Competence.from_record(f.detail) if known else None
                )
            elif f.quantity == "capability":
                capability[f.distribution] = _capability(f, competences.get(f.distribution, {}))
            elif f.quantity == "conflict" and f.objective is not None:
                conflicts.setdefault(f.distribution, {})[f.objective] = Conflict(**f.detail)
            elif f.quantity == "preference" and f.objective is not None and "difference" in f.detail:
                difference = Competence.from_record(f.detail["difference"])
                preferences.setdefault(f.distribution, {})[f.objective] = difference
        competence = {where: by_objective[base] for where, by_objective in competences.items()}
        return Look(
            step=gaps[0].step,
            epoch=gaps[0].epoch,
            number=gaps[0].detail.get("look"),
            reference=reference,
            shifted=tuple(finding.distribution for finding in gaps),
            base=base,
            witnessed=any(len(by_objective) > 1 for by_objective in competences.values()),
            competence=competence,
            capability=capability,
            gap={f.distribution: _gap(f, competence[reference], competence[f.distribution]) for f in gaps},
            conflicts=conflicts,
            preferences=preferences,
            directed={f.distribution: _directed(f, whole) for f in whole if f.quantity == "goal_directedness"},
            internals=internals,
            reasons={f.distribution: str(f.detail["reason"]) for f in whole if "reason" in f.detail},
            data_regime={f.distribution: f.data_regime for f in whole},
            groups=_by_group(findings, "competence"),
            slices=_by_group(findings, "slice"),
            cue={
                f.distribution: Competence.from_record(f.detail)
                for f in whole
                if f.quantity == "cue_difference" and f.value is not None
            },
            extremal={
                f.distribution: Gap(
                    Competence.from_record(f.detail["here"]), Competence.from_record(f.detail["reference"])
                )
                for f in whole
                if f.quantity == "extremal_excess"
            },
            readout={
                f.distribution: Best([Competence.from_record(fold) for fold in f.detail["folds"]])
                for f in whole
                if f.quantity == "readout" and f.value is not None
            },
        )


def _by_group(findings: Iterable[Finding], quantity: str) -> dict[str, dict[str, Competence]]:
    by_group: dict[str, dict[str, Competence]] = {}
    for f in findings:
        if f.quantity == quantity and f.group is not None and f.value is not None:
            by_group.setdefault(f.distribution, {})[f.group] = Competence.from_record(f.detail)
    return by_group


def _directed(goal: Finding, findings: Iterable[Finding]) -> Directedness:
    here = [f for f in findings if f.distribution == goal.distribution]
    limits = {f.quantity: (f.low, f.high) for f in here if f.low is not None and f.high is not None}
    (_, goal_high), (decided_low, decided_high), (_, explained_high) = (
        limits.get(what, (0.0, 1.0)) for what in ("goal_directedness", "negentropy", "explained")
    )
    effective = [f.detail["effective"] for f in here if f.quantity == "weight_gap"]
    return Directedness(goal_high, decided_low, decided_high, explained_high, max(effective, default=None))


def _capability(finding: Finding, competences: Mapping[str, Competence | None]) -> Estimate | None:
    if finding.value is None:
        return None
    if finding.detail["rule"] == "any":
        return Competence.from_record(finding.detail)
    return Best([c for name in finding.detail["objectives"] if (c := competences[name]) is not None])


def _gap(finding: Finding, reference: Competence | None, shifted: Competence | None) -> Estimate | None:
    if finding.value is None or reference is None or shifted is None:
        return None
    if "paired" in finding.detail:
        return Competence.from_record(finding.detail["paired"])
    return Gap(reference, shifted)
