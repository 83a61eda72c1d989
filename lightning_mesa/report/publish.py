"""Metric names and values, for ``callback_metrics`` and every logger."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch

from lightning_mesa.judge.alarm import Judgement
from lightning_mesa.judge.regimes import Regime
from lightning_mesa.records import Finding

WHOLE = (
    "capability",
    "cue_difference",
    "extremal_excess",
    "readout",
    "regret",
    "episode_length",
    "iid_failure",
    "goal_failure_ceiling",
    "reward_distance",
    "goal_directedness",
    "negentropy",
    "explained",
    "own_lights_regret",
)
"""Quantities of which a distribution has one value."""

DISTANCES = ("outer_distance", "inner_distance", "reward_result_distance")


def metrics(name: str, findings: Iterable[Finding], judgement: Judgement) -> dict[str, float]:
    """The values of one look by metric name; a value that does not exist has no entry.

    Args:
        name: The monitor's name, the first part of every metric name.
        findings: The look's findings.
        judgement: What the alarm says of them.
    """
    values: dict[str, float | None] = {}
    gaps: list[float] = []
    base_competences: list[float] = []
    broken = False  # the worst of what is left would look better than it is
    base = next(f.objective for f in findings if f.quantity == "gap")
    for f in findings:
        at = f"{name}/{f.distribution}"
        if f.role == "internals":
            values |= _of_probe(at, f)
            continue
        if f.quantity == "slice":
            continue  # another one at each look
        if f.group is not None:
            values[f"{at}/group/{f.group}/{f.quantity}"] = f.value
        elif f.quantity in ("score", "competence"):
            values[f"{at}/{f.quantity}/{f.objective}"] = f.value
            if f.quantity == "score" and f.objective == base:
                values[f"{at}/n"] = f.n
            elif f.objective == base:
                base_competences += [] if f.value is None else [f.value]
                broken |= "nonfinite" in f.detail
        elif f.quantity == "gap":
            values |= {f"{at}/gap": f.value, f"{at}/gap_low": f.low, f"{at}/gap_high": f.high}
            gaps += [] if f.value is None else [f.value]
        elif f.quantity == "joint_conflict":
            follower = "base" if f.objective == base else f.objective or "neither"
            values[f"{at}/conflict/{follower}"] = f.value
        elif f.quantity in DISTANCES:
            values[f"{at}/distance/{f.quantity.removesuffix('_distance')}"] = f.value
        elif f.quantity in ("behavioral", "weight_gap"):
            of_one = f"{at}/{f.quantity}/{f.objective}"
            values |= {of_one: f.value, f"{of_one}_low": f.low, f"{of_one}_high": f.high}
        elif f.quantity in ("preference", "goal_failure"):
            values[f"{at}/{f.quantity}/{f.objective}"] = f.value
        elif f.quantity in WHOLE:
            values[f"{at}/{f.quantity}"] = f.value
    values |= {f"{name}/{where}/evidence/{signature}": e for (where, signature), e in judgement.evidence.items()}
    for where, (low, high) in judgement.bands.items():
        values |= {f"{name}/{where}/gap_band_low": low, f"{name}/{where}/gap_band_high": high}
    values |= {f"{name}/{verdict.distribution}/regime": float(verdict.code) for verdict in judgement.verdicts}
    if not broken:
        values[f"{name}/gap/worst"] = max(gaps, default=None)
        values[f"{name}/base/worst"] = min(base_competences, default=None)
    if judgement.internals is not None:
        values[f"{name}/search/rung"] = float(judgement.internals.rung)
        values |= {f"{name}/search/rung/{layer}": float(r) for layer, r in judgement.internals.by_layer.items()}
        if (known := judgement.internals.decodable.get(str(base))) is not None:
            strays = [v.distribution for v in judgement.verdicts if v.code == Regime.PSEUDO_ALIGNED]
            values |= {f"{name}/{where}/latent_knowledge": known[1] for where in strays}
    values[f"{name}/alert"] = float(judgement.standing)
    return {key: float(value) for key, value in values.items() if value is not None and math.isfinite(value)}


def _of_probe(at: str, f: Finding) -> dict[str, float | None]:
    """``PROBE/LAYER/OBJECTIVE``, without what there is not; where controls fail there is no value.

    Of a probe that gives several, their names stand in its place.
    """
    if f.detail["status"] != "ok":
        return {}
    probe = f.measure if f.quantity == "probe" else f.quantity
    key = "/".join([at, probe, *(part for part in (f.group, f.objective) if part is not None)])
    null = {} if f.detail.get("null_mean") is None else {f"{key}/null": f.detail["null_mean"]}
    return {key: f.value, f"{key}_low": f.low, f"{key}_high": f.high, **null}


def to_callback_metrics(trainer: Any, values: Mapping[str, float]) -> None:
    """Let ``EarlyStopping``, ``ModelCheckpoint`` and plateau schedulers see the values, on every rank."""
    tensors = {key: torch.tensor(value, dtype=torch.float32) for key, value in values.items()}
    trainer.callback_metrics.update(tensors)


def to_loggers(trainer: Any, values: Mapping[str, float], step: int) -> None:
    """Write the values to every logger, on rank zero."""
    if trainer.is_global_zero:
        for logger in trainer.loggers:
            logger.log_metrics(dict(values), step=step)
