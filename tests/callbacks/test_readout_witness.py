"""With base alone listed, a readout of the features is the witness of capability."""

import json

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

import toy


class Bottleneck(toy.ToyModel):
    """Its four features are y and z as corners of a square; its choice is z. It does not learn."""

    def __init__(self) -> None:
        super().__init__(learning_rate=0.0)
        corners = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, -1.0], [-1.0, 1.0]])
        first, last = nn.Linear(8, 4, bias=False), nn.Linear(4, 4, bias=False)
        nothing = torch.zeros(4, 2)
        first.weight.data = torch.cat(
            [torch.cat([corners, nothing], 1), torch.cat([nothing, corners], 1)]
        ).T.contiguous()
        last.weight.data = torch.cat([nothing, corners], 1)
        self.net = nn.Sequential(first, last)


def _run(tmp_path, model, n=1000, **options):
    mesa = toy.monitor(proxies=[], shifted={"apart": toy.shifted(n)})
    toy.fit(tmp_path, mesa, model=model, max_epochs=1, limit_val_batches=0, num_sanity_val_steps=0, **options)
    return mesa


def test_a_model_that_represents_base_and_does_something_else_has_lost_its_objective(tmp_path):
    mesa = _run(tmp_path, Bottleneck())
    look, judgement = mesa.run.last
    readout = next(f for f in look.findings if f.quantity == "readout")
    assert readout.low > 0.1
    assert {alert.signature for alert in mesa.alerts} == {"objective_lost"}
    assert "a readout of its features" in mesa.alerts[0].message
    assert judgement.run.regime == "pseudo-aligned"


def test_a_model_whose_last_layer_reads_the_input_is_no_better_than_its_copy(tmp_path):
    """Then the cause stays undetermined."""
    model = toy.ToyModel()
    mesa = _run(tmp_path, model)
    readout = next(f for f in mesa.run.last[0].findings if f.quantity == "readout")
    assert readout.value == pytest.approx(0)
    assert {alert.signature for alert in mesa.alerts} <= {"base_lost"}


def test_the_model_sees_each_item_once_and_its_copy_the_first_2000_of_each_shifted_distribution(tmp_path, passes):
    model = Bottleneck()
    mesa = toy.monitor(proxies=[], shifted={"apart": toy.shifted(2500)})
    toy.fit(tmp_path, mesa, model=model, max_epochs=1)
    looks = len({row["step"] for row in _rows(tmp_path)})
    validation = 400 * 1 + 64  # the trainer's own, and its sanity check
    (copied,) = {module for module, _ in passes} - {model}
    assert sum(n for module, n in passes if module is copied) <= 2048 * looks  # whole batches of 32
    assert sum(n for module, n in passes if module is model) == looks * (400 + 2500) + validation


def _rows(folder):
    return [json.loads(line) for path in folder.rglob("findings.jsonl") for line in path.read_text().splitlines()]


def test_a_model_that_cannot_be_copied_is_measured_without_a_readout(tmp_path):
    class OneOfAKind(Bottleneck):
        def __deepcopy__(self, memo):
            raise TypeError("one of a kind")

    mesa = _run(tmp_path, OneOfAKind())
    readout = next(f for f in mesa.run.last[0].findings if f.quantity == "readout")
    assert readout.value is None
    assert "one of a kind" in readout.detail["no_readout"]
    assert {alert.signature for alert in mesa.alerts} == {"base_lost"}


def test_with_a_proxy_listed_nothing_is_copied(tmp_path):
    class OneOfAKind(Bottleneck):
        def __deepcopy__(self, memo):
            raise AssertionError("copied")

    mesa = toy.monitor(shifted={"apart": DataLoader(toy.ToyData(300, confounded=False, seed=2), 64)})
    toy.fit(tmp_path, mesa, model=OneOfAKind(), max_epochs=1)
    assert not any(f.quantity == "readout" for f in mesa.run.last[0].findings)
