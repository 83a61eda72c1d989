import subprocess
import sys
from pathlib import Path

import lightning_mesa

ROOT = Path(__file__).parents[1]


def test_the_import_walls_hold():
    """The contracts in pyproject.toml: imports run one way, and the mathematics does not know Lightning."""
    lint = subprocess.run([Path(sys.executable).with_name("lint-imports")], cwd=ROOT, capture_output=True, text=True)
    assert lint.returncode == 0, lint.stdout


def test_importing_the_package_imports_nothing_heavy():
    heavy = "{'torch', 'pytorch_lightning', 'tensorboard', 'scipy', 'matplotlib'}"
    code = f"import sys, lightning_mesa; print(sorted({heavy} & set(sys.modules)))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_environments_need_gymnasium_only_where_there_are_some():
    """It is an extra: the monitor and everything that it imports do without."""
    code = "import sys, lightning_mesa.callbacks.monitor; print('gymnasium' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "False"


def test_every_public_name_is_there():
    for name in lightning_mesa.__all__:
        assert getattr(lightning_mesa, name).__name__ == name


def test_docstring_examples_run():
    """The examples in the docstrings give what they say."""
    modules = ["stats/intervals", "objectives/matches", "callbacks/monitor", "checks/check"]
    modules += [f"judge/{module}" for module in ("sequential", "eprocess", "bootstrap", "bands")]
    files = [str(ROOT / "lightning_mesa" / f"{module}.py") for module in modules]
    done = subprocess.run([sys.executable, "-m", "pytest", "-q", "--doctest-modules", "-p", "no:cacheprovider", *files])
    assert done.returncode == 0
