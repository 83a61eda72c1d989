"""A stream is taken for new items at every look only if another seed gives other ones."""

import random
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, IterableDataset

from lightning_mesa.observe import freshness
from lightning_mesa.observe.freshness import PROBED, draws_anew
from lightning_mesa.observe.loaders import Batches

N = 800


class Stream(IterableDataset):
    """Yields what a function gives."""

    def __init__(self, items, **owned):
        self.items = items
        vars(self).update(owned)
        self.read = 0

    def __iter__(self):
        for item in self.items(self):
            self.read += 1
            yield item


@dataclass
class Pair:
    x: torch.Tensor
    y: int


def drawn(stream):
    return ({"x": torch.randn(3), "y": random.randrange(10)} for _ in range(N))


def drawn_from_an_own_generator(stream):
    return ((stream.generator.standard_normal(3), stream.generator.integers(10)) for _ in range(N))


def drawn_from_a_torch_generator(stream):
    return (torch.randn(3, generator=stream.generator) for _ in range(N))


def drawn_by_numpy(stream):
    return (np.random.rand(2, 2) for _ in range(N))


def drawn_as_objects(stream):
    return (Pair(torch.randn(2), random.randrange(10)) for _ in range(N))


def endless(stream):
    while True:
        yield torch.rand(())


ANEW = {
    "global streams": Stream(drawn),
    "a numpy generator of its own": Stream(drawn_from_an_own_generator, generator=np.random.default_rng(0)),
    "a torch generator of its own": Stream(drawn_from_a_torch_generator, generator=torch.Generator()),
    "numpy's global stream": Stream(drawn_by_numpy),
    "objects": Stream(drawn_as_objects),
    "a stream without an end": Stream(endless),
    "a loader": DataLoader(Stream(drawn), 16),
    "batches of the user's own": Batches(lambda: ({"x": torch.randn(16, 3)} for _ in range(N // 16))),
    "batches that the dataset puts together": DataLoader(
        Stream(lambda stream: ({"x": torch.randn(16, 3), "name": ["a"] * 16} for _ in range(N // 16))), batch_size=None
    ),
}


@pytest.mark.parametrize("stream", ANEW)
def test_a_stream_that_draws_its_items_draws_them_anew(stream):
    assert draws_anew(ANEW[stream], seed=0)


def fixed(stream):
    return ({"x": torch.full((3,), float(i)), "y": i % 10} for i in range(N))


def seeded_by_itself(stream):
    draw = torch.Generator().manual_seed(0)
    return (torch.randn(3, generator=draw) for _ in range(N))


def shuffled(stream):
    return (torch.tensor(float(i)) for i in torch.randperm(N).tolist())


def noisy(stream):
    return ((i % 10 + torch.randn(3), i % 10) for i in range(N))


def shuffled_and_noisy(stream):
    return ((i % 10 + torch.randn(3), i % 10) for i in torch.randperm(400).tolist())


def with_an_object_without_values(stream):
    return (object() for _ in range(N))


def circular(stream):
    knot: list = []
    knot.append(knot)
    return (knot for _ in range(N))


def broken(stream):
    yield torch.rand(())
    raise OSError("the file is gone")


NOT_ANEW = {
    "a list of batches": Batches([torch.randn(16, 3) for _ in range(20)]),
    "the same batches in another order": Batches(lambda: (torch.arange(8) + 8 * i for i in torch.randperm(50))),
    "a dataset by protocol": range(10),
    "a map-style dataset": torch.utils.data.TensorDataset(torch.randn(10)),
    "a loader of one": DataLoader(torch.utils.data.TensorDataset(torch.randn(10)), 2, shuffle=True),
    "the same items": Stream(fixed),
    "items drawn from a seed of the stream's own": Stream(seeded_by_itself),
    "the same items in another order": Stream(shuffled),
    "the same items with other noise": Stream(noisy),
    "the same items in another order with other noise": Stream(shuffled_and_noisy),
    "nothing": Stream(lambda stream: ()),
    "objects that cannot be compared": Stream(with_an_object_without_values),
    "items that hold themselves": Stream(circular),
    "a stream that fails": Stream(broken),
}


@pytest.mark.parametrize("stream", NOT_ANEW)
def test_in_doubt_a_stream_repeats_its_items(stream):
    assert not draws_anew(NOT_ANEW[stream], seed=0)


def test_a_reordering_of_many_items_is_seen():
    """Of 20,000 items in another order 500 share one with 500 others but with chance exp(-12.5)."""
    big = Stream(lambda stream: (torch.tensor(i) for i in torch.randperm(20_000).tolist()))
    assert not any(draws_anew(big, seed) for seed in range(5))


def test_no_more_is_read_than_a_look_reads():
    stream = Stream(drawn)
    draws_anew(stream, seed=0, limit=20)
    assert stream.read <= 2 * (20 + 1)
    draws_anew(stream, seed=0)
    assert stream.read <= 2 * (20 + 1) + 2 * (PROBED + 1)


def test_nothing_is_left_of_the_seeds():
    stream = Stream(drawn_from_an_own_generator, generator=np.random.default_rng(0))
    before = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()
    own = stream.generator.bit_generator.state
    assert draws_anew(stream, seed=0)
    assert stream.generator.bit_generator.state == own
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (np.random.get_state()[1].tolist(), random.getstate()) == before[1:]


def test_large_items_are_kept_as_digests():
    first = freshness._first(3, Stream(lambda stream: (torch.randn(1000) for _ in range(3))), False, seed=0)
    assert [len(field) for item in first for field in item] == [64] * 3
