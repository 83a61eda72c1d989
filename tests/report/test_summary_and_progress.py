import re
from functools import partial
from typing import ClassVar

import pytest

import toy
from lightning_mesa.data import progress
from namespace import VERSION, part

RichProgressBar, TQDMProgressBar = part("callbacks").RichProgressBar, part("callbacks").TQDMProgressBar
LONG_AGO = float("-inf")


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """A run that the monitor has stopped, and what was printed at its end."""
    printed = []
    mesa = toy.monitor(on_alert="stop")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lightning_mesa.callbacks.run.rank_zero_info", printed.append)
        toy.fit(tmp_path_factory.mktemp("stopped"), mesa, max_epochs=40)
    return mesa, printed[-1].splitlines()


def test_the_table_has_a_row_for_each_distribution_with_its_regime_and_limits(stopped):
    mesa, lines = stopped
    assert lines[0].startswith(f"mesa (fit) at step {mesa.alerts[0].step}: pseudo-aligned (on 'apart': gap ")
    header, reference, apart = (re.split(r"  +", line) for line in lines[1:4])
    assert header == ["distribution", "n", "y", "z", "capability", "gap [95 %]", "regime"]
    assert (reference[:2], reference[-1]) == (["val", "400"], "reference")
    assert (apart[:2], apart[-1]) == (["apart", "400"], "pseudo-aligned (z)")
    value, low, high = map(float, re.fullmatch(r"(\S+) \[(\S+), (\S+)\]", apart[-2]).groups())
    assert 0.1 < low < value < high
    assert lines[4] == "base objective: y; columns of objectives show competence"


def test_after_the_table_come_the_alerts_and_why_the_run_was_stopped(stopped):
    mesa, lines = stopped
    said = [f"{one.severity} at step {one.step}: {one.signature}: {one.message}" for one in mesa.alerts]
    assert said
    weights = "step 0 was healthy" if mesa.alarm.last_healthy_step == 0 else "there are no healthy weights"
    assert lines[5:-1] == said
    assert lines[-1].startswith(f"stopped by the monitor: {mesa.stop_reason}; {weights}")


@pytest.mark.parametrize("build", [TQDMProgressBar, partial(RichProgressBar, console_kwargs={"force_terminal": True})])
def test_a_slow_look_shows_its_progress_and_a_fast_one_does_not(tmp_path, build, monkeypatch, capsys):
    if build is not TQDMProgressBar and VERSION < (2, 6):
        pytest.skip("this Lightning's bar does not end two runs of a process on the rich that is installed")
    shown = []
    for patience in (float("inf"), -1.0):
        monkeypatch.setattr(progress, "PATIENCE_SECONDS", patience)
        toy.fit(tmp_path, toy.monitor(), build(), enable_progress_bar=True, max_epochs=1)
        shown.append("mesa: apart" in "".join(capsys.readouterr()))
    assert shown == [False, True]


def test_rich_gets_a_task_that_ends():
    class Bar:
        is_disabled = False
        calls: ClassVar[list] = []

        class progress:  # noqa: N801
            @staticmethod
            def add_task(description, total):
                Bar.calls.append(("add", description, total))
                return 7

            @staticmethod
            def update(task, **state):
                Bar.calls.append(("update", task, state))

            @staticmethod
            def refresh():
                pass

    class Trainer:
        progress_bar_callback = Bar

    assert list(progress.progress(Trainer, iter("abc"), "mesa: d", 3, LONG_AGO)) == ["a", "b", "c"]
    assert Bar.calls[0] == ("add", "mesa: d", 3)
    assert Bar.calls[-1] == ("update", 7, {"visible": False})


def test_before_rich_has_begun_nothing_is_shown():
    class Trainer:
        class progress_bar_callback:  # noqa: N801
            is_disabled = False
            progress = None

    assert list(progress.progress(Trainer, iter("abc"), "mesa: d", 3, LONG_AGO)) == ["a", "b", "c"]


def test_the_profiler_shows_the_monitor_under_its_name(tmp_path):
    profiler = part("profilers").SimpleProfiler()
    toy.fit(tmp_path, toy.monitor(), profiler=profiler)
    for verb in ("observe", "measure", "judge", "report"):
        assert len(profiler.recorded_durations[f"[mesa]{verb}"]) == 4
