"""The weights of the behavioral objective over training, with their limits."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lightning_mesa.records import Finding

COLORS = ("tab:green", "tab:red", "tab:orange", "tab:purple", "tab:brown", "tab:blue")


@dataclass(frozen=True)
class Weighed:
    """One look.

    Attributes:
        step: When.
        weights: Objective -> weight, lower and upper limit; without those that are not identified.
    """

    step: int
    weights: Mapping[str, Sequence[float]]


def weighed_of(findings: Sequence[Finding]) -> dict[str, Weighed]:
    """The weights on each shifted distribution, from the findings of one look."""
    found: dict[str, dict[str, list[float]]] = {}
    for f in findings:
        if f.quantity == "behavioral" and f.role == "shifted" and f.objective is not None:
            weights = found.setdefault(f.distribution, {})
            if f.value is not None and f.low is not None and f.high is not None:
                weights[f.objective] = [f.value, f.low, f.high]
    return {where: Weighed(findings[0].step, weights) for where, weights in found.items()}


def draw(looks: Sequence[Weighed], where: str, objectives: Sequence[str]) -> Figure:
    """Draw each objective's weight as a line in the band of its limits; a gap where it is not identified.

    Args:
        looks: One per look.
        where: The distribution.
        objectives: Names, base first.
    """
    figure = Figure(figsize=(6, 3.6), layout="constrained")
    axes = figure.add_subplot()
    _lines(axes, looks, objectives)
    axes.set(xlabel="step", ylabel="weight, in nats", title=f"{where}: the behavioral objective, with 95 % limits")
    if not any(look.weights for look in looks):
        axes.text(0.5, 0.5, "not identified at any look", transform=axes.transAxes, ha="center", color="crimson")
    axes.legend(loc="best")
    return figure


def compare(kinds: Mapping[str, Sequence[Sequence[Weighed]]], objectives: Sequence[str]) -> Figure:
    """Draw the same for runs of several kinds, a panel for each: the first run with its limits, the others faint.

    Args:
        kinds: Title -> runs, each by its looks.
        objectives: Names, base first.
    """
    figure = Figure(figsize=(9, 3.4), layout="constrained")
    panels = figure.subplots(1, len(kinds), sharey=True)
    for axes, (title, runs) in zip(panels, kinds.items(), strict=True):
        for i, looks in enumerate(runs):
            _lines(axes, looks, objectives, faint=i > 0)
        axes.set(xlabel="step", title=title)
        axes.legend(loc="upper left")
    panels[0].set_ylabel("weight in the behavioral objective, nats")
    return figure


def _lines(axes: Axes, looks: Sequence[Weighed], objectives: Sequence[str], *, faint: bool = False) -> None:
    axes.axhline(0, color="0.7", linewidth=0.8, zorder=0)
    steps = [look.step for look in looks]
    unknown = (float("nan"),) * 3
    for i, name in enumerate(objectives):
        value, low, high = zip(*(look.weights.get(name, unknown) for look in looks), strict=True)
        color = COLORS[i % len(COLORS)]
        if faint:
            axes.plot(steps, value, color=color, linewidth=0.8)
        else:
            axes.fill_between(steps, low, high, color=color, alpha=0.2, linewidth=0)
            axes.plot(steps, value, color=color, marker=".", label=f"{name} (base)" if i == 0 else name)
