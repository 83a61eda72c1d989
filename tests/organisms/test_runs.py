import os
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from lightning_mesa.organisms.runs import plans, run_all
from lightning_mesa.organisms.training import Plan


def write(plan, folder):
    """One run that ends well, one that raises, one whose process dies."""
    if plan.kind == "weak":
        raise RuntimeError("no data")
    if plan.kind == "incapable":
        os._exit(3)
    with (folder.parent / "ran.txt").open("a") as file:
        file.write(f"{plan.name}\n")
    (folder / "oracle.json").write_text("{}")


def thread(_):
    return ThreadPoolExecutor(1)


def test_a_run_that_fails_is_lost_and_no_other(tmp_path):
    todo = [Plan("a", kind, 0) for kind in ("strong", "weak", "clean")]
    failed = run_all(todo, tmp_path, 1, 600, print, write, thread)
    assert set(failed) == {"a-weak-0"}
    assert "no data" in failed["a-weak-0"]
    assert len((tmp_path / "ran.txt").read_text().split()) == 2


@pytest.mark.slow
def test_a_run_that_fails_or_dies_is_lost_and_no_other(tmp_path):
    todo = [Plan("a", kind, 0) for kind in ("strong", "weak", "incapable", "clean")]
    said = []
    failed = run_all(todo, tmp_path, 1, 600, said.append, write)
    assert set(failed) == {"a-weak-0", "a-incapable-0"}
    assert "no data" in failed["a-weak-0"]
    assert "BrokenProcessPool" in failed["a-incapable-0"]
    assert "no data" in (tmp_path / "a-weak-0" / "crash.txt").read_text()
    assert len((tmp_path / "ran.txt").read_text().split()) == 2
    assert said[-1].startswith("4 of 4")


def test_what_has_a_result_is_not_run_again(tmp_path):
    todo = [Plan("a", "strong", seed) for seed in range(3)]
    run_all(todo[:2], tmp_path, 2, 600, print, write, thread)
    run_all(todo, tmp_path, 1, 600, print, write, thread)
    assert sorted((tmp_path / "ran.txt").read_text().split()) == [plan.name for plan in todo]


def test_no_run_is_begun_after_the_budget(tmp_path):
    assert run_all([Plan("a", "strong", 0)], tmp_path, 1, 0.0, print, write, thread) == {}
    assert not list(tmp_path.glob("*/oracle.json"))


def test_after_an_interruption_no_run_is_begun_and_the_one_under_way_is_kept(tmp_path, monkeypatch):
    under_way, may_end = threading.Event(), threading.Event()

    def held_up(plan, folder):
        under_way.set()
        assert may_end.wait(600)
        write(plan, folder)

    def interrupted(self):
        assert under_way.wait(600)
        raise KeyboardInterrupt

    there = threading.enumerate()
    todo = [Plan("a", "strong", seed) for seed in range(5)]
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "join", interrupted)  # where Ctrl-C finds the main thread
        with pytest.raises(KeyboardInterrupt):
            run_all(todo, tmp_path, 1, 600, print, held_up, thread)
    may_end.set()
    for worker in set(threading.enumerate()) - set(there):
        worker.join()
    assert [str(path.relative_to(tmp_path)) for path in tmp_path.glob("a-*/*")] == ["a-strong-0/oracle.json"]


def test_a_small_budget_has_some_of_every_family():
    order = [plan.name for plan in plans(["a", "b"], {"strong": 2, "clean": 1})]
    assert order == ["a-strong-0", "a-clean-0", "b-strong-0", "b-clean-0", "a-strong-1", "b-strong-1"]
