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
from pathlib import Path
from typing import Final

from protocols.errors import MillgateError
from protocols.frame import SECOND
from protocols.language import tr

_HOOK: Final = '''\
"""Gives this process the wall clock that a test asked for."""
import json, os, time
_real, _running = time.time_ns, time.monotonic_ns
with open(os.environ["MILLGATE_CLOCK"], encoding="utf-8") as _file:
    _told = json.load(_file)
def time_ns():
    late = max(_running() - _told["from_ns"], 0)
    if _running() < _told["from_ns"]:
        return _real()
    if _told["until_ns"] is not None:
        if _running() >= _told["until_ns"]:
            return _real()
    return _real() + _told["ahead_ns"] + int(late * _told["fast"])
time.time_ns = time_ns
time.time = lambda: time_ns() / 1e9
'''


class ClockFault(MillgateError):
    """The command cannot be run."""


def run_with_clock(
    command: Sequence[str], *, ahead_ns: int, fast: float, after_s: float, for_s: float | None
) -> int:
    """Run a command whose Python processes have another wall clock; return its exit code.

    Args:
        command: program and arguments.
        ahead_ns: by how much its clock is ahead; negative is behind.
        fast: by which part of the time that goes by it runs ahead further; negative runs slow.
        after_s: for so many seconds it is right first.
        for_s: how long it is wrong; None is for ever.

    Raises:
        ClockFault: when the command cannot be started.
    """
    from_ns = time.monotonic_ns() + int(after_s * SECOND)
    told = {
        "ahead_ns": ahead_ns,
        "fast": fast,
        "from_ns": from_ns,
        "until_ns": None if for_s is None else from_ns + int(for_s * SECOND),
    }
    with tempfile.TemporaryDirectory(prefix="millgate-clock-") as name:
        folder = Path(name)
        (folder / "sitecustomize.py").write_text(_HOOK, encoding="utf-8")
        (folder / "clock.json").write_text(json.dumps(told), encoding="utf-8")
        return _run(command, folder)


def _run(command: Sequence[str], folder: Path) -> int:
    paths = [str(folder), str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        "MILLGATE_CLOCK": str(folder / "clock.json"),
    }
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
    while True:
        try:
            return process.wait()
        except KeyboardInterrupt:
            # The terminal has told the command as well; it ends as it sees fit.
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGINT)
