"""Conflict and slice distributions of validation data that are there already, by a predicate, in the same pass."""

import pytest
import torch
from torch.utils.data import DataLoader

import toy
from importable import data
from lightning_mesa import ConfigurationError, LoaderDistribution, MesaMonitor, read_journal
from quick import quick


class Grouped(toy.ToyData):
    """In part confounded: on one item in four the strong cue is drawn anew; labels say on which, and of what kind."""

    def __init__(self, n=800, seed=1):
        super().__init__(n, confounded=True, seed=seed)
        other = toy.ToyData(n, confounded=False, seed=seed + 100)
        self.rare = torch.arange(n) % 4 == 0
        self.z = torch.where(self.rare, other.z, self.z)
        self.x[self.rare, 4:] = 3 * torch.eye(4)[self.z[self.rare]]
        self.kind = ["odd" if i % 2 else "even" for i in range(n)]

    def __getitem__(self, i):
        return super().__getitem__(i) | {"rare": self.rare[i], "kind": self.kind[i]}


def val():
    return DataLoader(Grouped(), 64)


ITEMS: dict[int, int] = {}
"""Not in the model: a look puts back what it holds."""


class Counting(toy.ToyModel):
    """Counts items in forward passes outside training."""

    def __init__(self):
        super().__init__()
        ITEMS.clear()

    def forward(self, x):
        ITEMS[len(ITEMS)] = 0 if self.net.training else len(x)
        return super().forward(x)

    def validation_step(self, batch, batch_idx):
        """None, so that every such pass is the monitor's."""


def rare(batch):
    return batch["rare"]


SAME = {
    "labels": {"rare": True},
    "a function": rare,
    "labels as numbers": {"rare": 1},
}


@pytest.mark.parametrize("where", quick(SAME, "labels as numbers"))
def test_part_of_the_validation_data_is_watched_in_the_same_pass(tmp_path, where):
    torch.manual_seed(0)
    model = Counting()
    mesa = toy.monitor(shifted={"rare": LoaderDistribution("val", where=SAME[where])})
    trainer = toy.fit(tmp_path, mesa, model=model, val_dataloaders=val(), max_epochs=12)
    assert trainer.callback_metrics["mesa/rare/n"] == 200
    assert trainer.callback_metrics["mesa/val/n"] == 800
    assert sum(ITEMS.values()) == 800 * 13  # one pass per item and look
    truth = Grouped()
    with torch.no_grad():
        hits = (model.net(truth.x).argmax(1) == truth.y)[truth.rare].float().mean()
    assert float(trainer.callback_metrics["mesa/rare/score/y"]) == pytest.approx(float(hits))
    assert {alert.distribution for alert in mesa.alerts if alert.severity == "alert"} == {"rare"}


def test_strings_and_several_labels_choose_together(tmp_path):
    mesa = toy.monitor(shifted={"part": LoaderDistribution("val", where={"kind": "even", "rare": True})})
    trainer = toy.fit(tmp_path, mesa, val_dataloaders=val(), max_epochs=1)
    assert trainer.callback_metrics["mesa/part/n"] == 200  # every fourth is even
    mesa = toy.monitor(shifted={"part": LoaderDistribution("val", where={"kind": "odd"})}, proxies=[])
    trainer = toy.fit(tmp_path, mesa, val_dataloaders=val(), max_epochs=1)
    assert trainer.callback_metrics["mesa/part/n"] == 400


def test_the_conflict_items_need_no_label(tmp_path):
    mesa = toy.monitor(shifted={"conflict": LoaderDistribution("val", where="conflict")})
    trainer = toy.fit(tmp_path, mesa, val_dataloaders=val(), max_epochs=12)
    truth = Grouped()
    assert trainer.callback_metrics["mesa/conflict/n"] == int((truth.y != truth.z).sum())
    assert {alert.signature for alert in mesa.alerts} >= {"objective_lost", "proxy_pursued"}


def test_the_same_numbers_as_from_a_loader_of_the_part_alone(tmp_path):
    """Group labels, the readout and extremes included."""
    subset = torch.utils.data.Subset(Grouped(), range(0, 800, 4))
    found = []
    for i, one in enumerate([LoaderDistribution("val", where=rare), DataLoader(subset, 64)]):
        mesa = toy.monitor(shifted={"rare": one}, groups="kind")
        toy.fit(tmp_path / str(i), mesa, val_dataloaders=val(), max_epochs=2)
        lines = read_journal(tmp_path / str(i) / "mesa/findings.jsonl")
        found.append([(f["quantity"], f["objective"], f["group"], f["value"]) for f in lines])
    assert found[0] == found[1]


def test_features_of_a_part_are_those_of_its_items(tmp_path):
    """With base alone listed the readout is the witness; the reference has none."""

    class Deep(toy.ToyModel):
        def __init__(self):
            super().__init__()
            self.net = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.ReLU(), torch.nn.Linear(16, 4))

    torch.manual_seed(0)
    mesa = toy.monitor(shifted={"rare": LoaderDistribution("val", where=rare)}, proxies=[])
    toy.fit(tmp_path, mesa, model=Deep(), val_dataloaders=val(), max_epochs=2)
    (readout,) = (f for f in mesa.run.last[0].findings if f.quantity == "readout")
    assert (readout.distribution, readout.n) == ("rare", 200)


def test_it_can_be_written_in_a_configuration(tmp_path):
    config = {
        "base": {"class_path": "lightning_mesa.Matches", "init_args": {"target": "y"}},
        "proxies": [{"class_path": "lightning_mesa.Matches", "init_args": {"target": "z"}}],
        "inputs": "x",
        "shifted": {
            "rare": {"class_path": "lightning_mesa.LoaderDistribution",
                     "init_args": {"source": "val", "where": {"rare": True}}},
            "conflict": {"_target_": "lightning_mesa.LoaderDistribution", "source": "val", "where": "conflict"},
            "function": {"_target_": "lightning_mesa.LoaderDistribution", "source": "val",
                         "where": "importable.data.digit"},
        },
    }  # fmt: skip
    mesa = MesaMonitor.from_config(config, allow=["importable"])
    assert mesa.shifted["function"].where is data.digit
    del mesa.shifted["function"]
    trainer = toy.fit(tmp_path, mesa, val_dataloaders=val(), max_epochs=1)
    assert trainer.callback_metrics["mesa/rare/n"] == 200


def broken(batch):
    return batch["x"].sum(1)


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ({"rare": 7}, "distribution 'part' is empty: there is no item where {'rare': 7} holds to look at"),
        ({"nothing": 1}, "where: 'nothing': the batch has no key 'nothing'"),
        (broken, r"where must give \[64\] bool, one for each item, not \[64\] of type torch.float32"),
        (len, r"where must give \[64\] bool, one for each item, not \[\]"),
    ],
)
def test_a_predicate_that_cannot_be_right_is_refused_before_training(tmp_path, where, message):
    with pytest.raises(ConfigurationError, match=message):
        toy.fit(tmp_path, toy.monitor(shifted={"part": LoaderDistribution("val", where=where)}), val_dataloaders=val())


@pytest.mark.parametrize("where", [3, {}, "rare", []])
def test_what_is_no_predicate_is_refused_at_once(where):
    with pytest.raises(ConfigurationError, match=r"where must be 'conflict', a mapping .*, or a function"):
        LoaderDistribution("val", where=where)


def test_conflict_needs_choices_to_disagree_on(tmp_path):
    mesa = toy.monitor(shifted={"conflict": LoaderDistribution("val", where="conflict")}, proxies=[])
    with pytest.raises(ConfigurationError, match="where='conflict' chooses the items on which base and a proxy"):
        toy.fit(tmp_path, mesa, val_dataloaders=val())


def test_items_that_are_shared_are_not_fresh(tmp_path):
    shared = {"rare": LoaderDistribution("val", where=rare, data_regime="fresh")}
    with pytest.raises(
        ConfigurationError, match="'val' and 'rare' share their items, and evidence from 'rare' adds up"
    ):
        toy.fit(tmp_path, toy.monitor(shifted=shared), val_dataloaders=val())
