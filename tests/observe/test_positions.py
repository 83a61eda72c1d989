"""A stream that remembers how far it has been read stands afterwards where it stood."""

import queue
from collections import deque
from functools import partial

import pytest
import torch
from torch.utils.data import DataLoader, IterableDataset

from lightning_mesa.observe.positions import positions


class Stream(IterableDataset):
    """Remembers in each way that Python has."""

    def __init__(self):
        self.epoch, self.read, self.last = 0, [], deque([0], maxlen=2)
        self.counts, self.seen, self.inner = {"read": 0, "old": 1}, {0}, None
        self.held = [Held()]

    def __iter__(self):
        self.epoch += 1
        self.new = True
        for i in range(3):
            self.read.append(i)
            self.last.append(i)
            self.counts["read"] += 1
            self.counts.pop("old", None)
            self.counts[i] = i
            self.seen.add(i)
            self.held[0].position += 1
            yield i

    def state(self):
        return {
            name: [part.position for part in value] if name == "held" else repr(value)
            for name, value in vars(self).items()
        }


class Held:
    __slots__ = ("__dict__", "kept")

    def __init__(self):
        self.position = 0


WAYS = {
    "the stream": lambda stream: stream,
    "a loader over it": lambda stream: DataLoader(stream, 2),
    "a list that holds it": lambda stream: [stream],
    "a mapping that holds it": lambda stream: {"a": stream},
    "a partial function of it": lambda stream: partial(iter, stream),
    "its method": lambda stream: stream.__iter__,
    "a function that closes over it": lambda stream: lambda: stream,
}


@pytest.mark.parametrize("way", WAYS)
def test_attributes_lists_mappings_sets_and_queues_are_put_back(way):
    stream = Stream()
    list(stream)
    before, read = stream.state(), stream.read
    with positions(WAYS[way](stream)):
        list(stream)
        assert stream.state() != before
    assert stream.state() == before
    assert stream.read is read


def test_they_are_put_back_after_an_error_too():
    stream = Stream()
    before = stream.state()

    def look():
        with positions(stream):
            list(stream)
            raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        look()
    assert stream.state() == before


def test_a_reading_that_goes_on_meanwhile_goes_on_as_it_would_have():
    """As in training: half of an epoch has been read, and a look reads all."""

    class Counted(Stream):
        def __iter__(self):
            self.at = 0
            while self.at < 6:
                self.at += 1
                yield self.at

    stream = Counted()
    training = iter(stream)
    seen = [next(training), next(training)]
    with positions(stream):
        assert list(stream) == [1, 2, 3, 4, 5, 6]
    assert seen + list(training) == [1, 2, 3, 4, 5, 6]


def test_a_mapping_is_not_touched_while_somebody_iterates_over_it():
    owner = Stream()
    names = iter(owner.counts)
    next(names)
    with positions(owner):
        owner.counts["read"] += 1
    assert list(names) == ["old"]


def test_persistent_workers_of_a_loader_inside_lose_no_batches():
    class Web:
        def __init__(self):
            self.loader = DataLoader(list(range(12)), 2, num_workers=1, persistent_workers=True)

        def __iter__(self):
            return iter(self.loader)

    web = Web()
    training = iter(web)
    seen = next(training).tolist()
    with positions(web):
        assert torch.cat(list(web)).tolist() == list(range(12))
    assert web.loader._iterator is training
    for batch in training:
        seen += batch.tolist()
    assert seen == list(range(12))


def test_what_other_threads_write_to_is_left_to_them():
    owner = Stream()
    owner.inner = queue.Queue()
    with positions(owner):
        owner.inner.put(1)
    assert owner.inner.qsize() == 1
