import os
import sys

import pytest
import torch

import toy

os.environ.pop("COLUMNS", None)  # tables are as wide as the terminal says


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop() -> None:
    """Fork the server of processes once all modules are imported and before any test has run."""
    if "forks" in sys.modules:
        sys.modules["forks"].server()


@pytest.fixture
def passes():
    """Model and number of items of each forward pass of a toy model without gradients.

    Counted from outside: a look puts back what models hold, and what their code reaches is named.
    """
    seen = []

    def note(module, arguments):
        if isinstance(module, toy.ToyModel) and not torch.is_grad_enabled():
            seen.append((module, len(arguments[0])))

    handle = torch.nn.modules.module.register_module_forward_pre_hook(note)
    yield seen
    handle.remove()


@pytest.fixture(autouse=True)
def _one_thread():
    """Tests run in parallel processes on few cores."""
    torch.set_num_threads(1)
