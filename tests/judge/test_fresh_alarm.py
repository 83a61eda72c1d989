"""The alarm on fresh items, where evidence adds up over looks (benchmarks/whole_alarm.py --fresh)."""

import json

import pytest
import torch

import whole_alarm
from false_alarms import balanced, follow, look_of
from lightning_mesa.judge.alarm import Alarm

WEAK = {"val": (0.95, 0.0), "shifted": (0.6, 0.2)}
ALIGNED = {"val": (0.95, 0.0), "shifted": (0.95, 0.0)}
PURSUED = {"val": (0.95, 0.0), "shifted": (0.05, 0.9)}
DETECTED = "one gap of .3 from half way on"


def _look(shares, step, n=60, regimes=("fresh", "fresh")):
    draw = torch.Generator().manual_seed(step)
    items = balanced(n, draw)
    chosen = {where: (items[where], follow(shares)(items[where], where, draw)) for where in items}
    return look_of(chosen, step, dict(zip(("val", "shifted"), regimes, strict=True)))


def _alarm(looks=20):
    alarm = Alarm()
    alarm.start(looks)
    return alarm


@pytest.mark.parametrize("runs", [1, pytest.param(4, marks=pytest.mark.slow)])
@pytest.mark.parametrize("cell", whole_alarm.CELLS)
def test_runs_at_the_boundary_stay_silent_and_a_gap_is_found_within_six_looks(cell, runs):
    """The full table is in docs/statistics.md."""
    counts = [whole_alarm.run(cell, seed, looks=20, regime="fresh") for seed in range(runs)]
    assert sum(counts) == (runs if cell == DETECTED else 0)


def test_evidence_adds_up_over_looks_none_of_which_would_do_alone():
    """The same looks, declared re-used, never reach their share of the level."""
    raised = {}
    for regime in ("fresh", "reused"):
        alarm = _alarm(looks=100)
        judged = [alarm.judge(_look(WEAK, step, regimes=(regime, regime))) for step in range(15)]
        raised[regime] = [a.signature for judgement in judged[:15] for a in judgement.alerts]
    assert "objective_lost" in raised["fresh"]
    assert "objective_lost" not in raised["reused"]


def test_an_alert_from_fresh_items_says_how_it_came_about():
    alarm = _alarm()
    alerts = [alert for step in range(6) for alert in alarm.judge(_look(PURSUED, step)).alerts]
    lost = next(alert for alert in alerts if alert.signature == "objective_lost")
    assert lost.data_regime == "fresh"
    assert "e-process" in lost.procedure
    assert lost.alpha == pytest.approx(0.01 * 0.35)  # the whole run's: looks share no level here
    assert lost.statistic <= lost.alpha


def test_a_saved_alarm_goes_on_with_the_evidence_that_it_had():
    through, first, second = _alarm(), _alarm(), _alarm()
    looks = [_look(WEAK, step) for step in range(10)]
    expected = [through.judge(look) for look in looks]
    for look in looks[:4]:
        first.judge(look)
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    assert [second.judge(look) for look in looks[4:]] == expected[4:]
    assert second.state_dict() == through.state_dict()


def test_an_alert_clears_when_the_evidence_at_a_look_is_gone_and_is_raised_again_when_it_is_back():
    alarm = _alarm()
    standing = [alarm.judge(_look(shares, i, n=300)).standing for i, shares in enumerate([PURSUED, ALIGNED, PURSUED])]
    assert standing == [True, False, True]


@pytest.mark.parametrize(
    ("regimes", "raised"),
    [
        (("fresh", "fresh"), {"objective_lost", "proxy_pursued"}),
        (("reused", "fresh"), {"objective_lost", "proxy_pursued"}),
        (("adaptive", "fresh"), {"proxy_pursued"}),  # its null does not speak of the reference
        (("fresh", "adaptive"), set()),
    ],
)
def test_a_check_may_alert_if_the_data_that_its_null_speaks_of_allow_it(regimes, raised):
    alarm = _alarm()
    alerts = [alert for step in range(4) for alert in alarm.judge(_look(PURSUED, step, 300, regimes)).alerts]
    assert {alert.signature for alert in alerts} == raised
    for alert in alerts:
        rests_on = regimes if alert.signature == "objective_lost" else regimes[1:]
        assert alert.data_regime == "+".join(dict.fromkeys(rests_on))
        assert ("e-process" in alert.procedure) == (set(rests_on) == {"fresh"})
