"""Batches reach the model, and what comes out becomes Behavior, in one forward pass per item."""

from types import SimpleNamespace

import pytest
import torch
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset, TensorDataset

import toy
from lightning_mesa import LoaderDistribution, Matches, MesaMonitor, NegativeLoss, ScoreFunction, read_journal
from namespace import pl

SHIFTED = toy.ToyData(100, confounded=False, seed=2)
REFERENCE = toy.ToyData(60, confounded=True, seed=1)


NOTED: dict[object, list[object]] = {}
"""Not in the models: a look puts back what these hold."""


class Called(toy.ToyModel):
    """Counts the monitor's forward passes and items, by optimizer step; outputs are packed as asked."""

    def __init__(self, pack=lambda logits: logits):
        torch.manual_seed(0)
        super().__init__()
        self.pack = pack
        NOTED.clear()

    def forward(self, x):
        logits = super().forward(x)
        if self.net.training:
            return logits
        NOTED.setdefault(self.global_step, []).append(len(x))
        return self.pack(logits)

    def training_step(self, batch, batch_idx):
        x, y = (batch["x"], batch["y"]) if isinstance(batch, dict) else batch[:2]
        return F.cross_entropy(self(x), y)

    def validation_step(self, batch, batch_idx):
        """None."""


class ByKeyword(Called):
    """Takes two inputs by name."""

    def forward(self, *, weak, strong):
        return super().forward(torch.cat([weak, strong], 1))

    def training_step(self, batch, batch_idx):
        return F.cross_entropy(self(weak=batch["weak"], strong=batch["strong"]), batch["y"])


class Split(Dataset):
    """The two cues apart."""

    def __init__(self, data):
        self.data = data

    def __len__(self):
        return len(self.data)

    def __getitem__(self, i):
        item = self.data[i]
        x = item.pop("x")
        return item | {"weak": x[: toy.CHOICES], "strong": x[toy.CHOICES :]}


def tuples(data):
    return TensorDataset(data.x, data.y, data.z)


class AsTensor(Dataset):
    """Input and both labels in one row."""

    def __init__(self, data):
        self.data = data

    def __len__(self):
        return len(self.data)

    def __getitem__(self, i):
        return torch.cat([self.data.x[i], self.data.y[i : i + 1], self.data.z[i : i + 1]])


def run(folder, model=None, wrap=lambda data: data, **options):
    """One epoch of eight steps with looks at 0 and 8; step -> score of base on the shifted distribution."""
    options = {
        "base": Matches("y"),
        "proxies": [Matches("z")],
        "inputs": "x",
        "reference": LoaderDistribution(wrap(REFERENCE), batch_size=16),
        "shifted": {"apart": DataLoader(wrap(SHIFTED), 16)},
    } | options
    train = options.pop("train", None) or DataLoader(wrap(toy.ToyData(64, confounded=True)), 8)
    trainer_options = options.pop("trainer", {})
    model = Called() if model is None else model
    toy.fit(
        folder,
        MesaMonitor(**options),
        model=model,
        max_epochs=1,
        train_dataloaders=train,
        val_dataloaders=DataLoader(wrap(REFERENCE), 16),
        **trainer_options,
    )
    lines = read_journal(folder / "mesa/findings.jsonl")
    return {
        line["step"]: line["value"]
        for line in lines
        if (line["distribution"], line["quantity"], line["objective"]) == ("apart", "score", "y")
    }


@pytest.fixture
def plain(tmp_path):
    """The scores with dict batches, a key and a tensor."""
    return run(tmp_path / "plain")


def test_the_scores_are_the_models_accuracy(tmp_path):
    """Computed again from the weights, after training."""
    model = Called()
    scores = run(tmp_path, model)
    with torch.no_grad():
        accuracy = (model.net(SHIFTED.x).argmax(1) == SHIFTED.y).float().mean()
    assert scores[8] == pytest.approx(float(accuracy))
    assert scores[0] != scores[8]


# --- batches and inputs -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("inputs", [None, 0])
def test_tuple_batches(tmp_path, plain, inputs):
    """The first element by default, or an index; targets by index."""
    options = {"base": Matches(1, "y"), "proxies": [Matches(2, "z")], "inputs": inputs, "wrap": tuples}
    assert run(tmp_path, **options) == plain


def test_tensor_batches(tmp_path, plain):
    """Taken whole by default; targets by callable."""

    class Cuts(Called):
        def forward(self, x):
            return super().forward(x[:, : 2 * toy.CHOICES])

        def training_step(self, batch, batch_idx):
            return F.cross_entropy(self(batch), batch[:, -2].long())

    options = {
        "base": Matches(lambda row: row[:, -2].long(), "y"),
        "proxies": [Matches(lambda row: row[:, -1].long(), "z")],
    }
    assert run(tmp_path, Cuts(), wrap=AsTensor, inputs=None, **options) == plain


def test_a_list_of_keys_is_passed_by_keyword(tmp_path, plain):
    assert run(tmp_path, ByKeyword(), wrap=Split, inputs=["weak", "strong"]) == plain


def test_forward_calls_the_model_in_any_way(tmp_path, plain):
    """``(pl_module, batch) -> outputs``; ``inputs`` is not needed then."""
    model = Called()

    def forward(pl_module, batch):
        assert pl_module is model
        return pl_module(batch["x"])

    assert run(tmp_path, model, forward=forward, inputs=None) == plain


# --- outputs ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "pack",
    [lambda logits: {"loss": None, "logits": logits}, lambda logits: SimpleNamespace(logits=logits)],
    ids=["a dict", "an object"],
)
def test_logits_are_found_in_what_the_model_returns(tmp_path, plain, pack):
    assert run(tmp_path, Called(pack)) == plain


def test_outputs_extracts_the_choices(tmp_path, plain):
    """``(outputs, batch) -> [n, A]``; here candidates, at a position that the batch names."""

    def extract(outputs, batch):
        assert set(batch) == {"x", "y", "z"}
        return outputs["deep"][0][:, :, 1]

    def pack(logits):
        return {"deep": [torch.stack([logits.flip(1), logits], 2)]}

    assert run(tmp_path, Called(pack), outputs=extract) == plain


def test_outputs_that_are_no_choices_are_scored_by_functions(tmp_path):
    """Continuous outputs ``[n, 1]`` and a loss: nothing is prescribed, and all but conflicts is measured."""

    class Regression(Called):
        def training_step(self, batch, batch_idx):
            return F.mse_loss(super(Called, self).forward(batch["x"])[:, 0], batch["y"].float())

    base = NegativeLoss(lambda batch, outputs: (outputs[:, 0] - batch["y"]) ** 2, (0, 16), "y", chance=-1.25)
    proxy = NegativeLoss(lambda batch, outputs: (outputs[:, 0] - batch["z"]) ** 2, (0, 16), "z", chance=-1.25)
    scores = run(tmp_path, Regression(lambda logits: logits[:, :1]), base=base, proxies=[proxy])
    assert -16 < scores[0] < scores[8] < 0


def test_chance_that_is_not_given_is_that_of_the_uniform_output(tmp_path):
    """Measured by scoring zeros, without another forward pass."""
    model = Called()

    def probability(batch, outputs):
        return outputs.softmax(1).gather(1, batch["y"][:, None])[:, 0]

    run(tmp_path, model, base=ScoreFunction(probability, name="y"))
    (chance,) = {
        line["estimate"]["chance"]
        for line in read_journal(tmp_path / "mesa/findings.jsonl")
        if line["quantity"] == "competence" and line["objective"] == "y"
    }
    assert chance == pytest.approx(0.25)
    assert sum(NOTED[8]) == 160


# --- one pass -----------------------------------------------------------------------------------------------------


def test_there_is_exactly_one_forward_pass_per_item_and_look(tmp_path):
    """However many objectives, groups and measures read it."""
    model = Called()

    def confidence(batch, outputs):
        return outputs.softmax(1).amax(1)

    proxies = [Matches("z"), Matches(lambda batch: 3 - batch["y"], "mirrored"), confidence]
    run(tmp_path, model, proxies=proxies, groups=["y", "z"], intended=Matches("y", "wanted"))
    look = [16, 16, 16, 12, *[16] * 6, 4]  # 60 reference and 100 shifted items
    assert {0: look, 8: look} == NOTED


def test_limit_batches_limits_the_passes(tmp_path):
    model = Called()
    run(tmp_path, model, limit_batches=2)
    assert NOTED == {0: [16] * 4, 8: [16] * 4}


def test_the_users_loader_is_never_iterated(tmp_path):
    """Nor is any item read more than once a look."""

    class Read(toy.ToyData):
        def __init__(self, *args, **options):
            super().__init__(*args, **options)
            self.read = []

        def __getitem__(self, i):
            self.read.append(int(i))
            return super().__getitem__(i)

    class Untouchable(DataLoader):
        def __iter__(self):
            raise AssertionError("the user's loader was iterated")

    data = Read(50, confounded=False, seed=2)
    run(tmp_path, shifted={"apart": Untouchable(data, 16, shuffle=True)})
    assert data.read == [*range(50)] * 2


# --- groups -------------------------------------------------------------------------------------------------------


class Grouped(Dataset):
    """Items with a number, a word and a truth value."""

    def __init__(self, data):
        self.data = data

    def __len__(self):
        return len(self.data)

    def __getitem__(self, i):
        site = i % 3
        return self.data[i] | {"site": site, "word": ["north", "south side", "east"][site], "even": i % 2 == 0}


def test_groups_have_a_competence_each(tmp_path):
    """``mesa/D/group/KEY.VALUE/competence``: the group's score against the chance of the whole distribution."""
    model, mesa = Called(), MesaMonitor(
        Matches("y"),
        proxies=[Matches("z")],
        shifted={"apart": DataLoader(Grouped(SHIFTED), 16)},
        reference=Grouped(REFERENCE),
        inputs="x",
        groups=["site", "word", "even"],
    )  # fmt: skip
    trainer = toy.fit(tmp_path, mesa, model=model, max_epochs=1)
    with torch.no_grad():
        hits = (model.net(SHIFTED.x).argmax(1) == SHIFTED.y).float()
    chance = float(SHIFTED.y.bincount().max() / 100)
    named = {f"site.{i}": i for i in range(3)} | {"word.north": 0, "word.south_side": 1, "word.east": 2}
    for label, i in named.items():
        expected = (float(hits[i::3].mean()) - chance) / (1 - chance)
        assert float(trainer.callback_metrics[f"mesa/apart/group/{label}/competence"]) == pytest.approx(
            expected, abs=1e-6
        )
    groups = {name.split("/")[3] for name in trainer.callback_metrics if "/apart/group/" in name}
    assert groups == {*named, "even.True", "even.False"} or groups == {*named, "even.1", "even.0"}
    sizes = [
        line["n"]
        for line in read_journal(tmp_path / "mesa/findings.jsonl")
        if line["group"] == "site.0" and line["distribution"] == "apart"
    ]
    assert sizes == [34, 34]


def test_one_group_key_needs_no_list(tmp_path):
    mesa = toy.monitor(groups="z")
    trainer = toy.fit(tmp_path, mesa, max_epochs=1)
    assert {f"mesa/apart/group/z.{i}/competence" for i in range(4)} <= trainer.callback_metrics.keys()


def test_labels_that_become_the_same_name_are_not_lost(tmp_path):
    """``a b`` and ``a_b``: both items counted, or refused."""

    class Alike(Grouped):
        def __getitem__(self, i):
            return self.data[i] | {"word": "a b" if i % 2 else "a_b"}

    toy.fit(
        tmp_path,
        toy.monitor(groups="word", shifted={"apart": Alike(SHIFTED)}, reference=Alike(REFERENCE)),
        max_epochs=1,
    )
    lines = read_journal(tmp_path / "mesa/findings.jsonl")
    assert (
        sum(line["n"] for line in lines if line["group"] and (line["distribution"], line["step"]) == ("apart", 0))
        == 100
    )


# --- precision ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("precision", "dtype"), [("bf16-mixed", torch.bfloat16), ("bf16-true", torch.bfloat16)])
def test_the_model_is_looked_at_in_the_precision_it_trains_in(tmp_path, plain, precision, dtype):
    """Outputs are read in single precision; the scores are near those of a run in it."""

    def pack(logits):
        NOTED.setdefault("dtypes", []).append(logits.dtype)
        return logits

    scores = run(tmp_path, Called(pack), trainer={"precision": precision})
    assert set(NOTED["dtypes"]) == {dtype}
    assert scores == pytest.approx(plain, abs=0.1)


@pytest.mark.parametrize("precision", ["32-true", "64-true"])
def test_other_precisions_work_too(tmp_path, plain, precision):
    assert run(tmp_path, trainer={"precision": precision}) == pytest.approx(plain, abs=0.05)


def test_batches_pass_through_the_modules_own_transfer_hook(tmp_path):
    """What the user does to a batch on its way to the device is done to ours."""

    class Transfers(Called):
        def transfer_batch_to_device(self, batch, device, dataloader_idx):
            if not self.trainer.training:
                NOTED.setdefault("moved", []).append(dataloader_idx)
            return super().transfer_batch_to_device(batch, device, dataloader_idx)

    model = Transfers()
    run(tmp_path, model, trainer={"num_sanity_val_steps": 0, "limit_val_batches": 0, "max_steps": 8})
    moved = NOTED.pop("moved")
    assert len(moved) == sum(map(len, NOTED.values())) > 0


def test_a_trainer_of_the_module_is_a_trainer(tmp_path):
    """Looks see ``trainer.validating``, so code that augments in training only does not augment."""

    class Asks(Called):
        def forward(self, x):
            if not self.net.training:
                NOTED.setdefault("stages", []).append(self.trainer.state.stage)
            return super().forward(x)

    run(tmp_path, Asks(), trainer={"limit_val_batches": 0})
    assert set(NOTED["stages"]) == {pl.trainer.states.RunningStage.VALIDATING}
