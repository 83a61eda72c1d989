"""Everything a look may disturb is put back, also after an exception."""

import random
from contextlib import contextmanager, suppress
from functools import partial
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import ConcatDataset, DataLoader, Dataset, RandomSampler, Subset

from accelerator import ACCELERATOR
from lightning_mesa.observe import isolation
from lightning_mesa.observe.isolation import (
    buffers,
    eval_mode,
    generators,
    muted_logging,
    no_trace,
    random_streams,
    stage,
)
from namespace import pl
from neutrality import OWNED, differences, generator_state

KINDS = [kind for kind in OWNED if kind != "none"]


class LeftError(Exception):
    """Raised on purpose."""


@pytest.fixture(params=[None, LeftError, KeyboardInterrupt])
def leaving(request):
    """Leave a context manager normally, by an error, or by an interrupt."""

    @contextmanager
    def enter(context):
        with suppress(LeftError, KeyboardInterrupt), context as inside:
            yield inside
            if request.param is not None:
                raise request.param

    return enter


def draw(generator: Any = None) -> Any:
    """A number from one generator, or from each global stream."""
    if generator is None:
        return torch.rand(()).item(), np.random.rand(), random.random()
    if isinstance(generator, torch.Generator):
        return torch.rand((), generator=generator).item()
    return generator.random()


def same(a: Any, b: Any) -> bool:
    """Whether two states of a generator are equal, bit by bit."""
    return not differences({"state": a}, {"state": b})


class Owner(Dataset):
    """A dataset that keeps something."""

    def __init__(self, kept: Any = None) -> None:
        self.kept = kept

    def __len__(self) -> int:
        return 3

    def __getitem__(self, i: int) -> int:
        return i


# --- Random streams ----------------------------------------------------------------------------------------------


def test_random_streams_are_seeded_inside_and_restored(leaving):
    pl.seed_everything(1, verbose=False)
    expected = draw()
    pl.seed_everything(1, verbose=False)
    with leaving(random_streams(5)):
        inside = draw()
    assert draw() == expected
    with random_streams(5):
        assert draw() == inside
    with random_streams(6):
        assert not set(draw()) & set(inside)


def test_random_streams_restore_the_second_half_of_a_gaussian_pair():
    """Numpy and python draw Gaussians in pairs and keep one for later: it is part of the state."""
    np.random.seed(0), random.seed(0)
    np.random.randn(), random.gauss(0, 1)
    state = np.random.get_state(), random.getstate()
    assert state[0][3] == 1
    assert state[1][2] is not None
    with random_streams(0):
        np.random.randn(), random.gauss(0, 1)
    assert (np.random.get_state()[3:], random.getstate()) == (state[0][3:], state[1])


def test_random_streams_take_a_seed_beyond_32_bits():
    """Numpy takes the last 32 bits of it."""
    drawn = []
    for seed in (2**40 + 1, 2**40 + 1, 1):
        with random_streams(seed):
            drawn.append(draw())
    assert drawn[0] == drawn[1]
    assert drawn[0] != drawn[2]
    assert drawn[0][1] == drawn[2][1]


# --- Generators --------------------------------------------------------------------------------------------------


def in_module(generator: Any) -> nn.Module:
    module = nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.ReLU()))
    module[1][0].generator = generator
    return module


def in_large_module(generator: Any) -> nn.Module:
    return nn.Sequential(*(nn.Sequential(nn.Linear(1, 1), nn.ReLU()) for _ in range(300)), in_module(generator))


PLACES = {
    "a dataset": Owner,
    "a Subset": lambda generator: Subset(Owner(generator), [0]),
    "a ConcatDataset": lambda generator: ConcatDataset([Owner(), Owner(generator)]),
    "a composed transform": lambda generator: Owner(
        SimpleNamespace(transforms=(SimpleNamespace(), SimpleNamespace(rng=generator)))
    ),
    "a dict and a list": lambda generator: Owner({"train": [generator]}),
    "a loader": lambda generator: DataLoader(Owner(), collate_fn=SimpleNamespace(rng=generator)),
    "a loader's dataset": lambda generator: DataLoader(Subset(Owner(generator), [0])),
    "a loader's batch sampler": lambda generator: DataLoader(
        Owner(), batch_sampler=SimpleNamespace(sampler=SimpleNamespace(rng=generator))
    ),
    "a module": in_module,
    "one part of a large module": in_large_module,
    "a partial function": lambda generator: Owner(partial(draw, generator)),
    "a partial function's keywords": lambda generator: Owner(partial(draw, generator=generator)),
    "a function's closure": lambda generator: Owner(lambda: draw(generator)),
    "a class with slots": lambda generator: Owner(Slotted(generator)),
}


class Slotted:
    __slots__ = ("generator",)

    def __init__(self, generator: Any) -> None:
        self.generator = generator


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("kind", KINDS)
def test_a_generator_is_found(kind, place):
    generator = OWNED[kind]()
    before = generator_state(generator)
    with generators(PLACES[place](generator)):
        draw(generator)
        assert not same(generator_state(generator), before)
    assert same(generator_state(generator), before)


@pytest.mark.parametrize("kind", KINDS)
def test_a_generator_is_restored(kind, leaving):
    generator = OWNED[kind]()
    draw(generator)
    before = generator_state(generator)
    with leaving(generators(Owner(generator))):
        draw(generator)
    assert same(generator_state(generator), before)


OF_SCRIPT: dict[str, Any] = {}
NOISE: Any = None
"""Generators of a script: nothing holds them, and code finds them by name."""


def drawing(*_: Any) -> Any:
    return draw(NOISE)


def nested(*_: Any) -> Any:
    return [draw(NOISE) for _ in range(1)] and (lambda: draw(NOISE))()


def from_a_dict(*_: Any) -> Any:
    return draw(OF_SCRIPT["noise"])


def by_a_helper(*_: Any) -> Any:
    return drawing()


class Transform:
    def __call__(self, *_: Any) -> Any:
        return draw(NOISE)


class Inherits(Transform):
    pass


class Methods:
    @staticmethod
    def static() -> Any:
        return draw(NOISE)

    @classmethod
    def of_class(cls) -> Any:
        return draw(NOISE)

    @property
    def value(self) -> Any:
        return draw(NOISE)


class MakesATransform(Owner):
    def __getitem__(self, i: int) -> Any:
        return Transform()(i)


class HasIt(Owner):
    noise: Any = None

    def __getitem__(self, i: int) -> Any:
        return draw(self.noise)


@torch.no_grad()
def wrapped(*_: Any) -> Any:
    return draw(NOISE)


OTHER = ModuleType("other_script")


def of_another_module(*_: Any) -> Any:
    return draw(OTHER.noise)


CODE: dict[str, Any] = {
    "a function": drawing,
    "a function within a function": nested,
    "a dict of the script": from_a_dict,
    "a helper": by_a_helper,
    "another module of the user's": of_another_module,
    "a decorated function": wrapped,
    "a partial function": partial(drawing, 1),
    "a method": Transform().__call__,
    "an inherited method": Inherits(),
    "a static method": SimpleNamespace(of=Methods),
    "a dataset that makes a transform": MakesATransform(),
    "an attribute of the dataset's class": HasIt(),
    "a loader's collate function": DataLoader(Owner(), collate_fn=drawing),
    "a loader's worker init": DataLoader(Owner(), worker_init_fn=drawing),
    "a composed transform": Owner([SimpleNamespace(transforms=(drawing,))]),
    "a function in a class with slots": Owner(Slotted(drawing)),
}


@pytest.mark.parametrize("code", CODE)
@pytest.mark.parametrize("kind", KINDS)
def test_a_generator_of_the_script_is_found_by_the_code_that_uses_it(kind, code, monkeypatch):
    generator = OWNED[kind]()
    monkeypatch.setitem(globals(), "NOISE", generator)
    monkeypatch.setitem(OF_SCRIPT, "noise", generator)
    monkeypatch.setattr(HasIt, "noise", generator)
    OTHER.noise = generator
    before = generator_state(generator)
    with generators(CODE[code]):
        draw(generator)
    assert same(generator_state(generator), before)


def test_a_generator_that_no_code_names_is_left_alone(monkeypatch):
    """The globals of a script are many: only those that the code uses are looked at."""
    monkeypatch.setitem(globals(), "NOISE", random.Random(0))
    before = NOISE.getstate()
    with generators(Owner(same)):
        NOISE.random()
    assert NOISE.getstate() != before


def test_a_model_and_its_forward_lead_to_a_generator_of_the_script(monkeypatch):
    monkeypatch.setitem(globals(), "NOISE", np.random.default_rng(0))

    class Noisy(nn.Module):
        def forward(self) -> Any:
            return draw(NOISE)

    before = generator_state(NOISE)
    module = nn.Sequential(nn.Sequential(Noisy()))
    with generators(module):
        module[0][0]()
    assert same(generator_state(NOISE), before)


@pytest.mark.parametrize("kind", ["numpy", "numpy legacy", "python"])
def test_a_bound_method_leads_to_its_generator(kind):
    generator = OWNED[kind]()
    before = generator_state(generator)
    with generators(Owner(generator.random)):
        draw(generator)
    assert same(generator_state(generator), before)


def test_the_generators_of_a_loader_are_restored(leaving):
    shared = torch.Generator().manual_seed(1)
    loader = DataLoader(Owner(), shuffle=True, generator=shared)
    sampled = DataLoader(Owner(), sampler=RandomSampler(Owner(), replacement=True, generator=shared))
    before = shared.get_state()
    with leaving(generators(loader, sampled)):
        list(loader), list(sampled)
        assert not torch.equal(shared.get_state(), before)
    assert torch.equal(shared.get_state(), before)


def test_a_bit_generator_is_restored():
    bits = np.random.PCG64(0)
    before = bits.state
    with generators(Owner(bits)):
        np.random.Generator(bits).normal()
    assert same(bits.state, before)


def test_a_dataset_beside_a_large_module_is_still_searched():
    """The search is bounded, and a module has many attributes: it must not use up what is left for the data."""
    generator = np.random.default_rng(0)
    layers = [nn.Sequential(nn.Linear(1, 1), nn.ReLU()) for _ in range(800)]
    module = nn.Sequential(*(nn.Sequential(*layers[i : i + 40]) for i in range(0, 800, 40)))
    data = DataLoader(Subset(ConcatDataset([Owner(SimpleNamespace(transforms=[SimpleNamespace(rng=generator)]))]), [0]))
    before = generator_state(generator)
    with generators(module, data):
        draw(generator)
    assert same(generator_state(generator), before)


def test_the_search_ends_in_circles_and_passes_over_data_and_the_trainer():
    circle = Owner()
    circle.kept = [circle, {"again": circle}]
    circle.data = list(range(100_000))
    circle.trainer = SimpleNamespace(generator=random.Random(0))
    with generators(circle):
        before = circle.trainer.generator.random()
    assert circle.trainer.generator.random() != before


# --- Modes, buffers, logging, stage ------------------------------------------------------------------------------


class Overriding(nn.Module):
    """Users override these to keep parts frozen, or to count."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[str] = []

    def train(self, mode: bool = True) -> Any:
        self.calls.append("train")
        return super().train(mode)

    def eval(self) -> Any:
        self.calls.append("eval")
        return super().eval()


def test_each_part_gets_its_own_mode_back(leaving):
    module = nn.Sequential(nn.Dropout(), nn.Sequential(nn.BatchNorm1d(1), nn.Dropout()), Overriding())
    module[1].eval()
    module[1][1].training = True  # in train mode within a part in eval mode
    before = [part.training for part in module.modules()]
    with leaving(eval_mode(module)):
        assert not any(part.training for part in module.modules())
    assert [part.training for part in module.modules()] == before
    assert module[2].calls == []


class Stateful(nn.Module):
    """Buffers as models have them: written, replaced, filled late, made late, resized."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[int] = []
        self.register_buffer("written", torch.zeros(2))
        self.register_buffer("replaced", torch.zeros(2))
        self.register_buffer("cache", None, persistent=False)

    def forward(self) -> None:
        self.seen.append(1)
        self.written += 1
        self.replaced = torch.ones(3)


def test_buffers_that_are_written_or_replaced_get_their_values_and_objects_back(leaving):
    module = nn.Sequential(nn.BatchNorm1d(1), Stateful())
    objects = dict(module.named_buffers())
    before = {name: buffer.clone() for name, buffer in objects.items()}
    with leaving(buffers(module)):
        module[0](torch.randn(4, 1)), module[1]()
        assert not torch.equal(module[1].written, before["1.written"])
    after = dict(module.named_buffers())
    assert all(after[name] is buffer and torch.equal(buffer, before[name]) for name, buffer in objects.items())


def test_an_expanded_buffer_can_be_kept(leaving):
    """One element stands for several: such a tensor cannot be written to as a whole."""
    module = nn.Module()
    module.register_buffer("mask", torch.ones(1).expand(3))
    with leaving(buffers(module)):
        module.mask = torch.zeros(3)
    assert module.mask.tolist() == [1, 1, 1]
    assert module.mask.stride() == (0,)


def test_a_shared_buffer_stays_shared(leaving):
    module = nn.Sequential(Stateful(), Stateful())
    module[1].written = module[0].written
    with leaving(buffers(module)):
        module[0].written += 1
    assert module[0].written is module[1].written
    assert module[0].written.tolist() == [0, 0]


def test_a_buffer_that_was_none_is_none_again(leaving):
    """A cache that is filled at a look would keep the look's batch shape, or enter the checkpoint."""
    module = Stateful()
    with leaving(buffers(module)):
        module.cache = torch.ones(2)
    assert module.cache is None


def test_a_buffer_that_a_look_registers_is_gone(leaving):
    module = Stateful()
    with leaving(buffers(module)):
        module.register_buffer("late", torch.ones(2))
    assert "late" not in module.state_dict()


def test_a_buffer_that_a_look_removes_is_back(leaving):
    module = Stateful()
    with leaving(buffers(module)):
        del module.written
    assert module.written.tolist() == [0, 0]


class Logging(pl.LightningModule):
    def __init__(self, *children: nn.Module) -> None:
        super().__init__()
        self.inner = nn.ModuleList(children)
        self.logged: list[str] = []

    def log(self, name: str, *_: Any, **__: Any) -> None:
        self.logged.append(name)

    def log_dict(self, dictionary: dict[str, Any], *_: Any, **__: Any) -> None:
        self.logged += dictionary


def log_all(module: Logging) -> None:
    for part in module.modules():
        if isinstance(part, Logging):
            part.log("a", 1.0)
            part.log_dict({"b": 1.0})


def test_what_a_forward_pass_logs_is_swallowed(leaving):
    module = Logging()
    with leaving(muted_logging(module)):
        log_all(module)
    assert module.logged == []
    log_all(module)
    assert module.logged == ["a", "b"]
    assert not {"log", "log_dict"} & vars(module).keys()


def test_what_a_nested_lightning_module_logs_is_swallowed_too(leaving):
    """Lightning gives nested LightningModules the trainer, so their logging reaches the user's rows."""
    inner = Logging()
    with leaving(muted_logging(Logging(inner))):
        log_all(inner)
    assert inner.logged == []


def test_a_log_function_that_the_user_has_attached_is_put_back(leaving):
    module, names = Logging(), []
    module.log = lambda name, value: names.append(name)
    with leaving(muted_logging(module)):
        module.log("inside", 1.0)
    module.log("outside", 1.0)
    assert names == ["outside"]


def a_trainer() -> pl.Trainer:
    trainer = pl.Trainer(accelerator=ACCELERATOR, logger=False, enable_checkpointing=False, barebones=True)
    trainer.training = True
    return trainer


def test_the_stage_is_validation_inside_and_restored(leaving):
    trainer = a_trainer()
    with leaving(stage(trainer)):
        assert trainer.validating
        assert not trainer.training
    assert trainer.training


# --- All of them -------------------------------------------------------------------------------------------------


def test_no_trace_is_all_of_them_and_no_gradients(leaving):
    trainer, module, owner = a_trainer(), Logging(Stateful(), nn.Dropout()), Owner(np.random.default_rng(0))
    module.inner[1].eval()
    random_before, owned_before = random.getstate(), generator_state(owner.kept)
    with leaving(no_trace(trainer, module, 0, owner)):
        assert not torch.is_grad_enabled()
        assert not torch.is_inference_mode_enabled()
        assert trainer.validating
        assert not module.training
        draw(), draw(owner.kept), module.inner[0](), log_all(module)
    assert torch.is_grad_enabled()
    assert trainer.training
    assert [part.training for part in module.modules()] == [True, True, True, False]
    assert module.inner[0].written.tolist() == [0, 0]
    assert module.inner[0].seen == []
    assert module.logged == []
    assert random.getstate() == random_before
    assert same(generator_state(owner.kept), owned_before)


def test_no_trace_restores_the_name_of_the_hook_that_logging_asks_for(leaving):
    """Lightning does not put it back when a batch hook raises, and the next callback's ``self.log`` would fail."""
    trainer, module = a_trainer(), Logging()
    module._current_fx_name = "on_train_batch_end"
    with leaving(no_trace(trainer, module, 0)):
        module._current_fx_name = "on_after_batch_transfer"
    assert module._current_fx_name == "on_train_batch_end"


@pytest.mark.parametrize("failing", ["generators", "attributes", "eval_mode", "buffers", "muted_logging", "stage"])
def test_no_trace_restores_what_it_has_entered_when_entering_the_rest_fails(failing, monkeypatch):
    def broken(*_: Any, **__: Any) -> Any:
        raise RuntimeError("cannot enter")

    trainer, module = a_trainer(), Logging(Stateful())
    monkeypatch.setattr(isolation, failing, broken)
    before = random.getstate()
    with pytest.raises(RuntimeError, match="cannot enter"), no_trace(trainer, module, 0):
        pass
    assert random.getstate() == before
    assert module.training
    assert trainer.training
    assert torch.is_grad_enabled()
