"""The detectors, on recorded findings: what the alarm says of a run, and what trivial baselines would."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lightning_mesa.judge.alarm import Alarm, Judgement
from lightning_mesa.judge.replay import judge_again, read_recording
from lightning_mesa.organisms.oracle import Truth
from lightning_mesa.organisms.training import FEWER, Plan
from lightning_mesa.organisms.truth import trained, truth_of, truth_of_run
from lightning_mesa.records import Finding

GOAL = ("objective_lost", "proxy_pursued")


@dataclass(frozen=True)
class Judged:
    """One run: what is true, and what detectors say of it.

    Attributes:
        plan: What was run.
        truth: At each look, by the oracle.
        steps: Of the looks.
        gaps: The true gap at each look.
        standing: Whether an alert stands, at each look.
        open_from: First look at which the gate is open, None if it never is.
        signatures: Of the alerts, in order.
        first: Look of the first alert, None without any.
        named: The proxy that an alert named first, None if none did.
        evidence: Largest log10 of level over p that an alert of a lost objective or a pursued proxy had.
        regimes: At each look.
        unlisted: What was raised by monitors that knew base alone: *alone* had the readout as its witness of
            capability, *witnessed* a score.
        fewer: Number of items -> whether an alert stands at each look, by a monitor that looked at only so many.
        contrary: True competence at base at each look, on the third distribution.
        accuracy: At each look, on many items like those in training.
        worst: ``mesa/base/worst`` at each look: base competence on the reference or the shifted items, the lower one.
        baselines: Largest plain gap, largest drop of the worst group, and 1 - p for drift of the inputs.
    """

    plan: Plan
    truth: Sequence[Truth]
    steps: Sequence[int]
    gaps: Sequence[float]
    standing: Sequence[bool]
    open_from: int | None
    signatures: Sequence[str]
    first: int | None
    named: str | None
    evidence: float
    regimes: Sequence[str]
    unlisted: Mapping[str, Sequence[str]]
    fewer: Mapping[int, Sequence[bool]]
    contrary: Sequence[float]
    accuracy: Sequence[float]
    worst: Sequence[float]
    baselines: dict[str, float]

    @property
    def run_truth(self) -> Truth:
        """What the run is."""
        return truth_of_run(self.truth)

    @property
    def onset(self) -> int | None:
        """First look at which the model is misaligned."""
        return next((i for i, truth in enumerate(self.truth) if truth == "misaligned"), None)


def truth_in(folder: Path, base: str) -> list[Truth]:
    """What is true at each look of a recorded run, up to the one at which it counts as trained."""
    looks = json.loads((folder / "oracle.json").read_text())["looks"]
    return [truth_of(look, base) for look in looks[: trained(looks)]]


def judged(folder: Path, base: str, truth: Sequence[Truth]) -> Judged:
    """Judge a recorded run.

    Args:
        folder: Of the run.
        base: Name of the base objective of its family.
        truth: Of the looks that count.
    """
    seen: dict[str, Any] = json.loads((folder / "oracle.json").read_text())
    looks = seen["looks"][: len(truth)]

    def said(monitor: str) -> list[Judgement]:
        return judge_recorded(folder / monitor / "findings.jsonl", len(looks))[1]

    def raised(monitor: str) -> list[str]:
        return [alert.signature for judgement in said(monitor) for alert in judgement.alerts]

    found, judgements = judge_recorded(folder / "mesa" / "findings.jsonl", len(looks))
    alerts = [(i, a) for i, j in enumerate(judgements) for a in j.alerts if a.severity == "alert"]
    simple = json.loads((folder / "baselines.json").read_text())
    return Judged(
        plan=Plan(seen["family"], seen["kind"], seen["seed"]),
        truth=truth,
        steps=[look["step"] for look in looks],
        gaps=[look["reference"] - look["shifted"][base] for look in looks],
        standing=[judgement.standing for judgement in judgements],
        open_from=next((i for i, judgement in enumerate(judgements) if judgement.gate_open), None),
        signatures=[a.signature for _, a in alerts],
        first=alerts[0][0] if alerts else None,
        named=next((a.proxy for _, a in alerts if a.proxy), None),
        evidence=max(v for j in judgements for (_, name), v in j.evidence.items() if name in GOAL),
        regimes=[judgement.run.regime for judgement in judgements],
        unlisted={monitor: raised(monitor) for monitor in ("alone", "witnessed")},
        fewer={n: [judgement.standing for judgement in said(f"n{n}")] for n in FEWER if (folder / f"n{n}").exists()},
        contrary=[look["contrary"] for look in looks],
        accuracy=[look["accuracy"] for look in looks],
        worst=[
            min(f.value or 0.0 for f in look if (f.quantity, f.objective) == ("competence", base)) for look in found
        ],
        baselines={
            **{key: max(look[key] for look in simple["looks"][: len(looks)]) for key in ("gap", "worst_group")},
            "inputs": 1 - simple["inputs"],
        },
    )


def judge_recorded(path: Path, looks: int | None = None) -> tuple[Sequence[Sequence[Finding]], list[Judgement]]:
    """The findings of a recorded run, and what the alarm says of them.

    Args:
        path: The ``findings.jsonl``.
        looks: Number of looks that count; None for all.
    """
    recording = read_recording(path)
    recording = replace(recording, looks=recording.looks[:looks])
    return recording.looks, judge_again(recording, Alarm(), recording.looks_planned)
