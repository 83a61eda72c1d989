"""The user's items, each once and in order, and the user's loader never iterated."""

import inspect
from typing import Any

import pytest
import torch
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    DistributedSampler,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
    get_worker_info,
)

from lightning_mesa.data.items import batches_in
from lightning_mesa.errors import ConfigurationError
from lightning_mesa.observe import loaders
from lightning_mesa.observe.isolation import generators
from lightning_mesa.observe.loaders import Batches, item_loader


class Numbers(Dataset):
    """Items 0, 1, 2, ..."""

    def __init__(self, n: int) -> None:
        self.n = n

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, i: int) -> int:
        if not 0 <= i < self.n:
            raise IndexError(i)
        return int(i)


class Noisy(Numbers):
    """Items that draw from the random stream of the process that reads them."""

    def __getitem__(self, i: int) -> float:
        return i + torch.rand(()).item()


class Stream(IterableDataset):
    """Items 0, 1, 2, ..., without a length, shared by the workers."""

    def __init__(self, n: int) -> None:
        self.n = n

    def __iter__(self) -> Any:
        worker = get_worker_info()
        return iter(range(worker.id if worker else 0, self.n, worker.num_workers if worker else 1))


class NoLength(Dataset):
    def __getitem__(self, i: int) -> int:
        return i


class Never(DataLoader):
    """A user's loader that must not be iterated."""

    def __iter__(self) -> Any:
        raise AssertionError("the user's loader was iterated")


class Pairs:
    """A user's batch sampler."""

    def __init__(self, n: int) -> None:
        self.n = n

    def __iter__(self) -> Any:
        return iter([[i, i + 1] for i in range(0, self.n, 2)])

    def __len__(self) -> int:
        return self.n // 2


class Backwards(SequentialSampler):
    """A user's own kind of a sampler of torch's."""

    def __iter__(self) -> Any:
        return reversed(range(len(self.data_source)))


def as_list(batch: Any) -> list[int]:
    return list(batch)


def batches(items: Any, **options: Any) -> list[list[int]]:
    loader = item_loader(items, **{"batch_size": 4, "seed": 0} | options)
    return [batch.tolist() if isinstance(batch, torch.Tensor) else batch for batch in loader]


def flat(items: Any, **options: Any) -> list[int]:
    return [item for batch in batches(items, **options) for item in (batch if isinstance(batch, list) else [batch])]


class Rows:
    """Map style by its two methods, as a dataset of Hugging Face."""

    def __init__(self, n: int) -> None:
        self.n = n

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, i: int) -> int:
        return Numbers(self.n)[i]


WHOLE = {
    "a dataset": lambda n: Numbers(n),
    "a dataset by protocol": Rows,
    "a list": lambda n: list(range(n)),
    "a loader over a dataset by protocol": lambda n: Never(Rows(n), 3),
    "a loader": lambda n: Never(Numbers(n), 3),
    "a shuffling loader": lambda n: Never(Numbers(n), 3, shuffle=True),
    "a distributed sampler": lambda n: Never(
        Numbers(n), 3, sampler=DistributedSampler(Numbers(n), num_replicas=2, rank=1)
    ),
    "a batch sampler of torch's": lambda n: Never(
        Numbers(n), batch_sampler=BatchSampler(RandomSampler(Numbers(n)), 3, drop_last=False)
    ),
    "no batching": lambda n: Never(Numbers(n), batch_size=None),
    "no batching, shuffled": lambda n: Never(Numbers(n), batch_size=None, shuffle=True),
}


@pytest.mark.parametrize("items", WHOLE)
def test_every_item_is_read_once_and_in_order(items):
    assert flat(WHOLE[items](10)) == list(range(10))


@pytest.mark.parametrize("n", [1, 2, 7, 8, 9])
@pytest.mark.parametrize("items", WHOLE)
def test_the_ranks_share_the_items_without_padding(items, n):
    """A padded share would count some items twice."""
    shares = [flat(WHOLE[items](n), rank=rank, world_size=3) for rank in range(3)]
    assert sorted(item for share in shares for item in share) == list(range(n))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_a_dataset_takes_the_batch_size_given_and_a_loader_its_own():
    assert [len(batch) for batch in batches(Numbers(10), batch_size=4)] == [4, 4, 2]
    assert [len(batch) for batch in batches(Never(Numbers(10), 3), batch_size=4)] == [3, 3, 3, 1]
    assert [len(batch) for batch in batches(Never(Stream(10), 3), batch_size=4)] == [3, 3, 3, 1]
    assert batches(Never(Numbers(3), batch_size=None), batch_size=4) == [0, 1, 2]


@pytest.mark.parametrize("option", sorted(inspect.signature(DataLoader).parameters.keys() - {"dataset", "shuffle"}))
def test_every_option_of_a_loader_is_kept_or_known_to_be_ours(option):
    """One that a later torch adds is to be thought of."""
    ours = {"generator", "persistent_workers", "in_order", "sampler", "batch_sampler", "batch_size", "drop_last"}
    assert option in (*loaders._KEPT, *ours)


def test_how_the_user_loads_is_kept():
    def started(worker: int) -> None:
        pass

    users = Never(
        Numbers(10),
        3,
        num_workers=2,
        collate_fn=as_list,
        timeout=7,
        worker_init_fn=started,
        prefetch_factor=5,
        multiprocessing_context="spawn",
        persistent_workers=True,
    )
    ours = item_loader(users, batch_size=4, seed=0)
    for option in set(loaders._KEPT) - {"multiprocessing_context"}:
        assert getattr(ours.loader, option) == getattr(users, option), option
    ours = ours.loader
    assert ours.multiprocessing_context.get_start_method() == "spawn"
    assert ours.dataset is users.dataset
    assert not ours.persistent_workers  # ours lives for one look


@pytest.mark.parametrize("items", [Never(Numbers(10), 3, num_workers=2), Never(Stream(10), 3, num_workers=2)])
def test_workers_read_each_item_once(items):
    assert sorted(flat(items)) == list(range(10))


def test_a_users_collate_function_makes_the_batches():
    assert batches(Never(Numbers(4), 3, collate_fn=lambda items: [-item for item in items])) == [[0, -1, -2], [-3]]


# --- Samplers that choose ----------------------------------------------------------------------------------------


def test_a_subset_sampler_chooses_the_items():
    users = Never(Numbers(10), 2, sampler=SubsetRandomSampler([2, 3, 5, 7, 8]))
    assert sorted(flat(users)) == [2, 3, 5, 7, 8]
    assert [len(batch) for batch in batches(users)] == [2, 2, 1]


def test_a_weighted_sampler_chooses_the_items():
    sampler = WeightedRandomSampler([0, 0, 1, 0, 1], num_samples=9, generator=torch.Generator().manual_seed(0))
    chosen = flat(Never(Numbers(5), 2, sampler=sampler))
    assert len(chosen) == 9
    assert set(chosen) == {2, 4}


def test_sampling_with_replacement_is_kept():
    sampler = RandomSampler(Numbers(5), replacement=True, num_samples=20, generator=torch.Generator().manual_seed(0))
    assert len(flat(Never(Numbers(5), 2, sampler=sampler))) == 20


def test_any_other_sampler_is_asked():
    assert flat(Never(Numbers(10), 2, sampler=[4, 1])) == [4, 1]


def test_a_users_sampler_that_inherits_from_torchs_is_asked():
    assert flat(Never(Numbers(3), 2, sampler=Backwards(Numbers(3)))) == [2, 1, 0]


def test_a_sampler_over_a_part_of_the_dataset_keeps_to_it():
    assert flat(Never(Numbers(10), 2, sampler=SequentialSampler(range(4)))) == [0, 1, 2, 3]


def test_a_sampler_of_fewer_items_than_there_are_is_asked():
    assert len(flat(Never(Numbers(10), 2, sampler=RandomSampler(Numbers(10), num_samples=4)))) == 4


def test_a_users_batch_sampler_makes_the_batches():
    users = Never(Numbers(6), batch_sampler=Pairs(6))
    assert batches(users) == [[0, 1], [2, 3], [4, 5]]
    assert [batches(users, rank=rank, world_size=2) for rank in (0, 1)] == [[[0, 1], [4, 5]], [[2, 3]]]


# --- Full batches alone ------------------------------------------------------------------------------------------

DROPPING = {
    "a loader": lambda n: Never(Numbers(n), 3, drop_last=True),
    "a shuffling loader": lambda n: Never(Numbers(n), 3, drop_last=True, shuffle=True),
    "a sampler that chooses": lambda n: Never(Numbers(n + 5), 3, drop_last=True, sampler=range(n)),
    "a batch sampler of torch's": lambda n: Never(
        Numbers(n), batch_sampler=BatchSampler(RandomSampler(Numbers(n)), 3, drop_last=True)
    ),
    "a stream": lambda n: Never(Stream(n), 3, drop_last=True),
}


@pytest.mark.parametrize("n", [3, 4, 5, 6, 11])
@pytest.mark.parametrize("items", DROPPING)
def test_where_the_users_loader_drops_the_last_batch_only_full_batches_are_read(items, n):
    """By all processes together the same ones as by one, so that findings do not depend on how many there are."""
    alone = batches(DROPPING[items](n))
    assert alone == [list(range(i, i + 3)) for i in range(0, n - 2, 3)]
    for world_size in (2, 3):
        shares = [batches(DROPPING[items](n), rank=rank, world_size=world_size) for rank in range(world_size)]
        assert sorted(batch for share in shares for batch in share) == alone


@pytest.mark.parametrize("items", DROPPING)
def test_a_limit_counts_full_batches(items):
    for world_size in (1, 2, 3):
        shares = [batches(DROPPING[items](11), rank=r, world_size=world_size, limit=2) for r in range(world_size)]
        assert sorted(batch for share in shares for batch in share) == [[0, 1, 2], [3, 4, 5]]


@pytest.mark.parametrize("n", [0, 1, 2])
def test_fewer_items_than_a_full_batch_are_refused_where_only_those_are_read(n):
    with pytest.raises(ConfigurationError, match=f"drop_last=True, and {n} items make no batch of 3, so nothing would"):
        batches(Never(Numbers(n), 3, drop_last=True))


# --- Batches of the user's own making ----------------------------------------------------------------------------


class Web:
    """An iterable of batches."""

    def __init__(self, n: int) -> None:
        self.n = n

    def __iter__(self) -> Any:
        return iter(torch.arange(self.n).split(3))


OWN = {
    "an iterable": lambda n: Batches(Web(n)),
    "a list of batches": lambda n: Batches(torch.arange(n).split(3)),
    "a generator function": lambda n: Batches(lambda: (batch for batch in torch.arange(n).split(3))),
    "a loader inside": lambda n: Batches(DataLoader(Numbers(n), 3)),
}


@pytest.mark.parametrize("world_size", [1, 2, 3])
@pytest.mark.parametrize("limit", [None, 2])
@pytest.mark.parametrize("items", OWN)
def test_batches_of_the_users_own_are_shared_in_turn_and_read_again(items, limit, world_size):
    users = OWN[items](11)
    for _ in range(2):
        shares = [batches(users, rank=rank, world_size=world_size, limit=limit) for rank in range(world_size)]
        expected = [[0, 1, 2], [3, 4, 5], [6, 7, 8], [9, 10]][:limit]
        assert sorted(batch for share in shares for batch in share) == expected
        assert [len(share) for share in shares] == [len(expected[r::world_size]) for r in range(world_size)]


@pytest.mark.parametrize(("items", "expected"), [("a list of batches", 2), ("an iterable", None)])
def test_how_many_batches_there_are_is_known_where_the_user_knows(items, expected):
    loader = item_loader(OWN[items](11), batch_size=4, seed=0, limit=3, rank=0, world_size=2)
    assert batches_in(loader) == expected


def test_an_iterable_that_can_be_read_once_is_refused_when_it_has_been():
    once = torch.arange(6).split(3).__iter__()

    class Once(Web):
        def __iter__(self) -> Any:
            return once

    assert len(batches(Batches(Once(6)))) == 2
    with pytest.raises(ConfigurationError, match=r"no batch, or none any more: .* pass the function that makes it"):
        batches(Batches(Once(6)))


def test_a_generator_of_the_users_is_closed_when_enough_has_been_read():
    """What it leaves behind can be put back only then."""
    closed = []

    def made() -> Any:
        try:
            yield from torch.arange(9).split(3)
        finally:
            closed.append(True)

    assert len(batches(Batches(made), limit=1)) == 1
    assert closed


# --- Iterable datasets and refusals ------------------------------------------------------------------------------


@pytest.mark.parametrize("items", [Stream(10), Never(Stream(10), 4), Never(Stream(10), batch_size=None)])
def test_an_iterable_dataset_is_read_to_its_end(items):
    assert flat(items) == list(range(10))


@pytest.mark.parametrize("world_size", [2, 3])
@pytest.mark.parametrize("items", [Stream(10), Never(Stream(10), 4), Never(Stream(10), batch_size=None)])
def test_the_ranks_share_a_stream_item_by_item(items, world_size):
    shares = [flat(items, rank=rank, world_size=world_size) for rank in range(world_size)]
    assert shares == [list(range(rank, 10, world_size)) for rank in range(world_size)]


# --- Limits and numbers ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("world_size", [1, 2, 3])
@pytest.mark.parametrize("items", ["a dataset", "a loader", "a batch sampler of torch's", "no batching"])
def test_a_limit_holds_for_all_ranks_together(items, world_size):
    """Two batches in all, as on one process: the same items, whoever reads them."""
    items = WHOLE[items](20)
    shares = [flat(items, rank=rank, world_size=world_size, limit=2) for rank in range(world_size)]
    assert sorted(item for share in shares for item in share) == flat(items, limit=2)


def test_a_limit_holds_for_a_users_batch_sampler_and_a_stream():
    assert batches(Never(Numbers(6), batch_sampler=Pairs(6)), limit=2) == [[0, 1], [2, 3]]
    assert flat(Never(Stream(10), 3), limit=2) == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    "items",
    [
        Numbers(11),
        Never(Numbers(11), 3),
        Never(Stream(11), 3),
        Never(Numbers(12), batch_sampler=Pairs(12)),
        Never(Numbers(11), 3, drop_last=True),
        Never(Stream(11), 3, drop_last=True),
        Batches(Web(11)),
    ],
)
def test_an_item_has_the_same_number_whichever_rank_reads_it(items):
    """Halves of the items are drawn by number."""

    def numbered(rank, world_size):
        loader, seen, found = item_loader(items, batch_size=4, seed=0, rank=rank, world_size=world_size), 0, {}
        for i, batch in enumerate(loader):
            found |= zip(batch.tolist(), loader.numbers(i, seen, len(batch)).tolist(), strict=True)
            seen += len(batch)
        return found

    alone = numbered(0, 1)
    assert len(set(alone.values())) == len(alone)
    for world_size in (2, 3):
        shared: dict = {}
        for rank in range(world_size):
            shared |= numbered(rank, world_size)
        assert shared == alone


@pytest.mark.parametrize("items", [NoLength(), Never(NoLength(), 2, sampler=RandomSampler(Numbers(3)))])
def test_a_dataset_without_a_length_is_refused(items):
    with pytest.raises(ConfigurationError, match="NoLength has no length"):
        item_loader(items, batch_size=4, seed=0)


def test_a_dataset_without_a_length_is_read_where_the_users_sampler_knows_the_items():
    assert flat(Never(NoLength(), 2, sampler=[3, 1, 4])) == [3, 1, 4]


@pytest.mark.parametrize(
    "items", [[torch.ones(2), torch.ones(3)], [object(), object()], [{"x": [1, 2]}, {"x": [1]}], [{"x": None}] * 2]
)
def test_items_that_torch_cannot_put_together_are_refused_with_the_remedy(items):
    with pytest.raises(
        ConfigurationError, match=r"cannot be put together to a batch .*: pass a DataLoader with a coll"
    ):
        list(item_loader(items, batch_size=4, seed=0))


# --- No trace ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [0, 2])
def test_neither_the_users_generator_nor_the_global_stream_is_advanced(workers):
    shared = torch.Generator().manual_seed(1)
    users = Never(Numbers(10), 3, shuffle=True, generator=shared, num_workers=workers)
    before, torch_before = shared.get_state(), torch.get_rng_state()
    assert len(flat(users)) == 10
    assert torch.equal(shared.get_state(), before)
    assert torch.equal(torch.get_rng_state(), torch_before)


def test_a_sampler_that_draws_does_so_inside_the_protection():
    shared = torch.Generator().manual_seed(1)
    users = Never(Numbers(10), 3, sampler=SubsetRandomSampler(range(5), generator=shared), generator=shared)
    before = shared.get_state()
    with generators(users):
        assert len(flat(users)) == 5
    assert torch.equal(shared.get_state(), before)


def test_the_users_persistent_workers_lose_no_batches():
    users = DataLoader(Numbers(12), 2, num_workers=2, persistent_workers=True)
    training = iter(users)
    seen = next(training).tolist()
    assert len(flat(users)) == 12
    for batch in training:
        seen += batch.tolist()
    assert seen == list(range(12))


@pytest.mark.parametrize("workers", [0, 2])
def test_each_look_sees_the_same_augmentations(workers):
    """Else the noise of augmentation would be taken for a change of the model."""
    users = Never(Noisy(8), 2, num_workers=workers)
    looks = []
    for _ in range(2):
        torch.manual_seed(0)  # as random_streams does in the process itself
        looks.append(flat(users, seed=3))
    assert looks[0] == looks[1]
    if workers:
        assert looks[0] != flat(users, seed=4)
