"""Objectives: names, bounds, ceilings, chance, what they prescribe, and what they refuse."""

import math
import re

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from lightning_mesa import ConfigurationError, Matches, NegativeLoss, Objective, ScoreFunction
from lightning_mesa.objectives.hypotheses import Hypotheses, as_objective
from lightning_mesa.objectives.objective import check_name, pick

BATCH = {"y": torch.tensor([0, 2, 1]), "w": torch.tensor([0.5, 0.0, 1.0])}
OUTPUTS = torch.tensor([[2.0, 1.0, 0.0], [0.0, 5.0, 1.0], [0.0, 1.0, 0.5]])


def shifted_label(batch):
    return (batch["y"] + 1) % 3


def confidence(batch, outputs):
    return outputs.softmax(1).amax(1)


class Named:
    """A callable object without a ``__name__``."""

    def __call__(self, batch, outputs=None):
        return batch["y"]


def read(objective, batch):
    """What is asked of an objective at each batch."""
    read = objective.score(batch, OUTPUTS), objective.prescribes(batch, 3)
    for demand in objective.demands(batch, 3):
        if not demand.holds:
            raise ConfigurationError(demand.complaint())
    return read


# --- Matches ------------------------------------------------------------------------------------------------------


def test_matches_scores_one_where_the_choice_is_the_target():
    """A bool tensor: scores are 0 or 1."""
    score = Matches("y").score(BATCH, OUTPUTS)
    assert score.dtype == torch.bool
    assert score.tolist() == [True, False, True]


def test_matches_prescribes_the_target():
    assert Matches("y").prescribes(BATCH, 3).tolist() == [[1, 0, 0], [0, 0, 1], [0, 1, 0]]


@pytest.mark.parametrize(
    ("target", "batch"),
    [
        ("y", BATCH),
        (1, (OUTPUTS, BATCH["y"])),
        (-1, [OUTPUTS, BATCH["y"]]),
        (lambda batch: batch["y"], BATCH),
        ("y", {"y": [0, 2, 1]}),
    ],
    ids=["key", "index", "negative index", "callable", "list of numbers"],
)
def test_targets_are_found_by_key_index_or_callable(target, batch):
    assert Matches(target, name="t").score(batch, OUTPUTS).tolist() == [True, False, True]


@pytest.mark.parametrize(
    ("target", "name"), [("y", "y"), (1, "1"), (shifted_label, "shifted_label"), (Named(), "Named")]
)
def test_matches_is_named_after_its_target(target, name):
    assert Matches(target).name == name
    assert Matches(target, name="other").name == "other"


def test_matches_scores_lie_between_0_and_1():
    objective = Matches("y", ceiling=0.9)
    assert (objective.bounds, objective.ceiling, objective.chance) == ((0.0, 1.0), 0.9, None)


def test_an_empty_batch_has_no_scores():
    assert Matches("y").score({"y": torch.zeros(0, dtype=torch.long)}, torch.zeros(0, 3)).tolist() == []


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (BATCH["w"], r"shape \[3\] and type torch.float32; it must be \[n\] integers"),
        (BATCH["y"][:, None], r"shape \[3, 1\] .*it must be \[n\] integers"),
        (torch.tensor(1), r"shape \[\] .*it must be \[n\] integers"),
        (torch.tensor([0, 3, 1]), "targets range from 0 to 3, but the outputs have 3 choices, 0 to 2.*pass outputs="),
        (torch.tensor([0, -100, 1]), "targets range from -100 to 1, but the outputs have 3 choices"),
        (torch.tensor([0, 1]), "2.*3"),
    ],
    ids=["floats", "a matrix", "one number", "too large", "negative", "too few"],
)
def test_matches_refuses_targets_that_are_not_one_choice_per_item(target, message):
    """Where it is scored or asked what it prescribes, whichever comes first."""
    with pytest.raises(ConfigurationError, match="objective 'y': .*" + message):
        read(Matches("y"), {"y": target})


@pytest.mark.parametrize("outputs", [OUTPUTS[:, 0], OUTPUTS[:, :, None]])
def test_matches_refuses_outputs_that_are_not_choices(outputs):
    with pytest.raises(ConfigurationError, match=r"they must be \[n, A\].*pass outputs="):
        Matches("y").score(BATCH, outputs)


@pytest.mark.parametrize("outputs", [OUTPUTS[:, :1], OUTPUTS[:, 0]], ids=["[n, 1]", "[n]"])
@pytest.mark.parametrize("targets", [[0, 0, 0], [0, 1, 1]], ids=["class 0 alone", "both classes"])
def test_one_logit_is_no_choice_of_class_0_and_the_remedy_works(outputs, targets):
    """Else every item of class 0 would count as right. What the message says gives the choice that a sigmoid gives."""
    with pytest.raises(ConfigurationError, match="logit of yes against no, pass outputs=") as refused:
        Matches("y").score({"y": torch.tensor(targets)}, outputs)
    remedy = re.search(r"outputs=(lambda o, batch: .*?);", str(refused.value))[1]
    two = eval(remedy, {"torch": torch})(outputs, None)
    assert torch.equal(two.softmax(1)[:, 1], outputs.reshape(-1).sigmoid())
    assert Matches("y").score({"y": torch.tensor(targets)}, two).tolist() == [
        (logit > 0) == bool(target) for logit, target in zip(outputs.reshape(-1), targets, strict=True)
    ]


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.bool])
@pytest.mark.parametrize("shape", [(3,), (3, 3)])
def test_class_ids_are_no_numbers_for_each_choice_and_the_remedy_works(dtype, shape):
    ids = torch.tensor([0, 1, 1]).expand(shape).to(dtype)
    with pytest.raises(ConfigurationError, match=rf"shape .*type {dtype} are choices already") as refused:
        Matches("y").score({"y": torch.tensor([0, 1, 0])}, ids)
    if len(shape) == 1:
        remedy = re.search(r"outputs=(lambda ids, batch: .*?), with", str(refused.value))[1]
        logits = eval(remedy, {"torch": torch, "A": 3})(ids, None)
        assert Matches("y").score({"y": torch.tensor([0, 1, 0])}, logits).tolist() == [True, True, False]


@pytest.mark.parametrize(
    ("outputs", "target"),
    [
        (torch.zeros(3, 7, 5), torch.zeros(3, 7, dtype=torch.long)),  # tokens
        (torch.zeros(3, 5, 4, 4), torch.zeros(3, 4, 4, dtype=torch.long)),  # pixels
        (torch.zeros(3, 5), torch.zeros(3, 5)),  # several labels
    ],
    ids=["[n, T, V]", "[n, C, H, W]", "[n, L]"],
)
def test_many_choices_of_one_item_are_not_to_be_flattened(outputs, target):
    """Tokens and pixels as items would be counted as independent; they are scored as a whole."""
    with pytest.raises(ConfigurationError, match=r"score it as a whole by ScoreFunction\(fn\)") as refused:
        Matches("y").score({"y": target}, outputs)
    assert "flatten" not in str(refused.value)


def test_whole_numbers_in_floats_are_told_from_numbers_to_be_predicted():
    with pytest.raises(ConfigurationError, match=r"Pass Matches\(lambda batch: batch\['y'\].long\(\), name='y'\)"):
        read(Matches("y"), {"y": torch.tensor([0.0, 2.0, 1.0])})
    with pytest.raises(ConfigurationError, match="a number to be predicted is scored by ScoreFunction"):
        read(Matches("y"), {"y": torch.tensor([0.3, 2.1, 1.0])})


# --- labels that are missing, or have names -----------------------------------------------------------------------


@pytest.mark.parametrize("ignored", [-100, -1, 255, 0])
def test_an_item_with_the_ignored_target_is_ignored_and_prescribed_nothing_else(ignored):
    objective, batch = Matches("y", ignore_index=ignored), {"y": torch.tensor([2, ignored, 1])}
    assert objective.ignores(batch).tolist() == [False, True, False]
    assert objective.prescribes(batch, 3)[[0, 2]].tolist() == [[0, 0, 1], [0, 1, 0]]
    assert objective.score(batch, OUTPUTS).shape == (3,)
    assert Matches("y").ignores(batch) is None


def test_a_missing_label_that_is_not_ignored_is_refused_with_the_remedy():
    for missing in (-100, -1, 255):
        with pytest.raises(
            ConfigurationError, match=f"If {missing} marks items without .* pass ignore_index={missing}"
        ):
            read(Matches("y"), {"y": torch.tensor([0, missing, 1])})
    with pytest.raises(ConfigurationError, match=r"targets range from -100 to 7, .*If -100 marks"):
        read(Matches("y", ignore_index=7), {"y": torch.tensor([7, -100, 1])})


NAMES = ["cat", "dog", "owl"]


@pytest.mark.parametrize("labels", [["cat", "owl", "dog"], ("cat", "owl", "dog"), np.array(["cat", "owl", "dog"])])
def test_names_of_classes_are_their_places_in_the_outputs(labels):
    score, prescribed = read(Matches("y", classes=NAMES), {"y": labels})
    assert score.tolist() == read(Matches("y"), BATCH)[0].tolist()
    assert prescribed.tolist() == [[1, 0, 0], [0, 0, 1], [0, 1, 0]]


def test_a_name_may_mean_that_there_is_no_label():
    objective, batch = Matches("y", classes=NAMES, ignore_index=""), {"y": ["cat", "", "dog"]}
    assert objective.ignores(batch).tolist() == [False, True, False]
    assert read(objective, batch)[1].tolist() == [[1, 0, 0], [0, 0, 0], [0, 1, 0]]


@pytest.mark.parametrize(
    ("objective", "labels", "message"),
    [
        (Matches("y"), NAMES, "'y': the targets are strings, such as 'cat': pass classes=, a list of the names"),
        (
            Matches("y", classes=NAMES),
            ["cat", "dgo", "owl"],
            r"'dgo' is none of the classes \['cat', 'dog', 'owl'\]: add",
        ),
        (
            Matches("y", classes=["cat", "dog"]),
            ["cat", "dog", "cat"],
            "has 2 names and the outputs 3 choices: name each",
        ),
        (
            Matches("y"),
            [None, "cat", "dog"],
            r"\[None, 'cat', 'dog'\] holds no labels; they must be a tensor, an array",
        ),
    ],
)
def test_names_that_do_not_fit_are_refused(objective, labels, message):
    with pytest.raises(ConfigurationError, match=message):
        read(objective, {"y": labels})


@pytest.mark.parametrize("classes", ["cat", [], ["cat"], ["cat", "cat"], [0, 1], 3, torch.zeros(2)])
def test_classes_are_a_list_of_different_names(classes):
    with pytest.raises(ConfigurationError, match="objective 'y': classes must be a list of the names of all choices"):
        Matches("y", classes=classes)


@pytest.mark.parametrize("ceiling", [0.0, -1.0, 1.1, math.nan])
def test_a_ceiling_that_cannot_be_reached_is_refused(ceiling):
    with pytest.raises(ConfigurationError, match=r"objective 'y': ceiling .* must lie above 0.0 and at most at 1.0"):
        Matches("y", ceiling=ceiling)


# --- ScoreFunction ------------------------------------------------------------------------------------------------


def test_a_score_function_scores_what_its_function_says():
    objective = ScoreFunction(confidence, bounds=(0, 1), chance=1 / 3)
    assert torch.equal(objective.score(BATCH, OUTPUTS), confidence(BATCH, OUTPUTS))
    assert (objective.name, objective.bounds, objective.ceiling) == ("confidence", (0.0, 1.0), 1.0)
    assert objective.chance == pytest.approx(1 / 3)
    assert objective.prescribes(BATCH, 3) is None


def test_the_ceiling_defaults_to_the_upper_bound():
    assert ScoreFunction(confidence, (-2, 5)).ceiling == 5
    assert ScoreFunction(confidence, (-2, 5), ceiling=4).ceiling == 4


@pytest.mark.parametrize("bounds", [(1, 0), (0, 0), (0, math.inf), (math.nan, 1), (0,), (0, 1, 2)])
@pytest.mark.parametrize("kind", [ScoreFunction, NegativeLoss])
def test_bounds_that_are_no_two_finite_numbers_are_refused(kind, bounds):
    with pytest.raises(ConfigurationError, match="objective 'confidence': bounds must be two"):
        kind(confidence, bounds)


@pytest.mark.parametrize("chance", [-0.1, 1.0, 2.0, math.nan])
def test_a_chance_outside_bounds_and_ceiling_is_refused(chance):
    with pytest.raises(ConfigurationError, match=r"chance .* must lie between 0.0 and the ceiling 1.0"):
        ScoreFunction(confidence, chance=chance)


def test_a_chance_at_a_lower_ceiling_is_refused():
    with pytest.raises(ConfigurationError, match=r"chance 0.8 must lie between 0.0 and the ceiling 0.8"):
        ScoreFunction(confidence, ceiling=0.8, chance=0.8)


# --- NegativeLoss -------------------------------------------------------------------------------------------------


def test_negative_loss_is_minus_the_loss_clipped():
    objective = NegativeLoss(
        lambda batch, outputs: F.cross_entropy(outputs, batch["y"], reduction="none"), (0, 2), "ce"
    )
    losses = F.cross_entropy(OUTPUTS, BATCH["y"], reduction="none")
    assert losses[1] > 2
    assert torch.equal(objective.score(BATCH, OUTPUTS), -losses.clamp(0, 2))


def test_the_bounds_of_a_negative_loss_are_turned_round():
    objective = NegativeLoss(confidence, (0.5, 3.0), chance=-2.0)
    assert (objective.bounds, objective.ceiling, objective.chance) == ((-3.0, -0.5), -0.5, -2.0)
    assert NegativeLoss(confidence, (0.5, 3.0), ceiling=-1.0).ceiling == -1


@pytest.mark.parametrize(
    "options",
    [{"ceiling": 0.0}, {"ceiling": -3.0}, {"chance": 0.0}, {"chance": -4.0}, {"ceiling": -1.0, "chance": -1.0}],
)
def test_ceiling_and_chance_of_a_negative_loss_are_scores(options):
    """Within the bounds of minus the loss; a positive loss is no score."""
    with pytest.raises(ConfigurationError, match="must lie"):
        NegativeLoss(confidence, (0.5, 3.0), **options)


@pytest.mark.parametrize("of_torch", [torch.float32, torch.float64, torch.float16, torch.int64, torch.bool])
def test_scores_may_be_arrays(of_torch):
    """Of a library that knows no tensors."""
    expected = torch.tensor([1, 0, 1]).to(of_torch)
    assert torch.equal(ScoreFunction(lambda batch, outputs: expected.numpy(), name="s").score({}, OUTPUTS), expected)
    losses = NegativeLoss(lambda batch, outputs: np.array([0.5, 3.0, np.nan])[::-1], (0, 1), "l").score({}, OUTPUTS)
    assert losses[1:].tolist() == [-1.0, -0.5]


def test_a_nan_loss_stays_unknown():
    assert NegativeLoss(lambda batch, outputs: outputs[:, 0] * math.nan, (0, 1), "l").score({}, OUTPUTS).isnan().all()


# --- wrapping, names, picking -------------------------------------------------------------------------------------


def test_a_function_is_wrapped_and_an_objective_is_left():
    wrapped, objective = as_objective(confidence), Matches("y")
    assert isinstance(wrapped, ScoreFunction)
    assert (wrapped.name, wrapped.bounds) == ("confidence", (0.0, 1.0))
    assert as_objective(objective) is objective
    assert as_objective(Named()).name == "Named"


@pytest.mark.parametrize("value", [None, "y", 3, Matches, [Matches("y")]])
def test_what_is_no_objective_is_refused(value):
    with pytest.raises(ConfigurationError, match=r"is no objective: pass Matches\('key'\), NegativeLoss"):
        as_objective(value)


@pytest.mark.parametrize("make", [lambda f: Matches(f), lambda f: ScoreFunction(f), lambda f: NegativeLoss(f, (0, 1))])
def test_a_lambda_needs_a_name(make):
    with pytest.raises(ConfigurationError, match="an objective made from a lambda needs a name: pass name="):
        make(lambda batch, outputs=None: batch["y"])


@pytest.mark.parametrize("name", ["a", "a.b", "a-b", "a_b", "1", "größe"])
def test_a_name_of_letters_digits_and_marks_is_kept(name):
    assert check_name(name, "objective name") == name


@pytest.mark.parametrize("name", ["", "a b", "a/b", "a\n", "a:b", None, 3])
def test_a_name_that_cannot_be_part_of_a_metric_is_refused(name):
    with pytest.raises(ConfigurationError, match=r"objective name .* cannot be part of a metric name: use letters"):
        check_name(name, "objective name")


def test_a_reserved_name_is_refused():
    with pytest.raises(ConfigurationError, match=r"objective name 'base' is reserved .*choose another name"):
        check_name("base", "objective name", reserved=["base"])


class Record:
    y = 5


def test_pick_takes_keys_indices_and_attributes():
    assert pick({"y": 1}, "y", "t") == 1
    assert pick((1, 2), 1, "t") == 2
    assert pick(Record(), "y", "t") == 5
    assert pick(Record(), lambda batch: batch.y + 1, "t") == 6


@pytest.mark.parametrize(
    ("batch", "key", "message"),
    [
        ({"a": 1, "b": 2}, "y", r"t: the batch has no key 'y'; its keys are \['a', 'b'\]"),
        ((1, 2), 2, "t: the batch has no entry 2; it is a sequence of 2"),
        ((1, 2), -3, "t: the batch has no entry -3"),
        ((1, 2), "y", "t: cannot take 'y' out of a batch of type tuple; name a key of a mapping, an index of a tuple"),
        (torch.zeros(3), 0, "t: cannot take 0 out of a batch of type Tensor"),
        (Record(), "z", "t: cannot take 'z' out of a batch of type Record"),
        ({"a": 1}, lambda batch: batch["b"], "t failed with KeyError: 'b'"),
    ],
)
def test_pick_says_what_the_batch_has(batch, key, message):
    with pytest.raises(ConfigurationError, match=message):
        pick(batch, key, "t")


def test_hypotheses_list_base_proxies_intended():
    hypotheses = Hypotheses(Matches("y"), [Matches("z"), confidence], Matches("w"))
    assert [objective.name for objective in hypotheses.all] == ["y", "z", "confidence", "w"]
    assert all(isinstance(objective, Objective) for objective in hypotheses.all)
    assert [proxy.name for proxy in hypotheses.proxies] == ["z", "confidence"]


@pytest.mark.parametrize("proxies", [[Matches("y")], [Matches("z"), Matches("z")]])
def test_two_hypotheses_of_one_name_are_refused(proxies):
    with pytest.raises(ConfigurationError, match=r"two objectives are named '[yz]': give one of them name="):
        Hypotheses(Matches("y"), proxies)


@pytest.mark.parametrize("name", ["base", "neither"])
def test_a_proxy_must_leave_the_names_of_the_other_shares(name):
    with pytest.raises(ConfigurationError, match=f"proxy name '{name}' is reserved"):
        Hypotheses(Matches("y"), [Matches("z", name=name)])


@pytest.mark.parametrize("proxies", [Matches("z"), confidence])
def test_proxies_are_a_list(proxies):
    with pytest.raises(ConfigurationError, match="proxies must be a list of objectives, like proxies="):
        Hypotheses(Matches("y"), proxies)
