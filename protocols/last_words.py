"""Why a process ends: one line for people, wherever the error came from, and the exit code."""

import logging
import sys
import traceback
from pathlib import Path
from typing import Final

from protocols.errors import MillgateError
from protocols.language import heard, tr
from protocols.logs import as_json, is_json

UNFORESEEN: Final = 70
"""Exit code of a fault that nobody foresaw; EX_SOFTWARE of sysexits.h."""

_FRAMES: Final = 3


def say_why(error: BaseException) -> int:
    """Say on standard error why this process ends, and return its exit code, which is never 0.

    A line for each fault. The text of an exception that is not ours is left out: it could hold a raw
    value. What the system says of a file or address is not such a text.
    """
    if isinstance(error, BaseExceptionGroup):
        return max(say_why(inner) for inner in error.exceptions)
    if isinstance(error, MillgateError):
        _say(str(error))
        return error.exit_code
    _say(_unforeseen(error))
    return UNFORESEEN


def _unforeseen(error: BaseException) -> str:
    # What was called is of little help where it is not ours.
    frames = traceback.extract_tb(error.__traceback__)[-_FRAMES:]
    places = " < ".join(f"{Path(f.filename).name}:{f.lineno}" for f in reversed(frames))
    name = type(error).__name__
    if isinstance(error, OSError) and error.strerror:
        where = f"{error.filename}: " if isinstance(error.filename, str) else ""
        return tr(
            f"millgate: {where}{error.strerror} ({name} at {places}) — check disk, permissions and "
            "ports, and start it again",
            f"millgate：{where}{error.strerror}（{name}，位于 {places}）— 请检查磁盘、权限与端口后重新启动",
        )
    return tr(
        f"millgate: an unforeseen fault, {name} at {places} — please report it; started again, it goes "
        "on with what is on disk",
        f"millgate：未预见的错误 {name}，位于 {places}，请反馈给我们；重新启动后从磁盘内容继续",
    )


def _say(said: str) -> None:
    text = heard(said)
    if is_json():
        record = logging.LogRecord("millgate", logging.CRITICAL, "", 0, text, None, None)
        text = as_json(record, "")
    print(text, file=sys.stderr, flush=True)
