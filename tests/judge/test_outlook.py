"""The alarm raises what the outlook calls visible, and nothing smaller, to the item."""

from dataclasses import replace

import pytest
import torch

from lightning_mesa.checks import CHECKS, Check, Test
from lightning_mesa.judge.alarm import Alarm
from lightning_mesa.judge.outlook import outlook
from lightning_mesa.objectives.hypotheses import Hypotheses
from lightning_mesa.objectives.matches import Matches
from lightning_mesa.stats.nulls import AtMost
from lightning_mesa.testing import look_at
from looks import behaviors, look

UNTRAINED = {"val": (0.1, 0.0), "shifted": (0.1, 0.1)}


def raised(n, kept, looks, *, proxies=("color",), regime="reused", alarm=None):
    """The gap, and what an alarm raises at one look at n items of which so many still follow base."""
    seen = look({"val": (1.0, 0.0), "shifted": (kept / n, 1 - kept / n)}, proxies, n)
    seen.data_regimes = dict.fromkeys(("val", "shifted"), regime)
    alarm = Alarm() if alarm is None else alarm
    alarm.start(looks)
    alarm.look = 0 if looks else 9
    return seen.estimate("gap", "shifted").value, {alert.signature for alert in alarm.judge(seen).alerts}


@pytest.mark.parametrize("proxies", [("color",), (), ("color", "texture")])
@pytest.mark.parametrize("looks", [1, 9, 100, None])
@pytest.mark.parametrize("n", [20, 100, 400, 2000])
def test_the_smallest_gap_is_raised_and_one_item_less_is_not(n, looks, proxies):
    gap = outlook(look(UNTRAINED, proxies, n), Alarm(), looks).gaps["shifted"]
    lost = "objective_lost" if proxies else "base_lost"
    if gap is None:
        assert (n, looks) in {(20, 100), (20, None)}
        assert lost not in raised(n, 0, looks, proxies=proxies)[1]
        return
    kept = round(n * (1 - 0.9 * gap))  # chance is .1
    assert raised(n, kept, looks, proxies=proxies)[0] == pytest.approx(gap)
    assert lost in raised(n, kept, looks, proxies=proxies)[1]
    assert lost not in raised(n, kept + 1, looks, proxies=proxies)[1]


@pytest.mark.parametrize("alarm", [Alarm(alpha=0.2), Alarm(gap=0.3), Alarm(capability=0.8)])
@pytest.mark.parametrize("regime", ["reused", "fresh"])
def test_it_is_the_run_s_own_alarm_and_data_regime_that_count(alarm, regime):
    untrained = look(UNTRAINED)
    untrained.data_regimes = dict.fromkeys(("val", "shifted"), regime)
    gap = outlook(untrained, alarm, 20).gaps["shifted"]
    kept = round(400 * (1 - 0.9 * gap))
    assert "objective_lost" in raised(400, kept, 20, regime=regime, alarm=alarm)[1]
    assert "objective_lost" not in raised(400, kept + 1, 20, regime=regime, alarm=alarm)[1]


def test_a_true_gap_of_that_size_is_raised_at_every_other_look_and_a_larger_one_nearly_always():
    """Simulated: the items that are lost are drawn."""
    gap = outlook(look(UNTRAINED), Alarm(), 9).gaps["shifted"]
    draw = torch.Generator().manual_seed(0)
    seen = []
    for true in (gap, gap + 0.1, gap / 2):
        lost = true * 0.9  # chance is .1
        counts = torch.binomial(torch.full((60,), 400.0), torch.tensor(1 - lost), generator=draw).int().tolist()
        seen.append(sum("objective_lost" in raised(400, kept, 9)[1] for kept in counts) / 60)
    assert 0.3 < seen[0] < 0.7
    assert seen[1] > 0.9
    assert seen[2] < 0.02


def test_more_items_show_smaller_gaps_and_more_looks_larger_ones():
    gaps = {n: outlook(look(UNTRAINED, n=n), Alarm(), 9).gaps["shifted"] for n in (100, 400, 2000)}
    assert 1 > gaps[100] > gaps[400] > gaps[2000] > 0.1
    by_looks = [outlook(look(UNTRAINED), Alarm(), looks).gaps["shifted"] for looks in (1, 10, 1000)]
    assert by_looks == sorted(by_looks)
    assert by_looks[0] < by_looks[-1]


def test_conflict_items_are_counted_by_distribution_and_proxy():
    ahead = outlook(look(UNTRAINED, ("color", "texture")), Alarm(), 9)
    assert ahead.conflicts == {"val": {"color": 0, "texture": 0}, "shifted": {"color": 400, "texture": 400}}
    assert ahead.items == {"val": 400, "shifted": 400}


FIRE = {"objective_lost", "proxy_pursued", "capability_failure"}

SILENT = {
    "base alone": ({"proxies": ()}, {"proxy_pursued": "no proxy is listed", "capability_failure": "base alone"}),
    "a proxy": ({}, {"base_lost": "objective_lost asks this", "slice_failure": "no groups=", "cue_dependence": "cue="}),
    "a few items": ({"n": 8}, {"objective_lost": "too few items (8)", "proxy_pursued": "too few items (8)"}),
    "adaptive data": ({"adaptive": ["shifted"]}, dict.fromkeys(FIRE, "'shifted' is adaptive")),
    "an adaptive reference": ({"adaptive": ["val"]}, {"objective_lost": "'val' is adaptive"}),
    "no conflict": ({}, {"proxy_on_reference": "too few items (0)"}),
    "too few for the gate": ({"n": 3}, dict.fromkeys(FIRE, "the gate cannot open")),
}


@pytest.mark.parametrize(("world", "expected"), SILENT.values(), ids=SILENT.keys())
def test_what_cannot_fire_is_said_with_the_reason(world, expected):
    untrained = look(UNTRAINED, world.get("proxies", ("color",)), world.get("n", 400))
    untrained.data_regimes = dict.fromkeys(world.get("adaptive", ()), "adaptive")
    ahead = outlook(untrained, Alarm(), 9)
    for check, reason in expected.items():
        assert not ahead.fires[check]
        assert all(reason in why for why in ahead.silent[check].values())
        assert f"cannot fire: {check}: " in "\n".join(ahead.lines())
    assert bool(ahead.gate) == (world.get("n") == 3)


@pytest.mark.parametrize("proxies", [("color",), ()])
def test_what_is_said_to_fire_does_so_at_the_worst_model_and_nothing_else_does(proxies):
    """The worst models: one that pursues the proxy, and one that is capable of nothing."""
    ahead = outlook(look(UNTRAINED, proxies), Alarm(), 9)
    worst = [(1.0, 0.0), (0.0, 1.0), (0.0, 0.0)]
    seen = set()
    for shifted in worst:
        alarm = Alarm()
        alarm.start(9)
        seen |= {a.signature for a in alarm.judge(look({"val": (1.0, 0.0), "shifted": shifted}, proxies)).alerts}
    # Outputs are not recorded in these looks, so that no extremity is.
    assert seen == {check for check, places in ahead.fires.items() if places}


def test_groups_and_a_cue_can_fire_where_they_are_given():
    items = behaviors(UNTRAINED)
    groups = {"site.a": torch.arange(400) < 200, "site.b": torch.arange(400) >= 200}
    items = [replace(one, groups=groups, cued=one.scores["digit"]) for one in items]
    ahead = outlook(look_at(items, Hypotheses(Matches("digit"), [Matches("color")])), Alarm(), 9)
    assert ahead.fires["slice_failure"] == ahead.fires["cue_dependence"] == ("val", "shifted")


class Own(Check):
    name, severity, share, uses_reference = "own", "alert", 1.0, False

    def null(self, thresholds):
        return "nothing is wrong"

    def tests(self, look, where, thresholds):
        return [Test(AtMost(None, 0.5), None, 9, None, "It is wrong.")]


def test_a_check_of_a_user_s_own_is_taken_to_be_able_to_fire():
    alarm = Alarm().judging([Own()])
    seen = look_at(behaviors(UNTRAINED), Hypotheses(Matches("digit"), [Matches("color")]), checks=[*CHECKS, Own()])
    assert outlook(seen, alarm, 9).fires["own"] == ("shifted",)


def test_neither_the_alarm_nor_the_look_is_touched():
    alarm, seen = Alarm(), look(UNTRAINED)
    alarm.start(9)
    alarm.judge(seen)
    state, findings = alarm.state_dict(), list(seen.findings)
    outlook(seen, alarm, 9)
    assert alarm.state_dict() == state
    assert seen.findings == findings


def test_one_line_says_the_numbers():
    assert outlook(look(UNTRAINED), Alarm(), 9).short() == (
        "in 9 looks can be seen: 'shifted': 400 items, 400 of them in conflict with 'color', a gap from "
        f"{outlook(look(UNTRAINED), Alarm(), 9).gaps['shifted']:.2f} on"
    )
