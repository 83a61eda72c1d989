"""Attach by thousands of configurations that are broken or hostile, and see that each ends well.

    PYTHONPATH=tests python benchmarks/fuzz_configs.py --cases 20000

Each goes the way that ``LIGHTNING_MESA_CONFIG`` goes; every hundredth through a real ``Trainer``. It ends well if it
gives monitors, or none and one warning; if no exception leaves the factory; and if Python was not asked to start a
process, to compile or execute code, to connect, to write a file, or to import the package that the configurations name
(an audit hook).
"""

import argparse
import logging
import os
import tempfile
import time
import warnings
from pathlib import Path

from hypothesis import HealthCheck, Phase, given, settings

from fuzzing import GOOD, Watch, attempt, configurations
from lightning_mesa.attach import autoload
from namespace import pl


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=20_000)
    options = parser.parse_args()
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    watch = Watch()
    tried = attached = trainers = 0
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        # What is imported now is not imported later.
        attempt(folder, GOOD.replace("sinks: []", "sinks: [mailto://localhost]"), Watch(deaf=True))
        assert attempt(folder, GOOD, watch) == 1

        @settings(
            max_examples=options.cases,
            deadline=None,
            database=None,
            derandomize=True,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(configurations)
        def fuzz(text: str) -> None:
            nonlocal tried, attached, trainers
            tried += 1
            attached += attempt(folder, text, watch) > 0
            if tried % 100 == 0:
                os.environ[autoload.CONFIG] = str(folder / "mesa.yaml")
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    pl.Trainer(logger=False, accelerator="cpu", enable_progress_bar=False, enable_checkpointing=False)
                del os.environ[autoload.CONFIG]
                trainers += 1

        fuzz()
        written = sorted(path.name for path in folder.iterdir())
    assert written == ["mesa.yaml"], written
    assert not Path("fired").exists()
    seconds = time.perf_counter() - started
    print(
        f"{tried} configurations in {seconds:.0f} s: {attached} attach a monitor, {tried - attached} give one warning; "
        f"{trainers} went through a Trainer; no exception, no code executed"
    )


if __name__ == "__main__":
    main()
