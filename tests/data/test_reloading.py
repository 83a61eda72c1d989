"""``reload_dataloaders_every_n_epochs``: looks read the loaders of their epoch."""

import pytest

import toy
from lightning_mesa import read_journal
from lightning_mesa.callbacks import run
from namespace import pl


class Data(pl.LightningDataModule):
    """The k-th validation set and those that go with it have 40 k items."""

    def __init__(self):
        super().__init__()
        self.k, self.asked = 0, 0

    def train_dataloader(self):
        return toy.loader(64)

    def val_dataloader(self):
        self.k += 1
        return toy.loader(40 * self.k, seed=self.k)

    def apart(self):
        self.asked += 1
        return toy.loader(40 * self.k, confounded=False, seed=50 + self.k)

    def several(self):
        return {f"s{i}": self.apart() for i in range(2)}

    def other_names(self):
        self.asked += 1
        return {f"epoch{self.k}": toy.loader(40, confounded=False, seed=2)}


def looked_at(folder, **options):
    """Distribution -> numbers of items, look by look; and how often each was asked for."""
    data = Data()
    monitor = {"shifted": {"apart": "datamodule.apart"}} | {
        k: options.pop(k) for k in ("shifted", "every_n_steps") if k in options
    }
    mesa = toy.monitor(**monitor)
    toy.fit(folder, mesa, datamodule=data, **{"max_epochs": 4, "reload_dataloaders_every_n_epochs": 1} | options)
    found: dict = {}
    for line in read_journal(folder / "mesa/findings.jsonl"):
        if line["quantity"] == "score" and line["objective"] == "y":
            found.setdefault(line["distribution"], []).append(line["n"])
    return found, data, mesa


def test_every_look_reads_the_loaders_of_its_epoch(tmp_path):
    """The first two looks are both in the first epoch."""
    found, data, _ = looked_at(tmp_path)
    assert found == {"val": [40, 40, 80, 120, 160], "apart": [40, 40, 80, 120, 160]}
    assert data.k == 4, "Lightning asks as often as without us"
    assert data.asked == 4


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"reload_dataloaders_every_n_epochs": 0}, [40] * 5),
        ({"reload_dataloaders_every_n_epochs": 2}, [40, 40, 40, 80, 80]),
        ({"reload_dataloaders_every_n_epochs": 3}, [40, 40, 40, 40, 80]),
        ({"check_val_every_n_epoch": 2}, [40, 80, 120]),
        ({"num_sanity_val_steps": 0}, [40, 40, 80, 120, 160]),
        # Two steps an epoch: these looks come before the validation that reloads.
        ({"every_n_steps": 2, "max_epochs": 3}, [40, 40, 40, 80]),
    ],
)
def test_they_are_found_anew_as_often_as_lightning_reloads(tmp_path, options, expected):
    """Also between validations, and without a sanity check."""
    found, data, _ = looked_at(tmp_path, **options)
    bare = Data()
    plain = {key: value for key, value in options.items() if key != "every_n_steps"}
    toy.fit(tmp_path, datamodule=bare, **{"max_epochs": 4, "reload_dataloaders_every_n_epochs": 1} | plain)
    assert data.k == bare.k
    assert found["apart"] == found["val"] == expected


def test_functions_and_collections_are_asked_again_and_objects_stay(tmp_path):
    calls = []

    def made():
        calls.append(1)
        return toy.loader(10 * len(calls), confounded=False, seed=2)

    shifted = {"made": made, "all": "datamodule.several", "fixed": toy.loader(30, confounded=False, seed=2)}
    found, _, _ = looked_at(tmp_path, shifted=shifted, max_epochs=2)
    assert found["made"] == [10, 10, 20]
    assert found["all.s0"] == found["all.s1"] == [40, 40, 80]
    assert found["fixed"] == [30, 30, 30]


def test_other_names_than_before_end_the_monitor_and_not_the_training(tmp_path):
    with pytest.warns(
        UserWarning, match="loaders of epoch 1 are val, s.epoch2, and those before were val, s.epoch1: giv"
    ):
        _, data, mesa = looked_at(tmp_path, shifted={"s": "datamodule.other_names"})
    assert mesa.disabled
    assert data.trainer.current_epoch == 4


def test_it_is_said_at_the_start_and_only_where_loaders_are_reloaded(tmp_path, monkeypatch):
    said: list[str] = []
    monkeypatch.setattr(run, "rank_zero_info", said.append)
    looked_at(tmp_path, max_epochs=1)
    assert any("found anew with the trainer's loaders (reload_dataloaders_every_n_epochs=1)" in line for line in said)
    said.clear()
    looked_at(tmp_path, max_epochs=1, reload_dataloaders_every_n_epochs=0)
    assert not any("anew" in line for line in said)


def test_what_cannot_be_found_any_more_is_an_error_inside_the_monitor(tmp_path):
    class Fails(Data):
        def apart(self):
            if self.k > 1:
                raise OSError("the disk is full")
            return super().apart()

    mesa = toy.monitor(shifted={"apart": "datamodule.apart"})
    with pytest.warns(UserWarning, match=r"datamodule.apart\(\) failed with OSError: the disk is full"):
        trainer = toy.fit(tmp_path, mesa, datamodule=Fails(), reload_dataloaders_every_n_epochs=1, max_epochs=3)
    assert trainer.current_epoch == 3
