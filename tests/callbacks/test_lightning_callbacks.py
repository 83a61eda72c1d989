"""Lightning's own callbacks and schedulers read our keys; our actions stop, save and call."""

import json

import pytest
import torch

import toy
from lightning_mesa import LoaderDistribution, MesaWarning, read_journal
from namespace import VERSION, Callback, EarlyStopping, ModelCheckpoint


@pytest.fixture(autouse=True)
def _seeded():
    """Models are made before the trainer seeds."""
    torch.manual_seed(0)


KEY = "mesa/base/worst"


class PlateauModel(toy.ToyModel):
    """A plateau scheduler that waits for our key."""

    interval = "epoch"

    def configure_optimizers(self):
        optimizer = super().configure_optimizers()
        self.scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, mode="max", patience=0, threshold=0)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": self.scheduler, "monitor": KEY, "strict": True, "interval": self.interval},
        }


class StepPlateauModel(PlateauModel):
    interval = "step"


class Turn(Callback):
    """Has the model follow ``y`` until an epoch begins, and ``z`` from then on; to be used without learning."""

    def __init__(self, epoch):
        self.epoch = epoch

    def on_fit_start(self, trainer, pl_module):
        self._follow(pl_module, 0)

    def on_train_epoch_start(self, trainer, pl_module):
        self._follow(pl_module, int(trainer.current_epoch >= self.epoch))

    def _follow(self, pl_module, cue):
        choices = torch.eye(toy.CHOICES)
        weight = torch.cat([choices, 0 * choices] if cue == 0 else [0 * choices, choices], 1)
        with torch.no_grad():
            pl_module.net.weight.copy_(weight)
            pl_module.net.bias.zero_()


class Seen(Callback):
    """What EarlyStopping held best after each validation."""

    def __init__(self, early):
        self.early, self.best = early, []

    def on_train_epoch_end(self, trainer, pl_module):
        self.best.append(float(self.early.best_score))


def base_worst(folder):
    """Step -> lowest competence at base, from the journal."""
    worst = {}
    for f in read_journal(folder / "mesa/findings.jsonl"):
        if f["quantity"] == "competence" and f["objective"] == "y" and f["group"] is None:
            worst[f["step"]] = min(f["value"], worst.get(f["step"], f["value"]))
    return worst


@pytest.mark.parametrize("first", ["monitor", "lightning"])
def test_lightnings_callbacks_see_each_looks_own_values(tmp_path, first):
    """EarlyStopping(strict), ModelCheckpoint and a plateau scheduler, listed before or after the monitor."""
    mesa, model = toy.monitor(), PlateauModel()
    early = EarlyStopping(KEY, mode="max", patience=10, strict=True, check_on_train_epoch_end=False)
    seen = Seen(early)
    save = ModelCheckpoint(tmp_path, "best-{step}", KEY, mode="max", auto_insert_metric_name=False)
    callbacks = [mesa, early, save, seen] if first == "monitor" else [early, save, mesa, seen]
    toy.fit(tmp_path, *callbacks, model=model, enable_checkpointing=True, max_epochs=4)

    worst = base_worst(tmp_path)
    after_training = [worst[step] for step in (8, 16, 24, 32)]
    assert seen.best == pytest.approx([max(after_training[: i + 1]) for i in range(4)])
    assert float(save.best_model_score) == pytest.approx(max(after_training))
    assert float(model.scheduler.best) == pytest.approx(max(after_training))
    assert model.scheduler.last_epoch == 4
    best = max((8, 16, 24, 32), key=worst.get)
    assert save.best_model_path == str(tmp_path / f"best-{best}.ckpt")


def test_early_stopping_stops_on_our_key(tmp_path):
    """The toy model loses base where the cues come apart: EarlyStopping on the worst competence ends the run."""
    early = EarlyStopping(KEY, mode="max", patience=2, strict=True)
    trainer = toy.fit(tmp_path, early, toy.monitor(), max_epochs=30)
    assert early.stopped_epoch > 0
    assert trainer.current_epoch < 29


def test_a_filename_may_hold_our_key(tmp_path):
    """With ``auto_insert_metric_name=False`` the slash of the key makes no folder."""
    save = ModelCheckpoint(
        tmp_path / "saved", "{step}_{mesa/base/worst:.2f}", KEY, "max", auto_insert_metric_name=False
    )
    toy.fit(tmp_path, save, toy.monitor(), enable_checkpointing=True)
    assert [path.is_file() for path in (tmp_path / "saved").iterdir()] == [True]


def test_every_key_exists_before_the_first_step(tmp_path):
    """A scheduler and a checkpoint that ask at every step, before the first validation, find the value of step 0."""
    model, mesa = StepPlateauModel(), toy.monitor()
    save = ModelCheckpoint(tmp_path / "saved", monitor=KEY, mode="max", every_n_train_steps=1, save_top_k=-1)
    save.auto_insert_metric_name = False
    toy.fit(tmp_path, save, mesa, model=model, enable_checkpointing=True, max_steps=3)
    assert model.scheduler.last_epoch == 3
    untrained = base_worst(tmp_path)[0]
    assert float(save.best_model_score) == pytest.approx(untrained)
    assert float(model.scheduler.best) == pytest.approx(untrained)


@pytest.mark.parametrize("first", ["monitor", "lightning"])
def test_our_keys_are_there_at_once_after_a_resume(tmp_path, first):
    """The resumed part has no look of its own before its first validation; the last values are published again."""

    def callbacks(max_epochs):
        early = EarlyStopping(KEY, mode="max", patience=10, strict=True)
        save = ModelCheckpoint(tmp_path, f"{max_epochs}", KEY, mode="max", auto_insert_metric_name=False)
        mesa = toy.monitor(every_n_steps=1000)
        return [mesa, early, save] if first == "monitor" else [early, save, mesa]

    options = {"enable_checkpointing": True}
    saved = toy.fit(tmp_path, *callbacks(1), model=PlateauModel(), max_epochs=1, **options)
    trainer = toy.fit(
        tmp_path, *callbacks(2), model=PlateauModel(), ckpt_path=tmp_path / "1.ckpt", max_epochs=2, **options
    )
    assert trainer.global_step == 16
    assert KEY in saved.callback_metrics
    assert KEY in trainer.callback_metrics


class FailsFrom(toy.ToyModel):
    """Cannot be evaluated from a step on."""

    def forward(self, x):
        if not self.training and self.trainer.validating and self.global_step >= 8:
            raise RuntimeError("out of luck")
        return super().forward(x)

    def validation_step(self, batch, batch_idx):
        """None of its own."""


def test_our_keys_stay_after_the_monitor_is_off_and_after_a_resume(tmp_path):
    """A monitor that an error has ended keeps its last values, so that nothing that waits for them fails."""

    def callbacks():
        early = EarlyStopping(KEY, mode="max", patience=10, strict=True)
        return toy.monitor(), early, ModelCheckpoint(tmp_path, "last", save_on_train_epoch_end=True)

    with pytest.warns(MesaWarning, match="out of luck"):
        toy.fit(tmp_path, *callbacks(), model=FailsFrom(), enable_checkpointing=True, max_epochs=2)
    trainer = toy.fit(
        tmp_path,
        *callbacks(),
        model=FailsFrom(),
        enable_checkpointing=True,
        max_epochs=3,
        ckpt_path=tmp_path / "last.ckpt",
    )
    assert trainer.global_step == 24
    assert KEY in trainer.callback_metrics
    assert trainer.callback_metrics["mesa/disabled"] == 1


# --- stopping ---------------------------------------------------------------------------------------------------


def test_stopping_leaves_its_reason(tmp_path):
    mesa = toy.monitor(on_alert="stop")
    trainer = toy.fit(tmp_path, mesa, Turn(1), model=toy.ToyModel(0.0), max_epochs=9)
    assert trainer.global_step == 16
    assert mesa.stop_reason == "objective_lost on 'apart' at step 16"


@pytest.mark.parametrize(("limits", "steps"), [({"min_epochs": 5}, 40), ({"min_steps": 29}, 29)])
def test_stopping_honours_min_epochs_and_min_steps(tmp_path, limits, steps):
    """The alert at step 16 ends the run as soon as Lightning may."""
    mesa = toy.monitor(on_alert="stop")
    trainer = toy.fit(tmp_path, mesa, Turn(1), model=toy.ToyModel(0.0), max_epochs=9, **limits)
    assert trainer.global_step == steps
    assert "at step 16" in mesa.stop_reason


def test_stopping_counts_fresh_looks_only(tmp_path):
    """Validations between looks see old values and stop nothing; the look does, at its step."""
    mesa = toy.monitor(on_alert="stop", every_n_steps=21)
    trainer = toy.fit(tmp_path, mesa, Turn(1), model=toy.ToyModel(0.0), max_epochs=9)
    assert [alert.step for alert in mesa.alerts] == [21, 21]
    assert trainer.global_step == 21


def test_a_stop_asked_for_by_someone_else_is_not_taken_back(tmp_path):
    """Looks without an alert leave ``should_stop`` as it is."""

    class Stop(Callback):
        def on_train_batch_end(self, trainer, *_):
            trainer.should_stop = trainer.global_step == 5 or trainer.should_stop

    mesa = toy.monitor(on_alert="stop", every_n_steps=1)
    trainer = toy.fit(tmp_path, Stop(), mesa, model=toy.ToyModel(0.0))
    assert trainer.global_step == 5
    assert mesa.stop_reason is None


def test_only_the_severity_alert_stops(tmp_path):
    """With base alone listed the cause is undetermined: ``base_lost`` is a warning, and the run goes on."""
    mesa = toy.monitor(proxies=[], on_alert="stop")
    trainer = toy.fit(tmp_path, mesa, Turn(1), model=toy.ToyModel(0.0), max_epochs=4)
    assert [(alert.signature, alert.severity) for alert in mesa.alerts] == [("base_lost", "warning")]
    assert trainer.global_step == 32
    assert mesa.stop_reason is None


@pytest.mark.parametrize("action", ["log", "checkpoint"])
def test_the_other_actions_do_not_stop(tmp_path, action):
    mesa = toy.monitor(on_alert=action)
    trainer = toy.fit(tmp_path, mesa, Turn(1), model=toy.ToyModel(0.0), max_epochs=4)
    assert mesa.alerts
    assert trainer.global_step == 32
    assert mesa.stop_reason is None


def test_callables_get_each_alert_once(tmp_path):
    """``(alert, trainer, pl_module)``, in a list beside other actions; an alert that stands is not raised again."""
    calls, model = [], toy.ToyModel(0.0)
    mesa = toy.monitor(on_alert=["log", lambda *arguments: calls.append(arguments)])
    trainer = toy.fit(tmp_path, mesa, Turn(1), model=model, max_epochs=4)
    assert [(alert.step, alert.signature) for alert, *_ in calls] == [(16, "objective_lost"), (16, "proxy_pursued")]
    assert all(arguments[1:] == (trainer, model) for arguments in calls)
    assert [alert for alert, *_ in calls] == mesa.alerts


def test_a_callable_may_stand_alone_and_stop_the_run(tmp_path):
    def stop(alert, trainer, pl_module):
        trainer.should_stop = True

    trainer = toy.fit(tmp_path, toy.monitor(on_alert=stop), Turn(1), model=toy.ToyModel(0.0), max_epochs=9)
    assert trainer.global_step == 16


# --- checkpoints ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("every_n_steps", "healthy", "alert"), [(None, 16, 24), (5, 15, 20)])
def test_the_healthy_checkpoint_rolls_and_is_named_by_alerts(tmp_path, every_n_steps, healthy, alert):
    """It holds the model of the last look with an open gate and no evidence; another is written at the alert."""
    mesa = toy.monitor(on_alert=["checkpoint", "stop"], every_n_steps=every_n_steps)
    toy.fit(tmp_path, mesa, Turn(2), model=toy.ToyModel(0.0), max_epochs=4)
    path = tmp_path / "mesa/healthy.ckpt"
    assert torch.load(path, weights_only=True)["global_step"] == healthy
    assert {(a.step, a.checkpoint, a.last_healthy_step) for a in mesa.alerts} == {(alert, str(path), healthy)}
    lines = [json.loads(line) for line in (tmp_path / "mesa/alerts.jsonl").read_text().splitlines()]
    assert {line["checkpoint"] for line in lines} == {str(path)}
    at_alert = torch.load(tmp_path / f"mesa/alert-{alert}.ckpt", weights_only=True)
    assert at_alert["global_step"] == alert
    assert len(at_alert["callbacks"][mesa.state_key]["alerts"]) == len(mesa.alerts)


@pytest.mark.parametrize(
    ("turn", "every_n_steps", "healthy", "later"),
    [(2, None, 16, [24, 32]), (0, None, 0, [8, 16, 24, 32]), (2, 5, 15, [20, 25, 30, 32])],
    ids=["after a validation", "before training", "within an epoch"],
)
def test_a_run_can_be_resumed_from_its_healthy_checkpoint(tmp_path, turn, every_n_steps, healthy, later):
    """Loaded with ``weights_only=True``, it goes on at its step with the looks that were left, and stays healthy."""
    if healthy == 15 and VERSION < (2, 6):
        pytest.skip("resumed within an epoch this Lightning takes a step too many, with a monitor or without")
    mesa = toy.monitor(on_alert=["checkpoint", "stop"], every_n_steps=every_n_steps)
    toy.fit(tmp_path, mesa, Turn(turn), model=toy.ToyModel(0.0), max_epochs=4)
    assert mesa.alerts
    resumed = toy.monitor(on_alert="stop", every_n_steps=every_n_steps)
    trainer = toy.fit(
        tmp_path / "resumed",
        resumed,
        Turn(99),
        model=toy.ToyModel(0.0),
        max_epochs=4,
        ckpt_path=tmp_path / "mesa/healthy.ckpt",
    )
    assert trainer.global_step == 32
    assert not resumed.alerts
    assert resumed.alarm.looks == mesa.alarm.looks
    assert list(base_worst(tmp_path / "resumed")) == later
    assert healthy < later[0]


def test_no_healthy_checkpoint_without_an_open_gate_or_without_asking(tmp_path):
    """An untrained model is not healthy; and ``"log"`` saves nothing."""
    toy.fit(tmp_path / "untrained", toy.monitor(on_alert="checkpoint"), model=toy.ToyModel(0.0), max_epochs=1)
    assert not list((tmp_path / "untrained").rglob("*.ckpt"))
    mesa = toy.monitor()
    toy.fit(tmp_path / "log", mesa, Turn(1), model=toy.ToyModel(0.0))
    assert not list((tmp_path / "log").rglob("*.ckpt"))
    assert {(alert.checkpoint, alert.last_healthy_step) for alert in mesa.alerts} == {(None, 8)}


def test_worst_is_taken_over_every_distribution(tmp_path):
    """The lowest base competence, and the largest gap, over two shifted distributions and the reference."""
    mesa = toy.monitor(shifted={"apart": toy.shifted(), "like": LoaderDistribution(toy.loader(200, seed=9))})
    metrics = toy.fit(tmp_path, mesa).callback_metrics
    names = ("val", "apart", "like")
    assert metrics[KEY] == min(metrics[f"mesa/{name}/competence/y"] for name in names)
    assert metrics["mesa/gap/worst"] == max(metrics[f"mesa/{name}/gap"] for name in names[1:])
