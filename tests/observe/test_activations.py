"""Layers are found by name, read and patched, and nothing stays behind."""

import pytest
import torch
from torch import nn

from lightning_mesa.errors import ConfigurationError
from lightning_mesa.observe.activations import find_layers, patching, reading


class Ticking(nn.Module):
    """Calls one layer three times."""

    def __init__(self) -> None:
        super().__init__()
        self.step = nn.Linear(4, 4)
        self.blocks = nn.ModuleList(nn.Linear(4, 4) for _ in range(2))
        self.heads = nn.ModuleDict({"a": nn.Linear(4, 2)})

    def forward(self, x):
        for _ in range(3):
            x = self.step(x).tanh()
        for block in self.blocks:
            x = x + block(x)
        return self.heads["a"](x)


def _model():
    torch.manual_seed(0)
    return Ticking().eval()


def _hooks(model):
    return sum(len(part._forward_hooks) for part in model.modules())


@pytest.mark.parametrize(
    ("patterns", "found"),
    [
        (["blocks.*"], ["blocks.0", "blocks.1"]),
        (["heads.a", "step"], ["step", "heads.a"]),
        (["*"], ["step", "blocks", "heads"]),
        (["b*.1", "blocks.?"], ["blocks.0", "blocks.1"]),
    ],
)
def test_patterns_match_part_by_part(patterns, found):
    assert find_layers(_model(), patterns) == found


def test_a_layer_that_is_not_there_is_refused_with_those_that_are():
    with pytest.raises(
        ConfigurationError, match=r"no layer 'block\.0' in Ticking: it has 'step', 'blocks', 'blocks\.0'"
    ):
        find_layers(_model(), ["block.0"])


def test_a_layer_called_several_times_is_read_once_for_each_tick():
    model, x = _model(), torch.randn(5, 4)
    with torch.no_grad(), reading(model, ["step", "blocks.0"]) as caught:
        model(x)
    first = model.step(x)
    assert [len(ticks) for ticks in caught.values()] == [3, 1]
    assert torch.equal(caught["step"][0], first)
    assert torch.equal(caught["step"][1], model.step(first.tanh()))


def test_a_patch_changes_what_follows_and_its_own_tick_alone():
    model, x = _model(), torch.randn(5, 4)
    seen = []

    def edit(activation, tick):
        seen.append(tick)
        return torch.zeros_like(activation) if tick == 2 else activation

    with torch.no_grad(), patching(model, {"step": edit}):
        patched = model(x)
    hidden = torch.zeros(5, 4)
    for block in model.blocks:
        hidden = hidden + block(hidden)
    assert seen == [0, 1, 2]
    assert torch.allclose(patched, model.heads["a"](hidden))
    assert not torch.equal(patched, model(x))


@pytest.mark.parametrize("context", [reading, lambda model, layers: patching(model, {layers[0]: lambda a, _: a})])
def test_no_hook_is_left_also_after_an_error(context):
    model = _model()
    with pytest.raises(RuntimeError), context(model, ["step"]):
        model(torch.randn(5, 3))
    assert _hooks(model) == 0


class Wrapped(nn.Module):
    def __init__(self, give):
        super().__init__()
        self.inner = nn.Linear(4, 4)
        self.give = give

    def forward(self, x):
        return self.give(self.inner(x))


@pytest.mark.parametrize(
    ("give", "take"),
    [
        (lambda x: (x, "state"), lambda out: out[0]),
        (lambda x: [None, x], lambda out: out[1]),
        (lambda x: {"note": 1, "hidden": x}, lambda out: out["hidden"]),
    ],
    ids=["tuple", "list", "dict"],
)
def test_of_several_outputs_the_first_tensor_is_read_and_patched(give, take):
    model, x = nn.Sequential(Wrapped(give)), torch.randn(5, 4)
    with reading(model, ["0"]) as caught:
        model(x)
    with patching(model, {"0": lambda activation, _: activation + 1}):
        patched = model(x)
    assert torch.equal(caught["0"][0], model[0].inner(x))
    assert torch.allclose(take(patched), caught["0"][0] + 1)
    assert type(patched) is type(give(x))


def test_a_layer_without_a_tensor_is_refused():
    model = nn.Sequential(Wrapped(str))
    with reading(model, ["0"]), pytest.raises(ConfigurationError, match="layer '0' gives str without a tensor"):
        model(torch.randn(5, 4))


@pytest.mark.parametrize("batch_first", [True, False])
def test_recurrent_layers_give_items_first(batch_first):
    model = nn.ModuleDict({"memory": nn.GRU(3, 4, batch_first=batch_first)})
    x = torch.randn(5, 7, 3)
    with reading(model, ["memory"]) as caught:
        model["memory"](x if batch_first else x.transpose(0, 1))
    assert caught["memory"][0].shape == (5, 7, 4)
    edits = {"memory": lambda activation, _: activation.index_fill(0, torch.tensor([2]), 0.0)}
    with patching(model, edits):
        out = model["memory"](x if batch_first else x.transpose(0, 1))[0]
    assert out.select(0 if batch_first else 1, 2).abs().sum() == 0


def test_the_layers_of_a_transformer_can_be_read():
    layer = nn.TransformerEncoderLayer(8, 2, batch_first=True, dropout=0.0)
    model = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False).train()
    x = torch.randn(3, 5, 8)
    with reading(model, find_layers(model, ["layers.*"])) as caught:
        out = model(x)
    assert torch.equal(caught["layers.1"][0], out)


def test_a_model_of_transformers_can_be_read_and_patched():
    transformers = pytest.importorskip("transformers")
    config = transformers.GPT2Config(vocab_size=11, n_positions=8, n_embd=8, n_layer=2, n_head=2)
    model = transformers.GPT2LMHeadModel(config).eval()
    tokens = torch.randint(11, (3, 5))
    layers = find_layers(model, ["transformer.h.*"])
    with torch.no_grad(), reading(model, layers) as caught:
        before = model(tokens).logits
    assert [tuple(caught[layer][0].shape) for layer in layers] == [(3, 5, 8)] * 2
    with torch.no_grad(), patching(model, {layers[0]: lambda activation, _: activation * 0}):
        assert not torch.allclose(model(tokens).logits, before)


@pytest.mark.slow
def test_a_compiled_part_can_be_read_as_a_whole_and_not_inside():
    model = _model()
    model.step = torch.compile(model.step, backend="eager")
    x = torch.randn(5, 4)
    with torch.no_grad(), reading(model, ["step"]) as caught:
        model(x)
    assert len(caught["step"]) == 3
    with pytest.raises(ConfigurationError, match=r"'step\._orig_mod' is compiled with 'step'.*a module around it"):
        find_layers(model, ["step._orig_mod"])


def test_a_part_compiled_in_place_is_refused():
    model = _model()
    model.step.compile(backend="eager")
    with pytest.raises(ConfigurationError, match="'step' is compiled with 'step'"):
        find_layers(model, ["step"])
