import time
from typing import ClassVar

import pytest

import toy
from lightning_mesa.data import progress
from namespace import VERSION, part

RichProgressBar, TQDMProgressBar = part("callbacks").RichProgressBar, part("callbacks").TQDMProgressBar


def test_the_table_names_the_regime_the_limits_and_the_alert(tmp_path, caplog):
    toy.fit(tmp_path, toy.monitor(on_alert="stop"), max_epochs=40)
    caplog_text = caplog.text
    assert "alert at step" in caplog_text


def test_summary_text(tmp_path, monkeypatch):
    """What is printed at the end of fit."""
    printed = []
    monkeypatch.setattr("lightning_mesa.callbacks.monitor.rank_zero_info", printed.append)
    toy.fit(tmp_path, toy.monitor(on_alert="stop"), max_epochs=40)
    table = printed[-1]
    assert "pseudo-aligned (z)" in table
    assert "distribution  n    y" in table
    assert "stopped by the monitor: " in table


@pytest.mark.parametrize("bar", [TQDMProgressBar, RichProgressBar])
def test_a_slow_look_shows_its_progress_and_a_fast_one_does_not(tmp_path, bar, monkeypatch, capsys):
    if bar is RichProgressBar and VERSION < (2, 6):
        pytest.skip("this Lightning's bar does not end two runs of a process on the rich that is installed")
    toy.fit(tmp_path, toy.monitor(), bar(), enable_progress_bar=True, max_epochs=1)
    assert "mesa: apart" not in "".join(capsys.readouterr())
    monkeypatch.setattr(progress, "PATIENCE_SECONDS", -1.0)
    toy.fit(tmp_path, toy.monitor(), bar(), enable_progress_bar=True, max_epochs=1)
    out = "".join(capsys.readouterr())
    assert "mesa: apart" in out or bar is RichProgressBar  # rich draws only on a terminal


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

    long_ago = time.perf_counter() - 60
    assert list(progress.progress(Trainer, iter("abc"), "mesa: d", 3, long_ago)) == ["a", "b", "c"]
    assert Bar.calls[0] == ("add", "mesa: d", 3)
    assert Bar.calls[-1] == ("update", 7, {"visible": False})


def test_before_rich_has_begun_nothing_is_shown():
    class Trainer:
        class progress_bar_callback:  # noqa: N801
            is_disabled = False
            progress = None

    assert list(progress.progress(Trainer, iter("abc"), "mesa: d", 3, time.perf_counter() - 60)) == ["a", "b", "c"]


def test_the_profiler_shows_the_monitor_under_its_name(tmp_path):
    profiler = part("profilers").SimpleProfiler()
    toy.fit(tmp_path, toy.monitor(), profiler=profiler)
    for verb in ("observe", "measure", "judge", "report"):
        assert len(profiler.recorded_durations[f"[mesa]{verb}"]) == 4
