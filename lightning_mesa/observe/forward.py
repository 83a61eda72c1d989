"""One forward pass per item: from batches to what is pending on the device."""

from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from lightning_mesa.errors import ConfigurationError
from lightning_mesa.objectives.hypotheses import Hypotheses
from lightning_mesa.objectives.objective import Demand, Objective, bounds_kept
from lightning_mesa.observe.arguments import called, refusal, shape, suggestion, taken
from lightning_mesa.observe.context import LookContext, Outputs, Reading
from lightning_mesa.observe.features import MAX_ITEMS, compared, linear_inputs
from lightning_mesa.observe.loaders import ItemLoader
from lightning_mesa.observe.parts import Where, chosen, group_labels, labels_of
from lightning_mesa.observe.pending import Pending, settled, unknown
from lightning_mesa.observe.sharding import in_step, whole
from lightning_mesa.records import Behavior
from lightning_mesa.stats.many import largest


def observe(
    context: LookContext, parts: Mapping[str, Where | None], loader: ItemLoader
) -> Generator[Pending, None, None]:
    """Run the model over items, one forward pass per batch; to be iterated inside ``no_trace``.

    With ``context.untrained``, each of the first items costs a pass of the copy as well.

    Args:
        context: Who looks, at what, and how.
        parts: The distributions that these items make up: name -> which of them belong to it, None for all.
        loader: The items, from :func:`~lightning_mesa.observe.loaders.item_loader`.

    Yields:
        The behavior on each batch, which is still on the device.

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
            pending = scored("", batch, outputs, hypotheses, reading, loader.numbers(i, seen, len(outputs)))
            behavior = pending.behavior
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
                score, kept = _checked(hypotheses.base, hypotheses.base.score(batch, cued), behavior.n)
                behavior = replace(behavior, cued=score)
                pending = replace(pending, cue_unknown=unknown(cued), demands=[*pending.demands, *kept])
            members = {
                name: None if where is None else chosen(where, batch, behavior, hypotheses)
                for name, where in parts.items()
            }
            if counts:
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
    outputs = whole(found)
    return outputs.float() if outputs.dtype in (torch.float16, torch.bfloat16) else outputs


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
    return settled([scored(name, batch, outputs, hypotheses, reading, items)], hypotheses)[0]


def scored(
    name: str, batch: Any, outputs: Tensor, hypotheses: Hypotheses, reading: Reading, items: Tensor | None = None
) -> Pending:
    """As :func:`behave`, but nothing waits for the device, and what must hold of the values is still to be asked."""
    n = len(outputs)
    discrete = outputs.ndim == 2
    scores: dict[str, Tensor] = {}
    prescribed: dict[str, Tensor] = {}
    uniform: dict[str, Tensor] = {}
    demands: list[Demand] = []

    for objective in hypotheses.scored:
        score, kept = _checked(objective, objective.score(batch, outputs), n)
        scores[objective.name] = score
        demands += kept
        prescription = objective.prescribes(batch, outputs.shape[1]) if discrete else None
        if prescription is not None:
            demands += objective.demands(batch, outputs.shape[1])
            prescribed[objective.name] = _fits(objective, prescription, outputs)
        if objective.chance is None and (prescription is None or score.dtype != torch.bool):
            uniform[objective.name], kept = _checked(objective, objective.score(batch, torch.zeros_like(outputs)), n)
            demands += kept
    ids = None if reading.ids is None else labels_of(batch, reading.ids, n, "ids").long()
    behavior = Behavior(
        name,
        n,
        torch.arange(n) if items is None else items,
        scores,
        frozenset(objective for objective, score in scores.items() if score.dtype == torch.bool),
        prescribed,
        uniform,
        largest(outputs) if discrete else None,
        {},
        ids,
    )
    labels = {key: group_labels(batch, key, n) for key in reading.groups}
    return Pending(behavior, outputs, None, labels, {name: None}, demands)


def _checked(objective: Objective, score: object, n: int) -> tuple[Tensor, Sequence[Demand]]:
    """The score and what must hold of its values, or what is wrong with its shape."""
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
    score = score.detach().clone()  # it may be a part of the outputs
    return score, () if score.dtype == torch.bool else (bounds_kept(objective, score),)


def _fits(objective: Objective, prescription: Tensor, outputs: Tensor) -> Tensor:
    if prescription.dtype != torch.bool or prescription.shape != outputs.shape:
        raise ConfigurationError(
            f"objective {objective.name!r} prescribes {list(prescription.shape)} of type {prescription.dtype} "
            f"where the outputs are {list(outputs.shape)}: it must be bool, one row per item, one column per choice."
        )
    return prescription
