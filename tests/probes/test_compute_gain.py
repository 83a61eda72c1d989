"""What gains from more steps is found, on networks whose need of steps is known."""

from dataclasses import replace

import pytest
import torch
from known import CHOICES, one_hot
from torch import nn

from lightning_mesa.errors import ConfigurationError
from lightning_mesa.observe.subject import Subject
from lightning_mesa.probes import ComputeGain, Puzzles

N = 120


class Walker(nn.Module):
    """Each step brings a token nearer by one; who has not arrived decides wrongly. Inputs: label, distance.

    Drawn anew it stands still, unless it walks by nature.
    """

    def __init__(self, steps: int = 8, tied: bool = True, *, innate: bool = False) -> None:
        super().__init__()
        self.innate = innate
        self.steps = steps
        self.tied = tied
        self.stride = nn.Parameter(torch.ones(()))
        self.blocks = nn.ModuleList(nn.Linear(1, 1) for _ in range(16))

    def reset_parameters(self):
        self.stride.data.mul_(float(self.innate))

    def forward(self, x):
        left = x[:, 1:]
        for step in range(self.steps):
            left = left - self.stride if self.tied else left - 1 + 0 * self.blocks[step](left)
        label = (x[:, 0].long() + (left[:, 0] > 0)) % CHOICES
        return 5 * nn.functional.one_hot(label, CHOICES).float()


def puzzles(distance: int, hard: int = N) -> Puzzles:
    """Labels that are as far away, in the hard ones; in the others next door."""
    label = torch.arange(N) % CHOICES
    is_hard = torch.arange(N) < hard
    x = torch.stack([label, torch.where(is_hard, distance, 1)], 1).float()
    return Puzzles(x, {"base": one_hot(label)}, is_hard)


def _probe(model, given, steps="steps", looks=1, **options):
    probe, subject = ComputeGain(given, steps, **options), Subject(model)
    probe.check(subject)
    for _ in range(looks):
        results = probe.run(subject)
    return results, probe, subject


@pytest.mark.parametrize(("distance", "value"), [(2, 0.0), (6, 1.0), (20, 0.0)])
def test_the_gain_is_of_what_a_quarter_of_the_steps_does_not_reach(distance, value):
    (found,), _, subject = _probe(Walker(), puzzles(distance))
    assert found.value == value
    assert found.positive == (value == 1.0)
    assert subject.passes == 3


def test_only_hard_decisions_count():
    (found,), _, _ = _probe(Walker(), puzzles(6, hard=60))
    assert (found.value, found.n) == (1.0, 60)


def test_what_twice_the_steps_add_is_told_beside():
    (found,), _, _ = _probe(Walker(), puzzles(12))
    assert (found.value, found.detail["beyond"]) == (0.0, 1.0)


def test_gains_of_all_looks_are_averaged_so_that_one_that_shrinks_late_is_not_lost():
    model = Walker()
    probe, subject = ComputeGain(puzzles(6), "steps"), Subject(model)
    probe.check(subject)
    probe.run(subject)
    model.stride.data.fill_(3.0)  # now two steps do
    (found,) = probe.run(subject)
    assert (found.value, found.detail["now"]) == (0.5, 0.0)
    assert found.positive


def test_a_resumed_probe_goes_on_and_one_of_a_new_run_begins_anew():
    _, probe, _ = _probe(Walker(), puzzles(6), looks=2)
    resumed = ComputeGain(puzzles(6), "steps")
    resumed.load_state_dict(probe.state_dict())
    subject = Subject(Walker())
    resumed.check(subject)
    assert resumed.run(subject)[0].detail["looks"] == 3
    resumed.forget()
    assert resumed.run(subject)[0].detail["looks"] == 1


def test_a_network_whose_steps_have_weights_of_their_own_is_not_probed_and_not_at_zero():
    (found,), _, _ = _probe(Walker(tied=False), puzzles(6))
    assert (found.status, found.value) == ("not_applicable", None)
    assert found.reason == (
        "with more steps other layers are called, "
        + ", ".join(f"'blocks.{i}'" for i in range(2, 8))
        + ": weights are not tied"
    )


def test_fewer_than_two_steps_are_not_probed():
    (found,), _, _ = _probe(Walker(steps=1), puzzles(6))
    assert (found.status, found.reason) == ("not_applicable", "a quarter of 1 steps is no fewer")


def test_a_policy_is_given_time_by_steps_without_consequences():
    """Its batch has as many of them first as it is asked for."""

    class Policy(nn.Module):
        def forward(self, x):
            arrived = x.shape[1] - 1 >= 5
            label = (x[:, -1].long() + (not arrived)) % CHOICES
            return 5 * nn.functional.one_hot(label, CHOICES).float()

    label = torch.arange(N) % CHOICES

    def batch(no_ops):
        return torch.cat([torch.zeros(N, no_ops), label[:, None]], 1).float()

    (found,), _, _ = _probe(Policy(), Puzzles(batch, {"base": one_hot(label)}), steps=8)
    assert found.value == 1.0


def test_the_number_of_steps_is_set_back_also_if_the_model_fails():
    class Failing(Walker):
        def forward(self, x):
            if self.steps > 8:
                raise ValueError("too long")
            return super().forward(x)

    model = Failing()
    with pytest.raises(ValueError, match="too long"):
        _probe(model, puzzles(6))
    assert model.steps == 8


def test_a_copy_that_has_learned_nothing_and_gains_as_well_makes_the_control_invalid():
    (found,), _, _ = _probe(Walker(innate=True), puzzles(6))
    assert (found.status, found.positive) == ("invalid_control", False)


def test_nothing_to_count_is_underpowered():
    (found,), _, _ = _probe(Walker(), puzzles(6, hard=0))
    assert (found.status, found.reason) == ("underpowered", "no decision counts")


@pytest.mark.parametrize(
    ("given", "steps", "message"),
    [
        (replace(puzzles(6), right={}), "steps", "right is empty"),
        (replace(puzzles(6), right={"base": torch.ones(N, 4)}), "steps", r"'base': right is \[120, 4\] of type"),
        (replace(puzzles(6), hard=torch.ones(3).bool()), "steps", r"hard is \[3\] where it must be \[120\]"),
        (puzzles(6), "depth", "steps='depth' must name an attribute of Walker that holds a whole number, .* None"),
        (puzzles(6), "tied", "holds True"),
        (puzzles(6), "net.steps", "steps='net.steps': .* has no attribute `net`"),
        (puzzles(6), 8, "batch must be a function of the number of steps"),
    ],
)
def test_what_cannot_be_probed_is_refused(given, steps, message):
    with pytest.raises(ConfigurationError, match=message):
        ComputeGain(given, steps).check(Subject(Walker()))
