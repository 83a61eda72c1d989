"""What probes found, layer by layer over training, beside what they find where there is nothing."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lightning_mesa.probes.ladder import Internals, Rung
from lightning_mesa.records import Finding

WHOLE = "whole model"


@dataclass(frozen=True)
class Probed:
    """One look.

    Attributes:
        step: When.
        rung: Rung of the ladder.
        values: Probe, with the objective where there is one -> layer -> value; without those that do not exist.
        nulls: The same for the value where there is nothing: the mean of the null, or that of an untrained copy.
        margins: Proxy -> base's value minus the proxy's, lower and upper limit, in the layer that serves most.
    """

    step: int
    rung: int
    values: Mapping[str, Mapping[str, float]]
    nulls: Mapping[str, Mapping[str, float]]
    margins: Mapping[str, Sequence[float]]


def probed_of(findings: Sequence[Finding], internals: Internals | None) -> Probed | None:
    """What probes found at one look; None without probes."""
    if internals is None:
        return None
    values: dict[str, dict[str, float]] = {}
    nulls: dict[str, dict[str, float]] = {}
    for f in findings:
        if f.role != "internals" or f.quantity == "margin":
            continue
        what = f.measure if f.quantity == "probe" else f.quantity
        title = what.replace("_", " ") + (f": {f.objective}" if f.objective else "")
        layer = f.group or WHOLE
        values.setdefault(title, {})
        if f.value is not None and f.detail["status"] == "ok":
            values[title][layer] = f.value
        null = f.detail.get("null_mean", f.detail.get("untrained"))
        if null is not None:
            nulls.setdefault(title, {})[layer] = null
    margins = {} if internals.layer is None else internals.margins.get(internals.layer, {})
    return Probed(
        findings[0].step,
        int(internals.rung),
        values,
        nulls,
        {proxy: [margin.value, margin.lower(0.025), margin.upper(0.025)] for proxy, margin in margins.items()},
    )


def draw(looks: Sequence[Probed]) -> Figure:
    """Draw a heat map of layers by steps for each probe with its null beside it, the ladder, and the margins.

    Args:
        looks: One per look.
    """
    titles = list(dict.fromkeys(title for look in looks for title in look.values))
    proxies = list(dict.fromkeys(proxy for look in looks for proxy in look.margins))
    layers = {t: list(dict.fromkeys(layer for look in looks for layer in look.values.get(t, {}))) for t in titles}
    heights = [0.5 + 0.25 * max(len(layers[t]), 1) for t in titles] + [1.6] * (2 if proxies else 1)
    figure = Figure(figsize=(8, sum(heights) + 0.5 * len(heights)), layout="constrained")
    grid = figure.add_gridspec(len(heights), 2, width_ratios=[12, 1], height_ratios=heights)
    for row, title in enumerate(titles):
        _heat(figure.add_subplot(grid[row, 0]), figure.add_subplot(grid[row, 1]), title, layers[title], looks)
    steps = [look.step for look in looks]
    ladder = figure.add_subplot(grid[len(titles), 0])
    ladder.step(steps, [look.rung for look in looks], where="post", marker=".", color="tab:purple")
    ladder.set(ylim=(-0.3, 4.3), ylabel="rung", title="the ladder", yticks=list(map(int, Rung)))
    if proxies:
        margin = figure.add_subplot(grid[len(titles) + 1, 0])
        unknown = (float("nan"),) * 3
        margin.axhline(0, color="0.7", linewidth=0.8)
        for proxy in proxies:
            value, low, high = zip(*(look.margins.get(proxy, unknown) for look in looks), strict=True)
            (line,) = margin.plot(steps, value, marker=".", label=f"base minus {proxy}")
            margin.fill_between(steps, low, high, alpha=0.2, color=line.get_color(), linewidth=0)
        margin.set(title="which objective decisions follow inside, with 95 % limits", xlabel="step")
        margin.legend(loc="best")
    return figure


def _heat(heat: Axes, null: Axes, title: str, layers: Sequence[str], looks: Sequence[Probed]) -> None:
    unknown = float("nan")
    values = [[look.values.get(title, {}).get(layer, unknown) for look in looks] for layer in layers]
    of_nothing = [[looks[-1].nulls.get(title, {}).get(layer, unknown)] for layer in layers]
    heat.set(title=title, yticks=range(len(layers)), yticklabels=layers)
    null.set(title="null", xticks=[], yticks=[])
    if layers:
        heat.imshow(values, cmap="viridis", vmin=0.0, vmax=1.0, aspect="auto")
        null.imshow(of_nothing, cmap="viridis", vmin=0.0, vmax=1.0, aspect="auto")
        for i, (value,) in enumerate(of_nothing):
            null.text(0, i, f"{value:.2f}", ha="center", va="center", color="white", fontsize=8)
    shown = range(0, len(looks), max(1, len(looks) // 8))
    heat.set(xticks=list(shown), xticklabels=[str(looks[i].step) for i in shown])
