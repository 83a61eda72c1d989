"""What is installed, how to attach, and a configuration tried on a script before it trains."""

import shutil
import subprocess
import sys
from types import SimpleNamespace

import pytest
from test_attach_examples import EXAMPLES

import forks
from lightning_mesa.attach import doctor
from lightning_mesa.attach.cli import main
from namespace import INSTALLED

CONFIG = """
base: {class_path: lightning_mesa.Matches, init_args: {target: 1, name: digit}}
shifted: {inverted: shifts.inverted}
"""


def test_what_is_installed_and_how_to_attach_is_said(capsys):
    assert main(["doctor"]) == 0
    said = capsys.readouterr().out
    assert f"python {sys.version.split()[0]}" in said
    assert "torch 2" in said
    for namespace in INSTALLED:
        assert [line.split()[-1] for line in said.splitlines() if f"{namespace}.Trainer" in line] == ["works"]
        assert [line.split()[-1] for line in said.splitlines() if f"mesa.yaml with {namespace}" in line] == ["works"]
    assert "mesa.yaml" in next(line for line in said.splitlines() if "pkg://lightning_mesa.conf" in line)


def test_what_is_missing_is_named_with_its_remedy(monkeypatch):
    monkeypatch.setattr(doctor, "_version", lambda name: None if name == "lightning" else "2.6.3")
    monkeypatch.setattr(doctor, "find_spec", lambda name: None)
    said = "\n".join(doctor.installed())
    assert "lightning missing" in said
    assert "pytorch-lightning 2.6.3: MALWARE, remove it" in said
    assert "torch 2.6.3\n" in said
    ways = dict(doctor.ways_to_attach())
    assert ways["in lightning.pytorch.Trainer(callbacks=...)"] == "pip install lightning"
    assert ways["in a LightningCLI"] == "pip install 'jsonargparse[signatures]'"


def test_a_configuration_is_checked_without_a_script(tmp_path, capsys):
    (tmp_path / "mesa.yaml").write_text(CONFIG.replace("shifts.inverted", "datamodule.inverted"))
    assert main(["doctor", "--config", str(tmp_path / "mesa.yaml")]) == 0
    assert capsys.readouterr().out == "mesa: objectives digit; reference val; shifted inverted\n"


@pytest.mark.parametrize(
    ("config", "message"),
    [("shiftd: {}", "Did you mean 'shifted'"), (CONFIG, "allow=['shifts']"), (None, "cannot be read")],
)
def test_a_configuration_that_cannot_be_built_is_refused(tmp_path, capsys, config, message):
    if config:
        (tmp_path / "mesa.yaml").write_text(config)
    assert main(["doctor", "--config", str(tmp_path / "mesa.yaml")]) == 2
    assert message in capsys.readouterr().err


def test_a_script_needs_a_configuration(capsys):
    assert main(["doctor", "train.py"]) == 2
    assert "give the configuration too" in capsys.readouterr().err


@pytest.fixture(params=["forked", pytest.param("started", marks=pytest.mark.slow)])
def script(request, tmp_path, monkeypatch, capfd):
    """The plain script in a folder of its own, tried by the command: in a fork, or as it is started for a user."""
    if "pytorch_lightning" not in INSTALLED:
        pytest.skip("the script is written for pytorch_lightning")
    shutil.copytree(EXAMPLES / "plain", tmp_path, dirs_exist_ok=True)

    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "shifts", raising=False)

    def fork(command, env, stdout, stderr):
        python, path, *arguments = command
        assert (python, stderr) == (sys.executable, subprocess.STDOUT)
        done = forks.script(tmp_path / path, *arguments, **env)
        stdout.write(f"{done.stdout}{done.stderr}".encode())
        return done

    if request.param == "forked":
        monkeypatch.setattr(doctor, "subprocess", SimpleNamespace(run=fork, STDOUT=subprocess.STDOUT))

    def tried(config, *command, allow=("--allow", "shifts")):
        """The exit status, and what is said."""
        (tmp_path / "mesa.yaml").write_text(config)
        status = main(["doctor", "--config", "mesa.yaml", *allow, *(command or ["train.py"])])
        return status, capfd.readouterr().out

    return tried


def test_a_configuration_that_fits_is_shown_and_nothing_is_trained(tmp_path, script):
    status, said = script(CONFIG)
    assert status == 0, said
    for expected in (
        "trainer: pytorch_lightning.Trainer, SingleDeviceStrategy, precision 32-true",
        "looks: after each validation, 9 in all",
        "data: val, inverted: the same held-out items at every look",
        "with max_overhead=0.05, at most one every",
        "inverted      500",
        "  inverted: 500 items, a gap from 0.",
        "  can fire: objective_lost, base_lost, extremal_behavior",
        "  cannot fire: proxy_pursued: no proxy is listed that prescribes choices",
        "mesa (before training) at step 0",
    ):
        assert expected in said
    assert said.index("what can be seen in 9 looks") < said.index("what train.py printed up to there:")
    assert said.index("this look took") < said.index("GPU available")
    assert not (tmp_path / "model.pt").exists()
    assert not list(tmp_path.rglob("findings.jsonl"))


@pytest.mark.parametrize(
    ("change", "command", "message"),
    [
        (("target: 1", "target: 5"), (), "does not fit the script: ConfigurationError: distribution 'val': objective"),
        (("inverted: shifts.inverted", "x: val/3"), (), "no validation loader 'val/3': there are val/0"),
        (("digit", "digit"), ("shifts.py",), "no Trainer in it began to train"),
    ],
)
def test_what_does_not_fit_is_said(script, change, command, message):
    status, said = script(CONFIG.replace(*change), *command)
    assert status == 1
    assert message in said


def test_what_may_be_imported_is_inherited_from_the_environment(script, monkeypatch):
    monkeypatch.setenv("LIGHTNING_MESA_ALLOW", "elsewhere, shifts")
    assert script(CONFIG, allow=())[0] == 0


def test_the_option_takes_the_place_of_the_environment(tmp_path, monkeypatch, capsys):
    (tmp_path / "mesa.yaml").write_text(CONFIG)
    monkeypatch.setenv("LIGHTNING_MESA_ALLOW", "shifts")
    assert main(["doctor", "--config", str(tmp_path / "mesa.yaml"), "--allow", "elsewhere"]) == 2
    assert "or --allow shifts" in capsys.readouterr().err
