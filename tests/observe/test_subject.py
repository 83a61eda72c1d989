"""A model as probes see it is run, read and patched, and its untrained copy is always the same."""

import torch
from torch import nn

from lightning_mesa.observe.subject import Subject


def _net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)).eval()


def test_passes_are_counted_and_those_of_the_copy_are_not():
    subject, x = Subject(_net()), torch.randn(5, 4)
    subject.run(x), subject.read(x, ["0"]), subject.run(x, {"0": lambda a, _: a})
    subject.untrained.run(x)
    assert subject.passes == 3


def test_the_untrained_copy_has_other_weights_and_the_same_ones_each_time():
    x = torch.randn(5, 4)
    first, again, other = (Subject(_net(), seed=seed) for seed in (1, 1, 2))
    given = [subject.untrained.run(x) for subject in (first, again, other)]
    assert torch.equal(given[0], given[1])
    assert not torch.equal(given[0], given[2])
    assert not torch.equal(given[0], first.run(x))
    assert first.untrained.module is first.untrained.module


def test_a_model_called_in_several_ways_has_one_copy():
    subject = Subject(_net())
    other = subject.called(lambda module, batch: module(batch["x"]))
    x = torch.randn(5, 4)
    assert other.untrained.module is subject.untrained.module
    assert torch.equal(other.run({"x": x}), subject.run(x))


def test_making_the_copy_draws_nothing_from_the_streams():
    before = torch.get_rng_state()
    _ = Subject(_net_without_seeding()).untrained
    assert torch.equal(before, torch.get_rng_state())


def _net_without_seeding():
    with torch.random.fork_rng():
        return _net()


def test_another_model_is_called_in_the_same_way():
    subject = Subject(_net(), call=lambda module, batch: module(batch["x"]))
    x = torch.randn(5, 4)
    weak = nn.Linear(4, 2)
    assert torch.equal(subject.like(weak).run({"x": x}), weak(x))


def test_what_is_called_is_seen_if_it_has_parameters_of_its_own():
    subject, x = Subject(_net()), torch.randn(5, 4)
    outputs, called = subject.run_and_see(x)
    assert called == {"0", "2"}
    assert torch.equal(outputs, subject.module(x))
    assert subject.passes == 1
    assert not any(part._forward_hooks for part in subject.module.modules())


def test_a_head_can_be_applied_to_an_activation():
    subject, x = Subject(_net()), torch.randn(5, 3)
    assert torch.equal(subject.apply("2", x), subject.module[2](x))


def test_an_untrained_copy_has_other_weights_and_the_model_keeps_its_own():
    net = _net().train()
    net.scale = nn.Parameter(torch.tensor([1.0, 3.0]))
    before = {name: value.clone() for name, value in net.state_dict().items()}
    copied = Subject(net).untrained.module
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert not any(torch.equal(value, before[name]) for name, value in copied.state_dict().items())
    assert net.training
    assert not copied.training


def test_what_a_probe_measures_in_the_copy_is_measured_once_of_each_model():
    measured = []

    def measure(copied):
        measured.append(copied.module)
        return len(measured)

    first, second = Subject(_net()), Subject(_net())
    probe, another = [], []  # equal, and without a hash, as dataclasses are
    assert [subject.in_untrained(probe, measure) for subject in (first, first, second)] == [1, 1, 2]
    assert first.in_untrained(another, measure) == 3
    assert measured[0] is first.untrained.module
