"""Days and instants as people write them on a command line."""

from datetime import UTC, datetime

from protocols.errors import MillgateError
from protocols.language import tr


def read_moment(text: str, default: int, option: str) -> int:
    """Return a day or an instant (ISO 8601, UTC when it names no zone) as seconds since 1970.

    Args:
        text: what was written; empty for `default`.
        default: seconds since 1970.
        option: how the option is called, for the error.

    Raises:
        MillgateError: when it is neither, or before 1970.
    """
    if not text:
        return default
    try:
        found = datetime.fromisoformat(text)
        seconds = int((found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp())
    except (ValueError, OverflowError):
        seconds = -1
    if seconds < 0:
        raise MillgateError(
            tr("not a day or a time", "不是日期或时间"),
            where=f"{option} {text}",
            remedy="2026-01-31, 2026-01-31T08:00, 2026-01-31T08:00+08:00",
        )
    return seconds


def utc_words(seconds: int) -> str:
    """Return an instant, seconds since 1970, as people read it, in UTC to the minute."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M")
