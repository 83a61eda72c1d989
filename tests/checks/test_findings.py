"""The measures give the numbers of docs/statistics.md, worked by hand on eight items with four choices."""

import json

import pytest
import torch
from torch.nn import functional

from lightning_mesa.objectives.hypotheses import Hypotheses
from lightning_mesa.objectives.matches import Matches
from lightning_mesa.objectives.scores import ScoreFunction
from lightning_mesa.observe.forward import Reading, behave
from lightning_mesa.observe.parts import joined
from lightning_mesa.report.journal import findings_of, json_line
from lightning_mesa.stats.competence import Best, Competence
from lightning_mesa.testing import look_at

BASE = torch.tensor([0, 1, 2, 3, 0, 1, 2, 3])
PROXY = torch.tensor([0, 1, 3, 2, 1, 0, 3, 2])  # agrees with base on the first two


def _outputs(chosen):
    return functional.one_hot(torch.tensor(chosen), 4).float()


def findings(val, apart, hypotheses=None, reading=None, **extra):
    hypotheses = hypotheses or Hypotheses(Matches("y"), [Matches("z")])
    seen = []
    for where, chosen in {"val": val, "apart": apart}.items():
        z = BASE if where == "val" else PROXY
        batch = {"y": BASE, "z": z} | extra
        outputs = chosen if isinstance(chosen, torch.Tensor) else _outputs(chosen)
        seen.append(behave(where, batch, outputs, hypotheses, reading or Reading()))
    look = look_at(seen, hypotheses, step=4, epoch=2)
    return {(f.distribution, f.quantity, f.objective, f.group): f for f in look.findings}


RIGHT = [0, 1, 2, 3, 0, 1, 2, 3]


def test_scores_competences_and_the_gap():
    """On val all right: kappa 1. Apart, 4 of 8 right, chance 1/4: kappa (1/2 - 1/4)/(3/4) = 1/3, gap 2/3."""
    found = findings(RIGHT, [0, 1, 2, 3, 1, 0, 3, 2])
    assert found["val", "score", "y", None].value == 1
    assert found["apart", "score", "y", None].value == 0.5
    assert found["apart", "competence", "y", None].value == pytest.approx(1 / 3)
    assert found["apart", "competence", "z", None].value == pytest.approx((6 / 8 - 1 / 4) / (3 / 4))
    gap = found["apart", "gap", "y", None]
    assert gap.value == pytest.approx(2 / 3)
    assert gap.low < 2 / 3 < gap.high
    assert (gap.step, gap.epoch, gap.role, gap.n) == (4, 2, "shifted", 8)


def test_capability_counts_any_prescribed_choice_over_the_best_constant_one():
    """Apart, choices 0..3 are prescribed on 3, 3, 4, 4 of 8 items: chance 1/2, all served: capability 1."""
    found = findings(RIGHT, [0, 1, 2, 3, 1, 0, 3, 2])
    capability = found["apart", "capability", None, None]
    assert isinstance(capability.estimate, Competence)
    assert capability.estimate.chance == 0.5
    assert capability.value == 1


def test_conflict_items_are_those_on_which_base_and_proxy_disagree():
    """Six items conflict; base is followed on 2, the proxy on 3, neither on 1."""
    found = findings(RIGHT, [0, 1, 2, 3, 1, 0, 3, 0])
    conflict = found["apart", "conflict", "z", None]
    assert (conflict.estimate.base, conflict.estimate.proxy, conflict.estimate.neither) == (2, 3, 1)
    shares = [found["apart", "joint_conflict", who, None].value for who in ("y", "z", None)]
    assert shares == pytest.approx([2 / 6, 3 / 6, 1 / 6])
    assert found["val", "conflict", "z", None].value is None


def test_a_single_class_gives_no_competence_but_a_reason():
    """A constant output already scores the ceiling: nothing can be said, and a class that never occurs is no error."""
    hypotheses = Hypotheses(Matches(lambda batch: torch.zeros(8, dtype=torch.long), name="zero"), [Matches("z")])
    found = findings(RIGHT, RIGHT, hypotheses)
    assert found["apart", "competence", "zero", None].value is None
    assert "ceiling" in found["apart", "competence", "zero", None].detail["reason"]
    assert found["apart", "gap", "zero", None].value is None


def test_outputs_that_are_not_numbers_withhold_what_rests_on_them():
    outputs = _outputs(RIGHT)
    outputs[3] = torch.nan
    found = findings(RIGHT, outputs)
    for quantity, objective in (("score", "y"), ("competence", "y"), ("gap", "y"), ("capability", None)):
        finding = found["apart", quantity, objective, None]
        assert finding.value is None
        assert "1 items" in finding.detail["reason"]
    assert found["val", "score", "y", None].value == 1


def test_the_three_distances_with_an_intended_objective():
    """Base is what the proxy says; intended is y. Acting as base scores 2/8 at y, below chance: outer distance 1."""
    hypotheses = Hypotheses(Matches("z"), intended=Matches("y"))
    found = findings(RIGHT, [0, 1, 2, 3, 1, 0, 3, 2], hypotheses)
    assert found["apart", "outer_distance", "y", None].value == pytest.approx(1.0)
    assert found["apart", "inner_distance", "z", None].value == pytest.approx(1 - (6 / 8 - 1 / 4) / (3 / 4))
    assert found["apart", "reward_result_distance", "y", None].value == pytest.approx(1 - 1 / 3)
    assert found["val", "outer_distance", "y", None].value == pytest.approx(0)


def test_groups_have_competences_of_their_own():
    found = findings(
        RIGHT, [0, 1, 2, 3, 1, 0, 3, 2], reading=Reading(groups={"w": "w"}), w=torch.tensor([7, 7, 7, 7, 8, 8, 8, 8])
    )
    assert found["apart", "competence", "y", "w.7"].value == 1
    assert found["apart", "competence", "y", "w.8"].value == pytest.approx((0 - 1 / 4) / (3 / 4))
    assert found["apart", "competence", "y", "w.8"].n == 4


def test_the_gap_is_paired_where_the_same_items_have_ids():
    chosen = [0, 1, 2, 3, 1, 0, 3, 2]
    paired = findings(RIGHT, chosen, reading=Reading(ids="id"), id=torch.arange(8))["apart", "gap", "y", None]
    assert isinstance(paired.estimate, Competence)
    assert paired.value == pytest.approx(2 / 3)


def test_bounded_scores_have_chance_from_the_uniform_output_and_betting_limits():
    def soft(batch, outputs):
        return outputs.softmax(1).gather(1, batch["y"][:, None])[:, 0]

    found = findings(RIGHT, RIGHT, Hypotheses(ScoreFunction(soft)))
    competence = found["apart", "competence", "soft", None]
    assert competence.estimate.chance == pytest.approx(0.25)
    assert len(competence.estimate.mean.counts) == 65
    assert isinstance(found["apart", "capability", None, None].estimate, Best)


def test_merging_two_halves_equals_measuring_the_whole():
    """Sums add up over batches and ranks."""
    hypotheses = Hypotheses(Matches("y"), [Matches("z")], Matches("w"))
    torch.manual_seed(0)
    batch = {key: torch.randint(4, (40,)) for key in "yzw"} | {"id": torch.randperm(40)}
    outputs = torch.randn(40, 4)
    reading = Reading(groups={"w": "w"}, ids="id")

    def part(rows, where):
        return behave(where, {k: v[rows] for k, v in batch.items()}, outputs[rows], hypotheses, reading)

    whole = look_at([part(slice(0, 40), where) for where in ("val", "apart")], hypotheses)
    parts = [joined([part(slice(13, 20), where), part(slice(20, 40), where)]) for where in ("val", "apart")]
    halves = look_at([*parts, *(part(slice(0, 13), where) for where in ("val", "apart"))], hypotheses)
    by_counts = ("objective_gap", "capability")
    assert [f for f in halves.findings if f.measure in by_counts] == [
        f for f in whole.findings if f.measure in by_counts
    ]


def test_findings_come_back_from_the_journal_as_they_were():
    found = list(findings(RIGHT, [0, 1, 2, 3, 1, 0, 3, 2]).values())
    assert findings_of([json.loads(json_line(finding)) for finding in found]) == found
