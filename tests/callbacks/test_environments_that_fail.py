"""What cannot be looked at is refused before training; what goes wrong later does not end the training."""

from pathlib import Path
from typing import Any

import pytest
import torch

import environments
from environments import (
    Agent,
    Endless,
    Failing,
    Hanging,
    NanReward,
    TwoDoors,
    all_are_closed,
    apart,
    failing,
    findings,
    watched,
)
from lightning_mesa import ConfigurationError, EnvDistribution, EpisodeReturn, Matches, MesaMonitor, Reached
from lightning_mesa.errors import MesaWarning
from namespace import pl

pytestmark = pytest.mark.usefixtures(all_are_closed.__name__)


def test_an_environment_that_raises_ends_the_monitor_and_not_the_training(tmp_path: Path):
    mesa = failing(Failing, after=120)
    with pytest.warns(MesaWarning, match=r"is off from step \d+ on, training goes on: RuntimeError: the simulator"):
        trainer = environments.fit(tmp_path, mesa)
    assert mesa.disabled
    assert trainer.global_step == 80  # forty batches, two optimizers


def test_an_environment_that_hangs_is_interrupted_and_training_goes_on(tmp_path: Path):
    mesa = failing(Hanging, after=120, timeout=2)
    with pytest.warns(MesaWarning, match="TimeoutError: the environment's step has not come back within 2 s"):
        environments.fit(tmp_path, mesa)
    assert mesa.disabled


@pytest.mark.slow
def test_a_reward_that_is_nan_withholds_the_numbers_and_raises_nothing(tmp_path: Path):
    mesa = failing(NanReward, after=120)
    mesa = MesaMonitor(
        EpisodeReturn((0, 1)),
        proxies=[Reached("red")],
        reference=mesa.reference["reference"],
        shifted=mesa.shifted,
        max_overhead=None,
    )
    trainer = environments.fit(tmp_path, mesa, logger=True)
    assert not mesa.disabled
    assert not mesa.alerts
    last = [f for f in findings(trainer) if f.quantity == "gap"][-1]
    assert last.value is None
    assert "have no finite score" in last.detail["reason"]


def test_episodes_without_end_are_cut_and_count_as_they_stand(tmp_path: Path):
    mesa = failing(Endless, after=120, max_steps=20)
    trainer = environments.fit(tmp_path, mesa)
    assert not mesa.disabled
    assert trainer.callback_metrics["mesa/apart/episode_length"] == 20
    assert trainer.callback_metrics["mesa/apart/score/goal"] == 0


def test_a_policy_that_is_nan_withholds_the_numbers(tmp_path: Path):
    """A training that has diverged."""

    class Diverging(Agent):
        def training_step(self, batch: Any, batch_idx: int) -> None:
            super().training_step(batch, batch_idx)
            if batch_idx == 20:
                with torch.no_grad():
                    self.actor[0].weight.fill_(torch.nan)

        def forward(self, seen: Any) -> Any:
            logits = super().forward(seen)
            return logits.nan_to_num() if self.training else logits

    mesa = watched(shifted={"apart": EnvDistribution(apart, episodes=20, decisions=20)})
    trainer = environments.fit(tmp_path, mesa, model=Diverging(), logger=True)
    assert not mesa.disabled
    gaps = [f for f in findings(trainer) if f.quantity == "gap"]
    assert gaps[0].value is not None
    assert gaps[-1].value is None


def test_environments_are_closed_after_an_exception_in_training(tmp_path: Path):
    class Stops(pl.Callback):
        def on_train_batch_end(self, *args: Any) -> None:
            raise RuntimeError("somebody else's")

    with pytest.raises(RuntimeError, match="somebody else's"):
        environments.fit(tmp_path, watched(), Stops())


def test_environments_are_closed_where_the_first_look_fails(tmp_path: Path):
    with pytest.raises(ConfigurationError, match="info never had 'chest'"):
        environments.fit(tmp_path, watched(base=Reached("chest")))


SHARED = TwoDoors()


def counting(pl_module: Any, observation: Any, state: Any) -> tuple[Any, None]:
    """Its distribution has no probabilities of single actions."""
    return torch.distributions.Poisson(pl_module(observation)[:, 0].exp()), None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"inputs": "x"}, "episodes are in no batch: leave out forward=, inputs="),
        ({"groups": "color"}, "episodes are in no batch"),
        ({"reference": "val"}, "scores episodes, and distribution 'val' has items"),
        ({"base": Matches("goal")}, "must be of one kind"),
        ({"base": Matches("goal"), "proxies": []}, "scores items, and distribution 'reference' has episodes"),
        ({"reference": EnvDistribution(lambda: 3)}, "gives int: it must give an environment of Gymnasium"),
        ({"reference": EnvDistribution(TwoDoors())}, "is no environment of the monitor's own"),
        ({"reference": EnvDistribution("model.nothing")}, "no distribution 'model.nothing'"),
        ({"reference": EnvDistribution(lambda: SHARED)}, "another one each time"),
        ({"reference": EnvDistribution(TwoDoors, lambda m, o, s: m(o))}, r"it must return \(logits or Distribution"),
        ({"reference": EnvDistribution(TwoDoors, lambda m, o, s: (m(o)[0], s))}, "logits of shape"),
        ({"reference": EnvDistribution("model.envs")}, "are those that the model trains in"),
        (
            {"reference": EnvDistribution(TwoDoors, statistics="model.nothing")},
            "distribution 'reference': there is no statistics='model.nothing'",
        ),
        ({"reference": EnvDistribution(TwoDoors, counting, decisions=5)}, r"must return logits \[n, A\] or a torch"),
    ],
)
def test_what_cannot_be_looked_at_is_refused_before_training(tmp_path: Path, options: Any, message: str):
    model = Agent()
    with pytest.raises(ConfigurationError, match=message):
        environments.fit(tmp_path, watched(**options), model=model)
    assert not model.rewards


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"episodes": 0}, "episodes must be a whole number of at least 1"),
        ({"num_envs": 1.5}, "num_envs must be"),
        ({"timeout": 0}, "timeout must be a positive number"),
        ({"data_regime": "new"}, "data_regime must be one of"),
        ({"policy": 3}, "policy must be a function"),
        ({"decisions": -1}, "decisions must be a whole number of at least 0"),
        ({"discount": 0}, r"discount must lie in \(0, 1\]"),
        ({"statistics": 3}, "statistics must be a function, or the import path of one"),
    ],
)
def test_arguments_that_cannot_be_right_are_refused(options: Any, message: str):
    with pytest.raises(ConfigurationError, match=message):
        EnvDistribution(TwoDoors, **options)
