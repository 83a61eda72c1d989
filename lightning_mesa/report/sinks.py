"""Where alerts are sent: the log, the journal, TensorBoard, and whatever the user adds."""

import logging
import warnings
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, TypeAlias

from lightning_mesa.attach.importing import imported
from lightning_mesa.errors import ConfigurationError, MesaWarning, said, shown
from lightning_mesa.records import Alert

if TYPE_CHECKING:
    import apprise

Sink: TypeAlias = Callable[[Alert], Any]

_LOG = logging.getLogger("lightning_mesa")


class Sinks:
    """Sends each alert to every sink. One that fails is reported once, tried again at the next alert, and never raises.

    Args:
        sinks: Functions ``(alert) -> None`` or their import paths, and URLs of notification services as
            `apprise <https://github.com/caronc/apprise>`_ writes them, for instance ``"mailto://..."``.

    Raises:
        ConfigurationError: If a sink is neither, or apprise is not installed or does not know the URL.
    """

    def __init__(self, sinks: Sequence[str | Sink] = ()) -> None:
        if isinstance(sinks, str) or callable(sinks):
            raise ConfigurationError("sinks must be a list, like sinks=[function] or sinks=['mailto://...'].")
        self._sinks: dict[str, Sink] = {}
        for i, sink in enumerate(sinks):
            if isinstance(sink, str) and "://" not in sink:
                sink = _function(sink)
            if isinstance(sink, str):
                self._sinks[f"sinks[{i}] ({_service(sink)})"] = Notification(sink)
            elif callable(sink):
                self._sinks[f"sinks[{i}] ({getattr(sink, '__qualname__', type(sink).__name__)})"] = sink
            else:
                raise ConfigurationError(
                    f"sinks[{i}] is {shown(sink)}: pass a function (alert) -> None, or the URL of a notification "
                    "service."
                )
        self._reported: set[str] = set()

    def send(self, alert: Alert, built_in: Mapping[str, Sink]) -> None:
        """Send an alert.

        Args:
            alert: The alert.
            built_in: The package's own sinks at this look, by name; they come first.
        """
        for name, sink in {**built_in, **self._sinks}.items():
            try:
                sink(alert)
            except Exception as error:
                if name not in self._reported:
                    self._reported.add(name)
                    warnings.warn(
                        f"an alert could not be sent to {name}: {said(error)}; training goes on, "
                        "further failures of this sink are not reported",
                        MesaWarning,
                        stacklevel=2,
                    )


class Notification:
    """Sends alerts to a notification service by URL; needs the extra ``notify``.

    Args:
        url: As apprise writes it. It may hold a password, so messages show only the part before ``://``.

    Raises:
        ConfigurationError: If apprise is not installed or does not know the URL.
    """

    def __init__(self, url: str) -> None:
        if find_spec("apprise") is None:
            raise ConfigurationError(
                f"the sink {_service(url)} needs apprise: pip install 'lightning-mesa[notify]', or pass a function "
                "(alert) -> None."
            )
        self.url = url
        self._connect()

    def __call__(self, alert: Alert) -> None:
        """Send it; the service's own time limit is a few seconds.

        Raises:
            RuntimeError: If the service did not take it.
        """
        title = f"{alert.severity}: {alert.signature} on {alert.distribution} at step {alert.step}"
        kind = "failure" if alert.severity == "alert" else "warning"
        body = f"{alert.message}\nLast healthy step: {alert.last_healthy_step}, checkpoint: {alert.checkpoint}."
        if not self._connect().notify(body=body, title=title, notify_type=kind):
            raise RuntimeError("the service did not take it; the log of 'apprise' says why")

    def _connect(self) -> "apprise.Apprise":
        """A new one each time, so that the monitor can be copied and pickled."""
        import apprise

        service = apprise.Apprise()
        if not service.add(self.url):
            raise ConfigurationError(
                f"apprise does not understand the sink {_service(self.url)}; its services and how their URLs are "
                "written: https://github.com/caronc/apprise/wiki"
            )
        return service


def to_log(alert: Alert) -> None:
    """Log an alert as a warning."""
    _LOG.warning("%s at step %d (%s): %s", alert.severity, alert.step, alert.signature, alert.message)


def _function(path: str) -> Any:
    try:
        return imported(path, "sinks")
    except ConfigurationError as error:
        raise ConfigurationError(
            f"{error} A sink is a function, its import path, or the URL of a notification service, like "
            "'mailto://...'; a file needs none: alerts are always written to alerts.jsonl."
        ) from error


def _service(url: str) -> str:
    """A URL without what may be secret."""
    return url.partition("://")[0] + "://..."
