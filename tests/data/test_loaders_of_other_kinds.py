"""Whatever Lightning takes as a loader is looked at, and what cannot be is refused with the remedy."""

from contextlib import nullcontext
from itertools import islice

import pytest
import torch
from torch.utils.data import DataLoader, IterableDataset

import toy
from lightning_mesa import ConfigurationError, LoaderDistribution, MesaWarning, read_journal
from lightning_mesa.callbacks import run
from lightning_mesa.callbacks.compat import find, loaders_in
from lightning_mesa.callbacks.session import Session
from lightning_mesa.data import items
from lightning_mesa.data.distributions import named_distributions
from lightning_mesa.observe.loaders import Batches
from namespace import part, pl

CombinedLoader = part("utilities").CombinedLoader
DATA = toy.ToyData(64, confounded=False, seed=2)


class Rows:
    """Map style by its two methods alone."""

    def __len__(self):
        return len(DATA)

    def __getitem__(self, i):
        return DATA[i]


class Web:
    """Any iterable of batches; counts how often it is iterated."""

    def __init__(self):
        self.epoch = 0

    def __iter__(self):
        self.epoch += 1
        return iter(DataLoader(DATA, 16))


class WebLoader(IterableDataset):
    """As webdataset's: a stream by its class, which gives batches."""

    def __iter__(self):
        return iter(DataLoader(DATA, 16))


class Named:
    """As a set of datasets by name."""

    def __init__(self, **entries):
        vars(self).update(entries)


def made():
    yield from DataLoader(DATA, 16)


KINDS = {
    "a loader": DataLoader(DATA, 16),
    "a dataset": DATA,
    "map style by protocol": Rows(),
    "a loader over it": DataLoader(Rows(), 16),
    "a list of items": [DATA[i] for i in range(64)],
    "a tuple of items": tuple(DATA[i] for i in range(64)),
    "a list of batches": list(DataLoader(DATA, 16)),
    "an iterable of batches": Web(),
    "a stream that gives batches": WebLoader(),
    "a loader over a list of batches": DataLoader(list(DataLoader(DATA, 16)), batch_size=None),
    "a generator function": made,
    "a function that returns an iterator": lambda: iter(DataLoader(DATA, 16)),
    "a function that returns an iterable": Web,
}


class Model(toy.ToyModel):
    def validation_step(self, batch, batch_idx, dataloader_idx=0):
        """None."""


def scores(folder, step=8):
    """Distribution -> number of items and mean score of base, at a step."""
    return {
        line["distribution"]: (line["n"], round(line["value"], 12))
        for line in read_journal(folder / "mesa/findings.jsonl")
        if line["quantity"] == "score" and line["objective"] == "y" and line["step"] == step
    }


def test_the_same_items_are_found_in_a_loader_of_every_kind(tmp_path):
    shifted = {f"d{i}": kind for i, kind in enumerate(KINDS.values())}
    trainer = toy.fit(tmp_path, toy.monitor(shifted=shifted), max_epochs=1)
    assert trainer.global_step == 8
    found = scores(tmp_path)
    assert {name: found[name] for name in shifted} == dict.fromkeys(shifted, found["d0"])
    assert found["d0"][0] == 64


def test_the_validation_data_may_be_any_iterable_of_batches_and_are_validated_as_without_us(tmp_path):
    """Lightning iterates it as often with the monitor as without."""
    epochs = []
    for callbacks in ([], [toy.monitor()]):
        val = Web()
        toy.fit(tmp_path, *callbacks, val_dataloaders=val, max_epochs=2)
        epochs.append(val.epoch)
    assert epochs[0] == epochs[1] > 0
    assert scores(tmp_path)["val"][0] == 64


class Remembers:
    """Batches in an order that depends on how often it was iterated, as the training does."""

    def __init__(self):
        self.epoch, self.at, self.data = 0, 0, toy.ToyData(128, confounded=True)

    def __iter__(self):
        self.epoch += 1
        self.at = 0
        order = torch.randperm(128, generator=torch.Generator().manual_seed(self.epoch)).tolist()
        while self.at < 128:
            self.at += 16
            yield torch.utils.data.default_collate([self.data[i] for i in order[self.at - 16 : self.at]])

    def __len__(self):
        return 8


@pytest.mark.parametrize("every", [None, 3])
def test_training_on_a_stream_that_is_looked_at_too_is_bitwise_the_training_without_us(tmp_path, every):
    """Also where the look comes in the middle of an epoch, and the look after it reads the same items again."""
    trained = []
    for callbacks in ([], [toy.monitor(reference="model.stream", every_n_steps=every)]):
        torch.manual_seed(0)
        model = Model()
        model.stream = Remembers()
        toy.fit(tmp_path, *callbacks, model=model, train_dataloaders=model.stream, max_epochs=3)
        trained.append((model.net.weight.detach().clone(), model.stream.epoch, model.stream.at))
    assert torch.equal(trained[0][0], trained[1][0])
    assert trained[0][1:] == trained[1][1:]
    assert {n for n, _ in [scores(tmp_path, step)["stream"] for step in ((3, 9, 24) if every else (8, 16, 24))]} == {
        128
    }


def test_the_comparison_notices_a_stream_that_is_not_put_back(tmp_path, monkeypatch):
    """One that the model does not hold, whose own state is kept in any case."""

    def trained(*, watched):
        torch.manual_seed(0)
        model, stream = Model(), Remembers()
        callbacks = [toy.monitor(reference=stream)] if watched else []
        toy.fit(tmp_path, *callbacks, model=model, train_dataloaders=stream, max_epochs=2)
        return model.net.weight.detach()

    bare = trained(watched=False)
    assert torch.equal(trained(watched=True), bare)
    monkeypatch.setattr(items, "positions", lambda *_: nullcontext())
    with pytest.warns(MesaWarning, match=r"a look cannot put back train_dataloader\.epoch"):
        disturbed = trained(watched=True)
    assert not torch.equal(disturbed, bare)


# --- Several loaders under one name ------------------------------------------------------------------------------


class Data(pl.LightningDataModule):
    held = {"a": DataLoader(DATA, 16), "b v.2": Rows()}
    nested = {"deep": [DataLoader(DATA, 16), {"x": DATA}], "own": LoaderDistribution(DATA, where={"z": 1})}
    nothing = None
    empty: tuple = ()

    def train_dataloader(self):
        return toy.loader(64)

    def val_dataloader(self):
        return toy.loader(32, seed=1)

    def test_dataloader(self):
        return [toy.loader(16, seed=3), DataLoader(DATA, 16)]

    def combined(self):
        return CombinedLoader({"a": DataLoader(DATA, 16), "b": toy.loader(16)}, "max_size")

    def fails(self):
        return self.test_set


@pytest.mark.parametrize(
    ("shifted", "names"),
    [
        ("datamodule.test_dataloader", ["test_dataloader.0", "test_dataloader.1"]),
        ("datamodule.test_dataloader.1", ["test_dataloader.1"]),
        ({"apart": "datamodule.test_dataloader"}, ["apart.0", "apart.1"]),
        ("datamodule.held", ["held.a", "held.b_v.2"]),
        (["datamodule.held.a", "datamodule.held.b_v.2"], ["held.a", "held.b_v.2"]),
        ("datamodule.nested", ["nested.deep.0", "nested.deep.1.x", "nested.own"]),
        ("datamodule.nested.deep.1", ["nested.deep.1.x"]),
        ("datamodule.combined", ["combined.a", "combined.b"]),
        ("datamodule.combined.b", ["combined.b"]),
        ({"m": {"x": DATA, "y": "datamodule.test_dataloader.1", "z": lambda: DATA}}, ["m.x", "m.y", "m.z"]),
        ({"m": [DATA, DataLoader(DATA, 16)]}, ["m.0", "m.1"]),
        (CombinedLoader([DataLoader(DATA, 16)], "sequential"), ["shifted.0"]),
    ],
)
def test_each_loader_of_a_collection_is_a_distribution_and_each_can_be_named(monkeypatch, tmp_path, shifted, names):
    found = []

    def stop(self, *args, **kwargs):
        found.extend(name for name, role in self.roles.items() if role == "shifted")
        raise KeyboardInterrupt

    monkeypatch.setattr(Session, "measure", stop)
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        toy.fit(tmp_path, toy.monitor(shifted=shifted), model=Model(), datamodule=Data())
    assert found == names


@pytest.mark.parametrize("mode", ["sequential", "min_size", "max_size_cycle", "max_size"])
def test_loaders_that_lightning_combines_for_validation_have_names(tmp_path, mode):
    val = CombinedLoader({"iid": toy.loader(32, seed=1), "oods": [DataLoader(DATA, 16), Web()]}, mode)
    mesa = toy.monitor(reference="val/iid", shifted=["val/oods.0", "val/oods.1"])
    toy.fit(tmp_path, mesa, model=Model(), val_dataloaders=val, max_epochs=1)
    found = scores(tmp_path)
    assert found["val.iid"][0] == 32
    assert found["val.oods.0"] == found["val.oods.1"]
    assert found["val.oods.0"][0] == 64


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("datamodule.test_dataloader.2", "no distribution 'datamodule.test_dataloader.2': .*test_dataloader has 0, 1"),
        ("datamodule.held.c", r"no distribution 'datamodule.held.c': datamodule.held has a, b_v.2"),
        ("datamodule.nested.deep.1.y", "datamodule.nested.deep.1 has x"),
        ("datamodule.missing.1", "no distribution 'datamodule.missing.1': a name is"),
        ("datamodule.nothing", "no distribution 'datamodule.nothing': a name is"),
        ("datamodule.empty", "distribution 'shifted' is an empty tuple: there is no loader in it"),
        (
            "datamodule.fails",
            r"datamodule.fails\(\) failed with AttributeError: .* Lightning calls setup\('fit'\) alone",
        ),
        ("datamodule.fails.1", r"datamodule.fails\(\) failed with AttributeError"),
    ],
)
def test_a_name_that_leads_nowhere_is_refused_with_what_there_is(tmp_path, name, message):
    with pytest.raises(ConfigurationError, match=message) as caught:
        toy.fit(tmp_path, toy.monitor(shifted={"shifted": name}), model=Model(), datamodule=Data())
    assert len(str(caught.value).splitlines()) <= 4


def test_two_keys_that_become_one_name_are_refused():
    with pytest.raises(ConfigurationError, match="'a b', 'a_b' get the same name"):
        loaders_in({"a b": DATA, "a_b": DATA})


def test_a_name_that_a_collection_takes_twice_is_refused(tmp_path):
    shifted = {"m": {"x": DATA}, "m.x": DATA}
    with pytest.raises(ConfigurationError, match=r"two distributions are named 'm\.x'"):
        toy.fit(tmp_path, toy.monitor(shifted=shifted), model=Model())


def test_the_longest_key_is_meant_where_keys_have_dots():
    data = type("Trainer", (), {"datamodule": Named(sets={"a": {"b": 1}, "a.b": 2})})
    assert find(data, None, "datamodule.sets.a.b") == 2


@pytest.mark.parametrize("spec", [list(DataLoader(DATA, 16)), [DATA[0], DATA[1]], (DATA[0],)])
def test_a_list_of_data_is_one_distribution_and_not_several(spec):
    (distribution,) = named_distributions(spec, "shifted").values()
    assert distribution.source is spec


# --- What is refused ---------------------------------------------------------------------------------------------

REFUSED = {
    "a generator": (lambda: made(), "generator is an iterator: .* Pass a function that makes one"),
    "an iterator of a list": (lambda: iter([DATA[0]]), "list_iterator is an iterator"),
    "a running loader": (lambda: iter(DataLoader(DATA, 16)), "is an iterator: every look reads it from its start"),
    "a list of tensors": (
        lambda: [torch.ones(50, 8)] * 3,
        r"a list of 3 Tensor may hold items or batches, .*batch_siz",
    ),
    "tokens and tags": (lambda: [(torch.ones(9), torch.ones(9))], "a list of 1 tuple may hold items or batches"),
    "a tensor": (lambda: torch.ones(50, 8), "Tensor is given: a distribution is a DataLoader"),
    "a batch": (lambda: {"x": torch.ones(50, 8), "y": torch.ones(50)}, "Tensor is given: a distribution is a DataLo"),
    "a number": (lambda: 3, "int is given: a distribution is"),
    "a text": (lambda: b"text", "bytes is given: a distribution is"),
    "an object": (lambda: object(), "object is given: a distribution is"),
    "a model": (lambda: torch.nn.Linear(1, 1), "Linear is given: a distribution is"),
    "a class that needs arguments": (lambda: toy.ToyModel.load_from_checkpoint, r"failed with TypeError"),
    "a function that fails": (lambda: lambda: 1 / 0, r"<lambda>\(\) failed with ZeroDivisionError: division by zero"),
    "a loader that drops everything": (lambda: DataLoader(DATA, 65, drop_last=True), "64 items make no batch of 65"),
}


@pytest.mark.parametrize(("make", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_what_is_no_distribution_is_refused_before_training_and_without_printing_data(tmp_path, make, message):
    with pytest.raises(ConfigurationError, match=message) as caught:
        toy.fit(tmp_path, toy.monitor(shifted={"apart": make()}), model=Model())
    assert "tensor(" not in str(caught.value)
    assert len(str(caught.value).splitlines()) <= 4
    assert len(str(caught.value)) < 400


def test_validation_data_that_can_be_read_once_are_refused_and_not_moved(tmp_path):
    """Lightning takes them."""
    once = iter(DataLoader(DATA, 16))
    with pytest.raises(ConfigurationError, match="_SingleProcessDataLoaderIter is an iterator: every look reads it"):
        toy.fit(tmp_path, toy.monitor(), val_dataloaders=once, num_sanity_val_steps=0)
    assert len(list(once)) == 4


def test_an_endless_iterable_is_refused_and_read_as_far_as_a_limit_says(tmp_path, monkeypatch):
    monkeypatch.setattr(items, "ENDLESS", 1_000)

    class Endless:
        def __iter__(self):
            while True:
                yield from DataLoader(DATA, 64)

    with pytest.raises(ConfigurationError, match=r"has no length and has given .* pass limit_batches="):
        toy.fit(tmp_path, toy.monitor(shifted={"apart": Endless()}), model=Model())
    toy.fit(tmp_path, toy.monitor(shifted={"apart": Endless()}, limit_batches=3), model=Model(), max_epochs=1)
    assert scores(tmp_path)["apart"][0] == 3 * 64


@pytest.mark.parametrize("kind", ["an iterable of batches", "a stream that gives batches", "a generator function"])
def test_the_batches_are_as_the_user_makes_them(kind):
    found = LoaderDistribution(KINDS[kind]).resolve(lambda name: None)
    assert isinstance(found, Batches)
    assert [len(batch["y"]) for batch in islice(found, 2)] == [16, 16]


# --- Batches that the model needs full ---------------------------------------------------------------------------


class NeedsFull(Model):
    def __init__(self):
        super().__init__()
        self.state = torch.nn.Parameter(torch.zeros(10, toy.CHOICES))

    def forward(self, x):
        return self.net(x) + self.state


def test_a_model_that_needs_full_batches_gets_them_and_it_is_said(tmp_path, monkeypatch):
    said: list[str] = []
    monkeypatch.setattr(run, "rank_zero_info", said.append)
    full = {"batch_size": 10, "drop_last": True}
    toy.fit(
        tmp_path,
        toy.monitor(shifted={"apart": DataLoader(DATA, **full)}),
        model=NeedsFull(),
        train_dataloaders=toy.loader(64, **full),
        val_dataloaders=toy.loader(45, seed=1, **full),
        max_epochs=1,
    )
    assert {name: n for name, (n, _) in scores(tmp_path, 6).items()} == {"val": 40, "apart": 60}
    assert any("apart without a last batch that is not full (drop_last)" in line for line in said)
