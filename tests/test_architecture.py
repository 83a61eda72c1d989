import doctest
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import forks
import lightning_mesa
import toy

PACKAGE = Path(lightning_mesa.__file__).parent
WITH_EXAMPLES = [
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)
    for path in sorted(PACKAGE.rglob("*.py"))
    if ">>> " in path.read_text(encoding="utf-8")
]


def test_importing_the_package_imports_nothing_heavy():
    heavy = "{'torch', 'pytorch_lightning', 'tensorboard', 'scipy', 'matplotlib'}"
    code = f"import sys, lightning_mesa; print(sorted({heavy} & set(sys.modules)))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_environments_need_gymnasium_only_where_there_are_some():
    """It is an extra: the monitor and everything that it imports do without."""
    done = forks.afresh("import sys, lightning_mesa.callbacks.monitor; print('gymnasium' in sys.modules)")
    assert done.stdout == "False\n", done.stderr


def test_every_public_name_is_there():
    for name in lightning_mesa.__all__:
        assert getattr(lightning_mesa, name).__name__ == name


@pytest.mark.parametrize("name", WITH_EXAMPLES)
def test_docstring_examples_run(name):
    """The examples in the docstrings give what they say."""
    found = doctest.testmod(import_module(name), optionflags=doctest.ELLIPSIS)
    assert found.attempted
    assert not found.failed


def test_the_reader_s_walk_is_what_happens(tmp_path):
    """From the hook to a written alert, one look enters the functions that docs/design.md names, in that order."""
    text = (PACKAGE.parent / "docs/design.md").read_text(encoding="utf-8")
    walk = re.findall(r"^\d+\. `([\w/.]+)` `(\w+)`", text, re.MULTILINE)
    assert 15 < len(walk) <= 20
    assert len({file for file, _ in walk}) <= 12
    looks = []

    def note(frame, event, _):
        code = frame.f_code
        if event == "call" and code.co_filename.startswith(str(PACKAGE)):
            entered = (Path(code.co_filename).relative_to(PACKAGE).as_posix(), code.co_name)
            if entered == walk[0]:
                looks.append([])
            if looks:
                looks[-1].append(entered)

    sys.setprofile(note)
    try:
        mesa = toy.monitor(on_alert="stop")
        toy.fit(tmp_path, mesa, max_epochs=15)
    finally:
        sys.setprofile(None)
    assert mesa.alerts
    rest = iter(looks[-1])
    assert [step for step in walk if step not in rest] == []
