"""Full disks and wrong clocks as commands."""

import errno
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import pytest

from simulators.faults.disk import DiskFault, Quota, may_mount, small_disk
from tests.system.mills import python

SAY_TIME = "import time; print(time.time_ns() - {real}, int(time.time()) - {real} // 10**9)"
ENOUGH_S = 60


def off(*options: str, inner: str = "-c") -> tuple[float, float]:
    """Return by how many seconds a process's two clocks are ahead."""
    say = SAY_TIME.format(real=time.time_ns())
    done = subprocess.run(
        [*python("sim", "clock", *options, "--"), sys.executable, "-P", inner, say],
        capture_output=True,
        text=True,
        timeout=ENOUGH_S,
        check=True,
    )
    first, second = done.stdout.split()
    return int(first) / 1e9, float(second)


def test_a_command_has_a_clock_that_is_ahead_or_behind() -> None:
    ahead, whole = off("--ahead", "1h")
    assert 3600 <= ahead < 3600 + ENOUGH_S
    assert 3600 <= whole < 3600 + ENOUGH_S
    behind, _ = off("--behind", "1d")
    assert -86400 <= behind < -86400 + ENOUGH_S


def test_a_clock_is_right_before_and_after_its_time() -> None:
    assert 0 <= off("--ahead", "1h", "--after", "1h")[0] < ENOUGH_S
    assert 0 <= off("--ahead", "1h", "--for", "1ms")[0] < ENOUGH_S


def test_a_clock_that_drifts_runs_away_from_the_steady_one() -> None:
    say = (
        "import time; a = time.time_ns() - time.monotonic_ns(); time.sleep(0.5); "
        "print(time.time_ns() - time.monotonic_ns() - a)"
    )
    done = subprocess.run(
        [*python("sim", "clock", "--drift", "0.5", "--"), sys.executable, "-c", say],
        capture_output=True,
        text=True,
        timeout=ENOUGH_S,
        check=True,
    )
    assert int(done.stdout) >= 0.2e9


def test_the_commands_own_end_is_told_on() -> None:
    done = subprocess.run(
        [
            *python("sim", "clock", "--ahead", "1h", "--"),
            sys.executable,
            "-c",
            "raise SystemExit(7)",
        ],
        capture_output=True,
        timeout=ENOUGH_S,
        check=False,
    )
    assert done.returncode == 7


FOLLOWING = """
import time
ahead = lambda: (time.time_ns() - time.clock_gettime_ns(time.CLOCK_REALTIME)) / 1e9
for low, high in ((3590, 3610), (-610, -590), (-1, 1)):
    while not low < ahead() < high:
        time.sleep(0.01)
    print(high, flush=True)
time.sleep(600)
"""


def test_a_clock_follows_a_file_while_it_runs_and_its_command_ends_with_it(tmp_path: Path) -> None:
    hand = tmp_path / "clock"
    hand.write_text("+1h", "utf-8")
    words = python("sim", "clock", "--file", str(hand), "--", sys.executable, "-P", "-c", FOLLOWING)
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "3610\n"
        # A half-written word changes nothing.
        hand.write_text("-1", "utf-8")
        hand.write_text("-10m", "utf-8")
        assert process.stdout.readline() == "-590\n"
        hand.write_text("0 0.01", "utf-8")
        assert process.stdout.readline() == "1\n"
        process.terminate()
        assert process.wait(ENOUGH_S) == 128 + 15
        # Its end of the pipe is closed: nobody was left behind.
        assert process.stdout.read() == ""


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["clock", "--", "true"], "the clock would be right"),
        (["clock", "--file", "something", "--", "true"], "does not say what the clock"),
        (["clock", "--file", "something", "--ahead", "1h", "--", "true"], "given twice"),
        (["clock", "--ahead", "1h", "--", "no-such-program"], "cannot be started"),
        (["disk"], "give either a folder or --pid"),
        (["disk", "--pid", "4194305"], "this process cannot be limited"),
        (["disk", "x", "--size", "3"], "write 1M to 4G"),
        (["disk", ".", "--size", "2M"], "the folder is not empty"),
    ],
)
def test_a_wrong_wish_is_told_in_one_line(words: list[str], said: str, tmp_path: Path) -> None:
    (tmp_path / "something").touch()
    done = subprocess.run(
        python("sim", *words),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=ENOUGH_S,
        check=False,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    assert done.returncode != 0
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1


WRITER = """
import sys
for line in sys.stdin:
    try:
        with open(sys.argv[1], "ab", buffering=0) as file:
            file.write(bytes(65536))
        print(0, flush=True)
    except OSError as error:
        print(error.errno, flush=True)
"""


def test_a_process_under_a_quota_cannot_write_until_it_is_over(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, str(tmp_path / "file")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None

        def write() -> int:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write("\n")
            process.stdin.flush()
            return int(process.stdout.readline())

        quota = Quota([process.pid])
        assert write() == 0
        quota.fill()
        assert write() == errno.EFBIG
        quota.free()
        assert write() == 0
        process.stdin.close()
        assert process.wait(ENOUGH_S) == 0
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 4096


def writable(folder: Path) -> bool:
    path = folder / "file"
    try:
        with path.open("wb", buffering=0) as file:
            return file.write(bytes(65536)) == 65536
    except OSError as error:
        return error.errno != errno.ENOSPC
    finally:
        path.unlink(missing_ok=True)


def test_a_small_disk_is_full_and_has_room_again(tmp_path: Path) -> None:
    if not may_mount():
        pytest.skip("needs root")
    try:
        with small_disk(tmp_path / "disk", 1 << 20) as disk:
            assert writable(disk.folder)
            disk.fill()
            assert not writable(disk.folder)
            disk.free()
            assert writable(disk.folder)
            disk.fill(but=16 << 10)
            with pytest.raises(OSError, match="No space left"):
                (disk.folder / "large").write_bytes(bytes(64 << 10))
            assert 0 < (disk.folder / "large").stat().st_size <= 16 << 10
    except DiskFault as fault:
        pytest.skip(f"root may not mount here: {fault}")
    assert list((tmp_path / "disk").iterdir()) == []


def test_a_disk_that_is_full_for_a_while_by_command(tmp_path: Path) -> None:
    ready = tmp_path / "ready.json"
    words = ("sim", "disk", "--pid", str(os.getpid()), "--after", "1h", "--ready", str(ready))
    with subprocess.Popen(python(*words), stdout=subprocess.DEVNULL) as process:
        until = time.monotonic() + ENOUGH_S
        while not ready.exists() and process.poll() is None and time.monotonic() < until:
            time.sleep(0.05)
        assert json.loads(ready.read_text("utf-8"))["pids"] == [os.getpid()]
        process.terminate()
        assert process.wait(ENOUGH_S) == 0
