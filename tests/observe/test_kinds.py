"""Lists and streams of data: whether they hold items or batches is told by the shapes, or not at all."""

from collections import namedtuple

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from lightning_mesa import LoaderDistribution
from lightning_mesa.observe.kinds import holds_data, is_batch, is_function, is_loader

Pair = namedtuple("Pair", ["x", "y"])


class Graph:
    """Like a graph of a graph library: keys, and everything that a loader has as well."""

    def keys(self):
        return ["x"]

    def __iter__(self):
        return iter([("x", torch.ones(3))])

    def __len__(self):
        return 1

    def __getitem__(self, key):
        return torch.ones(3)

    def __call__(self):
        return self


class Web:
    def __iter__(self):
        return iter([torch.ones(3)])


class Rows:
    def __len__(self):
        return 1

    def __getitem__(self, i):
        return torch.ones(3)


ITEMS = {
    "a label without dimensions": {"x": torch.ones(8), "y": torch.tensor(1)},
    "a label that is a number": (torch.ones(8), 1),
    "a label that is a float": (torch.ones(8), 0.5),
    "a label that is a NumPy number": (np.ones(8), np.int64(1)),
    "a text": {"text": "good", "y": 1},
    "tokens of one length, and a label": {"input_ids": [1, 2], "attention_mask": [1, 1], "label": 0},
    "a named tuple": Pair(torch.ones(8), 1),
    "a picture and its mask": (torch.ones(3, 32, 32), torch.ones(32, 32)),
    "inputs in a mapping of their own": {"inputs": {"ids": torch.ones(8)}, "y": 1},
    "something unknown": (object(), torch.ones(3)),
    "a graph": Graph(),
}
BATCHES = {
    "inputs and labels": {"x": torch.ones(50, 8), "y": torch.ones(50)},
    "a tuple": (torch.ones(50, 8), torch.ones(50)),
    "a list": [torch.ones(50, 8), torch.ones(50)],
    "a batch of one": (torch.ones(1, 8), torch.ones(1)),
    "arrays": (np.ones((50, 8)), np.ones(50)),
    "a list of names beside pictures": {"image": torch.ones(5, 3, 4, 4), "name": ["a"] * 5},
    "pictures and their masks": (torch.ones(5, 3, 4, 4), torch.ones(5, 4, 4)),
    "a named tuple": Pair(torch.ones(50, 8), torch.ones(50)),
    "inputs in a mapping of their own": {"inputs": {"ids": torch.ones(5, 8)}, "y": torch.ones(5)},
}
DOUBTFUL = {
    "one tensor": torch.ones(50, 8),
    "one field": (torch.ones(50, 8),),
    "tokens and tags": {"tokens": torch.ones(128), "tags": torch.ones(128)},
    "two columns": (torch.ones(50, 1), torch.ones(50, 1)),
    "lists of numbers": {"tokens": [1, 2, 3], "tags": [0, 0, 1]},
}


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        *[pytest.param(entry, False, id=f"item: {name}") for name, entry in ITEMS.items()],
        *[pytest.param(entry, True, id=f"batch: {name}") for name, entry in BATCHES.items()],
        *[pytest.param(entry, None, id=f"doubtful: {name}") for name, entry in DOUBTFUL.items()],
    ],
)
def test_the_shapes_of_one_entry_tell_items_from_batches_or_leave_doubt(entry, expected):
    assert is_batch(entry) is expected
    assert holds_data([entry])


@pytest.mark.parametrize(
    "entry",
    [
        DataLoader([1]),
        TensorDataset(torch.ones(3)),
        Web(),
        Rows(),
        "val/1",
        lambda: DataLoader([1]),
        LoaderDistribution("val"),
        {"a": DataLoader([1])},
        [Web(), Rows()],
    ],
)
def test_a_list_of_loaders_names_or_distributions_holds_no_data(entry):
    assert not holds_data([entry])


def test_an_empty_list_holds_nothing():
    assert not holds_data([])


@pytest.mark.parametrize(
    "found",
    [3, None, "val", b"12", torch.ones(3), np.ones(3), {"x": torch.ones(3)}, [Web()], (Web(),), Web, Graph(), len],
)
def test_data_collections_and_classes_are_no_loaders(found):
    assert not is_loader(found)


@pytest.mark.parametrize("found", [DataLoader([1]), TensorDataset(torch.ones(3)), Web(), Rows(), iter([1]), range(3)])
def test_whatever_gives_items_by_number_or_batches_in_turn_may_be_a_loader(found):
    assert is_loader(found)
    assert not is_function(found)


@pytest.mark.parametrize(("found", "expected"), [(len, True), (Web, True), (torch.nn.Linear(1, 1), False), (3, False)])
def test_functions_and_classes_are_called_and_models_are_not(found, expected):
    assert is_function(found) == expected
