"""Can what an objective prescribes be decoded from a layer, better than from where nothing is known?"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from scipy.special import stdtrit
from torch import Tensor

from lightning_mesa.probes.controls import numbered, swaps
from lightning_mesa.probes.probe import ModelUnderProbe, ReadingProbe, of_limits, without
from lightning_mesa.records import INPUT, LEVEL, UNTRAINED, Behavior, ProbeResult
from lightning_mesa.stats.ridge import Curve, FoldSums, Held, HeldOut, best
from lightning_mesa.stats.splits import folds

BAR = 0.02
"""An objective is decodable where this much more is explained than where nothing is known, by the lower limit."""

FOLDS = 10
PERMUTATIONS = 19
COPIES = 1 + PERMUTATIONS
PORTION = 1024
"""Number of items that are added up at a time; labels change places among them."""


@dataclass(frozen=True)
class Items:
    """What has been read on some items.

    Attributes:
        items: ``[n]`` int64 numbers of the items.
        ids: ``[n]`` int64, those of one group have the same; the items' numbers where each is its own.
        prescribed: Objective -> ``[n, A]`` bool, what it prescribes.
        activations: Layer -> ``[n, d]``.
        seed: Of the permutations.
    """

    items: Tensor
    ids: Tensor
    prescribed: Mapping[str, Tensor]
    activations: Mapping[str, Tensor]
    seed: int

    @staticmethod
    def joined(parts: Sequence["Items"]) -> "Items":
        """All of them as one."""
        items, ids = torch.cat([part.items for part in parts]), torch.cat([part.ids for part in parts])
        prescribed = {name: torch.cat([part.prescribed[name] for part in parts]) for name in parts[0].prescribed}
        layers = {layer: torch.cat([part.activations[layer] for part in parts]) for layer in parts[0].activations}
        return Items(items, ids, prescribed, layers, parts[0].seed)

    def only(self, some: Tensor, layer: str) -> "Items":
        """Some of them, a mask or numbers, with what one layer gave."""
        prescribed = {name: mask[some] for name, mask in self.prescribed.items()}
        return Items(self.items[some], self.ids[some], prescribed, {layer: self.activations[layer][some]}, self.seed)

    @cached_property
    def observed(self) -> Tensor:
        """``[n, T]`` what is prescribed, objective by objective."""
        return torch.cat([*self.prescribed.values()], 1)

    @cached_property
    def permuted(self) -> Tensor:
        """``[n, COPIES T]`` the same, with each objective's permutations after it."""
        return with_permuted([*self.prescribed.values()], numbered(self.ids, len(self.ids)), self.seed)


class Decodability(ReadingProbe):
    """Ridge regression of what each objective prescribes on the activations of layers, on the shifted items.

    The value is the share of variance explained on held-out items, less the largest of three: the share explained by
    what the first layer reads, by the same layer of a copy that has learned nothing, and on average by labels that
    have changed places. Limits are those of a jackknife over the folds. Null: labels change places, whole groups (items
    with the same id) at a time, among the items that are added up together. That is the control task of Hewitt and
    Liang (2019, arXiv:1909.03368), with a group as a type of input: each has a label of its own that tells nothing.
    ``detail`` has the shares, the *selectivity*, which is the share explained less that of the control task, and the
    online code's *compression* (Voita and Titov 2020, arXiv:2003.12298). As held-out groups have not been seen, no
    probe does well on the control task here by learning groups by heart; what it could learn so is not in the value
    either.

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
        super().__init__(layers=layers, bar=bar, seed=seed)
        self._objectives = objectives
        self._forget()

    @property
    def objectives(self) -> Sequence[str]:
        """The objectives named."""
        return tuple(self._objectives or ())

    @property
    def wants_untrained(self) -> bool:
        """Whether it has not seen yet what an untrained copy gives."""
        return not self._curves

    def check(self, model: ModelUnderProbe) -> str:
        """Refuse layers that are not there.

        Raises:
            ConfigurationError: If a pattern matches none.
        """
        self._forget()
        self._layers: list[str] = model.layers(self.layers)
        return f"{len(self._layers)} layers read in passing, and one pass of an untrained copy"

    def _forget(self) -> None:
        """What has been seen of another model says nothing about this one."""
        self._waiting: list[Items] = []
        self._sums: dict[str, Any] = {}
        self._curves: dict[str, dict[str, Curve]] = {}
        self._choices: dict[str, int] = {}

    def update(self, behavior: Behavior) -> None:
        """Add a batch of shifted items."""
        prescribed = {
            name: mask for name, mask in behavior.prescribed.items() if not self._objectives or name in self._objectives
        }
        own = {layer: x for layer, x in behavior.activations.items() if layer == INPUT or self._is_own(layer)}
        if not own or not prescribed or behavior.n == 0:
            return
        self._choices = {name: mask.shape[1] for name, mask in prescribed.items()}
        ids = behavior.items if behavior.ids is None else behavior.ids
        if self._waiting and self._waiting[0].activations.keys() != own.keys():
            self._add_up()
        self._waiting.append(Items(behavior.items, ids, prescribed, own, self.seed))
        if sum(len(part.items) for part in self._waiting) >= PORTION:
            self._add_up()

    def _is_own(self, layer: str) -> bool:
        return layer.removeprefix(UNTRAINED).partition("@")[0] in self._layers  # and not another probe's

    def _add_up(self) -> None:
        """Add what is waiting: products of matrices are cheaper for many items at once."""
        waiting, self._waiting = self._waiting, []
        if waiting:
            items = Items.joined(waiting)
            for layer in items.activations:
                self._sums[layer] = self._added(self._sums.get(layer), items, layer)

    def _added(self, held: Any, items: Items, layer: str) -> FoldSums | Any:
        features = items.activations[layer]
        # Controls need no controls.
        targets = items.observed if layer == INPUT or layer.startswith(UNTRAINED) else items.permuted
        sums: FoldSums = held or FoldSums.zeros(features.shape[1], targets.shape[1], FOLDS)
        finite = features.isfinite().all(1)
        sums.add(features[finite], targets[finite], folds(items.ids, FOLDS)[finite])
        return sums

    def _held_out(self, sums: Any) -> Held:
        return HeldOut(sums)

    def accumulated(self) -> Any:
        """What has been added, for another process."""
        self._add_up()
        return self._sums, self._choices

    def gathered(self, parts: Sequence[Any]) -> None:
        """Go on with what all processes have added."""
        self._sums = {}
        for sums, choices in parts:
            self._choices |= choices
            for layer, one in sums.items():
                self._sums[layer] = self._sums[layer] + one if layer in self._sums else one

    def run(self, model: ModelUnderProbe) -> list[ProbeResult]:
        """One result for each layer and objective, of what has been added since the last call."""
        self._add_up()
        sums, self._sums = self._sums, {}
        # What has learned nothing does not change.
        of_copy = [layer for layer in sums if layer.startswith(UNTRAINED)]
        self._curves |= {layer: self._controls(sums.pop(layer)) for layer in of_copy}
        if not sums:
            reason = "no layer was read on shifted items for which objectives prescribe choices"
            return [without("not_applicable", reason)]
        inputs = self._controls(sums[INPUT]) if INPUT in sums else {}
        results = []
        for layer, of_layer in sums.items():
            if layer == INPUT:
                continue
            n = int(of_layer.n.sum())
            held = None if bool((of_layer.n < 2).any()) else self._held_out(of_layer)
            for name, columns in self._columns(COPIES).items():
                about: dict[str, Any] = {"layer": layer, "objective": name}
                if held is None:
                    results.append(without("underpowered", f"{n} items in {FOLDS} folds", n=n, **about))
                    continue
                curve = best(held, columns)
                if not float(curve.spread.sum()) > 0:
                    results.append(without("not_applicable", f"{name!r} prescribes the same everywhere", n=n, **about))
                    continue
                controls = {"input": inputs.get(name), "untrained": self._curves.get(UNTRAINED + layer, {}).get(name)}
                null = permuted(held, curve.penalty, columns)
                detail = held.detail(curve.penalty, columns)
                results.append(self._result(n, curve, controls, null, detail, about))
        return results

    def _result(
        self,
        n: int,
        curve: Curve,
        controls: Mapping[str, Curve | None],
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
        margin = float(stdtrit(FOLDS - 1, (1 + LEVEL) / 2)) * error
        excess = curve.explained - baseline
        told = {"explained": curve.explained, **{f"explained_{what}": share for what, share in shares.items()}}
        told["selectivity"] = curve.explained - shares["null"]
        # The null is what permuted labels give, above the same baseline.
        null = [share - baseline for share in shuffled]
        limits = (excess, excess - margin, excess + margin)
        return of_limits(limits, null, n, self.bar, None, **about, detail={**told, **detail})

    def _columns(self, copies: int) -> dict[str, slice]:
        """Where each objective's targets are, where this many copies of them follow each other."""
        columns, start = {}, 0
        for name, width in self._choices.items():
            columns[name] = slice(start, start + width)
            start += copies * width
        return columns

    def _controls(self, sums: Any) -> dict[str, Curve]:
        held = self._held_out(sums)
        return {name: best(held, columns) for name, columns in self._columns(1).items()}


def with_permuted(prescribed: Sequence[Tensor], groups: Tensor, seed: int) -> Tensor:
    """``[n, COPIES T]`` targets of each objective, followed by copies in which groups have changed places.

    Args:
        prescribed: ``[n, A]`` of each objective.
        groups: ``[n]`` int64, from 0 on.
        seed: Of the places.
    """
    orders = swaps(groups, PERMUTATIONS, seed)
    return torch.cat([x for mask in prescribed for x in (mask, *(mask[order] for order in orders))], 1)


def permuted(held: Held, penalty: float, columns: slice) -> list[float]:
    """The share explained of each copy of some targets in which labels have changed places; they stand after these."""
    width = columns.stop - columns.start
    at = slice(columns.stop, columns.stop + PERMUTATIONS * width)
    errors, spread = (x.sum(0).view(-1, width).sum(1) for x in (held.errors(penalty, at), held.spread(at)))
    return [float(share) for share in 1 - errors / spread]
