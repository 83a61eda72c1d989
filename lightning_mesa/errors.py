"""The one error and the one warning of this package, and how their messages say a value."""

import re
import reprlib


class ConfigurationError(ValueError):
    """Something the user passed, or their data, cannot be monitored; the message says what to do.

    Raised by constructors and by the look before the first training step, so that nothing has been trained
    yet when it appears.
    """


class MesaWarning(UserWarning):
    """The monitor has something to say that does not end training."""


def shown(value: object) -> str:
    """A value of the user's, for a message: short, and never what a tensor, an array or an object holds.

    Args:
        value: Anything: ``"a tensor of shape [2, 3]"``, ``"a DataLoader"``, the name of a function; text and numbers as
            they are, lists and mappings by their first entries.
    """
    text = _IN_WORDS.repr(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


def said(error: BaseException) -> str:
    """An error in one line; one that is not ours is cut where it would print a tensor or grow long."""
    if isinstance(error, ConfigurationError):
        return f"{type(error).__name__}: {error}"
    text = re.split(r"(?:tensor|array)\(", " ".join(str(error).split()))[0]
    text = text.rstrip(": .") if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


_LONGEST = 200


class _InWords(reprlib.Repr):
    def __init__(self) -> None:
        super().__init__()
        self.maxlevel, self.maxstring = 3, 80
        self.maxlist = self.maxtuple = self.maxdict = 12

    def repr_instance(self, x: object, level: int) -> str:
        """Of what Python has no short text for."""
        if x is None or isinstance(x, (bool, int, float, str)):
            return repr(x)
        kind, shape = type(x).__name__, getattr(x, "shape", None)
        if isinstance(shape, tuple):
            return f"a {kind.lower()} of shape {list(shape)}"
        name = getattr(x, "__qualname__", None)
        if isinstance(name, str):
            return name
        return f"{'an' if kind[0] in 'AEIOUaeiou' else 'a'} {kind}"


_IN_WORDS = _InWords()
