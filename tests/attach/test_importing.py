"""Names in configurations: what they import, and what they must not."""

import sys

import pytest
import torch

import lightning_mesa
from importable import data
from lightning_mesa import ConfigurationError, LoaderDistribution, Matches, NegativeLoss, ScoreFunction
from lightning_mesa.attach.importing import imported, only
from lightning_mesa.callbacks.actions import Actions
from lightning_mesa.objectives.hypotheses import as_objective
from lightning_mesa.report.sinks import Sinks


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("importable.data.shifted", data.shifted),
        ("importable.data:shifted", data.shifted),
        ("importable.data.Makes.shifted", data.Makes.shifted),
        ("importable.data:Makes.shifted", data.Makes.shifted),
        ("importable.data.shifted_small", data.shifted_small),
        ("lightning_mesa.Matches", Matches),
        ("lightning_mesa.objectives.Matches", Matches),
    ],
)
@pytest.mark.parametrize("allowed", [None, ["importable.data"], ["importable"], ["other", "importable.data"]])
def test_an_object_is_found_by_its_path(path, found, allowed):
    if allowed is None:
        assert imported(path, "x") is found
    else:
        with only(allowed):
            assert imported(path, "x") is found


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("importable.data.nothing", "importable.data has no 'nothing'"),
        ("importable.data:Makes.nothing", "importable.data has no 'nothing'"),
        ("importable.missing.shifted", "importable has no 'missing'"),
        ("missing.data.shifted", "No module named 'missing'"),
        ("importable.data.os.system", "'os' is a module"),
        ("importable.data:os.system", "'os' is a module"),
        ("importable.data", "'data' is a module"),
        ("importable.broken.shifted", "importable.broken failed with OSError: the disk is on fire"),
        ("importable.data:", "write it as 'package.module.name'"),
        (".data.shifted", "write it as 'package.module.name'"),
        ("importable..shifted", "write it as 'package.module.name'"),
        ("importable.data.f()", "write it as 'package.module.name'"),
        ("shifted", "write it as 'package.module.name'"),
    ],
)
def test_what_cannot_be_imported_is_refused_with_a_reason(path, message):
    with pytest.raises(ConfigurationError, match=r"^thing: ") as refused:
        imported(path, "thing")
    assert message in str(refused.value)


@pytest.mark.parametrize(
    "path",
    [
        "os.system",
        "os:system",
        "subprocess.Popen",
        "builtins.eval",
        "importlib.import_module",
        "importable.forbidden.fire",
        "importable.forbidden:fire",
        "importable.data.os.system",
        "importable.data.TensorDataset",  # defined elsewhere
        "importable.databases.fire",  # no dot after the allowed name
        "lightning_mesa.attach.cli.os.system",
        "lightning_mesa.attach.cli.main",
        "lightning_mesa.report.journal.append",
        "lightning_mesa.objectives.torch.load",
        "lightning_mesa.callbacks.monitor.copy.deepcopy",
        "lightning_mesa.__getattr__",
        "lightning_mesa.import_module",
    ],
)
@pytest.mark.parametrize("allowed", [[], ["importable.data"]])
def test_a_configuration_imports_nothing_else(path, allowed):
    sys.modules.pop("importable.forbidden", None)
    with only(allowed), pytest.raises(ConfigurationError, match=r"allowed|public name|module"):
        imported(path, "thing")
    assert "importable.forbidden" not in sys.modules


def test_the_refusal_says_how_to_allow_it():
    with only(["importable.data"]), pytest.raises(ConfigurationError) as refused:
        imported("importable.forbidden.fire", "forward")
    assert str(refused.value) == (
        "forward: 'importable.forbidden.fire' may not be imported from a configuration: allowed are the names of "
        "lightning_mesa and importable.data. Allow it with allow=['importable'], LIGHTNING_MESA_ALLOW=importable, or "
        "--allow importable."
    )


def test_the_limit_ends_with_its_block():
    with pytest.raises(ZeroDivisionError), only([]):
        raise ZeroDivisionError
    assert imported("os:getcwd", "thing")


@pytest.mark.parametrize("name", lightning_mesa.__all__)
def test_every_public_name_may_be_imported(name):
    with only([]):
        assert imported(f"lightning_mesa.{name}", "x") is getattr(lightning_mesa, name)


def test_every_argument_that_takes_a_function_takes_its_path():
    batch, outputs = {"y": torch.tensor([1])}, torch.tensor([[0.0, 1.0]])
    assert Matches("importable.data:digit", name="digit").target is data.digit
    assert Matches("meta.digit", name="digit").target == "meta.digit"  # a key of the batch may have a dot
    assert ScoreFunction("importable.data.agreement").score(batch, outputs).tolist() == [1]
    assert NegativeLoss("importable.data.agreement", (0, 1)).score(batch, outputs).tolist() == [-1]
    assert as_objective("importable.data.agreement").name == "agreement"
    assert as_objective("importable.data:agreement").name == "agreement"
    assert LoaderDistribution("importable.data.shifted").source is data.shifted
    assert LoaderDistribution("val", forward="importable.data:net").forward is data.net
    assert LoaderDistribution("val", forward="model.net").forward == "model.net"  # an attribute may have a dot
    assert Actions(["log", "importable.data.digit"]).callables == [data.digit]
    assert list(Sinks(["importable.data.digit"])._sinks.values()) == [data.digit]


@pytest.mark.parametrize(
    "build",
    [
        lambda: ScoreFunction("importable.data.THREE"),
        lambda: LoaderDistribution("val", forward="importable.data:THREE"),
        lambda: LoaderDistribution("val", forward=3),
        lambda: as_objective("importable.data.THREE"),
    ],
)
def test_what_is_no_function_is_refused(build):
    with pytest.raises(ConfigurationError, match=r"must be a function|is no objective"):
        build()
