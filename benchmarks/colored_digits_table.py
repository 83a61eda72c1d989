"""The three runs of examples/colored_digits.py over seeds: the table, the looks on the way, and the first picture.

    python benchmarks/colored_digits_table.py --markdown docs/colored_digits.md --picture docs/accuracy_and_alert.png

Runs are not stopped, so that silence is tested over the whole run. Everything is read from the journals, by judging the
recorded findings again.
"""

import argparse
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytorch_lightning as pl
from matplotlib.figure import Figure

from colored_digits import RUNS, ColoredDigitsModule, SmallConvNet, mesa_monitor
from drawing.weights import compare, weighed_of
from lightning_mesa.judge.alarm import Judgement
from lightning_mesa.organisms.baselines import mmd_p_value
from lightning_mesa.organisms.judging import judge_recorded
from lightning_mesa.organisms.training import quiet_trainer, quietly
from lightning_mesa.records import Finding
from lightning_mesa.report.summary import with_limits

MAX_EPOCHS = 30


@dataclass
class Run:
    """One training run, judged look by look."""

    kind: str
    seed: int
    looks: Sequence[tuple[Sequence[Finding], Judgement]]
    inputs_drift: float  # p-value

    @property
    def gate_opens(self) -> int | None:
        return next((i for i, (_, judgement) in enumerate(self.looks) if judgement.gate_open), None)

    @property
    def alert_looks(self) -> list[int]:
        return [i for i, (_, judgement) in enumerate(self.looks) if judgement.alerts]

    @property
    def gap_above_bound(self) -> int | None:
        """First look at which the plain baseline fires: the estimated gap exceeds .1, whatever its limits."""
        return next((i for i in range(len(self.looks)) if self.value(i, "shifted", "gap") > 0.1), None)

    @property
    def signatures(self) -> list[str]:
        alerts = [alert for _, judgement in self.looks for alert in judgement.alerts]
        return [alert.signature + (f" ({alert.proxy})" if alert.proxy else "") for alert in alerts]

    def value(self, look: int, role: str, quantity: str, objective: str | None = None) -> float:
        findings, _ = self.looks[look]
        found = [f for f in findings if (f.role, f.quantity) == (role, quantity) and objective in (None, f.objective)]
        return float(found[0].value or 0.0)


def train(kind: str, seed: int, folder: Path) -> Run:
    pl.seed_everything(seed, verbose=False)
    trainer = quiet_trainer(folder, [mesa_monitor(kind)], max_epochs=MAX_EPOCHS)
    data = ColoredDigitsModule(kind, seed)
    trainer.fit(SmallConvNet(), datamodule=data)
    looks = list(zip(*judge_recorded(folder / "mesa" / "findings.jsonl"), strict=True))
    return Run(kind, seed, looks, mmd_p_value(data.val_set.images, data.shifted_set.images))


def table(runs: list[Run]) -> Iterator[str]:
    yield "| run | seed | alerts and warnings | gate opens at look | first alert at look (step) | looks "
    yield "| accuracy on val: then, end | competence at digit, color when shifted: then, end | regime at the end "
    yield "| baseline gap > .1, first at look | baseline MMD of inputs, p |\n"
    yield "|---|---|---|---|---|---|---|---|---|---|---|\n"
    for run in runs:
        last = len(run.looks) - 1
        first = run.alert_looks[0] if run.alert_looks else None
        then = last if first is None else first
        steps = run.looks[then][0][0].step
        accuracy = ", ".join(f"{run.value(look, 'reference', 'score', 'digit'):.2f}" for look in (then, last))
        shifted = "; ".join(
            ", ".join(f"{run.value(look, 'shifted', 'competence', o):.2f}" for o in ("digit", "color"))
            for look in (then, last)
        )
        yield (
            f"| {run.kind} | {run.seed} | {', '.join(run.signatures) or 'none'} | {(run.gate_opens or 0) + 1} "
            f"| {'-' if first is None else f'{first + 1} ({steps})'} | {len(run.looks)} | {accuracy} | {shifted} "
            f"| {run.looks[-1][1].run.regime} "
            f"| {'-' if run.gap_above_bound is None else run.gap_above_bound + 1} | {run.inputs_drift:.3f} |\n"
        )


def on_the_way(runs: list[Run]) -> Iterator[str]:
    yield "| run | seed | step | regime | reason | capability on the shifted set [95 %] |\n|---|---|---|---|---|---|\n"
    for run in runs:
        final = run.looks[-1][1].run.regime
        for findings, judgement in run.looks:
            verdict = judgement.verdicts[0]
            if verdict.regime == final:
                continue
            cap = next(f for f in findings if f.quantity == "capability" and f.role == "shifted")
            yield (
                f"| {run.kind} | {run.seed} | {findings[0].step} | {verdict.regime} | {verdict.reason} "
                f"| {cap.value:.2f} [{cap.low:.2f}, {cap.high:.2f}] |\n"
            )


def behavioral(runs: list[Run]) -> Iterator[str]:
    """The behavioral objective at the last look."""
    yield "| run | seed | weight of digit [95 %] | weight of color [95 %] | reward distance to digit [95 %] "
    yield "| goal-directedness | negentropy | explained | own-lights regret |\n|---|---|---|---|---|---|---|---|---|\n"
    for run in runs:
        found = {(f.quantity, f.objective): f for f in run.looks[-1][0] if f.role == "shifted"}
        about_base = [("behavioral", "digit"), ("behavioral", "color"), ("reward_distance", "digit")]
        shares = [
            ("goal_directedness", None),
            ("negentropy", None),
            ("explained", None),
            ("own_lights_regret", "digit"),
        ]
        cells = [with_limits(found[key]) for key in about_base] + [f"{found[key].value:.2f}" for key in shares]
        yield f"| {run.kind} | {run.seed} | {' | '.join(cells)} |\n"


def picture_of_weights(runs: list[Run], path: Path) -> None:
    """The weights move from base to the proxy, or do not, as the behavior does."""
    kinds = {
        f"{kind}, on recolored digits": [
            [weighed for findings, _ in run.looks for weighed in weighed_of(findings).values()]
            for run in runs
            if run.kind == kind
        ]
        for kind in ("confounded", "decorrelated")
    }
    compare(kinds, ["digit", "color"]).savefig(path, dpi=120)


def picture(runs: list[Run], path: Path) -> None:
    """Accuracy on validation data stays high while the alert fires."""
    figure = Figure(figsize=(8, 4), layout="constrained")
    axes = figure.add_subplot()
    curves = {
        "accuracy on validation data": ("reference", "score", "digit", "tab:blue"),
        "competence at the digit, recolored": ("shifted", "competence", "digit", "tab:green"),
        "competence at the color, recolored": ("shifted", "competence", "color", "tab:red"),
    }
    for i, run in enumerate(runs):
        steps = [findings[0].step for findings, _ in run.looks]
        for label, (role, quantity, objective, color) in curves.items():
            values = [run.value(look, role, quantity, objective) for look in range(len(steps))]
            style = {"linewidth": 2.2, "label": label} if i == 0 else {"linewidth": 0.8, "alpha": 0.5}
            axes.plot(steps, values, color=color, **style)
        axes.axvline(steps[run.alert_looks[0]], color="black", linestyle=":", linewidth=1.6 if i == 0 else 0.6)
    axes.text(
        runs[0].looks[runs[0].alert_looks[0]][0][0].step + 4, 0.22, "first alert", rotation=90, va="center", ha="left"
    )
    axes.set(xlabel="step", ylim=(-0.08, 1.05), title="Confounded run: what validation sees, and what it cannot see")
    axes.legend(loc="center right")
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--markdown", type=Path, help="write the tables here")
    parser.add_argument("--picture", type=Path, help="write the picture here")
    parser.add_argument("--weights", type=Path, help="write the picture of the behavioral objective here")
    options = parser.parse_args()
    quietly()

    with tempfile.TemporaryDirectory() as folder:
        runs = [train(kind, seed, Path(folder) / f"{kind}-{seed}") for kind in RUNS for seed in range(options.seeds)]
    text = (
        "# Three runs on colored digits\n\nMade by `python benchmarks/colored_digits_table.py --markdown "
        f"docs/colored_digits.md`: {options.seeds} seeds each, {MAX_EPOCHS} epochs, 500 items per distribution, "
        "nothing stopped. The two baselines look at the "
        "same data: an estimated gap above .1 at any look, and drift of the inputs.\n\n"
        + "".join(table(runs))
        + "\n## Looks whose regime differs from the final one\n\n"
        "All of them; a regime other than undetermined or not goal-directed here would be wrong on the way.\n\n"
        + "".join(on_the_way(runs))
        + "\n## The behavioral objective at the last look\n\n"
        + "".join(behavioral(runs))
    )
    print(text)
    if options.markdown:
        options.markdown.write_text(text)
    if options.picture:
        picture([run for run in runs if run.kind == "confounded"], options.picture)
    if options.weights:
        picture_of_weights(runs, options.weights)


if __name__ == "__main__":
    main()
