"""The test suite on the oldest and newest Lightning, under either of its names and under both: ``make test-matrix``."""

import re
from pathlib import Path

import nox

nox.options.reuse_existing_virtualenvs = True

VERSIONS = {"oldest": "2.4.0", "newest": None}  # None: as pinned in constraints.txt
NAMESPACES = {
    "pytorch-lightning": ("pytorch-lightning",),
    "lightning": ("lightning",),
    "both": ("pytorch-lightning", "lightning"),
}
# What `lightning` needs; it is installed without its dependencies, of which newer releases name pytorch-lightning.
NEEDED = ("PyYAML", "fsspec[http]", "lightning-utilities", "packaging", "torchmetrics", "tqdm", "typing-extensions")
PROJECT = nox.project.load_toml("pyproject.toml")["project"]


def requirements() -> list[str]:
    """What the tests need beside Lightning."""
    extras = PROJECT["optional-dependencies"]
    listed = [*PROJECT["dependencies"], *extras["dev"], *extras["notify"], *extras["rl"]]
    return [one for one in listed if not re.match(r"(pytorch-)?lightning", one)]


@nox.session
@nox.parametrize("version", list(VERSIONS))
@nox.parametrize("namespace", list(NAMESPACES))
def tests(session: nox.Session, namespace: str, version: str) -> None:
    """Install one combination, and run the suite on it."""
    constraints = Path("constraints.txt").read_text(encoding="utf-8").splitlines()
    if VERSIONS[version]:
        constraints = [line for line in constraints if not re.match(r"(pytorch-)?lightning|jsonargparse", line)]
        constraints += [f"{name}=={VERSIONS[version]}" for name in ("pytorch-lightning", "lightning")]
        constraints += ["jsonargparse<4.36"]  # later ones do not serve the command line of that Lightning
    pinned = Path(session.create_tmp()) / "constraints.txt"
    pinned.write_text("\n".join(constraints), encoding="utf-8")
    session.install("--constraint", str(pinned), "torch")
    session.install("--constraint", str(pinned), *requirements(), *NEEDED)
    session.install("--constraint", str(pinned), "--no-deps", *NAMESPACES[namespace])
    session.install("--no-deps", "--editable", ".")
    session.run("python", "-m", "pytest", "-q", "-n", "auto", "--dist", "worksteal", *session.posargs)
