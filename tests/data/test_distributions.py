"""Naming and finding distributions."""

import pytest
import torch
from torch.utils.data import DataLoader

import toy
from lightning_mesa import ConfigurationError, LoaderDistribution, read_journal
from lightning_mesa.data.distributions import RESERVED, named_distributions
from namespace import part, pl

DATA = toy.ToyData(64, confounded=False, seed=2)
LOADER = DataLoader(DATA, 16)


class Data(pl.LightningDataModule):
    """Two validation loaders and distributions of its own."""

    attribute = DATA

    def train_dataloader(self):
        return toy.loader(64)

    def val_dataloader(self):
        return [toy.loader(32, seed=1), DataLoader(DATA, 16)]

    def apart_dataloader(self):
        return DataLoader(DATA, 16)


class Model(toy.ToyModel):
    apart = DATA

    def validation_step(self, batch, batch_idx, dataloader_idx=0):
        super().validation_step(batch, batch_idx)

    def apart_dataloader(self):
        return LOADER


class Offers(Model):
    def mesa_distributions(self):
        return {"offered": LOADER}


class OffersData(Data):
    def mesa_distributions(self):
        return {"from_data": DATA, "late": "datamodule.apart_dataloader"}


def looked_at(folder, *, model=None, datamodule=None, **options):
    """Name -> (role, number of items) of the distributions that a run looked at."""
    loaders = {"datamodule": datamodule} if datamodule else {}
    toy.fit(folder, toy.monitor(**options), model=model or Model(), max_epochs=1, **loaders)
    lines = read_journal(folder / "mesa/findings.jsonl")
    return {
        line["distribution"]: (line["role"], line["n"])
        for line in lines
        if line["quantity"] == "score" and line["objective"] == "y"
    }


# --- naming -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "names"),
    [
        (LOADER, ["shifted"]),
        ([LOADER, DATA], ["shifted.0", "shifted.1"]),
        ((LOADER,), ["shifted.0"]),
        ({"a": LOADER, "b": DATA}, ["a", "b"]),
        ({3: LOADER}, ["3"]),
        ("val/1", ["val.1"]),
        ("datamodule.recolored", ["recolored"]),
        (["model.a", "datamodule.b.c", LOADER], ["a", "b.c", "shifted.2"]),
        (LoaderDistribution("val"), ["val"]),
        (LoaderDistribution(LOADER), ["shifted"]),
    ],
)
def test_one_a_list_or_a_mapping(spec, names):
    """Unnamed ones are called after the string that finds them, else numbered where there are several."""
    named = named_distributions(spec, "shifted")
    assert list(named) == names
    assert all(isinstance(distribution, LoaderDistribution) for distribution in named.values())


def test_a_loader_distribution_is_taken_as_it_is():
    distribution = LoaderDistribution(DATA, batch_size=7)
    assert named_distributions({"a": distribution}, "shifted")["a"] is distribution


@pytest.mark.parametrize("spec", [[], {}, ()])
def test_none_at_all_is_refused(spec):
    with pytest.raises(ConfigurationError, match="no shifted distribution is given: pass at least one"):
        named_distributions(spec, "shifted")


@pytest.mark.parametrize("name", RESERVED)
def test_a_reserved_name_is_refused(name):
    with pytest.raises(ConfigurationError, match=f"shifted distribution '{name}' is reserved"):
        named_distributions({name: LOADER}, "shifted")


def test_a_name_given_twice_is_refused():
    with pytest.raises(ConfigurationError, match="two shifted distributions are named 'a': pass a mapping"):
        named_distributions(["model.a", "datamodule.a"], "shifted")


# --- resolving ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("source", [LOADER, DATA, lambda: LOADER, lambda: DATA])
def test_a_loader_a_dataset_or_a_factory_of_either_is_resolved(source):
    found = LoaderDistribution(source).resolve(lambda name: pytest.fail("no name was given"))
    assert found is LOADER or found is DATA


@pytest.mark.parametrize("found", [LOADER, DATA, lambda: LOADER])
def test_a_name_is_looked_up(found):
    assert LoaderDistribution("thing").resolve({"thing": found}.get) in (LOADER, DATA)


@pytest.mark.parametrize(
    "found", [None, 3, b"12", [1], torch.ones(3), {"x": torch.ones(3)}, [LOADER], lambda: None, lambda: "val"]
)
def test_anything_else_is_refused(found):
    with pytest.raises(
        ConfigurationError, match=r"'thing' gives .*: a distribution is a DataLoader, a Dataset, an iter"
    ):
        LoaderDistribution("thing").resolve(lambda name: found)


def test_a_factory_is_called_when_training_starts(tmp_path):
    """Not by the constructor; once a run."""
    calls = []

    def factory():
        calls.append(1)
        return LOADER

    mesa = toy.monitor(shifted={"made": factory})
    assert not calls
    toy.fit(tmp_path, mesa)
    assert calls == [1]


RESOLVED = {
    "a DataLoader": (LOADER, "shifted"),
    "a Dataset": (DATA, "shifted"),
    "a factory": (lambda: LOADER, "shifted"),
    "a LoaderDistribution": (LoaderDistribution(DATA, batch_size=5), "shifted"),
    "a list": ([LOADER], "shifted.0"),
    "the second validation loader": ("val/1", "val.1"),
    "an attribute of the DataModule": ("datamodule.attribute", "attribute"),
    "a method of the DataModule": ("datamodule.apart_dataloader", "apart_dataloader"),
    "an attribute of the model": ("model.apart", "apart"),
    "a method of the model": ("model.apart_dataloader", "apart_dataloader"),
    "an attribute of an attribute": ("model.trainer.datamodule.attribute", "trainer.datamodule.attribute"),
}


@pytest.mark.parametrize(("spec", "name"), RESOLVED.values(), ids=RESOLVED.keys())
def test_every_kind_of_distribution_is_found_when_training_starts(tmp_path, spec, name):
    """Beside ``"val"``, the first validation loader, as the reference."""
    found = looked_at(tmp_path, datamodule=Data(), shifted=spec)
    assert found == {"val": ("reference", 32), name: ("shifted", 64)}


def test_the_reference_may_be_any_of_them(tmp_path):
    found = looked_at(tmp_path, datamodule=Data(), reference={"r": toy.loader(40), "s": "val/0"}, shifted=LOADER)
    assert found == {"r": ("reference", 40), "s": ("reference", 32), "shifted": ("shifted", 64)}


def test_several_validation_loaders_may_have_names(tmp_path):
    """Lightning takes a mapping; ``"val/KEY"`` is its entry."""

    class Named(Data):
        def val_dataloader(self):
            return part("utilities").CombinedLoader({"in": toy.loader(32, seed=1), "out of": LOADER}, "sequential")

    found = looked_at(tmp_path, datamodule=Named(), reference="val/in", shifted="val/out_of")
    assert found == {"val.in": ("reference", 32), "val.out_of": ("shifted", 64)}


def test_a_validation_loader_that_is_not_there_is_refused_with_those_that_are(tmp_path):
    with pytest.raises(ConfigurationError, match="no validation loader 'val/2': there are val/0, val/1"):
        looked_at(tmp_path, datamodule=Data(), reference="val/2")


@pytest.mark.parametrize(
    ("model", "datamodule", "names"),
    [
        (Offers, Data, {"offered"}),
        (Model, OffersData, {"from_data", "late"}),
        (Offers, OffersData, {"from_data", "late"}),
    ],
)
def test_distributions_are_offered_by_the_datamodule_or_the_model(tmp_path, model, datamodule, names):
    """The DataModule first: it knows the data."""
    found = looked_at(tmp_path, model=model(), datamodule=datamodule(), shifted=None)
    assert found == {"val": ("reference", 32)} | dict.fromkeys(names, ("shifted", 64))


def test_what_is_passed_goes_before_what_is_offered(tmp_path):
    assert set(looked_at(tmp_path, model=Offers(), shifted={"passed": LOADER})) == {"val", "passed"}


def test_a_distribution_may_have_inputs_and_forward_of_its_own(tmp_path):
    """Other keys than the reference's."""

    class Renamed(torch.utils.data.Dataset):
        def __len__(self):
            return len(DATA)

        def __getitem__(self, i):
            item = DATA[i]
            return {"picture": item["x"], "y": item["y"], "z": item["z"]}

    shifted = {
        "renamed": LoaderDistribution(Renamed(), inputs="picture"),
        "called": LoaderDistribution(Renamed(), forward=lambda model, batch: model.net(batch["picture"])),
        "plain": DATA,
    }
    found = looked_at(tmp_path, shifted=shifted)
    assert found == {"val": ("reference", 400)} | dict.fromkeys(shifted, ("shifted", 64))
    values = {
        (line["distribution"], line["step"]): line["value"]
        for line in read_journal(tmp_path / "mesa/findings.jsonl")
        if line["quantity"] == "score" and line["objective"] == "y"
    }
    assert values["renamed", 8] == values["called", 8] == values["plain", 8]
