"""One forward pass per item: from batches to what is pending on the device."""

import copy
from collections.abc import Generator, Iterator, Mapping, MutableMapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from lightning_mesa.errors import ConfigurationError, shown
from lightning_mesa.objectives.hypotheses import Hypotheses
from lightning_mesa.objectives.objective import Demand, Objective, asked, bounds_kept, tensor_of
from lightning_mesa.observe.arguments import called, refusal, suggestion, taken
from lightning_mesa.observe.context import LookContext, Outputs, Reading
from lightning_mesa.observe.features import MAX_ITEMS, compared, linear_inputs
from lightning_mesa.observe.labels import group_labels, ids_of
from lightning_mesa.observe.loaders import ItemLoader
from lightning_mesa.observe.parts import CONFLICT, Where, asked_of, in_conflict, masked, to_score
from lightning_mesa.observe.pending import Pending, discrete, settled, unknown
from lightning_mesa.observe.rows import cut
from lightning_mesa.observe.sharding import in_step, whole
from lightning_mesa.records import Behavior
from lightning_mesa.stats.many import largest


def observe(
    context: LookContext, parts: Mapping[str, Where | None], loader: ItemLoader
) -> Generator[Pending | None, None, None]:
    """Run the model over items, one forward pass per batch; to be iterated inside ``no_trace``.

    With ``context.untrained``, each of the first items costs a pass of the copy as well.

    Args:
        context: Who looks, at what, and how.
        parts: The distributions that these items make up: name -> which of them belong to it, None for all.
        loader: The items, from :func:`~lightning_mesa.observe.loaders.item_loader`.

    Yields:
        The behavior on each batch, which is still on the device; None where no item of it is to be scored, as no part
        holds it or an objective ignores it.

    Raises:
        ConfigurationError: If a batch, the model's outputs or a score is not as the objectives need it.
    """
    pl_module, hypotheses, reading = context.pl_module, context.hypotheses, context.reading
    untrained, reader = context.untrained, context.reader
    precision, strategy = context.trainer.precision_plugin, context.trainer.strategy
    to_compare = 0 if untrained is None else len(range(loader.rank, MAX_ITEMS, loader.world_size))
    seen = 0
    with about(parts):
        for i, (cpu_batch, counts) in enumerate(in_step(context.trainer, loader)):
            batch = strategy.batch_to_device(precision.convert_input(cpu_batch))
            call = partial(call_model, batch=batch, reading=reading)
            with ExitStack() as stack:
                stack.enter_context(precision.forward_context())
                read = stack.enter_context(linear_inputs(pl_module if to_compare else None))
                given = {} if reader is None else stack.enter_context(reader.reading(pl_module))
                raw = call(pl_module)
            outputs = choices(raw, batch, reading.outputs)
            # All passes come first: where a model is sharded, every process has to run them.
            activations = {}
            if reader is not None:
                with precision.forward_context():
                    activations = reader.activations(given, call)
            cued = None
            if reading.cue is not None:
                cued_batch = asked(reading.cue, "cue=", batch)
                with precision.forward_context():
                    raw = call_model(pl_module, cued_batch, reading)
                cued = choices(raw, cued_batch, reading.outputs)
            n = len(outputs)
            wheres = {name: asked_of(where, batch, n) for name, where in parts.items()}
            keep = to_score(wheres.values(), batch, hypotheses, n)
            numbers, seen = loader.numbers(i, seen, n), seen + n
            if not counts:
                continue
            if keep is not None and not keep.any():
                yield None
                continue
            rows, of_rows, rest = cut(batch, outputs, keep)
            gone = keep if rest is None else None  # what has been left out before anything is scored
            pending = scored("", rows, of_rows, hypotheses, reading, masked(numbers, gone))
            behavior = replace(pending.behavior, activations=masked(activations, gone))
            if untrained is not None and to_compare and hypotheses.base.name in behavior.prescribed:
                with precision.forward_context():
                    features = compared(untrained, read, outputs, call, to_compare)
                behavior = replace(behavior, features=masked(features, gone))
                to_compare = 0 if isinstance(features, str) else max(0, to_compare - n)
            if cued is not None:
                cued = masked(cued, gone)
                score, kept = _score(hypotheses.base, rows, cued)
                behavior = replace(behavior, cued=score)
                pending = replace(pending, cue_unknown=unknown(cued), demands=[*pending.demands, *kept])
            members = {name: masked(mask, gone) for name, mask in wheres.items()}
            members |= {name: in_conflict(behavior, hypotheses) for name, where in parts.items() if where == CONFLICT}
            if rest is not None:
                members = {name: rest if m is None else m & rest.to(m.device) for name, m in members.items()}
            yield replace(pending, behavior=behavior, parts=members)


@contextmanager
def about(parts: Mapping[str, Where | None]) -> Iterator[None]:
    """Let an error say of which distributions it speaks."""
    try:
        yield
    except ConfigurationError as error:
        raise ConfigurationError(f"distribution {' and '.join(map(repr, parts))}: {error}") from error


def call_model(pl_module: Any, batch: Any, reading: Reading) -> Any:
    """Call the model on a batch as ``reading`` says.

    Raises:
        ConfigurationError: If the input cannot be found in the batch, or the model refuses it.
    """
    if isinstance(batch, MutableMapping):
        batch = copy.copy(batch)  # some modules take their batch apart, and the objectives need it whole
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
            f"the model returned {shown(raw)}, which is no tensor with one row per item and has no 'logits': "
            "pass outputs=, a function (outputs, batch) -> [n, A]."
        )
    outputs = whole(found)
    return outputs.float() if outputs.dtype in (torch.float16, torch.bfloat16) else outputs


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
    rows, of_rows, rest = cut(batch, outputs, keep)
    pending = scored(name, rows, of_rows, hypotheses, reading, masked(items, keep if rest is None else None))
    return settled([replace(pending, parts={name: rest})], hypotheses)[0]


def scored(name: str, batch: Any, outputs: Tensor, hypotheses: Hypotheses, reading: Reading, items: Tensor) -> Pending:
    """As :func:`behave`, but nothing waits for the device, and what must hold of the values is still to be asked."""
    n, are_choices = len(outputs), discrete(outputs)
    scores: dict[str, Tensor] = {}
    prescribed: dict[str, Tensor] = {}
    uniform: dict[str, Tensor] = {}
    demands: list[Demand] = []

    for objective in hypotheses.scored:
        score, kept = _score(objective, batch, outputs)
        scores[objective.name] = score
        demands += kept
        what = f"objective {objective.name!r}"
        prescription = asked(objective.prescribes, what, batch, outputs.shape[1]) if are_choices else None
        if prescription is not None:
            demands += objective.demands(batch, outputs.shape[1])
            prescribed[objective.name] = _fits(objective, prescription, outputs)
        if objective.chance is None and (prescription is None or score.dtype != torch.bool):
            uniform[objective.name], kept = _score(objective, batch, torch.zeros_like(outputs))
            demands += kept
    behavior = Behavior(
        name,
        n,
        items,
        scores,
        frozenset(objective for objective, score in scores.items() if score.dtype == torch.bool),
        prescribed,
        uniform,
        largest(outputs) if are_choices else None,
        {},
        None if reading.ids is None else ids_of(batch, reading.ids, n),
    )
    labels = {group: group_labels(batch, group, key, n) for group, key in reading.groups.items()}
    return Pending(behavior, outputs, None, labels, {name: None}, demands)


def _score(objective: Objective, batch: Any, outputs: Tensor) -> tuple[Tensor, Sequence[Demand]]:
    """The score and what must hold of its values, or what is wrong with its shape."""
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
        if list(score.shape) == [n, n]:
            remedy = "Where [n, 1] meets [n], it is spread over all pairs: take outputs[:, 0], or labels[:, 0]."
        elif score.ndim == 2 and score.shape[1] == 1:
            remedy = "Give scores[:, 0]."
        else:
            remedy = "Give one for the whole item, such as the mean of its own, scores.flatten(1).mean(1)."
        raise ConfigurationError(
            f"{what} gave scores of shape {list(score.shape)} for {n} items: it must be [{n}]. {remedy}"
        )
    score = score.detach().clone()  # it may be a part of the outputs
    return score, () if score.dtype == torch.bool else (bounds_kept(objective, score),)


def _fits(objective: Objective, prescription: Tensor, outputs: Tensor) -> Tensor:
    if prescription.dtype != torch.bool or prescription.shape != outputs.shape:
        raise ConfigurationError(
            f"objective {objective.name!r} prescribes {list(prescription.shape)} of type {prescription.dtype} "
            f"where the outputs are {list(outputs.shape)}: it must be bool, one row per item, one column per choice."
        )
    return prescription
