"""What a run says of itself: what it can see, why it saw nothing, in which phase, and where healthy weights are."""

import re
import warnings

import pytest
import torch

import toy
from lightning_mesa import Alarm, ConfigurationError, Logged, MesaWarning
from lightning_mesa.callbacks import notices
from lightning_mesa.callbacks import run as run_module
from lightning_mesa.callbacks.actions import Actions
from namespace import Callback, ModelCheckpoint, part, pl


@pytest.fixture
def said(monkeypatch):
    lines = []
    for module in (run_module, notices):
        monkeypatch.setattr(module, "rank_zero_info", lines.append)
    return lines


def tables(said):
    return [lines for lines in said if re.match(r"\w+ \(\w+\) at step", lines)]


# --- before training ---


def test_the_first_look_says_in_one_line_what_can_be_seen(tmp_path, said):
    mesa = toy.monitor()
    toy.fit(tmp_path, mesa)
    (line,) = (line for line in said if "can be seen" in line)
    conflicts = next(f.n for f in mesa.run.last[0].found("conflict", "apart"))
    assert line.startswith(
        f"mesa in 4 looks can be seen: 'apart': 400 items, {conflicts} of them in conflict with 'z', a gap from 0."
    )


class Plateau(toy.ToyModel):
    def configure_optimizers(self):
        optimizer = super().configure_optimizers()
        scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "monitor": "mesa/apart/gap"}}


@pytest.mark.parametrize(
    ("options", "model", "reason"),
    [
        ({"shifted": {"apart": toy.shifted(6)}}, toy.ToyModel, r"too few items \(6\)"),
        ({"reference": {"held": toy.loader(3)}}, toy.ToyModel, "3 items on 'held' are too few to show a capability"),
        ({}, Plateau, "'val' and 'apart' are adaptive"),
    ],
    ids=["few items", "few reference items", "adaptive data"],
)
def test_a_run_that_can_raise_no_alert_is_warned_of(tmp_path, options, model, reason):
    with pytest.warns(MesaWarning, match=f"can raise no alert in this run: .*{reason}.* Where items are too few"):
        toy.fit(tmp_path, toy.monitor(**options), model=model(), max_epochs=1)


# --- a monitor that never looked ---


class Logs(toy.ToyModel):
    def validation_step(self, batch, batch_idx, dataloader_idx=0):
        chosen = self(batch["x"]).argmax(1)
        self.log("acc", (chosen == batch["y"]).float().mean(), batch_size=len(chosen))


def of_logged_values(folder, *callbacks, **options):
    shown = {"base": Logged("acc", chance=0.25), "proxies": [], "reference": {"in": "val/0"}, "inputs": None}
    loaders = [toy.loader(400, seed=1), toy.shifted()]
    mesa = toy.monitor(shifted={"apart": "val/1"}, **shown)
    toy.fit(folder, mesa, *callbacks, model=Logs(), val_dataloaders=loaders, **options)


@pytest.mark.parametrize("options", [{"check_val_every_n_epoch": 5}, {"max_steps": 5}])
def test_values_of_which_it_is_known_that_no_validation_will_log_them_are_refused(tmp_path, options):
    with pytest.raises(ConfigurationError, match=r"none will end in this run: .*check_val_every_n_epoch=1"):
        of_logged_values(tmp_path, **options)


def test_values_that_no_validation_logged_are_said_at_the_end_with_the_remedy(tmp_path, said):
    class Stops(Callback):
        def on_train_epoch_end(self, trainer, pl_module):
            trainer.should_stop = True

    with pytest.warns(MesaWarning, match=r"took no look: no validation ended in this fit.*check_val_every_n_epoch=1"):
        of_logged_values(tmp_path, Stops(), check_val_every_n_epoch=3)
    assert not tables(said)


def test_a_fit_without_a_training_step_is_said(tmp_path):
    with pytest.warns(MesaWarning, match="took no look: this fit had no training step"):
        toy.fit(tmp_path, toy.monitor(), max_epochs=0)


def test_a_prediction_says_that_no_look_is_taken(monkeypatch, tmp_path):
    lines = []
    monkeypatch.setattr("lightning_mesa.callbacks.monitor.rank_zero_info", lines.append)
    trainer = pl.Trainer(
        default_root_dir=tmp_path, callbacks=[toy.monitor()], logger=False, enable_progress_bar=False, accelerator="cpu"
    )
    model = toy.ToyModel()
    model.predict_step = lambda batch, batch_idx: model(batch["x"])
    trainer.predict(model, toy.shifted())
    assert lines == ["MesaMonitor 'mesa' takes no look in trainer.predict; trainer.validate takes one."]


# --- the table ---


def test_each_phase_prints_one_table_with_its_name(tmp_path, said):
    mesa, second = toy.monitor(), toy.monitor(name="second")
    trainer = toy.fit(tmp_path, mesa, second, max_epochs=1)
    trainer.validate(trainer.lightning_module, toy.loader(400, seed=1), verbose=False)
    trainer.lightning_module.test_step = lambda batch, batch_idx: None
    trainer.test(trainer.lightning_module, toy.shifted(), verbose=False)
    titles = [table.partition(" at ")[0] for table in tables(said)]
    assert titles == [f"{name} ({phase})" for phase in ("fit", "validate", "test") for name in ("mesa", "second")]


def test_a_validation_alone_takes_a_look(tmp_path, said):
    trainer = pl.Trainer(
        default_root_dir=tmp_path, callbacks=[toy.monitor()], logger=False, enable_progress_bar=False, accelerator="cpu"
    )
    trainer.validate(toy.ToyModel(), toy.loader(400, seed=1), verbose=False)
    assert [table.partition(" at ")[0] for table in tables(said)] == ["mesa (validate)"]


def test_an_error_that_switched_the_monitor_off_stands_in_the_table(tmp_path, said):
    class Breaks(Callback):
        def on_train_epoch_end(self, trainer, pl_module):
            if trainer.current_epoch == 1:
                mesa.run._session.measure = None

    mesa = toy.monitor()
    with pytest.warns(MesaWarning, match="is off from step 24 on"):
        toy.fit(tmp_path, mesa, Breaks())
    assert "mesa is off from step 24 on, training goes on: TypeError" in tables(said)[-1]


def test_a_gate_that_never_opened_stands_in_the_table(tmp_path, said):
    toy.fit(tmp_path, toy.monitor(), model=toy.ToyModel(0.0), max_epochs=1)
    assert "the gate never opened, so nothing could be raised: capability" in tables(said)[-1]


# --- stopping ---


@pytest.mark.parametrize(
    ("actions", "checkpoint", "healthy", "expected"),
    [
        (["checkpoint", "stop"], "log/healthy.ckpt", 8, "the last healthy weights, of step 8, are in log/healthy.ckpt"),
        (["checkpoint", "stop"], None, None, "there are no healthy weights: at no look .* look more often"),
        ("stop", None, None, "there are no healthy weights: at no look"),
        ("stop", None, 8, r"step 8 was healthy, and its weights were not kept: pass on_alert=\['checkpoint', 'stop'\]"),
    ],
)
def test_a_stop_says_where_healthy_weights_are_or_why_there_are_none(actions, checkpoint, healthy, expected):
    alarm = Alarm()
    alarm.last_healthy_step = healthy
    assert re.match(expected, notices.healthy_weights(Actions(actions), checkpoint, alarm))


def test_it_is_said_when_the_run_is_stopped_and_in_the_table(tmp_path, said):
    mesa = toy.monitor(on_alert=["checkpoint", "stop"])
    toy.fit(tmp_path, mesa, max_epochs=40)
    stopped = f"stopped by the monitor: {mesa.stop_reason}; "
    (line,) = (line for line in said if line.startswith(f"mesa: {stopped}"))
    assert line.removeprefix("mesa: ") in tables(said)[-1]


# --- averages ---


@pytest.mark.skipif(not hasattr(part("callbacks"), "WeightAveraging"), reason="this Lightning has no WeightAveraging")
@pytest.mark.parametrize("begins", [0, 12])
@pytest.mark.parametrize("monitored", [False, True])
def test_a_look_before_the_first_average_says_who_may_keep_its_weights(tmp_path, begins, monitored, recwarn):
    class Average(part("callbacks").WeightAveraging):
        def should_update(self, step_idx=None, epoch_idx=None):
            return step_idx is not None and step_idx >= begins

    best = ModelCheckpoint(tmp_path, monitor="mesa/base/worst" if monitored else None, mode="max")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        toy.fit(tmp_path, toy.monitor(weights="averaged"), Average(), best, enable_checkpointing=True)
    said = [str(w.message) for w in recwarn if isinstance(w.message, MesaWarning)]
    if not begins:
        assert not said
        return
    (line,) = said
    assert "looks at weights='averaged' at step 8, before the first average: these are the untrained weights" in line
    assert ("ModelCheckpoint monitors 'mesa/base/worst', and may keep or stop on them" in line) == monitored
