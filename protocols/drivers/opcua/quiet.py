"""Keeps what the OPC UA library writes out of every log.

The library logs whole messages at INFO, and its warnings and tracebacks can quote received
bytes: raw values. What goes on to the log is only that it spoke, where, and how loudly.
"""

import logging
from typing import Final

_LIBRARIES: Final = ("asyncua", "asyncuagds")


class _Redact(logging.Handler):
    """Blanks every record of the library before any handler further up sees it."""

    def emit(self, record: logging.LogRecord) -> None:
        fault = record.exc_info[0] if record.exc_info else None
        kind = f" ({fault.__name__})" if fault is not None else ""
        record.msg = "the OPC UA library reports from %s:%d%s"
        record.args = (record.funcName, record.lineno, kind)
        record.exc_info = record.exc_text = record.stack_info = None


def install() -> None:
    """Redact the library's loggers; doing it again changes nothing.

    It is a handler, since filters of a logger do not see the records of its children.
    """
    for name in _LIBRARIES:
        logger = logging.getLogger(name)
        if not any(isinstance(handler, _Redact) for handler in logger.handlers):
            logger.handlers.insert(0, _Redact())
            logger.setLevel(logging.WARNING)
