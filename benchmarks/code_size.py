"""Lines of code of the package by room, after ``ruff format``: not blank, outside of comments and docstrings.

python benchmarks/code_size.py            # the working tree
python benchmarks/code_size.py v0.1.0     # beside a git revision
"""

import argparse
import ast
import io
import shutil
import subprocess
import tarfile
import tempfile
import tokenize
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = "lightning_mesa"
LAYOUT = {
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENDMARKER,
}


def code_lines(source: str) -> int:
    """Lines on which a token stands that is neither layout, nor a comment, nor part of a docstring."""
    bodies = (getattr(node, "body", None) for node in ast.walk(ast.parse(source)))
    strings = (
        node
        for body in bodies
        if isinstance(body, list)  # a lambda's body is one expression
        for node in body
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
    )
    documented = {line for node in strings for line in range(node.lineno, (node.end_lineno or node.lineno) + 1)}
    written = {
        line
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type not in LAYOUT
        for line in range(token.start[0], token.end[0] + 1)
    }
    return len(written - documented)


def by_room(tree: Path) -> Counter[str]:
    """Lines of code in each folder of the package, and at its top level."""
    sizes: Counter[str] = Counter()
    for path in sorted((tree / PACKAGE).rglob("*.py")):
        room = path.relative_to(tree / PACKAGE).parts[0]
        sizes["top level" if room.endswith(".py") else room] += code_lines(path.read_text())
    return sizes


def size(revision: str | None = None) -> Counter[str]:
    """Of a revision, else of the working tree."""
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder)
        if revision is None:
            shutil.copytree(ROOT / PACKAGE, tree / PACKAGE)
        else:
            packed = subprocess.run(["git", "archive", revision, PACKAGE], cwd=ROOT, capture_output=True, check=True)
            with tarfile.open(fileobj=io.BytesIO(packed.stdout)) as archive:
                archive.extractall(tree, filter="data")
        rules = ["--config", str(ROOT / "pyproject.toml"), "--no-cache"]
        subprocess.run(["ruff", "format", "--quiet", *rules, str(tree)], check=True)
        return by_room(tree)


def main() -> None:
    parser = argparse.ArgumentParser(description="Lines of code of the package, by room.")
    parser.add_argument("revision", nargs="?", help="git revision to compare with")
    revision = parser.parse_args().revision
    now, before = size(), size(revision) if revision else Counter()
    for sizes in (now, before):
        sizes["all"] = sizes.total()
    print("| room | lines |" + (f" {revision} | change |" if revision else ""))
    print("|---|--:|" + ("--:|--:|" if revision else ""))
    for room in sorted(now | before, key=lambda room: (room == "all", room)):
        compared = f" {before[room]} | {now[room] - before[room]:+d} |" if revision else ""
        print(f"| {room} | {now[room]} |{compared}")


if __name__ == "__main__":
    main()
