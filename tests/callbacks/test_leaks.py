"""Each leak that was measured to change training, put back on purpose, is caught by the comparison.

The monitor has more than one defence against most of them; a leak shows where all of those are taken away.
"""

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

from lightning_mesa.callbacks import run as run_file
from lightning_mesa.callbacks import session as session_file
from lightning_mesa.data import items as source_file
from lightning_mesa.errors import MesaWarning
from lightning_mesa.observe import held, isolation
from lightning_mesa.observe.isolation import no_trace, random_streams
from lightning_mesa.observe.loaders import ItemLoader
from namespace import part, pl
from neutrality import BATCH_SIZE, Configuration, Images, Looks, baseline, differences, disturbed, monitor, train

Expected = dict[str, str]
"""Section -> where in it a difference must show."""


def check(found: dict[str, list[str]], expected: Expected) -> None:
    for section, where in expected.items():
        assert any(where in line for line in found.get(section, [])), f"{section}: {where} not in {found}"


# --- The monitor with protections taken away ---------------------------------------------------------------------


def off(*_: Any, **__: Any) -> Any:
    return nullcontext()


@contextmanager
def eval_then_train(module: nn.Module) -> Iterator[None]:
    module.eval()
    yield
    module.train()


@contextmanager
def root_mode_only(module: nn.Module) -> Iterator[None]:
    training = module.training
    module.eval()
    yield
    module.train(training)


@contextmanager
def fork_rng_only(seed: int) -> Iterator[None]:
    with torch.random.fork_rng():
        yield


@contextmanager
def isolate_rng_only(seed: int) -> Iterator[None]:
    with part("utilities.seed").isolate_rng():
        yield


@contextmanager
def inference_stage(trainer: Any) -> Iterator[None]:
    with torch.inference_mode():
        yield


def users_own(items: Any, **_: Any) -> ItemLoader:
    return ItemLoader(items, slice(None), 0, 1, whole_batches=False)


def plain_loader(items: Any, **_: Any) -> ItemLoader:
    return users_own(DataLoader(items.dataset, BATCH_SIZE))


def take_away(monkeypatch: pytest.MonkeyPatch, **replacements: Callable[..., Any]) -> None:
    """Replace functions of the monitor wherever they are used."""
    for name, replacement in replacements.items():
        rooms = [room for room in (isolation, session_file, source_file, run_file) if hasattr(room, name)]
        assert rooms
        for room in rooms:
            monkeypatch.setattr(room, name, replacement)


PLAIN = Configuration(augment="none")

TAKEN_AWAY: dict[str, tuple[dict[str, Callable[..., Any]], Configuration, Expected]] = {
    "train mode in the look": (
        {"eval_mode": off, "buffers": off},
        PLAIN,
        {"weights": "norm.running_mean", "log rows": "val/loss"},
    ),
    "eval() ... train()": (
        {"eval_mode": eval_then_train, "attributes": off},
        PLAIN,
        {"modes": "frozen.0", "weights": "frozen.0.running_mean", "optimizer": "exp_avg", "log rows": "train/loss"},
    ),
    "only the root's mode is kept": (
        {"eval_mode": root_mode_only, "attributes": off},
        PLAIN,
        {"modes": "frozen.0", "weights": "frozen.0.running_mean", "optimizer": "exp_avg", "log rows": "train/loss"},
    ),
    "a plain DataLoader draws its seed": (
        {"random_streams": off, "item_loader": plain_loader},
        PLAIN,
        {"random streams": "/torch", "weights": "conv.weight", "optimizer": "exp_avg", "log rows": "train/loss"},
    ),
    "the dataset augments from torch": (
        {"random_streams": off},
        Configuration(augment="torch"),
        {"random streams": "/torch", "weights": "conv.weight", "optimizer": "exp_avg", "log rows": "train/loss"},
    ),
    "the dataset augments from numpy": (
        {"random_streams": off},
        Configuration(augment="numpy"),
        {"random streams": "/numpy", "weights": "conv.weight", "optimizer": "exp_avg", "log rows": "train/loss"},
    ),
    "the dataset augments from python": (
        {"random_streams": off},
        Configuration(augment="python"),
        {"random streams": "/python", "weights": "conv.weight", "optimizer": "exp_avg", "log rows": "train/loss"},
    ),
    "fork_rng keeps only torch, and numpy runs on": (
        {"random_streams": fork_rng_only},
        Configuration(augment="numpy"),
        {"random streams": "/numpy", "weights": "conv.weight"},
    ),
    "fork_rng keeps only torch, and python runs on": (
        {"random_streams": fork_rng_only},
        Configuration(augment="python"),
        {"random streams": "/python", "weights": "conv.weight"},
    ),
    "loaders share a generator": (
        {"generators": off, "item_loader": users_own},
        Configuration(shared=True),
        {"random streams": "/shared", "batch order": "", "weights": "conv.weight"},
    ),
    **{
        f"the dataset owns a generator: {kind}": (
            {"generators": off},
            Configuration(augment="none", owned=kind),
            {"random streams": "/owned", "weights": "conv.weight"},
        )
        for kind in ("torch", "numpy", "numpy legacy", "python")
    },
    "the train loader's persistent workers": (
        {"item_loader": users_own},
        Configuration(workers="persistent", reference="train"),
        {"batch order": "/size", "weights": "conv.weight", "log rows": "train/loss"},
    ),
    "buffers": ({"buffers": off}, PLAIN, {"weights": "memory.calls", "log rows": "train/loss"}),
    **{
        f"plain state: {kind}": (
            {"attributes": off},
            Configuration(augment="none", state=kind),
            {"plain state": "", "weights": "conv.weight", "log rows": "train/logits"},
        )
        for kind in ("hidden", "tensors", "containers", "metrics")
    },
    "logging in the forward pass": ({"muted_logging": off}, PLAIN, {"log rows": "val/activation"}),
    "trainer.training is true in the look": (
        {"stage": off, "attributes": off},
        PLAIN,
        {"log rows": "train/batches"},
    ),
}


QUICK = {
    "train mode in the look",
    "the dataset augments from numpy",
    "loaders share a generator",
    "buffers",
    "plain state: containers",
    "logging in the forward pass",
    "trainer.training is true in the look",
    "dropout outside isolation",
    "backward() leaves .grad",
    "a value under the user's key",
}
"""One leak of each protection, and of each way that a callback leaks; ``make test-all`` has the others."""


def cases(leaks: dict[str, tuple[Any, ...]]) -> list[Any]:
    return [
        pytest.param(*case, id=name, marks=[] if name in QUICK else pytest.mark.slow) for name, case in leaks.items()
    ]


@pytest.mark.parametrize(("replacements", "configuration", "expected"), cases(TAKEN_AWAY))
def test_a_missing_protection_is_caught(replacements, configuration, expected, monkeypatch):
    take_away(monkeypatch, **replacements)
    check(disturbed(configuration, monitor(configuration)), expected)


@pytest.mark.parametrize(
    "what", ["dataset", *(pytest.param(what, marks=pytest.mark.slow) for what in ("collate", "worker"))]
)
def test_generators_of_the_script_are_missed_where_code_is_not_followed(what, monkeypatch):
    """Nothing holds them: only the code of what draws from them names them."""
    monkeypatch.setattr(held, "_globals_of", lambda *_: iter(()))
    configuration = Configuration(augment="none", script=what)
    check(disturbed(configuration, monitor(configuration)), {"random streams": "/script", "weights": "conv.weight"})


def test_isolate_rng_does_not_restore_after_an_exception(monkeypatch):
    """The same injected error is harmless with ``random_streams``, see test_neutrality."""
    configuration, read = Configuration(augment="numpy"), Images.__getitem__
    expected = baseline(configuration)
    take_away(monkeypatch, random_streams=isolate_rng_only)
    looks = Looks(monkeypatch)

    def broken(self: Images, i: int) -> Any:
        item = read(self, i)
        if looks.inside and looks.number == 2:
            torch.rand(3), random.random()
            raise RuntimeError("injected")
        return item

    monkeypatch.setattr(Images, "__getitem__", broken)
    with pytest.warns(MesaWarning, match="injected"):
        found = differences(expected, train(configuration, monitor(configuration)).fingerprint)
    check(found, {"random streams": "/numpy", "weights": "conv.weight", "optimizer": "exp_avg", "log rows": "loss"})
    check(found, {"random streams": "/torch"})
    check(found, {"random streams": "/python"})


def test_tensors_made_in_inference_mode_poison_the_training(monkeypatch):
    """A table that the model builds at its first call could not be trained through."""
    take_away(monkeypatch, stage=inference_stage, attributes=off)
    with pytest.raises(RuntimeError, match="Inference tensors"):
        train(PLAIN, monitor(PLAIN), num_sanity_val_steps=0)


def test_a_second_defence_holds_where_one_is_taken_away(monkeypatch):
    """The loader's own generator keeps the streams of a dataset that draws nothing, as was measured."""
    take_away(monkeypatch, random_streams=off)
    assert not disturbed(PLAIN, monitor(PLAIN))


# --- What callbacks do -------------------------------------------------------------------------------------------


class AtBatchEnd(pl.Callback):
    """Does something after each batch."""

    def __init__(self, leak: Callable[[Any, Any, Any], None]) -> None:
        self.leak = leak

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.leak(trainer, pl_module, batch)


class AtValidationEnd(AtBatchEnd):
    """Does something after each validation, with the last training batch."""

    batch: Any = None

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        self.batch = batch

    def on_train_batch_end(self, *_: Any) -> None:
        pass

    def on_validation_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        if not trainer.sanity_checking:
            self.leak(trainer, pl_module, self.batch)


class AtSetup(AtBatchEnd):
    """Does something in setup."""

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        self.leak(trainer, pl_module, None)

    def on_train_batch_end(self, *_: Any) -> None:
        pass


def dropout(trainer: Any, pl_module: Any, batch: Any) -> None:
    F.dropout(torch.ones(3))


def validation_step(trainer: Any, pl_module: Any, batch: Any) -> None:
    with no_trace(trainer, pl_module, 0):
        pl_module.validation_step(batch, 0)


def logged_validation_step(trainer: Any, pl_module: Any, batch: Any) -> None:
    with random_streams(0), isolation.eval_mode(pl_module), isolation.buffers(pl_module), torch.no_grad():
        pl_module.validation_step(batch | {"x": batch["x"] + 5}, 0)


def gradients(trainer: Any, pl_module: Any, batch: Any) -> None:
    with no_trace(trainer, pl_module, 0), torch.enable_grad():
        torch.autograd.grad(F.cross_entropy(pl_module(batch["x"]), batch["y"]), pl_module.head.weight)


def backward(trainer: Any, pl_module: Any, batch: Any) -> None:
    with no_trace(trainer, pl_module, 0), torch.enable_grad():
        F.cross_entropy(pl_module(batch["x"]), batch["y"]).backward()


def backward_then_none(trainer: Any, pl_module: Any, batch: Any) -> None:
    backward(trainer, pl_module, batch)
    for parameter in pl_module.parameters():
        parameter.grad = None


def new_probe(trainer: Any, pl_module: Any, batch: Any) -> None:
    nn.Linear(3, 3)


def registered_probe(trainer: Any, pl_module: Any, batch: Any) -> None:
    with random_streams(0):
        pl_module.probe = nn.Linear(3, 3)


def isolated_probe(trainer: Any, pl_module: Any, batch: Any) -> None:
    with random_streams(0):
        nn.Linear(3, 3)


def users_key(trainer: Any, pl_module: Any, batch: Any) -> None:
    pl_module.log("train/loss", 0.0)


ACCUMULATE = Configuration(augment="none", accumulate=2)

CALLBACKS: dict[str, tuple[pl.Callback, Configuration, Expected]] = {
    "dropout outside isolation": (
        AtBatchEnd(dropout),
        PLAIN,
        {"random streams": "/torch", "weights": "conv.weight", "optimizer": "exp_avg", "log rows": "train/loss"},
    ),
    "validation_step, logging, after a batch": (
        AtBatchEnd(logged_validation_step),
        PLAIN,
        {"log rows": "val/accuracy"},
    ),
    "validation_step, logging, after a validation": (
        AtValidationEnd(logged_validation_step),
        ACCUMULATE,
        {"log rows": "val/loss", "scheduler": "best"},
    ),
    "backward() leaves .grad": (AtBatchEnd(backward), ACCUMULATE, {"weights": "conv.weight", "log rows": "train/loss"}),
    "backward(), then grad = None": (
        AtBatchEnd(backward_then_none),
        ACCUMULATE,
        {"weights": "conv.weight", "ambient": "gradients"},
    ),
    "a probe is made in setup": (
        AtSetup(new_probe),
        PLAIN,
        {"random streams": "/torch", "weights": "conv.weight", "optimizer": "exp_avg", "log rows": "train/loss"},
    ),
    "a probe is registered on the module": (
        AtSetup(registered_probe),
        PLAIN,
        {"weights": "probe.weight", "optimizer": "params", "modes": "probe"},
    ),
    "a value under the user's key": (AtBatchEnd(users_key), PLAIN, {"log rows": "train/loss"}),
}


@pytest.mark.parametrize(("callback", "configuration", "expected"), cases(CALLBACKS))
def test_a_leaking_callback_is_caught(callback, configuration, expected):
    check(disturbed(configuration, callback), expected)


@pytest.mark.parametrize(
    "callback",
    [AtBatchEnd(gradients), AtValidationEnd(gradients), AtBatchEnd(validation_step), AtSetup(isolated_probe)],
)
def test_what_does_not_leak_is_not_reported(callback):
    """The frame in which leaks are put back is neutral itself."""
    assert not disturbed(ACCUMULATE, callback)


def test_validating_from_a_callback_ends_the_training():
    leak = AtBatchEnd(lambda trainer, pl_module, batch: trainer.validate(pl_module, datamodule=trainer.datamodule))
    with pytest.raises((AssertionError, part("utilities.exceptions").MisconfigurationException)):
        train(PLAIN, leak)


# --- The comparison itself ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (0.0, -0.0),
        (1, 1.0),
        (torch.tensor([0.0]), torch.tensor([-0.0])),
        (torch.tensor([1.0]), torch.tensor([1.0], dtype=torch.bfloat16)),
        (torch.tensor([1.0]), torch.tensor([[1.0]])),
        (np.array([1, 2]), np.array([1, 3])),
        ([1, 2], [1]),
        ({"a": 1}, {"a": 1, "b": 2}),
        ({"a": {}}, {"a": None}),
    ],
)
def test_the_comparison_is_by_bits_and_by_type(a, b):
    assert differences({"section": a}, {"section": b}).keys() == {"section"}
    assert not differences({"section": a}, {"section": a})
