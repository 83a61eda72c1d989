"""Behavior that is still on the device, and how several batches of it are fetched together.

Every question that Python asks of a tensor on an accelerator waits until all that was queued before it is done. So a
batch is scored without a question; what has to hold of it is asked once for many batches, and fetched with them.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain

import torch
from torch import Tensor

from lightning_mesa.errors import ConfigurationError
from lightning_mesa.objectives.hypotheses import Hypotheses
from lightning_mesa.objectives.objective import Demand, clipped
from lightning_mesa.observe.labels import members
from lightning_mesa.observe.parts import joined, mapped, part_of, tensors
from lightning_mesa.records import Behavior


@dataclass(frozen=True)
class Pending:
    """One batch, on the device.

    Attributes:
        behavior: What the objectives say; scores may lie outside their bounds, and unknown outputs have choices too.
        outputs: ``[n, ...]`` of the model.
        cue_unknown: ``[n]`` bool, items on which an output with the cue is NaN; None without a cue.
        labels: Name of a key -> ``[n]`` group labels: a tensor, or a list of strings.
        parts: The distributions that the items make up: name -> ``[n]`` bool, which of them belong to it, None for all.
        demands: What must hold of the batch.
    """

    behavior: Behavior
    outputs: Tensor
    cue_unknown: Tensor | None
    labels: Mapping[str, Tensor | list[str]]
    parts: Mapping[str, Tensor | None]
    demands: Sequence[Demand]

    @property
    def nbytes(self) -> int:
        """What it holds."""
        return sum(tensor.nbytes for tensor in (self.outputs, *tensors(self.behavior)))

    def kept(self) -> "Pending":
        """To be kept while the model runs again: some models give out the same memory each time."""
        return replace(self, outputs=self.outputs.clone())


def settled(pending: Sequence[Pending], hypotheses: Hypotheses) -> list[Behavior]:
    """The behavior on each part of some batches, one after the other, on the CPU.

    Args:
        pending: The batches, at least one, all of the same parts.
        hypotheses: The listed objectives.

    Raises:
        ConfigurationError: If something does not hold that must.
    """
    behaviors, unknowns = [], []
    for one, (shares, finite) in zip(pending, _asked(pending), strict=True):
        outputs, n = one.outputs, one.behavior.n
        norms = _extremity(outputs, finite) if outputs.is_floating_point() else None
        log_p = log_probabilities(outputs, shares) if one.behavior.prescribed else None
        behaviors.append(replace(one.behavior, extremity=norms, log_probabilities=log_p))
        unknowns.append(torch.zeros(n, dtype=torch.bool) if finite else unknown(outputs).cpu())
    whole, missing = mapped(joined(behaviors), Tensor.cpu), torch.cat(unknowns)
    kept = {objective.name: objective for objective in hypotheses.scored}
    scores = {name: clipped(kept[name], s).masked_fill(missing, torch.nan) for name, s in whole.scores.items()}
    uniform = {name: clipped(kept[name], s) for name, s in whole.uniform_scores.items()}
    chosen = None if whole.chosen is None else whole.chosen.masked_fill(missing, -1)
    extremity = None if whole.extremity is None else whole.extremity.double().masked_fill(missing, torch.nan)
    parts = {name: _members([(one.parts[name], one.behavior.n) for one in pending]) for name in pending[0].parts}
    groups = _groups([one.labels for one in pending], parts)
    whole = replace(whole, scores=scores, uniform_scores=uniform, chosen=chosen, extremity=extremity, groups=groups)
    if whole.cued is not None:
        of_cue = torch.cat([one.cue_unknown for one in pending if one.cue_unknown is not None]).cpu()
        whole = replace(whole, cued=clipped(hypotheses.base, whole.cued).masked_fill(of_cue, torch.nan))
    return [part_of(whole, name, mask) for name, mask in parts.items()]


def discrete(outputs: Tensor) -> bool:
    """Whether outputs are one number for each choice: not class ids, nor one number for each item."""
    return outputs.is_floating_point() and outputs.ndim == 2 and outputs.shape[1] > 1


def _members(of_batches: Sequence[tuple[Tensor | None, int]]) -> Tensor | None:
    """Which items belong to a part, of the masks of some batches and their numbers of items; None for all."""
    device = next((mask.device for mask, _ in of_batches if mask is not None), None)
    if device is None:
        return None
    masks = [torch.ones(n, dtype=torch.bool, device=device) if mask is None else mask for mask, n in of_batches]
    return torch.cat(masks).cpu()


def _asked(pending: Sequence[Pending]) -> list[tuple[bool, bool]]:
    """Refuse what must not be; of each batch, whether its outputs are probabilities, and whether all are finite."""
    demands = [*chain.from_iterable(one.demands for one in pending)]
    questions = [demand.holds for demand in demands]
    for one in pending:
        sums = _rows(one.outputs).sum(1)
        questions += [_are_shares(one.outputs, sums), sums.isfinite().all()]
    device = pending[0].outputs.device
    answers: list[bool] = torch.stack([question.to(device) for question in questions]).tolist()
    for demand, holds in zip(demands, answers, strict=False):
        if not holds:
            raise ConfigurationError(demand.complaint())
    of_outputs = answers[len(demands) :]
    return [*zip(of_outputs[::2], of_outputs[1::2], strict=True)]


def _groups(
    labels: Sequence[Mapping[str, Tensor | list[str]]], parts: Mapping[str, Tensor | None]
) -> dict[str, Tensor]:
    """Group name -> ``[n]`` bool, which items belong to it."""
    groups: dict[str, Tensor] = {}
    for name in labels[0]:
        for group, mine in members(name, [of_batch[name] for of_batch in labels], parts):
            groups[group] = groups[group] | mine if group in groups else mine  # labels may become the same name
    return groups


def _rows(outputs: Tensor) -> Tensor:
    return outputs.reshape(len(outputs), math.prod(outputs.shape[1:]))


def unknown(outputs: Tensor) -> Tensor:
    """``[n]`` bool: the items on which an output ``[n, ...]`` is NaN."""
    return _rows(outputs).isnan().any(1)


def _extremity(outputs: Tensor, finite: bool) -> Tensor:
    """``[n]`` distance of choices from all alike, or the norm of other outputs; masked choices (-inf) do not count."""
    rows, are_choices = _rows(outputs), discrete(outputs)
    if finite:
        values = rows - rows.sum(1, keepdim=True) / rows.shape[1] if are_choices else rows
    else:
        there = rows.isfinite()
        values = rows.where(there, 0.0)
        if are_choices:
            mean = values.sum(1, keepdim=True) / there.sum(1, keepdim=True).clamp(min=1)
            values = (values - mean).where(there, 0.0)
    extremity: Tensor = torch.linalg.vector_norm(values, dim=1)
    return extremity


def _are_shares(outputs: Tensor, sums: Tensor) -> Tensor:
    """One bool: whether each row ``[A]`` is a probability distribution."""
    if not discrete(outputs) or not outputs.numel():
        return torch.tensor(False)
    return (outputs.amin() >= 0) & ((sums - 1).abs() < 1e-4).all()


def log_probabilities(outputs: Tensor, shares: bool) -> Tensor:
    """``[n, A]`` of the choices, from logits, or from probabilities.

    ``-inf`` is a choice that there is not; a row with NaN or ``inf``, or of ``-inf`` alone, is NaN.

    Args:
        outputs: ``[n, A]``.
        shares: Whether each row is a probability distribution.
    """
    outputs = outputs if outputs.is_floating_point() else outputs.float()
    return outputs.clamp(min=torch.finfo(outputs.dtype).tiny).log() if shares else outputs.log_softmax(1)
