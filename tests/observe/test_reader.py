"""Layers are read in passing, narrow, and with what an untrained copy gives."""

import pytest
import torch
from torch import nn

from lightning_mesa.observe.reader import MOST_FEATURES, Reader
from lightning_mesa.observe.subject import Subject
from lightning_mesa.records import INPUT, UNTRAINED


def _read(net, layers, x, *, untrained=False):
    reader = Reader(Subject(net.eval()), layers, untrained=untrained)
    with torch.no_grad():
        with reader.reading(net) as given:
            out = net(x)
        return reader.activations(given, lambda module: module(x)), out


def test_small_layers_are_read_as_they_are():
    net, x = nn.Sequential(nn.Linear(6, 5), nn.ReLU()), torch.randn(7, 6)
    given, out = _read(net, ["0", "1"], x)
    assert torch.equal(given["1"], out)
    assert torch.equal(given[INPUT], x)


@pytest.mark.parametrize(
    ("net", "x", "width"),
    [
        (nn.Sequential(nn.Conv2d(3, 16, 3, padding=1)), torch.randn(4, 3, 9, 9), 16),  # the mean over cells
        (nn.Sequential(nn.Linear(12, 40)), torch.randn(4, 30, 12), 40),  # the mean over tokens
        (nn.Sequential(nn.Linear(12, 500)), torch.randn(4, 12), MOST_FEATURES),  # projected
        (nn.Sequential(nn.Conv2d(3, 300, 3)), torch.randn(4, 3, 9, 9), MOST_FEATURES),
    ],
)
def test_large_layers_are_made_narrow(net, x, width):
    assert _read(net, ["0"], x)[0]["0"].shape == (4, width)


def test_a_projection_is_the_same_for_every_batch_and_draws_nothing():
    net, x = nn.Sequential(nn.Linear(12, 500)), torch.randn(4, 12)
    before = torch.get_rng_state()
    first, second = (_read(net, ["0"], batch)[0]["0"] for batch in (x, x[:2]))
    assert torch.allclose(first[:2], second, atol=1e-5)
    assert torch.equal(before, torch.get_rng_state())


class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.step = nn.Linear(3, 3)

    def forward(self, x):
        return self.step(self.step(x))


def test_each_tick_is_an_entry_of_its_own():
    given, out = _read(Twice(), ["step"], torch.randn(5, 3))
    assert set(given) == {INPUT, "step@0", "step@1"}
    assert torch.equal(given["step@1"], out)


def test_the_copy_is_read_where_that_is_wanted():
    net, x = nn.Sequential(nn.Linear(6, 5), nn.ReLU()), torch.randn(7, 6)
    given, _ = _read(net, ["0"], x, untrained=True)
    assert set(given) == {INPUT, "0", f"{UNTRAINED}0"}
    assert not torch.equal(given["0"], given[f"{UNTRAINED}0"])


def test_no_hook_is_left_after_an_error():
    net = nn.Sequential(nn.Linear(6, 5))
    with pytest.raises(RuntimeError):
        _read(net, ["0"], torch.randn(7, 4))
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in net.modules())
