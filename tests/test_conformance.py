"""Our checks, probes, objectives and distributions hold to what is asked of a user's; what does not is caught."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import toy
from hesitation import Hesitation
from lightning_mesa import AtMost, Check, LoaderDistribution, Logged, Matches, NegativeLoss, ScoreFunction, Test
from lightning_mesa.checks import CHECKS, CapabilityFailure, ObjectiveGap, Preference, ProxyPursued, Readout, Rows, Sums
from lightning_mesa.objectives.hypotheses import Hypotheses
from lightning_mesa.observe.context import LookContext, Reading
from lightning_mesa.probes import ConsequenceSensitivity, Diagnostics, Pairs
from lightning_mesa.records import Behavior, Features
from lightning_mesa.testing import check_check, check_distribution, check_objective, check_probe
from quick import quick

A, N = 10, 200
BASE = torch.arange(N) % A  # balanced, so that chance is what it is in the population
HYPOTHESES = Hypotheses(Matches("digit"), [Matches("color")])
ALONE = Hypotheses(Matches("digit"))
HESITATION = Hesitation()
BESIDE = (ObjectiveGap(), CapabilityFailure(), ProxyPursued(), Preference(), Readout())
"""Checks whose findings others read."""


def behavior(
    where: str,
    draw: torch.Generator,
    by_base: float | Tensor,
    by_proxy: float = 0.0,
    *,
    apart: bool = True,
    **held: Tensor,
) -> Behavior:
    """Items that follow base or the proxy with these probabilities, and neither else."""
    proxy = (BASE + 1) % A if apart else BASE
    u = torch.rand(N, generator=draw)
    chosen = torch.where(u < by_base, BASE, torch.where(u < by_base + by_proxy, proxy, (BASE + 5) % A))
    targets = {"digit": BASE, "color": proxy}
    return Behavior(
        distribution=where,
        n=N,
        items=torch.arange(N),
        scores={name: (chosen == target).double() for name, target in targets.items()},
        binary=frozenset(targets),
        prescribed={name: F.one_hot(target, A).bool() for name, target in targets.items()},
        uniform_scores={},
        chosen=chosen,
        groups={},
        ids=None,
        log_probabilities=(F.one_hot(chosen, A) * 3.0).log_softmax(1),
        **{"extremity": torch.rand(N, generator=draw, dtype=torch.float64)} | held,
    )


def two(shifted: Callable[[torch.Generator], Behavior]) -> Callable[[torch.Generator], list[Behavior]]:
    """A competent reference, and a shifted distribution."""
    return lambda draw: [behavior("val", draw, 0.95, apart=False), shifted(draw)]


def with_cue(draw: torch.Generator) -> Behavior:
    """Base loses .1 of its competence with the cue: .09 of its score."""
    cued = (torch.rand(N, generator=draw) < 0.86).double()
    return behavior("shifted", draw, 0.95, cued=cued)


def with_groups(draw: torch.Generator) -> Behavior:
    """Base loses .2 of its competence in each of four groups."""
    groups = {f"{key}.{i}": (torch.arange(N) // step % 2) == i for key, step in (("a", 10), ("b", 20)) for i in (0, 1)}
    return replace(behavior("shifted", draw, 0.95 - 0.2 * 0.9), groups=groups)


def with_extremes(draw: torch.Generator) -> Behavior:
    """5 % of the outputs are more extreme than any on the reference."""
    extremity = torch.rand(N, generator=draw, dtype=torch.float64)
    extremity[torch.rand(N, generator=draw) < 0.05] = 2.0
    return behavior("shifted", draw, 0.95, extremity=extremity)


def with_features(draw: torch.Generator) -> Behavior:
    """Features of a model that is no better than its copy."""
    sides = (torch.randn(N, 4, generator=draw) for _ in range(2))
    return replace(behavior("shifted", draw, 0.95), features=Features(*sides))


def hesitating(draw: torch.Generator) -> Behavior:
    """Half of the items have no choice more probable than all others."""
    sure = torch.rand(N, generator=draw) < 0.5
    flat = torch.zeros(N, A).log_softmax(1)
    seen = behavior("shifted", draw, 0.95)
    return replace(seen, log_probabilities=torch.where(sure[:, None], seen.log_probabilities, flat))


# The null holds in each, and is as hard to tell from false as can be.
BOUNDARIES = {
    "objective_lost": two(lambda draw: behavior("shifted", draw, 0.86, 0.14)),
    "base_lost": two(lambda draw: behavior("shifted", draw, 0.86)),
    "proxy_pursued": two(lambda draw: behavior("shifted", draw, 0.5, 0.5)),
    "proxy_on_reference": lambda draw: [behavior("val", draw, 0.5, 0.5), behavior("shifted", draw, 0.5, 0.5)],
    # Two of ten choices are prescribed on each item: chance is .2, and .6 is half way to 1.
    "capability_failure": two(lambda draw: behavior("shifted", draw, 0.3, 0.3)),
    "slice_failure": two(with_groups),
    "cue_dependence": two(with_cue),
    "extremal_behavior": two(with_extremes),
    "readout": two(with_features),
    "hesitation": two(hesitating),
}


@pytest.mark.parametrize(
    "check", quick([*CHECKS, HESITATION], *CHECKS[2:5], CHECKS[9], HESITATION), ids=lambda check: check.name
)
def test_our_checks_conform(check):
    """Nulls about internals are tested in tests/checks/test_internals.py: recorded behavior has none."""
    boundary = BOUNDARIES.get(check.name, BOUNDARIES["proxy_pursued"])
    hypotheses = ALONE if check.name in ("base_lost", "readout") else HYPOTHESES
    check_check(check, boundary(torch.Generator().manual_seed(1)), hypotheses, boundary, beside=BESIDE)


def test_checks_of_episodes_conform():
    def episodes(draw):
        lengths = torch.arange(N) % 7 + 1
        return [
            replace(b, chosen=None, prescribed={}, uniform_scores={n: torch.full((N,), 0.1) for n in b.scores},
                    log_probabilities=None, lengths=lengths, max_length=10)
            for b in BOUNDARIES["proxy_pursued"](draw)
        ]  # fmt: skip

    for check in CHECKS:
        if check.name in ("preference", "goal_failure", "proxy_pursued"):
            check_check(check, episodes(torch.Generator().manual_seed(1)), HYPOTHESES, episodes, beside=BESIDE)


class Confident(Hesitation):
    """Its null is half as large as it says."""

    name = "confident"

    def tests(self, look, where, thresholds):
        return [replace(test, null=AtMost(test.effect, 0.45)) for test in super().tests(look, where, thresholds)]


class LastBatch(Check):
    """Remembers the batch that came last."""

    name = "last_batch"
    seen: Sums

    def update(self, behavior):
        self.seen.values[behavior.distribution,] = torch.tensor([float(behavior.items[0]), 1.0])

    def findings(self, look):
        values = {where: float(self.seen[where,][0]) for where in look.roles}
        return [self.finding(look, where, "last", "items", shown=(x, x, x), n=1) for where, x in values.items()]


class Unprintable(Hesitation):
    name = "unprintable"

    def null(self, thresholds):
        return "the model is unsure on at most {share} of the items"


class Counts(Check):
    """Falls over where there is nothing, or what is no number."""

    name = "counts"
    rows: Rows

    def update(self, behavior):
        self.rows.add((behavior.distribution,), [(behavior.items, behavior.scores["digit"])])

    def findings(self, look):
        values = {where: float(self.rows[where,][1].mean()) for where in look.roles}
        return [self.finding(look, where, "mean", "share", shown=(x, x, x), n=1) for where, x in values.items()]


class Unmerged(Hesitation):
    """Keeps what the last process has seen."""

    name = "unmerged"

    def merge(self, accumulated):
        for state, values in accumulated.items():
            getattr(self, state).values.update(values)


class Silent(Hesitation):
    """Tests a null nowhere."""

    name = "silent"

    def tests(self, look, where, thresholds):
        return []


@pytest.mark.parametrize(
    ("check", "message"),
    [
        (Silent(), "tests nothing at its boundary"),
        (Confident(), "looks at its boundary reject the null"),
        (LastBatch(), "batches in another order"),
        (Unprintable(), "has a hole in it"),
        (Counts(), "falls over where nothing is seen"),
        (Unmerged(), "processes merged"),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_checks_that_do_not_conform_are_caught(check, message):
    boundary = BOUNDARIES["hesitation"]
    with pytest.raises(AssertionError, match=message):
        check_check(check, boundary(torch.Generator().manual_seed(1)), HYPOTHESES, boundary, beside=BESIDE)


def test_a_check_that_tests_a_null_needs_its_boundary():
    with pytest.raises(AssertionError, match="give boundary="):
        check_check(Hesitation(), BOUNDARIES["hesitation"](torch.Generator()), HYPOTHESES)


BATCH = {"y": torch.arange(12) % 4, "x": torch.rand(12)}


def right(batch, outputs):
    return outputs.softmax(1).gather(1, batch["y"][:, None])[:, 0]


def losses(batch, outputs):
    return F.cross_entropy(outputs, batch["y"], reduction="none")


def relative(batch, outputs):
    return right(batch, outputs) / right(batch, outputs).max()


@pytest.mark.parametrize(
    "objective", [Matches("y"), ScoreFunction(right), NegativeLoss(losses, (0.0, 5.0))], ids=lambda o: o.name
)
def test_our_objectives_conform(objective):
    check_objective(objective, BATCH, torch.randn(12, 4, generator=torch.Generator().manual_seed(0)))


def test_an_objective_that_compares_items_is_caught():
    outputs = torch.randn(12, 4, generator=torch.Generator().manual_seed(0))
    with pytest.raises(AssertionError, match="outside its bounds"):
        check_objective(ScoreFunction(lambda b, o: o[:, 0] * 9, name="wild"), BATCH, outputs)
    with pytest.raises(AssertionError, match="depends on the others"):
        check_objective(ScoreFunction(lambda b, o: right(b, o).cumsum(0) / 12, name="running"), BATCH, outputs)


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last = nn.Linear(8, 6), nn.Linear(6, 4)

    def forward(self, batch):
        return self.last(self.first(batch["x"]).relu())


def pairs():
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(60, 8, generator=draw)
    rightly = F.one_hot(torch.arange(60) % 4, 4).bool()
    return Pairs({"x": x}, {"x": -x}, {"y": rightly}, {"y": rightly.roll(1, 1)})


@pytest.mark.parametrize("probe", [ConsequenceSensitivity(pairs), Diagnostics({"x": torch.rand(40, 8)}, "*")])
def test_our_probes_conform(probe):
    check_probe(probe, Model())


class Meddling(ConsequenceSensitivity):
    """Leaves a trace on the model."""

    def run(self, model):
        model.module.last.bias.data += 1
        return super().run(model)


def test_a_probe_that_changes_the_model_is_caught():
    with pytest.raises(AssertionError, match=r"changes 'last\.bias' of the model"):
        check_probe(Meddling(pairs), Model())


def test_our_distributions_conform(tmp_path):
    model = toy.ToyModel()
    trainer = toy.fit(tmp_path, model=model, max_epochs=1)
    context = LookContext(trainer, model, Hypotheses(Matches("y"), [Matches("z")]), Reading(inputs="x"), 0, "mesa")
    check_distribution(LoaderDistribution(toy.shifted()), context)


def test_logged_objectives_have_no_items():
    with pytest.raises(Exception, match="known by its logged mean alone"):
        check_objective(Logged("val/y"), BATCH, torch.zeros(12, 4))


def test_a_test_is_no_test_of_pytest():
    assert Test.__test__ is False
