"""Hostile and broken configurations; benchmarks/fuzz_configs.py tries more of them."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_no_configuration_runs_code_or_goes_without_a_message():
    """In a process of its own, as the audit hook stays for good."""
    paths = os.pathsep.join([str(ROOT / "tests"), str(ROOT / "benchmarks")])
    done = subprocess.run(
        [sys.executable, ROOT / "benchmarks/fuzz_configs.py", "--cases", "1000"],
        env=os.environ | {"PYTHONPATH": paths},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "1000 configurations" in done.stdout
