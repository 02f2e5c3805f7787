"""A careless line of code cannot print a raw value: not in a log, not in a traceback, not by repr."""

import io
import logging
import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from protocols.errors import MillgateError
from protocols.frame import Frame
from security.secret import WITHHELD, Redacting, Secret, places_of

CANARY = 31415.926535


class Log:
    """A logger with the formatter that both sides write with."""

    def __init__(self, name: str) -> None:
        self.stream = io.StringIO()
        self.handler = logging.StreamHandler(self.stream)
        self.handler.setFormatter(Redacting())
        self.logger = logging.getLogger(name)
        self.logger.addHandler(self.handler)
        self.logger.propagate = False

    @property
    def text(self) -> str:
        return self.stream.getvalue()

    def close(self) -> None:
        self.logger.removeHandler(self.handler)
        self.logger.propagate = True


@pytest.fixture
def log() -> Iterator[Log]:
    made = Log("agent.careless")
    yield made
    made.close()


def careless_frame() -> Frame:
    values = np.array([[CANARY]])
    quality = np.zeros((1, 1), np.uint8)
    return Frame("furnace", np.zeros(1, np.int32), np.ones((1, 1), np.int64), values, quality)


@pytest.mark.parametrize(
    "value",
    [
        CANARY,
        np.float64(CANARY),
        np.int64(31415926),
        np.array([CANARY]),
        str(CANARY).encode(),
        {"value": CANARY},
        [CANARY],
        (CANARY,),
        careless_frame(),
        ValueError(str(CANARY)),
        Secret(str(CANARY)),
        True,
        None,
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_careless_log_line_prints_no_value(log: Log, value: object) -> None:
    log.logger.warning("read %s", value)
    log.logger.warning("read %(value)s", {"value": value})
    log.logger.warning(value)
    assert "3141" not in log.text
    assert log.text.count(WITHHELD) == 3


def test_what_we_mean_to_say_is_said(log: Log) -> None:
    log.logger.warning("%s: %s after %d s", "meter-1", MillgateError("gone", remedy="look"), 3)
    assert "meter-1: gone — look after 3 s" in log.text


def test_a_traceback_names_class_and_places_and_no_text(log: Log) -> None:
    try:
        raise ValueError(f"cannot read {CANARY}")
    except ValueError:
        log.logger.exception("a fault")
    assert "ValueError" in log.text
    assert "test_redaction.py" in log.text
    assert "3141" not in log.text
    assert "cannot read" not in log.text


def test_what_a_library_logs_is_not_written() -> None:
    library = Log("pymodbus.logging")
    library.logger.error("frame 0x%s", "3141")
    library.logger.error(f"value {CANARY}")  # noqa: G004 - as libraries do
    library.close()
    assert "3141" not in library.text
    assert library.text.count("pymodbus.logging") == 2


def test_frames_and_secrets_do_not_show_what_they_hold() -> None:
    frame, secret = careless_frame(), Secret(CANARY)
    for text in (repr(frame), f"{frame}", repr(secret), f"{secret}", f"{secret:>40}"):
        assert "3141" not in text
        assert "furnace" not in text
    with pytest.raises(TypeError):
        pickle.dumps(secret)


def test_a_process_that_dies_prints_class_and_places_alone(tmp_path: Path) -> None:
    code = (
        "from security.secret import log_redacted\n"
        "log_redacted()\n"
        f"value = {CANARY}\n"
        "class Held:\n"
        "    def __del__(self):\n"
        "        raise KeyError(f'value {value}')\n"
        "Held()\n"
        "raise ValueError(f'value {value}')\n"
    )
    path = tmp_path / "dies.py"
    path.write_text(code, encoding="ascii")
    done = subprocess.run(
        [sys.executable, str(path)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 1
    assert "KeyError" in done.stderr
    assert "ValueError" in done.stderr
    assert "3141" not in done.stderr
    assert places_of(None, None) == ["?:"]
