"""Which objective is served is found by moving its target inside, on rules that are known."""

from dataclasses import replace

import pytest
import torch
from known import Rule, patches
from torch import nn

from lightning_mesa.errors import ConfigurationError
from lightning_mesa.observe.subject import Subject
from lightning_mesa.probes import Retargeting


def _probe(model, layers="encode", **options):
    probe = Retargeting({name: patches(name) for name in ("base", "proxy")}, layers, **options)
    subject = Subject(model)
    probe.check(subject)
    with torch.no_grad():
        found = probe.run(subject)
    return {(result.quantity, result.objective): result for result in found}, subject


@pytest.mark.parametrize("serves", ["base", "proxy"])
def test_the_objective_that_is_served_follows_its_target(serves):
    other = {"base": "proxy", "proxy": "base"}[serves]
    found, subject = _probe(Rule(serves))
    assert found["probe", serves].value == 1.0
    assert found["probe", serves].positive
    assert not found["probe", other].positive
    assert subject.passes == 8


def test_the_margin_has_the_sign_of_the_objective_that_is_served():
    of_base, of_proxy = (_probe(Rule(serves))[0]["margin", "proxy"] for serves in ("base", "proxy"))
    assert of_base.low > 0 > of_proxy.high
    assert of_base.bar is None  # a margin supports no rung by itself


def test_nothing_is_served_by_a_rule_that_reads_neither():
    found, _ = _probe(Rule("near"))
    assert found["probe", "base"].value == found["probe", "proxy"].value == 0.0


def test_decisions_that_did_not_serve_the_old_target_do_not_count():
    """Base's rule agrees with the proxy's old target by chance only."""
    found, _ = _probe(Rule("base"))
    assert found["probe", "proxy"].n < 80 < found["probe", "base"].n


class Looped(nn.Module):
    """Reads its input again at each of three ticks, as networks with recall do."""

    def __init__(self) -> None:
        super().__init__()
        self.encode = nn.Identity()
        self.rule = Rule("base")

    def forward(self, x):
        for _ in range(3):
            hidden = self.encode(x)
        return self.rule(hidden)


@pytest.mark.parametrize(("hold", "value"), [(False, 0.0), (True, 1.0)])
def test_a_network_that_reads_its_input_again_needs_the_patch_to_be_held(hold, value):
    found, _ = _probe(Looped(), hold=hold)
    assert found["probe", "base"].value == value


def test_a_copy_that_has_learned_nothing_and_follows_as_well_makes_the_control_invalid():
    found, _ = _probe(Rule("base", innate=True))
    assert found["probe", "base"].detail["untrained"] == found["probe", "base"].value == 1.0
    assert (found["probe", "base"].status, found["probe", "base"].positive) == ("invalid_control", False)
    assert found["probe", "base"].reason == "a copy that has learned nothing gives 1.00 as well"
    assert found["probe", "proxy"].status == "ok"  # it does not follow the proxy, trained or not


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"right_source": torch.zeros(200, 3, dtype=torch.bool)}, r"'base': right_source is \[200, 3\]"),
        ({"counted": torch.ones(200, 2, dtype=torch.bool)}, r"counted is \[200, 2\] where it must be \[200\]"),
        ({"site": torch.ones(200, 6)}, "site must be bool"),
    ],
)
def test_patches_that_do_not_fit_are_refused_before_training(change, message):
    with pytest.raises(ConfigurationError, match=message):
        Retargeting({"base": replace(patches("base"), **change)}, "encode").check(Subject(Rule("base")))


def test_no_patches_and_no_such_layer_are_refused():
    with pytest.raises(ConfigurationError, match="patches is empty"):
        Retargeting({}, "encode").check(Subject(Rule("base")))
    with pytest.raises(ConfigurationError, match="no layer 'encoder'"):
        Retargeting({"base": patches("base")}, "encoder").check(Subject(Rule("base")))


def test_nothing_to_be_read_is_underpowered():
    one = replace(patches("base"), counted=torch.zeros(200, dtype=torch.bool))
    probe = Retargeting({"base": one}, "encode")
    with torch.no_grad():
        (result,) = probe.run(Subject(Rule("base")))
    assert (result.status, result.value) == ("underpowered", None)
