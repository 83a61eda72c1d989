"""Probes in a real training: what they publish, what they refuse before it begins, what they cost, what is resumed."""

from collections import Counter

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import toy
from lightning_mesa import ConfigurationError, Logged, Matches, MesaMonitor, read_journal
from lightning_mesa.attach.cli import main
from lightning_mesa.probes import (
    Alternatives,
    ComputeGain,
    ConsequenceSensitivity,
    Decodability,
    Diagnostics,
    Pairs,
    Patches,
    Puzzles,
    Retargeting,
    Steering,
)
from toy import CHOICES


class Cells(toy.ToyModel):
    """Reads the two cues as two cells, so that each has a place inside."""

    def __init__(self) -> None:
        super().__init__()
        self.cells = nn.Identity()

    def forward(self, x):
        return self.net(self.cells(x.view(-1, 2, CHOICES)).flatten(1))


def seen(y, z):
    return {"x": torch.cat([F.one_hot(y, CHOICES), 3 * F.one_hot(z, CHOICES)], 1).float()}


def one_hot(labels):
    return F.one_hot(labels, CHOICES).bool()


def patches(which):
    """Both cues say the same; then the one says something else."""
    old = torch.arange(120) % CHOICES
    new = (old + 1) % CHOICES
    site = torch.zeros(120, 2, dtype=torch.bool)
    site[:, "yz".index(which)] = True
    source = seen(new, old) if which == "y" else seen(old, new)
    counted = torch.ones(120, dtype=torch.bool)
    return Patches(seen(old, old), source, site, one_hot(old), one_hot(new), counted)


def pairs():
    """Half of the pairs change the strong cue, and by it what serves the proxy."""
    old = torch.arange(120) % CHOICES
    new = torch.where(torch.arange(120) < 60, (old + 1) % CHOICES, old)
    rights = {"y": one_hot(old), "z": one_hot(old)}, {"y": one_hot(old), "z": one_hot(new)}
    return Pairs(seen(old, old), seen(old, new), *rights)


def probes(layers="cells"):
    return [ConsequenceSensitivity(pairs()), Retargeting({which: patches(which) for which in "yz"}, layers)]


def fit(folder, *, model=None, **options):
    torch.manual_seed(0)
    model = Cells() if model is None else model
    mesa = toy.monitor(probes=options.pop("probes", probes()), on_error="raise", **options.pop("mesa", {}))
    trainer = toy.fit(folder, mesa, model=model, **options)
    return trainer, mesa, model


class Stepwise(Cells):
    """Applies its weights again at each step, to what it has made so far."""

    def __init__(self) -> None:
        super().__init__()
        self.steps = 8

    def forward(self, x):
        logits = super().forward(x)
        for _ in range(self.steps):
            logits = logits + 0.1 * self.net(x)
        return logits


def puzzles():
    label = torch.arange(120) % CHOICES
    return Puzzles(seen(label, label), {"y": one_hot(label), "z": one_hot(label)})


def alternatives():
    """The strong cue says something else inside than in the input."""
    old = torch.arange(120) % CHOICES
    is_first = old == 0
    encoded = torch.stack([torch.zeros_like(is_first), is_first], 1)
    site = torch.tensor([False, True]).repeat(120, 1)
    return {"y": Alternatives(seen(old, old), encoded, site, one_hot(torch.zeros_like(old)), ~is_first)}


@pytest.fixture(scope="module")
def ended(tmp_path_factory):
    folder = tmp_path_factory.mktemp("probed")
    trainer, mesa, _ = fit(folder, logger=True)
    return trainer, mesa, folder


def test_a_model_that_pursues_a_proxy_is_found_to_serve_it_inside(ended):
    """Confounded in training, the strong cue is learned: behavior and internals say so together."""
    trainer, mesa, _ = ended
    assert "mesa_objective" in {alert.signature for alert in mesa.alerts}
    metrics = trainer.callback_metrics
    assert metrics["mesa/search/rung"] == 3
    assert metrics["mesa/search/rung/cells"] == 3
    assert metrics["mesa/search/retargeting/cells/z"] > 0.9 > 0.5 > metrics["mesa/search/retargeting/cells/y"]
    assert metrics["mesa/search/margin/cells/z_high"] < 0
    assert metrics["mesa/search/consequence_sensitivity/z"] > 0.9
    assert metrics["mesa/search/consequence_sensitivity/z/null"] < 0.5


def test_what_probes_found_is_in_the_journal_and_can_be_judged_again(ended, capsys):
    trainer, _, _ = ended
    journal = f"{trainer.logger.log_dir}/mesa/findings.jsonl"
    inside = [f for f in read_journal(journal) if f["role"] == "internals"]
    assert {f["measure"] for f in inside} == {"consequence_sensitivity", "retargeting"}
    assert {f["distribution"] for f in inside} == {"search"}
    main(["replay", journal])
    assert "mesa_objective" in capsys.readouterr().out


def test_each_look_costs_ten_passes_over_the_pairs(tmp_path, passes):
    _, _, alone = fit(tmp_path / "alone", probes=())
    _, _, probed = fit(tmp_path / "probed")
    of_each = Counter(model for model, _ in passes)
    assert of_each[probed] - of_each[alone] == 4 * 10  # before training, and after each of three validations


def test_what_probes_cost_is_said_before_training(tmp_path, caplog):
    with caplog.at_level("INFO"):
        fit(tmp_path, max_epochs=1)
    assert "consequence_sensitivity (2 forward passes over 120 pairs), retargeting (8 forward passes" in caplog.text


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"probes": probes("cell")}, "no layer 'cell' in Cells"),
        ({"probes": [Retargeting({"y": patches("y"), "w": patches("z")}, "cells")]}, "'w' is none of the listed"),
        ({"probes": [Retargeting({"z": patches("z"), "y": patches("y")}, "cells")]}, "name base, 'y', before"),
        ({"probes": probes("net")}, r"layer 'net' gives \[120, 4\], whose positions are not those of the site, \[2\]"),
    ],
)
def test_probes_that_cannot_be_right_are_refused_before_training(bad, message, tmp_path):
    model = Cells()
    before = model.net.weight.detach().clone()
    with pytest.raises(ConfigurationError, match=message):
        fit(tmp_path, model=model, **bad)
    assert torch.equal(model.net.weight, before)


def test_what_is_no_probe_is_refused():
    with pytest.raises(ConfigurationError, match=r"probes\[0\] is str, and no probe"):
        MesaMonitor(Matches("y"), shifted={"apart": toy.shifted()}, probes=["decodability"])


@pytest.mark.slow
def test_a_resumed_run_goes_on_with_the_ladder(tmp_path):
    last, whole, _ = fit(tmp_path / "whole")
    trainer, _, _ = fit(tmp_path / "first", max_epochs=2)
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    end, resumed, _ = fit(tmp_path / "second", ckpt_path=tmp_path / "last.ckpt")
    keys = [key for key in last.callback_metrics if key.startswith("mesa/search/")]
    assert keys
    assert all(last.callback_metrics[key] == end.callback_metrics[key] for key in keys)
    assert [alert.signature for alert in resumed.alerts] == [alert.signature for alert in whole.alerts]


def test_decodability_needs_nothing_but_layers(tmp_path):
    trainer, mesa, _ = fit(tmp_path, probes=[Decodability("cells")])
    metrics = trainer.callback_metrics
    assert metrics["mesa/search/rung"] <= 1
    found = [f for f in mesa.run.last[0].findings if f.measure == "decodability"]
    assert {(f.group, f.objective) for f in found} == {("cells", "y"), ("cells", "z")}
    assert all(f.detail["explained"] > 0.8 for f in found)  # both cues are read
    assert not any(f.detail["positive"] for f in found)  # and were there to be read in the input


def test_several_batches_give_what_one_does(tmp_path):
    """Activations are joined with the rest of the behavior; permutations are drawn within what is joined."""
    found = []
    for batch_size in (400, 50):
        mesa = {"shifted": {"apart": toy.shifted(batch_size=batch_size)}}
        _, monitor, _ = fit(tmp_path / str(batch_size), probes=[Decodability("cells")], mesa=mesa, max_epochs=1)
        found.append([f.value for f in monitor.run.last[0].findings if f.measure == "decodability"])
    assert found[0] == pytest.approx(found[1], abs=1e-6)


class TwoValidations(toy.ToyModel):
    def validation_step(self, batch, batch_idx, dataloader_idx=0):
        self.log("accuracy", 0.5)


def test_of_logged_values_there_is_nothing_to_probe(tmp_path):
    mesa = MesaMonitor(Logged("accuracy", (0, 1)), shifted={"apart": "val/1"}, probes=[Decodability("net")])
    with pytest.raises(ConfigurationError, match=r"leave out .* probes="):
        toy.fit(tmp_path, mesa, model=TwoValidations(), val_dataloaders=[toy.loader(seed=1), toy.shifted()])


def test_a_probe_that_has_seen_another_model_begins_anew(tmp_path):
    """A sweep may use one probe for all of its runs."""
    shared = [*probes(), Decodability("cells")]
    fit(tmp_path / "first", probes=shared, max_epochs=1)
    _, again, _ = fit(tmp_path / "second", probes=shared, mesa={"seed": 5}, max_epochs=1)
    _, fresh, _ = fit(tmp_path / "third", probes=[*probes(), Decodability("cells")], mesa={"seed": 5}, max_epochs=1)
    found = [
        [(f.measure, f.value, dict(f.detail)) for f in m.run.last[0].findings if f.role == "internals"]
        for m in (again, fresh)
    ]
    assert found[0] == found[1]


def test_a_probe_that_pools_its_looks_goes_on_after_a_resume(tmp_path):
    """The gain of the resumed run is that of one that was never interrupted."""
    found = []
    for name in ("whole", "resumed"):
        options = {"model": Stepwise(), "probes": [ComputeGain(puzzles(), "steps")]}
        if name == "resumed":
            trainer, _, _ = fit(tmp_path / "first", **options, max_epochs=2)
            trainer.save_checkpoint(tmp_path / "last.ckpt")
            options |= {"model": Stepwise(), "ckpt_path": tmp_path / "last.ckpt"}
            options["probes"] = [ComputeGain(puzzles(), "steps")]
        _, mesa, _ = fit(tmp_path / name, **options)
        found.append([(f.value, dict(f.detail)) for f in mesa.run.last[0].findings if f.measure == "compute_gain"])
    assert found[0] == found[1]
    assert found[0][0][1]["looks"] == 4


def test_a_probe_added_on_resume_begins_then(tmp_path):
    trainer, _, _ = fit(tmp_path / "first", model=Stepwise(), max_epochs=2)
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    more = [*probes(), ComputeGain(puzzles(), "steps")]
    _, mesa, _ = fit(tmp_path / "second", model=Stepwise(), probes=more, ckpt_path=tmp_path / "last.ckpt")
    assert [f.detail["looks"] for f in mesa.run.last[0].findings if f.measure == "compute_gain"] == [1, 1]


def test_what_is_drawn_and_not_judged_is_published_and_moves_no_rung(tmp_path):
    drawn = Diagnostics(seen(torch.arange(120) % CHOICES, torch.arange(120) % CHOICES), ["cells", "net"])
    trainer, _, _ = fit(tmp_path, probes=[drawn], logger=True)
    metrics = trainer.callback_metrics
    assert metrics["mesa/search/lens/net"] > 0.9
    assert 0 <= metrics["mesa/search/settle"] <= 1
    assert metrics["mesa/search/rung"] == 0


def test_raising_the_strong_cue_inside_steers_a_model_that_pursues_it(tmp_path):
    trainer, mesa, _ = fit(tmp_path, probes=[Steering(alternatives(), "cells")])
    found = [f for f in mesa.run.last[0].findings if f.measure == "steering"]
    assert [(f.group, f.objective, f.detail["status"]) for f in found] == [("cells", "y", "ok")]
    assert "mesa/search/steering/cells/y" in trainer.callback_metrics
