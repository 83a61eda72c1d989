"""The Lightning that the tests run on: one of the two packages that hold the same code under two names.

``MESA_TEST_NAMESPACE`` names it; else the first that is installed. Examples and benchmarks keep to pytorch_lightning.
"""

import os
from importlib import import_module
from importlib.util import find_spec

INSTALLED = [name for name in ("pytorch_lightning", "lightning.pytorch") if find_spec(name.partition(".")[0])]
NAME = os.environ.get("MESA_TEST_NAMESPACE") or INSTALLED[0]


def part(name: str):
    """A module of the namespace."""
    return import_module(f"{NAME}.{name}" if name else NAME)


pl = part("")
Callback, LightningDataModule = pl.Callback, pl.LightningDataModule
EarlyStopping, ModelCheckpoint = part("callbacks").EarlyStopping, part("callbacks").ModelCheckpoint
VERSION = tuple(int(number) for number in pl.__version__.split(".")[:2])
loggers = part("loggers")
CSVLogger, TensorBoardLogger, Logger = loggers.CSVLogger, loggers.TensorBoardLogger, loggers.Logger
