"""`millgate sim disk` and `millgate sim clock`: full disks and wrong clocks to ask for."""

from pathlib import Path
from typing import Annotated, Final

import typer

from protocols.errors import MillgateError
from protocols.language import tr
from simulators.faults.disk import LARGEST, SMALLEST, DiskFault, Quota
from simulators.options import Duration, Ready, fail, nanoseconds, run, seconds

DISK_HELP: Final = tr(
    "A disk that is full for a while.\n\n"
    "With FOLDER: mount an empty file system of its own there, in memory, until this command ends (needs "
    "root); put a program's data on it. With --pid: processes of yours, and those they start later, cannot "
    "write further into any file (no root needed; writes fail with EFBIG, not ENOSPC).\n\n"
    "\b\nExamples:\n  millgate sim disk mill/data --size 32M --after 60s --for 30s\n"
    "  millgate sim disk --pid 4711 --after 10s --for 30s",
    "一段时间内处于写满状态的磁盘。\n\n"
    "给出 FOLDER：在该处挂载一个独立的空文件系统（位于内存，需要 root），直到本命令结束；把程序的数据放在上面。"
    "给出 --pid：您的进程及其之后启动的子进程无法继续写入任何文件（无需 root；错误码为 EFBIG 而非 ENOSPC）。\n\n"
    "\b\n示例：\n  millgate sim disk mill/data --size 32M --after 60s --for 30s\n"
    "  millgate sim disk --pid 4711 --after 10s --for 30s",
)
CLOCK_HELP: Final = tr(
    "Run a command with another wall clock.\n\n"
    "Only Python processes of the command see it, by time.time and time.time_ns; C code does not "
    "(certificates, times of files). The machine's own clock is left alone, and so are the monotonic and "
    "the boot clock.\n\n"
    "\b\nExamples:\n  millgate sim clock --ahead 1h --after 30s -- millgate agent run mill/agent.toml\n"
    "  millgate sim clock --behind 10m --after 30s --for 60s -- millgate agent run mill/agent.toml\n"
    "  millgate sim clock --drift 0.01 -- millgate agent run mill/agent.toml\n"
    "  echo +1h > clock; millgate sim clock --file clock -- millgate agent run mill/agent.toml",
    "以另一个时钟运行一条命令。\n\n"
    "仅该命令的 Python 进程经 time.time 与 time.time_ns 看到；C 代码（证书有效期、文件时间）不受影响。"
    "本机时钟、单调时钟与启动时钟均不改变。\n\n"
    "\b\n示例：\n  millgate sim clock --ahead 1h --after 30s -- millgate agent run mill/agent.toml\n"
    "  millgate sim clock --behind 10m --after 30s --for 60s -- millgate agent run mill/agent.toml\n"
    "  millgate sim clock --drift 0.01 -- millgate agent run mill/agent.toml\n"
    "  echo +1h > clock; millgate sim clock --file clock -- millgate agent run mill/agent.toml",
)
_UNITS: Final = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}

After = Annotated[str, typer.Option(help=tr("be sound for this long first", "先正常这么久"))]
For = Annotated[
    str | None,
    typer.Option("--for", help=tr("for this long; else until the end", "持续多久；默认直到结束")),
]


def _size(text: str) -> int:
    number, unit = (text[:-1], text[-1:].upper()) if text[-1:].upper() in _UNITS else (text, "")
    size = int(number) * _UNITS.get(unit, 1) if number.isdecimal() else 0
    if not SMALLEST <= size <= LARGEST:
        raise DiskFault(
            tr("is not a size that is allowed", "大小不合要求"),
            where=f"--size {text}",
            remedy=tr("write 1M to 4G, such as 32M", "请写 1M 至 4G，例如 32M"),
        )
    return size


def disk(
    folder: Annotated[
        Path | None, typer.Argument(help=tr("new or empty folder", "新目录或空目录"))
    ] = None,
    *,
    size: Annotated[str, typer.Option(help=tr("of the file system", "文件系统大小"))] = "32M",
    pid: Annotated[
        list[int] | None, typer.Option(help=tr("a process; may be repeated", "进程号；可重复"))
    ] = None,
    after: After = "0s",
    for_: For = None,
    ready: Ready = None,
    duration: Duration = None,
) -> None:
    """Be a disk that is full for a while."""
    from simulators.faults.app import Outing, Season  # noqa: PLC0415 - slow to load
    from simulators.faults.kit import run_full, run_small_disk  # noqa: PLC0415 - slow to load

    season = Season(seconds(after, "--after") or 0.0, seconds(for_, "--for"))
    outing = Outing(ready, seconds(duration))
    try:
        if (folder is None) == (not pid):
            raise DiskFault(
                tr("what is to be full?", "未说明写满何处"),
                remedy=tr("give either a folder or --pid", "请给出目录或 --pid 之一"),
            )
        if folder is not None:
            run(run_small_disk(folder, _size(size), season=season, outing=outing))
        else:
            quota = Quota(pid or [])
            quota.check()
            run(run_full(quota, {"pids": pid or []}, season=season, outing=outing))
    except MillgateError as error:
        fail(error)


def clock(
    command: Annotated[
        list[str], typer.Argument(help=tr("the command, after --", "命令，写在 -- 之后"))
    ],
    *,
    ahead: Annotated[
        str | None, typer.Option(help=tr("its clock is ahead by this", "时钟快这么多"))
    ] = None,
    behind: Annotated[
        str | None, typer.Option(help=tr("its clock is behind by this", "时钟慢这么多"))
    ] = None,
    drift: Annotated[
        float,
        typer.Option(
            min=-0.5,
            max=0.5,
            help=tr("its clock runs fast by this part; negative is slow", "走快的比例；负数为走慢"),
        ),
    ] = 0.0,
    after: After = "0s",
    for_: For = None,
    file: Annotated[
        Path | None,
        typer.Option(
            help=tr(
                "a file that says it in one line, +1h, -10m, 0 or '0 0.01', whenever it changes",
                "随时以一行内容指定偏差的文件：+1h、-10m、0 或 '0 0.01'",
            )
        ),
    ] = None,
) -> None:
    """Run a command with another wall clock."""
    from simulators.faults.clock import ClockFault, Shift, run_with_clock  # noqa: PLC0415 - slow to load

    ahead_ns = nanoseconds(ahead, "--ahead") if ahead else 0
    ahead_ns -= nanoseconds(behind, "--behind") if behind else 0
    shift = Shift(ahead_ns, drift, seconds(after, "--after") or 0.0, seconds(for_, "--for"))
    try:
        if file is not None and shift != Shift():
            raise ClockFault(
                tr("the clock is given twice", "时钟被指定了两次"),
                remedy=tr("give either --file or the others", "请只用 --file 或其余选项之一"),
            )
        if file is None and not ahead_ns and not drift:
            raise ClockFault(
                tr("the clock would be right", "时钟没有偏差"),
                remedy=tr(
                    "give --ahead, --behind, --drift or --file",
                    "请给出 --ahead、--behind、--drift 或 --file",
                ),
            )
        code = run_with_clock(command, shift, file)
    except MillgateError as error:
        fail(error)
    # As a shell tells of a command that a signal ended.
    raise typer.Exit(code if code >= 0 else 128 - code)
