"""Gaps from what the validation loop logs already: no forward pass, and limits that are valid with a mean and an n."""

import math

import pytest
import torch
from torch.nn import functional as F

import toy
from lightning_mesa import Alarm, ConfigurationError, Logged, Matches, read_journal
from lightning_mesa.judge.replay import judge_again, read_recording
from lightning_mesa.stats.intervals import BoundedMean
from namespace import VERSION, EarlyStopping, ModelCheckpoint
from quick import quick


class Model(toy.ToyModel):
    """Logs accuracy at the label, and agreement with the strong cue, of two validation loaders."""

    def __init__(self, late=False, broken=None):
        super().__init__()
        self.late, self.broken, self.passes = late, broken, 0
        self.kept: dict = {}

    def forward(self, x):
        self.passes += not self.net.training
        return super().forward(x)

    def validation_step(self, batch, batch_idx, dataloader_idx=0):
        chosen = self(batch["x"]).argmax(1)
        values = {f"val/{key}": (chosen == batch[key]).float().mean() for key in "yz"}
        if self.late:
            for key, value in values.items():
                self.kept.setdefault((key, dataloader_idx), []).append(value * len(chosen))
        else:
            values = {key: torch.tensor(self.broken) for key in values} if self.broken is not None else values
            self.log_dict(values, batch_size=len(chosen))

    def on_validation_epoch_end(self):
        if self.late:
            for (key, loader), values in self.kept.items():
                self.log(f"{key}/dataloader_idx_{loader}", sum(values) / 400, add_dataloader_idx=False)
            self.kept = {}


LOADERS = {"val_dataloaders": [toy.loader(400, seed=1), toy.shifted()]}


def monitor(**options):
    options = {
        "base": Logged("val/y", chance=0.25),
        "proxies": [Logged("val/z", chance=0.25)],
        "reference": {"in": "val/0"},
        "shifted": {"apart": "val/1"},
        "inputs": None,
    } | options
    return toy.monitor(**options)


def values(folder, quantity, objective="val.y"):
    lines = read_journal(folder / "mesa/findings.jsonl")
    return {
        (f["step"], f["distribution"]): f["value"]
        for f in lines
        if f["quantity"] == quantity and f["objective"] == objective
    }


@pytest.mark.parametrize("late", quick([False, True], True))
def test_gaps_are_derived_without_a_forward_pass(tmp_path, late):
    if late and VERSION < (2, 6):
        pytest.skip("this Lightning logs no value of several loaders at the end of a validation")
    torch.manual_seed(0)
    model, alone = Model(late), Model(late)
    alone.load_state_dict(model.state_dict())
    mesa = monitor()
    trainer = toy.fit(tmp_path, mesa, model=model, max_epochs=12, **LOADERS)
    toy.fit(tmp_path / "off", model=alone, max_epochs=12, **LOADERS)
    assert model.passes == alone.passes
    assert all(map(torch.equal, model.parameters(), alone.parameters()))
    with torch.no_grad():
        data = toy.shifted().dataset
        truth = float((model.net(data.x).argmax(1) == data.y).float().mean())
    assert values(tmp_path, "score")[96, "apart"] == pytest.approx(truth, abs=1e-6)
    assert trainer.callback_metrics["mesa/apart/gap"] == pytest.approx(
        values(tmp_path, "competence")[96, "in"] - values(tmp_path, "competence")[96, "apart"], abs=1e-6
    )
    low, high = BoundedMean(truth, 400).limits(0.95)
    (score,) = (
        f for f in mesa.run.last[0].findings if (f.distribution, f.quantity, f.objective) == ("apart", "score", "val.y")
    )
    assert (score.n, score.low, score.high) == (400, pytest.approx(low, abs=1e-6), pytest.approx(high, abs=1e-6))
    # Means do not say whom the model follows where base and proxy disagree, so no proxy is named.
    assert {alert.signature for alert in mesa.alerts} == {"objective_lost"}
    assert mesa.run.last[1].run.regime == "pseudo-aligned"


def test_looks_come_after_validations_and_others_can_select_on_them(tmp_path):
    mesa = monitor()
    stop = EarlyStopping("mesa/base/worst", mode="max", patience=50)
    best = ModelCheckpoint(tmp_path, monitor="mesa/base/worst", mode="max", auto_insert_metric_name=False)
    trainer = toy.fit(tmp_path, stop, mesa, best, model=Model(), max_epochs=3, enable_checkpointing=True, **LOADERS)
    assert sorted({step for step, _ in values(tmp_path, "gap")}) == [8, 16, 24]
    assert trainer.callback_metrics["mesa/apart/n"] == 400
    assert mesa.alarm.look == mesa.alarm.looks == 3


@pytest.mark.slow
def test_base_alone_is_not_told_from_capability(tmp_path):
    mesa = monitor(proxies=[])
    toy.fit(tmp_path, mesa, model=Model(), max_epochs=12, **LOADERS)
    assert {alert.signature for alert in mesa.alerts} == {"base_lost"}
    mesa = monitor(proxies=[], witness=Logged("val/z", name="able", chance=0.25))
    toy.fit(tmp_path, mesa, model=Model(), max_epochs=12, **LOADERS)
    assert {alert.signature for alert in mesa.alerts} == {"objective_lost"}


def test_the_recording_is_judged_again_as_the_run_was(tmp_path):
    mesa = monitor()
    toy.fit(tmp_path, mesa, model=Model(), max_epochs=12, **LOADERS)
    recording = read_recording(tmp_path / "mesa/findings.jsonl")
    judgements = judge_again(recording, Alarm(), recording.looks_planned)
    assert [alert for judgement in judgements for alert in judgement.alerts] == mesa.alerts


def test_a_resumed_run_goes_on(tmp_path):
    whole = monitor()
    toy.fit(tmp_path / "whole", whole, model=Model(), max_epochs=4, **LOADERS)
    saves = ModelCheckpoint(tmp_path, save_last=True)
    toy.fit(tmp_path / "parts", monitor(), saves, model=Model(), max_epochs=2, enable_checkpointing=True, **LOADERS)
    resumed = monitor()
    options = {"max_epochs": 4, "ckpt_path": saves.last_model_path}
    toy.fit(tmp_path / "parts", resumed, model=Model(), **options, **LOADERS)
    assert resumed.alarm.look == 4
    assert values(tmp_path / "parts", "gap").keys() == values(tmp_path / "whole", "gap").keys()


def test_a_limit_on_validation_batches_limits_what_the_values_rest_on(tmp_path):
    trainer = toy.fit(tmp_path, monitor(), model=Model(), max_epochs=1, limit_val_batches=3, **LOADERS)
    assert trainer.callback_metrics["mesa/in/n"] == 96


def test_with_one_loader_the_name_has_no_number(tmp_path):
    class One(Model):
        def validation_step(self, batch, batch_idx):
            super().validation_step(batch, batch_idx)

    mesa = monitor(reference={"in": "val"}, shifted={"apart": "val"})
    trainer = toy.fit(tmp_path, mesa, model=One(), max_epochs=1, val_dataloaders=toy.shifted())
    assert trainer.callback_metrics["mesa/apart/gap"] == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"base": Logged("val/accuracy")}, "logs no 'val/accuracy/dataloader_idx_0' and no 'val/acc.*; it logs val/y"),
        ({"shifted": {"apart": "val/2"}}, "no validation loader 'val/2': there are val/0, val/1"),
        ({"shifted": {"apart": toy.shifted()}}, "logged values are those of whole validation loaders; name one"),
        ({"shifted": None}, "of logged values there are no batches: pass shifted= names of validation loaders"),
        ({"inputs": "x"}, "of logged values there are no batches: pass shifted="),
        ({"every_n_steps": 3}, "new after each of them, and at no other time: leave out every_n_steps"),
        ({"base": Logged("val/y", bounds=(0.0, 0.1))}, "lies outside its bounds"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused(tmp_path, options, message):
    with pytest.raises(ConfigurationError, match=message):
        toy.fit(tmp_path, monitor(**options), model=Model(), **LOADERS)


def test_a_value_that_is_not_logged_is_refused_before_training_where_there_is_a_sanity_check(tmp_path):
    steps = {}
    for sanity in (2, 0):
        model = Model()
        with pytest.raises(ConfigurationError, match="the validation logs no 'val/accuracy"):
            toy.fit(tmp_path, monitor(base=Logged("val/accuracy")), model=model, num_sanity_val_steps=sanity, **LOADERS)
        steps[sanity] = model.global_step
    assert steps == {2: 0, 0: 8}


def test_means_and_items_do_not_mix():
    with pytest.raises(ConfigurationError, match="must be of one kind"):
        monitor(proxies=[Matches("z")])
    with pytest.raises(ConfigurationError, match="must be of one kind"):
        monitor(base=Matches("y"))
    with pytest.raises(ConfigurationError, match="known by its logged mean alone"):
        Logged("val/y").score({}, torch.zeros(1, 2))


def test_a_mean_that_is_no_number_is_withheld(tmp_path):
    mesa = monitor()
    trainer = toy.fit(tmp_path, mesa, model=Model(broken=math.nan), max_epochs=2, **LOADERS)
    ours = {key: value for key, value in trainer.callback_metrics.items() if key.startswith("mesa/")}
    assert all(value.isfinite() for value in ours.values())
    assert "mesa/apart/gap" not in ours
    assert mesa.run.last[1].run.regime == "undetermined"
    assert not mesa.disabled


def test_a_loss_is_an_objective_by_its_negative(tmp_path):
    class Loss(Model):
        def validation_step(self, batch, batch_idx, dataloader_idx=0):
            self.log("val/loss", -F.cross_entropy(self(batch["x"]), batch["y"]).clamp(max=4))

    mesa = monitor(base=Logged("val/loss", bounds=(-4.0, 0.0), chance=-1.386), proxies=[])
    trainer = toy.fit(tmp_path, mesa, model=Loss(), max_epochs=12, **LOADERS)
    assert float(trainer.callback_metrics["mesa/in/competence/val.loss"]) > 0.5
