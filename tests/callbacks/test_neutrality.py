"""Training with the monitor is bitwise the training without it."""

import random
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from itertools import combinations, product
from typing import Any

import numpy as np
import pytest
import torch

from lightning_mesa import Matches
from lightning_mesa.checks import CapabilityFailure, ObjectiveGap
from lightning_mesa.errors import MesaWarning
from lightning_mesa.judge.alarm import Alarm
from lightning_mesa.records import Alert
from lightning_mesa.report import journal, metrics
from namespace import pl
from neutrality import (
    Configuration,
    Data,
    Images,
    Looks,
    Memory,
    MemoryLogger,
    Model,
    baseline,
    differences,
    monitor,
    train,
)

LEVELS: dict[str, list[Any]] = {
    "precision": ["32-true", "bf16-mixed", "bf16-true", "64-true"],
    "accumulate": [1, 2],
    "clip": [None, 0.5],
    "workers": ["none", "two", "persistent"],
    "hook": ["batch", "validation"],
    "dropout": [True, False],
    "batch_norm": [True, False],
    "frozen": [True, False],
    "augment": ["none", "torch", "numpy", "python"],
    "owned": ["none", "torch", "numpy", "numpy legacy", "python"],
    "shared": [False, True],
    "reference": ["val", "train", "dataset"],
    "state": ["none", "hidden", "tensors", "containers", "metrics"],
    "script": ["none", "dataset", "collate", "worker"],
    "watch": ["usual", "part", "base alone", "probes", "everything", "budget"],
}

CONFIGURATIONS = 48
"""In this process; those in several processes are in test_ddp.py."""

Pair = frozenset[tuple[str, Any]]


def all_pairs() -> Iterator[Pair]:
    """Each two levels of two factors."""
    for a, b in combinations(LEVELS, 2):
        yield from (frozenset({(a, x), (b, y)}) for x, y in product(LEVELS[a], LEVELS[b]))


def pairs_of(levels: dict[str, Any]) -> set[Pair]:
    return {frozenset(pair) for pair in combinations(levels.items(), 2)}


def matrix() -> list[Configuration]:
    """Configurations in which all pairs occur, chosen greedily, and others drawn at random to make up the number."""
    missing = dict.fromkeys(all_pairs())
    rows = []
    while missing:
        row = dict(sorted(next(iter(missing))))
        for factor, levels in LEVELS.items():
            if factor not in row:
                gains = [len(pairs_of({**row, factor: level}) & missing.keys()) for level in levels]
                row[factor] = levels[gains.index(max(gains))]
        for pair in pairs_of(row):
            missing.pop(pair, None)
        rows.append(Configuration(**row))
    draw = random.Random(0)
    while len(set(rows)) < CONFIGURATIONS:
        rows.append(Configuration(**{factor: draw.choice(levels) for factor, levels in LEVELS.items()}))
    return rows


def covering(rows: list[Configuration]) -> list[Configuration]:
    """A few rows in which every level of every factor occurs: each time the first that adds the most levels."""
    missing, chosen = {(factor, level) for factor, levels in LEVELS.items() for level in levels}, []
    while missing:
        chosen.append(max(rows, key=lambda row: len(missing & set(asdict(row).items()))))
        missing -= set(asdict(chosen[-1]).items())
    return chosen


MATRIX = matrix()
QUICK = [row for row in covering(MATRIX) if row.workers != "two"]
"""What ``make test`` runs of it; ``make test-all`` runs the whole. Workers that are started at each look take long."""


def label(configuration: Configuration) -> str:
    levels = {
        factor: level for factor, level in asdict(configuration).items() if level != getattr(Configuration(), factor)
    }
    return ",".join(f"{factor}={level}" for factor, level in levels.items()) or "default"


def test_the_matrix_has_48_configurations_in_which_every_two_levels_meet():
    assert len(set(MATRIX)) >= 48
    assert set().union(*(pairs_of(asdict(configuration)) for configuration in MATRIX)) == set(all_pairs())
    assert len(QUICK) <= 8


@pytest.mark.parametrize(
    "configuration",
    [
        Configuration(owned="numpy", shared=True, accumulate=2),
        pytest.param(
            Configuration(precision="bf16-mixed", workers="persistent", augment="numpy"), marks=pytest.mark.slow
        ),
        pytest.param(Configuration(precision="bf16-true", workers="two", augment="python"), marks=pytest.mark.slow),
    ],
    ids=label,
)
def test_training_is_reproducible_without_a_monitor(configuration):
    """Else the comparisons below would mean nothing."""
    assert not differences(train(configuration).fingerprint, train(configuration).fingerprint)


@pytest.mark.parametrize(
    "configuration",
    [pytest.param(row, id=label(row), marks=[] if row in QUICK else pytest.mark.slow) for row in MATRIX],
)
def test_training_with_the_monitor_is_bitwise_the_training_without(configuration):
    run = train(configuration, monitor(configuration, on_error="raise"))
    assert not differences(baseline(configuration), run.fingerprint)
    # One look before training, and others within epochs, between them, and with gradients accumulated.
    expected = {
        ("batch", 1): [*range(0, 27, 2), 27],
        ("batch", 2): [*range(0, 15, 2), 15],
        ("validation", 1): [*range(0, 28, 3)],
        ("validation", 2): [0, 1, 3, 5, 6, 8, 10, 11, 13, 15],
    }
    looks = expected[configuration.hook, configuration.accumulate]
    if configuration.watch == "budget":
        assert [run.looks[0], run.looks[-1]] == [looks[0], looks[-1]]
        assert set(run.looks) <= set(looks)
    else:
        assert run.looks == looks


EVERYTHING = Configuration(augment="numpy", owned="python", shared=True, accumulate=2, reference="dataset")


@pytest.mark.slow
def test_two_monitors_are_as_neutral_as_one():
    pair = [monitor(EVERYTHING, name="mesa"), monitor(EVERYTHING, name="mesa.second", every_n_steps=3)]
    run = train(EVERYTHING, *pair)
    assert not differences(baseline(EVERYTHING), run.fingerprint)
    assert run.metrics["mesa.second/disabled"] == 0


@pytest.mark.parametrize("configuration", [EVERYTHING, Configuration(precision="bf16-mixed")], ids=label)
def test_reading_features_and_copying_the_model_is_neutral(configuration):
    """With base alone listed, a readout is the witness of capability."""
    run = train(configuration, monitor(configuration, proxies=[], on_error="raise"))
    assert not differences(baseline(configuration), run.fingerprint)
    assert "mesa/apart/readout" in run.metrics


@pytest.mark.slow
def test_writing_checkpoints_is_neutral(monkeypatch):
    """Actions that only record leave no trace, however often they happen."""
    raise_alerts_from(1, monkeypatch)
    seen = []
    act = ["log", "checkpoint", lambda alert, trainer, pl_module: seen.append(alert.step)]
    run = train(EVERYTHING, monitor(EVERYTHING, on_alert=act))
    assert not differences(baseline(EVERYTHING), run.fingerprint)
    assert seen == run.looks


class AugmentsBatches(Data):
    """Draws from a generator of its own for each batch, as augmentation on the device does."""

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        return batch | {"x": batch["x"] + float(self.owned.normal())}


class MakesData(Data):
    """Draws from a generator of its own when it is asked for the shifted items."""

    @property
    def shifted(self) -> Images:
        seed = int(self.owned.integers(1000))
        return Images(24, seed=seed, confounded=False, augment="none", generator=None)

    @shifted.setter
    def shifted(self, _: Any) -> None:
        pass


@pytest.mark.parametrize("data_module", [AugmentsBatches, MakesData])
def test_generators_that_the_data_module_owns_are_left_alone(data_module):
    class Owning(data_module):
        """The datasets do not know the generator."""

        def __init__(self, configuration: Configuration) -> None:
            super().__init__(replace(configuration, owned="none"))
            self.owned = np.random.default_rng(7)

    without = train(Configuration(), data_module=Owning)
    run = train(Configuration(), monitor(Configuration(), on_error="raise"), data_module=Owning)
    assert not differences(without.fingerprint, run.fingerprint)


@pytest.mark.parametrize("hook", ["batch", "validation"])
def test_a_resumed_training_is_neutral(hook, tmp_path):
    """The monitor goes on with its memory, and reads a batch of each distribution before the first step."""
    configuration = replace(EVERYTHING, hook=hook)
    train(configuration, monitor(configuration), max_epochs=1, save=tmp_path / "middle.ckpt")
    without = train(configuration, resume=tmp_path / "middle.ckpt")
    run = train(configuration, monitor(configuration, on_error="raise"), resume=tmp_path / "middle.ckpt")
    assert not differences(without.fingerprint, run.fingerprint)
    assert run.looks
    assert min(run.looks) > 5


class InjectedError(Exception):
    """Stands for any bug in the monitor or in what the user gave to it."""


def raise_alerts_from(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the alarm find, from that look on, what it would act upon."""
    original = Alarm.judge

    def judge(self: Alarm, *args: Any) -> Any:
        judgement = original(self, *args)
        if self.look < number:
            return judgement
        known = {"severity": "alert", "signature": "proxy_pursued", "step": args[0].step, "message": "forged"}
        known |= {"distribution": "apart", "statistic": 1e-9, "alpha": 1e-6, "effect": 0.5, "low": 0.4, "high": 0.6}
        return replace(judgement, alerts=(Alert(**dict.fromkeys(Alert.__dataclass_fields__) | known),), healthy=True)

    monkeypatch.setattr(Alarm, "judge", judge)


INJECTIONS: dict[str, tuple[Any, str]] = {
    "observe: an item": (Images, "__getitem__"),
    "observe: moving a batch": (Model, "on_after_batch_transfer"),
    "observe: within the model": (Memory, "forward"),
    "observe: at the end of the model": (Model, "forward"),
    "observe: a score": (Matches, "score"),
    "measure: a batch": (ObjectiveGap, "update"),
    "measure: a finding": (CapabilityFailure, "findings"),
    "judge": (Alarm, "judge"),
    "report: callback_metrics": (metrics, "to_callback_metrics"),
    "report: a logger": (MemoryLogger, "log_metrics"),
    "report: the journal": (journal, "append"),
}


def inject(where: str, monkeypatch: pytest.MonkeyPatch) -> Looks:
    """Raise at the second look, after the work is done and with every global stream advanced."""
    looks = Looks(monkeypatch)
    owner, attribute = INJECTIONS[where]
    original: Callable[..., Any] = getattr(owner, attribute)

    def broken(*args: Any, **kwargs: Any) -> Any:
        result = original(*args, **kwargs)
        if looks.inside and looks.number == 2:
            torch.rand(3), np.random.rand(3), random.random()
            raise InjectedError(where)
        return result

    monkeypatch.setattr(owner, attribute, broken)
    return looks


@pytest.mark.parametrize(
    "configuration",
    [
        pytest.param(EVERYTHING, id=label(EVERYTHING)),
        *(
            pytest.param(configuration, id=label(configuration), marks=pytest.mark.slow)
            for configuration in (
                Configuration(
                    precision="bf16-true", hook="validation", augment="python", owned="numpy", reference="train"
                ),
                Configuration(precision="bf16-mixed", augment="torch", clip=0.5, owned="torch"),
            )
        ),
    ],
)
@pytest.mark.parametrize("where", INJECTIONS)
def test_after_an_error_training_goes_on_as_without_the_monitor(where, configuration, monkeypatch):
    expected = baseline(configuration)
    looks = inject(where, monkeypatch)
    with pytest.warns(MesaWarning, match=f"is off.*{where}") as warned:
        run = train(configuration, monitor(configuration))
    assert not differences(expected, run.fingerprint)
    assert run.metrics["mesa/disabled"] == 1
    assert looks.number == 2
    assert sum(issubclass(warning.category, MesaWarning) for warning in warned) == 1


@pytest.mark.parametrize("halfway", [1, 5, 9])
def test_after_a_probe_raises_halfway_training_goes_on_as_without_the_monitor(halfway, monkeypatch):
    """Between the hooks that it has set: while the model is read, patched, or its copy is run."""
    configuration = replace(EVERYTHING, watch="probes")
    expected = baseline(configuration)
    looks = Looks(monkeypatch)
    original, calls = Memory.forward, []

    def broken(self: Memory, x: torch.Tensor) -> torch.Tensor:
        probing = looks.inside and looks.number == 2 and len(x) == 12  # the pairs of the probes
        calls.extend([None] * probing)
        if probing and len(calls) == halfway:
            raise InjectedError("a probe")
        return original(self, x)

    monkeypatch.setattr(Memory, "forward", broken)
    with pytest.warns(MesaWarning, match=r"is off.*a probe"):
        run = train(configuration, monitor(configuration))
    assert not differences(expected, run.fingerprint)
    assert len(calls) == halfway


@pytest.mark.parametrize("action", ["callable", "checkpoint"])
def test_after_an_error_in_act_training_goes_on_as_without_the_monitor(action, monkeypatch):
    expected = baseline(EVERYTHING)
    looks = Looks(monkeypatch)
    raise_alerts_from(2, monkeypatch)

    def broken(*_: Any) -> None:
        raise InjectedError("act")

    if action == "checkpoint":
        monkeypatch.setattr(pl.Trainer, "save_checkpoint", broken)
    with pytest.warns(MesaWarning, match="is off.*act"):
        run = train(EVERYTHING, monitor(EVERYTHING, on_alert=broken if action == "callable" else action))
    assert not differences(expected, run.fingerprint)
    assert run.metrics["mesa/disabled"] == 1
    assert looks.number == 2


def test_an_error_that_ends_the_monitor_can_end_the_run(monkeypatch):
    """With on_error="raise" the error itself comes out, so that it can be found."""
    inject("measure: a batch", monkeypatch)
    with pytest.raises(InjectedError):
        train(EVERYTHING, monitor(EVERYTHING, on_error="raise"))
