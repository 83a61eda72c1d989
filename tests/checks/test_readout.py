"""The readout: base from the model's features against an untrained copy's."""

import pytest
import torch
from torch.nn import functional

from lightning_mesa.checks import Look, Readout
from lightning_mesa.checks.readout import read_out
from lightning_mesa.objectives.hypotheses import Hypotheses
from lightning_mesa.objectives.matches import Matches
from lightning_mesa.records import Behavior, Features

A = 5


def _readout(label, model, untrained):
    check = Readout().begun(Hypotheses(Matches("y")))
    prescribed = {"y": functional.one_hot(label, A).bool()}
    for part in torch.arange(len(label)).split(50):  # batches add up
        check.saw(
            Behavior(
                distribution="shifted",
                n=len(part),
                items=part,
                scores={},
                binary=frozenset({"y"}),
                prescribed={"y": prescribed["y"][part]},
                uniform_scores={},
                chosen=None,
                groups={},
                ids=None,
                features=Features(model[part], untrained[part]),
            )
        )
    (finding,) = check.findings(Look(0, 0, "y", {"val": "reference", "shifted": "shifted"}))
    return finding


def _labels(n=400, seed=0):
    draw = torch.Generator().manual_seed(seed)
    return torch.randint(A, (n,), generator=draw), draw


@pytest.mark.parametrize("width", [8, 600])
def test_features_that_hold_the_label_beat_random_ones(width):
    """Also with more features than items."""
    label, draw = _labels()
    noise = [torch.randn(400, width, generator=draw) for _ in range(2)]
    noise[0][:, :A] += 6 * functional.one_hot(label, A)
    finding = _readout(label, *noise)
    assert finding.low > 0.4
    assert finding.low <= finding.value <= finding.high


def test_features_no_better_than_the_copys_are_seldom_called_better():
    """200 samples: the lower 97.5 % limit is above 0 in at most 2.5 %, and 5 more for the luck of the draw."""
    above = 0
    for seed in range(200):
        label, draw = _labels(n=120, seed=seed)
        shared = torch.randn(120, 6, generator=draw) + functional.one_hot(label, 6)
        sides = [shared + torch.randn(120, 6, generator=draw) for _ in range(2)]
        above += _readout(label, *sides).low > 0
    assert above <= 10


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda label, x: (label[:10], x[:10]), "fewer than"),
        (lambda label, x: (torch.zeros_like(label), x), "single"),
        (lambda label, x: (label, x.clone().fill_(torch.nan)), "not finite"),
    ],
)
def test_where_nothing_can_be_read_out_the_finding_says_why(spoil, reason):
    label, draw = _labels()
    label, x = spoil(label, torch.randn(400, 8, generator=draw))
    finding = _readout(label, x, x)
    assert finding.value is None
    assert reason in finding.detail["no_readout"]


def test_few_items_or_many_features_give_the_same_readout():
    """The primal and the dual form of ridge regression agree: doubled features cost only a doubled penalty."""
    label, draw = _labels(n=60)
    x = torch.randn(60, 40, generator=draw)
    assert torch.equal(read_out(x, label, x, A), read_out(torch.cat([x, x * 0], 1), label, torch.cat([x, x * 0], 1), A))


def test_a_constant_feature_does_not_matter():
    label, draw = _labels(n=60)
    x = torch.randn(60, 4, generator=draw)
    constant = torch.cat([x, torch.ones(60, 1)], 1)
    assert torch.equal(read_out(x, label, x, A), read_out(constant, label, constant, A))


def test_it_is_not_asked_for_unless_base_is_alone():
    assert Hypotheses(Matches("y")).base_alone
    assert not Hypotheses(Matches("y"), [Matches("color")]).base_alone
    assert not Hypotheses(Matches("y"), witness=Matches("color")).base_alone
