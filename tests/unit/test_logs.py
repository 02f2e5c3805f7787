"""Log lines as JSON: one object a line, and no more in it than in lines of text."""

import json
import logging
import sys
from typing import Any

import numpy as np
import pytest

from protocols import logs
from protocols.logs import JsonLines
from security.secret import Redacting, RedactingJson, log_redacted

SECRET = 31415.92653


def record(name: str, message: str, *arguments: Any) -> logging.LogRecord:
    try:
        raise ValueError(str(SECRET))
    except ValueError:
        fault = sys.exc_info()
    return logging.LogRecord(name, logging.WARNING, __file__, 1, message, arguments, fault)


def test_a_line_is_one_object_with_time_level_logger_and_message() -> None:
    line = JsonLines().format(record("aggregator.app", "two\nlines %d 中文", 7))
    assert "\n" not in line
    found = json.loads(line)
    assert found["message"] == "two\nlines 7 中文"
    assert (found["level"], found["logger"]) == ("warning", "aggregator.app")
    assert found["at"].endswith("Z")
    assert "ValueError" in found["fault"]


@pytest.mark.parametrize("kind", [Redacting, RedactingJson])
def test_no_value_is_in_a_line_of_either_kind(kind: type[Redacting]) -> None:
    formatter = kind()
    for one in (
        record("agent.collect", "read %s and %s", SECRET, np.array([SECRET])),
        record("pymodbus", f"frame {SECRET}"),
    ):
        line = formatter.format(one)
        assert str(SECRET) not in line
        assert "withheld" in line
    assert "ValueError" in formatter.format(record("agent.collect", "a fault"))


def test_who_asks_for_json_gets_it_in_every_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(logs.VARIABLE, "")
    logs.choose(None)
    assert not logs.is_json()
    logs.choose(logs.Kind.JSON)
    assert logs.is_json()
    root, hook = logging.getLogger(), sys.excepthook
    before, level = root.handlers[:], root.level
    try:
        log_redacted()
        assert isinstance(root.handlers[0].formatter, RedactingJson)
    finally:
        root.handlers[:], sys.excepthook = before, hook
        root.setLevel(level)
        logging.raiseExceptions = True
