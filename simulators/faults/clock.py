"""Another wall clock for one command: it jumps, or runs fast or slow, while the machine's own stays right.

Linux has no wall clock of its own for a group of processes: time namespaces hold only the monotonic and
the boot clock, and setting the machine's clock would move everybody's. So the command's Python processes
are given other `time.time` and `time.time_ns`, which is all that Millgate asks for the time of day. What C
code asks the kernel itself stays right: the validity of TLS certificates, times of files, `datetime.now`.
The monotonic and the boot clock stay as they are, as they do when a real wall clock is set.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from protocols.errors import MillgateError
from protocols.frame import SECOND
from protocols.language import tr
from protocols.settings import parse_duration

_HOOK: Final = '''\
"""Gives this process the wall clock that a test asked for."""
import json, os, time
_real, _running = time.time_ns, time.monotonic_ns
_path = os.environ["MILLGATE_CLOCK"]
_now = {"next": 0, "seen": None, "told": None}
def _told():
    running = _running()
    if running >= _now["next"]:
        _now["next"] = running + 20_000_000
        try:
            seen = os.stat(_path).st_mtime_ns
            if seen != _now["seen"]:
                with open(_path, encoding="utf-8") as file:
                    _now["seen"], _now["told"] = seen, json.load(file)
        except OSError:
            if _now["told"] is None:
                raise
    return running, _now["told"]
def time_ns():
    running, told = _told()
    late = running - told["from_ns"]
    if late < 0 or (told["until_ns"] is not None and running >= told["until_ns"]):
        return _real()
    return _real() + told["ahead_ns"] + int(late * told["fast"])
time.time_ns = time_ns
time.time = lambda: time_ns() / 1e9
'''
_POLL_S: Final = 0.05
_MOST_DRIFT: Final = 0.5


class ClockFault(MillgateError):
    """The command cannot be run."""


@dataclass(frozen=True, slots=True)
class Shift:
    """How a wall clock is wrong.

    Attributes:
        ahead_ns: by how much it is ahead; negative is behind.
        fast: by which part of the time that goes by it runs ahead further; negative runs slow.
        after_s: for so many seconds it is right first.
        for_s: how long it is wrong; None is for ever.
    """

    ahead_ns: int = 0
    fast: float = 0.0
    after_s: float = 0.0
    for_s: float | None = None


def run_with_clock(command: Sequence[str], shift: Shift, file: Path | None = None) -> int:
    """Run a command whose Python processes have another wall clock; return its exit code.

    Args:
        command: program and arguments.
        shift: how it is wrong.
        file: says how it is wrong from now on, whenever it changes; see `read_shift`.

    Raises:
        ClockFault: when the command cannot be started, or the file says nothing that is a clock.
    """
    if file is not None:
        shift = read_shift(file)
    with tempfile.TemporaryDirectory(prefix="millgate-clock-") as name:
        folder = Path(name)
        return _run(command, folder, file, shift, clock_environment(folder, shift))


def clock_environment(folder: Path, shift: Shift) -> dict[str, str]:
    """Return what a Python process is to find in its environment to have another wall clock.

    Args:
        folder: where files of the clock are put, of this clock alone; they are needed as long as
            processes start.
        shift: how it is wrong, from now on.
    """
    (folder / "sitecustomize.py").write_text(_HOOK, encoding="utf-8")
    _tell(folder, shift)
    paths = [str(folder), str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]
    return {
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        "MILLGATE_CLOCK": str(folder / "clock.json"),
    }


def read_shift(file: Path) -> Shift:
    """Read a file of one line: how far the clock is off, and its drift where it has one.

    `+1h`, `-10m`, `0`, `+5s 0.01`; the drift counts from when the line is written.

    Raises:
        ClockFault: when it says nothing of that kind.
    """
    try:
        words = file.read_text(encoding="utf-8").split()
        sign, length = (words[0][:1], words[0][1:]) if words[0][:1] in "+-" else ("", words[0])
        ahead_ns = 0 if length == "0" else parse_duration(length)
        fast = float(words[1]) if len(words) > 1 else 0.0
        if len(words) > 2 or not abs(fast) <= _MOST_DRIFT:
            raise ValueError
    except (OSError, ValueError, IndexError):
        raise ClockFault(
            tr("does not say what the clock is to show", "未说明时钟应显示什么"),
            where=str(file),
            remedy=tr(
                "write one line such as +1h, -10m, 0 or '0 0.01' (ahead, drift)",
                "请写一行，例如 +1h、-10m、0 或 '0 0.01'（偏差与漂移）",
            ),
        ) from None
    return Shift(-ahead_ns if sign == "-" else ahead_ns, fast)


def _tell(folder: Path, shift: Shift) -> None:
    """Say what the clock shows from now on; readers find the old word or the new one."""
    from_ns = time.monotonic_ns() + int(shift.after_s * SECOND)
    told = {
        "ahead_ns": shift.ahead_ns,
        "fast": shift.fast,
        "from_ns": from_ns,
        "until_ns": None if shift.for_s is None else from_ns + int(shift.for_s * SECOND),
    }
    part = folder / "clock.json.part"
    part.write_text(json.dumps(told), encoding="utf-8")
    part.replace(folder / "clock.json")


def _run(
    command: Sequence[str], folder: Path, file: Path | None, shift: Shift, other: dict[str, str]
) -> int:
    environment = {**os.environ, **other}
    words = list(command)
    if words[0] == "millgate":
        words[:1] = [sys.executable, "-m", "millgate"]
    try:
        process = subprocess.Popen(words, env=environment)
    except OSError as error:
        raise ClockFault(
            tr("the command cannot be started", "命令无法启动"),
            where=words[0],
            remedy=error.strerror or type(error).__name__,
        ) from None
    # Who ends this command means the one that it runs; that one ends as it sees fit.
    for which in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(which, lambda number, _: process.send_signal(number))
    while True:
        try:
            return process.wait(_POLL_S if file is not None else None)
        except subprocess.TimeoutExpired:
            shift = _follow(folder, file, shift)
        except KeyboardInterrupt:
            # The terminal has told the command as well.
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGINT)


def _follow(folder: Path, file: Path | None, shift: Shift) -> Shift:
    """Tell the processes what the file says now; a half-written line changes nothing."""
    with contextlib.suppress(ClockFault):
        found = shift if file is None else read_shift(file)
        if found != shift:
            _tell(folder, found)
            return found
    return shift
