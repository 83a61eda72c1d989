"""A run that is interrupted and resumed is, to the monitor, the run that was not."""

import pytest
import torch
from torch.utils.data import ConcatDataset, DataLoader

import toy
from accelerator import ACCELERATOR
from lightning_mesa import ConfigurationError, MesaWarning, read_journal
from namespace import VERSION, EarlyStopping, Logger, ModelCheckpoint, pl
from quick import quick_rows


@pytest.fixture(autouse=True)
def _seeded():
    """Models are made before the trainer seeds."""
    torch.manual_seed(0)


CHECKPOINT = "last.ckpt"


class Memory(Logger):
    """A logger that remembers, across runs."""

    name = "memory"
    version = 0

    def __init__(self):
        super().__init__()
        self.rows = []

    def log_metrics(self, metrics, step=None):
        kept = {key: value for key, value in metrics.items() if key.startswith("mesa/") and key != "mesa/overhead"}
        if "mesa/base/worst" in kept:
            self.rows.append((step, kept))

    def log_hyperparams(self, *_, **__):
        """None are kept."""


class TrainingInterruptedError(Exception):
    """Raised on purpose."""


class InterruptAfter(pl.Callback):
    """Raises before the next batch."""

    def __init__(self, step):
        self.step = step

    def on_train_batch_start(self, trainer, *_):
        if trainer.global_step == self.step:
            raise TrainingInterruptedError


def same_batches():
    """Eight equal batches an epoch: a plain loader, resumed within an epoch, then gives what it would have given."""
    return DataLoader(ConcatDataset([toy.ToyData(32, confounded=True)] * 8), 32)


def run(folder, memory, mesa, *callbacks, **options):
    loaders = {"train_dataloaders": same_batches(), "val_dataloaders": toy.loader(400, seed=1)}
    return toy.fit(folder, mesa, *callbacks, logger=memory, enable_checkpointing=True, **loaders | options)


RESUMES = {
    "at the end of an epoch": (8, {}, {}, {}),
    "at the end of an epoch, looks by steps": (8, {}, {"every_n_steps": 5}, {}),
    "after a validation within an epoch": (
        12,
        {"save_on_train_epoch_end": False},
        {},
        {"val_check_interval": 4},
    ),
    "after a validation within an epoch, looks by steps": (
        12,
        {"save_on_train_epoch_end": False},
        {"every_n_steps": 5},
        {"val_check_interval": 4},
    ),
    "within an epoch": (11, {"every_n_train_steps": 11}, {}, {}),
    "within an epoch, looks by steps": (7, {"every_n_train_steps": 7}, {"every_n_steps": 5}, {}),
    "within an epoch, at a look": (10, {"every_n_train_steps": 10}, {"every_n_steps": 5}, {}),
    "within an epoch, a look each step": (7, {"every_n_train_steps": 7}, {"every_n_steps": 1}, {}),
    "under gradient accumulation": (
        6,
        {"every_n_train_steps": 6},
        {"every_n_steps": 4},
        {"accumulate_grad_batches": 2, "max_epochs": 4},
    ),
    "without a validation loop": (7, {"every_n_train_steps": 7}, {}, {"limit_val_batches": 0, "max_epochs": 13}),
    "before any look by steps": (3, {"every_n_train_steps": 3}, {"every_n_steps": 9}, {}),
}


QUICK = ("at the end of an epoch", "within an epoch, looks by steps", "under gradient accumulation")


@pytest.mark.parametrize(("step", "save", "watch", "options"), quick_rows(RESUMES, *QUICK))
def test_a_resumed_run_is_the_uninterrupted_one(tmp_path, step, save, watch, options):
    """The same looks with the same values and the same alerts, in the loggers and the journal; the same plan."""
    whole, whole_mesa = Memory(), toy.monitor(**watch)
    run(tmp_path / "whole", whole, whole_mesa, **options)
    assert whole_mesa.alerts, "a run without an alert cannot show that alerts are the same"

    parts, mesa = Memory(), toy.monitor(**watch)
    saves = ModelCheckpoint(tmp_path, "last", save_top_k=1, enable_version_counter=False, **save)
    with pytest.raises(TrainingInterruptedError):
        run(tmp_path / "parts", parts, mesa, InterruptAfter(step), saves, **options)
    assert torch.load(tmp_path / CHECKPOINT, weights_only=True)["global_step"] == step
    resumed = toy.monitor(**watch)
    run_resumed(tmp_path / "parts", parts, resumed, **options)

    assert [row[0] for row in parts.rows] == [row[0] for row in whole.rows]
    assert parts.rows == whole.rows
    for name in ("findings.jsonl", "alerts.jsonl"):
        assert read_journal(tmp_path / "parts/mesa" / name) == read_journal(tmp_path / "whole/mesa" / name)
    assert resumed.alerts == whole_mesa.alerts
    assert resumed.alarm.state_dict() == whole_mesa.alarm.state_dict()


def run_resumed(folder, memory, mesa, *callbacks, **options):
    """As :func:`run`, from the checkpoint beside the folder, loaded with ``weights_only=True``."""
    pl.seed_everything(0, verbose=False)
    trainer = pl.Trainer(
        **{
            "default_root_dir": folder,
            "max_epochs": 3,
            "accelerator": ACCELERATOR,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "logger": memory,
            "callbacks": [mesa, *callbacks],
        }
        | options
    )
    checkpoint = folder.parent / CHECKPOINT
    val = toy.loader(400, seed=1)
    weights_only = {"weights_only": True} if VERSION >= (2, 6) else {}  # older ones have no such argument
    trainer.fit(toy.ToyModel(), same_batches(), val, ckpt_path=checkpoint, **weights_only)
    return trainer


@pytest.fixture
def saved(tmp_path):
    """The folder of a run of two epochs with alerts, and its monitor; its checkpoint is beside it."""
    mesa = toy.monitor(on_alert=["log", "checkpoint"])
    trainer = run(tmp_path / "run", Memory(), mesa, max_epochs=2)
    assert mesa.alerts
    trainer.save_checkpoint(tmp_path / CHECKPOINT)
    return tmp_path / "run", mesa


def test_an_alert_that_stands_is_not_raised_again(saved):
    """Alerts of the first part are remembered."""
    folder, mesa = saved
    resumed = toy.monitor()
    run_resumed(folder, Memory(), resumed)
    assert resumed.alerts == mesa.alerts
    assert resumed.alarm.standing


def test_the_plan_of_the_first_part_is_kept(saved):
    """Planned for two epochs, resumed for four: the level stays that of one run."""
    folder, mesa = saved
    resumed = toy.monitor()
    run_resumed(folder, Memory(), resumed, max_epochs=4)
    assert resumed.alarm.looks == mesa.alarm.looks == 3
    assert resumed.alarm.look == 5


def test_a_fresh_alert_after_the_plan_has_run_out_is_impossible(tmp_path):
    """Looks beyond the plan spend nothing and raise nothing."""
    still = run(tmp_path / "run", Memory(), toy.monitor(), model=toy.ToyModel(0.0), max_epochs=1)
    still.save_checkpoint(tmp_path / CHECKPOINT)
    resumed = toy.monitor()
    run_resumed(tmp_path / "run", Memory(), resumed, FollowProxy(), max_epochs=4)
    assert resumed.alarm.look == 5
    assert not resumed.alerts


class FollowProxy(pl.Callback):
    def on_train_epoch_start(self, trainer, pl_module):
        choices = torch.eye(toy.CHOICES)
        with torch.no_grad():
            pl_module.net.weight.copy_(torch.cat([0 * choices, choices], 1))


def test_a_monitor_added_at_a_resume_begins_with_a_look(tmp_path):
    """The checkpoint knows nothing of it."""
    trainer = toy.fit(tmp_path / "run", train_dataloaders=same_batches(), max_epochs=1)
    trainer.save_checkpoint(tmp_path / CHECKPOINT)
    memory, mesa = Memory(), toy.monitor()
    with pytest.warns(MesaWarning, match="no memory of the looks before step 8"):
        run_resumed(tmp_path / "run", memory, mesa, EarlyStopping("mesa/base/worst", mode="max", strict=True))
    assert [step for step, _ in memory.rows] == [8, 16, 24]
    assert mesa.alarm.look == 3 <= mesa.alarm.looks


def test_a_monitor_removed_at_a_resume_is_not_missed(saved):
    folder, _ = saved
    other = toy.monitor(name="other")
    with pytest.warns(MesaWarning, match="'other' has no memory"):
        run_resumed(folder, Memory(), other)
    assert other.alarm.look == 2


def test_data_that_cannot_be_read_are_refused_before_a_resumed_training(saved):
    """No step is taken although no look is due."""
    folder, _ = saved
    with pytest.raises(ConfigurationError, match="the batch has no key 'nope'; its keys are"):
        run_resumed(folder, Memory(), toy.monitor(inputs="nope"), NoStep())


def test_an_empty_distribution_is_refused_before_a_resumed_training(saved):
    folder, _ = saved
    with pytest.raises(ConfigurationError, match="distribution 'apart' is empty"):
        run_resumed(folder, Memory(), toy.monitor(shifted={"apart": toy.ToyData(0, confounded=False)}), NoStep())


class NoStep(pl.Callback):
    def on_train_batch_start(self, *_):
        raise AssertionError("training has begun")


def test_the_state_holds_plain_values(saved):
    """What ``torch.load(weights_only=True)`` allows; nothing of it is a tensor."""
    folder, mesa = saved
    state = torch.load(folder.parent / CHECKPOINT, weights_only=True)["callbacks"][mesa.state_key]

    def plain(value):
        if isinstance(value, dict):
            return all(isinstance(key, str) and plain(item) for key, item in value.items())
        if isinstance(value, list):
            return all(map(plain, value))
        return value is None or type(value) in (str, int, float, bool)

    assert plain(state)
    assert len(state["alerts"]) == len(mesa.alerts)
