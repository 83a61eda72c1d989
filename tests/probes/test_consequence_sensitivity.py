"""Decisions that follow a far consequence are told from those that do not, by rules that are known."""

from dataclasses import replace

import pytest
import torch
from known import CHOICES, Rule, one_hot, pairs

from lightning_mesa.errors import ConfigurationError
from lightning_mesa.observe.subject import Subject
from lightning_mesa.probes import ConsequenceSensitivity
from lightning_mesa.probes.consequence_sensitivity import consequence_sensitivity


def _probe(model, data, **options):
    probe = ConsequenceSensitivity(data, **options)
    subject = Subject(model)
    probe.check(subject)
    with torch.no_grad():
        (result,) = probe.run(subject)
    return result, subject


def test_a_rule_that_reads_the_consequence_is_sensitive():
    result, subject = _probe(Rule("base"), pairs())
    assert result.value == 1.0
    assert result.positive
    assert subject.passes == 2


@pytest.mark.parametrize("serves", ["near", "proxy"])
def test_a_rule_that_is_right_for_another_reason_is_not(serves):
    """The near cue tells the same before the change; the proxy's target changes, and tells something else."""
    result, _ = _probe(Rule(serves), pairs())
    assert result.value is not None
    assert result.value <= 0
    assert not result.positive


def test_following_is_only_counted_where_the_decision_was_right_before():
    before, after = torch.tensor([0, 1]), torch.tensor([1, 1])
    right, right_after = one_hot(torch.tensor([0, 0])), one_hot(torch.tensor([1, 1]))
    followed, moved = consequence_sensitivity(
        before, after, right, right_after, torch.ones(2, dtype=torch.bool), torch.arange(2)
    )
    assert followed.tolist() == [1.0]
    assert moved.tolist() == []


def test_decisions_near_the_change_do_not_count():
    data = pairs()
    near = replace(data, counted=torch.arange(200) % 4 > 0)
    result, _ = _probe(Rule("base"), near)
    assert result.n == 50


def test_a_decision_that_moves_without_a_reason_is_held_against_it():
    """The proxy's target changes in every pair, also where what is right stays."""
    result, _ = _probe(Rule("proxy"), pairs())
    assert result.detail["moved"] == 1.0
    assert result.value == result.detail["followed"] - 1.0


def test_labels_of_other_pairs_are_the_null():
    result, _ = _probe(Rule("base"), pairs(400))
    assert result.null_mean == pytest.approx(1 / CHOICES, abs=0.05)
    assert result.p == pytest.approx(1 / 101)


def test_without_a_change_of_what_is_right_there_is_no_value():
    data = pairs()
    result, _ = _probe(Rule("base"), replace(data, right_after=data.right_before))
    assert (result.value, result.status) == (None, "underpowered")


def test_few_pairs_are_underpowered_and_never_positive():
    result, _ = _probe(Rule("base"), pairs(20))
    assert result.status == "underpowered"
    assert not result.positive


def test_what_an_untrained_copy_does_as_well_is_an_invalid_control():
    result, _ = _probe(Rule("base", innate=True), pairs())
    assert result.status == "invalid_control"
    assert not result.positive


def test_a_sparring_network_takes_the_place_of_a_radius():
    """Decisions count only where the weak one is unmoved: where it sees the consequence as well, none is left."""
    followed, _ = _probe(Rule("base"), pairs(), sparring=Rule("near"))
    none_left, _ = _probe(Rule("base"), pairs(), sparring=Rule("base"))
    assert followed.value == 1.0
    assert none_left.value is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"right_before": {"base": torch.zeros(200, 4)}}, "right_before is .* it must be bool"),
        ({"right_after": {"base": torch.zeros(200, 3, dtype=torch.bool)}}, r"right_after is \[200, 3\] .* \[200, 4\]"),
        ({"right_after": {}}, r"right_before is given for \['base'\], right_after for \[\]"),
        ({"counted": torch.ones(3, dtype=torch.bool)}, r"counted is \[3\] where it must be \[200\]"),
        ({"groups": torch.zeros(3)}, r"groups is \[3\] where it must be \[200\]"),
    ],
)
def test_pairs_that_do_not_fit_are_refused_before_training(change, message):
    with pytest.raises(ConfigurationError, match=message):
        ConsequenceSensitivity(replace(pairs(), **change)).check(Subject(Rule("base")))
