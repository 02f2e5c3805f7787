"""Log lines as JSON, for machines that collect them; asked for with `--log json` or MILLGATE_LOG=json."""

import json
import logging
import os
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Final

from protocols.language import heard

VARIABLE: Final = "MILLGATE_LOG"
TEXT_FORMAT: Final = "%(asctime)s %(levelname)s %(message)s"


class Kind(StrEnum):
    """How lines are written."""

    TEXT = "text"
    JSON = "json"


class TextLines(logging.Formatter):
    """Writes each record as a line of text, in the language of who started the process."""

    def __init__(self) -> None:
        super().__init__(TEXT_FORMAT)

    def format(self, record: logging.LogRecord) -> str:
        """Return the line of a record."""
        return heard(super().format(record))


class JsonLines(logging.Formatter):
    """Writes each record as one line: `at` (RFC 3339, UTC), `level`, `logger`, `message`, `fault`."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line of a record."""
        return as_json(record, self.formatException(record.exc_info) if record.exc_info else "")


def as_json(record: logging.LogRecord, fault: str) -> str:
    """Return a record as one line of JSON.

    Args:
        record: whose message is made as it is.
        fault: of an exception; empty where there is none.
    """
    at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
    line: dict[str, Any] = {
        "at": at.replace("+00:00", "Z"),
        "level": record.levelname.lower(),
        "logger": record.name,
        "message": heard(record.getMessage()),
    }
    if fault:
        line["fault"] = fault
    return json.dumps(line, ensure_ascii=False)


def choose(how: Kind | None) -> None:
    """Let this process, and those that it starts, log in a way; None leaves it as it is."""
    if how is not None:
        os.environ[VARIABLE] = how


def is_json() -> bool:
    """Whether lines are to be JSON."""
    return os.environ.get(VARIABLE, "") == Kind.JSON


def log_plainly() -> None:
    """Log to standard error, as was chosen; for processes that hold no raw value."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines() if is_json() else TextLines())
    logging.basicConfig(level=logging.INFO, handlers=[handler])
