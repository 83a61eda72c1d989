import pytest
import torch

import toy
from lightning_mesa import ConfigurationError, LoaderDistribution
from lightning_mesa.callbacks import monitor as monitor_module


class Plateau(toy.ToyModel):
    """Lowers its learning rate by a value of the monitor."""

    def __init__(self, key: str) -> None:
        super().__init__()
        self.key = key

    def configure_optimizers(self):
        optimizer = torch.optim.SGD(self.parameters(), lr=0.05)
        scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, mode="max")
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "monitor": self.key}}


@pytest.mark.parametrize(
    ("key", "adaptive"),
    [
        ("mesa/base/worst", {"val", "apart"}),
        ("mesa/apart/competence/y", {"apart"}),
        ("mesa/apart/gap", {"val", "apart"}),
        ("val/loss", set()),
    ],
)
def test_data_whose_values_drive_a_plateau_scheduler_are_adaptive_and_raise_no_alert(tmp_path, key, adaptive):
    mesa = toy.monitor()
    toy.fit(tmp_path, mesa, model=Plateau(key), max_epochs=12)
    findings, judgement = mesa._last
    assert {f.distribution for f in findings if f.data_regime == "adaptive"} == adaptive
    assert judgement.run.regime == "pseudo-aligned"  # numbers, limits and regime are there in any case
    assert bool(mesa.alerts) == (not adaptive)


def test_what_was_concluded_is_said_in_one_line(tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr(monitor_module, "rank_zero_info", said.append)
    toy.fit(tmp_path, toy.monitor(), max_epochs=1)
    assert "mesa looks at val, apart: the same held-out items at every look" in said


class Noisy(toy.ToyData):
    """Draws its noise anew."""

    def __getitem__(self, i):
        return super().__getitem__(i) | {"x": self.x[i] + torch.randn(8)}


@pytest.mark.parametrize(("data_regime", "differs"), [("reused", False), ("fresh", True)])
def test_fresh_data_are_drawn_anew_at_each_look_and_reused_data_are_not(tmp_path, data_regime, differs):
    noisy = LoaderDistribution(Noisy(300, confounded=False, seed=2), data_regime=data_regime)
    mesa = toy.monitor(shifted={"apart": noisy})
    scores = []
    mesa.actions.callables = []
    frozen = toy.ToyModel(learning_rate=0.0)

    class Record(toy.pl.Callback):
        def on_validation_end(self, trainer, pl_module):
            if not trainer.sanity_checking:
                scores.append(float(trainer.callback_metrics["mesa/apart/score/y"]))

    toy.fit(tmp_path, mesa, Record(), model=frozen)
    assert (len(set(scores)) > 1) == differs


def test_an_unknown_data_regime_is_refused():
    with pytest.raises(ConfigurationError, match="fresh, reused, adaptive"):
        LoaderDistribution("val", data_regime="stale")
