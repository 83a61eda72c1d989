"""The accelerator that the tests train on: ``MESA_TEST_ACCELERATOR``, the CPU unless it is named.

On another one, a training repeats bit by bit only with deterministic kernels, which this variable allows.
"""

import os

ACCELERATOR = os.environ.get("MESA_TEST_ACCELERATOR", "cpu")
if ACCELERATOR != "cpu":
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
