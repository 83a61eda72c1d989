"""A long run holds no more memory than a short one; the full length is in benchmarks/memory.py."""

import tracemalloc

import pytest

import memory


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
