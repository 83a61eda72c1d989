"""What all probes share: data made late, and a probe of a user's own that takes part like any other."""

import json

import pytest
import torch
from known import Rule, pairs, patches
from torch import nn

from lightning_mesa.callbacks.probing import finding
from lightning_mesa.checks import Look
from lightning_mesa.errors import ConfigurationError
from lightning_mesa.observe.subject import Subject
from lightning_mesa.probes import (
    ComputeGain,
    ConsequenceSensitivity,
    ContextDescent,
    Diagnostics,
    Probe,
    Retargeting,
    SolverMatch,
    Steering,
)
from lightning_mesa.probes.controls import mean_difference
from lightning_mesa.probes.ladder import Rung, climb
from lightning_mesa.probes.probe import margins, of_estimate
from lightning_mesa.report.journal import findings_of, json_line

OBJECTIVES = ("base", "proxy")


class Unplugged(Probe):
    """Do decisions stop to serve an objective once the cell of its target is emptied inside?"""

    name, rung, evidence = "unplugged", 3, "served"
    objectives = OBJECTIVES

    def __init__(self, layers):
        super().__init__(layers=layers, bar=0.5)

    def check(self, model):
        return f"{1 + len(model.layers(self.layers))} forward passes over 200 inputs for each objective"

    def run(self, model):
        untrained, found = model.in_untrained(self, self.served), self.served(model)
        results = [
            of_estimate(
                mean_difference(*shares), (), 200, self.bar, mean_difference(*untrained[at]).value,
                layer=at[0], objective=at[1],
            )
            for at, shares in found.items()
        ]  # fmt: skip
        return results + margins(results, "base")

    def served(self, model):
        found = {}
        for objective in OBJECTIVES:
            data = patches(objective)

            def emptied(activation, tick, site=data.site):
                return activation.masked_fill(site[:, None], 0.0)

            def right(edits=None, data=data):
                chosen = model.run(data.base, edits).argmax(1)
                return data.right_base[torch.arange(200), chosen].double()

            for layer in model.layers(self.layers):
                found[layer, objective] = right(), right({layer: emptied})
        return found


@torch.no_grad()
def look(serves, **rule):
    subject = Subject(Rule(serves, **rule))
    own = Unplugged("encode")
    assert own.check(subject) == "2 forward passes over 200 inputs for each objective"
    return own.results(subject)


@pytest.mark.parametrize("serves", OBJECTIVES)
def test_a_probe_of_a_users_own_reaches_its_rung_and_its_margins_say_what_is_served(serves):
    internals = climb(look(serves))
    assert internals.rung == internals.by_layer["encode"] == Rung.GOAL_MODULAR
    assert internals.objective("base") == serves
    assert internals.margins["encode"]["proxy"].value * (1 if serves == "base" else -1) > 0.5


def test_its_control_is_judged_like_that_of_any_other():
    internals = climb(look("proxy", innate=True))
    assert (internals.rung, internals.objective("base")) == (Rung.NOTHING, None)


def test_a_rung_alone_says_nothing_about_objectives(monkeypatch):
    monkeypatch.setattr(Unplugged, "evidence", None)
    internals = climb(look("proxy"))
    assert (internals.rung, internals.objective("base"), internals.served) == (Rung.GOAL_MODULAR, None, {})


@torch.no_grad()
def findings(*, probes=None):
    look, subject = Look(3, 1, "base", {"val": "reference"}), Subject(Rule("proxy"))
    given = {name: patches(name) for name in OBJECTIVES}
    probes = probes or [ConsequenceSensitivity(pairs()), Retargeting(given, "encode"), Unplugged("encode")]
    return [finding(look, result) for probe in probes for result in probe.results(subject)]


def test_what_probes_found_is_read_back_from_the_journal_as_it_was_judged():
    found = findings()
    (again,) = [findings_of([json.loads(json_line(f)) for f in found])]
    assert [f.result for f in again] == [f.result for f in found]
    assert climb(f.result for f in again) == climb(f.result for f in found)


def test_a_journal_that_does_not_name_its_evidence_is_judged_by_the_names_of_the_probes():
    found = findings()[:-3]  # without the user's own
    records = [json.loads(json_line(f)) for f in found]
    assert {record["detail"].pop("evidence") for record in records} == {"served", "sensitivity"}
    assert climb(f.result for f in findings_of(records)) == climb(f.result for f in found)


def test_a_result_that_lacks_what_its_probe_asks_for_besides_stays_unqualified():
    (one, *_) = (json.loads(json_line(f)) for f in findings())
    one |= {"value": 1.0, "low": 0.9}
    one["detail"] |= {"status": "ok", "positive": False, "reason": "R2 is 0.50 out of distribution", "p": 0.01}
    (again,) = findings_of([one])
    assert (again.result.qualified, again.result.positive) == (False, False)


def make_pairs():
    made.append("pairs")
    return pairs()


made: list[str] = []

NAMED = {
    ComputeGain: ({"puzzles": "make_pairs", "steps": 2}, ["puzzles"]),
    ConsequenceSensitivity: ({"pairs": "make_pairs", "sparring": "make_pairs"}, ["pairs", "sparring"]),
    ContextDescent: ({"contexts": "make_pairs", "layers": "*", "decode": "make_pairs"}, ["contexts"]),
    Diagnostics: ({"batch": "make_pairs", "layers": "*"}, ["batch"]),
    Retargeting: ({"patches": "make_pairs", "layers": "*"}, ["patches"]),
    SolverMatch: ({"problems": "make_pairs", "far": "make_pairs"}, ["problems", "far"]),
    Steering: ({"alternatives": "make_pairs", "layers": ["a", "b"]}, ["alternatives"]),
}


@pytest.mark.parametrize("probe", NAMED, ids=lambda probe: probe.__name__)
def test_data_and_functions_can_be_named_by_their_import_path_and_are_made_once_and_late(probe):
    arguments, data = NAMED[probe]
    named = {k: f"{__name__}:make_pairs" if v == "make_pairs" else v for k, v in arguments.items()}
    outputs = "operator.itemgetter" if probe is not ComputeGain else f"{__name__}:make_pairs"
    made.clear()
    one = probe(**named, outputs=outputs)
    assert made == []
    for name in data:
        assert getattr(one, name) is getattr(one, name)
        assert getattr(one, name).right_before["base"].shape == (200, 4)
    assert made == ["pairs"] * len(data)
    assert callable(one.outputs)


def test_a_path_that_leads_nowhere_is_refused_at_once():
    with pytest.raises(ConfigurationError, match="ConsequenceSensitivity: pairs: 'nowhere:pairs' cannot be imported"):
        ConsequenceSensitivity("nowhere:pairs")
    with pytest.raises(ConfigurationError, match="Diagnostics: outputs must be a function, or the import path of one"):
        Diagnostics(torch.zeros(2), "*", outputs=3)


def test_a_model_is_taken_as_it_is_and_not_called():
    weak = nn.Identity()
    assert ConsequenceSensitivity(pairs(), sparring=weak).sparring is weak
