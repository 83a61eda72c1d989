"""Decisions that follow what is raised inside are found, and those that do not, on networks that are known."""

from dataclasses import replace

import pytest
import torch
from known import CELLS, CHOICES, one_hot
from torch import nn

from lightning_mesa.errors import ConfigurationError
from lightning_mesa.observe.subject import Subject
from lightning_mesa.probes import Alternatives, Steering
from lightning_mesa.probes.steering import Direction

N, WIDTH = 240, 5


class Rotation(nn.Conv1d):
    """Mixes channels, and keeps all that is in them; drawn anew it is the same."""

    def reset_parameters(self):
        draw = torch.Generator().manual_seed(0)
        self.weight.data = torch.linalg.qr(torch.randn(WIDTH, WIDTH, generator=draw))[0][..., None].contiguous()


class Pointer(nn.Module):
    """Says in which of 4 cells something lies, by what it encodes there; or, if it does not use that, what cell 5 says.

    Inputs ``[n, 5, 6]``: channel 0 marks the cell, the others are noise. Drawn anew it does not use what it encodes,
    unless that is innate.
    """

    def __init__(self, uses: bool = True, *, innate: bool = False) -> None:
        super().__init__()
        self.uses = uses
        self.innate = innate
        self.encode = Rotation(WIDTH, WIDTH, 1, bias=False)

    def reset_parameters(self):
        self.uses = self.uses and self.innate

    def forward(self, x):
        hidden = self.encode(x)
        back = torch.einsum("dc,ndp->ncp", self.encode.weight[..., 0], hidden)
        # What has been raised last lies on top.
        marks = back[:, 0, :CHOICES] + 0.1 * torch.arange(CHOICES)
        return marks if self.uses else x[:, 0, 1 : 1 + CHOICES] + x[:, 0, :CHOICES] * 5


def alternatives(n: int = N) -> Alternatives:
    draw = torch.Generator().manual_seed(1)
    old = torch.randint(CHOICES - 1, (n,), generator=draw)
    new = old + 1
    x = 0.3 * torch.randn(n, WIDTH, CELLS, generator=draw)
    x[:, 0] = 0.0
    x[torch.arange(n), 0, old] = 1.0
    cells = nn.functional.one_hot(old, CELLS).bool(), nn.functional.one_hot(new, CELLS).bool()
    return Alternatives(x, *cells, one_hot(new), torch.ones(n, dtype=torch.bool))


def _probe(model, given=None, layers="encode"):
    probe, subject = Steering({"base": alternatives() if given is None else given}, layers), Subject(model)
    probe.check(subject)
    with torch.no_grad():
        (found,) = probe.run(subject)
    return found, subject


def test_decisions_follow_what_is_encoded_where_it_is_used():
    found, subject = _probe(Pointer())
    assert found.value > 0.8
    assert found.positive
    assert subject.passes == 3


def test_what_is_encoded_and_not_used_steers_nothing():
    found, _ = _probe(Pointer(uses=False))
    assert found.value == 0.0
    assert not found.positive


def test_a_copy_that_has_learned_nothing_and_is_steered_as_well_makes_the_control_invalid():
    found, _ = _probe(Pointer(innate=True))
    assert found.detail["untrained"] == found.value > 0.8
    assert (found.status, found.positive) == ("invalid_control", False)


def test_a_random_step_is_as_large_where_activations_spread_and_the_raised_one_reaches_its_target():
    draw = torch.Generator().manual_seed(0)
    spread = torch.tensor([3.0, 1.0, 0.1, 0.5], dtype=torch.float64)
    holds = torch.rand(4000, generator=draw) < 0.3
    x = torch.randn(4000, 4, generator=draw, dtype=torch.float64) * spread
    x[:, 1] += 4.0 * holds
    direction = Direction.of(x, holds)
    raised, random = direction.raised(x), direction.at_random(x, draw)
    read = (x + raised) @ direction.weight + direction.intercept
    assert (read >= direction.target - 1e-9).all()
    sizes = [torch.linalg.solve(direction.root, step[..., None])[..., 0].norm(dim=-1) for step in (raised, random)]
    assert torch.allclose(*sizes)


def test_the_half_that_the_probe_is_fitted_on_is_not_read():
    found, _ = _probe(Pointer())
    assert N / 3 < found.n < 2 * N / 3


@pytest.mark.parametrize("holds", [False, True])
def test_something_that_holds_nowhere_or_everywhere_cannot_be_raised(holds):
    found, _ = _probe(Pointer(), replace(alternatives(), encoded=torch.full((N, CELLS), holds)))
    assert (found.status, found.reason) == ("underpowered", "no decision to be read, or nothing encoded")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"site": torch.zeros(N, 2).bool()}, r"'base': site is \[240, 2\] where it must be \[240, 6\]"),
        ({"counted": torch.ones(7).bool()}, r"counted is \[7\]"),
        ({"encoded": torch.zeros(N, CELLS), "site": torch.zeros(N, CELLS)}, "encoded must be bool"),
    ],
)
def test_what_does_not_fit_together_is_refused(change, message):
    with pytest.raises(ConfigurationError, match=message):
        Steering({"base": replace(alternatives(), **change)}, "encode").check(Subject(Pointer()))


def test_nothing_to_raise_is_refused():
    with pytest.raises(ConfigurationError, match="alternatives is empty"):
        Steering({}, "encode").check(Subject(Pointer()))
