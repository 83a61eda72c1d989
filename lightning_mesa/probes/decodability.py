"""Can what an objective prescribes be decoded from a layer, better than from where nothing is known?"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from scipy.stats import t as student_t
from torch import Tensor

from lightning_mesa.probes.controls import generator, numbered, of_other_groups
from lightning_mesa.probes.probe import LEVEL, ModelUnderProbe, ProbeResult, ReadingProbe, of_limits, without
from lightning_mesa.probes.ridge import PENALTIES, FoldSums, compression, held_out
from lightning_mesa.records import Behavior
from lightning_mesa.splits import folds

BAR = 0.02
"""An objective is decodable where this much more is explained than where nothing is known, by the lower limit."""

FOLDS = 10
PERMUTATIONS = 20
INPUT, UNTRAINED = "input", "untrained/"


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
        self._sums: dict[str, FoldSums] = {}
        self._columns: dict[str, slice] = {}
        self._of_nothing: dict[str, FoldSums] = {}
        self._width = 0
        self._layers: list[str] = []

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
        self._layers = model.layers(self.reads)
        return f"{len(self._layers)} layers read in passing, and one pass of an untrained copy"

    def update(self, behavior: Behavior) -> None:
        """Add a batch of shifted items."""
        prescribed = {
            name: mask for name, mask in behavior.prescribed.items() if not self._objectives or name in self._objectives
        }
        if not behavior.activations or not prescribed or behavior.n == 0:
            return
        groups = numbered(behavior.ids, behavior.n)
        numbers = behavior.items if behavior.ids is None else behavior.ids
        observed = torch.cat([*prescribed.values()], 1).float()
        draw = generator(self.seed)
        orders = [of_other_groups(groups, draw) for _ in range(PERMUTATIONS if int(groups.max()) > 0 else 0)]
        targets = torch.cat([observed, *(observed[order] for order in orders)], 1)
        start, width = 0, observed.shape[1]
        for name, mask in prescribed.items():
            self._columns[name] = slice(start, start + mask.shape[1])
            start += mask.shape[1]
        self._width = width
        where = folds(numbers, FOLDS)
        for layer, activation in behavior.activations.items():
            if layer != INPUT and layer.removeprefix(UNTRAINED).partition("@")[0] not in self._layers:
                continue  # another probe's
            untrained = layer.startswith(UNTRAINED) or layer == INPUT
            finite = activation.isfinite().all(1)
            sums = FoldSums.of(activation[finite], (observed if untrained else targets)[finite], where[finite], FOLDS)
            held = self._of_nothing if layer.startswith(UNTRAINED) else self._sums
            held[layer] = held[layer] + sums if layer in held else sums

    def accumulated(self) -> Any:
        """What has been added, for another process."""
        return self._sums, self._of_nothing, self._columns, self._width

    def gathered(self, parts: Sequence[Any]) -> None:
        """Go on with what all processes have added."""
        self._sums, self._of_nothing = ({}, {})
        for sums, of_nothing, columns, width in parts:
            self._columns |= columns
            self._width = max(self._width, width)
            for held, more in ((self._sums, sums), (self._of_nothing, of_nothing)):
                for layer, one in more.items():
                    held[layer] = held[layer] + one if layer in held else one

    def run(self, model: ModelUnderProbe) -> list[ProbeResult]:
        """One result for each layer and objective, of what has been added since the last call."""
        sums, self._sums = self._sums, {}
        if not sums:
            return [
                without("not_applicable", "no layer was read on shifted items for which objectives prescribe choices")
            ]
        results = []
        for layer, of_layer in sums.items():
            if layer == INPUT:
                continue
            others = {"input": sums.get(INPUT), "untrained": self._of_nothing.get(UNTRAINED + layer)}
            for name, columns in self._columns.items():
                results.append(self._result(layer, name, of_layer, others, columns))
        return results

    def _result(
        self, layer: str, name: str, sums: FoldSums, others: Mapping[str, FoldSums | None], columns: slice
    ) -> ProbeResult:
        n = int(sums.n.sum())
        if bool((sums.n < 2).any()):
            return without("underpowered", f"{n} items in {FOLDS} folds", n=n, layer=layer, objective=name)
        penalties = torch.tensor(PENALTIES, dtype=torch.float64)
        errors, spread, chosen = _best(sums, penalties, columns)
        if not float(spread.sum()) > 0:
            reason = f"{name!r} prescribes the same everywhere"
            return without("not_applicable", reason, n=n, layer=layer, objective=name)
        share = _explained(errors, spread)
        permuted = self._permuted(sums, penalties[chosen : chosen + 1], columns)
        shares, curves = {"null": sum(permuted) / max(len(permuted), 1)}, {}
        for what, other in others.items():
            if other is not None:
                curves[what] = _best(other, penalties, columns)[:2]
                shares[what] = _explained(*curves[what])
        most = max(shares, key=shares.__getitem__)
        excess = share - max(shares[most], 0.0)
        if most in curves and shares[most] > 0:
            apart = _leaving_out(errors, spread) - _leaving_out(*curves[most])
        else:
            apart = _leaving_out(errors, spread) - max(shares[most], 0.0)
        error = math.sqrt((FOLDS - 1) / FOLDS * float(((apart - apart.mean()) ** 2).sum()))
        margin = float(student_t.ppf((1 + LEVEL) / 2, FOLDS - 1)) * error
        saved = compression(sums, PENALTIES[chosen], columns)
        detail = {"explained": share, **{f"explained_{what}": value for what, value in shares.items()}}
        about: dict[str, Any] = {"layer": layer, "objective": name, "detail": detail | {"compression": saved}}
        # The null is what permuted labels give above the same baseline.
        null = [value - max(shares[most], 0.0) for value in permuted]
        return of_limits((excess, excess - margin, excess + margin), null, n, self.bar, None, **about)

    def _permuted(self, sums: FoldSums, penalty: Tensor, columns: slice) -> list[float]:
        copies = (sums.y.shape[1] - self._width) // self._width
        errors, spread = held_out(sums, penalty)
        shares = []
        for i in range(1, copies + 1):
            shifted = slice(columns.start + i * self._width, columns.stop + i * self._width)
            shares.append(_explained(errors[0, :, shifted].sum(1), spread[:, shifted].sum(1)))
        return shares


def _best(sums: FoldSums, penalties: Tensor, columns: slice) -> tuple[Tensor, Tensor, int]:
    """``[F]`` squared errors at the penalty with the least of them, ``[F]`` those of the mean, and which penalty."""
    few = FoldSums(sums.n, sums.x, sums.y[:, columns], sums.xx, sums.xy[:, :, columns], sums.yy[:, columns])
    errors, spread = held_out(few, penalties)
    total = errors.sum((1, 2))
    chosen = int(total.argmin())
    return errors[chosen].sum(1), spread.sum(1), chosen


def _explained(errors: Tensor, spread: Tensor) -> float:
    return float(1 - errors.sum() / spread.sum())


def _leaving_out(errors: Tensor, spread: Tensor) -> Tensor:
    """``[F]`` the share explained without each fold."""
    return 1 - (errors.sum() - errors) / (spread.sum() - spread)
