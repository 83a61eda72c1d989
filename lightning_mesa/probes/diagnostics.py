"""How computation proceeds from layer to layer and tick to tick: to be looked at, never judged."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lightning_mesa.errors import ConfigurationError
from lightning_mesa.probes.controls import mean_share, shape_of, shares
from lightning_mesa.probes.probe import Given, Lazy, ModelUnderProbe, Outputs, Probe, of_limits, without
from lightning_mesa.records import LEVEL, ProbeResult
from lightning_mesa.stats.competence import limits
from lightning_mesa.stats.ridge import ridge
from lightning_mesa.stats.splits import one_half

PENALTY = 1e-2
"""Of the lens, per item and for features of spread 1."""


class Diagnostics(Probe):
    """Tuned lens, settle step and fixed-point residual.

    *Lens*, for each layer and tick: an affine map from its activations to the model's outputs, fitted by ridge
    regression on one half of the inputs, in the spirit of Belrose et al. (2023, arXiv:2303.08112); the value is how
    often its choice is the model's, on the other half. *Settle*: from which layer or tick on the lens's choice stays as
    it is at the last, as a share of the way, 0 for the first and 1 for the last. *Residual*, for each layer with more
    than one tick: ``|h_T - h_(T-1)| / |h_(T-1)|`` at its last tick.

    All three are drawn and none is judged, as each is much the same in networks that do not search: ordinary residual
    networks refine what they choose from block to block, and reach fixed points.

    One forward pass over the inputs.

    Args:
        batch: A batch, as the model takes it from the monitor's distributions; or a function without arguments that
            makes it when training starts, or its import path.
        layers: Names or patterns of the layers, in their order.
        outputs: ``(outputs, batch) -> [n, A, ...]``, where the monitor's own give something else.
    """

    name = "diagnostics"
    rung = None

    batch = Lazy[Any]()

    def __init__(self, batch: Given[Any], layers: str | Sequence[str], *, outputs: Outputs | None = None) -> None:
        super().__init__(layers=layers, outputs=outputs)
        self.batch = batch

    def check(self, model: ModelUnderProbe) -> str:
        """Refuse layers that are not there.

        Raises:
            ConfigurationError: If a pattern matches none.
        """
        return f"1 forward pass over its inputs, {len(model.layers(self.layers))} layers read"

    def run(self, model: ModelUnderProbe) -> list[ProbeResult]:
        """Lens and residual by layer, settle step of the whole model."""
        outputs, given = model.read(self.batch, model.layers(self.layers))
        if not isinstance(outputs, Tensor) or outputs.ndim < 2:
            raise ConfigurationError(
                f"Diagnostics: the model gives {shape_of(outputs)}; outputs [n, A] or [n, A, ...] are needed."
            )
        outputs = outputs.detach().cpu().double()
        results = []
        chosen = []
        for layer, ticks in given.items():
            for tick, activation in enumerate(ticks):
                at = layer if len(ticks) == 1 else f"{layer}@{tick}"
                seen = lens(activation.detach().cpu().double(), outputs)
                if seen is None:
                    reason = f"{len(outputs)} inputs are too few for a lens, or not finite"
                    results.append(without("underpowered", reason, layer=at, quantity="lens"))
                    continue
                chosen.append(seen)
                agree = seen == outputs.argmax(1)
                alike = shares(agree, ~_fitted(agree), torch.arange(len(agree)))
                share = mean_share(alike)
                value = (share.value, *limits(share, LEVEL))
                results.append(of_limits(value, (), len(alike), None, None, layer=at, quantity="lens"))
            if len(ticks) > 1:
                residual = fixed_point_residual(ticks[-2], ticks[-1])
                results.append(_value(residual, len(outputs), layer=layer, quantity="residual"))
        if len(chosen) > 1:
            results.append(_value(settle(torch.stack(chosen)), len(outputs), quantity="settle"))
        return results


def lens(activation: Tensor, outputs: Tensor) -> Tensor | None:
    """``[n, ...]`` what an affine map from activations to outputs would choose; None if it cannot be fitted.

    Args:
        activation: ``[n, C, ...]`` or ``[n, ..., C]`` with the outputs' positions, else averaged over its own; float64.
        outputs: ``[n, A, ...]`` float64.
    """
    positions = outputs.shape[2:]
    if activation.shape[2:] == positions:
        features = activation.movedim(1, -1)
    elif activation.shape[1:-1] == positions:
        features = activation
    else:
        over = activation.flatten(2).mean(2) if activation.ndim > 3 else activation
        over = over.mean(1) if over.ndim == 3 else over
        features = over.view(len(over), *[1] * len(positions), -1).expand(-1, *positions, -1)
    targets = outputs.movedim(1, -1)
    fitted = _fitted(targets[..., 0])
    x, y = features[fitted], targets[fitted]
    if len(x) < 2 or not (x.isfinite().all() and y.isfinite().all()):
        return None
    weights, intercepts = ridge(x, y, PENALTY)
    return (features @ weights + intercepts).argmax(-1)


def settle(chosen: Tensor) -> float:
    """From which of K iterates on choices stay as at the last: mean over decisions, 0 for the first, 1 for the last.

    Args:
        chosen: ``[K, n, ...]`` int64, K > 1.
    """
    other = chosen != chosen[-1]
    behind = torch.arange(1, len(chosen) + 1).view(-1, *[1] * (chosen.ndim - 1))  # one behind the last that differs
    last = behind * other
    return float(last.amax(0).double().mean()) / (len(chosen) - 1)


def fixed_point_residual(before: Tensor, after: Tensor) -> float:
    """Mean over items of ``|after - before| / |before|``.

    Args:
        before: ``[n, ...]``.
        after: ``[n, ...]``.
    """
    before, after = (x.detach().cpu().double().flatten(1) for x in (before, after))
    return float(((after - before).norm(dim=1) / before.norm(dim=1).clamp(min=1e-12)).mean())


def _fitted(like: Tensor) -> Tensor:
    """``[n, ...]`` bool, where the lens is fitted: one half of the items."""
    return one_half(torch.arange(len(like))).view(-1, *[1] * (like.ndim - 1)).expand(like.shape)


def _value(value: float, n: int, **about: Any) -> ProbeResult:
    return ProbeResult(value, None, None, None, None, None, n, **about)
