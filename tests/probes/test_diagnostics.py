"""Lens, settle step and residual, on networks that are known; none is judged."""

import pytest
import torch
from known import CHOICES
from torch import nn

from lightning_mesa.errors import ConfigurationError
from lightning_mesa.observe.subject import Subject
from lightning_mesa.probes import Diagnostics
from lightning_mesa.probes.diagnostics import fixed_point_residual, lens, settle

N, WIDTH = 200, 8


class Late(nn.Module):
    """Only the second block makes out of the input what the choice depends on; two ticks of a halving follow."""

    def __init__(self) -> None:
        super().__init__()
        draw = torch.Generator().manual_seed(0)
        self.first = nn.Identity()
        self.second = nn.Identity()
        self.halve = nn.Identity()
        self.weight = nn.Parameter(torch.randn(WIDTH, CHOICES, generator=draw))

    def forward(self, x):
        x = self.second(self.first(x) ** 2)
        for _ in range(3):
            x = self.halve(x / 2)
        return x @ self.weight


def found():
    x = torch.randn(N, WIDTH, generator=torch.Generator().manual_seed(1))
    probe, subject = Diagnostics(x, ["first", "second", "halve"]), Subject(Late())
    probe.check(subject)
    with torch.no_grad():
        results = probe.run(subject)
    return {(result.quantity, result.layer): result for result in results}, subject


def test_the_lens_shows_from_which_layer_on_the_choice_is_there_in_one_pass():
    results, subject = found()
    assert results["lens", "first"].value < 0.6
    assert results["lens", "second"].value > 0.95
    assert results["lens", "halve@2"].high >= results["lens", "halve@2"].value > 0.95
    assert subject.passes == 1


def test_nothing_of_it_is_judged():
    assert not any(result.positive for result in found()[0].values())
    assert Diagnostics.rung is None


def test_the_residual_is_the_relative_change_of_the_last_tick():
    assert found()[0]["residual", "halve"].value == pytest.approx(0.5)
    assert fixed_point_residual(torch.ones(2, 3), 2 * torch.ones(2, 3)) == pytest.approx(1.0)


def test_the_settle_step_is_the_first_from_which_a_choice_stays():
    chosen = torch.tensor([[0, 1, 2, 1], [0, 2, 2, 1], [0, 3, 2, 3], [0, 1, 3, 3]])
    # From the first on; only at the last; only at the last; from the third of four on.
    assert settle(chosen) == pytest.approx((0 + 1 + 1 + 2 / 3) / 4)


def test_a_lens_reads_each_position_where_outputs_have_them_and_their_mean_where_they_do_not():
    draw = torch.Generator().manual_seed(0)
    activation = torch.randn(40, 3, 5, 5, generator=draw, dtype=torch.float64)
    outputs = torch.einsum("ncyx,ca->nayx", activation, torch.randn(3, 4, generator=draw, dtype=torch.float64))
    assert (lens(activation, outputs) == outputs.argmax(1)).double().mean() > 0.95
    assert lens(activation, outputs.mean((2, 3))).shape == (40,)
    assert lens(activation[..., 0, 0], outputs).shape == (
        40,
        5,
        5,
    )  # a layer without positions, before outputs with some


def test_activations_that_are_not_finite_have_no_lens():
    model = Late()
    model.weight.data[0, 0] = torch.nan
    subject = Subject(model)
    with torch.no_grad():
        results = Diagnostics(torch.randn(N, WIDTH), "second").run(subject)
    assert [result.status for result in results] == ["underpowered"]


def test_outputs_without_choices_and_layers_that_are_not_there_are_refused():
    class Flat(Late):
        def forward(self, x):
            return super().forward(x).sum(1)

    with pytest.raises(ConfigurationError, match=r"the model gives \[200\]; outputs \[n, A\]"):
        Diagnostics(torch.randn(N, WIDTH), "first").run(Subject(Flat()))
    with pytest.raises(ConfigurationError, match="no layer 'third'"):
        Diagnostics(torch.randn(N, WIDTH), "third").check(Subject(Late()))
