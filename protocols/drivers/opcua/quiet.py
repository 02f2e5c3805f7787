"""Keeps what the OPC UA library writes out of every log.

The library logs whole messages at INFO, and its warnings and tracebacks can quote received bytes: raw values.
What it warns of (a connection that is gone, values that were revised) the driver says itself, with device and
remedy. What it calls an error becomes one line of ours: which device, where in the library and which class of
exception, never its text.
"""

import logging
import time
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Final

from protocols.language import tr

_LIBRARIES: Final = ("asyncua", "asyncuagds")
_AGAIN_S: Final = 3600.0
_MOST_SAID: Final = 256


@dataclass(slots=True)
class Place:
    """Where the library is at work: one connection.

    Attributes:
        where: device and server.
        over: whether the driver has given the connection up, and has said why.
    """

    where: str
    over: bool = False


at: Final[ContextVar[Place]] = ContextVar("opcua_at", default=Place("OPC UA"))  # noqa: B039 - nobody writes to it
"""The connection that this task, and what the library does for it, is at; see `Connection`."""

_log = logging.getLogger(__name__)


class _Translate(logging.Handler):
    """Says in our words, once an hour for each device and place, what the library calls an error."""

    def __init__(self) -> None:
        super().__init__()
        self._said: dict[tuple[str, str], float] = {}

    def emit(self, record: logging.LogRecord) -> None:
        fault = record.exc_info[0] if record.exc_info else None
        # Whoever else listens to the library gets nothing of it either.
        record.msg, record.args = "(withheld)", None
        record.exc_info = record.exc_text = record.stack_info = None
        where, now = at.get().where, time.monotonic()
        place = f"{record.module}.{record.funcName}:{record.lineno}"
        if at.get().over or now - self._said.get((where, place), -_AGAIN_S) < _AGAIN_S:
            return
        if len(self._said) >= _MOST_SAID:
            self._said.clear()
        self._said[where, place] = now
        what = f"{place} {'' if fault is None else fault.__name__}".strip()
        _log.warning(
            "%s",
            tr(
                f"{where}: the OPC UA library met a fault ({what}) — where contact is lost it is made anew; if "
                "values are missing for long, report this line",
                f"{where}：OPC UA 库内部出错（{what}）——失去连接时会自动重连；若长时间缺少数据，请报告本行",
            ),
        )


def install() -> None:
    """Let the library's loggers say only what is translated; doing it again changes nothing.

    It is a handler, since filters of a logger do not see the records of its children.
    """
    for name in _LIBRARIES:
        logger = logging.getLogger(name)
        if not any(isinstance(handler, _Translate) for handler in logger.handlers):
            logger.handlers.insert(0, _Translate())
            logger.setLevel(logging.ERROR)
            logger.propagate = False
