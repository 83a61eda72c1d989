"""One forward pass per item: from batches to Behavior."""

import math
import re
from collections.abc import Generator, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from lightning_mesa.errors import ConfigurationError
from lightning_mesa.objectives.hypotheses import Hypotheses
from lightning_mesa.objectives.objective import Objective, pick, within_bounds
from lightning_mesa.observe.arguments import called, refusal, shape, suggestion, taken
from lightning_mesa.observe.context import LookContext, Outputs, Reading
from lightning_mesa.observe.features import MAX_ITEMS, compared, linear_inputs
from lightning_mesa.observe.loaders import ItemLoader
from lightning_mesa.observe.parts import Where, chosen, labels_of, part_of
from lightning_mesa.records import Behavior

MAX_GROUPS = 64
"""More distinct values than this in a batch mean that the key is no group label."""


def observe(
    context: LookContext, parts: Mapping[str, Where | None], loader: ItemLoader
) -> Generator[Behavior, None, None]:
    """Run the model over items, one forward pass per batch; to be iterated inside ``no_trace``.

    With ``context.untrained``, each of the first items costs a pass of the copy as well.

    Args:
        context: Who looks, at what, and how.
        parts: The distributions that these items make up: name -> which of them belong to it, None for all.
        loader: The items, from :func:`~lightning_mesa.observe.loaders.item_loader`.

    Yields:
        The behavior on each batch and part.

    Raises:
        ConfigurationError: If a batch, the model's outputs or a score is not as the objectives need it.
    """
    pl_module, hypotheses, reading = context.pl_module, context.hypotheses, context.reading
    untrained, reader = context.untrained, context.reader
    precision, strategy = context.trainer.precision_plugin, context.trainer.strategy
    to_compare = 0 if untrained is None else len(range(loader.rank, MAX_ITEMS, loader.world_size))
    seen = 0
    try:
        for i, cpu_batch in enumerate(loader):
            batch = strategy.batch_to_device(precision.convert_input(cpu_batch))
            call = partial(call_model, batch=batch, reading=reading)
            with ExitStack() as stack:
                stack.enter_context(precision.forward_context())
                read = stack.enter_context(linear_inputs(pl_module if to_compare else None))
                given = {} if reader is None else stack.enter_context(reader.reading(pl_module))
                raw = call(pl_module)
            outputs = choices(raw, batch, reading.outputs)
            behavior = behave("", batch, outputs, hypotheses, reading, loader.numbers(i, seen, len(outputs)))
            seen += behavior.n
            if untrained is not None and to_compare and hypotheses.base.name in behavior.prescribed:
                with precision.forward_context():
                    features = compared(untrained, read, outputs, call, to_compare)
                behavior = replace(behavior, features=features)
                to_compare = 0 if isinstance(features, str) else max(0, to_compare - behavior.n)
            if reader is not None:
                with precision.forward_context():
                    behavior = replace(behavior, activations=reader.activations(given, call))
            if reading.cue is not None:
                cued_batch = reading.cue(batch)
                with precision.forward_context():
                    raw = call_model(pl_module, cued_batch, reading)
                cued = choices(raw, cued_batch, reading.outputs)
                score = _checked(hypotheses.base, hypotheses.base.score(batch, cued), behavior.n).double()
                behavior = replace(behavior, cued=score.masked_fill(_unknown(cued), torch.nan))
            for name, where in parts.items():
                yield part_of(behavior, name, None if where is None else chosen(where, batch, behavior, hypotheses))
    except ConfigurationError as error:
        raise ConfigurationError(f"distribution {' and '.join(map(repr, parts))}: {error}") from error


def call_model(pl_module: Any, batch: Any, reading: Reading) -> Any:
    """Call the model on a batch as ``reading`` says.

    Raises:
        ConfigurationError: If the input cannot be found in the batch, or the model refuses it.
    """
    if callable(reading.forward):
        return reading.forward(pl_module, batch)
    model = called(pl_module, reading.forward)
    arguments, keywords = taken(batch, reading.inputs, model)
    try:
        return model(*arguments, **keywords)
    except Exception as error:
        name = ".".join(filter(None, ("pl_module", reading.forward)))
        raise refusal(error, name, arguments, keywords, suggestion(model, batch, reading.inputs)) from error


def choices(raw: Any, batch: Any, extract: Outputs | None) -> Tensor:
    """Take the choices out of what the model returned.

    Returns:
        ``[n, A]`` (or ``[n, ...]`` where choices are not discrete), at least single precision.

    Raises:
        ConfigurationError: If they cannot be found.
    """
    if extract is not None:
        found: Any = extract(raw, batch)
    elif isinstance(raw, Mapping):
        found = raw.get("logits")
    else:
        found = raw if isinstance(raw, Tensor) else getattr(raw, "logits", None)
    if not isinstance(found, Tensor) or found.ndim == 0:
        raise ConfigurationError(
            f"the model returned {shape(raw)}, which is no tensor with one row per item and has no 'logits': "
            "pass outputs=, a function (outputs, batch) -> [n, A]."
        )
    return found.float() if found.dtype in (torch.float16, torch.bfloat16) else found


def behave(
    name: str, batch: Any, outputs: Tensor, hypotheses: Hypotheses, reading: Reading, items: Tensor | None = None
) -> Behavior:
    """Score one batch of outputs by every listed objective.

    Args:
        name: Name of the distribution.
        batch: The batch, on the outputs' device.
        outputs: ``[n, A]`` or ``[n, ...]``.
        hypotheses: The listed objectives.
        reading: Names the groups and ids.
        items: ``[n]`` the items' numbers, where this is not the only batch.

    Raises:
        ConfigurationError: If a score, target or group label has the wrong shape or range.
    """
    n = len(outputs)
    discrete = outputs.ndim == 2
    scores: dict[str, Tensor] = {}
    prescribed: dict[str, Tensor] = {}
    uniform: dict[str, Tensor] = {}
    binary: set[str] = set()
    for objective in hypotheses.scored:
        score = _checked(objective, objective.score(batch, outputs), n)
        scores[objective.name] = score.double()
        prescription = objective.prescribes(batch, outputs.shape[1]) if discrete else None
        if prescription is not None:
            prescribed[objective.name] = _fits(objective, prescription, outputs).cpu()
        if score.dtype == torch.bool:
            binary.add(objective.name)
        if objective.chance is None and (prescription is None or score.dtype != torch.bool):
            uniform[objective.name] = _checked(objective, objective.score(batch, torch.zeros_like(outputs)), n).double()
    chosen = outputs.argmax(1).cpu() if discrete else None
    unknown = _unknown(outputs)
    if unknown.any():
        scores = {objective: score.masked_fill(unknown, torch.nan) for objective, score in scores.items()}
        chosen = None if chosen is None else chosen.masked_fill(unknown, -1)
    ids = None if reading.ids is None else labels_of(batch, reading.ids, n, "ids").long()
    groups: dict[str, Tensor] = {}
    for key in reading.groups:
        for label, mask in _group_masks(batch, key, n):
            groups[label] = groups[label] | mask if label in groups else mask  # labels may become the same name
    extremity = _extremity(outputs, discrete).masked_fill(unknown, torch.nan)
    items = torch.arange(n) if items is None else items
    return Behavior(
        name,
        n,
        items,
        scores,
        frozenset(binary),
        prescribed,
        uniform,
        chosen,
        groups,
        ids,
        extremity,
        log_probabilities=log_probabilities(outputs).cpu() if prescribed else None,
    )


def log_probabilities(outputs: Tensor) -> Tensor:
    """``[n, A]`` of the choices: outputs are taken for logits, unless each row is a probability distribution.

    ``-inf`` is a choice that there is not; a row with NaN or ``inf``, or of ``-inf`` alone, is NaN.
    """
    outputs = outputs if outputs.is_floating_point() else outputs.float()
    shares = len(outputs) > 0 and bool((outputs >= 0).all() and ((outputs.sum(1) - 1).abs() < 1e-4).all())
    return outputs.clamp(min=torch.finfo(outputs.dtype).tiny).log() if shares else outputs.log_softmax(1)


def _extremity(outputs: Tensor, discrete: bool) -> Tensor:
    """``[n]`` distance of the outputs from all alike, or their norm; masked choices (-inf) do not count."""
    rows = outputs.reshape(len(outputs), math.prod(outputs.shape[1:]))
    finite = rows.isfinite()
    values = rows.masked_fill(~finite, 0.0)
    if discrete:
        mean = values.sum(1, keepdim=True) / finite.sum(1, keepdim=True).clamp(min=1)
        values = (values - mean).masked_fill(~finite, 0.0)
    extremity: Tensor = torch.linalg.vector_norm(values, dim=1)
    return extremity.double().cpu()


def _unknown(outputs: Tensor) -> Tensor:
    """``[n]`` bool: the items on which an output is NaN."""
    return outputs.reshape(len(outputs), math.prod(outputs.shape[1:])).isnan().any(1).cpu()


def _checked(objective: Objective, score: object, n: int) -> Tensor:
    """The score on the CPU, or what is wrong with it."""
    what = f"objective {objective.name!r}"
    if not isinstance(score, (Tensor, float, int)):
        raise ConfigurationError(
            f"{what} gave {type(score).__name__}: it must give a tensor, one score per item, [{n}]."
        )
    if not isinstance(score, Tensor) or score.ndim == 0:
        raise ConfigurationError(
            f"{what} gave one number for the whole batch, {score!r}: it must give one score per item, "
            f"[{n}]. For a loss from torch that means reduction='none'."
        )
    if list(score.shape) != [n]:
        raise ConfigurationError(f"{what} gave scores of shape {list(score.shape)} for {n} items: it must be [{n}].")
    score = score.detach().cpu()
    if score.dtype == torch.bool or n == 0:
        return score
    return within_bounds(objective, score)


def _fits(objective: Objective, prescription: Tensor, outputs: Tensor) -> Tensor:
    if prescription.dtype != torch.bool or prescription.shape != outputs.shape:
        raise ConfigurationError(
            f"objective {objective.name!r} prescribes {list(prescription.shape)} of type {prescription.dtype} "
            f"where the outputs are {list(outputs.shape)}: it must be bool, one row per item, one column per choice."
        )
    return prescription


def _group_masks(batch: Any, key: str | int, n: int) -> Iterator[tuple[str, Tensor]]:
    labels = labels_of(batch, key, n, f"group {key!r}")
    values = torch.unique(labels)
    if labels.is_floating_point() or len(values) > MAX_GROUPS:
        raise ConfigurationError(
            f"group {key!r}: {len(values)} different values of type {labels.dtype} in one batch; groups need "
            f"integer, bool or string labels with at most {MAX_GROUPS} values."
        )
    names = pick(batch, key, f"group {key!r}")
    for value in values:
        mask = labels == value
        label = value.item() if isinstance(names, Tensor) else names[int(mask.nonzero()[0])]
        yield re.sub(r"[^\w.-]", "_", f"{key}.{label}"), mask
