"""Models and trainers of many kinds, each watched, and trained bitwise as without the monitor."""

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

import toy
from lightning_mesa import Matches
from namespace import pl


class Compiled(toy.ToyModel):
    """With a compiled part; a compiled whole does not train under Lightning 2.6.6 on this torch."""

    def __init__(self):
        super().__init__()
        self.net = torch.compile(nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 4)), backend="aot_eager")


class Manual(toy.ToyModel):
    """Two optimizers, stepped by hand."""

    def __init__(self):
        super().__init__()
        self.automatic_optimization = False
        self.other = nn.Linear(4, 4)

    def forward(self, x):
        return self.other(self.net(x))

    def training_step(self, batch, batch_idx):
        loss = F.cross_entropy(self(batch["x"]), batch["y"])
        first, second = self.optimizers()
        for optimizer in (first, second):
            optimizer.zero_grad()
        self.manual_backward(loss)
        first.step()
        if batch_idx % 2:
            second.step()
        self.log("train/loss", loss)

    def configure_optimizers(self):
        return [torch.optim.SGD(part.parameters(), lr=0.2) for part in (self.net, self.other)]


class Clipped(toy.ToyModel):
    def configure_gradient_clipping(self, optimizer, gradient_clip_val=None, gradient_clip_algorithm=None):
        self.clip_gradients(optimizer, gradient_clip_val=0.3, gradient_clip_algorithm="norm")


class Tokens(Dataset):
    """Toy items as token sequences: the strong cue's token comes three times, the weak one's once."""

    def __init__(self, n, *, confounded, seed=0):
        data = toy.ToyData(n, confounded=confounded, seed=seed)
        self.y, self.z = data.y, data.z
        weak, strong = data.y[:, None], data.z[:, None] + toy.CHOICES
        self.ids = torch.cat([strong, weak, strong, strong], 1)

    def __len__(self):
        return len(self.y)

    def __getitem__(self, i):
        return {"input_ids": self.ids[i], "attention_mask": torch.ones(4).long(), "y": self.y[i], "z": self.z[i]}


class Transformer(pl.LightningModule):
    """A model of transformers with random weights; batches are passed by keyword, as its models are called."""

    def __init__(self, kind: str):
        super().__init__()
        transformers = pytest.importorskip("transformers")
        sizes: dict[str, Any] = {"vocab_size": 2 * toy.CHOICES}
        if kind == "classifier":
            config = transformers.BertConfig(
                hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, num_labels=4, **sizes
            )
            self.model = transformers.BertForSequenceClassification(config)
        else:
            config = transformers.GPT2Config(n_embd=32, n_layer=1, n_head=2, n_positions=8, **sizes)
            self.model = transformers.GPT2LMHeadModel(config)
        self.kind = kind

    def forward(self, input_ids, attention_mask):
        return self.model(input_ids=input_ids, attention_mask=attention_mask)

    def training_step(self, batch, batch_idx):
        logits = self(batch["input_ids"], batch["attention_mask"]).logits
        return F.cross_entropy(logits if self.kind == "classifier" else logits[:, -1, : toy.CHOICES], batch["y"])

    def validation_step(self, batch, batch_idx):
        """None."""

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=5e-3)


def candidates(outputs, batch):
    """A language model's choice among candidate tokens at the answer's place."""
    return outputs.logits[:, -1, : toy.CHOICES]


def tokens():
    return {
        "train_dataloaders": DataLoader(Tokens(256, confounded=True), 32),
        "val_dataloaders": DataLoader(Tokens(400, confounded=True, seed=1), 100),
    }


def on_tokens(**options):
    return {"shifted": {"apart": DataLoader(Tokens(400, confounded=False, seed=2), 100)},
            "inputs": ["input_ids", "attention_mask"]} | options  # fmt: skip


KINDS: dict[str, tuple[Any, dict, dict]] = {
    "a compiled part": (Compiled, {}, {}),
    "manual optimisation": (Manual, {}, {}),
    "gradient clipping of its own": (Clipped, {}, {}),
    "16-mixed, which is bf16-mixed on a CPU": (toy.ToyModel, {}, {"precision": "16-mixed"}),
    "bf16-mixed": (toy.ToyModel, {}, {"precision": "bf16-mixed"}),
    "bf16-true": (toy.ToyModel, {}, {"precision": "bf16-true"}),
    "64-true": (toy.ToyModel, {}, {"precision": "64-true"}),
    "accumulated gradients": (toy.ToyModel, {}, {"accumulate_grad_batches": 3, "max_epochs": 10}),
    "clipped gradients": (toy.ToyModel, {}, {"gradient_clip_val": 0.5}),
    "a classifier of transformers": (lambda: Transformer("classifier"), on_tokens(), tokens()),
    "a language model of transformers": (
        lambda: Transformer("language model"),
        on_tokens(outputs=candidates, base=Matches("y"), proxies=[Matches("z")]),
        tokens(),
    ),
}


def trained(folder, build, options, *callbacks):
    torch.manual_seed(0)
    model = build()
    trainer = toy.fit(folder, *callbacks, model=model, **{"max_epochs": 6} | options)
    return trainer, {name: value.clone() for name, value in model.state_dict().items()}


QUICK = ("manual optimisation", "bf16-mixed", "a classifier of transformers")
"""The other precisions, accumulation and clipping are quick in test_neutrality."""


@pytest.mark.parametrize(
    "kind", [*QUICK, *(pytest.param(kind, marks=pytest.mark.slow) for kind in KINDS if kind not in QUICK)]
)
def test_a_model_of_this_kind_is_watched_and_its_training_is_bitwise_the_same(tmp_path, kind):
    build, watch, options = KINDS[kind]
    mesa = toy.monitor(on_error="raise", **watch)
    trainer, weights = trained(tmp_path / "on", build, options, mesa)
    _, without = trained(tmp_path / "off", build, options)
    assert weights.keys() == without.keys()
    assert all(torch.equal(weights[name], without[name]) for name in weights)
    assert trainer.callback_metrics["mesa/apart/n"] == 400
    assert {alert.signature for alert in mesa.alerts} >= {"objective_lost", "proxy_pursued"}


@pytest.mark.slow
def test_looks_compile_nothing_again(tmp_path):
    """Batches of the validation's size run in the graphs that the validation has."""
    counted = []
    for mesa in ([], [toy.monitor(shifted={"apart": toy.shifted(400, batch_size=40)})]):
        torch._dynamo.reset()
        torch._dynamo.utils.counters.clear()
        trained(tmp_path, Compiled, {"val_dataloaders": toy.loader(400, seed=1, batch_size=40)}, *mesa)
        counted.append(torch._dynamo.utils.counters["stats"]["unique_graphs"])
    assert counted[0] == counted[1] > 0
