"""What is installed, which ways to attach a monitor work, and whether a configuration fits a script."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from importlib.metadata import PackageNotFoundError, entry_points, version
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path

from lightning_mesa.attach.autoload import ALLOW, CONFIG

NEEDED = ("torch", "tensorboard", "scipy", "omegaconf")
LIGHTNINGS = {"pytorch-lightning": "pytorch_lightning", "lightning": "lightning.pytorch"}
OPTIONAL = {
    "apprise": "notifications",
    "jsonargparse": "LightningCLI",
    "hydra-core": "Hydra",
    "gymnasium": "environments",
}
MALWARE = ("2.6.2", "2.6.3")
"""Releases of both Lightnings that steal credentials when they are imported (GHSA-w37p-236h-pfx3)."""


def installed() -> Iterator[str]:
    """What is installed, a line each."""
    yield f"python {sys.version.split()[0]}"
    yield f"lightning-mesa {_version('lightning-mesa') or 'not installed, only imported'}"
    for name in (*LIGHTNINGS, *NEEDED):
        found = _version(name)
        danger = found in MALWARE and name in LIGHTNINGS
        yield f"{name} {found or 'missing'}" + (": MALWARE, remove it and change your credentials" if danger else "")
    for name, what in OPTIONAL.items():
        yield f"{name} {_version(name) or 'missing'} ({what})"


def ways_to_attach() -> Iterator[tuple[str, str]]:
    """Each way to attach a monitor, and "works" or what it lacks."""
    for name, namespace in LIGHTNINGS.items():
        there = _version(name) is not None
        yield f"in {namespace}.Trainer(callbacks=...)", "works" if there else f"pip install {name}"
        registered = any(
            point.value.startswith("lightning_mesa.") for point in entry_points(group=f"{namespace}.callbacks_factory")
        )
        missing = f"pip install {name}" if registered else "install lightning-mesa, it is only imported"
        yield f"{CONFIG}=mesa.yaml with {namespace}", "works" if there and registered else missing
    command_line = find_spec("jsonargparse") is not None
    yield "in a LightningCLI", "works" if command_line else "pip install 'jsonargparse[signatures]'"
    recipes = sorted(file.name for file in files("lightning_mesa.conf").joinpath("callbacks").iterdir())
    yield (
        "in Hydra, searchpath pkg://lightning_mesa.conf",
        f"works: {', '.join(recipes)}" if find_spec("hydra") else "pip install hydra-core",
    )


def check(config: str, allow: Sequence[str]) -> str:
    """Build what a configuration describes, and say what that is.

    Raises:
        ConfigurationError: If it cannot be built.
    """
    from lightning_mesa.attach.config import build
    from lightning_mesa.callbacks.monitor import MesaMonitor

    monitors: list[MesaMonitor] = build(config, MesaMonitor, allow)
    said = []
    for mesa in monitors:
        objectives = ", ".join(objective.name for objective in mesa.hypotheses.scored)
        shifted = "offered by the DataModule or model" if mesa.shifted is None else ", ".join(mesa.shifted)
        said.append(f"{mesa.name}: objectives {objectives}; reference {', '.join(mesa.reference)}; shifted {shifted}")
    return "\n".join(said)


def dry_run(config: str, allow: Sequence[str], script: Sequence[str]) -> tuple[int, str]:
    """Run a script up to the look before its training, which is taken and reported; then it is ended.

    Args:
        config: Path of the configuration.
        allow: What it may import.
        script: The script and its arguments, as they follow ``python``.

    Returns:
        The exit status, 0 if the configuration fits, and what to say: our report, and what the script has printed
        after it, which would hide the report.
    """
    from lightning_mesa.attach.dry_run import DRY_RUN

    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        environment = {CONFIG: str(Path(config).absolute()), ALLOW: ",".join(allow), DRY_RUN: str(report)}
        with (Path(folder) / "said").open("w+b") as said:
            done = subprocess.run(
                [sys.executable, *script], env=os.environ | environment, stdout=said, stderr=subprocess.STDOUT
            )
            said.seek(0)
            output = said.read().decode(errors="replace").strip()
        found = json.loads(report.read_text(encoding="utf-8")) if report.exists() else {}
    if not found:
        status, text = (
            1,
            (
                f"the script ended with status {done.returncode}, and no Trainer in it began to train with a monitor "
                "attached; a warning below may say why."
            ),
        )
    elif "error" in found:
        status, text = 1, f"the configuration does not fit the script: {found['error']}"
    else:
        lines = (f"\n{value}\n" if key in ("seen", "table") else f"{key}: {value}" for key, value in found.items())
        status, text = 0, "\n".join(lines)
    return status, f"{text}\n\nwhat {script[0]} printed up to there:\n{output}" if output else text


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
