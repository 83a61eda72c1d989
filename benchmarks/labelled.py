"""Networks whose label is known by construction: trained and judged once, kept in files, and put in tables."""

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import torch
from sklearn.metrics import roc_auc_score

from lightning_mesa.stats.intervals import Mean

Record = Mapping[str, Any]
Column = Callable[[Sequence[Record]], object]
"""What the networks of one kind have in common, for a cell."""


def range_of(key: str) -> Column:
    """The smallest and the largest value; nothing where there is none."""

    def cell(records: Sequence[Record]) -> str:
        spread = sorted(r[key] for r in records if r[key] is not None)
        return f"{spread[0]:.2f} to {spread[-1]:.2f}" if spread else ""

    return cell


def counts_of(key: str) -> Column:
    """Each value, with the number of networks that have it."""
    words = {"True": "yes", "False": "no", "None": "none"}

    def cell(records: Sequence[Record]) -> str:
        values = [words.get(str(r[key]), str(r[key])) for r in records]
        return ", ".join(f"{value} ({values.count(value)})" for value in sorted(set(values)))

    return cell


def by_kind(records: Sequence[Record], kinds: Sequence[str], columns: Mapping[str, Column]) -> list[str]:
    """A row for each kind."""
    lines = ["| " + " | ".join(("kind", "n", *columns)) + " |", "|---" * (len(columns) + 2) + "|"]
    for name in kinds:
        if of_kind := [r for r in records if r["kind"] == name]:
            cells = [name, len(of_kind), *(column(of_kind) for column in columns.values())]
            lines.append("| " + " | ".join(map(str, cells)) + " |")
    return lines


def area(searchers: Sequence[Record], others: Sequence[Record], key: str) -> str:
    """AUROC with the numbers of those that have the score, where there are both."""
    ones, zeros = ([r[key] for r in part if r[key] is not None] for part in (searchers, others))
    if not ones or not zeros:
        return ""
    value = roc_auc_score([1] * len(ones) + [0] * len(zeros), ones + zeros)
    return f"{value:.3f} ({len(ones)}, {len(zeros)})"


def areas(versus: Mapping[str, tuple[Sequence[Record], Sequence[Record]]], scores: Mapping[str, str]) -> list[str]:
    """AUROC of each score (its name in the table: its key) where searchers meet others."""
    lines = ["| " + " | ".join(("AUROC (searchers, others)", *versus)) + " |", "|---" * (len(versus) + 1) + "|"]
    for name, key in scores.items():
        lines.append("| " + " | ".join((name, *(area(*parts, key) for parts in versus.values()))) + " |")
    return lines


def share(holds: Callable[[Record], bool], searchers: Sequence[Record], others: Sequence[Record]) -> str:
    """Of how many it holds, in words, with the upper limit for those of which it should not."""
    true, false = (sum(map(holds, part)) for part in (searchers, others))
    upper = Mean((float(len(others) - false), float(false))).upper(0.05)
    return f"{true} of {len(searchers)} searchers, {false} of {len(others)} others (upper 95 % limit {upper:.3f})"


def report(
    script: Path,
    says: str,
    title: str,
    todo: Mapping[str, int],
    one: Callable[[str, int, Path], Record],
    tables: Callable[[Sequence[Record]], str],
) -> None:
    """Train and judge what has no file yet, in two processes; then print the tables.

    Args:
        script: Of the benchmark.
        says: Its docstring.
        title: Of the page.
        todo: Kind -> number of seeds.
        one: Kind, seed and a file without its ending -> the record.
        tables: What is printed.
    """
    parser = argparse.ArgumentParser(description=says, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keep", type=Path, default=Path("runs", script.stem), help="where files of networks are kept")
    parser.add_argument("--seeds", type=int, default=None, help="at most so many of each kind")
    parser.add_argument("--markdown", type=Path)
    options = parser.parse_args()
    options.keep.mkdir(parents=True, exist_ok=True)
    each = [(kind, seed) for kind, most in todo.items() for seed in range(min(most, options.seeds or most))]
    records: list[Record] = []
    with ProcessPoolExecutor(2, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        for record in pool.map(partial(_kept, one, options.keep), each):
            records.append(record)
            print(len(records), "of", len(each), record, flush=True)
    made = f"Made by `python benchmarks/{script.name}`, which says what each kind is: smallest to largest of n."
    text = f"# {title}\n\n{made}\n\n{tables(records)}"
    print(text)
    if options.markdown is not None:
        options.markdown.write_text(f"{text}\n")


def _kept(one: Callable[[str, int, Path], Record], keep: Path, of: tuple[str, int]) -> Record:
    kind, seed = of
    file = keep / f"{kind.replace(', ', '-').replace(',', '').replace(' ', '_')}-{seed}"
    record = file.with_suffix(".json")
    if record.exists():
        known: Record = json.loads(record.read_text())
        return known
    made = one(kind, seed, file)
    record.write_text(json.dumps(made))
    return made
