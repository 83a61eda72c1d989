"""What is decodable from a layer is told from what is decodable where nothing has been learned."""

import pytest
import torch
from torch.nn import functional as F

from lightning_mesa.observe.subject import Subject
from lightning_mesa.probes import Decodability, decodability
from lightning_mesa.probes.decodability import Items
from lightning_mesa.records import Behavior

N, A = 400, 4


def behavior(n=N, *, seed=0, layer=1.0, untrained=0.0, input_=0.0, first=0, ids=None, labels=None):
    """Labels at random; activations hold them with the given strengths, in noise."""
    draw = torch.Generator().manual_seed(seed)
    label = torch.randint(A, (n,), generator=draw) if labels is None else labels
    told = F.one_hot(label, A).float()

    def holding(strength):
        return torch.cat([strength * told, torch.zeros(n, 2)], 1) + 0.5 * torch.randn(n, A + 2, generator=draw)

    activations = {"input": holding(input_), "block": holding(layer), "untrained/block": holding(untrained)}
    return Behavior(
        distribution="apart",
        n=n,
        items=torch.arange(first, first + n),
        scores={},
        binary=frozenset(),
        prescribed={"y": told.bool()},
        uniform_scores={},
        chosen=label,
        groups={},
        ids=ids,
        activations=activations,
    )


def run(*behaviors, **options):
    probe = Decodability("block", **options)
    probe.check(Subject(torch.nn.ModuleDict({"block": torch.nn.Identity()})))
    for one in behaviors:
        probe.update(one)
    return probe.run(None)


def test_what_a_layer_has_learned_is_decodable():
    (result,) = run(behavior())
    assert result.value > 0.3
    assert result.positive
    assert (result.layer, result.objective) == ("block", "y")
    assert result.detail["compression"] > 0.1
    assert result.detail["selectivity"] == pytest.approx(result.detail["explained"], abs=0.05)


@pytest.mark.parametrize("known", ["untrained", "input_"])
def test_what_is_there_without_learning_does_not_count(known):
    (result,) = run(behavior(**{known: 1.0}))
    assert result.value < 0.1
    assert not result.positive


def test_labels_that_tell_nothing_are_not_decodable():
    (result,) = run(behavior(layer=0.0))
    assert result.high < 0.1
    assert not result.positive


def test_chance_is_rarely_taken_for_decodable():
    """5 % limits, one-sided against a bar of 0.02: labels at random, 100 times."""
    positive = sum(run(behavior(120, seed=seed, layer=0.0))[0].positive for seed in range(100))
    assert positive <= 3


def test_limits_cover_the_excess():
    """The truth is that of many items."""
    truth = run(behavior(40_000, layer=0.5))[0].value
    results = [run(behavior(seed=seed, layer=0.5))[0] for seed in range(60)]
    held = sum(result.low <= truth <= result.high for result in results)
    assert held >= 50


def test_groups_stay_together_in_folds_and_permutations():
    """A group's label, told by what is its own: nothing can be learned from one group about another."""
    groups = torch.arange(N) // 20
    label = torch.randint(A, (N // 20,), generator=torch.Generator().manual_seed(3))[groups]
    one = behavior(labels=label, layer=0.0)
    own = torch.randn(N // 20, 6, generator=torch.Generator().manual_seed(4))[groups]
    activations = {**one.activations, "block": own + 0.01 * torch.randn(N, 6)}
    rows, whole = (run(Behavior(**{**vars(one), "activations": activations, "ids": ids}))[0] for ids in (None, groups))
    assert rows.value > 0.15  # items of a group that are split tell each other's label
    assert whole.value < 0.1


def test_batches_add_up():
    first, second = behavior(200, seed=1), behavior(200, seed=2, first=200)
    probe, parts = Decodability("block"), []
    for batches in ((first, second), (first,), (second,)):
        one = Decodability("block")
        one.check(Subject(torch.nn.ModuleDict({"block": torch.nn.Identity()})))
        for batch in batches:
            one.update(batch)
        parts.append(one.accumulated())
    (whole, *halves) = parts
    probe.gathered([whole])
    two = Decodability("block")
    two.gathered(halves)
    assert probe.run(None)[0].value == pytest.approx(two.run(None)[0].value, abs=1e-9)


def held(probe):
    """Bytes of all that is kept."""
    probe._add_up()
    sums = [*probe._sums.values()]
    return sum(part.numel() * part.element_size() for one in sums for part in (one.products, one.yy))


def test_memory_does_not_grow_with_the_number_of_items():
    few, many = Decodability("block"), Decodability("block")
    for probe, batches in ((few, 2), (many, 20)):
        probe.check(Subject(torch.nn.ModuleDict({"block": torch.nn.Identity()})))
        for i in range(batches):
            probe.update(behavior(first=N * i))
            assert sum(len(part.items) for part in probe._waiting) < decodability.PORTION
    assert held(few) == held(many)


def test_items_wait_for_each_other(monkeypatch):
    """What comes out does not depend on how many are added up at once, but for the labels that change places."""
    batches = [behavior(100, seed=i, first=100 * i, layer=0.5) for i in range(4)]
    (together,) = run(*batches)
    monkeypatch.setattr(decodability, "PORTION", 1)
    (apart,) = run(*batches)
    assert together.value == pytest.approx(apart.value, abs=1e-9)


def test_a_group_in_several_batches_changes_places_as_a_whole():
    """Labels are those of the groups: after they have changed places, each group still has one."""
    groups = torch.arange(200) % 20
    one = behavior(200, labels=groups % A, ids=groups)
    batch = Items(one.items, groups, one.prescribed, {}, 0)
    labels = Items.joined([batch, batch]).permuted.view(400, decodability.COPIES, A).float()
    for group in range(20):
        of_group = labels[groups.repeat(2) == group]
        assert torch.equal(of_group, of_group[:1].expand_as(of_group))
    assert not torch.equal(labels[:, 0], labels[:, 1])


def test_the_untrained_copy_is_read_once():
    probe = Decodability("block")
    probe.check(Subject(torch.nn.ModuleDict({"block": torch.nn.Identity()})))
    assert probe.wants_untrained
    probe.update(behavior(untrained=1.0))
    probe.run(None)
    assert not probe.wants_untrained
    later = behavior()
    del later.activations["untrained/block"]
    probe.update(later)
    (result,) = probe.run(None)
    assert result.detail["explained_untrained"] > 0.3


@pytest.mark.parametrize(
    ("one", "status"),
    [
        (behavior(8), "underpowered"),
        (behavior(labels=torch.zeros(N).long()), "not_applicable"),
    ],
)
def test_too_little_has_a_status(one, status):
    (result,) = run(one)
    assert (result.status, result.value) == (status, None)


def test_without_activations_it_does_not_apply():
    (result,) = run()
    assert result.status == "not_applicable"


def test_activations_that_are_not_finite_are_left_out():
    one = behavior()
    one.activations["block"][::7] = torch.nan
    (result,) = run(one)
    assert result.positive
    assert result.n == N - len(range(0, N, 7))
