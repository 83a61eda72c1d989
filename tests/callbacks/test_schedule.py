"""When the monitor looks, and whether it knew beforehand how often."""

from datetime import timedelta

import pytest
from torch.utils.data import DataLoader, IterableDataset

import toy
from lightning_mesa import ConfigurationError, read_journal
from namespace import VERSION, Callback, EarlyStopping


class Stream(IterableDataset):
    """Toy items without a length; without an end where none is given."""

    def __init__(self, items=None):
        self.items = items

    def __iter__(self):
        data = toy.ToyData(64, confounded=True)
        i = 0
        while self.items is None or i < self.items:
            yield data[i % len(data)]
            i += 1


class StopAt(Callback):
    """The user's own reason to stop."""

    def __init__(self, step):
        self.step = step

    def on_train_batch_end(self, trainer, *_):
        trainer.should_stop = trainer.should_stop or trainer.global_step >= self.step


def fit(folder, *callbacks, every_n_steps=None, **options):
    """Fit epochs of eight batches; the monitor, and the steps it looked at."""
    mesa = toy.monitor(every_n_steps=every_n_steps, limit_batches=1)
    loaders = {"train_dataloaders": toy.loader(64, batch_size=8), "val_dataloaders": toy.loader(32)}
    toy.fit(folder, mesa, *callbacks, **loaders | options)
    return mesa, looks(folder)


def looks(folder):
    return list(dict.fromkeys(line["step"] for line in read_journal(folder / "mesa/findings.jsonl")))


AFTER_EACH_EPOCH = [0, 8, 16, 24]

KNOWN = {
    "after each validation": ({}, AFTER_EACH_EPOCH),
    "validation every second epoch": ({"check_val_every_n_epoch": 2, "max_epochs": 4}, [0, 16, 32]),
    "and the end where it has no validation": ({"check_val_every_n_epoch": 2}, [0, 16, 24]),
    "validation twice an epoch": ({"val_check_interval": 0.5}, [0, 4, 8, 12, 16, 20, 24]),
    "validation every three batches of an epoch": ({"val_check_interval": 3}, [0, 3, 6, 11, 14, 19, 22, 24]),
    "validation every five batches": (
        {"val_check_interval": 5, "check_val_every_n_epoch": None},
        [0, 5, 10, 15, 20, 24],
    ),
    "validation less than once an epoch": ({"val_check_interval": 12, "check_val_every_n_epoch": None}, [0, 12, 24]),
    "max_steps within an epoch": ({"max_steps": 12, "max_epochs": -1}, [0, 8, 12]),
    "max_steps at the end of an epoch": ({"max_steps": 16, "max_epochs": 9}, [0, 8, 16]),
    "max_epochs before max_steps": ({"max_steps": 100}, AFTER_EACH_EPOCH),
    "gradient accumulation": ({"accumulate_grad_batches": 2}, [0, 4, 8, 12]),
    "accumulation that does not divide the epoch": ({"accumulate_grad_batches": 3}, [0, 3, 6, 9]),
    "accumulation and max_steps": ({"accumulate_grad_batches": 3, "max_steps": 5, "max_epochs": -1}, [0, 3, 5]),
    "limit_train_batches": ({"limit_train_batches": 3}, [0, 3, 6, 9]),
    "overfit_batches": ({"overfit_batches": 2}, [0, 2, 4, 6]),
    "every five steps": ({"every_n_steps": 5}, [0, 5, 10, 15, 20, 24]),
    "every four steps, the last one at the end": ({"every_n_steps": 4}, [0, 4, 8, 12, 16, 20, 24]),
    "more steps between looks than the run has": ({"every_n_steps": 1000}, [0, 24]),
    "every five steps of two batches": ({"every_n_steps": 5, "accumulate_grad_batches": 2}, [0, 5, 10, 12]),
    "every five steps without validation": ({"every_n_steps": 5, "limit_val_batches": 0}, [0, 5, 10, 15, 20, 24]),
    "every fiftieth part without validation": ({"limit_val_batches": 0, "max_epochs": 15}, list(range(0, 121, 3))),
    "a run of fewer than fifty steps": ({"limit_val_batches": 0}, list(range(25))),
    "an endless loader with max_steps": (
        {"train_dataloaders": DataLoader(Stream(), 8), "max_steps": 10, "max_epochs": -1, "every_n_steps": 4},
        [0, 4, 8, 10],
    ),
    "an endless loader, validation every four": (
        {"train_dataloaders": DataLoader(Stream(), 8), "max_steps": 10, "max_epochs": -1, "val_check_interval": 4},
        [0, 4, 8, 10],
    ),
}


@pytest.mark.parametrize(("options", "steps"), KNOWN.values(), ids=KNOWN.keys())
def test_the_looks_are_those_planned(tmp_path, options, steps):
    """The steps looked at; the number of looks planned before the first is the number taken."""
    mesa, looked = fit(tmp_path, **options)
    assert looked == steps
    assert mesa.alarm.look == len(steps)
    assert mesa.alarm.looks == len(steps)


@pytest.mark.slow
def test_without_a_validation_loop_about_fifty_looks_are_taken(tmp_path):
    """However long the run: never more than fifty after the one before training."""
    mesa, looked = fit(tmp_path, max_epochs=26, limit_val_batches=0)  # 208 steps
    assert looked == [*range(0, 208, 5), 208]
    assert mesa.alarm.looks == len(looked)


BOUNDED = {
    "the user stops": ([StopAt(11)], {}),
    "EarlyStopping ends early": ([EarlyStopping("train/loss", patience=1, mode="max")], {"max_epochs": 20}),
    "a finite loader without a length": ([], {"train_dataloaders": DataLoader(Stream(64), 8)}),
    "more validations than steps": ([], {"val_check_interval": 1, "accumulate_grad_batches": 4}),
    "an end within an accumulation": (
        [],
        {"val_check_interval": 3, "accumulate_grad_batches": 5, "max_steps": 3, "max_epochs": -1},
    ),
    "max_time": ([], {"max_time": timedelta(milliseconds=1), "max_epochs": 100_000}),
}


@pytest.mark.parametrize(("callbacks", "options"), BOUNDED.values(), ids=BOUNDED.keys())
def test_the_plan_is_an_upper_bound_where_the_run_may_end_earlier(tmp_path, callbacks, options):
    mesa, looked = fit(tmp_path, *callbacks, **options)
    assert len(looked) >= 2
    assert mesa.alarm.look == len(looked) <= mesa.alarm.looks


UNKNOWN = {
    "max_epochs=-1": {"max_epochs": -1, "callbacks": [StopAt(11)]},
    "a loader without a length and max_time": {
        "train_dataloaders": DataLoader(Stream(), 8),
        "max_epochs": -1,
        "max_time": timedelta(minutes=10),
        "val_check_interval": 4,
        "callbacks": [StopAt(11)],
    },
    "every_n_steps and max_epochs=-1": {"max_epochs": -1, "every_n_steps": 4, "callbacks": [StopAt(11)]},
}
if VERSION >= (2, 6):  # older ones know no time interval
    UNKNOWN["validation by the clock"] = {
        "val_check_interval": timedelta(hours=1),
        "check_val_every_n_epoch": None,
        "max_epochs": 2,
        "callbacks": [],
    }


@pytest.mark.parametrize("options", UNKNOWN.values(), ids=UNKNOWN.keys())
def test_the_plan_is_none_where_the_length_cannot_be_known(tmp_path, options):
    options = dict(options)
    mesa, looked = fit(tmp_path, *options.pop("callbacks"), **options)
    assert mesa.alarm.looks is None
    assert mesa.alarm.look == len(looked) >= 2


@pytest.mark.parametrize("limits", [{"max_epochs": -1}, {"max_epochs": -1, "max_time": timedelta(minutes=10)}, {}])
def test_an_endless_loader_without_validation_needs_every_n_steps(tmp_path, limits):
    with pytest.raises(ConfigurationError, match="pass every_n_steps="):
        fit(tmp_path, StopAt(11), train_dataloaders=DataLoader(Stream(), 8), limit_val_batches=0, **limits)


def test_a_validation_loop_that_is_never_reached_leaves_no_run_unwatched(tmp_path):
    """An endless loader is never validated on with the default val_check_interval: the looks go by steps."""
    endless = {"train_dataloaders": DataLoader(Stream(), 8), "max_steps": 10, "max_epochs": -1}
    mesa, looked = fit(tmp_path, **endless)
    assert looked == list(range(11))
    assert mesa.alarm.looks == 11


def test_a_validation_at_a_step_already_looked_at_takes_no_second_look(tmp_path):
    """Within an accumulation the model has not changed."""
    mesa, looked = fit(tmp_path, val_check_interval=2, accumulate_grad_batches=8)
    assert looked == [0, 1, 2, 3]
    assert mesa.alarm.look == 4
