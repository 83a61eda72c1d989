"""How a batch reaches the model, and what is proposed where it cannot."""

from collections import UserDict, namedtuple
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lightning_mesa import ConfigurationError, LoaderDistribution
from lightning_mesa.observe.arguments import called, forward_of
from lightning_mesa.observe.context import Reading
from lightning_mesa.observe.forward import call_model

Pair = namedtuple("Pair", "left right")
X = torch.ones(3, 2)
IDS, MASK = {"input_ids": X, "attention_mask": X}, {"attention_mask": X}
TEXT = {**IDS, "labels": torch.ones(3)}


class RefusedError(Exception):
    """By a model that was called with something else."""


def module(forward):
    """A module with that forward."""
    return type("Made", (nn.Module,), {"forward": forward})()


def of_text(self, input_ids, attention_mask=None, labels=None):
    if attention_mask is None or labels is not None:
        raise RefusedError
    return input_ids


def of_keywords(self, **inputs):
    if set(inputs) != {"input_ids", "attention_mask"}:
        raise RefusedError
    return inputs["input_ids"]


def of_batch(self, batch):
    if isinstance(batch, Tensor):
        raise RefusedError
    return X


def of_typed(self, given: dict[str, Any]):
    if not isinstance(given, dict):
        raise RefusedError
    return X


def of_one(self, x):
    return x


def of_graph(self, x, edge_index, edge_weight=None):
    return x


def of_only_keywords(self, *, left, right):
    return left


def of_tensors(self, a, b):
    return a


PROPOSED = {
    "several keys, and an optional answer": (of_text, TEXT, None, ["input_ids", "attention_mask"]),
    "one of several keys": (of_text, TEXT, "input_ids", ["input_ids", "attention_mask"]),
    "any keywords": (of_keywords, TEXT, None, ["input_ids", "attention_mask"]),
    "another mapping": (of_text, UserDict(TEXT), None, ["input_ids", "attention_mask"]),
    "the whole mapping, by its name": (of_batch, TEXT, None, "*"),
    "the whole tuple, by its name": (of_batch, (X, X), None, "*"),
    "the whole mapping, by its type": (of_typed, TEXT, None, "*"),
    "one key of the signature's name": (of_one, {"x": X, "y": X}, None, "x"),
    "attributes of an object": (of_graph, SimpleNamespace(x=X, edge_index=X, y=X), None, ["x", "edge_index"]),
    "fields of a named tuple": (of_only_keywords, Pair(X, X), None, ["left", "right"]),
}


@pytest.mark.parametrize(("forward", "batch", "given", "proposed"), PROPOSED.values(), ids=PROPOSED.keys())
def test_what_the_signature_proposes_works(forward, batch, given, proposed):
    model = module(forward)
    with pytest.raises(ConfigurationError) as refused:
        call_model(model, batch, Reading(inputs=given))
    message = str(refused.value)
    assert f"that is inputs={proposed!r}" in message
    assert ("passed by keyword." in message) == isinstance(proposed, list)
    assert call_model(model, batch, Reading(inputs=proposed)) is X


NOTHING = {
    "one argument of another name": (of_one, TEXT, None),
    "two arguments for a tuple": (of_tensors, (X, X), None),
    "keys that the model does not take": (of_tensors, TEXT, ["input_ids"]),
    "what has been tried": (of_text, {"input_ids": X}, "input_ids"),
    "a signature that cannot be read": (torch.jit.script(nn.Linear(2, 1)), TEXT, ["input_ids"]),
}


@pytest.mark.parametrize(("forward", "batch", "given"), NOTHING.values(), ids=NOTHING.keys())
def test_where_the_signature_proposes_nothing_the_message_says_what_there_is(forward, batch, given):
    model = forward if isinstance(forward, nn.Module) else module(forward)
    with pytest.raises(ConfigurationError, match=r"inputs=.*or (pass )?forward=") as refused:
        call_model(model, batch, Reading(inputs=given))
    assert "By its signature" not in str(refused.value)


def test_a_list_of_keys_is_said_to_be_passed_by_keyword():
    for given in (None, ["input_ids"]):
        with pytest.raises(ConfigurationError, match="a list of keys is passed by keyword"):
            call_model(module(of_tensors), TEXT, Reading(inputs=given))


@pytest.mark.parametrize(
    "batch", [TEXT, (X, X), Pair(X, X), SimpleNamespace(x=X), X, [X]], ids=lambda b: type(b).__name__
)
def test_a_star_is_the_whole_batch_whatever_it_is(batch):
    taken = []
    call_model(module(lambda self, given: taken.append(given)), batch, Reading(inputs="*"))
    assert taken[0] is batch or taken[0] == batch


@pytest.mark.parametrize("reading", [Reading(inputs="*"), Reading(forward=lambda model, batch: model(batch))])
def test_a_model_that_takes_its_batch_apart_leaves_the_batch_whole(reading):
    batch, whole = dict(TEXT), dict(TEXT)
    call_model(module(lambda self, given: given.clear()), batch, reading)
    assert batch == whole


@pytest.mark.parametrize(
    "error", [ValueError(f"{torch.ones(2000)}"), KeyError(torch.ones(9)), RuntimeError("long " * 999), RefusedError()]
)
def test_no_message_prints_a_tensor_or_grows_long(error):
    def fails(self, x):
        raise error

    with pytest.raises(ConfigurationError, match=type(error).__name__) as refused:
        call_model(module(fails), X, Reading())
    assert "tensor(" not in str(refused.value)
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 480  # four lines of 120


# --- what is called ---


class Nested(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Linear(2, 1)
        self.model = nn.ModuleDict({"encoder": nn.ModuleList([nn.Linear(2, 2)])})
        self.size = 3

    def forward(self, x):
        raise RefusedError

    def predict(self, x):
        return self.net(x)

    def predict_both(self, left, right):
        return left + right


@pytest.mark.parametrize("path", ["net", "net.forward", "predict", "model.encoder.0"])
def test_a_path_names_a_submodule_or_a_method_which_is_called_on_the_inputs(path):
    model = Nested()
    expected = model.model["encoder"][0] if path.startswith("model") else model.net
    got = call_model(model, {"image": X}, Reading(forward=forward_of(path), inputs="image"))
    assert torch.equal(got, expected(X))


def test_of_a_copy_the_copy_s_own_submodule_is_called():
    """As probes and the untrained copy need it."""
    model, other = Nested(), Nested()
    assert called(other, "net") is other.net
    assert called(model, None) is model


def test_a_method_s_own_signature_proposes_its_inputs():
    with pytest.raises(ConfigurationError, match=r"predict_both\(left, right\), that is inputs=\['left', 'right'\]"):
        call_model(Nested(), {"left": X, "right": X}, Reading(forward="predict_both"))


WRONG_PATHS = {
    "nett": "Nested has no submodule or method 'nett', perhaps 'net'",
    "size": "no submodule or method 'size'",
    "size.real": "no submodule or method 'size'",
    "net.weight": "no submodule or method 'weight'",
    "package.function": "a function is imported by 'package.module:name'",
    "to": "is a method that every module has",
    "load_state_dict": "is a method that every module has",
    "net.requires_grad_": "is a method that every module has",
}


@pytest.mark.parametrize(("path", "message"), WRONG_PATHS.items())
def test_a_path_that_leads_nowhere_or_could_change_the_model_is_refused(path, message):
    with pytest.raises(ConfigurationError, match=message):
        call_model(Nested(), X, Reading(forward=forward_of(path)))


@pytest.mark.parametrize("path", ["", ".", "net.", "a b", "__class__", "net.__init__", "model/encoder", 3])
def test_what_cannot_be_a_path_is_refused_at_once(path):
    with pytest.raises(ConfigurationError, match="forward"):
        LoaderDistribution("val", forward=path)
