"""Data as they come: labels that are missing or have names, groups and ids by functions, through a whole fit."""

import pytest
import torch
from torch.utils.data import DataLoader, Dataset, Subset

import toy
from lightning_mesa import ConfigurationError, LoaderDistribution, Matches, MesaMonitor, NegativeLoss, read_journal
from lightning_mesa.callbacks import session
from lightning_mesa.probes import Decodability

NAMES = ["cat", "dog", "owl", "bee"]
KNOWN = 269
DATA = toy.ToyData(400, confounded=False, seed=2)


class Labelled(Dataset):
    """The shifted items with a name for y, a site, an id, and no label where ``unknown`` says so."""

    def __init__(self, unknown, sites=4):
        self.unknown, self.sites = unknown, sites

    def __len__(self):
        return len(DATA)

    def __getitem__(self, i):
        item = DATA[i]
        name = "" if self.unknown(i) else NAMES[int(item["y"])]
        y = torch.tensor(-100) if self.unknown(i) else item["y"]
        return item | {"y": y, "name": name, "site": i % self.sites, "id": f"item {i}"}


def some(i):
    """The first two batches whole, and every fifth item."""
    return i < 64 or i % 5 == 0


def known(batch):
    return batch["y"] >= 0


def site(batch):
    return batch["site"] % 2


def turned(batch):
    """A cue."""
    return batch | {"x": batch["x"] * -1}


def gathered(batch, outputs):
    """A loss that cannot take a label of -100."""
    return -outputs.log_softmax(1).gather(1, batch["y"][:, None])[:, 0]


def findings(folder, mesa, **options):
    toy.fit(folder, mesa, max_epochs=1, **options)
    lines = read_journal(folder / "mesa/findings.jsonl")
    return [(f["step"], f["quantity"], f["objective"], f["group"], f["value"], f["n"]) for f in lines]


ALIKE = {
    "ignored": ({"base": Matches("y", ignore_index=-100)}, None),
    "ignored by name": ({"base": Matches("name", "y", classes=NAMES, ignore_index="")}, None),
    "ignored by a proxy": ({"base": Matches("z", "y"), "proxies": [Matches("y", "z", ignore_index=-100)]}, None),
    "left out by a function": ({}, known),
    "left out, of a loss": ({"base": NegativeLoss(gathered, (0, 9), "y")}, known),
}


@pytest.mark.parametrize("case", ALIKE)
def test_items_without_a_label_are_as_if_they_were_not_there(tmp_path, case):
    """Groups, the cue, what probes read and ids included; and no error where they are left out."""
    options, where = ALIKE[case]
    items, found = Labelled(some), []
    alone = Subset(items, [i for i in range(400) if not some(i)])
    for i, (data, chosen) in enumerate([(items, where), (alone, None)]):
        shifted = {"apart": LoaderDistribution(DataLoader(data, 32), where=chosen, ids="id")}
        probes = [Decodability("net")]
        mesa = toy.monitor(shifted=shifted, groups={"s": site}, cue=turned,
                           reference=Labelled(lambda i: False), probes=probes, **options)  # fmt: skip
        found.append(findings(tmp_path / str(i), mesa))
        assert mesa.run.last is not None
    assert {f[5] for f in found[0] if f[1] == "gap"} == {KNOWN}
    assert found[0] == found[1]


def test_a_missing_label_is_refused_with_the_remedy_and_the_remedy_works(tmp_path):
    shifted = {"apart": DataLoader(Labelled(some), 32)}
    with pytest.raises(
        ConfigurationError, match=r"'apart': objective 'y': targets range from -100 .*ignore_index=-100"
    ):
        toy.fit(tmp_path, toy.monitor(shifted=shifted))
    trainer = toy.fit(tmp_path, toy.monitor(shifted=shifted, base=Matches("y", ignore_index=-100)), max_epochs=1)
    assert trainer.callback_metrics["mesa/apart/n"] == KNOWN
    assert trainer.callback_metrics["mesa/val/n"] == 400


def test_data_without_any_label_are_refused(tmp_path):
    mesa = toy.monitor(shifted={"apart": Labelled(lambda i: True)}, base=Matches("y", ignore_index=-100))
    with pytest.raises(ConfigurationError, match="'apart' is empty: there is no item with a label of 'y' to look at"):
        toy.fit(tmp_path, mesa)


def test_a_resumed_run_may_find_none_of_them_in_its_first_batch(tmp_path):
    """What is read before training goes on is one batch, of which all items may be left out."""

    def fit(**options):
        shifted = {"apart": LoaderDistribution(DataLoader(Labelled(some), 32), where=known)}
        return toy.fit(tmp_path, toy.monitor(shifted=shifted), **options)

    fit(max_epochs=1).save_checkpoint(tmp_path / "one.ckpt")
    trainer = fit(max_epochs=2, ckpt_path=tmp_path / "one.ckpt")
    assert trainer.callback_metrics["mesa/apart/n"] == KNOWN
    assert trainer.callback_metrics["mesa/disabled"] == 0


# --- groups and ids -----------------------------------------------------------------------------------------------


SHUFFLED = torch.randperm(400, generator=torch.Generator().manual_seed(0)).tolist()


@pytest.mark.parametrize("order", [range(400), SHUFFLED], ids=["sorted", "shuffled"])
@pytest.mark.parametrize("batch_size", [4, 400])
def test_groups_are_counted_over_the_distribution_and_not_by_batch(tmp_path, order, batch_size):
    """Whatever the order of the items: 64 labels are watched, 65 refused."""
    for sites in (64, 65):
        shifted = {"apart": DataLoader(Subset(Labelled(lambda i: False, sites), order), batch_size)}
        mesa = toy.monitor(shifted=shifted, groups="site", reference=Labelled(lambda i: False, 64))
        if sites == 64:
            trainer = toy.fit(tmp_path, mesa, fast_dev_run=False, max_epochs=1, limit_train_batches=1)
            assert sum("/apart/group/site." in name for name in trainer.callback_metrics) == 64
        else:
            with pytest.raises(
                ConfigurationError, match=r"group 'site' has more than 64 different labels on 'apart' \("
            ):
                toy.fit(tmp_path, mesa)


def test_groups_are_counted_over_all_processes(tmp_path, monkeypatch):
    """Another one has seen other labels; each of the two no more than 64."""

    def gather(trainer, value):
        return [value, (value[0], {"apart": {f"site.{i}" for i in range(60, 110)}})]

    monkeypatch.setattr(session, "gather", gather)
    mesa = toy.monitor(shifted={"apart": Labelled(lambda i: False, 60)}, groups="site",
                       reference=Labelled(lambda i: False))  # fmt: skip
    with pytest.raises(ConfigurationError, match="'site' has more than 64 different labels on 'apart'"):
        toy.fit(tmp_path, mesa)


def test_functions_are_named_in_a_configuration(tmp_path):
    config = {
        "base": {"class_path": "lightning_mesa.Matches",
                 "init_args": {"target": "name", "classes": NAMES, "ignore_index": ""}},
        "proxies": [{"class_path": "lightning_mesa.Matches", "init_args": {"target": "z"}}],
        "shifted": {"apart": {"class_path": "lightning_mesa.LoaderDistribution",
                              "init_args": {"source": "val", "ids": "importable.data:number"}}},
        "groups": {"of": "importable.data:digit", "site": "site"},
        "inputs": "x",
    }  # fmt: skip
    config["reference"] = config["shifted"]["apart"]
    mesa = MesaMonitor.from_config(config, allow=["importable"])
    trainer = toy.fit(tmp_path, mesa, val_dataloaders=DataLoader(Labelled(some), 50), max_epochs=1)
    named = {name.split("/")[3] for name in trainer.callback_metrics if "/apart/group/" in name}
    assert named == {f"of.{i}" for i in range(4)} | {f"site.{i}" for i in range(4)}
    (gap,) = (f for f in mesa.run.last[0].findings if f.quantity == "gap")
    assert (gap.value, gap.n) == (0, KNOWN)  # the same items, in pairs
