"""Batches of every kind are cut to some of their items, or left whole."""

from collections import OrderedDict, UserDict, namedtuple
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import Tensor

from lightning_mesa.observe.rows import cut

N = 5
KEEP = torch.tensor([True, False, True, True, False])
X, Y = torch.arange(10.0).reshape(N, 2), torch.arange(N)
Pair = namedtuple("Pair", "x y")


@dataclass(frozen=True)
class Record:
    x: Tensor
    name: str


class Encoding(UserDict):
    """As tokenizers give it: keys, which are attributes as well."""

    def __getattr__(self, name):
        return self.data[name]


CUT = {
    "a tensor": (X, lambda b: b),
    "a mapping": ({"x": X, "y": Y}, lambda b: b["x"]),
    "an ordered one": (OrderedDict(x=X), lambda b: b["x"]),
    "one of a tokenizer": (Encoding(x=X), lambda b: b.x),
    "a tuple": ((X, Y), lambda b: b[0]),
    "a list, as collate gives it": ([X, Y], lambda b: b[0]),
    "as many fields as items": ([X, *[Y] * (N - 1)], lambda b: b[0]),
    "a namedtuple": (Pair(X, Y), lambda b: b.x),
    "a dataclass": (Record(X, "val"), lambda b: b.x),
    "nested": ({"inputs": {"image": X}, "y": (Y, None)}, lambda b: b["inputs"]["image"]),
    "an array": ({"x": X.numpy()}, lambda b: torch.from_numpy(b["x"])),
    "single values beside": ({"x": X, "scale": 2.0, "t": torch.tensor(3), "of": "val", "no": None}, lambda b: b["x"]),
}


@pytest.mark.parametrize(("batch", "x"), CUT.values(), ids=CUT.keys())
def test_a_batch_of_rows_is_cut_and_the_own_one_left(batch, x):
    of_batch, outputs, rest = cut(batch, X, KEEP)
    assert rest is None
    assert type(of_batch) is type(batch)
    assert torch.equal(x(of_batch), X[KEEP])
    assert torch.equal(outputs, X[KEEP])
    assert torch.equal(x(batch), X)  # the user's own is as it was


@pytest.mark.parametrize(
    "words", [list("abcde"), tuple("abcde"), [{"box": i} for i in "abcde"], [[1], [], [2], [3], []]]
)
def test_lists_with_one_thing_for_each_item_are_cut(words):
    of_batch, _, _ = cut({"x": X, "of": words}, X, KEEP)
    assert list(of_batch["of"]) == [words[i] for i in (0, 2, 3)]


def test_a_batch_that_is_a_list_of_texts_is_cut():
    assert cut(list("abcde"), X, KEEP)[0] == ["a", "c", "d"]


WHOLE = {
    "a graph": type("Graph", (), {"x": X})(),
    "a graph beside rows": {"x": X, "graph": object()},
    "tokens of all items in one tensor": {"x": X, "tokens": torch.zeros(17)},
    "a sparse tensor": {"x": X.to_sparse()},
    "n tensors of n rows, which may be fields or items": {"x": [X] * N},
    "n arrays of n rows": {"x": [np.zeros((N, 2))] * N},
}


@pytest.mark.parametrize("batch", WHOLE.values(), ids=WHOLE.keys())
def test_what_may_hold_something_else_than_rows_is_left_whole(batch):
    """With what is still to be left out of the scores."""
    of_batch, outputs, rest = cut(batch, X, KEEP)
    assert of_batch is batch
    assert outputs is X
    assert torch.equal(rest, KEEP)


def test_nothing_is_touched_where_all_items_are_kept():
    batch = {"x": X}
    of_batch, outputs, rest = cut(batch, X, None)
    assert (of_batch, rest) == (batch, None)
    assert outputs is X
