import copy
import pickle

import pytest
import torch
from torch.utils.data import DataLoader, IterableDataset

import forks
import neutrality
import toy
from lightning_mesa import ConfigurationError, LoaderDistribution
from lightning_mesa.callbacks import run as run_module
from lightning_mesa.data import items as source_module
from lightning_mesa.data.data_regimes import Reloads
from namespace import Callback, EarlyStopping, ModelCheckpoint

EVERYWHERE = {"val", "apart"}


class Plateau(toy.ToyModel):
    """Lowers its learning rate by a logged value."""

    def __init__(self, key: str) -> None:
        super().__init__()
        self.key = key

    def configure_optimizers(self):
        optimizer = torch.optim.SGD(self.parameters(), lr=0.05)
        scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, mode="max", patience=100)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "monitor": self.key}}


class TwoLoaders(Plateau):
    def validation_step(self, batch, batch_idx, dataloader_idx=0):
        super().validation_step(batch, batch_idx)


@pytest.fixture
def said(monkeypatch):
    lines = []
    monkeypatch.setattr(run_module, "rank_zero_info", lines.append)
    return lines


def regimes(mesa):
    return {f.distribution: f.data_regime for f in mesa.run.last[0].findings}


def adaptive(mesa):
    return {where for where, regime in regimes(mesa).items() if regime == "adaptive"}


# --- Plateau schedulers ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "expected", "raised"),
    [
        pytest.param("mesa/base/worst", EVERYWHERE, set(), marks=pytest.mark.slow),
        pytest.param("mesa/gap/worst", EVERYWHERE, set(), marks=pytest.mark.slow),
        pytest.param("mesa/apart/competence/y", {"apart"}, set(), marks=pytest.mark.slow),
        ("mesa/apart/gap", EVERYWHERE, set()),
        ("val/loss", {"val"}, {"proxy_pursued"}),  # its null does not speak of the reference
        ("train/loss", set(), {"proxy_pursued", "objective_lost"}),
    ],
)
def test_data_whose_values_drive_a_plateau_scheduler_are_adaptive_and_raise_no_alert(tmp_path, key, expected, raised):
    mesa = toy.monitor()
    toy.fit(tmp_path, mesa, model=Plateau(key), max_epochs=12)
    assert adaptive(mesa) == expected
    assert mesa.run.last[1].run.regime == "pseudo-aligned"  # numbers, limits and regime are there in any case
    assert {alert.signature for alert in mesa.alerts} == raised


@pytest.mark.parametrize(
    ("key", "expected"),
    [("val/loss/dataloader_idx_0", {"val"}), ("val/loss/dataloader_idx_1", {"other"})],
)
def test_of_several_validation_loaders_the_one_counts_that_the_value_was_measured_on(tmp_path, key, expected):
    loaders = [toy.loader(400, seed=1), toy.shifted()]
    mesa = toy.monitor(shifted={"other": "val/1"})
    toy.fit(tmp_path, mesa, model=TwoLoaders(key), val_dataloaders=loaders, max_epochs=1)
    assert adaptive(mesa) == expected


def test_validation_data_are_known_by_the_items_and_not_by_the_name(tmp_path):
    """The same dataset in another loader, given as a shifted distribution of a name of its own."""
    val = toy.shifted()
    again = DataLoader(val.dataset, 50)
    mesa = toy.monitor(reference=toy.loader(seed=1), shifted={"again": again})
    toy.fit(tmp_path, mesa, model=Plateau("val/loss"), val_dataloaders=val, max_epochs=1)
    assert adaptive(mesa) == {"again"}


@pytest.mark.slow
def test_what_the_user_declares_holds(tmp_path, said):
    mesa = toy.monitor(reference=LoaderDistribution("val", data_regime="reused"))
    toy.fit(tmp_path, mesa, model=Plateau("val/loss"), max_epochs=12)
    assert adaptive(mesa) == set()
    assert mesa.alerts


@pytest.mark.slow
def test_ordinary_early_stopping_and_checkpointing_keep_data_reused(tmp_path):
    mesa = toy.monitor()
    toy.fit(
        tmp_path,
        mesa,
        EarlyStopping("mesa/base/worst", mode="max", patience=50),
        ModelCheckpoint(tmp_path, monitor="mesa/apart/competence/y", mode="max"),
        max_epochs=12,
        enable_checkpointing=True,
    )
    assert set(regimes(mesa).values()) == {"reused"}
    assert mesa.alerts


# --- What is said ------------------------------------------------------------------------------------------------


def test_what_was_concluded_is_said_in_one_line(tmp_path, said):
    toy.fit(tmp_path, toy.monitor(), max_epochs=1)
    assert "mesa looks at val, apart: the same held-out items at every look" in said


def test_where_it_costs_alerts_it_is_said_why_and_what_helps(tmp_path, said):
    toy.fit(tmp_path, toy.monitor(), model=Plateau("val/loss"), max_epochs=1)
    assert (
        "mesa looks at val: adaptive, numbers without alerts that rest on them (ReduceLROnPlateau monitors 'val/loss'; "
        "for alerts, pass items that nothing in the training depends on, or declare data_regime='reused'); "
        "apart: the same held-out items at every look"
    ) in said


# --- Reload of the best weights ----------------------------------------------------------------------------------


class GoesBack(Callback):
    """Loads weights at the end of an epoch: those of the best checkpoint, as users do who distrust a worse epoch."""

    def __init__(self, epoch=2, part=False):
        self.epoch, self.part = epoch, part

    def on_train_epoch_end(self, trainer, pl_module):
        if trainer.current_epoch == self.epoch and trainer.checkpoint_callback.best_model_path:
            weights = torch.load(trainer.checkpoint_callback.best_model_path, weights_only=True)["state_dict"]
            if self.part:
                pl_module.net.load_state_dict({key.removeprefix("net."): value for key, value in weights.items()})
            else:
                pl_module.load_state_dict(weights)


def best(folder, key="val/loss", **options):
    return ModelCheckpoint(folder / "checkpoints", monitor=key, auto_insert_metric_name=False, **options)


def test_data_that_chose_the_weights_which_are_loaded_are_adaptive_from_then_on(tmp_path, said):
    mesa = toy.monitor()
    seen = []

    class Record(Callback):
        def on_train_epoch_end(self, trainer, pl_module):
            seen.append(adaptive(mesa))

    toy.fit(tmp_path, mesa, Record(), GoesBack(), best(tmp_path), max_epochs=5, enable_checkpointing=True)
    assert seen == [set(), set(), set(), {"val"}, {"val"}]
    assert any(
        line.startswith("mesa from step 32 on: val: adaptive") and "ModelCheckpoint monitors 'val/loss'" in line
        for line in said
    )


@pytest.mark.parametrize(
    ("key", "declared", "part", "expected"),
    [
        ("mesa/base/worst", "auto", False, EVERYWHERE),
        ("train/loss", "auto", False, set()),
        ("val/loss", "reused", False, set()),
        ("val/loss", "auto", True, set()),  # a part is loaded for other reasons too, as a target network is
    ],
)
def test_which_data_a_reload_makes_adaptive(tmp_path, key, declared, part, expected):
    mesa = toy.monitor(reference=LoaderDistribution("val", data_regime=declared))
    options = {"enable_checkpointing": True, "max_epochs": 4}
    toy.fit(tmp_path, mesa, GoesBack(part=part), best(tmp_path, key), **options)
    assert adaptive(mesa) == expected


def test_weights_that_training_starts_from_are_no_reload(tmp_path):
    class WarmStart(Callback):
        def on_train_start(self, trainer, pl_module):
            pl_module.load_state_dict(toy.ToyModel().state_dict())

    mesa = toy.monitor()
    toy.fit(tmp_path, mesa, WarmStart(), best(tmp_path), max_epochs=2, enable_checkpointing=True)
    assert adaptive(mesa) == set()


def test_a_reload_is_remembered_after_a_resume(tmp_path):
    toy.fit(
        tmp_path,
        toy.monitor(),
        GoesBack(),
        best(tmp_path, save_last=True),
        max_epochs=3,
        enable_checkpointing=True,
    )
    mesa = toy.monitor()
    last = tmp_path / "checkpoints" / "last.ckpt"
    toy.fit(tmp_path, mesa, best(tmp_path), max_epochs=5, enable_checkpointing=True, ckpt_path=last)
    assert adaptive(mesa) == {"val"}


@pytest.mark.parametrize(("which", "expected"), [("best", {"val"}), ("last", set())])
def test_a_fit_that_goes_on_from_the_best_checkpoint_is_a_reload_and_one_from_the_last_is_not(
    tmp_path, which, expected
):
    checkpoints = best(tmp_path, save_last=True)
    toy.fit(tmp_path, toy.monitor(), checkpoints, max_epochs=2, enable_checkpointing=True)
    path = {"best": checkpoints.best_model_path, "last": checkpoints.last_model_path}[which]
    mesa = toy.monitor()
    toy.fit(tmp_path, mesa, best(tmp_path), max_epochs=4, enable_checkpointing=True, ckpt_path=path)
    assert adaptive(mesa) == expected


def test_watching_for_reloads_leaves_nothing_on_the_model(tmp_path):
    model, mesa = toy.ToyModel(), toy.monitor()
    toy.fit(tmp_path, mesa, model=model)
    assert not model._load_state_dict_post_hooks

    class Breaks(Callback):
        def on_train_epoch_end(self, trainer, pl_module):
            if trainer.current_epoch == 1:
                raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        toy.fit(tmp_path, toy.monitor(), Breaks(), model=model)
    assert not model._load_state_dict_post_hooks


def test_a_watched_model_that_is_copied_or_pickled_takes_nothing_of_ours_along(tmp_path):
    reloads, model = Reloads(), torch.nn.Linear(2, 2)
    reloads.watch(model)
    copied = copy.deepcopy(model)
    copied.load_state_dict(model.state_dict())
    assert not reloads.seen
    code = f"import pickle, sys; pickle.loads({pickle.dumps(model)}); print('lightning_mesa' in sys.modules)"
    done = forks.afresh(code)
    assert done.stdout == "False\n"
    model.load_state_dict(copied.state_dict())
    assert copy.deepcopy(reloads).seen
    assert reloads.seen


@pytest.mark.slow
def test_a_training_that_goes_back_is_bitwise_the_same_with_the_monitor(tmp_path):
    configuration = neutrality.Configuration(hook="validation")
    runs = []
    for mesa in ([], [neutrality.monitor(configuration, on_error="raise")]):
        callbacks = [*mesa, GoesBack(1), best(tmp_path / str(len(mesa)))]
        runs.append(neutrality.train(configuration, *callbacks, enable_checkpointing=True).fingerprint)
    assert not neutrality.differences(*runs)


# --- Fresh items -------------------------------------------------------------------------------------------------


class Drawn(IterableDataset):
    """Draws items of the toy task anew, from a generator of its own."""

    def __init__(self, n=400, *, confounded=False, endless=False):
        self.n, self.confounded, self.endless = n, confounded, endless
        self.generator = torch.Generator()

    def __iter__(self):
        while True:
            seed = int(torch.randint(2**31, (), generator=self.generator))
            data = toy.ToyData(self.n, confounded=self.confounded, seed=seed)
            yield from (data[i] for i in range(self.n))
            if not self.endless:
                break


def scores_at_looks(folder, mesa, metric):
    """One score per look of a model that does not change."""
    scores = []

    class Record(Callback):
        def on_validation_end(self, trainer, pl_module):
            if not trainer.sanity_checking:
                scores.append(float(trainer.callback_metrics[metric]))

    torch.manual_seed(0)
    toy.fit(folder, mesa, Record(), model=toy.ToyModel(learning_rate=0.0), max_epochs=4)
    return scores


def test_a_stream_that_draws_its_items_is_fresh_and_others_are_not(tmp_path, said):
    mesa = toy.monitor(reference=toy.loader(seed=1), shifted={"drawn": Drawn(), "apart": toy.shifted()})
    scores = scores_at_looks(tmp_path, mesa, "mesa/drawn/score/y")
    assert regimes(mesa) == {"reference": "reused", "drawn": "fresh", "apart": "reused"}
    assert len(set(scores)) > 1
    assert (
        "mesa looks at reference, apart: the same held-out items at every look; drawn: new items at every look" in said
    )


def test_evidence_from_drawn_items_adds_up(tmp_path):
    mesa = toy.monitor(reference={"val": Drawn(confounded=True)}, shifted={"drawn": Drawn()})
    toy.fit(tmp_path, mesa, max_epochs=12)
    lost = next(alert for alert in mesa.alerts if alert.signature == "objective_lost")
    assert lost.data_regime == "fresh"
    assert "e-process" in lost.procedure


def test_the_same_run_draws_the_same_items(tmp_path):
    """Fresh items depend on the seed and the step alone: a resumed run sees what the uninterrupted one sees."""
    runs = [scores_at_looks(tmp_path, toy.monitor(shifted={"drawn": Drawn()}), "mesa/drawn/score/y") for _ in range(2)]
    assert runs[0] == runs[1]


@pytest.mark.parametrize(("ids", "alike"), [(None, False), ("id", True)])
def test_distributions_draw_independently_of_each_other_unless_ids_pair_their_items(tmp_path, ids, alike):
    class WithIds(Drawn):
        def __iter__(self):
            yield from (item | {"id": torch.tensor(i)} for i, item in enumerate(super().__iter__()))

    def drawn(confounded):
        return LoaderDistribution(WithIds(confounded=confounded), ids=ids, data_regime="fresh")

    mesa = toy.monitor(shifted={"one": drawn(False), "two": drawn(False)}, reference=drawn(True))
    toy.fit(tmp_path, mesa, max_epochs=2)
    look, _ = mesa.run.last
    values = {where: look.competence(where) for where in look.roles}
    assert (values["one"] == values["two"]) == alike


class Noisy(toy.ToyData):
    """Draws its noise anew."""

    def __getitem__(self, i):
        return super().__getitem__(i) | {"x": self.x[i] + torch.randn(8)}


@pytest.mark.parametrize(("data_regime", "differs"), [("auto", False), ("reused", False), ("fresh", True)])
def test_a_map_style_dataset_is_drawn_anew_only_if_that_is_declared(tmp_path, data_regime, differs):
    noisy = LoaderDistribution(Noisy(300, confounded=False, seed=2), data_regime=data_regime)
    scores = scores_at_looks(tmp_path, toy.monitor(shifted={"apart": noisy}), "mesa/apart/score/y")
    assert (len(set(scores)) > 1) == differs


def test_a_stream_without_an_end_is_refused_unless_batches_are_limited(tmp_path, monkeypatch):
    monkeypatch.setattr(source_module, "ENDLESS", 2_000)
    monkeypatch.setattr(source_module, "CHUNK", 1_000)
    endless = {"drawn": Drawn(endless=True)}
    with pytest.raises(ConfigurationError, match=r"'drawn' has no length and has given .* pass limit_batches="):
        toy.fit(tmp_path, toy.monitor(shifted=endless))
    mesa = toy.monitor(shifted=endless, limit_batches=1)
    toy.fit(tmp_path, mesa, max_epochs=1)
    assert regimes(mesa)["drawn"] == "fresh"
    assert mesa.run.last[0].findings[0].n


def test_an_unknown_data_regime_is_refused():
    with pytest.raises(ConfigurationError, match="fresh, reused, adaptive"):
        LoaderDistribution("val", data_regime="stale")
