"""One forward pass per item: from batches to Behavior."""

import math
from collections.abc import Generator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from lightning_mesa.errors import ConfigurationError
from lightning_mesa.objectives.hypotheses import Hypotheses
from lightning_mesa.objectives.objective import Objective, asked, pick, tensor_of, within_bounds
from lightning_mesa.observe.context import LookContext, Outputs, Reading
from lightning_mesa.observe.features import MAX_ITEMS, compared, linear_inputs
from lightning_mesa.observe.labels import check_groups, groups_of, ids_of
from lightning_mesa.observe.loaders import ItemLoader
from lightning_mesa.observe.parts import CONFLICT, Where, asked_of, in_conflict, masked, part_of, to_score
from lightning_mesa.observe.rows import cut
from lightning_mesa.records import Behavior


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
        The behavior on each batch and part; what no part holds, or an objective ignores, is not scored.

    Raises:
        ConfigurationError: If a batch, the model's outputs or a score is not as the objectives need it.
    """
    pl_module, hypotheses, reading = context.pl_module, context.hypotheses, context.reading
    untrained, reader = context.untrained, context.reader
    precision, strategy = context.trainer.precision_plugin, context.trainer.strategy
    to_compare = 0 if untrained is None else len(range(loader.rank, MAX_ITEMS, loader.world_size))
    seen, groups = 0, {name: set[str]() for name in parts}
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
            n = len(outputs)
            wheres = {name: asked_of(where, batch, n) for name, where in parts.items()}
            keep = to_score(wheres.values(), batch, hypotheses, n)
            behavior = behave("", batch, outputs, hypotheses, reading, loader.numbers(i, seen, n), keep)
            seen += n
            if untrained is not None and to_compare and hypotheses.base.name in behavior.prescribed:
                with precision.forward_context():
                    features = compared(untrained, read, outputs, call, to_compare)
                behavior = replace(behavior, features=masked(features, keep))
                to_compare = 0 if isinstance(features, str) else max(0, to_compare - n)
            if reader is not None:
                with precision.forward_context():
                    behavior = replace(behavior, activations=masked(reader.activations(given, call), keep))
            if reading.cue is not None and behavior.n:
                cued_batch = asked(reading.cue, "cue=", batch)
                with precision.forward_context():
                    raw = call_model(pl_module, cued_batch, reading)
                of_batch, cued, rest = cut(batch, choices(raw, cued_batch, reading.outputs), keep)
                score = _score(hypotheses.base, of_batch, cued).double().masked_fill(_unknown(cued), torch.nan)
                behavior = replace(behavior, cued=masked(score, rest))
            for name, where in parts.items():
                if where == CONFLICT and behavior.n:
                    mask = in_conflict(behavior, hypotheses)
                else:
                    mask = masked(wheres[name], keep)
                part = part_of(behavior, name, mask)
                groups[name] |= part.groups.keys()
                check_groups(reading.groups, groups[name], name)
                yield part
    except ConfigurationError as error:
        raise ConfigurationError(f"distribution {' and '.join(map(repr, parts))}: {error}") from error


def call_model(pl_module: Any, batch: Any, reading: Reading) -> Any:
    """Call the model on a batch as ``reading`` says.

    Raises:
        ConfigurationError: If the input cannot be found in the batch, or the model refuses it.
    """
    if reading.forward is not None:
        return reading.forward(pl_module, batch)
    inputs = reading.inputs
    keywords: dict[str, Any] = {}
    arguments: tuple[Any, ...] = ()
    if inputs is None:
        if isinstance(batch, Mapping):
            keys = sorted(map(str, batch))
            raise ConfigurationError(
                f"the batch is a mapping with the keys {keys}: say which one the model takes, "
                "inputs='...', or pass forward=."
            )
        arguments = (batch[0] if isinstance(batch, Sequence) else batch,)
    elif isinstance(inputs, (str, int)):
        arguments = (pick(batch, inputs, "inputs"),)
    else:
        keywords = {key: pick(batch, key, "inputs") for key in inputs}
    try:
        return pl_module(*arguments, **keywords)
    except Exception as error:
        called = "pl_module(" + ", ".join([*map(_shape, arguments), *(f"{k}={_shape(v)}" for k, v in keywords.items())])
        raise ConfigurationError(
            f"{called}) failed with {type(error).__name__}: {error}. If the model is called in another way, pass "
            "inputs= or forward=."
        ) from error


def choices(raw: Any, batch: Any, extract: Outputs | None) -> Tensor:
    """Take the choices out of what the model returned.

    Returns:
        ``[n, A]`` (or ``[n, ...]`` where choices are not discrete), at least single precision; integers and bool, which
        are class ids and no numbers of choices, as they are.

    Raises:
        ConfigurationError: If they cannot be found.
    """
    if extract is not None:
        found: Any = asked(extract, "outputs=", raw, batch)
    else:
        found = raw.get("logits") if isinstance(raw, Mapping) else getattr(raw, "logits", raw)
    found = tensor_of(found)
    if not isinstance(found, Tensor) or found.ndim == 0:
        raise ConfigurationError(
            f"the model returned {_shape(raw)}, which is no tensor with one row per item and has no 'logits': "
            "pass outputs=, a function (outputs, batch) -> [n, A]."
        )
    return found.float() if found.dtype in (torch.float16, torch.bfloat16) else found


def behave(
    name: str,
    batch: Any,
    outputs: Tensor,
    hypotheses: Hypotheses,
    reading: Reading,
    items: Tensor | None = None,
    keep: Tensor | None = None,
) -> Behavior:
    """Score one batch of outputs by every listed objective; items that an objective ignores are left out.

    Args:
        name: Name of the distribution.
        batch: The batch, on the outputs' device.
        outputs: ``[n, A]`` or ``[n, ...]``; integers and bool are taken for class ids.
        hypotheses: The listed objectives.
        reading: Names the groups and ids.
        items: ``[n]`` the items' numbers, where this is not the only batch.
        keep: ``[n]`` bool, which items there are, where some are left out before they are scored; on the CPU.

    Raises:
        ConfigurationError: If a score, target or group label has the wrong shape or range.
    """
    items = torch.arange(len(outputs)) if items is None else items
    keep = to_score([keep], batch, hypotheses, len(outputs))
    if keep is not None and not keep.any():
        return Behavior(name, 0, items[keep], {}, frozenset(), {}, {}, None, {}, None)
    batch, outputs, rest = cut(batch, outputs, keep)
    behavior = _behavior(name, batch, outputs, hypotheses, reading, items if rest is not None else masked(items, keep))
    return part_of(behavior, name, rest)


def _behavior(
    name: str, batch: Any, outputs: Tensor, hypotheses: Hypotheses, reading: Reading, items: Tensor
) -> Behavior:
    n = len(outputs)
    discrete = outputs.ndim == 2 and outputs.shape[1] > 1 and outputs.is_floating_point()
    scores: dict[str, Tensor] = {}
    prescribed: dict[str, Tensor] = {}
    uniform: dict[str, Tensor] = {}
    binary: set[str] = set()
    for objective in hypotheses.scored:
        score = _score(objective, batch, outputs)
        scores[objective.name] = score.double()
        what = f"objective {objective.name!r}"
        prescription = asked(objective.prescribes, what, batch, outputs.shape[1]) if discrete else None
        if prescription is not None:
            prescribed[objective.name] = _fits(objective, prescription, outputs).cpu()
        if score.dtype == torch.bool:
            binary.add(objective.name)
        if objective.chance is None and (prescription is None or score.dtype != torch.bool):
            uniform[objective.name] = _score(objective, batch, torch.zeros_like(outputs)).double()
    chosen = outputs.argmax(1).cpu() if discrete else None
    unknown = _unknown(outputs)
    if unknown.any():
        scores = {objective: score.masked_fill(unknown, torch.nan) for objective, score in scores.items()}
        chosen = None if chosen is None else chosen.masked_fill(unknown, -1)
    ids = None if reading.ids is None else ids_of(batch, reading.ids, n)
    groups: dict[str, Tensor] = {}
    for key_name, key in reading.groups.items():
        for label, mask in groups_of(batch, key_name, key, n):
            groups[label] = groups[label] | mask if label in groups else mask  # labels may become the same name
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
        _extremity(outputs, discrete).masked_fill(unknown, torch.nan) if outputs.is_floating_point() else None,
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


def _score(objective: Objective, batch: Any, outputs: Tensor) -> Tensor:
    """``[n]`` the scores on the CPU, or what is wrong with them."""
    n, what = len(outputs), f"objective {objective.name!r}"
    given = f"{what}, given outputs of shape {list(outputs.shape)} and type {outputs.dtype},"
    score = tensor_of(asked(objective.score, given, batch, outputs))
    if not isinstance(score, (Tensor, float, int)):
        raise ConfigurationError(
            f"{what} gave {type(score).__name__}: it must give a tensor or an array, one score per item, [{n}]."
        )
    if not isinstance(score, Tensor) or score.ndim == 0:
        raise ConfigurationError(
            f"{what} gave one number for the whole batch: it must give one score per item, [{n}]. For a loss from "
            "torch that means reduction='none'."
        )
    if list(score.shape) != [n]:
        if score.ndim == 2 and list(score.shape) == [n, n]:
            remedy = "Where [n, 1] meets [n], it is spread over all pairs: take outputs[:, 0], or labels[:, 0]."
        elif score.ndim == 2 and score.shape[1] == 1:
            remedy = "Give scores[:, 0]."
        else:
            remedy = "Give one for the whole item, such as the mean of its own, scores.flatten(1).mean(1)."
        raise ConfigurationError(
            f"{what} gave scores of shape {list(score.shape)} for {n} items: it must be [{n}]. {remedy}"
        )
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


def _shape(value: Any) -> str:
    return f"a tensor of shape {list(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
