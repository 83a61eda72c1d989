"""Both Lightnings, and the command lines of both; the whole suite runs on either (make test-matrix)."""

from importlib import import_module

import pytest
import torch

import forks
import toy
from accelerator import ACCELERATOR
from lightning_mesa import MesaMonitor
from lightning_mesa.callbacks.compat import NAMESPACES
from namespace import INSTALLED
from quick import quick

BOTH = pytest.mark.parametrize("namespace", INSTALLED)


def build(namespace):
    """A module and data of a namespace."""
    pl = import_module(namespace)

    class Model(pl.LightningModule):
        forward, training_step = toy.ToyModel.forward, toy.ToyModel.training_step
        validation_step, configure_optimizers = toy.ToyModel.validation_step, toy.ToyModel.configure_optimizers

        def __init__(self):
            super().__init__()
            self.learning_rate = 0.05
            self.net = torch.nn.Linear(8, 4)

    return pl, Model()


@BOTH
@pytest.mark.parametrize("in_a_list", [True, False])
def test_the_same_class_watches_the_trainer_of_either_lightning(tmp_path, namespace, in_a_list):
    pl, model = build(namespace)
    mesa = toy.monitor(on_alert="stop")
    stop = import_module(f"{namespace}.callbacks").EarlyStopping("mesa/base/worst", mode="max", patience=50)
    assert isinstance(mesa, pl.Callback)
    trainer = pl.Trainer(
        callbacks=[stop, mesa] if in_a_list else mesa,
        default_root_dir=tmp_path,
        max_epochs=20,
        accelerator=ACCELERATOR,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
    )
    trainer.fit(model, toy.loader(shuffle=True), toy.loader(400, seed=1))
    assert {alert.signature for alert in mesa.alerts} == {"objective_lost", "proxy_pursued"}
    assert trainer.current_epoch < 19
    assert trainer.callback_metrics["mesa/apart/n"] == 400


@pytest.mark.skipif(len(INSTALLED) < 2, reason="one Lightning is installed")
def test_a_checkpoint_of_one_lightning_is_resumed_by_the_other(tmp_path):
    last, watched = None, []
    for namespace, epochs in zip(INSTALLED, (2, 4), strict=True):
        pl, model = build(namespace)
        checkpoints = import_module(f"{namespace}.callbacks").ModelCheckpoint(tmp_path, save_last=True)
        mesa = toy.monitor()
        options = {
            "accelerator": ACCELERATOR,
            "logger": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
        }
        trainer = pl.Trainer(callbacks=[mesa, checkpoints], max_epochs=epochs, default_root_dir=tmp_path, **options)
        trainer.fit(model, toy.loader(), toy.loader(400, seed=1), ckpt_path=last)
        last = checkpoints.last_model_path
        watched.append(mesa)
    assert watched[1].alarm.look == 5
    assert watched[1].alerts[: len(watched[0].alerts)] == watched[0].alerts


@BOTH
def test_one_lightning_is_enough(namespace):
    other = {"pytorch_lightning": "lightning", "lightning.pytorch": "pytorch_lightning"}[namespace]
    code = f"import lightning_mesa, {namespace}; print(issubclass(lightning_mesa.MesaMonitor, {namespace}.Callback))"
    done = forks.afresh(code, other)
    assert done.stdout.strip() == "True", done.stderr


def test_without_any_lightning_the_message_says_what_to_install():
    done = forks.afresh("from lightning_mesa import MesaMonitor", "lightning", *NAMESPACES)
    assert done.returncode
    last = done.stderr.strip().splitlines()[-1]
    assert "no Lightning can be imported: pip install pytorch-lightning, or lightning" in last


# --- LightningCLI --------------------------------------------------------------------------------------------------

YAML = """
trainer:
  max_epochs: 12
  accelerator: cpu
  enable_progress_bar: false
  enable_model_summary: false
  callbacks:
    - class_path: lightning_mesa.MesaMonitor
      init_args:
        base: {class_path: lightning_mesa.Matches, init_args: {target: y}}
        proxies:
          - {class_path: lightning_mesa.Matches, init_args: {target: z}}
        shifted:
          apart: datamodule.shifted
          again:
            class_path: lightning_mesa.LoaderDistribution
            init_args: {source: datamodule.shifted, data_regime: reused}
          made: {class_path: toy.ToyData, init_args: {n: 300, confounded: false, seed: 5}}
        alarm: {class_path: lightning_mesa.Alarm, init_args: {alpha: 0.02}}
        inputs: x
        on_alert: [stop, toy.note]
"""


def command_line(namespace, arguments):
    cli = pytest.importorskip(f"{namespace}.cli")
    pl, model = build(namespace)

    class Data(pl.LightningDataModule):
        train_dataloader, val_dataloader, shifted = (
            staticmethod(make) for make in (toy.loader, lambda: toy.loader(400, seed=1), toy.shifted)
        )

    return cli.LightningCLI(type(model), Data, args=arguments, seed_everything_default=0).trainer


@pytest.mark.parametrize("namespace", quick(INSTALLED, INSTALLED[0]))
def test_the_command_line_builds_nested_objects_and_its_saved_config_trains_again(
    tmp_path, monkeypatch, capsys, namespace
):
    pytest.importorskip("jsonargparse")
    monkeypatch.chdir(tmp_path)
    toy.NOTED.clear()
    (tmp_path / "fit.yaml").write_text(YAML.replace("accelerator: cpu", f"accelerator: {ACCELERATOR}"))
    trainer = command_line(namespace, ["fit", "--config=fit.yaml"])
    (mesa,) = (callback for callback in trainer.callbacks if isinstance(callback, MesaMonitor))
    assert mesa.alarm.alpha == 0.02
    assert set(mesa.shifted) == {"apart", "again", "made"}
    assert mesa.stop_reason
    assert mesa.alerts == toy.NOTED
    saved = next(tmp_path.rglob("config.yaml"))
    again = command_line(namespace, ["fit", f"--config={saved}"])
    assert float(again.callback_metrics["mesa/made/n"]) == 300


@pytest.mark.slow
@BOTH
def test_a_callback_is_appended_by_its_short_name(tmp_path, monkeypatch, namespace):
    pytest.importorskip("jsonargparse")
    monkeypatch.chdir(tmp_path)
    arguments = ["fit", "--trainer.max_epochs=1", f"--trainer.accelerator={ACCELERATOR}", "--trainer.logger=false"]
    arguments += ["--trainer.callbacks+=MesaMonitor", "--trainer.callbacks.base=Matches"]
    arguments += ["--trainer.callbacks.base.target=y", "--trainer.callbacks.shifted.apart=datamodule.shifted"]
    arguments += ["--trainer.callbacks.inputs=x", "--trainer.callbacks.every_n_steps=4"]
    trainer = command_line(namespace, arguments)
    assert float(trainer.callback_metrics["mesa/apart/n"]) == 400


@BOTH
def test_the_help_explains_every_argument_and_lists_no_classes_of_others(namespace, capsys):
    pytest.importorskip("jsonargparse")
    with pytest.raises(SystemExit):
        command_line(namespace, ["fit", "--trainer.callbacks.help=lightning_mesa.MesaMonitor"])
    text = " ".join(capsys.readouterr().out.split())
    assert "--trainer.callbacks.base BASE The base objective, what training selects for." in text
    assert "First part of the metric names" in text
    assert "lightning_mesa.NegativeLoss" in text
    assert "known subclasses: torch" not in text
    assert "torch.Tensor" not in text
