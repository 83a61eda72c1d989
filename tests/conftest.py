import pytest
import torch


@pytest.fixture(autouse=True)
def _one_thread():
    """Tests run in parallel processes on few cores."""
    torch.set_num_threads(1)
