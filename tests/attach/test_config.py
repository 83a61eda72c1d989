"""Monitors from configurations: built, or refused with the key and the nearest name."""

import sys

import pytest
from omegaconf import OmegaConf

import toy
from importable import data
from lightning_mesa import ConfigurationError, LoaderDistribution, MesaMonitor
from lightning_mesa.attach.config import build

ARGUMENTS = """
base: {class_path: lightning_mesa.Matches, init_args: {target: y}}
proxies:
  - _target_: lightning_mesa.objectives.Matches
    target: z
shifted: {apart: datamodule.shifted}
inputs: x
alarm: {class_path: lightning_mesa.Alarm, init_args: {alpha: 1e-2, gap: 0.2}}
on_alert: [log, stop]
every_n_steps: 4
"""
INDENTED = ARGUMENTS.replace("\n", "\n    ")
TWO = "".join(f"{name}:\n    _target_: lightning_mesa.MesaMonitor{INDENTED}\n" for name in "ab")


def written(folder, text, name="mesa.yaml"):
    path = folder / name
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    "text",
    [
        ARGUMENTS,
        f"class_path: lightning_mesa.MesaMonitor\ninit_args:{INDENTED}",
        f"_target_: lightning_mesa.MesaMonitor{ARGUMENTS}",
        f"mesa:\n    _target_: lightning_mesa.MesaMonitor{INDENTED}",
    ],
    ids=["arguments", "as LightningCLI writes it", "as Hydra writes it", "as in a Hydra group"],
)
def test_a_file_gives_the_monitor_that_it_describes_however_it_is_written(tmp_path, text):
    mesa = MesaMonitor.from_config(written(tmp_path, text))
    assert [objective.name for objective in mesa.hypotheses.all] == ["y", "z"]
    assert mesa.alarm.alpha == 0.01
    assert mesa.alarm.gap == 0.2
    assert mesa.actions.stops
    assert mesa.every_n_steps == 4


def test_a_mapping_and_a_dictconfig_do_as_well():
    config = OmegaConf.create({"monitor": OmegaConf.create(ARGUMENTS), "steps": 7})
    config.monitor.every_n_steps = "${steps}"
    assert MesaMonitor.from_config(config.monitor).every_n_steps == 7
    assert MesaMonitor.from_config(OmegaConf.to_container(config, resolve=True)["monitor"]).every_n_steps == 7


def test_what_is_built_watches_a_run(tmp_path):
    text = ARGUMENTS.replace("{apart: datamodule.shifted}", "{apart: importable.data.shifted}")
    mesa = MesaMonitor.from_config(written(tmp_path, text), allow=["importable.data"])
    toy.fit(tmp_path, mesa, max_epochs=12)
    assert mesa.stop_reason


def test_every_argument_can_be_written_in_yaml(tmp_path):
    text = """
    base: {class_path: lightning_mesa.Matches, init_args: {target: "importable.data:digit", name: y, ceiling: 0.9}}
    proxies: [importable.data.agreement]
    intended: {_target_: lightning_mesa.NegativeLoss, fn: importable.data.agreement, bounds: [0, 1], name: loss}
    shifted:
      one: importable.data.shifted
      two: {class_path: importable.data.Makes.shifted}
      three:
        class_path: lightning_mesa.LoaderDistribution
        init_args: {source: datamodule.x, inputs: x, forward: 'importable.data:net', ids: id, data_regime: fresh}
    reference: [val, val/1]
    forward: 'importable.data:net'
    inputs: [a, b]
    outputs: importable.data.net
    groups: [kind, 1]
    cue: importable.data.digit
    witness: {class_path: lightning_mesa.ScoreFunction, init_args: {fn: importable.data.agreement, name: able}}
    alarm: {class_path: lightning_mesa.Alarm}
    every_n_steps: 5
    limit_batches: 3
    on_alert: importable.data.digit
    sinks: [importable.data.digit]
    on_error: raise
    seed: 3
    name: watch
    """
    mesa = MesaMonitor.from_config(written(tmp_path, text), allow=["importable", "toy"])
    assert mesa.shifted["one"].source is data.shifted
    assert mesa.shifted["two"].source.dataset.y.shape == (400,)
    assert isinstance(mesa.shifted["three"], LoaderDistribution)
    assert mesa.reading.forward is data.net
    assert mesa.actions.callables == [data.digit]
    assert mesa.name == "watch"


def refused(tmp_path, text, allow=()):
    with pytest.raises(ConfigurationError) as error:
        MesaMonitor.from_config(written(tmp_path, text), allow=allow)
    return str(error.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("shifted:", "shiftd:"), "shiftd: MesaMonitor has no argument 'shiftd'. Did you mean 'shifted'?"),
        (("{target: y}", "{taget: y}"), "base.init_args.taget: Matches has no argument 'taget'. Did you mean 'target'"),
        (("    target: z", "    targets: z"), "proxies[0].targets: Matches has no argument 'targets'. Did you mean"),
        (("{target: y}", "{}"), "base.init_args.target: Matches needs this argument."),
        (("every_n_steps: 4", "every_n_steps: four"), "every_n_steps: 'four' does not fit: it must be a whole number"),
        (("every_n_steps: 4", "every_n_steps: 0"), "every_n_steps must be a whole number of at least 1, not 0"),
        (("gap: 0.2", "gap: wide"), "alarm.init_args.gap: 'wide' does not fit: it must be a number."),
        (("gap: 0.2", "gap: 7"), "alarm.init_args: Alarm: gap must lie between 0 and 1, not 7"),
        (("inputs: x", "inputs: {x: 1}"), "inputs: {'x': 1} does not fit: it must be a text or a whole number or a"),
        (("inputs: x", "inputs: [x, [y]]"), "inputs: ['x', ['y']] does not fit"),
        (("inputs: x", "on_error: ignore"), "on_error: 'ignore' does not fit: it must be 'disable' or 'raise'"),
        (("lightning_mesa.Alarm", "lightning_mesa.Alarms"), "alarm.class_path: 'lightning_mesa.Alarms' is no public"),
        (("lightning_mesa.Alarm", "os.system"), "alarm.class_path: 'os.system' may not be imported"),
        (("lightning_mesa.Alarm,", "3,"), "alarm.class_path: must be the path of a class, not 3"),
        (("gap: 0.2}}", "gap: 0.2}, args: 3}"), "alarm: 'args' beside class_path; arguments belong into init_args"),
        (("{alpha: 1e-2, gap: 0.2}", "[1]"), "alarm.init_args: must be a mapping from names to values"),
        (("inputs: x", "inputs: ${nothing}"), "inputs: Interpolation key 'nothing' not found."),
        (("inputs: x", "inputs: ???"), "inputs: Missing mandatory value: inputs."),
        (("inputs: x", "inputs: ${oc.decode:x}"), "inputs: only ${key} and ${oc.env:NAME} may be used, not"),
        (("inputs: x", "inputs: ${${every_n_steps}:x}"), "inputs: only ${key} and ${oc.env:NAME} may be used"),
        (("inputs: x", "inputs: &a x\nname: *a"), "*a cannot be used here; refer to another value as ${key}."),
        (("inputs: x", "inputs: [x"), "is no YAML: while parsing a flow sequence"),
        (("inputs: x", "inputs: x\ninputs: y"), "found duplicate key inputs"),
        (("inputs: x", "inputs: !!python/object/apply:os.system [ls]"), "could not determine a constructor"),
        (("inputs: x", "forward: 'importable.forbidden:fire'"), "forward: 'importable.forbidden:fire' may not be"),
        (("on_alert: [log, stop]", "on_alert: [stopp]"), "on_alert: unknown action 'stopp'"),
        (("{apart: datamodule.shifted}", "{gap: val}"), "shifted distribution 'gap' is reserved"),
        (("inputs: x", "3: x"), "3: MesaMonitor has no argument 3."),
    ],
)  # fmt: skip
def test_what_is_wrong_is_refused_by_its_key(tmp_path, change, message):
    assert ARGUMENTS.count(change[0]) == 1
    assert message in refused(tmp_path, ARGUMENTS.replace(*change))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "base: MesaMonitor needs this argument"),
        ("- 1\n- 2", "must be a mapping from the names of arguments"),
        ("just words", "mesa.yaml, line 1: a configuration must be a mapping"),
        ("4", "mesa.yaml, line 1: a configuration must be a mapping"),
        ("class_path: lightning_mesa.Alarm", "gives a Alarm, where a MesaMonitor must be"),
        ("a: {_target_: lightning_mesa.Alarm}", "a: gives a Alarm, where a MesaMonitor must be"),
        (TWO, "describes 2 monitors, where one is wanted"),
        ("base: " + "[" * 200 + "]" * 200, "nested more than 50 deep"),
        ("\x00", "is no YAML"),
    ],
    ids=["empty", "a list", "words", "a number", "another class", "one by name", "two monitors", "deep", "no text"],
)  # fmt: skip
def test_a_file_that_is_no_configuration_is_refused(tmp_path, text, message):
    assert message in refused(tmp_path, text)


def test_a_file_that_cannot_be_read_is_refused(tmp_path):
    with pytest.raises(ConfigurationError, match=r"missing.yaml cannot be read: No such file"):
        MesaMonitor.from_config(tmp_path / "missing.yaml")
    with pytest.raises(ConfigurationError, match="cannot be read: Is a directory"):
        MesaMonitor.from_config(tmp_path)
    (tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe\xfa")
    with pytest.raises(ConfigurationError, match="is no YAML"):
        MesaMonitor.from_config(tmp_path / "bytes.yaml")


def test_several_monitors_by_name(tmp_path):
    second = INDENTED.replace("every_n_steps", "name: other\n    every_n_steps")
    text = (
        f"a:\n    _target_: lightning_mesa.MesaMonitor{INDENTED}\nb:\n    _target_: lightning_mesa.MesaMonitor{second}"
    )
    assert [mesa.name for mesa in build(written(tmp_path, text), MesaMonitor, ())] == ["mesa", "other"]


def test_environment_variables_may_be_used(tmp_path, monkeypatch):
    monkeypatch.setenv("SHIFT", "datamodule.other")
    text = ARGUMENTS.replace("datamodule.shifted", "'${oc.env:SHIFT}'").replace("inputs: x", "inputs: ${oc.env:KEY,x}")
    mesa = MesaMonitor.from_config(written(tmp_path, text))
    assert mesa.shifted["apart"].source == "datamodule.other"
    assert mesa.reading.inputs == "x"


def test_a_resolver_that_a_script_has_registered_is_not_run_by_a_file(tmp_path):
    """Hydra projects often register eval."""
    OmegaConf.register_new_resolver("eval", eval, replace=True)
    try:
        text = ARGUMENTS.replace("inputs: x", "inputs: ${eval:'__import__(\"importable.forbidden\")'}")
        sys.modules.pop("importable.forbidden", None)
        assert "may be used" in refused(tmp_path, text)
        assert "importable.forbidden" not in sys.modules
    finally:
        OmegaConf.clear_resolver("eval")
