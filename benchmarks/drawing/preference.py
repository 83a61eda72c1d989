"""Preference and capability of a policy, one point per look: what it wants, and whether it can."""

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.figure import Figure

from lightning_mesa.records import Finding


@dataclass(frozen=True)
class Placed:
    """The pair of Ramanauskas and Simsek 2023 (arXiv 2312.03762) at one look.

    Attributes:
        step: When.
        preference: 0 where episodes are decided for base, 1 for the proxy.
        capability: Competence at some listed goal.
    """

    step: int
    preference: float
    capability: float


def placed_of(findings: Sequence[Finding]) -> dict[str, Placed]:
    """The pair of each shifted distribution and proxy, ``"DISTRIBUTION/PROXY"``, from the findings of one look."""
    capability = {f.distribution: f.value for f in findings if f.quantity == "capability"}
    placed = {}
    for f in findings:
        able = capability.get(f.distribution)
        if f.quantity == "preference" and f.role == "shifted" and f.value is not None and able is not None:
            placed[f"{f.distribution}/{f.objective}"] = Placed(f.step, f.value, able)
    return placed


def draw(looks: Sequence[Placed], where: str, base: str) -> Figure:
    """Draw the looks, light to dark, with the last one marked.

    Args:
        looks: One pair per look.
        where: ``"DISTRIBUTION/PROXY"``.
        base: Name of the base objective.
    """
    distribution, _, proxy = where.partition("/")
    x, y = [at.preference for at in looks], [at.capability for at in looks]
    figure = Figure(figsize=(5, 4.2), layout="constrained")
    axes = figure.add_subplot()
    axes.axvline(0.5, color="0.85", linewidth=0.8, zorder=0)
    axes.plot(x, y, color="0.75", linewidth=1, zorder=1)
    dots = axes.scatter(x, y, c=[at.step for at in looks], cmap="viridis_r", s=28, zorder=2)
    axes.scatter(x[-1:], y[-1:], facecolors="none", edgecolors="crimson", s=140, linewidths=2, zorder=3)
    axes.set(xlim=(-0.05, 1.05), ylim=(min(-0.1, *y), max(1.05, *y)), ylabel="capability", title=distribution)
    axes.set_xlabel(f"preference: {base} (0) or {proxy} (1)")
    figure.colorbar(dots, ax=axes, label="step")
    return figure
