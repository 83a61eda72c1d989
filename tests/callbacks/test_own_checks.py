"""A check of a user's own: one file, and its numbers are everywhere, and it can stop a run."""

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import toy
from hesitation import Hesitation
from lightning_mesa import Alarm, AtMost, Check, ConfigurationError, Matches, MesaMonitor, Test, read_journal
from lightning_mesa.attach.cli import main
from lightning_mesa.judge.alarm import shares
from lightning_mesa.report.summary import summary
from namespace import CSVLogger, TensorBoardLogger


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """A run of a model that is right on both distributions and never sure, stopped by the check; with two loggers."""
    folder = tmp_path_factory.mktemp("own")
    options = {
        "proxies": [],
        "shifted": {"apart": toy.loader(400, seed=2)},
        "outputs": lambda outputs, batch: outputs / 50,
    }
    mesa = toy.monitor(checks=[Hesitation()], on_alert="stop", **options)
    loggers = [TensorBoardLogger(folder), CSVLogger(folder, name="csv")]
    trainer = toy.fit(folder, mesa, max_epochs=30, logger=loggers)
    return folder, trainer, mesa


def test_it_stops_a_run(stopped):
    _, trainer, mesa = stopped
    assert trainer.current_epoch < 29
    assert mesa.stop_reason is not None
    assert mesa.stop_reason.startswith("hesitation on 'apart'")
    (alert, *_) = [alert for alert in mesa.alerts if alert.signature == "hesitation"]
    assert alert.null == "the model is unsure on at most half of the items"
    assert alert.alpha == pytest.approx(0.01 * 0.05 / mesa.alarm.looks)
    assert alert.low <= alert.effect <= alert.high


def test_its_numbers_are_in_callback_metrics_and_in_every_logger(stopped):
    folder, trainer, _ = stopped
    keys = {"mesa/val/hesitation", "mesa/apart/hesitation", "mesa/apart/evidence/hesitation"}
    assert keys <= trainer.callback_metrics.keys()
    events = EventAccumulator(trainer.loggers[0].log_dir)
    events.Reload()
    assert keys <= set(events.Tags()["scalars"])
    header = (folder / "csv/version_0/metrics.csv").read_text().splitlines()[0].split(",")
    assert keys <= set(header)


def test_it_is_in_the_journal_and_is_judged_again(stopped, capsys):
    _, trainer, _ = stopped
    journal = f"{trainer.log_dir}/mesa/findings.jsonl"
    found = [f for f in read_journal(journal) if f["measure"] == "hesitation"]
    assert {f["distribution"] for f in found} == {"val", "apart"}
    assert main(["replay", journal, "--check", "hesitation:Hesitation"]) == 0
    assert "ALERT hesitation on apart" in capsys.readouterr().out
    assert main(["replay", journal]) == 0
    assert "ALERT hesitation" not in capsys.readouterr().out


def test_it_is_in_the_table_at_the_end(stopped):
    _, _, mesa = stopped
    table = summary("mesa (fit)", *mesa.run.last, mesa.alerts, mesa.alarm)
    assert "hesitation on apart: hesitation " in table


class OnlyMeasures(Check):
    name = "only_measures"


class WithoutShare(Check):
    name = "without_share"

    def tests(self, look, where, thresholds):
        return [Test(AtMost(None, 0.5), None, 0, None, "Nothing is known.")]


@pytest.mark.parametrize(
    ("checks", "message"),
    [
        (["hesitation"], r"checks\[0\] is 'hesitation', and no Check"),
        ([Hesitation], r"checks\[0\] is Hesitation, and no Check: pass objects"),
        ([WithoutShare()], "tests a null without a share of the level"),
        ([Hesitation(), Hesitation()], "there is another check named 'hesitation'"),
        ([type("Taken", (Check,), {"name": "proxy_pursued"})()], "there is another check named 'proxy_pursued'"),
        ([type("Odd", (Check,), {"name": "a/b"})()], "cannot be part of a metric name"),
    ],
)
def test_what_cannot_stand_beside_the_others_is_refused(checks, message):
    with pytest.raises(ConfigurationError, match=message):
        MesaMonitor(Matches("y"), shifted={"apart": toy.shifted()}, checks=checks)


@pytest.mark.parametrize("probed", [False, True])
def test_the_shares_of_all_checks_add_up_to_the_level(probed):
    """Checks of a user's own and those of probes divide what is kept for them, by their weights."""
    heavier = type("Heavier", (Hesitation,), {"name": "heavier", "share": 3.0})()
    by_name = {c.name: s for c, s in shares(Alarm().judging([Hesitation(), heavier]).checks, probed=probed).items()}
    assert ("mesa_objective" in by_name) == ("hidden_objective" in by_name) == probed
    assert by_name["heavier"] == pytest.approx(3 * by_name["hesitation"])
    del by_name["base_lost"]  # stands in for objective_lost
    assert sum(by_name.values()) == pytest.approx(1.0)


def test_a_check_that_only_measures_takes_no_level():
    assert "only_measures" not in {
        check.name for check in shares(Alarm().judging([OnlyMeasures()]).checks, probed=True)
    }
