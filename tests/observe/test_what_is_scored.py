"""Items without a label are left out, class ids are no choices, and a score that is none is refused in words."""

from dataclasses import fields
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from lightning_mesa import ConfigurationError, Matches, NegativeLoss, ScoreFunction
from lightning_mesa.objectives.hypotheses import Hypotheses
from lightning_mesa.observe.context import Reading
from lightning_mesa.observe.forward import behave, choices

N, A = 12, 4
DRAW = torch.Generator().manual_seed(0)
OUTPUTS = torch.randn(N, A, generator=DRAW)
Y, Z = torch.randint(A, (2, N), generator=DRAW)
READING = Reading(groups={"site": "site", "word": "word"}, ids="id")


def probability(batch, outputs):
    return outputs.softmax(1).gather(1, batch["y"][:, None])[:, 0]


def batch_of(y, z):
    words = ["north" if i % 3 else "south" for i in range(N)]
    return {"y": y, "z": z, "site": torch.arange(N) % 2, "word": words, "id": torch.arange(N) + 7}


def assert_same(one, other):
    for of in fields(one):
        a, b = getattr(one, of.name), getattr(other, of.name)
        if isinstance(a, torch.Tensor):
            assert torch.equal(a, b), of.name
        elif isinstance(a, dict):
            assert a.keys() == b.keys(), of.name
            assert all(torch.equal(a[name], b[name]) for name in a), of.name
        else:
            assert a == b, of.name


# --- items that are left out --------------------------------------------------------------------------------------


@pytest.mark.parametrize("cuts", [True, False], ids=["a batch of rows", "a batch that cannot be cut"])
@pytest.mark.parametrize("unknown", [[0], [3, 4, 11], [*range(11)]])
def test_items_that_an_objective_ignores_are_as_if_they_were_not_there(unknown, cuts):
    """A label of base is missing on some, one of the proxy on others; of a mapping, or of an object with attributes."""
    known = [i for i in range(N) if i not in unknown]
    y, z = Y.clone(), Z.clone()
    y[unknown[::2]], z[unknown[1::2]] = -100, -1
    batch, reading = batch_of(y, z), READING
    if not cuts:
        batch = SimpleNamespace(**batch)
    hypotheses = Hypotheses(Matches("y", ignore_index=-100), [Matches("z", ignore_index=-1)])
    found = behave("val", batch, OUTPUTS, hypotheses, reading, torch.arange(N) * 10)
    part = {key: [v[i] for i in known] if isinstance(v, list) else v[known] for key, v in batch_of(Y, Z).items()}
    alone = Hypotheses(Matches("y"), [Matches("z")])
    assert_same(found, behave("val", part, OUTPUTS[known], alone, reading, torch.tensor(known) * 10))


def test_what_a_predicate_leaves_out_is_never_scored():
    """A function that cannot take a label of -100 is not asked about one."""
    y = Y.clone()
    y[:5] = -100
    keep = torch.arange(N) >= 5
    hypotheses = Hypotheses(ScoreFunction(probability, name="y"), [Matches("z")])
    with pytest.raises(ConfigurationError, match=r"objective 'y', given outputs of shape .* failed with"):
        behave("val", batch_of(y, Z), OUTPUTS, hypotheses, READING)
    found = behave("val", batch_of(y, Z), OUTPUTS, hypotheses, READING, keep=keep)
    assert torch.equal(found.scores["y"], probability({"y": Y[5:]}, OUTPUTS[5:]).double())


def test_nothing_is_known_where_every_item_is_ignored():
    hypotheses = Hypotheses(Matches("y", ignore_index=-1))
    found = behave("val", batch_of(Y * 0 - 1, Z), OUTPUTS, hypotheses, READING)
    assert (found.n, len(found.items), found.scores) == (0, 0, {})


def test_labels_of_another_number_of_items_are_refused():
    hypotheses = Hypotheses(Matches("y", ignore_index=-1))
    with pytest.raises(ConfigurationError, match=r"'y' has labels for \[4\] items where the outputs have 12 rows"):
        behave("val", {"y": Y[:4]}, OUTPUTS, hypotheses, Reading())


# --- outputs ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.uint8, torch.bool])
@pytest.mark.parametrize("shape", [(N,), (N, 1), (N, A), (N, 3, 2)])
def test_class_ids_are_scored_by_functions_and_are_no_choices(dtype, shape):
    ids = torch.randint(2, shape, generator=torch.Generator().manual_seed(1)).to(dtype)

    def all_right(batch, outputs):
        return (outputs.reshape(N, -1) == (batch["y"][:, None] > 1)).all(1)

    found = behave("val", batch_of(Y, Z), ids, Hypotheses(ScoreFunction(all_right)), READING)
    assert torch.equal(found.scores["all_right"], all_right({"y": Y}, ids).double())
    assert torch.equal(found.uniform_scores["all_right"], (Y <= 1).double())
    assert (found.chosen, found.log_probabilities, found.extremity, found.prescribed) == (None, None, None, {})


def test_one_number_per_item_is_no_choice_among_one():
    """How extreme it is, is its size, and not its distance from itself."""
    outputs = OUTPUTS[:, :1]
    found = behave(
        "val", batch_of(Y, Z), outputs, Hypotheses(ScoreFunction(lambda b, o: o[:, 0].sigmoid(), name="s")), READING
    )
    assert found.chosen is None
    assert torch.allclose(found.extremity, outputs[:, 0].abs().double())


@pytest.mark.parametrize("array", [OUTPUTS.numpy(), OUTPUTS.numpy()[::-1], OUTPUTS.numpy().astype(np.float16)])
def test_outputs_may_be_arrays(array):
    expected = torch.tensor(array.astype(np.float32))
    for raw in (array, {"logits": array}, SimpleNamespace(logits=array)):
        assert torch.equal(choices(raw, None, None), expected)
    assert torch.equal(choices({"deep": array}, None, lambda outputs, batch: outputs["deep"] * 1), expected)


# --- what a score may not be --------------------------------------------------------------------------------------

BAD_SCORES = {
    "one number": (lambda b, o: o.mean(), r"gave one number for the whole batch: .*\[12\].*reduction='none'"),
    "one number of an array": (lambda b, o: o.numpy().mean(), "gave one number for the whole batch"),
    "pairs, of [n, 1] and [n]": (lambda b, o: o[:, :1] == b["y"], r"\[12, 12\] for 12 items.*take outputs\[:, 0\]"),
    "a column": (lambda b, o: o[:, :1] * 0, r"\[12, 1\] for 12 items: it must be \[12\]. Give scores\[:, 0\]"),
    "a row for each item": (lambda b, o: o * 0, r"\[12, 4\] for 12 items.*scores.flatten\(1\).mean\(1\)"),
    "too few": (lambda b, o: o[:3, 0] * 0, r"\[3\] for 12 items: it must be \[12\]"),
    "a list": (lambda b, o: o[:, 0].tolist(), "gave list: it must give a tensor or an array"),
    "out of bounds": (lambda b, o: o[:, 0] * 0 + 7, r"from 7 to 7, outside its bounds"),
    "an error": (
        lambda b, o: o @ o,
        r"given outputs of shape \[12, 4\] and type torch.float32, failed with RuntimeError",
    ),
}


@pytest.mark.parametrize("kind", [ScoreFunction, NegativeLoss])
@pytest.mark.parametrize("case", BAD_SCORES)
def test_a_score_that_is_none_is_refused_in_words(case, kind):
    function, message = BAD_SCORES[case]
    if (case, kind) == ("out of bounds", NegativeLoss):  # losses are clipped
        message, function = BAD_SCORES["too few"][1], lambda b, o: o[:3, 0] + 7
    hypotheses = Hypotheses(kind(function, (0, 1), name="y"))
    with pytest.raises(ConfigurationError, match="objective 'y'.*" + message) as refused:
        behave("val", batch_of(Y, Z), OUTPUTS, hypotheses, Reading())
    assert "tensor(" not in str(refused.value)


def test_the_remedies_for_shapes_work():
    """Those that the messages name."""
    labels = Y.double()
    right = F.mse_loss(OUTPUTS[:, 0].double(), labels, reduction="none")
    functions = [lambda b, o: (o[:, 0] - b["y"]) ** 2, lambda b, o: ((o - b["y"][:, None]) ** 2)[:, 0]]
    for function in functions:
        found = behave(
            "val", {"y": labels}, OUTPUTS[:, :1].double(), Hypotheses(NegativeLoss(function, (0, 99), "y")), Reading()
        )
        assert torch.allclose(found.scores["y"], -right)
