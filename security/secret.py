"""Wrappers that keep values out of logs, tracebacks and files by accident."""

import logging
import sys
import threading
import traceback
from types import TracebackType
from typing import Any, Final, Generic, NoReturn, TypeVar

from protocols.errors import MillgateError
from protocols.language import heard
from protocols.logs import TEXT_FORMAT, as_json, is_json

T = TypeVar("T")

_REDACTED: Final = "<secret>"
WITHHELD: Final = "<withheld>"
_OWN: Final = frozenset({"agent", "security", "protocols", "aggregator", "simulators", "millgate"})


class Secret(Generic[T]):
    """Holds a value; only `reveal` gives it back."""

    __slots__ = ("_value",)

    def __init__(self, value: T) -> None:
        self._value = value

    def reveal(self) -> T:
        """Return the value."""
        return self._value

    def __repr__(self) -> str:
        return _REDACTED

    def __format__(self, _spec: str) -> str:
        return _REDACTED

    def __reduce__(self) -> NoReturn:
        raise TypeError("a secret is not pickled")


class Redacting(logging.Formatter):
    """Writes log lines that cannot hold a value by carelessness.

    Of what a line is filled with, only text, whole numbers and our own faults are written; an array,
    a frame, a float, bytes or any other object is not. Of an exception, its class and places are
    written, never its text. What a library logs is not written at all, only that it did: protocol
    libraries log what they read.
    """

    def __init__(self) -> None:
        super().__init__(TEXT_FORMAT)

    def format(self, record: logging.LogRecord) -> str:
        """Return the line of a record, which is left as it is."""
        safe = logging.makeLogRecord(record.__dict__)
        safe.exc_text = None
        safe.stack_info = None
        if record.name.partition(".")[0] not in _OWN:
            safe.msg, safe.args = f"{record.name}: {WITHHELD}", None
            safe.exc_info = None
        else:
            safe.msg = _safe(record.msg)
            safe.args = _safe_args(record.args)
        return self.line(safe)

    def line(self, safe: logging.LogRecord) -> str:
        """Return the line of a record that holds no value."""
        return heard(super().format(safe))

    def formatException(self, ei: Any) -> str:  # noqa: N802 - the name that logging calls
        """Return class and places of an exception."""
        return "\n".join(places_of(ei[0], ei[2]))


class RedactingJson(Redacting):
    """The same as JSON."""

    def line(self, safe: logging.LogRecord) -> str:
        """Return the line of a record that holds no value."""
        return as_json(safe, self.formatException(safe.exc_info) if safe.exc_info else "")


def _safe_args(args: Any) -> Any:
    if isinstance(args, tuple):
        return tuple(_safe(one) for one in args)
    if isinstance(args, dict):
        return {name: _safe(one) for name, one in args.items()}
    return None


def _safe(value: object) -> object:
    # A bool or a numpy integer is not of these types, and is withheld.
    if type(value) in {str, int} or isinstance(value, MillgateError):
        return value
    return WITHHELD


def places_of(kind: type[BaseException] | None, trace: TracebackType | None) -> list[str]:
    """Return where an exception was raised: files, lines and functions, without source or text."""
    name = kind.__name__ if kind is not None else "?"
    return [
        f"{name}:",
        *(f"  {at.filename}:{at.lineno} {at.name}" for at in traceback.extract_tb(trace)),
    ]


def log_redacted(level: int = logging.INFO) -> None:
    """Let this process log to standard error, and die, without writing a value.

    Libraries' lines are written only when they are warnings or worse.
    """
    handler = logging.StreamHandler()
    handler.setFormatter(RedactingJson() if is_json() else Redacting())
    handler.addFilter(_worth_writing)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    sys.excepthook = _die
    threading.excepthook = _die_in_thread
    sys.unraisablehook = _pass_over
    logging.raiseExceptions = False


def _worth_writing(record: logging.LogRecord) -> bool:
    own = record.name.partition(".")[0] in _OWN
    return own or record.levelno >= logging.WARNING


def _die(kind: type[BaseException], value: BaseException, trace: TracebackType | None) -> None:
    del value
    print("\n".join(places_of(kind, trace)), file=sys.stderr)


def _die_in_thread(told: threading.ExceptHookArgs) -> None:
    print("\n".join(places_of(told.exc_type, told.exc_traceback)), file=sys.stderr)


def _pass_over(told: "sys.UnraisableHookArgs") -> None:
    """Say of an exception that nobody can take, such as a finaliser's, no more than of any other."""
    print("\n".join(places_of(told.exc_type, told.exc_traceback)), file=sys.stderr)
