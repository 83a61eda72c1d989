"""What TensorBoard shows beside the curves: a layout, and alerts as text."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from lightning_mesa.judge.regimes import Regime
from lightning_mesa.records import Alert, Verdict

Layout: TypeAlias = dict[str, dict[str, list[Any]]]

TAG = "custom_scalars__config__"
"""TensorBoard's own tag of a layout."""

LEGEND = ", ".join(f"{regime.value} {regime.label}" for regime in Regime)


def writers(trainer: Any) -> list[Any]:
    """The TensorBoard writers among the trainer's loggers, on rank zero."""
    if not trainer.is_global_zero:
        return []
    experiments = [getattr(logger, "experiment", None) for logger in trainer.loggers]
    return [experiment for experiment in experiments if hasattr(experiment, "add_custom_scalars")]


def folders(trainer: Any) -> set[str]:
    """Where these writers write; none under ``fast_dev_run``."""
    found = [getattr(writer, "log_dir", getattr(writer, "logdir", None)) for writer in writers(trainer)]
    return {str(folder) for folder in found if isinstance(folder, (str, Path))}


def layout_of(
    name: str,
    reference: str,
    shifted: Sequence[str],
    objectives: Sequence[str],
    weighed: Sequence[tuple[str, str]] = (),
    moved: Sequence[tuple[str, str]] = (),
) -> Layout:
    """The monitor's charts for the Custom Scalars tab.

    A title says all that its charts depend on. TensorBoard merges categories of one title from several runs, and loses
    charts of the third where the first has no such category.

    Args:
        name: The monitor's name.
        reference: Name of the reference.
        shifted: Names of the shifted distributions.
        objectives: Names of the listed objectives, base first.
        weighed: Distributions and objectives whose weights are estimated.
        moved: Layers and proxies whose targets are moved inside the model.

    Returns:
        Category title -> chart title -> kind of chart, and tags of what it draws.
    """
    charts: dict[str, list[Any]] = {}
    for where in shifted:
        at = f"{name}/{where}"
        charts[f"{where}: gap with 95 % limits"] = ["Margin", [f"{at}/gap", f"{at}/gap_low", f"{at}/gap_high"]]
        band = ["Margin", [f"{at}/gap", f"{at}/gap_band_low", f"{at}/gap_band_high"]]
        charts[f"{where}: gap with limits that hold at every look"] = band
        competences = [f"{at}/competence/{objective}" for objective in objectives]
        charts[f"{where}: base ({objectives[0]}) against proxies"] = ["Multiline", competences]
    everywhere = [reference, *shifted]
    charts["capability"] = ["Multiline", [f"{name}/{where}/capability" for where in everywhere]]
    charts["regime: " + LEGEND] = ["Multiline", [f"{name}/{where}/regime" for where in shifted]]
    charts["evidence (above 0: alert)"] = ["Multiline", [f"{name}/{where}/evidence/.*" for where in shifted]]
    base, *others = objectives
    against = f"{base} against {', '.join(others)}" if others else base
    layout = {f"{name}: {against}; {reference} to {', '.join(shifted)}": charts}
    if weighed:
        title = f"{name}: behavioral objective, {', '.join(f'{objective} on {where}' for where, objective in weighed)}"
        layout[title] = {
            f"{where}: weight of {objective} in the behavioral objective, with 95 % limits": _margin(
                f"{name}/{where}/behavioral/{objective}"
            )
            for where, objective in weighed
        }
    if moved:
        title = f"{name}: inside the model, {', '.join(f'{proxy} in {layer}' for layer, proxy in moved)}"
        layout[title] = {
            f"{layer}: how much more decisions follow base inside than {proxy}, with 95 % limits": _margin(
                f"{name}/search/margin/{layer}/{proxy}"
            )
            for layer, proxy in moved
        } | {"rung of the ladder": ["Multiline", [f"{name}/search/rung"]]}
    return layout


def _margin(tag: str) -> list[Any]:
    return ["Margin", [tag, f"{tag}_low", f"{tag}_high"]]


def add_layout(folder: str, layout: Layout) -> None:
    """Add categories to what TensorBoard shows of a run of ours, beside those that the folder's run has already.

    TensorBoard shows one layout of each run, the last one, and merges those of several runs. In a run of our own,
    beneath the user's, our layout cannot replace theirs, nor theirs ours, whichever is written last.

    Args:
        folder: Folder of our run.
        layout: The categories.
    """
    from torch.utils.tensorboard import SummaryWriter  # it takes a second to import, and not every run has TensorBoard

    with SummaryWriter(folder) as writer:
        writer.add_custom_scalars(_layout_in(folder) | layout)


def _layout_in(folder: str) -> Layout:
    """What an earlier fit has laid out in the same folder: its curves are still there."""
    if not any("tfevents" in path.name for path in Path(folder).glob("*")):
        return {}
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # as above
    from tensorboard.plugins.custom_scalar.layout_pb2 import Layout as Written

    events = EventAccumulator(folder)
    events.Reload()
    if TAG not in events.Tags()["tensors"]:
        return {}
    content = events.Tensors(TAG)[-1].tensor_proto.string_val[0]
    categories = Written.FromString(content).category
    return {category.title: {chart.title: _drawn(chart) for chart in category.chart} for category in categories}


def _drawn(chart: Any) -> list[Any]:
    margins = [[series.value, series.lower, series.upper] for series in chart.margin.series]
    return ["Margin", *margins] if margins else ["Multiline", [*chart.multiline.tag]]


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
