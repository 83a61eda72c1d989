"""A long run holds no more memory than a short one; the full length is in benchmarks/memory.py."""

import tracemalloc

import pytest

import memory
import toy
from lightning_mesa.report import dashboard


@pytest.fixture
def traced():
    tracemalloc.start()
    yield
    tracemalloc.stop()


@pytest.mark.slow
@pytest.mark.usefixtures("traced")
def test_idle_steps_and_looks_hold_memory_flat():
    """A step may keep 1 byte and a look 30, which is nothing that grows: an alert alone has more."""
    assert memory.growth(memory.held(3_000, 10**9)) < 3_000 + 20_000
    assert memory.growth(memory.held(600, 1)) < 600 * 30 + 20_000


def test_a_path_is_thinned_and_keeps_its_ends(tmp_path, monkeypatch):
    monkeypatch.setattr(dashboard, "MOST_POINTS", 10)
    mesa = toy.monitor(every_n_steps=1)
    toy.fit(tmp_path, mesa)
    path = mesa._dashboard.paths["apart"]
    assert 5 <= len(path) <= 10
    assert (path[0].step, path[-1].step) == (0, 24)
