"""The path of a run between base, proxy and neither, drawn as a triangle."""

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.figure import Figure

from lightning_mesa.records import Finding


@dataclass(frozen=True)
class Point:
    """How conflict items were decided at one look; the three shares add up to 1."""

    step: int
    base: float
    proxy: float
    neither: float


def points_of(findings: Sequence[Finding]) -> dict[str, Point]:
    """The point of each shifted distribution that has conflict items, from the findings of one look."""
    base = next(f.objective for f in findings if f.quantity == "gap")
    shares: dict[str, dict[str | None, float]] = {}
    for f in findings:
        if f.quantity == "joint_conflict" and f.role == "shifted" and f.value is not None:
            shares.setdefault(f.distribution, {})[f.objective] = f.value
    step = findings[0].step
    # Two proxies can be followed at once: what base and neither leave is what proxies have.
    return {
        where: Point(step, share[base], 1 - share[base] - share[None], share[None]) for where, share in shares.items()
    }


def draw(path: Sequence[Point], title: str, proxy: str, base: str) -> Figure:
    """Draw a path of looks, light to dark, with the last one marked.

    Args:
        path: One point per look.
        title: Title of the figure.
        proxy: What to call the corner of the proxies.
        base: What to call the corner of base.
    """
    height = 3**0.5 / 2
    x = [point.proxy + point.neither / 2 for point in path]
    y = [point.neither * height for point in path]
    figure = Figure(figsize=(5, 4.6), layout="constrained")
    axes = figure.add_subplot()
    axes.plot([0, 1, 0.5, 0], [0, 0, height, 0], color="0.6", linewidth=1)
    axes.plot([0.5, 0.5], [0, height], color="0.85", linewidth=0.8, zorder=0)
    axes.plot(x, y, color="0.75", linewidth=1, zorder=1)
    steps = [point.step for point in path]
    dots = axes.scatter(x, y, c=steps, cmap="viridis_r", s=28, zorder=2)
    axes.scatter(x[-1:], y[-1:], facecolors="none", edgecolors="crimson", s=140, linewidths=2, zorder=3)
    axes.annotate(f"step {steps[-1]}", (x[-1], y[-1]), textcoords="offset points", xytext=(9, 9), color="crimson")
    start = "untrained" if steps[0] == 0 else f"step {steps[0]}"
    axes.annotate(start, (x[0], y[0]), textcoords="offset points", xytext=(9, -4))
    axes.text(0, -0.05, f"follows base\n({base})", ha="center", va="top")
    axes.text(1, -0.05, f"follows the proxy\n({proxy})", ha="center", va="top")
    axes.text(0.5, height + 0.02, "follows neither", ha="center", va="bottom")
    axes.set(xlim=(-0.2, 1.2), ylim=(-0.2, height + 0.12), title=title, aspect="equal")
    axes.axis("off")
    figure.colorbar(dots, ax=axes, label="step", shrink=0.7)
    return figure
