import json

import toy
from namespace import CSVLogger


def test_a_confounded_run_alerts_names_the_proxy_and_stops(tmp_path):
    """The whole flow: a model that follows the strong cue is stopped, and the journal says why."""
    mesa = toy.monitor(on_alert="stop")
    trainer = toy.fit(tmp_path, mesa, max_epochs=50, logger=CSVLogger(tmp_path))
    assert trainer.current_epoch < 49
    assert {(alert.signature, alert.proxy) for alert in mesa.alerts} >= {("proxy_pursued", "z")}
    lines = (tmp_path / "lightning_logs/version_0/mesa/alerts.jsonl").read_text().splitlines()
    assert [json.loads(line)["signature"] for line in lines] == [alert.signature for alert in mesa.alerts]
    assert "apart" in mesa.stop_reason
