"""Which weights are looked at where Lightning keeps an average of them, wherever the monitor stands in the list."""

import pytest
import torch

import neutrality
import toy
from lightning_mesa import ConfigurationError, read_journal
from namespace import Callback, part
from quick import quick

if not hasattr(part("callbacks"), "WeightAveraging"):
    pytest.skip("this Lightning has no WeightAveraging", allow_module_level=True)


class Average(part("callbacks").WeightAveraging):
    """An exponential average, slow enough to be told from the weights."""

    def __init__(self):
        super().__init__(avg_fn=torch.optim.swa_utils.get_ema_avg_fn(0.9))


class Truth(Callback):
    """Scores of both kinds of weights at the end of each step, from copies."""

    def __init__(self, average):
        self.average = average
        self.scores = {}

    def on_train_batch_end(self, trainer, pl_module, *_):
        data = toy.shifted().dataset
        for kind, module in {"raw": pl_module, "averaged": self.average._average_model.module}.items():
            with torch.no_grad():
                self.scores[trainer.global_step, kind] = float((module.net(data.x).argmax(1) == data.y).float().mean())


def looks(folder):
    """Step -> (score, weights)."""
    findings = read_journal(folder / "mesa/findings.jsonl")
    weights = {f["step"]: f["detail"]["weights"] for f in findings if f["quantity"] == "gap"}
    scored = [f for f in findings if f["quantity"] == "score" and (f["distribution"], f["objective"]) == ("apart", "y")]
    return {f["step"]: (f["value"], weights[f["step"]]) for f in scored}


@pytest.mark.parametrize("weights", ["raw", "averaged"])
@pytest.mark.parametrize("order", ["monitor first", "average first"])
@pytest.mark.parametrize("every_n_steps", [None, 5])
def test_the_weights_asked_for_are_looked_at_and_recorded(tmp_path, weights, order, every_n_steps):
    average, mesa = Average(), toy.monitor(weights=weights, every_n_steps=every_n_steps)
    truth = Truth(average)
    both = [mesa, average, truth] if order == "monitor first" else [average, truth, mesa]
    toy.fit(tmp_path, *both, max_epochs=3)
    found = looks(tmp_path)
    found.pop(0)
    assert len(found) >= 3
    differ = 0
    for step, (score, recorded) in found.items():
        if step == 24 and order == "average first" and every_n_steps:
            assert recorded == "averaged"  # the average has been copied over the raw weights by then
        else:
            assert recorded == weights
        # Where the monitor comes before the average in a batch hook, the average is that of the step before.
        late = order == "monitor first" and recorded == "averaged" and every_n_steps and step != 24
        assert score == pytest.approx(truth.scores[step - bool(late), recorded])
        differ += truth.scores[step, "raw"] != truth.scores[step, "averaged"]
    assert differ


def test_without_an_average_none_can_be_looked_at(tmp_path):
    with pytest.raises(ConfigurationError, match="WeightAveraging keeps, and the trainer has none"):
        toy.fit(tmp_path, toy.monitor(weights="averaged"))
    with pytest.raises(ConfigurationError, match="weights must be 'raw' or 'averaged', not 'mean'"):
        toy.monitor(weights="mean")


@pytest.mark.parametrize("weights", quick(["raw", "averaged"], "averaged"))
@pytest.mark.parametrize("hook", quick(["batch", "validation"], "validation"))
@pytest.mark.parametrize("order", quick([1, -1], 1))
def test_training_is_bitwise_the_same(weights, hook, order):
    configuration = neutrality.Configuration(hook=hook, owned="numpy")
    runs = []
    for watch in (False, True):
        mesa = [neutrality.monitor(configuration, weights=weights, on_error="raise")] if watch else []
        average = Average()
        run = neutrality.train(configuration, *[*mesa, average][::order])
        run.fingerprint["average"] = average._average_model.state_dict()
        runs.append(run.fingerprint)
    assert not neutrality.differences(*runs)
