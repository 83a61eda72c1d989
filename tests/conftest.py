import os
import sys

import pytest
import torch

os.environ.pop("COLUMNS", None)  # tables are as wide as the terminal says


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop() -> None:
    """Fork the server of processes once all modules are imported and before any test has run."""
    if "forks" in sys.modules:
        sys.modules["forks"].server()


@pytest.fixture(autouse=True)
def _one_thread():
    """Tests run in parallel processes on few cores."""
    torch.set_num_threads(1)
