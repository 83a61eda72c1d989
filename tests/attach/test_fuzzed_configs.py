"""Hostile and broken configurations; benchmarks/fuzz_configs.py tries more of them."""

from pathlib import Path

import pytest

import forks

FUZZ = Path(__file__).parents[2] / "benchmarks/fuzz_configs.py"


@pytest.mark.parametrize("cases", [50, pytest.param(1000, marks=pytest.mark.slow)])
def test_no_configuration_runs_code_or_goes_without_a_message(cases):
    """In a process of its own, as the audit hook stays for good."""
    done = forks.script(FUZZ, "--cases", str(cases))
    assert done.returncode == 0, done.stderr[-3000:]
    assert f"{cases} configurations" in done.stdout
