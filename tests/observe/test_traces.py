"""What a look changes and cannot put back is named, once; what does no harm is not."""

import collections
import itertools
import random
import threading
import warnings
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, Sampler

import toy
from lightning_mesa.errors import MesaWarning
from lightning_mesa.observe.isolation import no_trace
from lightning_mesa.observe.traces import Traces
from namespace import pl

CALLS = 0
SEEN: list[int] = []
TABLE = {"calls": 0}
CACHE: dict[int, int] = {}


class Counter:
    total = 0


class Model(toy.ToyModel):
    """Changes something in each forward pass."""

    made = 0

    def __init__(self, change: Any, **held: Any) -> None:
        super().__init__()
        self.change = change
        vars(self).update(held)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.change(self)
        return super().forward(x)


class Reading(Dataset):
    """Changes something at each item."""

    def __init__(self, change: Any = lambda self: None, **held: Any) -> None:
        self.data = toy.ToyData(8, confounded=False)
        self.change = change
        vars(self).update(held)

    def __len__(self) -> int:
        return 8

    def __getitem__(self, i: int) -> Any:
        self.change(self)
        return self.data[i]


def count_global(_: Any) -> None:
    global CALLS
    CALLS += 1


def count_class(_: Any) -> None:
    Counter.total += 1


def count_in_table(_: Any) -> None:
    TABLE["calls"] += 1


def helped(owner: Any) -> None:
    count_in_table(owner)


def write_in_parameter(model: Any) -> None:
    with torch.no_grad():
        model.net.weight.mul_(0.99)


def numbers() -> Any:
    number = 0
    while True:
        yield number
        number += 1


CHANGES: dict[str, tuple[Any, Any, str]] = {
    "a global number": (lambda: Model(count_global), None, "test_traces.CALLS"),
    "a global list": (lambda: Model(lambda _: SEEN.append(1)), None, "test_traces.SEEN"),
    "a number in a global dict": (lambda: Model(count_in_table), None, "test_traces.TABLE['calls']"),
    "a global that a helper changes": (lambda: Model(helped), None, "test_traces.TABLE['calls']"),
    "an attribute of a class": (lambda: Model(count_class), None, "test_traces.Counter.total"),
    "an attribute of the model's class": (
        lambda: Model(lambda m: setattr(Model, "made", Model.made + 1)),
        None,
        "test_traces.Model.made",
    ),
    "the position of a count": (
        lambda: Model(lambda m: next(m.steps), steps=itertools.count()),
        None,
        "model.steps",
    ),
    "the position of an iterator": (lambda: Model(lambda m: next(m.rows), rows=iter(range(999))), None, "model.rows"),
    "the position of a generator": (lambda: Model(lambda m: next(m.rows), rows=numbers()), None, "model.rows"),
    "a parameter": (lambda: Model(write_in_parameter), None, "model.net.weight"),
    "a thread's state": (
        lambda: Model(lambda m: setattr(m.held["one"], "beats", 1), held={"one": threading.Timer(1, print)}),
        None,
        "",
    ),
    "a dataset's number": (
        None,
        lambda: Reading(lambda d: setattr(d, "reads", d.reads + 1), reads=0),
        "val_dataloaders.dataset.reads",
    ),
    "a dataset's list": (
        None,
        lambda: Reading(lambda d: d.reads.append(1), reads=[]),
        "val_dataloaders.dataset.reads",
    ),
    "a dataset's tensor": (
        None,
        lambda: Reading(lambda d: d.mean.add_(1), mean=torch.zeros(3)),
        "val_dataloaders.dataset.mean",
    ),
    "what a dataset has read last": (
        None,
        lambda: Reading(lambda d: setattr(d, "last", object()), last=object()),
        "val_dataloaders.dataset.last",
    ),
}  # fmt: skip


class Watched:
    """A trainer, as much as is asked for."""

    def __init__(self, data: Any) -> None:
        self.train_dataloader = None
        self.val_dataloaders = data
        self.state, self.strategy = SimpleNamespace(stage=None), None
        self.world_size, self.validating = 1, False


def look(model: Any, data: Any, traces: Traces) -> list[str]:
    """The warnings of a pass over the data."""
    loader = DataLoader(data, 4)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with no_trace(Watched(loader), model, 0, loader, traces=traces):
            for batch in loader:
                model(batch["x"])
    return [str(warning.message) for warning in caught if warning.category is MesaWarning]


@pytest.mark.parametrize("what", [what for what, (_, _, path) in CHANGES.items() if path])
def test_what_a_look_changes_beyond_what_is_kept_is_named_once(what):
    model, data, path = CHANGES[what]
    model, data = (model or toy.ToyModel)(), (data or Reading)()
    traces = Traces("mesa", comparing=True)
    (said,) = look(model, data, traces)
    assert f"cannot put back {path}" in said
    assert "self.training" in said
    assert "through a function that makes it" in said
    assert len(said) < 4 * 120
    assert look(model, data, traces) == []


def fill(owner: Any) -> None:
    CACHE[len(CACHE)] = 1


HARMLESS: dict[str, tuple[Any, Any]] = {
    "a model that keeps nothing": (None, None),
    "state that is kept": (
        lambda: Model(lambda m: m.seen.append(m.seen.copy()), seen=[], cache=Counter()),
        None,
    ),
    "a cache that is filled": (lambda: Model(fill), None),
    "a file that is opened at the first item": (None, lambda: Reading(lambda d: setattr(d, "file", d.data), file=None)),
    "what a dataset makes late": (None, lambda: Reading(lambda d: setattr(d, "late", d.data))),
    "a dataset's cache": (None, lambda: Reading(lambda d: d.cache.update({len(d.cache): 1}), cache={})),
    "what is read again the same": (
        None,
        lambda: Reading(lambda d: setattr(d, "shape", (1, float("nan"))), shape=(1, float("nan"))),
    ),
    "a tensor that is made again the same": (
        None,
        lambda: Reading(lambda d: setattr(d, "mean", torch.ones(3)), mean=torch.ones(3)),
    ),
    "a dataset's generator": (None, lambda: Reading(lambda d: d.noise.random(), noise=random.Random(0))),
}


@pytest.mark.parametrize("what", HARMLESS)
def test_what_does_no_harm_is_not_named(what):
    model, data = HARMLESS[what]
    assert look((model or toy.ToyModel)(), (data or Reading)(), Traces("mesa", comparing=True)) == []


class Odd:
    def __init__(self) -> None:
        self.values = {"a": 1}

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("no")

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError("no")

    __hash__ = object.__hash__


def test_an_odd_object_ends_no_comparison():
    model = Model(count_global, odd=[Odd(), {Odd(): Odd()}], odder=torch.zeros(2).to_sparse())
    (said,) = look(model, Reading(odd=Odd(), sparse=torch.zeros(2).to_sparse()), Traces("mesa", comparing=True))
    assert "test_traces.CALLS (changed)," in said


def test_many_are_counted_and_the_first_are_named():
    data = Reading(
        lambda d: vars(d).update({f"n{i}": getattr(d, f"n{i}") + 1 for i in range(9)}), **{f"n{i}": 0 for i in range(9)}
    )
    (said,) = look(toy.ToyModel(), data, Traces("mesa", comparing=True))
    assert "dataset.n0 (changed)" in said
    assert "and 4 more" in said


def test_data_that_training_cannot_reach_is_not_compared():
    """A distribution of the monitor's own may count as it likes."""
    loader = DataLoader(Reading(lambda d: setattr(d, "reads", d.reads + 1), reads=0))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with no_trace(Watched(None), toy.ToyModel(), 0, loader, traces=Traces(comparing=True)):
            list(loader)
    assert loader.dataset.reads == 8


class Rows(IterableDataset):
    """A stream that remembers where it is."""

    def __init__(self) -> None:
        self.position = 0

    def __iter__(self) -> Any:
        for i in range(64):
            self.position += 1
            yield toy.ToyData(64, confounded=True)[i]


class InTurn(Sampler):
    epoch = 0

    def __len__(self) -> int:
        return 64

    def __iter__(self) -> Any:
        self.epoch += 1
        return iter(range(64))


@pytest.mark.parametrize(
    ("val", "path"),
    [
        (lambda: DataLoader(Rows(), 16), None),
        (lambda: DataLoader(toy.ToyData(64, confounded=True), 16, sampler=InTurn()), "val_dataloaders.sampler.epoch"),
        (lambda: toy.loader(), None),
    ],
    ids=["a stream that counts, which is put back", "a sampler that counts", "nothing"],
)
def test_a_monitor_says_before_training_what_its_looks_cannot_put_back(val, path, tmp_path):
    """The first look says it, and none after it."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        toy.fit(tmp_path, toy.monitor(), val_dataloaders=val(), max_epochs=2, num_sanity_val_steps=0)
    said = [str(warning.message) for warning in caught if "cannot put back" in str(warning.message)]
    assert len(said) == (path is not None)
    assert path is None or path in said[0]


def test_later_looks_compare_nothing(tmp_path, monkeypatch):
    compared = collections.Counter()

    def counted(*_: Any) -> list[Any]:
        compared["fingerprints"] += 1
        return []

    monkeypatch.setattr("lightning_mesa.observe.traces.fingerprint", counted)
    toy.fit(tmp_path, toy.monitor(), max_epochs=3)
    assert compared["fingerprints"] == 3  # opening, items, probes


class Transformer(pl.LightningModule):
    """A small model of transformers, with metrics, as users have them."""

    def __init__(self) -> None:
        super().__init__()
        transformers = pytest.importorskip("transformers")
        metrics = pytest.importorskip("torchmetrics.classification")
        config = transformers.GPT2Config(n_embd=16, n_layer=1, n_head=2, n_positions=8, vocab_size=8)
        self.model = transformers.GPT2LMHeadModel(config)
        self.accuracy = metrics.MulticlassAccuracy(4)
        self.save_hyperparameters()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.model(input_ids=(x[:, :4].abs() * 2).long().clamp(0, 7), use_cache=True).logits[:, -1, :4]

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        logits = self(batch["x"])
        self.log("train/accuracy", self.accuracy(logits, batch["y"]))
        return nn.functional.cross_entropy(logits, batch["y"])

    validation_step = training_step

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters())


def test_transformers_torchmetrics_and_lightning_themselves_raise_no_alarm(tmp_path):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        toy.fit(tmp_path, toy.monitor(), model=Transformer(), max_epochs=1)
    assert [str(w.message) for w in caught if "cannot put back" in str(w.message)] == []
