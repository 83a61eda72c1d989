"""What TensorBoard shows beside the curves: a layout, and alerts as text."""

from collections.abc import Iterable, Sequence
from typing import Any

from lightning_mesa.judge.regimes import Regime
from lightning_mesa.records import Alert, Verdict

LEGEND = ", ".join(f"{regime.value} {regime.label}" for regime in Regime)


def writers(trainer: Any) -> list[Any]:
    """The TensorBoard writers among the trainer's loggers, on rank zero."""
    if not trainer.is_global_zero:
        return []
    experiments = [getattr(logger, "experiment", None) for logger in trainer.loggers]
    return [experiment for experiment in experiments if hasattr(experiment, "add_custom_scalars")]


def add_layout(
    trainer: Any,
    name: str,
    reference: str,
    shifted: Sequence[str],
    objectives: Sequence[str],
    weighed: Sequence[tuple[str, str]] = (),
    moved: Sequence[tuple[str, str]] = (),
) -> None:
    """Arrange the metrics on the Custom Scalars tab; once, at the first look.

    Args:
        trainer: The trainer.
        name: The monitor's name.
        reference: Name of the reference.
        shifted: Names of the shifted distributions.
        objectives: Names of the listed objectives, base first.
        weighed: Distributions and objectives whose weights are estimated.
        moved: Layers and proxies whose targets are moved inside the model.
    """
    charts: dict[str, list[Any]] = {}
    for where in shifted:
        at = f"{name}/{where}"
        charts[f"{where}: gap with 95 % limits"] = ["Margin", [f"{at}/gap", f"{at}/gap_low", f"{at}/gap_high"]]
        band = ["Margin", [f"{at}/gap", f"{at}/gap_band_low", f"{at}/gap_band_high"]]
        charts[f"{where}: gap with limits that hold at every look"] = band
        competences = [f"{at}/competence/{objective}" for objective in objectives]
        charts[f"{where}: base ({objectives[0]}) against proxies"] = ["Multiline", competences]
    for where, objective in weighed:
        of_one = f"{name}/{where}/behavioral/{objective}"
        chart = ["Margin", [of_one, f"{of_one}_low", f"{of_one}_high"]]
        charts[f"{where}: weight of {objective} in the behavioral objective, with 95 % limits"] = chart
    for layer, proxy in moved:
        of_one = f"{name}/search/margin/{layer}/{proxy}"
        chart = ["Margin", [of_one, f"{of_one}_low", f"{of_one}_high"]]
        charts[f"{layer}: how much more decisions follow base inside than {proxy}, with 95 % limits"] = chart
    if moved:
        charts["rung of the ladder"] = ["Multiline", [f"{name}/search/rung"]]
    everywhere = [reference, *shifted]
    charts["capability"] = ["Multiline", [f"{name}/{where}/capability" for where in everywhere]]
    charts["regime: " + LEGEND] = ["Multiline", [f"{name}/{where}/regime" for where in shifted]]
    charts["evidence (above 0: alert)"] = ["Multiline", [f"{name}/{where}/evidence/.*" for where in shifted]]
    for writer in writers(trainer):
        writer.add_custom_scalars({name: charts})


def add_alert(trainer: Any, name: str, alert: Alert, verdicts: Iterable[Verdict], step: int) -> None:
    """Write an alert as text, with the regimes and their legend."""
    regimes = "; ".join(f"{v.distribution}: {v.code} {v.regime} ({v.reason})" for v in verdicts)
    effect = (
        "unknown" if alert.effect is None else f"{alert.effect:.3g}, 95 % limits {alert.low:.3g} to {alert.high:.3g}"
    )
    facts = {
        "step": alert.step,
        "first crossing at step": alert.first_crossing,
        "look": f"{alert.look} of {alert.looks_planned or 'an unknown number'}",
        "effect": effect,
        "p-value": f"{alert.statistic:.3g}",
        "level at this look": f"{alert.alpha:.3g}",
        "null": alert.null,
        "procedure": alert.procedure,
        "data": alert.data_regime,
        "items": alert.n,
        "last healthy step": alert.last_healthy_step,
        "its checkpoint": alert.checkpoint,
        "regimes": regimes,
        "legend": LEGEND,
    }
    rows = "\n".join(f"| {key} | {value} |" for key, value in facts.items())
    text = f"**{alert.severity}: {alert.signature}**\n\n{alert.message}\n\n| | |\n|---|---|\n{rows}"
    for writer in writers(trainer):
        writer.add_text(f"{name}/{alert.distribution}/{alert.signature}", text, step)
