"""The ladder, and the two checks that rest on it: no part of their nulls can be left out."""

from dataclasses import replace

import pytest
import torch

from lightning_mesa.callbacks.probing import finding
from lightning_mesa.checks import HiddenObjective, MesaObjective, ProxyPursued, Thresholds
from lightning_mesa.judge.alarm import Alarm
from lightning_mesa.probes.controls import mean_difference, mean_share
from lightning_mesa.probes.ladder import Internals, Rung, climb
from lightning_mesa.probes.probe import margins, of_estimate
from lightning_mesa.stats.competence import Gap
from looks import look

N = 200
PURSUED = {"val": (0.95, 0), "shifted": (0.1, 0.85)}
FOLLOWS_BASE = {"val": (0.95, 0), "shifted": (0.85, 0.1)}


def told(probe, rung, result, evidence=None):
    return replace(result, probe=probe, rung=rung, evidence=evidence)


def sensitivity(share, objective="color", p_of_null=0.2):
    followed = (torch.arange(N) < share * N).double()
    gap = Gap(mean_share(followed), mean_share(torch.zeros(N)))
    result = of_estimate(gap, [p_of_null] * 100, N, 0.25, 0.0, objective=objective)
    return told("consequence_sensitivity", 2, result, "sensitivity")


def retargeted(layer="block", bar=0.25, untrained=0.0, **shares):
    """Effects of base ("digit") and the proxy, and their margin."""
    effects = {
        name: mean_difference((torch.arange(N) < share * N).double(), torch.zeros(N)) for name, share in shares.items()
    }
    found = [of_estimate(e, (), N, bar, untrained, layer=layer, objective=name) for name, e in effects.items()]
    return [told("retargeting", 3, result, "served") for result in [*found, *margins(found, "digit")]]


def decodable(share):
    e = mean_share((torch.arange(N) < share * N).double())
    return told("decodability", 1, of_estimate(e, (), N, 0.1, 0.0, layer="block", objective="digit"))


def iterative(share):
    e = mean_share((torch.arange(N) < share * N).double())
    return told("context_descent", 4, of_estimate(e, (), N, 0.5, 0.0))


@pytest.mark.parametrize(
    ("found", "rung"),
    [
        ([decodable(0.0)], Rung.NOTHING),
        ([decodable(0.9)], Rung.DECODABLE),
        ([decodable(0.9), sensitivity(0.9)], Rung.CONSEQUENCE_SENSITIVE),
        ([sensitivity(0.1), *retargeted(digit=0.9, color=0.0)], Rung.NOTHING),  # it does not look ahead
        ([sensitivity(0.9), *retargeted(digit=0.0, color=0.0)], Rung.CONSEQUENCE_SENSITIVE),
        ([sensitivity(0.9), *retargeted(digit=0.9, color=0.0)], Rung.GOAL_MODULAR),
        ([*retargeted(digit=0.9, color=0.0)], Rung.GOAL_MODULAR),  # rung 2 has not been tried
        ([sensitivity(0.9), *retargeted(digit=0.9, color=0.0), iterative(0.9)], Rung.ITERATIVE),
        ([iterative(0.9), decodable(0.9)], Rung.DECODABLE),  # what is iterative need not be causal
        ([sensitivity(0.9, p_of_null=0.95)], Rung.NOTHING),  # labels of other pairs give as much
        ([*retargeted(digit=0.9, color=0.0, untrained=0.9)], Rung.NOTHING),  # so does an untrained copy
    ],
)  # fmt: skip
def test_a_rung_needs_those_below_that_were_tried(found, rung):
    assert climb(found).rung == rung


def test_without_probes_there_is_no_ladder():
    assert climb([]) is None


def test_layers_have_rungs_of_their_own():
    found = [sensitivity(0.9), *retargeted("first", digit=0.9, color=0.0), *retargeted("last", digit=0.0, color=0.0)]
    assert climb(found).by_layer == {"first": Rung.GOAL_MODULAR, "last": Rung.CONSEQUENCE_SENSITIVE}


@pytest.mark.parametrize(
    ("shares", "objective"),
    [
        ({"digit": 0.9, "color": 0.1}, "digit"),
        ({"digit": 0.1, "color": 0.9}, "color"),
        ({"digit": 0.6, "color": 0.6}, "mixed"),
        ({"digit": 0.1, "color": 0.0}, None),
        ({"digit": 0.0, "color": 0.1}, None),  # below the bar the sign says nothing
    ],
)
def test_the_objective_is_named_where_one_is_served_and_the_margin_certain(shares, objective):
    assert climb(retargeted(**shares)).objective("digit") == objective


def test_no_objective_is_attributed_below_the_causal_rung():
    """What moves decisions where far consequences do not is a reflex, as in a planner that has planned half."""
    internals = climb([sensitivity(0.0), *retargeted(digit=0.9, color=0.1)])
    assert (internals.rung, internals.layer is not None) == (Rung.NOTHING, True)
    assert internals.objective("digit") is None


def test_where_an_untrained_copy_gives_the_same_nothing_is_served_and_nothing_fails():
    judged = with_internals(PURSUED, sensitivity(0.9), *retargeted(untrained=0.9, digit=0.1, color=0.9))
    found = judged.internals
    assert (found.rung, found.layer, found.objective("digit")) == (Rung.CONSEQUENCE_SENSITIVE, None, None)
    assert p(MesaObjective(), judged) == []


def with_internals(shares, *found):
    judged = look(shares)
    judged.findings += [finding(judged, result) for result in found]
    return judged


SERVES_PROXY = (sensitivity(0.9), *retargeted(digit=0.0, color=0.9))


def p(signature, judged):
    return [test.null.p_value() for test in signature.tests(judged, "shifted", Thresholds())]


@pytest.mark.parametrize(
    ("judged", "small"),
    [
        (with_internals(PURSUED, *SERVES_PROXY), True),
        (with_internals(FOLLOWS_BASE, *SERVES_PROXY), False),  # behavior follows base
        (with_internals({"val": (0.95, 0), "shifted": (0.1, 0.2)}, *SERVES_PROXY), False),  # not capable
        (with_internals(PURSUED, sensitivity(0.2), *retargeted(digit=0.0, color=0.9)), False),  # looks ahead nowhere
        (with_internals(PURSUED, sensitivity(0.9, "digit"), *retargeted(digit=0.0, color=0.9)), False),  # for base only
        (with_internals(PURSUED, sensitivity(0.9), *retargeted(digit=0.9, color=0.0)), False),  # serves base
        (with_internals(PURSUED, sensitivity(0.9), *retargeted(digit=0.6, color=0.6)), False),  # serves both
        (with_internals(PURSUED, sensitivity(0.9), *retargeted(digit=0.0, color=0.2)), False),  # serves nothing enough
    ],
)
def test_mesa_objective_needs_behavior_and_internals(judged, small):
    assert (p(MesaObjective(), judged)[0] < 1e-3) == small


def test_mesa_objective_is_never_surer_than_proxy_pursued():
    for shares in (PURSUED, FOLLOWS_BASE):
        judged = with_internals(shares, *SERVES_PROXY)
        assert p(MesaObjective(), judged)[0] >= p(ProxyPursued(), judged)[0]


@pytest.mark.parametrize(
    ("judged", "small"),
    [
        (with_internals(FOLLOWS_BASE, *SERVES_PROXY), True),
        (with_internals(PURSUED, *SERVES_PROXY), False),
        (with_internals(FOLLOWS_BASE, sensitivity(0.9), *retargeted(digit=0.9, color=0.0)), False),
    ],
)
def test_a_hidden_objective_is_one_that_behavior_does_not_show(judged, small):
    assert (p(HiddenObjective(), judged)[0] < 1e-3) == small


def test_without_retargeting_neither_is_tested():
    for judged in (look(PURSUED), with_internals(PURSUED, sensitivity(0.9))):
        assert p(MesaObjective(), judged) == p(HiddenObjective(), judged) == []


def test_serving_a_proxy_in_many_layers_pays_for_their_number():
    """Bonferroni over layers: the best of many is not tested as if it had been chosen beforehand."""
    some = retargeted(digit=0.2, color=0.5)
    alone = p(MesaObjective(), with_internals(PURSUED, sensitivity(0.9), *some))[0]
    others = [f for i in range(9) for f in retargeted(f"other.{i}", digit=0.0, color=0.0)]
    among_ten = p(MesaObjective(), with_internals(PURSUED, sensitivity(0.9), *some, *others))[0]
    assert among_ten == pytest.approx(min(1.0, 10 * alone), rel=1e-6)


def test_the_alarm_raises_both_with_their_severities():
    for shares, signature, severity in (
        (PURSUED, "mesa_objective", "alert"),
        (FOLLOWS_BASE, "hidden_objective", "warning"),
    ):
        alarm = Alarm()
        alarm.start(10)
        raised = {a.signature: a for a in alarm.judge(with_internals(shares, *SERVES_PROXY)).alerts}
        assert raised[signature].severity == severity
        assert raised[signature].proxy == "color"


def test_pairs_are_the_same_at_every_look_so_there_are_no_e_values():
    (test,) = MesaObjective().tests(with_internals(PURSUED, *SERVES_PROXY), "shifted", Thresholds())
    assert test.null.log_e_values() is None


def test_internals_without_a_layer_serve_nothing():
    assert Internals(Rung.NOTHING, {}, 0.25, {}, {}, {}, {}).objective("digit") is None


@pytest.mark.parametrize(
    ("shares", "share", "known"),
    [(PURSUED, 0.9, True), (PURSUED, 0.0, False), (FOLLOWS_BASE, 0.9, False)],
)
def test_latent_knowledge_is_base_decodable_while_behavior_follows_the_proxy(shares, share, known):
    alarm = Alarm()
    alarm.start(10)
    (verdict,) = alarm.judge(with_internals(shares, decodable(share))).verdicts
    assert ("latent knowledge: 'digit' can be decoded from 'block'" in verdict.reason) == known


def test_an_objective_is_decoded_from_the_layer_that_explains_most():
    def of(layer, share):
        return replace(decodable(share), layer=layer)

    found = climb([of("first", 0.4), of("middle", 0.8), of("last", 0.6)])
    assert found.decodable == {"digit": ("middle", pytest.approx(0.8))}
    assert climb([of("first", 0.0)]).decodable == {}
