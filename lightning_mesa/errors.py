"""The one error and the one warning of this package."""


class ConfigurationError(ValueError):
    """Something the user passed, or their data, cannot be monitored; the message says what to do.

    Raised by constructors and by the look before the first training step, so that nothing has been trained
    yet when it appears.
    """


class MesaWarning(UserWarning):
    """The monitor has something to say that does not end training."""
