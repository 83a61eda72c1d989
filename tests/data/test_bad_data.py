"""Bad data: each kind has a defined outcome."""

import math

import pytest
import torch
from torch.utils.data import TensorDataset

import toy
from lightning_mesa import ConfigurationError, Matches, MesaWarning, NegativeLoss, Regime, ScoreFunction, read_journal
from namespace import pl


@pytest.fixture(autouse=True)
def _seeded():
    """Models are made before the trainer seeds."""
    torch.manual_seed(0)


NO_ROOM = r"on '{}' chance at '{}' \(1\) reaches its ceiling \(1\) on all {} items: .* can be raised {}"


class Broken(toy.ToyModel):
    """Gives NaN in looks from a step on, for items that ``where`` selects by their inputs."""

    def __init__(self, from_step, where=lambda x: torch.ones(len(x), dtype=torch.bool)):
        super().__init__()
        self.from_step, self.where = from_step, where

    def forward(self, x):
        logits = super().forward(x)
        if not self.net.training and self.global_step >= self.from_step:
            logits = logits.masked_fill(self.where(x)[:, None], torch.nan)
        return logits

    def validation_step(self, batch, batch_idx):
        """None, so that looks are the only forward passes in eval mode."""


class Metrics(pl.Callback):
    """Copies ``callback_metrics`` after each epoch; nothing in it is ever NaN."""

    def __init__(self):
        self.epochs = []

    def on_train_epoch_end(self, trainer, pl_module):
        assert all(value.isfinite() for value in trainer.callback_metrics.values())
        self.epochs.append({name: float(value) for name, value in trainer.callback_metrics.items()})


class Published(pl.loggers.logger.DummyLogger):
    """What each look published."""

    def __init__(self):
        super().__init__()
        self.rows = {}

    def log_metrics(self, metrics, step):
        if "mesa/alert" in metrics:
            self.rows[step] = dict(metrics)


def finding(folder, step, quantity, distribution, objective=None):
    """The one finding of that kind."""
    (found,) = [
        line
        for line in read_journal(folder / "mesa/findings.jsonl")
        if (line["step"], line["quantity"], line["distribution"], line["group"]) == (step, quantity, distribution, None)
        and objective in (None, line["objective"])
    ]
    return found


def clean(x):
    """Items without noise."""
    return (x == x.round()).all(1)


CLEAN = toy.ToyData(400, confounded=False, seed=2, noise=0.0)


def run(folder, model=None, *callbacks, **options):
    """Fit, and give the monitor, the trainer and what each look published."""
    published, mesa = Published(), toy.monitor(**options)
    trainer = toy.fit(folder, mesa, *callbacks, model=model, logger=published, default_root_dir=folder)
    return mesa, trainer, published.rows


# --- scores that are not finite -----------------------------------------------------------------------------------


def test_nan_outputs_from_a_later_look_on_are_counted_and_withheld(tmp_path):
    """No metric of them, never NaN; the counts are reported; training goes on."""
    mesa, trainer, rows = run(tmp_path, Broken(16), Metrics())
    assert trainer.global_step == 24
    assert not mesa.disabled
    assert all(math.isfinite(value) for row in rows.values() for value in row.values())
    withheld = {"score/y", "competence/y", "capability", "gap", "gap_low", "gap_high", "conflict/base", "conflict/z"}
    for step, row in rows.items():
        for name in withheld:
            assert (f"mesa/apart/{name}" in row) == (step < 16), (step, name)
        for name in ("mesa/val/competence/y", "mesa/gap/worst", "mesa/base/worst"):
            assert (name in row) == (step < 16), (step, name)
    found = finding(tmp_path, 16, "competence", "apart", "y")
    assert found["value"] is None
    assert found["detail"]["nonfinite"] == 400
    assert found["detail"]["reason"] == "400 items have no finite score"
    assert rows[16]["mesa/apart/n"] == 0


def test_the_regime_of_what_has_no_finite_score_is_undetermined_with_the_reason(tmp_path):
    """On the reference too: the reason is not that the model is incapable."""
    mesa, _, rows = run(tmp_path, Broken(16))
    assert rows[16]["mesa/apart/regime"] == Regime.UNDETERMINED
    _, judgement = mesa.run.last
    assert [verdict.regime for verdict in judgement.verdicts] == ["undetermined"]
    assert "no finite" in judgement.verdicts[0].reason


def test_nan_outputs_on_a_shifted_distribution_say_so_in_the_regime(tmp_path):
    mesa, _, rows = run(tmp_path, Broken(16, clean), shifted={"apart": CLEAN})
    assert rows[16]["mesa/val/competence/y"] > 0.9
    assert rows[16]["mesa/apart/regime"] == Regime.UNDETERMINED
    _, judgement = mesa.run.last
    assert "items have no finite" in judgement.verdicts[0].reason


def test_a_distribution_that_breaks_does_not_raise_the_worst(tmp_path):
    """``mesa/base/worst`` is what users select on, ``mesa/gap/worst`` what they look at: NaN must not improve them."""
    shifted = {"apart": CLEAN, "like": toy.loader(200, seed=7)}
    _, trainer, rows = run(tmp_path, Broken(16, clean), shifted=shifted)
    assert "mesa/apart/competence/y" not in rows[16]
    assert rows[16].get("mesa/base/worst", -math.inf) <= rows[8]["mesa/base/worst"]
    assert rows[16].get("mesa/gap/worst", math.inf) >= rows[8]["mesa/gap/worst"]
    assert float(trainer.callback_metrics["mesa/base/worst"]) <= rows[8]["mesa/base/worst"] + 1e-6


def test_one_nan_among_many_withholds_the_metric(tmp_path):
    """Leaving the item out would be a choice in favor of the model."""
    data = toy.ToyData(400, confounded=False, seed=2)
    marked = data.x[17].clone()
    run(tmp_path, Broken(8, lambda x: (x == marked).all(1)), shifted={"apart": data})
    found = finding(tmp_path, 8, "score", "apart", "y")
    assert (found["value"], found["n"], found["detail"]["nonfinite"]) == (None, 399, 1)
    assert finding(tmp_path, 0, "score", "apart", "y")["n"] == 400


def test_nan_outputs_before_training_are_no_wrong_use(tmp_path):
    """Counted and reported, not mistaken for data without a conflict; training goes on, and recovers."""

    class Recovers(Broken):
        def forward(self, x):
            logits = toy.ToyModel.forward(self, x)
            return logits if self.net.training or self.global_step else logits * torch.nan

    mesa, trainer, rows = run(tmp_path, Recovers(0))
    assert trainer.global_step == 24
    assert "mesa/apart/gap" not in rows[0]
    assert "mesa/apart/gap" in rows[8]
    assert mesa.alarm.look == 4


def test_a_score_that_is_not_finite_is_treated_like_outputs(tmp_path):
    """Infinite ones too, whatever the bounds; a proxy's own leave base alone."""

    def sometimes(batch, outputs):
        return (outputs.argmax(1) == batch["z"]).float() / (batch["z"] != 0)

    _, trainer, rows = run(tmp_path, proxies=[ScoreFunction(sometimes, chance=0.25)])
    assert trainer.global_step == 24
    assert "mesa/apart/competence/sometimes" not in rows[8]
    assert "mesa/apart/competence/y" in rows[8]
    assert "mesa/apart/gap" in rows[8]
    assert finding(tmp_path, 8, "score", "apart", "sometimes")["detail"]["nonfinite"] > 50


def test_an_infinite_loss_is_clipped_and_a_nan_is_not(tmp_path):
    """``NegativeLoss`` bounds the worst; NaN is unknown."""
    loss = NegativeLoss(lambda batch, outputs: outputs, (0.0, 4.0), "loss")
    scores = loss.score(None, torch.tensor([0.5, 9.0, torch.inf, torch.nan, -1.0]))
    assert scores[:3].tolist() == [-0.5, -4.0, -4.0]
    assert scores[3].isnan()
    assert scores[4] == 0


def test_masked_choices_are_no_missing_outputs(tmp_path):
    """A logit of minus infinity forbids a choice."""
    _, trainer, rows = run(tmp_path, outputs=lambda outputs, batch: outputs.masked_fill(batch["z"][:, None] == 9, 0))
    assert trainer.global_step == 24
    forbid = torch.tensor([0.0, 0.0, 0.0, -torch.inf])
    _, _, masked = run(tmp_path / "masked", outputs=lambda outputs, batch: outputs + forbid)
    assert masked[24].keys() == rows[24].keys()


# --- an error at a later look -------------------------------------------------------------------------------------


class Fails(Broken):
    """Raises where the other gives NaN."""

    def forward(self, x):
        if not self.net.training and self.global_step >= self.from_step:
            raise RuntimeError("out of luck")
        return super().forward(x)


def test_an_error_at_a_later_look_ends_the_monitor_with_one_warning(tmp_path):
    """Training goes on to the same weights; ``mesa/disabled`` says so; there are no more looks."""
    bare = toy.ToyModel()
    model = Fails(8)
    model.load_state_dict(bare.state_dict())
    toy.fit(tmp_path / "bare", model=bare)
    published, mesa = Published(), toy.monitor(on_error="disable")
    with pytest.warns(MesaWarning, match="'mesa' is off from step 8 on, training goes on: .*out of luck") as caught:
        trainer = toy.fit(tmp_path, mesa, model=model, logger=published)
    assert len([warning for warning in caught if warning.category is MesaWarning]) == 1
    assert trainer.global_step == 24
    assert torch.equal(model.net.weight, bare.net.weight)
    assert trainer.callback_metrics["mesa/disabled"] == 1
    assert list(published.rows) == [0]
    assert mesa.disabled
    assert {line["step"] for line in read_journal(tmp_path / "mesa/findings.jsonl")} == {0}


def test_an_error_at_a_later_look_raises_where_asked_to(tmp_path):
    with pytest.raises(Exception, match="out of luck"):
        toy.fit(tmp_path, toy.monitor(on_error="raise"), model=Fails(8))


@pytest.mark.parametrize("on_error", ["disable", "raise"])
def test_an_error_at_the_first_look_always_raises(tmp_path, on_error):
    model = Fails(0)
    before = model.net.weight.detach().clone()
    with pytest.raises(ConfigurationError, match=r"pl_module\(a tensor .*failed with RuntimeError: out of luck"):
        toy.fit(tmp_path, toy.monitor(on_error=on_error), model=model)
    assert torch.equal(model.net.weight, before)


def test_an_error_in_the_users_action_ends_the_monitor_and_not_the_training(tmp_path):
    def action(alert, trainer, pl_module):
        raise RuntimeError("no network")

    with pytest.warns(MesaWarning, match="no network"):
        trainer = toy.fit(tmp_path, toy.monitor(on_alert=action))
    assert trainer.global_step == 24


def test_the_monitor_is_on_again_in_the_next_fit(tmp_path):
    mesa = toy.monitor()
    with pytest.warns(MesaWarning, match="out of luck"):
        toy.fit(tmp_path / "first", mesa, model=Fails(8))
    trainer = toy.fit(tmp_path / "second", mesa)
    assert trainer.callback_metrics["mesa/disabled"] == 0
    assert mesa.alarm.look == 4


# --- data that say little -----------------------------------------------------------------------------------------


def test_one_item_is_too_few_to_tell(tmp_path):
    """Chance is certain to be right on it: it has a score and no competence; nothing is alarmed about."""
    data = toy.ToyData(50, confounded=False, seed=2)
    one = torch.utils.data.Subset(data, [int((data.y != data.z).nonzero()[0])])
    with pytest.warns(MesaWarning, match=NO_ROOM.format("apart", "y", 1, "there")):
        mesa, trainer, rows = run(tmp_path, shifted={"apart": one})
    assert trainer.global_step == 24
    assert not mesa.alerts
    assert rows[24]["mesa/apart/n"] == 1
    assert rows[24]["mesa/apart/regime"] == Regime.UNDETERMINED
    assert "mesa/apart/competence/y" not in rows[24]
    reason = "an output that does not look at the input already scores the ceiling"
    assert finding(tmp_path, 24, "competence", "apart", "y")["detail"]["reason"] == reason


def test_one_reference_item_is_too_few_too(tmp_path):
    """The reason is the reference's, not that the model is incapable."""
    one = torch.utils.data.Subset(toy.ToyData(9, confounded=True), [0])
    with pytest.warns(MesaWarning, match=NO_ROOM.format("reference", "y", 1, "in this run")):
        mesa, trainer, rows = run(tmp_path, reference=one)
    assert trainer.global_step == 24
    assert not mesa.alerts
    assert "mesa/apart/gap" not in rows[24]
    assert rows[24]["mesa/apart/regime"] == Regime.UNDETERMINED


def test_a_single_class_has_no_competence(tmp_path):
    """A constant output already scores the ceiling."""
    data = toy.ToyData(400, confounded=False, seed=2)
    kept = torch.utils.data.Subset(data, (data.y == 1).nonzero()[:, 0].tolist())
    with pytest.warns(MesaWarning, match=NO_ROOM.format("apart", "y", len(kept), "there")) as said:
        mesa, _, rows = run(tmp_path, shifted={"apart": kept})
    assert len([one for one in said if one.category is MesaWarning]) == 1, "at the first look alone"
    assert "mesa/apart/competence/y" not in rows[24]
    assert "mesa/apart/score/y" in rows[24]
    assert "mesa/apart/gap" not in rows[24]
    assert rows[24]["mesa/apart/conflict/z"] > 0.9
    assert rows[24]["mesa/base/worst"] <= 1
    assert mesa.alarm.look == 4


def test_a_ceiling_that_is_not_above_chance_is_said_of_base_and_of_the_witness(tmp_path):
    """Of any score, and where a user's ceiling is at fault."""

    def constant(batch, outputs):
        return torch.full((len(outputs),), 0.5)

    base = ScoreFunction(constant, name="half", ceiling=0.5)
    witness = ScoreFunction(constant, name="able", ceiling=0.4)
    with pytest.warns(MesaWarning, match="reaches its ceiling") as said:
        run(tmp_path, base=base, witness=witness)
    messages = [message for one in said if "reaches its ceiling" in (message := str(one.message))]
    assert [message.partition(" reaches its ceiling (")[0].partition("on ")[2] for message in messages] == [
        f"{where!r} chance at {name!r} (0.5)" for where in ("val", "apart") for name in ("half", "able")
    ]
    assert all(len(message) < 4 * 120 for message in messages)


def test_a_class_that_never_occurs_is_only_a_choice_less(tmp_path):
    """Chance is that of the best constant among those that do occur."""
    data = toy.ToyData(400, confounded=False, seed=2)
    kept = torch.utils.data.Subset(data, (data.y != 3).nonzero()[:, 0].tolist())
    run(tmp_path, shifted={"apart": kept})
    found = finding(tmp_path, 24, "competence", "apart", "y")
    counts = data.y[data.y != 3].bincount()
    assert found["estimate"]["chance"] == pytest.approx(float(counts.max() / counts.sum()))
    assert found["value"] is not None


def test_no_conflict_item_among_those_seen_is_not_identified(tmp_path):
    """Under ``limit_batches`` nobody knows what the other items are: no refusal, and the reason."""
    mesa, trainer, rows = run(tmp_path, shifted={"apart": toy.loader(400, seed=4)}, limit_batches=8)
    assert trainer.global_step == 24
    assert not mesa.alerts
    assert rows[24]["mesa/apart/regime"] == Regime.NOT_IDENTIFIED
    assert not [key for key in rows[24] if key.startswith(("mesa/apart/behavioral", "mesa/apart/weight_gap"))]
    _, judgement = mesa.run.last
    assert "no item seen here tells base and the proxies apart" in judgement.verdicts[0].reason


def test_a_proxy_that_always_agrees_with_base_is_refused_or_not_identified(tmp_path):
    """A copy of base under another name tells nothing, wherever it is looked at."""
    copied = [Matches("y", name="copied")]
    with pytest.raises(ConfigurationError, match="'y' and 'copied' prescribe different choices"):
        run(tmp_path, proxies=copied)
    mesa, _, rows = run(tmp_path / "limited", proxies=copied, limit_batches=4)
    assert {alert.signature for alert in mesa.alerts} <= {"capability_failure"}
    assert not {row["mesa/apart/regime"] for row in rows.values()} & {Regime.PSEUDO_ALIGNED, Regime.ROBUSTLY_ALIGNED}


def test_one_proxy_that_disagrees_is_enough(tmp_path):
    """Another that always agrees is not refused, and never named."""
    mesa, _, _ = run(tmp_path, proxies=[Matches("y", name="copied"), Matches("z")])
    assert {alert.proxy for alert in mesa.alerts if alert.signature == "proxy_pursued"} == {"z"}


def test_a_distribution_without_conflict_beside_one_with_is_not_robust(tmp_path):
    """It says nothing about proxies; the other one does."""
    shifted = {"apart": toy.shifted(), "like": toy.loader(400, seed=4)}
    _, _, rows = run(tmp_path, shifted=shifted)
    assert rows[24]["mesa/apart/regime"] == Regime.PSEUDO_ALIGNED
    assert rows[24]["mesa/like/regime"] == Regime.NOT_IDENTIFIED


def test_base_alone_has_nothing_to_disagree_with(tmp_path):
    """No proxy: no conflict is asked for; what is lost has no named cause."""
    mesa, _, rows = run(tmp_path, proxies=[])
    assert {alert.signature for alert in mesa.alerts} == {"base_lost"}
    assert rows[24]["mesa/apart/regime"] == Regime.UNDETERMINED


def test_thousands_of_conflict_items_do_not_overflow(tmp_path):
    """P-values far below what a float can hold."""
    mesa, _, rows = run(tmp_path, shifted={"apart": toy.ToyData(6_000, confounded=False, seed=2)})
    assert {alert.signature for alert in mesa.alerts} >= {"objective_lost", "proxy_pursued"}
    assert math.isfinite(rows[24]["mesa/apart/evidence/proxy_pursued"])


def test_a_dataset_of_tuples_without_names_has_indices(tmp_path):
    """Keys that are indices, for a shifted distribution of another layout than the reference."""
    data = toy.ToyData(400, confounded=False, seed=2)
    tuples = TensorDataset(data.x, data.y, data.z)
    with pytest.raises(ConfigurationError, match="distribution 'apart': inputs: cannot take 'x' out of a batch of typ"):
        run(tmp_path, shifted={"apart": tuples})
