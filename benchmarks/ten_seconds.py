"""What the default monitor adds to a fit of ten seconds: imports, looks, journal, TensorBoard and table.

    python benchmarks/ten_seconds.py

A fresh process trains one of the four models for about ten seconds, with five validations and TensorBoard. Counted are
the import of the package, the monitor's making, and the time inside its hooks. Allowed is 5 % of the training's
own time or half a second, whichever is more. The first look also starts what is started once.
"""

import argparse
import logging
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader

from four_models import MODELS, Items, Model, seconds_of_fit

SECONDS, VALIDATIONS, BATCH, HELD_OUT = 10.0, 5, 32, 500


def run(name: str) -> None:
    """A row of the table."""
    spent: dict[str, float] = {}

    def timed(what: str, call: Callable[..., Any], *args: Any, **options: Any) -> Any:
        start = time.perf_counter()
        result = call(*args, **options)
        spent[what] = spent.get(what, 0.0) + time.perf_counter() - start
        return result

    def load() -> Any:
        from lightning_mesa import Matches, MesaMonitor

        return Matches, MesaMonitor

    build, make = MODELS[name]
    train, held_out, shifted = (
        DataLoader(Items(n, make, i), BATCH) for i, n in enumerate((BATCH * 40, HELD_OUT, HELD_OUT))
    )
    pace = seconds_of_fit(Model(build()), train, held_out, 20, 4)
    steps = max(VALIDATIONS, int(20 * SECONDS / pace))
    matches, make_monitor = timed("import", load)
    monitor = timed(
        "making", make_monitor, matches("t0"), proxies=[matches("t1")], shifted={"apart": shifted}, inputs="x"
    )
    for hook in [hook for hook in dir(pl.Callback) if hook.startswith(("on_", "setup", "teardown"))]:
        method, what = getattr(monitor, hook), {"on_train_start": "first look"}.get(hook, "other hooks")
        setattr(monitor, hook, partial(timed, what, method))
    wall = seconds_of_fit(Model(build()), train, held_out, steps, steps // VALIDATIONS, monitor)
    added = sum(spent.values())
    own = wall - spent["first look"] - spent["other hooks"]
    parts = " | ".join(f"{spent[what]:.2f}" for what in ("import", "making", "first look", "other hooks"))
    kept = "kept" if added <= max(0.5, 0.05 * own) else "NOT kept"
    print(f"| {name} | {own:.1f} | {parts} | {added:.2f} | {added / own:.1%} | {kept} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=MODELS)
    model = parser.parse_args().model
    warnings.filterwarnings("ignore")
    for logger in ("pytorch_lightning", "lightning.pytorch", "lightning_mesa", "lightning_utilities"):
        logging.getLogger(logger).setLevel(logging.ERROR)
    if model is not None:
        torch.manual_seed(0)
        run(model)
        return
    print("| model | training, s | import | making | first look | other hooks | added, s | share | allowed |")
    print("|---|---|---|---|---|---|---|---|---|", flush=True)
    for name in MODELS:
        subprocess.run([sys.executable, __file__, "--model", name], check=True)


if __name__ == "__main__":
    main()
