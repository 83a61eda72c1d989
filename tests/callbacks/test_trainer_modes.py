"""Every mode and flag of the trainer."""

import copy
import logging
import pickle
from pathlib import Path

import pytest
import torch

import toy
from accelerator import ACCELERATOR
from lightning_mesa import ConfigurationError, MesaWarning, read_journal
from namespace import CSVLogger, Logger, pl


@pytest.fixture(autouse=True)
def _seeded():
    """Models are made before the trainer seeds."""
    torch.manual_seed(0)


ROOT = "mesa/base/worst"


class Memory(Logger):
    """A logger that remembers."""

    name = "memory"
    version = 0

    def __init__(self):
        super().__init__()
        self.rows = []

    def log_metrics(self, metrics, step=None):
        self.rows.append((step, dict(metrics)))

    def log_hyperparams(self, *_, **__):
        """None are kept."""

    def looks(self, key=ROOT):
        return [(step, metrics) for step, metrics in self.rows if key in metrics]


class Unvalidated(toy.ToyModel):
    """Every pass without gradients is the monitor's."""

    def validation_step(self, batch, batch_idx):
        """None."""

    def test_step(self, batch, batch_idx):
        """None either."""

    def predict_step(self, batch, batch_idx):
        return batch["y"]


class FailsAt(toy.ToyModel):
    """Raises in the training step."""

    def __init__(self, step, error):
        super().__init__()
        self.step, self.error = step, error

    def training_step(self, batch, batch_idx):
        if self.global_step == self.step:
            raise self.error
        return super().training_step(batch, batch_idx)


class TrueCompetence(pl.Callback):
    """Competence at base where the cues come apart, computed without the monitor, by optimizer step."""

    def __init__(self):
        self.by_step = {}

    def on_train_start(self, trainer, pl_module):
        data = toy.shifted().dataset
        with torch.no_grad():
            hits = (pl_module.net(data.x).argmax(1) == data.y).float().mean()
        chance = data.y.bincount().max() / len(data)
        self.by_step[trainer.global_step] = float((hits - chance) / (1 - chance))

    def on_train_batch_end(self, trainer, pl_module, *_):
        self.on_train_start(trainer, pl_module)


def journal(folder, name="mesa"):
    return read_journal(folder / name / "findings.jsonl")


def messages(caplog, text):
    return [record.getMessage() for record in caplog.records if text in record.getMessage()]


@pytest.fixture
def info(caplog):
    with caplog.at_level(logging.INFO, logger="lightning_utilities.core.rank_zero"):
        yield caplog


# --- metric names and the x axis ----------------------------------------------------------------------------------

DESIGNED = {
    *(f"mesa/{where}/{what}/{objective}" for where in ("val", "apart") for what in ("score", "competence")
      for objective in "yz"),
    *(f"mesa/{where}/{what}" for where in ("val", "apart") for what in ("capability", "n")),
    *(f"mesa/apart/{what}" for what in ("gap", "gap_low", "gap_high", "regime")),
    *(f"mesa/apart/conflict/{who}" for who in ("base", "z", "neither")),
    *(f"mesa/apart/evidence/{name}" for name in ("objective_lost", "proxy_pursued", "capability_failure")),
    *(f"mesa/{what}" for what in ("gap/worst", "base/worst", "alert", "overhead", "age_steps", "disabled")),
}  # fmt: skip


def test_the_designed_metrics_are_in_callback_metrics_and_every_logger(tmp_path):
    loggers = [Memory(), Memory(), CSVLogger(tmp_path)]
    trainer = toy.fit(tmp_path, toy.monitor(), logger=loggers)
    metrics = {name: value for name, value in trainer.callback_metrics.items() if name.startswith("mesa/")}
    assert metrics.keys() >= DESIGNED
    assert all(value.ndim == 0 and value.isfinite() for value in metrics.values())
    del metrics["mesa/overhead"]  # the figures at the end count too
    for logger in loggers[:2]:
        step, last = logger.looks()[-1]
        assert step == 24
        assert last.keys() >= DESIGNED
        assert {name: last[name] for name in metrics} == pytest.approx({n: float(v) for n, v in metrics.items()})
    header = Path(loggers[2].log_dir, "metrics.csv").read_text().splitlines()[0]
    assert set(header.split(",")) >= DESIGNED


def test_scores_competence_gap_and_worst_exist_from_step_0(tmp_path):
    """Before training there is no overhead yet; all else is there."""
    memory = Memory()
    toy.fit(tmp_path, toy.monitor(), logger=memory)
    step, first = memory.looks()[0]
    assert step == 0
    assert first.keys() >= DESIGNED - {"mesa/overhead"}


@pytest.mark.parametrize("accumulate", [1, 3])
def test_each_look_has_its_own_step_and_the_values_of_that_step(tmp_path, accumulate):
    """0 before training, k after k optimizer steps: steps 0 and 1 do not collide."""
    memory, truth = Memory(), TrueCompetence()
    toy.fit(tmp_path, truth, toy.monitor(every_n_steps=1), logger=memory, accumulate_grad_batches=accumulate)
    steps = [step for step, _ in memory.looks()]
    assert steps == list(range(25 if accumulate == 1 else 10))
    seen = {step: metrics["mesa/apart/competence/y"] for step, metrics in memory.looks()}
    assert seen == pytest.approx(truth.by_step, abs=1e-6)
    assert seen[0] != seen[1]
    assert list(dict.fromkeys(line["step"] for line in journal(tmp_path))) == steps


def test_no_look_within_an_accumulation_touches_its_gradients(tmp_path):
    """A validation after each batch, three batches a step: same weights as without the monitor, a look a step."""
    options = {"accumulate_grad_batches": 3, "val_check_interval": 1}
    bare, watched, memory = toy.ToyModel(), toy.ToyModel(), Memory()
    watched.load_state_dict(bare.state_dict())
    toy.fit(tmp_path, model=bare, **options)
    toy.fit(tmp_path, toy.monitor(), model=watched, logger=memory, **options)
    assert torch.equal(bare.net.weight, watched.net.weight)
    assert [step for step, _ in memory.looks()] == list(range(10))


def test_age_steps_tells_how_old_the_values_are(tmp_path):
    """After a validation between looks."""

    class Ages(pl.Callback):
        ages = ()

        def on_validation_end(self, trainer, pl_module):
            if not trainer.sanity_checking:
                self.ages = (*self.ages, float(trainer.callback_metrics["mesa/age_steps"]))

    ages = Ages()
    toy.fit(tmp_path, ages, toy.monitor(every_n_steps=5))
    assert ages.ages == (3, 1, 4)


# --- fast_dev_run, barebones --------------------------------------------------------------------------------------


@pytest.mark.parametrize("batches", [True, 2])
def test_fast_dev_run_looks_at_so_many_batches_and_leaves_no_files(tmp_path, passes, batches):
    model = Unvalidated()
    mesa = toy.monitor(on_alert=["checkpoint", "stop"], every_n_steps=1000)
    trainer = toy.fit(tmp_path, mesa, model=model, fast_dev_run=batches)
    assert trainer.global_step == int(batches)
    assert mesa.alarm.look == 2
    assert sum(n for _, n in passes) == 2 * 2 * 32 * int(batches)  # looks, distributions, batch size
    assert not list(tmp_path.iterdir())


def test_fast_dev_run_raises_every_error(tmp_path):
    """Also at a later look and with ``on_error="disable"``."""

    class Fails(toy.ToyModel):
        def validation_step(self, batch, batch_idx):
            """None of its own."""

        def forward(self, x):
            if self.global_step and not self.net.training:
                raise RuntimeError("out of luck")
            return super().forward(x)

    with pytest.raises(Exception, match="out of luck"):
        toy.fit(tmp_path, toy.monitor(on_error="disable"), model=Fails(), fast_dev_run=True)


def test_fast_dev_run_is_no_reason_to_refuse_data_without_a_conflict(tmp_path):
    """It has not seen all items."""
    trainer = toy.fit(tmp_path, toy.monitor(shifted=toy.loader()), fast_dev_run=True)
    assert trainer.global_step == 1


def test_barebones_turns_the_monitor_off_with_one_message(tmp_path, passes, info):
    model, mesa = Unvalidated(), toy.monitor(on_error="raise")
    trainer = toy.fit(tmp_path, mesa, model=model, barebones=True, log_every_n_steps=0)
    assert trainer.global_step == 24
    assert not passes
    assert mesa.alarm.look == 0
    assert not [name for name in trainer.callback_metrics if name.startswith("mesa")]
    assert len(messages(info, "MesaMonitor is off: Trainer(barebones=True)")) == 1
    assert not (tmp_path / "mesa").exists()


def test_barebones_turns_validate_off_too(tmp_path, info):
    trainer = pl.Trainer(default_root_dir=tmp_path, accelerator=ACCELERATOR, callbacks=[toy.monitor()], barebones=True)
    trainer.validate(Unvalidated(), toy.loader(64), verbose=False)
    assert not [name for name in trainer.callback_metrics if name.startswith("mesa")]
    assert not messages(info, "mesa at step")
    assert len(messages(info, "MesaMonitor is off: Trainer(barebones=True)")) == 1


# --- limits -------------------------------------------------------------------------------------------------------


def test_lightnings_limits_are_not_ours(tmp_path):
    """``limit_val_batches`` shortens validation; the reference keeps all its items."""
    trainer = toy.fit(tmp_path, toy.monitor(), limit_train_batches=3, limit_val_batches=2)
    assert trainer.global_step == 9
    assert trainer.callback_metrics["mesa/val/n"] == 400
    assert trainer.callback_metrics["mesa/apart/n"] == 400


def test_limit_batches_is_ours(tmp_path):
    trainer = toy.fit(tmp_path, toy.monitor(limit_batches=2))
    assert trainer.callback_metrics["mesa/val/n"] == trainer.callback_metrics["mesa/apart/n"] == 64


def test_validation_data_are_the_reference_also_where_validation_is_off(tmp_path):
    """``limit_val_batches=0``: nobody has asked for the loader yet."""
    trainer = toy.fit(tmp_path, toy.monitor(), limit_val_batches=0, max_epochs=1)
    assert trainer.callback_metrics["mesa/val/n"] == 400


def test_validation_data_are_the_reference_also_before_the_first_validation(tmp_path):
    """Without a sanity check and with a validation in the third epoch only."""
    memory = Memory()
    toy.fit(tmp_path, toy.monitor(), logger=memory, num_sanity_val_steps=0, check_val_every_n_epoch=3)
    assert [(step, metrics["mesa/val/n"]) for step, metrics in memory.looks()] == [(0, 400), (24, 400)]


def test_nothing_happens_where_nothing_is_trained(tmp_path):
    """``limit_train_batches=0`` skips the loop and with it the monitor."""
    mesa = toy.monitor()
    with pytest.warns(MesaWarning, match="took no look: this fit had no training step"):
        trainer = toy.fit(tmp_path, mesa, limit_train_batches=0)
    assert trainer.global_step == mesa.alarm.look == 0


def test_overfit_batches(tmp_path):
    """Two batches an epoch are trained on, and looked at after each."""
    memory = Memory()
    toy.fit(tmp_path, toy.monitor(), logger=memory, overfit_batches=2)
    assert [step for step, _ in memory.looks()] == [0, 2, 4, 6]
    assert memory.looks()[-1][1]["mesa/apart/n"] == 400


def test_the_sanity_check_is_no_look(tmp_path):
    """Nothing is looked at or published in it; the first look follows it."""

    class Sane(pl.Callback):
        published = None

        def on_sanity_check_end(self, trainer, pl_module):
            self.published = [name for name in trainer.callback_metrics if name.startswith("mesa")]

    sane, mesa = Sane(), toy.monitor()
    toy.fit(tmp_path, mesa, sane, num_sanity_val_steps=2, max_epochs=1)
    assert sane.published == []
    assert mesa.alarm.look == 2


# --- validate, test, predict --------------------------------------------------------------------------------------


@pytest.fixture
def fitted(tmp_path, passes):
    """A trainer after two epochs, its monitor and model."""
    mesa, model = toy.monitor(), Unvalidated()
    trainer = toy.fit(tmp_path, mesa, model=model, max_epochs=2)
    passes.clear()
    return trainer, mesa, model


@pytest.mark.parametrize("call", ["validate", "test", "test with a DataModule"])
def test_validate_and_test_take_one_look_without_memory(tmp_path, fitted, passes, info, call):
    """They print the table and publish the values; alarm, alerts and journal stay as they were."""
    trainer, mesa, model = fitted
    before = mesa.alarm.state_dict(), list(mesa.alerts), len(journal(tmp_path))
    published = {name: float(value) for name, value in trainer.callback_metrics.items() if "competence" in name}
    info.clear()
    if call == "validate":
        trainer.validate(model, toy.loader(400, seed=1), verbose=False)
    elif call == "test":
        trainer.test(model, toy.loader(64, seed=5), verbose=False)
    else:
        data = pl.LightningDataModule.from_datasets(
            train_dataset=toy.loader().dataset,
            val_dataset=toy.loader(400, seed=1).dataset,
            test_dataset=toy.loader(64, seed=5).dataset,
            batch_size=32,
        )
        trainer.test(model, datamodule=data, verbose=False)
    assert sum(n for _, n in passes) == 800
    assert len(messages(info, f"mesa ({call.split()[0]}) at step 16")) == 1
    assert (mesa.alarm.state_dict(), mesa.alerts, len(journal(tmp_path))) == before
    assert not mesa.disabled
    assert {name: float(trainer.callback_metrics[name]) for name in published} == pytest.approx(published)


def test_validate_works_on_a_trainer_that_has_not_fitted(tmp_path, info):
    """A table, no file, and no alarm memory; the alarm's own look is not counted."""
    mesa = toy.monitor()
    trainer = pl.Trainer(default_root_dir=tmp_path, accelerator=ACCELERATOR, callbacks=[mesa], logger=False)
    trainer.validate(toy.ToyModel(), toy.loader(400, seed=1), verbose=False)
    assert len(messages(info, "mesa (validate) at step 0")) == 1
    assert mesa.alarm.look == 0
    assert trainer.callback_metrics["mesa/apart/n"] == 400
    assert not (tmp_path / "mesa").exists()


@pytest.mark.parametrize("call", ["validate", "test"])
def test_wrong_use_is_refused_by_validate_and_test_too(tmp_path, call):
    """A configuration error always raises, also with ``on_error="disable"``."""
    mesa = toy.monitor(inputs="nope", reference=toy.loader(), on_error="disable")
    trainer = pl.Trainer(default_root_dir=tmp_path, accelerator=ACCELERATOR, callbacks=[mesa], logger=False)
    with pytest.raises(ConfigurationError, match="inputs: the batch has no key 'nope'; its keys are"):
        getattr(trainer, call)(Unvalidated(), toy.loader(64), verbose=False)


def test_predict_is_left_alone(tmp_path, fitted, passes):
    trainer, mesa, model = fitted
    before = mesa.alarm.state_dict(), len(journal(tmp_path))
    trainer.predict(model, toy.loader(64))
    assert not passes
    assert (mesa.alarm.state_dict(), len(journal(tmp_path))) == before


def test_a_second_fit_begins_anew(tmp_path):
    """No alert, look or plan of the first run is left."""
    mesa = toy.monitor(on_alert="stop")
    toy.fit(tmp_path / "first", mesa, max_epochs=20)
    assert mesa.alerts
    assert mesa.stop_reason
    toy.fit(tmp_path / "second", mesa, model=toy.ToyModel(0.0), max_epochs=1)
    assert not mesa.alerts
    assert mesa.stop_reason is None
    assert (mesa.alarm.look, mesa.alarm.looks) == (2, 2)


# --- loggers and files --------------------------------------------------------------------------------------------


def test_without_a_logger_the_journal_is_in_the_root_folder(tmp_path):
    """And the metrics are still there for callbacks."""
    trainer = toy.fit(tmp_path, toy.monitor(), logger=False)
    assert {line["step"] for line in journal(tmp_path)} == {0, 8, 16, 24}
    assert ROOT in trainer.callback_metrics


def test_with_loggers_the_journal_is_in_the_log_folder(tmp_path):
    trainer = toy.fit(tmp_path / "root", toy.monitor(), logger=[CSVLogger(tmp_path / "logs"), Memory()])
    assert {line["step"] for line in journal(tmp_path / "logs/lightning_logs/version_0")} == {0, 8, 16, 24}
    assert trainer.log_dir == str(tmp_path / "logs/lightning_logs/version_0")
    assert not (tmp_path / "root").exists()


@pytest.mark.parametrize("error", [RuntimeError("lost"), KeyboardInterrupt()])
def test_the_journal_can_be_read_after_an_exception(tmp_path, error):
    """Every look that was taken is in it, complete."""
    mesa = toy.monitor()
    with pytest.raises((RuntimeError, SystemExit)):
        toy.fit(tmp_path, mesa, model=FailsAt(12, error))
    lines = journal(tmp_path)
    assert {line["step"] for line in lines} == {0, 8}
    assert len([line for line in lines if line["step"] == 0]) == len([line for line in lines if line["step"] == 8])
    assert mesa.alarm.look == 2


def test_a_monitor_can_be_used_again_after_an_exception(tmp_path):
    mesa = toy.monitor()
    with pytest.raises(RuntimeError, match="lost"):
        toy.fit(tmp_path / "broken", mesa, model=FailsAt(12, RuntimeError("lost")))
    trainer = toy.fit(tmp_path / "again", mesa)
    assert trainer.global_step == 24
    assert mesa.alarm.look == 4


# --- several monitors, copies -------------------------------------------------------------------------------------


def test_two_monitors_with_two_names_share_a_trainer(tmp_path):
    """Each has its metrics, its journal, its schedule and its own state in checkpoints."""
    memory = Memory()
    first, second = toy.monitor(), toy.monitor(name="second", every_n_steps=12, shifted={"far": toy.shifted(64)})
    trainer = toy.fit(tmp_path, first, second, logger=memory)
    assert [step for step, _ in memory.looks("mesa/apart/gap")] == [0, 8, 16, 24]
    assert [step for step, _ in memory.looks("second/far/gap")] == [0, 12, 24]
    assert {line["distribution"] for line in journal(tmp_path)} == {"val", "apart"}
    assert {line["distribution"] for line in journal(tmp_path, "second")} == {"val", "far"}
    assert trainer.callback_metrics["second/far/n"] == 64
    trainer.save_checkpoint(tmp_path / "both.ckpt")
    states = torch.load(tmp_path / "both.ckpt", weights_only=True)["callbacks"]
    assert {states[mesa.state_key]["alarm"]["look"] for mesa in (first, second)} == {4, 3}


def test_two_monitors_cannot_share_a_name(tmp_path):
    """Their states could not be told apart in a checkpoint; Lightning says so."""
    with pytest.raises(RuntimeError, match="state_key"):
        toy.fit(tmp_path, toy.monitor(), toy.monitor())


class Uncopied(toy.ToyModel):
    """Refuses to be copied."""

    def __reduce_ex__(self, protocol):
        raise AssertionError("the model was copied")


class Copies(pl.Callback):
    """Copies a monitor in the middle of a run, while Lightning has attached the model's ``log`` to it."""

    def __init__(self, mesa, copy_):
        self.mesa, self.copy_ = mesa, copy_

    def on_train_epoch_end(self, trainer, pl_module):
        assert "log" in vars(self.mesa), "Lightning attaches nothing any more: this test has lost its point"
        self.copied = self.copy_(self.mesa)


@pytest.mark.parametrize(
    "copy_", [copy.deepcopy, lambda mesa: pickle.loads(pickle.dumps(mesa))], ids=["copy", "pickle"]
)
def test_a_copy_of_the_monitor_does_not_hold_the_model(tmp_path, copy_):
    """It has the alerts and the alarm's memory, and can be used in a run of its own."""
    mesa = toy.monitor()
    copies = Copies(mesa, copy_)
    toy.fit(tmp_path / "first", mesa, copies, model=Uncopied())
    assert copies.copied.alerts == mesa.alerts != []
    assert copies.copied.alarm.state_dict() == mesa.alarm.state_dict()
    trainer = toy.fit(tmp_path / "second", copies.copied, max_epochs=1)
    assert trainer.callback_metrics["mesa/apart/n"] == 400
    assert mesa.alarm.look == 4


def test_looks_appear_in_lightnings_profiler(tmp_path):
    trainer = toy.fit(tmp_path, toy.monitor(), profiler="simple")
    recorded = trainer.profiler.recorded_durations
    assert [len(recorded[f"[mesa]{part}"]) for part in ("observe", "measure", "judge", "report")] == [4, 4, 4, 4]
