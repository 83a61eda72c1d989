"""Ids and groups, from keys and functions, whatever labels are."""

import numpy as np
import pytest
import torch

from lightning_mesa import ConfigurationError
from lightning_mesa.objectives.objective import named_keys
from lightning_mesa.observe.labels import check_groups, group_labels, ids_of, members

BATCH = {
    "site": torch.tensor([3, 1, 3, 1]),
    "word": ["b", "a", "b", "a"],
    "meta": torch.tensor([[3, 0], [1, 0], [3, 1], [1, 1]]),
}
KINDS = {
    "a key": ("site", "3"),
    "strings": ("word", "b"),
    "a function of a column": (lambda batch: batch["meta"][:, 0], "3"),
    "a function that gives an array": (lambda batch: batch["site"].numpy(), "3"),
    "an array of strings": (lambda batch: np.array(batch["word"]), "b"),
    "an array of objects": (lambda batch: np.array(batch["word"], dtype=object), "b"),
    "a list of numbers": (lambda batch: batch["site"].tolist(), "3"),
    "a tuple of strings": (lambda batch: tuple(batch["word"]), "b"),
    "bool": (lambda batch: batch["site"] == 3, "True"),
    "small unsigned numbers": (lambda batch: batch["site"].numpy().astype(np.uint16), "3"),
}


def groups_of(key):
    """Name -> which items."""
    return dict(members("g", [group_labels(BATCH, "g", key, 4)], {"val": None}))


@pytest.mark.parametrize(("key", "label"), KINDS.values(), ids=KINDS.keys())
def test_groups_are_found_by_key_or_function(key, label):
    groups = groups_of(key)
    assert len(groups) == 2
    assert groups[f"g.{label}"].tolist() == [True, False, True, False]


REFUSED = {
    "all columns at once": ("meta", r"group 'g': labels have shape \[4, 2\] for 4 items.*pass a function"),
    "numbers that are not whole": (
        lambda batch: batch["site"] / 2,
        "type torch.float32; groups need integers.*function",
    ),
    "too few": (lambda batch: batch["word"][:3], r"labels have shape \[3\] for 4 items: it must be \[4\]"),
    "things": (lambda batch: [object()] * 4, r"group 'g': \[an object, .* holds no labels; they must be a tensor"),
    "a function that fails": (lambda batch: batch["nope"], "group 'g' failed with KeyError: 'nope'"),
}


@pytest.mark.parametrize(("key", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_what_is_no_label_for_each_item_is_refused(key, message):
    with pytest.raises(ConfigurationError, match=message):
        groups_of(key)


def test_ids_that_are_strings_are_the_same_in_every_batch():
    """They are not numbered batch by batch: the gap would be measured on wrong pairs."""
    whole = ids_of({"id": ["a", "b", "c", "d"]}, "id", 4)
    assert len(set(whole.tolist())) == 4
    assert torch.equal(ids_of({"id": ["d", "a"]}, "id", 2), whole[[3, 0]])


def test_ids_are_integers_or_strings():
    assert ids_of(BATCH, lambda batch: batch["meta"][:, 1], 4).tolist() == [0, 0, 1, 1]
    with pytest.raises(ConfigurationError, match=r"ids must be integers or strings, and 'id' holds torch.float32"):
        ids_of({"id": torch.tensor([0.2, 0.7])}, "id", 2)


# --- names and how many -------------------------------------------------------------------------------------------


def site(batch):
    return batch["site"]


@pytest.mark.parametrize(
    ("keys", "names"),
    [
        ("site", ["site"]),
        (2, ["2"]),
        (["site", 2], ["site", "2"]),
        (site, ["site"]),
        ([site, lambda batch: batch, lambda batch: batch], ["site", "lambda_1", "lambda_2"]),
        ({"where": site, "who": lambda batch: batch}, ["where", "who"]),
        ("importable.data:digit", ["digit"]),
        (["importable.data:digit", "y"], ["digit", "y"]),
        ({"d": "importable.data:digit"}, ["d"]),
        ([], []),
    ],
)
def test_keys_have_names(keys, names):
    assert list(named_keys(keys, "groups")) == names


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (["site", site], "groups: two are named 'site'; give names, groups="),
        ([0.5], r"groups\[0\] must be a key or index of the batch, a function batch -> \[n\], or its import path"),
        ({"a": None}, r"groups\['a'\] must be a key"),
        (0.5, "groups must be a key"),
        (["importable.data:nope"], r"groups\[0\]: 'importable.data:nope' cannot be imported: .* has no 'nope'"),
    ],
)
def test_what_is_no_key_is_refused(keys, message):
    with pytest.raises(ConfigurationError, match=message):
        named_keys(keys, "groups")


def test_sixty_four_groups_of_a_key_are_watched_and_one_more_is_refused():
    """Each key is counted by itself."""
    labels = {f"site.{i}" for i in range(64)} | {f"word.{i}" for i in range(64)}
    check_groups(["site", "word"], labels, "val")
    with pytest.raises(ConfigurationError, match=r"'site' has more than 64 .* on 'val' \(site.0, .*function"):
        check_groups(["word", "site"], labels | {"site.64"}, "val")
