"""What attributes of modules hold is put back after a look, into the same objects."""

import threading
from collections import Counter, OrderedDict, defaultdict, deque
from contextlib import suppress
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import Dataset
from torchmetrics import MeanMetric, MetricCollection
from torchmetrics.classification import MulticlassAccuracy

from lightning_mesa.observe import contents, state
from lightning_mesa.observe.state import attributes
from neutrality import differences


class LeftError(Exception):
    """Raised on purpose."""


@dataclass
class Tally:
    seen: int = 0
    values: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Frozen:
    held: dict[str, int]


@dataclass(slots=True)
class Slotted:
    seen: int = 0


class Cache(dict):
    """A mapping whose methods do something else, with an attribute of its own."""

    hits = 0

    def update(self, *_: Any, **__: Any) -> None:
        raise AssertionError("not to be called")

    clear = update


class Remembering:
    """An object of a user's class, with a lock as many have."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.hits = 0
        self.last: Any = None


def counting() -> Any:
    calls, log = 0, []

    def count() -> None:
        nonlocal calls
        calls += 1
        log.append(calls)

    return count


def metric(kind: Any) -> Any:
    made = kind()
    made.update(torch.tensor([1.0]))
    made.compute()
    return made


def update_and_compute(held: Any) -> None:
    held.update(torch.tensor([9.0]))
    held.compute()


def in_circles() -> list[Any]:
    circle: list[Any] = [1]
    circle.append({"again": circle})
    return circle


def table() -> torch.Tensor:
    return torch.arange(2**19).float()  # 2 MiB: large


IN_PLACE: dict[str, tuple[Any, Any]] = {
    "a tensor": (lambda: torch.zeros(3), lambda held: held.add_(1)),
    "a tensor, past its count of writes": (lambda: torch.zeros(3), lambda held: held.data.add_(1)),
    "a tensor with NaN": (lambda: torch.tensor([torch.nan, 1.0]), lambda held: held.fill_(0)),
    "a tensor that is resized": (lambda: torch.zeros(3), lambda held: held.resize_(5).fill_(1)),
    "a tensor in bfloat16": (lambda: torch.zeros(3, dtype=torch.bfloat16), lambda held: held.add_(1)),
    "a tensor that is trained": (lambda: torch.zeros(3, requires_grad=True), lambda held: held.data.add_(1)),
    "a tensor with a graph": (lambda: torch.zeros(3, requires_grad=True) * 2, lambda held: held.detach().add_(1)),
    "a large tensor that has been written": (lambda: table().mul_(2), lambda held: held.zero_()),
    "an array": (lambda: np.zeros(3), lambda held: held.__iadd__(1)),
    "an array of objects": (lambda: np.array([None, 1], dtype=object), lambda held: held.fill(2)),
    "a list": (lambda: [1, 2], lambda held: held.append(3)),
    "a list that is sorted": (lambda: [2, 1], lambda held: held.sort()),
    "a list of tensors": (lambda: [torch.zeros(2)], lambda held: held[0].add_(1)),
    "a dict": (lambda: {"a": 1}, lambda held: held.update(a=2, b=3)),
    "a dict whose order counts": (lambda: {"a": 1, "b": 2}, lambda held: held.update(a=held.pop("a"))),
    "a dict within a tuple": (lambda: (1, {"a": [1]}), lambda held: held[1]["a"].append(2)),
    "a defaultdict": (lambda: defaultdict(list), lambda held: held["new"].append(1)),
    "a Counter": (lambda: Counter("aab"), lambda held: held.update("b")),
    "an OrderedDict": (lambda: OrderedDict(a=1, b=2), lambda held: held.move_to_end("a")),
    "a dict of another class": (lambda: Cache(a=1), lambda held: (held.__setitem__("b", 2), vars(held).update(hits=1))),
    "a set": (lambda: {1, 2}, lambda held: held.add(3)),
    "a deque": (lambda: deque([1, 2], maxlen=2), lambda held: held.append(3)),
    "a dataclass": (Tally, lambda held: (setattr(held, "seen", 1), held.values.append(0.5))),
    "a frozen dataclass": (lambda: Frozen({"a": 1}), lambda held: held.held.update(a=2)),
    "a dataclass with slots": (Slotted, lambda held: setattr(held, "seen", 1)),
    "a namespace": (SimpleNamespace, lambda held: setattr(held, "late", 1)),
    "an object of a user's class": (Remembering, lambda held: (setattr(held, "hits", 1), setattr(held, "last", held))),
    "the variables of a closure": (counting, lambda held: held()),
    "an attribute of a function": (counting, lambda held: setattr(held, "calls", 1)),
    "a bound method": (lambda: [1].append, lambda held: held(2)),
    "a metric": (lambda: metric(MeanMetric), update_and_compute),
    "a metric that is reset": (lambda: metric(MeanMetric), lambda held: held.reset()),
    "metrics in a list": (lambda: [metric(MeanMetric)], lambda held: update_and_compute(held[0])),
    "metrics in a dict": (lambda: {"a": metric(MeanMetric)}, lambda held: held["a"](torch.tensor([9.0]))),
    "a collection of metrics": (lambda: metric(lambda: MetricCollection([MeanMetric()])), update_and_compute),
    "a metric with a list of states": (
        lambda: MulticlassAccuracy(3, multidim_average="samplewise"),
        lambda held: held.update(torch.zeros(2, 4, dtype=torch.long), torch.zeros(2, 4, dtype=torch.long)),
    ),
    "a module in a list, and its buffers": (lambda: [nn.BatchNorm1d(2)], lambda held: held[0](torch.randn(4, 2))),
    "what leads to itself": (in_circles, lambda held: held.append(3)),
}  # fmt: skip


class Owner(nn.Module):
    def __init__(self, held: Any) -> None:
        super().__init__()
        self.part = nn.Sequential(nn.Linear(1, 1))
        self.part[0].held = held  # on a part, as deep as it goes


def picture(held: Any, seen: tuple[int, ...] = ()) -> Any:
    """A copy of all that an object holds, as plain values."""
    if id(held) in seen:
        return "again"
    seen = (*seen, id(held))
    if isinstance(held, torch.Tensor):
        return held.detach().clone()
    if isinstance(held, np.ndarray):
        return held.tolist()
    if isinstance(held, dict):
        return [(key, picture(value, seen)) for key, value in held.items()] + [picture(getattr(held, "__dict__", None))]
    if isinstance(held, (list, tuple, set, deque)):
        return [picture(value, seen) for value in held]
    if isinstance(held, (nn.Module, Tally, Frozen, Remembering, SimpleNamespace)):
        parts = {k: v for k, v in vars(held).items() if not callable(v) and k != "lock"}
        return {key: picture(value, seen) for key, value in parts.items()}
    if isinstance(held, Slotted):
        return held.seen
    if callable(held):
        cells = [picture(cell.cell_contents) for cell in getattr(held, "__closure__", None) or ()]
        return [cells, picture(getattr(held, "__dict__", {})), picture(getattr(held, "__self__", None))]
    return held


@pytest.mark.parametrize("leaving", [None, LeftError, KeyboardInterrupt])
@pytest.mark.parametrize("what", IN_PLACE)
def test_what_is_changed_in_place_gets_its_contents_back(what, leaving):
    make, change = IN_PLACE[what]
    held = make()
    module, before = Owner(held), picture(held)
    with suppress(LeftError, KeyboardInterrupt), attributes(module):
        change(held)
        assert differences({"": before}, {"": picture(held)}), "the change is none"
        if leaving is not None:
            raise leaving
    assert not differences({"": before}, {"": picture(held)})
    assert module.part[0].held is held


@pytest.mark.parametrize("what", IN_PLACE)
def test_what_is_replaced_is_the_object_that_it_was(what):
    held = IN_PLACE[what][0]()
    module, before = Owner(held), picture(held)
    with attributes(module):
        module.part[0].held = nn.Identity() if isinstance(held, nn.Module) else torch.ones(1)
    assert module.part[0].held is held
    assert not differences({"": before}, {"": picture(held)})


@pytest.mark.parametrize("value", [None, True, 3, 0.5, "text", (1, 2), frozenset({1}), 1 + 2j, torch.float16])
def test_plain_values_are_put_back_and_others_leave(value):
    module = Owner(value)
    part = module.part[0]
    part.gone = value
    order = list(vars(part))
    with attributes(module):
        part.held, part.late, module.late = "another", 1, 1
        del part.gone
    assert (part.held, part.gone) == (value, value)
    assert list(vars(part)) == order
    assert not hasattr(module, "late")


def test_an_object_that_two_hold_stays_one():
    shared: list[int] = []
    module, outside = Owner({"a": shared, "b": (shared,)}), shared
    with attributes(module):
        shared.append(1)
        module.part[0].held["a"] = [5]
    assert module.part[0].held["a"] is module.part[0].held["b"][0] is outside
    assert outside == []


def test_views_of_one_tensor_stay_views():
    whole = torch.zeros(4)
    module = Owner([whole, whole[:2]])
    with attributes(module):
        whole.add_(1)
        module.part[0].held[1].add_(1)
    whole[0] = 7
    assert module.part[0].held[1].tolist() == [7, 0]


@pytest.mark.parametrize("written", [False, True], ids=["replaced", "written past its count"])
def test_what_a_graph_has_saved_is_not_counted_as_written(written):
    """A hidden state that training has not detached yet is part of a graph; a write to it would end the training."""
    weight = torch.ones(2, requires_grad=True)
    hidden = (weight * 2).exp()  # exp saves its result
    module = Owner(hidden)
    with attributes(module):
        hidden.data.add_(float(written))
        module.part[0].held = torch.zeros(2)
    hidden.sum().backward()
    assert torch.allclose(weight.grad, 2 * hidden)


def test_parameters_are_watched_and_never_copied(monkeypatch):
    copied, told = [], {}
    original = torch.Tensor.clone
    monkeypatch.setattr(torch.Tensor, "clone", lambda self, **k: copied.append(type(self)) or original(self, **k))
    module = Owner([nn.Parameter(torch.zeros(2))])
    with attributes(module, tell=told.update), torch.no_grad():
        module.part[0].weight.add_(1)
        module.part[0].held[0].add_(1)
    assert copied == []
    assert told == {"model.part.0.weight": "written in place", "model.part.0.held[0]": "written in place"}


def test_what_a_parameter_carries_is_put_back():
    """As quantized weights carry theirs, which a first call may move elsewhere."""
    module = Owner(None)
    weight = module.part[0].weight
    weight.scales = torch.ones(2)
    with attributes(module):
        module.part[0].moved, weight.scales = weight.scales, None
    assert weight.scales.tolist() == [1, 1]
    assert not hasattr(module.part[0], "moved")


def test_a_large_tensor_that_nobody_has_written_to_is_not_copied_but_named_if_a_look_writes_to_it(monkeypatch):
    sizes, told = [], {}
    original = torch.Tensor.clone
    monkeypatch.setattr(torch.Tensor, "clone", lambda self, **k: sizes.append(self.nbytes) or original(self, **k))
    module = Owner(table())
    with attributes(module, tell=told.update):
        pass
    assert (sizes, told) == ([], {})
    with attributes(module, tell=told.update):
        module.part[0].held.zero_()
    assert told == {"model.part.0.held": "written in place"}
    with attributes(module):
        module.part[0].held.fill_(5)
    assert module.part[0].held[0] == 0


def test_a_thorough_look_copies_what_nobody_has_written_to():
    module, told = Owner(table()), {}
    with attributes(module, thorough=True, tell=told.update):
        module.part[0].held.zero_()
    assert torch.equal(module.part[0].held, table())
    assert told == {}


def test_what_is_copied_has_a_limit(monkeypatch):
    """A replay buffer that fills the memory is not held twice."""
    monkeypatch.setattr(state, "_MOST", 3 * 2**20)
    module, told = Owner([table().mul_(1), table().mul_(1)]), {}
    with attributes(module, thorough=True, tell=told.update):
        module.part[0].held[0].zero_(), module.part[0].held[1].zero_()
    assert torch.equal(module.part[0].held[0], table())
    assert told == {"model.part.0.held[1]": "written in place"}


def test_an_expanded_tensor_costs_nothing():
    module = Owner(torch.ones(1).expand(2**20, 2**20))
    with attributes(module, thorough=True):
        pass
    assert module.part[0].held.stride() == (0, 0)


class Odd:
    """Raises when it is looked at."""

    @property
    def __dict__(self) -> Any:
        raise RuntimeError("no")


class OddTensor(torch.Tensor):
    """Cannot be copied."""

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.Tensor.clone:
            raise RuntimeError("no")
        return super().__torch_function__(func, types, args, kwargs or {})


@pytest.mark.parametrize(
    "odd", [Odd(), torch.zeros(2).as_subclass(OddTensor)], ids=["an object", "a tensor that cannot be copied"]
)
def test_an_odd_object_ends_nothing_and_is_named(odd):
    module, told = Owner([odd, [1]]), {}
    with attributes(module, tell=told.update):
        module.part[0].held[1].append(2)
    assert told == {"model.part.0.held[0]": "cannot be copied: RuntimeError"}
    assert module.part[0].held[1] == [1]


class Items(Dataset):
    def __init__(self) -> None:
        self.reads = 0


class Worker(threading.Thread):
    def __init__(self) -> None:
        super().__init__()
        self.ticks = 0


@pytest.mark.parametrize(
    ("held", "name"), [(Items(), "reads"), (Worker(), "ticks")], ids=["a dataset", "a thread of a user's"]
)
def test_what_belongs_to_others_is_left_alone(held, name):
    """Their state may go on in another thread, or is the data's own business."""
    module = Owner({"held": held})
    with attributes(module):
        setattr(held, name, 1)
    assert getattr(held, name) == 1


def test_nothing_is_touched_but_what_has_changed(monkeypatch):
    """Writes would make compiled code look again at what it has checked, and disturb whoever iterates."""
    writes: list[str] = []

    class Noting:
        keys, values, items, __getitem__ = dict.keys, dict.values, dict.items, dict.__getitem__

        @staticmethod
        def clear(held):
            writes.append("clear")
            dict.clear(held)

        @staticmethod
        def update(held, new):
            writes.extend(new)
            dict.update(held, new)

    monkeypatch.setattr(contents, "_kind", lambda held: Noting)
    held = {"a": [1], "b": {2}}
    module = Owner(held)
    with attributes(module):
        pass
    assert not writes
    with attributes(module):
        held["a"] = [3]
    assert writes == ["a"]
    assert held == {"a": [1], "b": {2}}
