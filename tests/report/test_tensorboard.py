from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import toy
from namespace import CSVLogger, TensorBoardLogger

KEYS = {
    "mesa/apart/score/y",
    "mesa/apart/competence/z",
    "mesa/apart/capability",
    "mesa/apart/gap",
    "mesa/apart/gap_low",
    "mesa/apart/gap_high",
    "mesa/apart/n",
    "mesa/apart/conflict/base",
    "mesa/apart/conflict/z",
    "mesa/apart/conflict/neither",
    "mesa/apart/evidence/proxy_pursued",
    "mesa/apart/regime",
    "mesa/val/score/y",
    "mesa/gap/worst",
    "mesa/base/worst",
    "mesa/alert",
    "mesa/age_steps",
    "mesa/disabled",
}


def test_every_point_reaches_tensorboard_at_its_step(tmp_path):
    """No point lost, none at another step: looks at 0 and after each validation, in two loggers at once."""
    mesa = toy.monitor()
    loggers = [TensorBoardLogger(tmp_path), CSVLogger(tmp_path, name="csv")]
    trainer = toy.fit(tmp_path, mesa, logger=loggers)
    events = EventAccumulator(trainer.log_dir)
    events.Reload()
    assert set(events.Tags()["scalars"]) >= KEYS
    for key in KEYS:
        assert [event.step for event in events.Scalars(key)] == [0, 8, 16, 24], key
    assert [event.step for event in events.Scalars("mesa/overhead")] == [8, 16, 24]
    rows = (tmp_path / "csv/version_0/metrics.csv").read_text()
    assert "mesa/apart/gap_low" in rows.splitlines()[0]


def test_alerts_are_text_with_the_legend(tmp_path):
    mesa = toy.monitor(on_alert="stop")
    trainer = toy.fit(tmp_path, mesa, max_epochs=40, logger=TensorBoardLogger(tmp_path))
    events = EventAccumulator(trainer.log_dir)
    events.Reload()
    tag = "mesa/apart/proxy_pursued/text_summary"
    text = events.Tensors(tag)[0].tensor_proto.string_val[0].decode()
    assert "2 pseudo-aligned" in text
    pursued = next(alert for alert in mesa.alerts if alert.signature == "proxy_pursued")
    facts = dict(row.strip("| ").split(" | ", 1) for row in text.splitlines() if row.strip("| ").count(" | ") == 1)
    assert facts["null"] == pursued.null
    assert facts["first crossing at step"] == str(pursued.first_crossing) == facts["step"]
    assert facts["look"] == f"{pursued.look} of 41"
    assert facts["effect"].startswith(f"{pursued.effect:.3g}, 95 % limits")
    assert "custom_scalars__config__" in events.Tags()["tensors"]
