"""Metric names and values, for ``callback_metrics`` and every logger."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from lightning_mesa.checks import Check, Look
from lightning_mesa.judge.alarm import Judgement
from lightning_mesa.judge.regimes import Regime
from lightning_mesa.records import Finding


def of_look(name: str, look: Look, judgement: Judgement, checks: Sequence[Check]) -> dict[str, float]:
    """The values of one look by metric name; a value that does not exist has no entry.

    Args:
        name: The monitor's name, the first part of every metric name.
        look: The look, with all its findings.
        judgement: What the alarm says of it.
        checks: The checks, which name what they find.
    """
    names = {quantity: metric for check in checks for quantity, metric in check.metrics.items()}
    with_limits = {quantity for check in checks for quantity in check.with_limits}
    values: dict[str, float | None] = {}
    for f in look.findings:
        if f.role == "internals":
            values |= _of_probe(f"{name}/{f.distribution}", f)
        elif (metric := _metric(f, names, look.base)) is not None:
            key = f"{name}/{f.distribution}/{metric}"
            values[key] = f.value
            if f.quantity in with_limits and f.group is None:
                values |= {f"{key}_low": f.low, f"{key}_high": f.high}
    values |= _worst(name, look)
    values |= {f"{name}/{where}/evidence/{check}": e for (where, check), e in judgement.evidence.items()}
    for where, (low, high) in judgement.bands.items():
        values |= {f"{name}/{where}/gap_band_low": low, f"{name}/{where}/gap_band_high": high}
    values |= {f"{name}/{verdict.distribution}/regime": float(verdict.code) for verdict in judgement.verdicts}
    if judgement.internals is not None:
        values[f"{name}/search/rung"] = float(judgement.internals.rung)
        values |= {f"{name}/search/rung/{layer}": float(r) for layer, r in judgement.internals.by_layer.items()}
        if (known := judgement.internals.decodable.get(look.base)) is not None:
            strays = [v.distribution for v in judgement.verdicts if v.code == Regime.PSEUDO_ALIGNED]
            values |= {f"{name}/{where}/latent_knowledge": known[1] for where in strays}
    values[f"{name}/alert"] = float(judgement.standing)
    return {key: float(value) for key, value in values.items() if value is not None and math.isfinite(value)}


def _metric(f: Finding, names: Mapping[str, str | None], base: str) -> str | None:
    """The name below ``MONITOR/DISTRIBUTION/``; None for what its check does not publish."""
    default = f.quantity if f.objective is None else f"{f.quantity}/{{objective}}"
    template = names.get(f.quantity, default)
    if template is None or f.group is None:
        follower = "base" if f.objective == base else f.objective or "neither"
        return template and template.format(objective=f.objective, follower=follower)
    return f"group/{f.group}/{f.quantity}"


def _worst(name: str, look: Look) -> dict[str, float | None]:
    """The number of items, the largest gap and the lowest competence at base.

    Where items lack a finite score, the worst of the rest would look better than it is, and is withheld.
    """
    scores = [f for f in look.found("score") if f.objective == look.base]
    found: dict[str, float | None] = {f"{name}/{f.distribution}/n": f.n for f in scores}
    if not any("nonfinite" in f.detail for f in scores):
        at_base = (f.value for f in look.found("competence") if f.objective == look.base and f.group is None)
        found[f"{name}/gap/worst"] = max((f.value for f in look.found("gap") if f.value is not None), default=None)
        found[f"{name}/base/worst"] = min((value for value in at_base if value is not None), default=None)
    return found


def _of_probe(at: str, f: Finding) -> dict[str, float | None]:
    """``PROBE/LAYER/OBJECTIVE``, without the parts that a result lacks; where controls fail there is no value.

    A probe that finds several quantities has their names in place of its own.
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
