"""What linear layers read is caught and nothing is left behind."""

import pytest
import torch
from torch import nn

from lightning_mesa.observe.features import compared, linear_inputs
from lightning_mesa.observe.subject import Subject


def _net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 2))


def test_the_input_of_the_last_layer_that_gives_so_many_outputs_is_caught():
    net, x = _net(), torch.randn(5, 4)
    with linear_inputs(net) as read:
        net(x)
    assert torch.equal(read[2], net[:4](x))
    assert torch.equal(read[3], net[:2](x))


def test_no_hook_is_left_also_after_an_exception():
    net = _net()
    with pytest.raises(RuntimeError), linear_inputs(net):
        net(torch.randn(5, 7))
    assert not any(part._forward_pre_hooks for part in net.modules())


def test_compiled_modules_are_left_alone():
    net = _net()
    net[4] = torch.compile(net[4], backend="eager")
    with linear_inputs(net) as read:
        assert not any(part._forward_pre_hooks for part in net[4].modules())
    assert read == {}


class Uncopyable(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 2)

    def forward(self, x):
        return self.layer(x)

    def __deepcopy__(self, memo):
        raise TypeError("one of a kind")


@pytest.mark.parametrize(
    ("net", "reason"), [(Uncopyable(), "one of a kind"), (nn.Bilinear(4, 4, 2), "no linear layer gives the 2 choices")]
)
def test_a_model_that_cannot_be_compared_has_a_reason(net, reason):
    x = torch.randn(5, 4)
    with linear_inputs(net) as read:
        outputs = net(x) if isinstance(net, Uncopyable) else net(x, x)
    assert reason in compared(Subject(net), read, outputs, lambda model: model(x), 100)
