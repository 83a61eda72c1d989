"""Everything that can be passed can be named in a configuration: each public class is built from YAML."""

import inspect
import warnings
from dataclasses import dataclass
from importlib import import_module

import numpy as np
import pytest
import torch
import yaml

from lightning_mesa import ByPValue, ConfigurationError, Matches, MesaMonitor
from lightning_mesa.attach.config import build
from lightning_mesa.attach.importing import ROOMS
from lightning_mesa.errors import said, shown

BASE = {"class_path": "lightning_mesa.Matches", "init_args": {"target": "y"}}
DATA, LAYERS = "importable.data.shifted", "net"  # a function without arguments, that only a look calls

# The arguments that a class needs; a public class that a user constructs has a line here.
ARGUMENTS = {
    "Alarm": {},
    "EnvDistribution": {"env": "CartPole-v1"},
    "EpisodeReturn": {"bounds": [0, 1]},
    "LoaderDistribution": {"source": "val"},
    "Logged": {"metric": "val/accuracy"},
    "Matches": {"target": "y"},
    "MesaMonitor": {"base": BASE, "shifted": "val/1"},
    "NegativeLoss": {"fn": "importable.data.agreement", "bounds": [0, 1]},
    "Reached": {"goal": "goal"},
    "ScoreFunction": {"fn": "importable.data.agreement"},
    "Thresholds": {},
    # probes
    "ComputeGain": {"puzzles": DATA, "steps": "steps"},
    "ConsequenceSensitivity": {"pairs": DATA},
    "ContextDescent": {"contexts": DATA, "layers": LAYERS},
    "Decodability": {"layers": LAYERS},
    "Diagnostics": {"batch": DATA, "layers": LAYERS},
    "LogisticDecodability": {"layers": LAYERS},
    "Retargeting": {"patches": DATA, "layers": LAYERS},
    "SolverMatch": {"problems": DATA, "far": DATA},
    "Steering": {"alternatives": DATA, "layers": LAYERS},
    # nulls
    "AllOf": {"parts": [{"class_path": "lightning_mesa.ByPValue", "init_args": {"p": 0.5}}]},
    "AnyOf": {"parts": []},
    "AtLeast": {"estimate": None, "bound": 0.5},
    "AtMost": {"estimate": None, "bound": 0.5},
    "ByPValue": {"p": 0.5},
    # checks
    "BaseLost": {},
    "BehavioralObjective": {},
    "CapabilityFailure": {},
    "CueDependence": {},
    "ExtremalBehavior": {},
    "GoalFailure": {},
    "HiddenObjective": {},
    "MesaObjective": {},
    "ObjectiveGap": {},
    "ObjectiveLost": {},
    "Preference": {},
    "ProxyOnReference": {},
    "ProxyPursued": {},
    "Readout": {},
    "SliceFailure": {},
}
# Faces that a user's class has, what a monitor gives and not takes, and what is declared in a class.
NOT_PASSED = {
    *("Check", "Distribution", "EpisodeObjective", "Null", "Objective", "Probe", "Source", "State"),
    *("Alert", "Behavior", "Finding", "Look", "LookContext", "ProbeResult", "Regime", "Test", "Transition", "Verdict"),
    *("ConfigurationError", "MesaWarning"),
    *("Notes", "Rows", "Sums"),
}
# Tensors for probes: a configuration names a function that makes them.
TENSORS = {"Alternatives", "Contexts", "Pairs", "Patches", "Problems", "Puzzles"}

PUBLIC = {
    name: (f"{room}.{name}", found)
    for room in reversed(ROOMS)
    for name in import_module(room).__all__
    if inspect.isclass(found := getattr(import_module(room), name))
}


def test_each_public_class_is_listed_here():
    """Else nobody knows whether it can be written in a file."""
    assert PUBLIC.keys() == ARGUMENTS.keys() | NOT_PASSED | TENSORS


@pytest.mark.parametrize("name", ARGUMENTS)
@pytest.mark.parametrize("by_module", [False, True], ids=["by its room", "by its module"])
def test_each_is_built_from_yaml(tmp_path, name, by_module):
    """A class is known by its room and by the module that defines it; only the functions need to be allowed."""
    path, cls = PUBLIC[name]
    path = f"{cls.__module__}.{name}" if by_module else path
    file = tmp_path / "one.yaml"
    file.write_text(yaml.safe_dump({"class_path": path, "init_args": ARGUMENTS[name]}))
    (made,) = build(file, cls, ["importable"])
    assert type(made) is cls


@pytest.mark.parametrize("probe", ["Decodability", "ConsequenceSensitivity"])
def test_a_monitor_takes_the_probes_that_a_file_names(tmp_path, probe):
    file = tmp_path / "mesa.yaml"
    one = {"class_path": f"lightning_mesa.probes.{probe}", "init_args": ARGUMENTS[probe]}
    file.write_text(yaml.safe_dump({"base": BASE, "shifted": "val/1", "probes": [one]}))
    mesa = MesaMonitor.from_config(file, allow=["importable.data"])
    assert [type(one).__name__ for one in mesa.probes] == [probe]


def test_what_is_not_public_is_refused_with_all_names_there_are(tmp_path):
    file = tmp_path / "mesa.yaml"
    file.write_text(yaml.safe_dump({"class_path": "lightning_mesa.probes.logistic_decodability.Logistic"}))
    with pytest.raises(ConfigurationError, match=r"no public name of this package; there are .*Matches.*probes\.Steer"):
        build(file, object, [])


def test_arguments_without_names_are_given_as_a_list(tmp_path):
    file = tmp_path / "null.yaml"
    parts = [{"class_path": "lightning_mesa.ByPValue", "init_args": {"p": p}} for p in (0.25, 0.75)]
    file.write_text(yaml.safe_dump({"class_path": "lightning_mesa.AllOf", "init_args": {"parts": parts}}))
    (null,) = build(file, object, [])
    assert null.p_value() == 0.5


@pytest.mark.parametrize(
    "groups",
    [
        "site",
        2,
        ["site", 2],
        "importable.data:digit",
        ["importable.data:digit"],
        {"s": "importable.data:digit", "t": 2},
    ],
    ids=str,
)
def test_keys_and_functions_survive_a_command_line(groups):
    """What it writes down is what it was given, and gives the same again."""
    parser = pytest.importorskip("jsonargparse").ArgumentParser()
    parser.add_class_arguments(MesaMonitor, "mesa")
    make = getattr(parser, "instantiate", None) or parser.instantiate_classes
    given = {"mesa": {"base": BASE, "shifted": "val/1", "groups": groups}}
    parsed = parser.parse_object(given)
    written = yaml.safe_load(parser.dump(parsed))
    assert written["mesa"]["groups"] == groups
    first, again = (make(config).mesa for config in (parsed, parser.parse_object(written)))
    assert first.reading.groups == again.reading.groups


# --- what a message says of a value -------------------------------------------------------------------------------

BIG = torch.arange(600.0).reshape(3, 200)


@dataclass
class Holds:
    """Its repr prints a tensor."""

    tensor: torch.Tensor


WITH_TENSORS = {
    "a tensor": BIG,
    "one number": torch.tensor(7.25),
    "an array": BIG.numpy(),
    "a number of NumPy": np.float32(7.25),
    "a list": [BIG, BIG],
    "a mapping": {"a": BIG, 0: [BIG.numpy()]},
    "a mapping from tensors": {BIG: "a"},
    "an object": Holds(BIG),
    "a list of objects": [Holds(BIG)],
    "a long list": [*range(10_000)],
    "a long text": "a" * 10_000,
}


def assert_short(text):
    """Four lines of 120 characters at most, and nothing of what a tensor holds."""
    assert "tensor(" not in text
    assert "array(" not in text
    assert "598." not in text
    assert len(text) <= 480


@pytest.mark.parametrize("value", WITH_TENSORS.values(), ids=WITH_TENSORS.keys())
@pytest.mark.parametrize("name", ARGUMENTS)
def test_no_argument_is_printed_with_a_tensor(name, value):
    """Each argument of each public class, in place of what it should be; what it says of itself is short."""
    _, cls = PUBLIC[name]
    given = ARGUMENTS[name] | ({"base": Matches("y")} if name == "MesaMonitor" else {})
    given |= {"parts": [ByPValue(0.5)]} if name in ("AllOf", "AnyOf") else {}
    for parameter in inspect.signature(cls).parameters:
        arguments = given | {parameter: value}
        listed = arguments.pop("parts", ())
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                cls(*(listed if isinstance(listed, list) else [listed]), **arguments)
            except Exception as error:
                assert_short(str(error))
        for warning in caught:
            assert_short(str(warning.message))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (BIG, "a tensor of shape [3, 200]"),
        (torch.tensor(7.25), "a tensor of shape []"),
        (torch.nn.Parameter(BIG), "a parameter of shape [3, 200]"),
        (BIG.numpy(), "a ndarray of shape [3, 200]"),
        ([BIG, 1], "[a tensor of shape [3, 200], 1]"),
        ({"x": (BIG,)}, "{'x': (a tensor of shape [3, 200],)}"),
        (Holds(BIG), "a Holds"),
        (object(), "an object"),
        (Matches, "Matches"),
        (len, "len"),
        (None, "None"),
        (0.5, "0.5"),
        (True, "True"),
        ("y", "'y'"),
        ([*range(100)], "[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, ...]"),
    ],
)
def test_a_value_is_said_in_words(value, text):
    assert shown(value) == text


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ValueError("no\n  good"), "ValueError: no good"),
        (KeyError("x"), "KeyError: 'x'"),
        (AssertionError(BIG), "AssertionError"),
        (RuntimeError(f"bad {BIG} here"), "RuntimeError: bad"),
        (RuntimeError(f"bad {BIG.numpy()!r}"), "RuntimeError: bad"),
        (RuntimeError(), "RuntimeError"),
        (RuntimeError("a" * 1000), f"RuntimeError: {'a' * 200}..."),
        (ConfigurationError("a" * 1000), f"ConfigurationError: {'a' * 1000}"),
    ],
)
def test_an_error_is_said_in_one_line(error, text):
    assert said(error) == text
