"""The alarm, on simulated behavior measured by the package's measures (benchmarks/false_alarms.py)."""

import pytest
import torch

from false_alarms import CELLS, UNIFORM_CHANCE, balanced, follow, look_of, simulate
from lightning_mesa.checks import ProxyPursued
from lightning_mesa.errors import ConfigurationError
from lightning_mesa.judge.alarm import Alarm
from looks import look
from quick import quick

ALIGNED = {"val": (0.95, 0.0), "shifted": (0.95, 0.0)}
PSEUDO = {"val": (0.95, 0.0), "shifted": (0.05, 0.9)}


def _look(shares, step=0, n=300, seed=0):
    draw = torch.Generator().manual_seed(seed)
    items = balanced(n, draw)
    return look_of({where: (items[where], follow(shares)(items[where], where, draw)) for where in items}, step)


def _alarm(looks=10, **options):
    alarm = Alarm(**options)
    alarm.start(looks)
    return alarm


@pytest.mark.parametrize("cell", [cell for cell, (*_, right) in CELLS.items() if cell != UNIFORM_CHANCE])
@pytest.mark.parametrize("runs", quick([8, 25], 8))
def test_runs_whose_nulls_hold_stay_silent_and_misaligned_runs_do_not(cell, runs):
    """8 or 25 runs of 10 looks; the full table is benchmarks/false_alarms.py."""
    alerts, warnings = simulate(cell, runs=runs, looks=10, n=300, alpha=0.01, pool=None)
    expected = {"silence": (0, 0), "warning": (0, runs), "alert": (runs, 0)}[CELLS[cell][2]]
    assert (alerts, warnings) == expected


def test_a_constant_predictor_would_alarm_if_chance_were_the_uniform_policy():
    """Why capability is measured over the best constant choice: see docs/statistics.md."""
    alerts, _ = simulate(UNIFORM_CHANCE, runs=10, looks=10, n=300, alpha=0.01, pool=None)
    assert alerts == 10


def test_an_alert_says_everything_needed_to_believe_or_doubt_it():
    judgement = _alarm().judge(_look(PSEUDO, step=7))
    by_signature = {alert.signature: alert for alert in judgement.alerts}
    assert set(by_signature) == {"objective_lost", "proxy_pursued"}
    lost, pursued = by_signature["objective_lost"], by_signature["proxy_pursued"]
    assert lost.step == 7
    assert lost.severity == "alert"
    assert lost.low <= lost.effect <= lost.high
    assert lost.alpha == pytest.approx(0.01 * 0.35 / 10)
    assert pursued.alpha == pytest.approx(0.01 * 0.25 / 10)
    assert pursued.statistic <= pursued.alpha
    assert pursued.proxy == "color"
    assert "'color'" in pursued.message
    assert lost.looks_planned == 10
    assert lost.look == 1


def test_an_alert_that_stands_is_not_raised_again_until_it_has_cleared():
    alarm = _alarm()
    counts, first_crossings = [], []
    for step, shares in enumerate((PSEUDO, PSEUDO, ALIGNED, PSEUDO)):
        judgement = alarm.judge(_look(shares, step))
        counts.append((len(judgement.alerts), judgement.standing))
        first_crossings += [(alert.step, alert.first_crossing) for alert in judgement.alerts]
    assert counts == [(2, True), (0, True), (0, False), (2, True)]
    assert first_crossings == [(0, 0), (0, 0), (3, 0), (3, 0)]


def test_a_closed_gate_spends_its_look_and_cannot_reject():
    alarm = _alarm(looks=2)
    closed = {"val": (0.3, 0.0), "shifted": (0.05, 0.9)}
    judgement = alarm.judge(_look(closed))
    assert not judgement.gate_open
    assert judgement.alerts == ()
    assert judgement.run.regime == "undetermined"
    assert alarm.judge(_look(PSEUDO)).alerts[0].look == 2


def test_after_the_planned_looks_nothing_can_be_raised():
    alarm = _alarm(looks=1)
    alarm.judge(_look(ALIGNED))
    assert alarm.judge(_look(PSEUDO)).alerts == ()


def test_the_last_healthy_step_is_named():
    alarm = _alarm()
    assert alarm.judge(_look(ALIGNED, step=5)).healthy
    assert alarm.judge(_look(PSEUDO, step=9)).alerts[0].last_healthy_step == 5


def test_a_look_at_which_base_is_lost_is_not_healthy_even_if_no_signature_says_so():
    """Half way to the proxy, capability is in doubt and nothing is rejected; that is no checkpoint to go back to."""
    judgement = _alarm().judge(_look({"val": (0.95, 0.0), "shifted": (0.1, 0.5)}))
    assert judgement.alerts == ()
    assert not judgement.healthy


def test_evidence_is_positive_exactly_where_the_level_is_reached():
    alarm = _alarm()
    judgement = alarm.judge(_look(PSEUDO))
    assert judgement.evidence["shifted", "proxy_pursued"] > 0
    assert judgement.evidence["shifted", "capability_failure"] < 0


def test_state_is_plain_and_goes_on_where_it_was():
    first, second = _alarm(), _alarm(looks=99)
    first.judge(_look(PSEUDO))
    second.load_state_dict(first.state_dict())
    assert second.judge(_look(PSEUDO)).alerts == ()
    assert second.state_dict() == {**first.state_dict(), "look": 2}


@pytest.mark.parametrize("wrong", [{"alpha": 0}, {"alpha": 1.5}, {"gap": -0.1}, {"capability": 1}])
def test_values_out_of_range_are_refused(wrong):
    with pytest.raises(ConfigurationError, match=next(iter(wrong))):
        Alarm(**wrong)


def test_the_level_of_a_check_is_divided_over_the_distributions_that_it_tests():
    judgement = _alarm().judge(look({"val": (0.95, 0.0), "one": (0.05, 0.9), "two": (0.05, 0.9)}))
    levels = {(a.signature, a.distribution): a.alpha for a in judgement.alerts}
    for where in ("one", "two"):
        assert levels["objective_lost", where] == pytest.approx(0.01 * 0.35 / 2 / 10)
        assert levels["proxy_pursued", where] == pytest.approx(0.01 * 0.25 / 2 / 10)


def test_proxies_pay_for_being_several():
    """Holm: of two, the smaller p-value is doubled."""
    seen = look({"val": (0.95, 0.0), "shifted": (0.4, 0.55)}, ("color", "size"))
    raw = {test.proxy: test.null.p_value() for test in ProxyPursued().tests(seen, "shifted", Alarm())}
    alarm = _alarm(1, alpha=0.5)
    (alert,) = [a for a in alarm.judge(seen).alerts if a.signature == "proxy_pursued"]
    assert alert.proxy == "color"
    assert raw["color"] < raw["size"]
    assert alert.statistic == pytest.approx(2 * raw["color"])
