"""Restricted to prescribed choices and a rest, the behavioral objective is that of all choices, to 1e-9."""

import pytest
import torch
from torch import Tensor
from torch.nn.functional import one_hot

from lightning_mesa.checks.behavioral_objective import _of_items
from lightning_mesa.irl import alike as alike_module
from lightning_mesa.irl import (
    fit_conditional_logit,
    goal_directedness_of,
    gram,
    one_step_features,
    own_lights_regret,
)
from lightning_mesa.irl.alike import Alike, kinds

N = 120
NAMES = ("y", "z", "w", "v", "u")


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def targets(choices: int, count: int, agree: float = 0.3) -> list[Tensor]:
    """One choice prescribed by each objective, the same one on some of the items."""
    draw = generator()
    first = torch.randint(choices, (N,), generator=draw)
    others = [torch.randint(choices, (N,), generator=draw) for _ in range(count - 1)]
    same = [torch.where(torch.rand(N, generator=draw) < agree, first, other) for other in others]
    return [one_hot(target, choices).bool() for target in (first, *same)]


def sets(choices: int, count: int, share: float = 0.4) -> list[Tensor]:
    """Each objective prescribes any number of choices, sometimes none, sometimes all."""
    draw = generator(1)
    return [torch.rand(N, choices, generator=draw) < share * torch.rand(N, 1, generator=draw) * 3 for _ in range(count)]


def outputs(prescribed: list[Tensor], weight: float = 1.0, noise: float = 1.0) -> Tensor:
    values = sum(weight * (i + 1) / 2 * mask.double() for i, mask in enumerate(prescribed))
    return values + noise * torch.randn(*prescribed[0].shape, generator=generator(2), dtype=torch.float64)  # type: ignore[operator]


def masked(logits: Tensor, share: float) -> Tensor:
    """Some choices there are not, one of each item there is."""
    gone = torch.rand(logits.shape, generator=generator(3)) < share
    gone[torch.arange(len(logits)), torch.randint(logits.shape[1], (len(logits),), generator=generator(4))] = False
    return logits.masked_fill(gone, -torch.inf)


def restricted(log_p: Tensor, prescribed: list[Tensor]) -> Alike:
    rows = [*kinds(torch.arange(len(log_p)), log_p, prescribed)]
    return Alike.of(*[torch.cat(column) for column in zip(*rows, strict=True)][1:])


CASES = {
    **{f"{a} choices, {k} targets": (targets(a, k), {}) for a in (2, 3, 10, 1_000) for k in (1, 2, 3, 5)},
    **{f"{a} choices, {k} sets": (sets(a, k), {}) for a in (2, 5, 300) for k in (1, 2, 4)},
    "masked": (targets(10, 2), {"mask": 0.5}),
    "masked, many": (targets(1_000, 3), {"mask": 0.9}),
    "masked sets": (sets(20, 3), {"mask": 0.5}),
    "always agree": (targets(50, 2, agree=1.0), {}),
    "nothing prescribed by one": ([*targets(50, 1), torch.zeros(N, 50, dtype=torch.bool)], {}),
    "all prescribed by one": ([*targets(50, 1), torch.ones(N, 50, dtype=torch.bool)], {}),
    "decided": (targets(100, 2), {"weight": 9.0}),
    "deterministic": (targets(100, 2), {"weight": 800.0}),
    "undecided": (targets(100, 2), {"weight": 0.0, "noise": 0.0}),
}


@pytest.mark.parametrize("case", CASES)
def test_the_estimate_is_that_of_all_choices(case):
    prescribed, options = CASES[case]
    mask = options.pop("mask", None) if (options := dict(options)) else None
    logits = outputs(prescribed, **options)
    log_p = (logits if mask is None else masked(logits, mask)).log_softmax(1)
    names = NAMES[: len(prescribed)]

    x, p, available = torch.stack(prescribed, 2).double(), log_p.softmax(1), log_p > -torch.inf
    offset = torch.zeros_like(p).masked_fill(~available, -torch.inf)
    fit = fit_conditional_logit(x, p, offset=offset, names=names)
    goal = goal_directedness_of(fit, x, p, offset=offset)

    found = _of_items(names, restricted(log_p, prescribed))
    assert not isinstance(found, str)
    assert found.n == N
    close(found.fit.converged, fit.converged)
    for part in ("solution", "bread", "covariance", "units", "log_likelihood"):
        if fit.converged:  # else weights are wherever Newton's method has given up
            close(getattr(found.fit, part), getattr(fit, part))
    close(found.fit.basis @ found.fit.basis.T, fit.basis @ fit.basis.T)
    close(found.fit.weights, fit.weights)
    close(
        [found.fit.effective(one) for one in torch.eye(len(names))],
        [fit.effective(one) for one in torch.eye(len(names))],
    )
    close(found.gram, gram(one_step_features(x, available)))
    for ours, theirs in zip(found.goal, (goal.value, goal.negentropy, goal.explained), strict=True):
        close([*vars(ours).values()], [*vars(theirs).values()])
    own = own_lights_regret(p, prescribed[0] & available)
    close([*vars(found.own_lights).values()], [*vars(own).values()])


def close(found: object, expected: object) -> None:
    found, expected = torch.as_tensor(found).double(), torch.as_tensor(expected).double()
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9, equal_nan=True)


def test_no_item_has_more_kinds_than_choices_or_sets_of_objectives():
    assert restricted(outputs(targets(10, 5)), targets(10, 5)).counts.shape[1] <= 6
    assert restricted(outputs(sets(300, 2)), sets(300, 2)).counts.shape[1] == 4
    assert restricted(outputs(sets(2, 5)), sets(2, 5)).counts.shape[1] == 2


def test_kinds_hold_all_choices_and_all_probability():
    log_p, prescribed = masked(outputs(sets(40, 3)), 0.3), sets(40, 3)
    alike = restricted(log_p, prescribed)
    assert torch.equal(alike.counts.sum(1), (log_p > -torch.inf).sum(1).double())
    close(alike.probabilities.sum(1), torch.ones(N))
    close((alike.probabilities * alike.log_p).sum(1), -torch.special.entr(log_p.softmax(1)).sum(1))


def test_parts_give_what_the_whole_gives(monkeypatch):
    log_p, prescribed = outputs(targets(30, 2)), targets(30, 2)
    whole = restricted(log_p, prescribed)
    monkeypatch.setattr(alike_module, "NUMBERS", 7 * 30)
    for name, part in vars(restricted(log_p, prescribed)).items():
        close(part, getattr(whole, name))


def test_an_item_with_unknown_outputs_is_unknown_and_the_others_are_not():
    log_p, prescribed = outputs(targets(30, 2)), targets(30, 2)
    log_p[5] = torch.nan
    unknown = restricted(log_p, prescribed).probabilities.isnan().any(1)
    assert unknown.nonzero().flatten().tolist() == [5]


def test_numbers_do_not_overflow_with_many_objectives():
    """Seventy objectives, which as a number in binary would be too large."""
    prescribed = [one_hot(torch.full((N,), i % 20), 20).bool() for i in range(70)]
    alike = restricted(outputs(prescribed, weight=0.01), prescribed)
    assert alike.features.shape == (N, 20, 70)
    assert torch.equal(
        alike.features.sum(2).sort(1).values[0], torch.tensor([3.0] * 10 + [4.0] * 10, dtype=torch.float64)
    )
