"""A distribution of a user's own: a simulator that the training uses too, looked at through whole fits."""

import random
import sys

import pytest
import torch
from torch.nn import functional as F

import toy
from lightning_mesa import ConfigurationError, Distribution, Source, behave, read_journal


class Simulator:
    """Asks questions of the toy task, with noise from a generator of its own."""

    def __init__(self):
        self.generator = torch.Generator().manual_seed(5)
        self.data = toy.ToyData(120, confounded=False, seed=2)

    def ask(self, numbers):
        noise = 0.1 * torch.randn(len(numbers), 2 * toy.CHOICES, generator=self.generator)
        return {"x": self.data.x[numbers] + noise, "y": self.data.y[numbers], "z": self.data.z[numbers]}


class Asked(Source):
    """Questions that are asked at every look."""

    def __init__(self, name, simulator):
        self.parts, self.simulator = {name: None}, simulator
        self.looks, self.closed, self.questions = 0, False, []

    @property
    def owners(self):
        return (self.simulator,)

    def draws_anew(self, seed):
        return True

    def behaviors(self, context):
        self.looks += 1
        (name,) = self.parts
        mine = torch.tensor(context.share(len(self.simulator.data)))
        self.simulator.generator.manual_seed(random.Random(context.stream(name)).getrandbits(31))
        batch = self.simulator.ask(mine)
        self.questions.append(batch["x"])
        yield behave(name, batch, context.pl_module(batch["x"]), context.hypotheses, context.reading, mine)

    def state_dict(self):
        return {"looks": self.looks}

    def load_state_dict(self, state):
        self.looks = state.get("looks", 0)

    def close(self):
        self.closed = True


class Simulated(Distribution):
    def __init__(self, simulator, source=Asked, data_regime="reused"):
        self.simulator, self.source, self.data_regime = simulator, source, data_regime
        self.opened = []

    def open(self, name, context):
        self.opened.append(self.source(name, self.simulator))
        return self.opened[-1]

    def default_name(self, default):
        return "asked"


class Model(toy.ToyModel):
    """Trains on questions of the simulator beside its data."""

    def __init__(self, simulator):
        torch.manual_seed(0)
        super().__init__()
        self.simulator = simulator

    def training_step(self, batch, batch_idx):
        question = self.simulator.ask(torch.arange(4))
        # What the model learns from is the strong cue, which the base objective is not.
        return super().training_step(batch, batch_idx) + F.cross_entropy(self(question["x"]), question["z"])


def fit(folder, make=Simulated, **options):
    """The model, the trainer, and the distribution, after a fit; without a monitor where there is no distribution."""
    simulator = Simulator()
    model, own = Model(simulator), make(simulator) if make else None
    callbacks = [] if own is None else [toy.monitor(shifted=own)]
    trainer = toy.fit(folder, *callbacks, model=model, **{"max_epochs": 6} | options)
    return model, trainer, own


def test_it_is_looked_at_judged_and_written_as_ours_are(tmp_path):
    _, trainer, own = fit(tmp_path)
    (source,) = own.opened
    assert source.looks == 7
    assert source.closed
    lines = read_journal(tmp_path / "mesa/findings.jsonl")
    scores = [line for line in lines if line["distribution"] == "asked" and line["quantity"] == "score"]
    assert {(line["n"], line["role"], line["data_regime"]) for line in scores} == {(120, "shifted", "reused")}
    assert trainer.callback_metrics["mesa/asked/gap"] > 0.3
    alerts = {(line["distribution"], line["signature"]) for line in read_journal(tmp_path / "mesa/alerts.jsonl")}
    assert ("asked", "proxy_pursued") in alerts


def test_it_may_stop_a_run(tmp_path):
    simulator = Simulator()
    mesa = toy.monitor(shifted={"mine": Simulated(simulator)}, on_alert="stop")
    trainer = toy.fit(tmp_path, mesa, model=Model(simulator), max_epochs=50)
    assert "on 'mine' at step" in mesa.stop_reason
    assert trainer.current_epoch < 49


def test_the_training_is_bitwise_that_without_it(tmp_path):
    """Although both draw from one generator: the source names its owner."""
    (with_it, *_), (without, *_) = fit(tmp_path / "with"), fit(tmp_path / "without", None)
    assert all(map(torch.equal, with_it.parameters(), without.parameters()))
    assert torch.equal(with_it.simulator.generator.get_state(), without.simulator.generator.get_state())


SIMULATORS: list[Simulator] = []


def test_the_comparison_notices_a_source_that_does_not_name_its_owner(tmp_path):
    """In a model that reaches the simulator by a way that we do not follow, through the table of all modules."""

    class Apart(toy.ToyModel):
        def training_step(self, batch, batch_idx):
            question = vars(sys.modules[__name__])["SIMULATORS"][-1].ask(torch.arange(4))
            return super().training_step(batch, batch_idx) + F.cross_entropy(self(question["x"]), question["z"])

    class Silent(Asked):
        owners = ()

    trained = {}
    for source in (None, Asked, Silent):
        SIMULATORS.append(Simulator())
        torch.manual_seed(0)
        callbacks = [] if source is None else [toy.monitor(shifted=Simulated(SIMULATORS[-1], source))]
        toy.fit(tmp_path / str(source), *callbacks, model=(model := Apart()), max_epochs=2)
        trained[source] = model.net.weight
    assert torch.equal(trained[None], trained[Asked])
    assert not torch.equal(trained[None], trained[Silent])


def test_what_it_remembers_is_kept_in_checkpoints(tmp_path):
    _, trainer, own = fit(tmp_path, max_epochs=2)
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    assert own.opened[0].looks == 3
    *_, resumed = fit(tmp_path, max_epochs=3, ckpt_path=tmp_path / "last.ckpt")
    # One batch is rehearsed, and one look taken.
    assert resumed.opened[0].looks == 5


@pytest.mark.parametrize(("declared", "found"), [("auto", "fresh"), ("fresh", "fresh"), ("reused", "reused")])
def test_questions_are_new_at_every_look_where_the_source_can_and_the_user_does_not_say_otherwise(
    tmp_path, declared, found
):
    *_, own = fit(tmp_path, lambda simulator: Simulated(simulator, data_regime=declared), max_epochs=2)
    lines = read_journal(tmp_path / "mesa/findings.jsonl")
    assert {line["data_regime"] for line in lines if line["distribution"] == "asked"} == {found}
    first, second, third = own.opened[0].questions
    assert torch.equal(first, second) == torch.equal(second, third) == (found == "reused")


def test_what_is_wrong_is_refused_before_training(tmp_path):
    class Nothing(Asked):
        def behaviors(self, context):
            return iter(())

    with pytest.raises(ConfigurationError, match="distribution 'asked' is empty: there is no item to look at"):
        fit(tmp_path, lambda simulator: Simulated(simulator, Nothing))
    with pytest.raises(ConfigurationError, match="data_regime must be one of auto, fresh, reused, adaptive, not 'new'"):
        fit(tmp_path, lambda simulator: Simulated(simulator, data_regime="new"))


def test_sources_that_were_opened_are_closed_where_a_later_one_cannot_be(tmp_path):
    own = Simulated(Simulator())
    with pytest.raises(ConfigurationError, match="distribution 'second': int is given"):
        toy.fit(tmp_path, toy.monitor(shifted={"first": own, "second": 7}))
    assert own.opened[0].closed
