"""``lightning-mesa bench``: train the runs, judge what was recorded, write the tables."""

import json
import math
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from lightning_mesa.errors import ConfigurationError
from lightning_mesa.organisms import FAMILIES
from lightning_mesa.organisms.judging import judged, truth_in
from lightning_mesa.organisms.runs import COUNTS, QUICK, SEARCH_SEEDS, plans, run_all
from lightning_mesa.organisms.search import SEARCHERS
from lightning_mesa.organisms.search.judging import probed
from lightning_mesa.organisms.tables import page
from lightning_mesa.organisms.truth import fingerprint, trained

RECORDED = ("oracle.json", "baselines.json", "*/findings.jsonl", "crash.txt")
JUDGED = (
    "competence",
    "capability",
    "conflict",
    "gap",
    "goal_directedness",
    "weight_gap",
    "extremal_excess",
    "readout",
)
"""Quantities that detectors read, beside what probes find."""


def bench(
    out: Path,
    families: Sequence[str],
    *,
    quick: bool = False,
    processes: int = 2,
    hours: float = 3.0,
    say: Callable[[str], None] = print,
) -> str:
    """Train what is missing, and judge all that is there.

    Args:
        out: A folder for each run is here.
        families: Names of families; empty for all.
        quick: Three runs of each family; one of each of the networks in mazes that are named.
        processes: How many runs at once.
        hours: No run is begun after so long.
        say: Told about progress.

    Returns:
        The tables, as Markdown.

    Raises:
        ConfigurationError: If a family is not known.
    """
    known = [*FAMILIES, *SEARCHERS]
    for name in families:
        if name not in known:
            raise ConfigurationError(f"there is no family {name!r}: there are {', '.join(known)}.")
    chosen = families or ([*FAMILIES] if quick else known)
    todo = plans([name for name in chosen if name in FAMILIES], QUICK if quick else COUNTS)
    todo += plans([name for name in chosen if name in SEARCHERS], {"search": 1 if quick else SEARCH_SEEDS})
    run_all(todo, out, processes, 3600 * hours, say)
    return judge(out, say)


def judge(recorded: Path, say: Callable[[str], None] = print) -> str:
    """Judge runs that are recorded in a folder, or in an archive that :func:`pack` has made.

    Args:
        recorded: The folder or the archive.
        say: Told the fingerprint of the truth, before anything is judged.

    Raises:
        ConfigurationError: If there are no runs.
    """
    if recorded.is_file():
        with tempfile.TemporaryDirectory() as folder, tarfile.open(recorded) as archive:
            archive.extractall(folder, filter="data")
            return judge(Path(folder), say)
    folders = sorted(path.parent for path in recorded.glob("*/oracle.json"))
    if not folders:
        raise ConfigurationError(f"{recorded} holds no recorded runs: run `lightning-mesa bench --out {recorded}`.")
    behaved = [folder for folder in folders if _family(folder) in FAMILIES]
    bases = {folder: FAMILIES[_family(folder)].base for folder in behaved}
    truth = {folder: truth_in(folder, base) for folder, base in bases.items()}
    noted = fingerprint({folder.name: of_looks for folder, of_looks in truth.items()})
    say(f"the truth of {len(truth)} runs is noted, SHA-256 {noted}; now they are judged")
    runs = [judged(folder, base, truth[folder]) for folder, base in bases.items()]
    crashed = {path.parent.name: path.read_text().strip().splitlines()[-1] for path in recorded.glob("*/crash.txt")}
    held_out = [name for name, family in FAMILIES.items() if family.held_out]
    networks = [probed(folder) for folder in folders if _family(folder) in SEARCHERS]
    return page(runs, held_out, networks, crashed, noted)


def _family(folder: Path) -> str:
    return folder.name.partition("-")[0]


def pack(out: Path, archive: Path) -> None:
    """Put what detectors read of all runs, and the oracle's looks, into one small file, ``.tar.xz``."""
    with tempfile.TemporaryDirectory() as folder:
        for name in RECORDED:
            for path in out.glob(f"*/{name}"):
                copy = Path(folder, path.relative_to(out))
                copy.parent.mkdir(parents=True, exist_ok=True)
                copy.write_text("".join(_judged(path)) if path.suffix == ".jsonl" else path.read_text())
        with tarfile.open(archive, "w:xz", preset=9) as packed:
            for path in sorted(Path(folder).rglob("*")):
                packed.add(path, path.relative_to(folder), recursive=False)


def _judged(path: Path) -> Iterator[str]:
    end = _end(path.parent.parent / "oracle.json")
    for line in path.read_text().splitlines(keepends=True):
        finding = json.loads(line)
        if (finding["quantity"] in JUDGED or finding["role"] == "internals") and finding["step"] <= end:
            yield line


def _end(path: Path) -> float:
    looks = json.loads(path.read_text()).get("looks")
    return math.inf if looks is None else looks[trained(looks) - 1]["step"]
