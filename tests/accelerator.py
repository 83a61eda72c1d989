"""The accelerator that the tests train on: ``MESA_TEST_ACCELERATOR``, the CPU unless it is named."""

import os

ACCELERATOR = os.environ.get("MESA_TEST_ACCELERATOR", "cpu")
if ACCELERATOR != "cpu":
    # A training repeats bit by bit with deterministic kernels only, and these are chosen by this variable.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    # Else asking whether there is a GPU would start CUDA in the process from which others are forked.
    os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")
