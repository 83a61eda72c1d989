"""Tables and prose fit the terminal, and lose nothing."""

import os
from dataclasses import replace

import pytest

from lightning_mesa.attach.cli import main
from lightning_mesa.judge.alarm import Alarm
from lightning_mesa.report.summary import aligned, muted, summary, terminal_width, wrapped
from lightning_mesa.report.timeline import timeline
from looks import look
from score_tables import LOST, table

WIDTHS = [60, 80, 120]
PROXIES = ("color", "texture_of_the_background", "position", "size_in_pixels")
SHARES = {"val": (0.95, 0.02), "recolored": (0.2, 0.7), "a_distribution_with_a_long_name": (0.5, 0.3)}


@pytest.fixture(params=WIDTHS)
def width(request, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(request.param))
    return request.param


@pytest.fixture(scope="module")
def judged():
    """Two looks with everything that makes a table wide, and the alarm that has judged them."""
    looks, alarm = [replace(look(SHARES, PROXIES), step=step) for step in (0, 1000)], Alarm()
    alarm.start(2)
    return looks, [alarm.judge(one) for one in looks], alarm


def test_the_table_fits_and_holds_every_number(width, judged, monkeypatch):
    looks, judgements, alarm = judged
    alerts = [alert for judgement in judgements for alert in judgement.alerts]
    fitted = summary("mesa (fit)", looks[1], judgements[1], alerts, alarm, ["a remark " * 30])
    assert max(map(len, fitted.splitlines())) <= width
    monkeypatch.delenv("COLUMNS")
    whole = summary("mesa (fit)", looks[1], judgements[1], alerts, alarm, ["a remark " * 30])
    assert max(map(len, whole.splitlines())) > 120
    numbers = {word for word in whole.split() if any(map(str.isdigit, word))}
    assert numbers <= set(fitted.split())
    assert width == 60 or set(fitted.split()) == set(whole.split())  # there, the longest names are cut
    blocks = [line for line in fitted.splitlines() if line.startswith("a_distribution_with")]
    assert len(blocks) >= (2 if width < 120 else 1)  # in each, as its first column


def test_the_timeline_fits_and_holds_every_number(width, judged, monkeypatch):
    looks, judgements, _ = judged
    fitted = timeline([one.findings for one in looks], judgements)
    assert max(map(len, fitted.splitlines())) <= width
    monkeypatch.delenv("COLUMNS")
    whole = timeline([one.findings for one in looks], judgements)
    numbers = {word for word in whole.split() if word[0] in "+-[" or word[0].isdigit()}
    assert numbers <= set(fitted.split())


def test_the_command_s_output_fits(width, tmp_path, capsys):
    assert main(["replay", str(table(tmp_path / "s.csv", LOST)), "--looks", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(len(line) for line in lines if str(tmp_path) not in line) <= width  # a path is not broken


@pytest.mark.parametrize("columns", range(1, 9))
@pytest.mark.parametrize("longest", [1, 15, 40, 200])
def test_any_table_fits(width, columns, longest):
    rows = [
        ["name", *(f"c{i}" for i in range(1, columns))],
        ["x" * longest, *("y" * longest for _ in range(1, columns))],
    ]
    lines = aligned(rows)
    assert max(map(len, lines)) <= width
    words = " ".join(lines).split()
    assert {f"c{i}" for i in range(1, columns)} <= set(words)
    assert sum(word.startswith("y") for word in words) == columns - 1
    assert sum(word.startswith("x") for word in words) == sum(line.startswith("name") for line in lines) >= 1


def test_a_title_stands_above_its_columns_in_every_part(monkeypatch):
    monkeypatch.setenv("COLUMNS", "30")
    rows = [["", "val", "", "", "apart", ""], ["step", *"abcde"], ["0", *(letter * 9 for letter in "abcde")]]
    assert aligned(rows, titled=True) == [
        "      val",
        "step  a          b",
        "0     aaaaaaaaa  bbbbbbbbb",
        "      val        apart",
        "step  c          d",
        "0     ccccccccc  ddddddddd",
        "      apart",
        "step  e",
        "0     eeeeeeeee",
    ]


def test_where_there_is_no_terminal_nothing_is_broken(monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)
    monkeypatch.setattr(os, "get_terminal_size", lambda *_: (_ for _ in ()).throw(OSError))
    assert terminal_width() == 10_000
    assert wrapped(["word " * 500]) == ["word " * 499 + "word"]


# --- what has kept alerts from being raised ---


def silent(shares, regimes=None):
    alarm = Alarm()
    alarm.start(2)
    seen = look(shares)
    seen.data_regimes = regimes or {}
    alarm.judge(seen)
    return " ".join(muted(seen, alarm))


def test_a_gate_that_never_opened_is_said_with_what_was_reached_and_the_remedy():
    said = silent({"val": (0.3, 0.0), "shifted": (0.3, 0.3)})
    assert "the gate never opened, so nothing could be raised: capability 0.22 [" in said
    assert "its lower limit must reach 0.5. Train longer" in said
    assert silent({"val": (0.95, 0.0), "shifted": (0.3, 0.3)}) == ""


def test_data_on_which_no_alert_rests_are_said_with_the_remedy():
    said = silent({"val": (0.95, 0.0), "shifted": (0.3, 0.3)}, {"shifted": "adaptive"})
    assert said.startswith("no alert rests on 'shifted': adaptive data")
    assert "declare data_regime='reused'" in said


def test_a_gate_that_was_open_once_is_remembered_over_a_resume():
    alarm, resumed = Alarm(), Alarm()
    alarm.judge(look({"val": (0.95, 0.0), "shifted": (0.95, 0.0)}))
    resumed.load_state_dict(alarm.state_dict())
    assert resumed.gate_opened
