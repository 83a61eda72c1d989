"""Can what an objective prescribes be decoded from a layer, better than from where nothing is known?"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from scipy.stats import t as student_t
from torch import Tensor

from lightning_mesa.probes.controls import generator, numbered, of_other_groups
from lightning_mesa.probes.probe import LEVEL, ModelUnderProbe, ProbeResult, ReadingProbe, of_limits, without
from lightning_mesa.probes.ridge import PENALTIES, FoldSums, HeldOut, OnlineCode
from lightning_mesa.records import INPUT, UNTRAINED, Behavior
from lightning_mesa.splits import folds

BAR = 0.02
"""An objective is decodable where this much more is explained than where nothing is known, by the lower limit."""

FOLDS = 10
PERMUTATIONS = 19


class Decodability(ReadingProbe):
    """Ridge regression of what each objective prescribes on the activations of layers, on the shifted items.

    The value is the share of variance explained on held-out items, less the largest of three: the share explained by
    what the first layer reads, by the same layer of a copy that has learned nothing, and on average by labels that
    have changed places. Limits are those of a jackknife over the folds. Null: labels change places, whole groups (items
    with the same id) at a time. ``detail`` has the shares, and the online code's *compression* (Voita and Titov 2020).

    It reads in the forward pass that there is anyway; the untrained copy runs once over the items, at the first look.

    What it cannot see: whether what is decodable is used. It supports the first rung and no other, and cannot raise an
    alert. Where activations are averaged over positions, what is told by positions is not seen.

    Args:
        layers: Names or patterns of the layers; ``"*"`` are the blocks at the top.
        objectives: Names of the objectives; None for base and all proxies.
        bar: The lower limit has to reach this.
        seed: Of the permutations.
    """

    name = "decodability"
    rung = 1

    def __init__(
        self,
        layers: str | Sequence[str] = "*",
        *,
        objectives: Sequence[str] | None = None,
        bar: float = BAR,
        seed: int = 0,
    ) -> None:
        self.reads = (layers,) if isinstance(layers, str) else tuple(layers)
        self._objectives = objectives
        self.bar = bar
        self.seed = seed
        self._forget()

    @property
    def objectives(self) -> Sequence[str]:
        """The objectives named."""
        return tuple(self._objectives or ())

    @property
    def wants_untrained(self) -> bool:
        """Whether it has not seen yet what an untrained copy gives."""
        return not self._of_nothing

    def check(self, model: ModelUnderProbe) -> str:
        """Refuse layers that are not there.

        Raises:
            ConfigurationError: If a pattern matches none.
        """
        self._forget()
        self._layers: list[str] = model.layers(self.reads)
        return f"{len(self._layers)} layers read in passing, and one pass of an untrained copy"

    def _forget(self) -> None:
        """What has been seen of another model says nothing about this one."""
        self._sums: dict[str, FoldSums] = {}
        self._of_nothing: dict[str, FoldSums] = {}
        self._curves: dict[str, dict[str, Curve]] = {}
        self._choices: dict[str, int] = {}

    def update(self, behavior: Behavior) -> None:
        """Add a batch of shifted items."""
        prescribed = {
            name: mask for name, mask in behavior.prescribed.items() if not self._objectives or name in self._objectives
        }
        if not behavior.activations or not prescribed or behavior.n == 0:
            return
        groups = numbered(behavior.ids, behavior.n)
        numbers = behavior.items if behavior.ids is None else behavior.ids
        draw = generator(self.seed)
        orders = [of_other_groups(groups, draw) for _ in range(PERMUTATIONS if int(groups.max()) > 0 else 0)]
        self._choices = {name: mask.shape[1] for name, mask in prescribed.items()}
        observed = torch.cat([*prescribed.values()], 1).float()
        # Each objective's permutations stand after it.
        targets = torch.cat([x for mask in prescribed.values() for x in (mask, *(mask[order] for order in orders))], 1)
        where = folds(numbers, FOLDS)
        for layer, activation in behavior.activations.items():
            if layer != INPUT and layer.removeprefix(UNTRAINED).partition("@")[0] not in self._layers:
                continue  # another probe's
            untrained = layer.startswith(UNTRAINED) or layer == INPUT
            finite = activation.isfinite().all(1)
            sums = FoldSums.of(
                activation[finite], (observed if untrained else targets.float())[finite], where[finite], FOLDS
            )
            held = self._of_nothing if layer.startswith(UNTRAINED) else self._sums
            held[layer] = held[layer] + sums if layer in held else sums

    def accumulated(self) -> Any:
        """What has been added, for another process."""
        return self._sums, self._of_nothing, self._choices

    def gathered(self, parts: Sequence[Any]) -> None:
        """Go on with what all processes have added."""
        self._sums, self._of_nothing = ({}, {})
        for sums, of_nothing, choices in parts:
            self._choices |= choices
            for held, more in ((self._sums, sums), (self._of_nothing, of_nothing)):
                for layer, one in more.items():
                    held[layer] = held[layer] + one if layer in held else one

    def run(self, model: ModelUnderProbe) -> list[ProbeResult]:
        """One result for each layer and objective, of what has been added since the last call."""
        sums, self._sums = self._sums, {}
        if not sums:
            reason = "no layer was read on shifted items for which objectives prescribe choices"
            return [without("not_applicable", reason)]
        for layer, of_copy in self._of_nothing.items():
            if layer not in self._curves:  # what has learned nothing does not change
                self._curves[layer] = self._controls(of_copy)
        inputs = self._controls(sums[INPUT]) if INPUT in sums else {}
        results = []
        for layer, of_layer in sums.items():
            if layer == INPUT:
                continue
            n = int(of_layer.n.sum())
            few = bool((of_layer.n < 2).any())
            held, code = (None, None) if few else (HeldOut(of_layer), OnlineCode(of_layer))
            copies = of_layer.y.shape[1] // sum(self._choices.values())
            for name, columns in self._columns(copies).items():
                about: dict[str, Any] = {"layer": layer, "objective": name}
                if held is None or code is None:
                    results.append(without("underpowered", f"{n} items in {FOLDS} folds", n=n, **about))
                    continue
                curve = best(held, columns)
                if not float(curve.spread.sum()) > 0:
                    results.append(without("not_applicable", f"{name!r} prescribes the same everywhere", n=n, **about))
                    continue
                controls = {"input": inputs.get(name), "untrained": self._curves.get(UNTRAINED + layer, {}).get(name)}
                null = permuted(held, curve.penalty, columns, copies)
                detail = {"compression": code.saved(curve.penalty, columns)}
                results.append(self._result(n, curve, controls, null, detail, about))
        return results

    def _result(
        self,
        n: int,
        curve: "Curve",
        controls: Mapping[str, "Curve | None"],
        shuffled: Sequence[float],
        detail: Mapping[str, float],
        about: Mapping[str, Any],
    ) -> ProbeResult:
        known = {what: control for what, control in controls.items() if control is not None}
        shares = {what: control.explained for what, control in known.items()}
        shares["null"] = sum(shuffled) / max(len(shuffled), 1)
        most = max(shares, key=shares.__getitem__)
        baseline = max(shares[most], 0.0)
        apart = curve.leaving_out - (known[most].leaving_out if most in known and baseline > 0 else baseline)
        error = math.sqrt((FOLDS - 1) / FOLDS * float(((apart - apart.mean()) ** 2).sum()))
        margin = float(student_t.ppf((1 + LEVEL) / 2, FOLDS - 1)) * error
        excess = curve.explained - baseline
        told = {"explained": curve.explained, **{f"explained_{what}": share for what, share in shares.items()}}
        # The null is what permuted labels give, above the same baseline.
        null = [share - baseline for share in shuffled]
        limits = (excess, excess - margin, excess + margin)
        return of_limits(limits, null, n, self.bar, None, **about, detail={**told, **detail})

    def _columns(self, copies: int) -> dict[str, slice]:
        """Where each objective's targets are, where so many copies of them follow each other."""
        columns, start = {}, 0
        for name, width in self._choices.items():
            columns[name] = slice(start, start + width)
            start += copies * width
        return columns

    def _controls(self, sums: FoldSums) -> dict[str, "Curve"]:
        held = HeldOut(sums)
        return {name: best(held, columns) for name, columns in self._columns(1).items()}


def permuted(held: HeldOut, penalty: float, columns: slice, copies: int) -> list[float]:
    """The share explained of each copy of some targets in which labels have changed places; they stand after these."""
    width = columns.stop - columns.start
    at = slice(columns.stop, columns.start + copies * width)
    errors, spread = (x.sum(0).view(copies - 1, width).sum(1) for x in (held.errors(penalty, at), held.spread(at)))
    return [float(share) for share in 1 - errors / spread]


@dataclass(frozen=True)
class Curve:
    """What is missed on held-out items, at the penalty that misses least.

    Attributes:
        errors: ``[F]`` sums of squared errors.
        spread: ``[F]`` those of the mean.
        penalty: The penalty.
    """

    errors: Tensor
    spread: Tensor
    penalty: float

    @property
    def explained(self) -> float:
        """Share of variance explained."""
        return float(1 - self.errors.sum() / self.spread.sum())

    @property
    def leaving_out(self) -> Tensor:
        """``[F]`` the share explained without each fold."""
        return 1 - (self.errors.sum() - self.errors) / (self.spread.sum() - self.spread)


def best(held: HeldOut, columns: slice) -> Curve:
    """The curve of some targets at the best penalty."""
    errors = [held.errors(penalty, columns).sum(1) for penalty in PENALTIES]
    chosen = min(range(len(PENALTIES)), key=lambda i: float(errors[i].sum()))
    return Curve(errors[chosen], held.spread(columns).sum(1), PENALTIES[chosen])
