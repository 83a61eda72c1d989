"""Conformance: what every check, probe, objective and distribution holds to, a user's own like ours.

One line is a test of your own::

    def test_my_check():
        check_check(MyCheck(), behaviors, hypotheses, boundary)

Each function raises an AssertionError that says what does not hold.
"""

import io
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import permutations
from typing import Any

import torch
from scipy.stats import binom
from torch import Tensor, nn

from lightning_mesa.checks import CHECKS, Check, Look, Thresholds
from lightning_mesa.checks.look import Plan
from lightning_mesa.data.distribution import Distribution
from lightning_mesa.objectives.hypotheses import Hypotheses
from lightning_mesa.objectives.objective import Objective, check_name
from lightning_mesa.observe.context import LookContext
from lightning_mesa.observe.isolation import no_trace
from lightning_mesa.observe.parts import part_of
from lightning_mesa.observe.subject import Subject
from lightning_mesa.probes.probe import Probe
from lightning_mesa.records import Behavior, Finding, Role
from lightning_mesa.report.journal import findings_of, json_line

DRAWS, ERROR = 200, 0.05
"""A null is tested on this many looks at its boundary, and may reject this share of them."""

ROUNDING = 1e-7
"""Relative; limits are found to 1e-9 and may be multiplied by the width of the score's bounds."""

LUCK = 1e-4
"""Chance that a valid null is called invalid."""


def look_at(
    behaviors: Iterable[Behavior],
    hypotheses: Hypotheses,
    *,
    checks: Sequence[Check] = CHECKS,
    reference: str = "val",
    plan: Plan = (None, None, 0),
    data_regimes: Mapping[str, str] | None = None,
    step: int = 0,
    epoch: int = 0,
) -> Look:
    """A look at recorded behavior, without a model or a trainer.

    Args:
        behaviors: Batches of any distributions.
        hypotheses: The listed objectives.
        checks: What is asked.
        reference: Name of the reference; all other distributions are shifted.
        plan: See :class:`~lightning_mesa.checks.Look`.
        data_regimes: Distribution name -> data regime, where it is not "reused".
        step: Optimizer steps taken.
        epoch: Epoch.
    """
    behaviors = list(behaviors)
    names = dict.fromkeys(behavior.distribution for behavior in behaviors)
    roles: dict[str, Role] = {name: "reference" if name == reference else "shifted" for name in names}
    begun = [check.begun(hypotheses) for check in checks]
    for behavior in behaviors:
        for check in begun:
            check.saw(behavior)
    look = Look(step, epoch, hypotheses.base.name, roles, plan, data_regimes or {})
    for check in begun:
        look.findings += check.findings(look)
    return look


def check_check(
    check: Check,
    behaviors: Sequence[Behavior],
    hypotheses: Hypotheses,
    boundary: Callable[[torch.Generator], Sequence[Behavior]] | None = None,
    *,
    beside: Sequence[Check] = CHECKS,
    reference: str = "val",
) -> None:
    """Check that a check holds to what the monitor and the alarm rely on.

    Its states add up over batches in any order and over processes, and survive a checkpoint; it bears batches that are
    empty or not finite;
    what it finds comes back from the journal; its sentences are sentences; and its null is rejected at its boundary in
    at most the share of looks that its p-value says.

    Args:
        check: The check.
        behaviors: What it is asked about, one batch for each distribution, the reference among them.
        hypotheses: The listed objectives.
        boundary: Draws such behavior from a world in which the null holds and is as hard to tell from false as can be;
            needed for a check that tests a null.
        beside: Checks whose findings it reads; fewer are faster.
        reference: Name of the reference.

    Raises:
        AssertionError: If something does not hold; the message says what.
    """
    check_name(check.name, "check name")
    checks = [other for other in beside if other.name != check.name] + [check]

    def of_check(findings: Iterable[Finding]) -> list[Finding]:
        return [f for f in findings if f.measure == (check.measure or check.name)]

    def found(seen: Iterable[Behavior]) -> list[Finding]:
        return of_check(look_at(seen, hypotheses, checks=checks, reference=reference).findings)

    whole = found(behaviors)
    thirds = [[part_of(b, b.distribution, torch.arange(b.n) % 3 == i) for b in behaviors] for i in range(3)]
    for order in permutations(range(3)):
        _assert_alike(found([b for i in order for b in thirds[i]]), whole, f"{check.name}: batches in another order")
    merged = check.begun(hypotheses)
    for third in thirds:  # what three processes have seen
        begun = check.begun(hypotheses)
        for behavior in third:
            begun.saw(behavior)
        _assert_saved(begun.accumulated(), f"{check.name}: what it accumulates")
        merged.merge(begun.accumulated())
    look = look_at(behaviors, hypotheses, checks=checks[:-1], reference=reference)
    _assert_alike(of_check([*look.findings, *merged.findings(look)]), whole, f"{check.name}: processes merged")
    _hold(findings_of([json.loads(json_line(f)) for f in whole]) == whole, f"{check.name}: the journal loses something")
    nothing = [part_of(b, b.distribution, torch.zeros(b.n, dtype=torch.bool)) for b in behaviors]
    _assert_alike(found([*nothing, *behaviors]), whole, f"{check.name}: an empty batch before the others")
    for what, seen in (("nothing is seen", nothing), ("scores are no numbers", [_broken(b) for b in behaviors])):
        try:
            for f in found(seen):
                json_line(f)  # refuses what is no number
        except Exception as error:
            raise AssertionError(f"{check.name} falls over where {what}: {error!r}") from error
    thresholds = Thresholds()
    if type(check).tests is Check.tests:
        return
    if boundary is None:
        raise AssertionError(f"{check.name} tests a null: give boundary=, which draws behavior at its boundary.")
    _assert_sentence(check.null(thresholds), f"{check.name}: its null", whole=False)
    rejected, tested, draw = 0, 0, torch.Generator().manual_seed(0)
    for _ in range(DRAWS):
        look = look_at(boundary(draw), hypotheses, checks=checks, reference=reference)
        for where in check.places(look):
            tests = check.tests(look, where, thresholds)
            for test in tests:
                _assert_sentence(test.sentence, f"{check.name}: its sentence")
            tested += len(tests)
            rejected += any(test.null.p_value() <= ERROR / max(len(tests), 1) for test in tests)
    _hold(tested or check.of_probes, f"{check.name} tests nothing at its boundary: draw behavior that it can test.")
    most = int(binom.isf(LUCK, DRAWS * max(len(check.places(look)), 1), ERROR))
    _hold(rejected <= most, f"{check.name}: {rejected} of {DRAWS} looks at its boundary reject the null at {ERROR}.")


def check_probe(probe: Probe, module: nn.Module) -> None:
    """Check that a probe leaves the model as it was, finds the same twice, and can be saved.

    Args:
        probe: The probe.
        module: A model that it can probe, called on a batch.

    Raises:
        AssertionError: If something does not hold; the message says what.
        ConfigurationError: If it cannot probe this model.
    """
    check_name(probe.name, "probe name")
    module.eval()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    plain = {name: sorted(map(str, vars(part))) for name, part in module.named_modules()}
    runs = []
    for _ in range(2):
        probe.forget()
        with torch.no_grad():
            subject = Subject(module)
            _assert_sentence(probe.check(subject), f"{probe.name}: what it costs", whole=False)
            runs.append(probe.run(subject))
    for name, value in module.state_dict().items():
        _hold(torch.equal(value, before[name]), f"{probe.name} changes {name!r} of the model.")
    hooks = [name for name, part in module.named_modules() if part._forward_hooks or part._forward_pre_hooks]
    _hold(not hooks, f"{probe.name} leaves hooks on {hooks}.")
    _hold(
        plain == {name: sorted(map(str, vars(part))) for name, part in module.named_modules()},
        f"{probe.name} leaves attributes on the model.",
    )
    first, second = ([(r.value, r.low, r.high, r.p, r.status, r.layer, r.objective) for r in run] for run in runs)
    _hold(first == second, f"{probe.name} finds something else when it is asked again.")
    for result in runs[0]:
        _hold(result.status == "ok" or result.reason, f"{probe.name}: status {result.status!r} without a reason.")
    _assert_saved(probe.state_dict(), f"{probe.name}: its state")


def check_objective(objective: Objective, batch: Mapping[str, Any], outputs: Tensor) -> None:
    """Check that an objective scores each item by itself, within its bounds, and as it prescribes.

    Args:
        objective: An objective over items.
        batch: Tensors with a row for each item, by key.
        outputs: ``[n, A]`` or ``[n, ...]`` the model's outputs, n at least 2.

    Raises:
        AssertionError: If something does not hold; the message says what.
    """
    check_name(objective.name, "objective name")
    (low, high), n = objective.bounds, len(outputs)
    _hold(
        low < objective.ceiling <= high, f"{objective.name}: ceiling {objective.ceiling} is not within {low}, {high}."
    )
    scores = objective.score(batch, outputs)
    _hold(list(scores.shape) == [n], f"{objective.name} gives scores {list(scores.shape)}: it must be [{n}].")
    _hold(bool(((scores >= low) & (scores <= high)).all()), f"{objective.name}: a score lies outside its bounds.")
    order = torch.arange(n).flip(0)
    turned = objective.score({key: value[order] for key, value in batch.items()}, outputs[order])
    _hold(torch.equal(turned, scores[order]), f"{objective.name}: the score of an item depends on the others.")
    if outputs.ndim == 2 and (prescribed := objective.prescribes(batch, outputs.shape[1])) is not None:
        _hold(
            prescribed.dtype == torch.bool and prescribed.shape == outputs.shape,
            f"{objective.name} prescribes {list(prescribed.shape)}, {prescribed.dtype}: it must be [n, A] bool.",
        )
        served = objective.score(batch, prescribed.to(outputs.dtype))
        some = prescribed.any(1)
        _hold(bool((served[some] >= scores[some]).all()), f"{objective.name}: what it prescribes does not score best.")


def check_distribution(distribution: Distribution, context: LookContext) -> None:
    """Check that a distribution gives the same items at every look, each once, and leaves no trace.

    Args:
        distribution: The distribution, not fresh.
        context: Who looks; of one process.

    Raises:
        AssertionError: If something does not hold; the message says what.
        ConfigurationError: If it cannot be opened.
    """
    source = distribution.open("checked", context)
    try:
        looks: list[list[Behavior]] = []
        for _ in range(2):
            state = torch.get_rng_state()
            with no_trace(context.trainer, context.pl_module, context.seed, *source.owners):
                looks.append(list(source.behaviors(context)))
            _hold(torch.equal(state, torch.get_rng_state()), "a look advances torch's random stream.")
        first, second = ([b.scores for b in look] for look in looks)
        _hold(first and all(b.n > 0 for b in looks[0]), "it holds no items.")
        _hold(
            _plain(first) == _plain(second), "it gives something else at the next look, although nothing has changed."
        )
        numbers = torch.cat([b.items for b in looks[0]])
        _hold(len(torch.unique(numbers)) == len(numbers), "two items have the same number.")
        _assert_saved(source.state_dict(), "what the source remembers")
    finally:
        source.close()


def _hold(condition: object, message: str) -> None:
    if not condition:
        raise AssertionError(message)


def _broken(behavior: Behavior) -> Behavior:
    """The same with scores, extremities and choices of the first item that are not finite."""
    first = torch.arange(behavior.n) == 0
    scores = {name: score.double().masked_fill(first, torch.nan) for name, score in behavior.scores.items()}
    changed: dict[str, Any] = {"scores": scores}
    for name, nothing in (("extremity", torch.nan), ("cued", torch.nan), ("chosen", -1)):
        if (value := getattr(behavior, name)) is not None:
            changed[name] = value.masked_fill(first, nothing)
    if behavior.log_probabilities is not None:
        changed["log_probabilities"] = behavior.log_probabilities.masked_fill(first[:, None], torch.nan)
    return Behavior(**{**vars(behavior), **changed})


def _assert_alike(found: Sequence[Finding], expected: Sequence[Finding], what: str) -> None:
    _hold(len(found) == len(expected), f"{what}: {len(found)} findings where there were {len(expected)}.")
    for a, b in zip(found, expected, strict=True):
        for x, y in ((a.value, b.value), (a.low, b.low), (a.high, b.high)):
            same = x == y or (x is not None and y is not None and abs(x - y) <= ROUNDING * max(1.0, abs(x), abs(y)))
            _hold(same and a.n == b.n, f"{what}: {a.quantity} on {a.distribution} is {x}, and was {y}.")


def _assert_saved(state: Any, what: str) -> None:
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    loaded = torch.load(file, weights_only=True)
    _hold(_plain(loaded) == _plain(state), f"{what} is not what a checkpoint gives back.")


def _plain(value: Any) -> Any:
    """Tensors as lists, so that values can be compared."""
    if isinstance(value, Tensor):
        return (str(value.dtype), str(value.tolist()))
    if isinstance(value, Mapping):
        return {key: _plain(one) for key, one in value.items()}
    return [_plain(one) for one in value] if isinstance(value, (list, tuple)) else value


def _assert_sentence(text: str, what: str, *, whole: bool = True) -> None:
    _hold(text and text == " ".join(text.split()), f"{what} is empty or has loose blanks: {text!r}.")
    _hold(not re.search(r"\bnan\b|\bNone\b|[{}]", text), f"{what} has a hole in it: {text!r}.")
    if whole:
        _hold(text[0].isupper() and text[-1] == ".", f"{what} is no sentence: {text!r}.")
