"""``make test-matrix``: the suite on the oldest and newest versions claimed. ``make dist``: what is shipped."""

import re
from email import message_from_bytes
from pathlib import Path
from shutil import copytree, rmtree
from tempfile import TemporaryDirectory
from zipfile import ZipFile

import nox

nox.options.reuse_existing_virtualenvs = True

PROJECT = nox.project.load_toml("pyproject.toml")["project"]
PYTHONS = [one.rpartition(" ")[2] for one in PROJECT["classifiers"] if "Python :: 3." in one]
NAMESPACES = {
    "pytorch-lightning": ("pytorch-lightning",),
    "lightning": ("lightning",),
    "both": ("pytorch-lightning", "lightning"),
}
# What `lightning` needs; it is installed without its dependencies, of which newer releases name pytorch-lightning.
NEEDED = ("PyYAML", "fsspec[http]", "lightning-utilities", "packaging", "torchmetrics", "tqdm", "typing-extensions")

BUILT = Path("dist")
# The projects in examples/attach, what they need beside us, and how each is watched: by the environment, by the command
# line, by a recipe that the package ships.
USERS = ("hydra-core", "jsonargparse[signatures]", "lightning", "scikit-learn")
PROJECTS: dict[str, tuple[list[str], dict[str, str]]] = {
    "plain": (["train.py"], {"LIGHTNING_MESA_CONFIG": "mesa.yaml", "LIGHTNING_MESA_ALLOW": "shifts"}),
    "lightning_cli": (
        [
            *("main.py", "fit", "--config", "config.yaml", "--trainer.max_epochs=2"),
            "--trainer.callbacks+=lightning_mesa.MesaMonitor",
            "--trainer.callbacks.base=lightning_mesa.Logged",
            "--trainer.callbacks.base.metric=val/acc",
            "--trainer.callbacks.base.chance=0.11",
            "--trainer.callbacks.reference={clean: val/0}",
            "--trainer.callbacks.shifted={dirty: val/1}",
        ],
        {},
    ),
    "hydra": (
        [
            *("train.py", "trainer.max_epochs=2", "hydra.searchpath=[pkg://lightning_mesa.conf]", "callbacks=mesa"),
            "callbacks.mesa.base.target=label",
            "callbacks.mesa.proxies.0.target=paper",
            "callbacks.mesa.inputs=image",
            "callbacks.mesa.shifted.apart={_target_: lightning_mesa.LoaderDistribution, source: val, where: conflict}",
        ],
        {},
    ),
}


def oldest() -> list[str]:
    """The smallest versions that pyproject.toml claims; of `lightning`, that of pytorch-lightning."""
    floors = [re.sub(r">=([\w.]+).*", r"==\1", one) for one in PROJECT["dependencies"]]
    floors += [one.replace("pytorch-", "") for one in floors if one.startswith("pytorch-lightning")]
    return [*floors, "jsonargparse<4.36"]  # later ones do not serve the command line of that Lightning


def requirements() -> list[str]:
    """What the tests need beside Lightning."""
    extras = PROJECT["optional-dependencies"]
    listed = [*PROJECT["dependencies"], *extras["dev"], *extras["notify"], *extras["rl"], *extras["bench"]]
    return [one for one in listed if not re.match(r"(pytorch-)?lightning", one)]


@nox.session
@nox.parametrize(
    ("python", "version"),
    [
        nox.param(PYTHONS[0], "oldest", id="oldest"),
        nox.param(None, "pinned", id="pinned"),  # by constraints.txt, on the Python that runs nox
        nox.param(PYTHONS[-1], "newest", id="newest"),  # whatever the index has
    ],
)
@nox.parametrize("namespace", list(NAMESPACES))
def tests(session: nox.Session, namespace: str, version: str) -> None:
    """Install one combination, and run the suite on it."""
    pinned = Path(session.create_tmp()) / "constraints.txt"
    texts = {"oldest": "\n".join(oldest()), "pinned": Path("constraints.txt").read_text(encoding="utf-8"), "newest": ""}
    pinned.write_text(texts[version], encoding="utf-8")
    session.install("--constraint", str(pinned), "torch")
    session.install("--constraint", str(pinned), *requirements(), *NEEDED)
    session.install("--constraint", str(pinned), "--no-deps", *NAMESPACES[namespace])
    session.install("--no-deps", "--editable", ".")
    session.run("python", "-m", "pytest", "-q", "-n", "auto", "--dist", "worksteal", *session.posargs)


@nox.session
def dist(session: nox.Session) -> None:
    """Build an sdist, and a wheel from it; check what PyPI will show."""
    session.install("build", "twine")
    rmtree(BUILT, ignore_errors=True)
    session.run("python", "-m", "build", "--outdir", str(BUILT))
    session.run("twine", "check", "--strict", *map(str, BUILT.iterdir()))
    (wheel,) = BUILT.glob("*.whl")
    with ZipFile(wheel) as archive:
        (metadata,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        shown = message_from_bytes(archive.read(metadata)).get_payload()
    if relative := re.findall(r"\]\((?!https://|#)[^)]*\)", str(shown)):
        session.error(f"relative links in what PyPI shows: {relative}")


@nox.session(requires=["dist"], reuse_venv=False)
@nox.parametrize("kind", ["*.whl", "*.tar.gz"], ids=["wheel", "sdist"])
def installed(session: nox.Session, kind: str) -> None:
    """Install what was built into an empty environment, and use it there as users do, without the repository."""
    (built,) = BUILT.resolve().glob(kind)
    # Most of what is installed is never imported, so compiling it would be in vain.
    session.install("--no-compile", "--constraint", "constraints.txt", str(built), *USERS)
    session.env["PYTHONPATH"] = None
    tracked = set(_said(session, "git", "ls-files", "lightning_mesa").split())
    with TemporaryDirectory() as folder:
        projects = copytree("examples/attach", Path(folder) / "projects")
        session.chdir(projects)
        files = _said(session, "pip", "show", "--files", "lightning-mesa").partition("Files:\n")[2].split()
        package = {file for file in files if not re.match(r"\.\./|lightning_mesa-|.*__pycache__", file)}
        if package != tracked:
            session.error(f"{built.name} lacks {tracked - package}, and has {package - tracked} that is not in git.")
        version = _said(session, "lightning-mesa", "--version").split()[-1]
        if f"-{version}{kind[1:]}" not in built.name.replace("-py3-none-any", ""):
            session.error(f"{built.name} says that it is {version}.")
        doctor = _said(session, "lightning-mesa", "doctor")
        if missing := [file for file in tracked if "/conf/callbacks/" in file and Path(file).name not in doctor]:
            session.error(f"doctor does not name {missing}.")
        for project, (command, environment) in PROJECTS.items():
            session.chdir(projects / project)
            _said(session, "python", *command, **environment)
            if not list((projects / project).rglob("findings.jsonl")):
                session.error(f"{project} was not watched.")


def _said(session: nox.Session, *command: str, **environment: str) -> str:
    """What a command prints; shown if it fails."""
    return str(session.run(*command, env=environment, silent=True, external=command[0] == "git"))
