"""What the commands of the simulators have in common: options, running, and telling faults."""

import asyncio
import logging
from collections.abc import Coroutine
from pathlib import Path
from typing import Annotated, Final, NoReturn

import typer

from protocols.errors import MillgateError
from protocols.frame import SECOND
from protocols.language import tr
from protocols.settings import parse_duration

_PORT: Final = tr("port to listen on; 0 lets the kernel pick", "监听端口；0 表示由内核选取")

Ready = Annotated[
    Path | None,
    typer.Option(help=tr("JSON file written once it listens", "开始监听后写出的 JSON 文件")),
]
Duration = Annotated[
    str | None,
    typer.Option(help=tr("stop after this long, such as 60s", "运行多久后停止，例如 60s")),
]
Port = Annotated[int, typer.Option(min=0, max=65535, help=_PORT)]


def fail(error: MillgateError) -> NoReturn:
    """Tell the fault in one line and end with its exit code."""
    typer.echo(str(error), err=True)
    raise typer.Exit(error.exit_code)


def run(work: Coroutine[None, None, None]) -> None:
    """Run a simulator to its end; a fault is one line."""
    # They report on every refused client, with tracebacks; faults that matter here are raised.
    for library in ("asyncua", "amqtt"):
        logging.getLogger(library).setLevel(logging.CRITICAL)
    try:
        asyncio.run(work)
    except MillgateError as error:
        fail(error)
    except ExceptionGroup as group:
        fault = _only_fault(group)
        if fault is None:
            raise
        fail(fault)


def _only_fault(group: ExceptionGroup) -> MillgateError | None:
    """Return the first of a group that holds nothing but faults for people."""
    first: BaseException = group
    while isinstance(first, BaseExceptionGroup):
        if first.split(MillgateError)[1] is not None:
            return None
        first = first.exceptions[0]
    return first if isinstance(first, MillgateError) else None


def nanoseconds(text: str, option: str) -> int:
    """Read a duration as nanoseconds, or fail naming the option."""
    try:
        return parse_duration(text)
    except ValueError as error:
        fail(MillgateError(str(error), where=option))


def seconds(text: str | None, option: str = "--duration") -> float | None:
    """Read a duration as seconds, or fail naming the option; a bare number is seconds."""
    if text is None:
        return None
    return float(text) if text.isdecimal() else nanoseconds(text, option) / SECOND
