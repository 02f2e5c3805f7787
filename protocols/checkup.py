"""Checkups: what a `doctor` command finds, and the checks that both ends share."""

import ctypes
import os
import random
import shutil
import stat
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

from protocols.errors import MillgateError
from protocols.language import tr
from protocols.mqtt import BrokerConfig, greet
from protocols.sheet import Row, show_sheet

MEGABYTE: Final = 1 << 20

_LEAST_FREE: Final = 64 * MEGABYTE
_SLACK_S: Final = 120
_TIMEX_BYTES: Final = 512
_NOT_SYNCHRONISED: Final = 5


class Grade(StrEnum):
    """How a check ended."""

    GOOD = "good"
    NOTICE = "notice"
    FAULT = "fault"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of a checkup.

    Attributes:
        grade: `notice` is not wrong yet; `fault` stops something.
        subject: what was looked at.
        what: what was found, without any raw value.
        remedy: what to do about it; empty where nothing is to be done.
    """

    grade: Grade
    subject: str
    what: str
    remedy: str = ""

    @staticmethod
    def of(subject: str, fault: MillgateError) -> "Finding":
        """Make a finding of a fault that something raised."""
        where = f"{fault.where}: " if fault.where else ""
        return Finding(Grade.FAULT, subject, f"{where}{fault.what}", fault.remedy)


def checked(subject: str, said: str, check: Callable[[], object]) -> Finding:
    """Return how a check that raises a `MillgateError` ended; `said` is told where it does not."""
    try:
        check()
    except MillgateError as fault:
        return Finding.of(subject, fault)
    return Finding(Grade.GOOD, subject, said)


def disk(folder: Path, growth: int) -> Finding:
    """Check that a folder's disk has room for what may still come.

    Args:
        folder: where data grows.
        growth: by how many bytes it may still grow by configuration.
    """
    subject = tr("disk", "磁盘")
    try:
        free = shutil.disk_usage(_existing(folder)).free
    except OSError as error:
        what = tr(f"{folder}: cannot be read", f"{folder}：无法读取")
        return Finding(Grade.FAULT, subject, what, error.strerror or "")
    said = tr(f"{folder}: {free // MEGABYTE} MB free", f"{folder}：剩余 {free // MEGABYTE} MB")
    if free < _LEAST_FREE:
        return Finding(Grade.FAULT, subject, said, tr("free some space now", "请立即释放空间"))
    if free < growth:
        remedy = tr(
            f"{growth // MEGABYTE} MB may still be needed: free some, or lower the bound",
            f"最多还可能需要 {growth // MEGABYTE} MB：请释放空间，或降低上限",
        )
        return Finding(Grade.NOTICE, subject, said, remedy)
    return Finding(Grade.GOOD, subject, said)


def private(folder: Path) -> Finding:
    """Check that only the user of this process can look into a folder, and that it can write."""
    subject = tr("permissions", "权限")
    found = _existing(folder)
    if not os.access(found, os.W_OK | os.X_OK):
        what = tr(f"{found}: cannot be written", f"{found}：不可写")
        return Finding(Grade.FAULT, subject, what, f"chown {_user()} {found}; chmod 700 {found}")
    if stat.S_IMODE(found.stat().st_mode) & 0o077:
        what = tr(f"{found}: open to other users", f"{found}：其他用户可访问")
        return Finding(Grade.NOTICE, subject, what, f"chmod 700 {found}")
    return Finding(Grade.GOOD, subject, tr(f"{found}: private", f"{found}：仅限本用户"))


def clock(newest_s: int | None) -> list[Finding]:
    """Check the clock against what is known to have passed, and whether it is synchronised.

    Args:
        newest_s: the newest time on record, seconds since 1970 UTC; None for none.
    """
    subject = tr("clock", "时钟")
    now_s = time.time_ns() // 10**9
    findings = []
    if newest_s is not None and newest_s > now_s + _SLACK_S:
        behind = newest_s - now_s
        what = tr(f"{behind} s behind what is on record", f"比已有记录慢 {behind} 秒")
        remedy = tr("set the clock right, then look again", "请校正时钟后重试")
        findings.append(Finding(Grade.FAULT, subject, what, remedy))
    if _synchronised():
        findings.append(Finding(Grade.GOOD, subject, tr("synchronised", "已同步")))
    else:
        what = tr("the kernel says it is not synchronised", "内核报告时钟未同步")
        remedy = tr("set up chrony or systemd-timesyncd", "请启用 chrony 或 systemd-timesyncd")
        findings.append(Finding(Grade.NOTICE, subject, what, remedy))
    return findings


async def broker(config: BrokerConfig, *, connected: bool = False) -> Finding:
    """Connect to the broker under a name of its own, so that nobody else is thrown out.

    Where the running process is `connected`, that is answer enough: a broker that takes the name in a
    certificate for the client's would end its connection for ours.
    """
    subject = tr("broker", "消息代理")
    if connected:
        return Finding(Grade.GOOD, subject, config.place)
    name = f"mg1-doctor-{random.getrandbits(48):012x}"
    try:
        await greet(config, name)
    except MillgateError as fault:
        return Finding.of(subject, fault)
    return Finding(Grade.GOOD, subject, config.place)


def show_checkup(findings: Sequence[Finding]) -> bool:
    """Print the findings to the terminal; return whether nothing is at fault."""
    marks = {
        Grade.GOOD: (tr("good", "正常"), "green"),
        Grade.NOTICE: (tr("notice", "注意"), "yellow"),
        Grade.FAULT: (tr("FAULT", "故障"), "bold red"),
    }
    rows = []
    for one in findings:
        word, style = marks[one.grade]
        mend = f" — {one.remedy}" if one.remedy else ""
        rows.append(Row((word, one.subject, f"{one.what}{mend}"), styles=(style,)))
    show_sheet(("", "", ""), rows, framed=False)
    return all(one.grade is not Grade.FAULT for one in findings)


def _existing(folder: Path) -> Path:
    """Return the folder, or what exists above it."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return folder


def _user() -> str:
    return os.environ.get("USER") or str(os.getuid())


def _synchronised() -> bool:
    """Ask the kernel, as `ntptime` does: adjtimex(2) with no change wanted."""
    timex = ctypes.create_string_buffer(_TIMEX_BYTES)
    state = ctypes.CDLL(None).adjtimex(timex)
    return bool(0 <= state < _NOT_SYNCHRONISED)
