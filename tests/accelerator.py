"""The accelerator that the tests train on: ``MESA_TEST_ACCELERATOR``, the CPU unless it is named."""

import os

ACCELERATOR = os.environ.get("MESA_TEST_ACCELERATOR", "cpu")
