"""Alerts reach every sink, and a sink that fails hurts nothing."""

import importlib.machinery
import json
import sys
import threading
import types
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
import torch

import toy
from lightning_mesa import Alert, ConfigurationError, MesaWarning, read_journal
from lightning_mesa.report import tensorboard
from lightning_mesa.report.sinks import Sinks


def alert(**fields):
    known = dict.fromkeys(Alert.__dataclass_fields__) | {
        "step": 8,
        "distribution": "apart",
        "signature": "proxy_pursued",
        "severity": "alert",
        "message": "It behaves as if it pursued 'z'.",
    }
    return Alert(**(known | fields))


class Apprise:
    """What we use of apprise's class of that name."""

    sent: list = []
    accepts = True

    def __init__(self):
        self.url = None

    def add(self, url):
        self.url = url
        return url.startswith("known://")

    def notify(self, body, title, notify_type):
        self.sent.append((self.url, title, body, notify_type))
        return self.accepts


@pytest.fixture
def apprise(monkeypatch):
    """A module in apprise's place."""
    module = types.ModuleType("apprise")
    module.__spec__ = importlib.machinery.ModuleSpec("apprise", None)
    module.Apprise = type("Stub", (Apprise,), {"sent": []})
    monkeypatch.setitem(sys.modules, "apprise", module)
    return module.Apprise


def test_an_alert_reaches_every_sink_the_package_s_own_first():
    told = []
    sinks = Sinks([lambda a: told.append(("one", a)), lambda a: told.append(("two", a))])
    sinks.send(alert(), {"own": lambda a: told.append(("own", a))})
    assert told == [("own", alert()), ("one", alert()), ("two", alert())]


def test_a_sink_that_fails_is_reported_once_and_tried_again_and_the_others_go_on():
    told = []

    def broken(a):
        told.append("broken")
        raise OSError("no route")

    sinks = Sinks([broken, told.append])
    with pytest.warns(MesaWarning, match=r"sinks\[0\] \(.*broken\): OSError: no route; .* are not reported"):
        sinks.send(alert(), {})
    sinks.send(alert(step=16), {})  # MesaWarning is an error in these tests
    assert told == ["broken", alert(), "broken", alert(step=16)]
    with pytest.warns(MesaWarning, match="could not be sent to own: ValueError"):
        sinks.send(alert(), {"own": lambda a: int("x")})


def test_a_url_goes_to_apprise_with_the_alert_in_words(apprise):
    sinks = Sinks(["known://user:secret@host"])
    sinks.send(alert(last_healthy_step=4, checkpoint="healthy.ckpt"), {})
    sinks.send(alert(severity="warning"), {})
    (url, title, body, kind), (*_, second) = apprise.sent
    assert url == "known://user:secret@host"
    assert title == "alert: proxy_pursued on apart at step 8"
    assert body == "It behaves as if it pursued 'z'.\nLast healthy step: 4, checkpoint: healthy.ckpt."
    assert (kind, second) == ("failure", "warning")


def test_a_service_that_does_not_take_an_alert_is_reported_without_its_password(apprise):
    apprise.accepts = False
    with pytest.warns(MesaWarning, match="the service did not take it") as said:
        Sinks(["known://user:secret@host"]).send(alert(), {})
    assert "known://..." in str(said[0].message)
    assert "secret" not in str(said[0].message)


def test_a_url_without_apprise_is_refused_with_the_way_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "apprise", None)
    with pytest.raises(
        ConfigurationError, match=r"slack://\.\.\. needs apprise: pip install 'lightning-mesa\[notify\]'"
    ):
        toy.monitor(sinks=["slack://token"])


@pytest.mark.parametrize(
    ("sinks", "message"),
    [
        ("known://host", "sinks must be a list"),
        (print, "sinks must be a list"),
        (["alerts.txt"], "the URL of a notification service"),
        (["unknown://secret"], r"apprise does not understand the sink unknown://\.\.\."),
        ([3], r"sinks\[0\] is 3: pass a function"),
    ],
)
def test_what_is_no_sink_is_refused(sinks, message, apprise):
    with pytest.raises(ConfigurationError, match=message):
        toy.monitor(sinks=sinks)


def test_a_monitor_s_alerts_reach_its_sinks_and_failures_leave_training_alone(tmp_path, monkeypatch, caplog):
    """Every sink but one fails, the package's own too: the monitor goes on, the weights are those without sinks."""
    told = []

    def broken(a):
        torch.rand(3)  # a sink's random numbers are not the training's
        raise RuntimeError("no route")

    def full(*_):
        raise OSError("disk full")

    plain, watched = toy.ToyModel(), toy.ToyModel()
    watched.load_state_dict(plain.state_dict())
    toy.fit(tmp_path / "plain", model=plain, max_epochs=4)
    monkeypatch.setattr(tensorboard, "add_alert", full)
    mesa = toy.monitor(sinks=[broken, told.append])
    with pytest.warns(MesaWarning) as said:
        toy.fit(tmp_path / "watched", mesa, model=watched, max_epochs=4)
    messages = [str(warning.message) for warning in said if warning.category is MesaWarning]
    assert [message.partition(":")[0] for message in messages] == [
        "an alert could not be sent to TensorBoard",
        f"an alert could not be sent to sinks[0] ({broken.__qualname__})",
    ]
    assert not mesa.disabled
    assert told == mesa.alerts
    assert [line["message"] for line in read_journal(tmp_path / "watched/mesa/alerts.jsonl")] == [
        a.message for a in told
    ]
    assert all(a.message in caplog.text for a in told)
    for name, weights in plain.state_dict().items():
        assert torch.equal(weights, watched.state_dict()[name])


def test_fast_dev_run_only_logs_alerts(tmp_path, caplog):
    """It leaves nothing behind, in other places neither."""
    told = []
    model = toy.ToyModel()
    with torch.no_grad():  # follows the strong cue
        model.net.weight.copy_(torch.cat([torch.zeros(4, 4), 9 * torch.eye(4)], 1))
    mesa = toy.monitor(sinks=[told.append])
    toy.fit(tmp_path, mesa, model=model, fast_dev_run=20)
    assert mesa.alerts
    assert mesa.alerts[0].message in caplog.text
    assert told == []
    assert not (tmp_path / "mesa").exists()


def test_apprise_itself_delivers_an_alert():
    """To a server of ours on this machine."""
    received = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            received.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_):
            """Be quiet."""

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        Sinks([f"json://127.0.0.1:{server.server_port}"]).send(alert(), {})
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    (payload,) = received
    assert payload["title"] == "alert: proxy_pursued on apart at step 8"
    assert payload["message"].startswith("It behaves as if it pursued 'z'.")
    assert payload["type"] == "failure"
