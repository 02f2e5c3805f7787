"""What administrators did, in a file where every line holds the hash of the one before.

A line that was changed, taken out or put in between shows. That the newest lines were cut off shows only
against a head that somebody noted elsewhere, which `read_log` therefore gives and takes.
"""

import fcntl
import getpass
import hashlib
import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO, Final

from protocols.errors import MillgateError
from protocols.frame import SECOND, NowNs
from protocols.language import tr
from security.files import PRIVATE

NAME: Final = "admin.log"
"""The file's usual name, beside the ledger."""

GENESIS: Final = hashlib.sha256(b"mg1/admin-log").hexdigest()

_MOST_BYTES: Final = 64 << 20
_MOST_LINE: Final = 16_384
_MOST_TEXT: Final = 512

Fact = str | int


class LogFault(MillgateError):
    """The log cannot be written, or is not what was written."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One line.

    Attributes:
        number: from 1 on.
        at_s: when, seconds since 1970 UTC.
        who: name of the user at the operating system.
        action: what was done.
        facts: to whom or what, without secrets.
        digest: of the line, 64 hex digits; the next line holds it.
    """

    number: int
    at_s: int
    who: str
    action: str
    facts: Mapping[str, Fact]
    digest: str


def record_admin(path: Path, action: str, now_ns: NowNs = time.time_ns, /, **facts: Fact) -> Entry:
    """Append what an administrator does, and return when it is on disk.

    Args:
        path: the file; made when missing, mode 0600.
        action: one word, such as `invite` or `revoke`.
        facts: names and numbers of what is touched; never a secret, never a device's value.

    Raises:
        LogFault: when it cannot be written; the action should then not be done.
    """
    return record_all(path, [(action, facts)], now_ns)[0]


def record_all(
    path: Path, actions: Sequence[tuple[str, Mapping[str, Fact]]], now_ns: NowNs = time.time_ns
) -> list[Entry]:
    """Append several actions that are done together; see `record_admin`.

    Raises:
        LogFault: when they cannot be written; none of the actions should then be done.
    """
    try:
        with _alone(path) as file:
            return _append(path, file, actions, now_ns() // SECOND)
    except OSError as error:
        raise LogFault(
            tr("the log of administrators' actions cannot be written", "无法写入管理操作日志"),
            where=str(path),
            remedy=str(error.strerror),
        ) from None


def read_log(path: Path, head: str = "") -> list[Entry]:
    """Read and check the whole log; it is empty when there is no file.

    Args:
        head: the digest of an entry that was once the newest, or its beginning; it must still be there.

    Raises:
        LogFault: when the log is not what was written; names the first line at fault.
    """
    entries: list[Entry] = []
    before = GENESIS
    for number, line in enumerate(_lines(path), 1):
        entry = _checked(line, number, before)
        if entry is None:
            raise LogFault(
                tr(
                    "the log was changed here: this line does not follow from the one before",
                    "日志在此处被改动：此行与前一行不衔接",
                ),
                where=f"{path}:{number}",
                remedy=tr("compare it with a backup", "请与备份比对"),
            )
        entries.append(entry)
        before = entry.digest
    if head and not any(entry.digest.startswith(head.lower()) for entry in entries):
        raise LogFault(
            tr("the log no longer holds this entry", "日志中已没有此条目"),
            where=f"{path}, {head}",
            remedy=tr(
                "it was cut off or replaced; compare it with a backup",
                "日志被截断或替换；请与备份比对",
            ),
        )
    return entries


@contextmanager
def _alone(path: Path) -> Iterator[BinaryIO]:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    handle = os.open(path, os.O_RDWR | os.O_CREAT, PRIVATE)
    with os.fdopen(handle, "r+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield file


def _append(
    path: Path, file: BinaryIO, actions: Sequence[tuple[str, Mapping[str, Fact]]], at_s: int
) -> list[Entry]:
    size = file.seek(0, os.SEEK_END)
    if size > _MOST_BYTES:
        raise LogFault(
            tr("the log of administrators' actions is full", "管理操作日志已满"),
            where=str(path),
            remedy=tr("move it to the archive; a new one begins", "请将其移入归档；随后新建日志"),
        )
    last, end = _last_line(file, size)
    before = _checked(last, None, None) if last else None
    if last and before is None:
        raise LogFault(
            tr("the newest line of the log was changed", "日志的最后一行被改动"),
            where=str(path),
            remedy=tr("compare it with a backup", "请与备份比对"),
        )
    known, digest = (before.number, before.digest) if before else (0, GENESIS)
    entries: list[Entry] = []
    lines: list[bytes] = []
    for number, (action, given) in enumerate(actions, known + 1):
        facts = {name: _short(value) for name, value in given.items()}
        body: dict[str, Any] = {
            "n": number,
            "at": at_s,
            "who": _who(),
            "action": action,
            "facts": facts,
            "before": digest,
        }
        digest = _digest(body)
        lines.append(json.dumps({**body, "digest": digest}, ensure_ascii=False).encode() + b"\n")
        entries.append(Entry(number, at_s, body["who"], action, facts, digest))
    # What a crash left of a line that was never finished was never reported as written.
    file.truncate(end)
    file.seek(end)
    file.write(b"".join(lines))
    file.flush()
    os.fsync(file.fileno())
    return entries


def _last_line(file: BinaryIO, size: int) -> tuple[bytes, int]:
    """Return the last finished line, and where it ends."""
    start = max(0, size - 2 * _MOST_LINE)
    file.seek(start)
    tail = file.read()
    finished = tail[: tail.rfind(b"\n") + 1]
    return finished[:-1].rpartition(b"\n")[2], start + len(finished)


def _lines(path: Path) -> list[bytes]:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return []
    except OSError as error:
        raise LogFault(
            tr("the log of administrators' actions cannot be read", "无法读取管理操作日志"),
            where=str(path),
            remedy=str(error.strerror),
        ) from None
    return data[: data.rfind(b"\n") + 1].splitlines()


def _checked(line: bytes, number: int | None, before: str | None) -> Entry | None:
    """Return an entry; None where it is not one, or not the one that belongs here."""
    try:
        body: Any = json.loads(line)
        digest = body.pop("digest")
        follows = number is None or (body["n"] == number and body["before"] == before)
        if not follows or _digest(body) != digest:
            return None
        return Entry(body["n"], body["at"], body["who"], body["action"], body["facts"], digest)
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def _digest(body: Mapping[str, Any]) -> str:
    canonical = json.dumps(body, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def _short(value: Fact) -> Fact:
    return value if isinstance(value, int) else value[:_MOST_TEXT]


def _who() -> str:
    try:
        name = getpass.getuser()
    except (OSError, KeyError):
        name = f"uid {os.getuid()}"
    behind = os.environ.get("SUDO_USER", "")
    return (f"{behind} ({name})" if behind and behind != name else name)[:_MOST_TEXT]


def as_text(entry: Entry) -> str:
    """Return an entry as one line for people."""
    at = f"{datetime.fromtimestamp(entry.at_s, UTC):%Y-%m-%d %H:%M:%SZ}"
    facts = " ".join(f"{name}={value}" for name, value in entry.facts.items())
    return f"{entry.number:>5}  {at}  {entry.who}  {entry.action}  {facts}".rstrip()
