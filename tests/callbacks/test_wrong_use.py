"""Wrong use is refused before the first optimizer step, with a message that says what to do."""

import re
import textwrap
from contextlib import suppress
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, IterableDataset

import toy
from lightning_mesa import Alarm, ConfigurationError, LoaderDistribution, Matches, MesaMonitor, NegativeLoss
from lightning_mesa import ScoreFunction as Score
from lightning_mesa.callbacks.compat import check_strategy
from namespace import part, pl

LOADER = toy.shifted()
REMEDY = re.compile(
    r"\b(pass|give|use|must|add|choose|say|set|name|one of them|there are|its keys are|at least)\b", re.IGNORECASE
)


def assert_helps(message):
    """At most four lines of a terminal, with a remedy, and no tensor."""
    assert len(textwrap.wrap(message, 120)) <= 4, message
    assert REMEDY.search(message), message
    assert "tensor(" not in message


# --- what no trainer is needed to see -----------------------------------------------------------------------------

AT_ONCE = {
    "a distribution name that is reserved": ({"shifted": {"gap": LOADER}}, "'gap' is reserved .* another name"),
    "a reference name that is reserved": ({"reference": {"base": LOADER}}, "'base' is reserved"),
    "a distribution name unfit for a metric": ({"shifted": {"far away": LOADER}}, "use letters, digits, '_', '.'"),
    "a distribution name with a slash": ({"shifted": {"far/away": LOADER}}, "use letters, digits, '_', '.'"),
    "an empty distribution name": ({"shifted": {"": LOADER}}, "use letters, digits"),
    "reference and shifted of one name": ({"shifted": {"val": LOADER}}, "give them different names"),
    "two names that become the same": ({"shifted": ["model.a", "datamodule.a"]}, "two .* named 'a': pass a mapping"),
    "no shifted distribution in the mapping": ({"shifted": {}}, "no shifted distribution is given: pass at least one"),
    "no reference in the list": ({"reference": []}, "no reference distribution is given: pass at least one"),
    "two objectives of one name": ({"proxies": [Matches("y")]}, "two objectives are named 'y': give one of them name="),
    "intended named like a proxy": ({"intended": Matches("x", name="z")}, "two objectives are named 'z'"),
    "a proxy name that is reserved": ({"proxies": [Matches("z", name="neither")]}, "'neither' is reserved"),
    "a proxy named base": ({"proxies": [Matches("z", name="base")]}, "'base' is reserved"),
    "proxies that are no list": ({"proxies": Matches("z")}, r"proxies must be a list .* proxies=\[Matches"),
    "proxies that are a string": ({"proxies": "z"}, "proxies must be a list of objectives"),
    "a base that is a string": ({"base": "y"}, r"'y' is no objective: pass Matches\('key'\)"),
    "a base that is a class": ({"base": Matches}, "is no objective: pass Matches"),
    "a base that is None": ({"base": None}, "None is no objective"),
    "a lambda without a name": ({"base": lambda batch, outputs: outputs[:, 0]}, "lambda needs a name: pass name="),
    "an unknown on_alert": ({"on_alert": "email"}, "unknown action 'email'; use 'log', 'checkpoint', 'stop', a func"),
    "an unknown on_alert in a list": ({"on_alert": ["log", "halt"]}, "unknown action 'halt'; use 'log'"),
    "on_alert=None": ({"on_alert": None}, "on_alert: .*None.*use 'log'"),
    "on_alert=True": ({"on_alert": True}, "on_alert: .*True.*use 'log'"),
    "an unknown on_error": ({"on_error": "ignore"}, "on_error must be 'disable' or 'raise', not 'ignore'"),
    "every_n_steps=0": ({"every_n_steps": 0}, "every_n_steps must be a whole number of at least 1, not 0"),
    "every_n_steps=0.5": ({"every_n_steps": 0.5}, "every_n_steps must be a whole number"),
    "limit_batches=0": ({"limit_batches": 0}, "limit_batches must be a whole number of at least 1, not 0"),
    "limit_batches=-1": ({"limit_batches": -1}, "limit_batches must be a whole number"),
    "a monitor name with a slash": ({"name": "a/b"}, "monitor name 'a/b' cannot be part of a metric name"),
    "a monitor name that is empty": ({"name": ""}, "monitor name '' cannot be"),
    "a monitor name that leads out of the log folder": ({"name": ".."}, r"monitor name '\.\.'"),
}


@pytest.mark.parametrize(("options", "message"), AT_ONCE.values(), ids=AT_ONCE.keys())
def test_an_argument_that_cannot_be_right_is_refused_at_once(options, message):
    with pytest.raises(ConfigurationError, match=message) as refused:
        toy.monitor(**options)
    assert_helps(str(refused.value))


@pytest.mark.parametrize("name", ["gap", "base", "search", "alert", "overhead", "age_steps", "disabled"])
@pytest.mark.parametrize("argument", ["shifted", "reference"])
def test_names_of_metrics_of_their_own_are_reserved(argument, name):
    with pytest.raises(ConfigurationError, match=f"distribution '{name}' is reserved"):
        toy.monitor(**{argument: {name: LOADER}})


@pytest.mark.parametrize(
    ("option", "value"), [("alpha", 0), ("alpha", 1), ("gap", -0.1), ("capability", 1.5), ("alpha", float("nan"))]
)
def test_an_alarm_out_of_range_is_refused(option, value):
    with pytest.raises(ConfigurationError, match=f"Alarm: {option} must lie between 0 and 1, not"):
        Alarm(**{option: value})


@pytest.mark.parametrize(
    ("size", "said"), [(0, "0"), (-1, "-1"), (1.5, "1.5"), ("8", "'8'"), (None, "None"), (torch.ones(2), "a tensor")]
)
def test_a_batch_size_must_be_a_positive_whole_number(size, said):
    with pytest.raises(ConfigurationError, match=f"batch_size must be a whole number of at least 1, not {said}"):
        LoaderDistribution(toy.ToyData(4, confounded=True), batch_size=size)


@pytest.mark.parametrize(("where", "said"), [(torch.ones(3), "a tensor"), ("apart", "'apart'"), ({}, "{}"), (3, "3")])
def test_where_must_choose_items(where, said):
    with pytest.raises(ConfigurationError, match=f"where must be 'conflict', a mapping .*, not {said}"):
        LoaderDistribution(toy.ToyData(4, confounded=True), where=where)


# --- what the trainer, the data and the model show ----------------------------------------------------------------


class Watched(pl.Callback):
    """Remembers the trainer, which a refusal does not return."""

    def setup(self, trainer, pl_module, stage):
        self.trainer = trainer


class Wide(toy.ToyModel):
    """One logit per item and position."""

    def forward(self, x):
        return super().forward(x)[:, :, None].expand(-1, -1, 3)

    def training_step(self, batch, batch_idx):
        return F.cross_entropy(self(batch["x"])[..., 0], batch["y"])

    def validation_step(self, batch, batch_idx):
        """None."""


class Flat(Wide):
    """Rows that are no items."""

    def forward(self, x):
        return super().forward(x).transpose(1, 2).flatten(0, 1)


class OneNumber(Wide):
    def forward(self, x):
        return self.net(x)[:, 0]


class Textual(Wide):
    def forward(self, x):
        return "cat"


class Offers(toy.ToyModel):
    """Offers distributions that clash."""

    def mesa_distributions(self):
        return {"val": toy.shifted()}


class Endless(IterableDataset):
    """Fails where it is read as if it had an end."""

    def __iter__(self):
        data = toy.ToyData(64, confounded=True)
        for i in range(5_000):
            yield data[i % 64]
        raise AssertionError("an endless loader was read for ever")


def too_long(batch):
    return torch.cat([batch["y"], batch["y"]])


def scalar_score(batch, outputs):
    return (outputs.argmax(1) == batch["y"]).float().mean()


def in_floats(batch):
    return batch["y"].float()


def listed(batch, outputs):
    return (outputs.argmax(1) == batch["y"]).tolist()


BEFORE_TRAINING = {
    "a target key that is not in the batch": (
        {"base": Matches("label")},
        "distribution 'val': objective 'label': the batch has no key 'label'; its keys are",
    ),
    "a proxy's target key that is not in the batch": (
        {"proxies": [Matches("color")]},
        "objective 'color': the batch has no key 'color'; its keys are",
    ),
    "an input key that is not in the batch": ({"inputs": "image"}, "inputs: the batch has no key 'image'; its keys"),
    "no input key for a dict batch": ({"inputs": None}, r"keys \['x', 'y', 'z'\]: say which one the model takes"),
    "inputs by keyword that the model does not take": ({"inputs": ["z"]}, "unexpected keyword .*pass inputs= or forw"),
    "an input that the model cannot take": ({"inputs": "y"}, "failed with RuntimeError: .* pass inputs= or forward="),
    "a target that is a matrix": ({"base": Matches("x")}, r"target has shape \[32, 8\] .*must be \[n\] integers"),
    "a target in floats": ({"base": Matches(in_floats)}, "type torch.float32; it must be .* integers"),
    "a target of another length": ({"base": Matches(too_long)}, "'too_long': 64 targets for 32 rows .*outputs="),
    "targets that are no choices": (
        {"base": Matches(lambda batch: batch["y"] + 1, "late")},
        "targets range from 1 to 4, but the outputs have 4 choices, 0 to 3.* pass outputs=",
    ),
    "a scalar score": ({"base": scalar_score}, r"must give one score per item, \[32\]\. .*reduction='none'"),
    "a loss that is reduced": (
        {"base": NegativeLoss(lambda batch, outputs: F.cross_entropy(outputs, batch["y"]), (0, 5), "loss")},
        r"objective 'loss' gave one number for the whole batch.*reduction='none'",
    ),
    "scores that are no tensor": ({"base": listed}, "objective 'listed' gave .*list.*: it must .*tensor"),
    "scores outside their bounds": (
        {"base": Score(lambda batch, outputs: outputs[:, 0] * 0 + 7, name="seven")},
        r"scores from 7 to 7, outside its bounds \[0, 1\]: pass bounds=",
    ),
    "scores of another shape": (
        {"base": Score(lambda batch, outputs: outputs.softmax(1), name="wide")},
        r"scores of shape \[32, 4\] for 32 items: it must be \[32\]",
    ),
    "an empty shifted loader": (
        {"shifted": {"apart": DataLoader(toy.ToyData(0, confounded=False))}},
        "distribution 'apart' is empty",
    ),
    "an empty reference": ({"reference": toy.ToyData(0, confounded=True)}, "distribution 'reference' is empty"),
    "an empty iterable": ({"shifted": {"apart": lambda: DataLoader(Nothing())}}, "distribution 'apart' is empty"),
    "no conflict item": (
        {"shifted": {"apart": toy.loader(64)}},
        "no distribution has an item on which 'y' and 'z' prescribe different choices.*pass shifted=",
    ),
    "a group key that is not in the batch": ({"groups": "site"}, "group 'site': the batch has no key 'site'"),
    "a group that is a number": ({"groups": "x"}, "group 'x'"),
    "no shifted distribution anywhere": ({"shifted": None}, r"no shifted distribution: pass shifted=.*mesa_distrib"),
    "a name that nothing has": ({"shifted": "apart"}, "no distribution 'apart': a name is 'val', 'val/1', 'datamodule"),
    "an attribute the model lacks": ({"shifted": "model.nope"}, r"no distribution 'model\.nope': a name is"),
    "a DataModule that is not there": ({"shifted": "datamodule.nope"}, "the trainer has no DataModule"),
    "a validation loader too many": ({"reference": "val/1"}, "no validation loader 'val/1': there are val/0"),
    "a number as a distribution": ({"shifted": {"apart": 7}}, "'apart': int is given: a distribution is a DataLo"),
    "a factory of a list": ({"shifted": {"apart": lambda: [1]}}, "list is given: a distribution is a DataLoader"),
    "a dataset without a length": ({"shifted": {"apart": DataLoader(toy.ToyData(4, confounded=False), 2)} | {
        "endless": type("Lengthless", (torch.utils.data.Dataset,), {"__getitem__": lambda self, i: i})()
    }}, "Lengthless has no length: give it __len__"),
}  # fmt: skip


class Nothing(IterableDataset):
    def __iter__(self):
        return iter(())


def assert_refused(folder, message, options, model=None, **fit):
    """A ConfigurationError with that message, and no step taken."""
    watched, model = Watched(), model or toy.ToyModel()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(ConfigurationError, match=message) as refused:
        toy.fit(folder, watched, toy.monitor(**options), model=model, **fit)
    assert_helps(str(refused.value))
    assert watched.trainer.global_step == 0
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize(("options", "message"), BEFORE_TRAINING.values(), ids=BEFORE_TRAINING.keys())
def test_what_cannot_be_read_is_refused_before_the_first_step(tmp_path, options, message):
    """With ``on_error="disable"``, the default: what the user can put right is not passed over."""
    assert_refused(tmp_path, message, options)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (Wide, r"the outputs have shape \[32, 4, 3\]; they must be \[n, A\].* pass outputs="),
        (Flat, r"objective 'y': 32 targets for 96 rows of outputs.*outputs="),
        (OneNumber, r"the outputs have shape \[32\]; they must be \[n, A\].* pass outputs="),
        (Textual, "the model returned .cat., which is no tensor .*: pass outputs="),
        (Offers, "'val' names a reference and a shifted distribution: give them different names"),
    ],
)
def test_a_model_that_cannot_be_read_is_refused_before_the_first_step(tmp_path, model, message):
    assert_refused(tmp_path, message, {"shifted": None} if model is Offers else {}, model())


def test_a_run_without_validation_data_needs_a_reference(tmp_path):
    class NoValidation(pl.LightningModule):
        def __init__(self):
            super().__init__()
            self.net = nn.Linear(2 * toy.CHOICES, toy.CHOICES)

        forward = toy.ToyModel.forward

        def training_step(self, batch, batch_idx):
            return F.cross_entropy(self(batch["x"]), batch["y"])

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), 0.1)

    assert_refused(
        tmp_path,
        "'val' is the validation data, and this run has none: pass reference=",
        {},
        NoValidation(),
        val_dataloaders=None,
    )


def test_an_endless_training_loader_without_a_schedule_is_refused(tmp_path):
    assert_refused(
        tmp_path,
        "cannot tell when to look: pass every_n_steps=, or set max_steps",
        {"reference": toy.loader()},
        train_dataloaders=DataLoader(Endless(), 8),
        limit_val_batches=0,
        max_epochs=-1,
    )


def test_an_endless_validation_loader_is_not_read_for_ever(tmp_path):
    """Lightning reads two batches of it: as the reference it is as long, or refused."""
    watched = Watched()
    options = {"val_dataloaders": DataLoader(Endless(), 8), "limit_val_batches": 2, "max_epochs": 1}
    with suppress(ConfigurationError):
        toy.fit(tmp_path, watched, toy.monitor(on_error="raise"), **options)
    if watched.trainer.global_step:
        assert watched.trainer.callback_metrics["mesa/val/n"] == 16


@pytest.mark.parametrize("name", ["FSDPStrategy", "DeepSpeedStrategy", "XLAStrategy"])
def test_a_strategy_that_shards_the_model_in_another_way_is_refused(name):
    """Made without their constructors, which want hardware or packages that are not there."""
    kind = getattr(part("strategies"), name)
    trainer = SimpleNamespace(strategy=object.__new__(kind))
    with pytest.raises(ConfigurationError, match=rf"does not support {name}, .* or a sharded model .* ModelParallelSt"):
        check_strategy(trainer)


def test_the_journal_of_a_refused_run_is_not_written(tmp_path):
    with pytest.raises(ConfigurationError):
        toy.fit(tmp_path, toy.monitor(inputs="nope"))
    assert not (tmp_path / "mesa").exists()


def test_every_message_of_a_refusal_is_for_the_user():
    """One error type, which is a ValueError."""
    with pytest.raises(ValueError, match="pass at least one"):
        MesaMonitor(Matches("y"), shifted=[])
