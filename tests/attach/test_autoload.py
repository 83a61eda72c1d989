"""A monitor without a line of code: ``LIGHTNING_MESA_CONFIG=mesa.yaml python train.py``."""

import subprocess
import sys
import time
import timeit
import warnings
from importlib.metadata import entry_points

import pytest

import toy
from accelerator import ACCELERATOR
from lightning_mesa import MesaMonitor, MesaWarning
from lightning_mesa.attach import autoload
from lightning_mesa.callbacks.compat import NAMESPACES
from namespace import EarlyStopping, pl

YAML = """
base: {class_path: lightning_mesa.Matches, init_args: {target: y}}
proxies:
  - {class_path: lightning_mesa.Matches, init_args: {target: z}}
shifted: {apart: importable.data.shifted}
inputs: x
on_alert: stop
"""


@pytest.fixture
def configured(tmp_path, monkeypatch):
    """Sets the environment to a configuration."""

    def configure(text, allow="importable.data"):
        (tmp_path / "mesa.yaml").write_text(text)
        monkeypatch.setenv(autoload.CONFIG, str(tmp_path / "mesa.yaml"))
        monkeypatch.setenv(autoload.ALLOW, allow)

    return configure


def monitors(trainer):
    return [callback for callback in trainer.callbacks if isinstance(callback, MesaMonitor)]


@pytest.mark.parametrize("namespace", NAMESPACES)
def test_the_entry_point_is_installed_for_either_lightning(namespace):
    (point,) = (p for p in entry_points(group=f"{namespace}.callbacks_factory") if p.value.startswith("lightning_mesa"))
    assert point.load() is autoload.factory


def test_a_script_that_knows_nothing_of_us_is_watched_and_stopped(tmp_path, configured):
    configured(YAML)
    trainer = toy.fit(tmp_path, EarlyStopping("mesa/base/worst", mode="max", patience=50), max_epochs=20)
    (mesa,) = monitors(trainer)
    assert mesa.stop_reason
    assert trainer.current_epoch < 19


def test_without_the_variable_nothing_is_attached_nor_imported_and_it_costs_no_millisecond(tmp_path, monkeypatch):
    monkeypatch.delenv(autoload.CONFIG, raising=False)
    assert monitors(toy.fit(tmp_path, max_epochs=1)) == []
    assert min(timeit.repeat(autoload.factory, timer=time.process_time, number=100)) / 100 < 1e-3
    heavy = "{'torch', 'yaml', 'omegaconf', 'scipy', 'lightning_mesa.callbacks.monitor'}"
    code = f"import sys, lightning_mesa.attach.autoload as a; print(a.factory(), {heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["[]", "set()"]


@pytest.mark.parametrize(
    ("text", "allow", "message"),
    [
        ("base: [", "", "is no YAML"),
        ("shiftd: {}", "", "Did you mean 'shifted'"),
        (YAML, "", "shifted.*may not be imported from a configuration.*LIGHTNING_MESA_ALLOW=importable"),
        (YAML, "importable.other,elsewhere", "may not be imported"),
        (YAML.replace("data.shifted", "broken.f"), "importable", "failed with OSError: the disk is on fire"),
        (YAML + "sinks: [importable.leaves.f]", "importable", "importable has no 'leaves'"),
    ],
)
def test_a_configuration_that_is_wrong_gives_one_warning_and_the_trainer_lives(
    tmp_path, configured, text, allow, message
):
    configured(text, allow)
    with pytest.warns(MesaWarning, match=message) as warned:
        trainer = toy.fit(tmp_path, max_epochs=1)
    assert monitors(trainer) == []
    assert trainer.global_step == 8
    assert len([w for w in warned if w.category is MesaWarning]) == 1


def test_a_configuration_that_is_not_there_gives_one_warning(tmp_path, monkeypatch):
    monkeypatch.setenv(autoload.CONFIG, "missing.yaml")
    with pytest.warns(MesaWarning, match=r"attaches no monitor: .*/missing.yaml cannot be read: No such file"):
        toy.fit(tmp_path, max_epochs=1)


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        (("inputs: x", "inputs: image"), {}, "the batch has no key 'image'; its keys are"),
        (("{apart: importable.data.shifted}", "datamodule.shifted"), {}, "no distribution 'datamodule.shifted'"),
        (("inputs: x", "inputs: image"), {"fast_dev_run": True}, "the batch has no key 'image'"),
        (("inputs: x", "inputs: x"), {"limit_val_batches": 0, "max_epochs": -1, "max_steps": 4}, None),
    ],
)
def test_a_configuration_that_does_not_fit_the_script_ends_the_monitor_and_not_the_training(
    tmp_path, configured, change, options, message
):
    configured(YAML.replace(*change))
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        trainer = toy.fit(tmp_path, **{"max_epochs": 1} | options)
    assert trainer.global_step
    said = [str(w.message) for w in warned if w.category is MesaWarning]
    if message is None:
        assert not said
    else:
        assert len(said) == 1
        assert message in said[0]
        assert "training goes on" in said[0]
        assert monitors(trainer)[0].disabled


def test_the_same_ends_the_script_if_the_configuration_says_so(tmp_path, configured):
    configured(YAML.replace("inputs: x", "inputs: image\non_error: raise"))
    with pytest.raises(ValueError, match="the batch has no key 'image'"):
        toy.fit(tmp_path)


def test_it_gives_way_to_a_monitor_of_the_script(tmp_path, configured, caplog):
    configured(YAML)
    own = toy.monitor()
    trainer = toy.fit(tmp_path, own, max_epochs=2)
    first, second = monitors(trainer)
    assert first is own
    assert second.disabled
    assert not own.disabled
    assert (second.alarm.look, own.alarm.look) == (0, 3)


def test_one_of_another_name_watches_beside_it(tmp_path, configured):
    configured(YAML + "name: other")
    trainer = toy.fit(tmp_path, toy.monitor(), max_epochs=2)
    assert [mesa.alarm.look for mesa in monitors(trainer)] == [2, 2]  # the other one stops the run
    assert "other/base/worst" in trainer.callback_metrics


def test_a_validation_that_it_cannot_watch_goes_on(tmp_path, configured):
    configured(YAML.replace("inputs: x", "inputs: image"))
    trainer = pl.Trainer(default_root_dir=tmp_path, logger=False, accelerator=ACCELERATOR, enable_progress_bar=False)
    with pytest.warns(MesaWarning, match="no key 'image'"):
        assert trainer.validate(toy.ToyModel(), toy.loader(), verbose=False)


def test_a_resumed_run_goes_on_with_its_memory(tmp_path, configured):
    configured(YAML.replace("stop", "log"))
    first = toy.fit(tmp_path, max_epochs=2, enable_checkpointing=True)
    path = first.checkpoint_callback.best_model_path
    second = toy.fit(tmp_path, max_epochs=4, enable_checkpointing=True, ckpt_path=path)
    assert monitors(second)[0].alarm.look == 5
