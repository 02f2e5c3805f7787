"""The front door: one `millgate` command. Each room brings its own commands and loads when asked."""

import importlib
import logging
import sys
from collections.abc import Sequence
from typing import Final

import typer

from protocols.errors import MillgateError
from protocols.language import tr

__version__ = "0.1.0"

_ROOMS: Final = {
    "agent": (
        "agent.cli:app",
        tr("on the factory floor: collect, gate, seal, deliver", "厂内：采集、放行、封装、投递"),
    ),
    "policy": (
        "security.cli:policy_app",
        tr("what may leave: write, sign, show", "可公开数据策略：编写、签署、查看"),
    ),
    "keys": ("security.cli:keys_app", tr("make keys", "生成密钥")),
    "aggregator": (
        "aggregator.cli:app",
        tr("at the brain: verify, keep, serve", "产业大脑侧：验签、留存、服务"),
    ),
    "sim": (
        "simulators.cli:app",
        tr("a simulated factory, recordings, a broker", "模拟工厂、历史数据回放、消息代理"),
    ),
    "demo": (
        "simulators.demo_cli:app",
        tr("the whole way on this machine, from machine to page", "本机演示：从设备到页面的全过程"),
    ),
    "reconcile": (
        "reconcile:app",
        tr("do the sums hold? compare both ends and the truth", "对账：两端与真值是否相符"),
    ),
}


def main(argv: Sequence[str] | None = None) -> None:
    """Run one command; faults are one line each and a non-zero exit."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    logging.getLogger("asyncio").setLevel(logging.WARNING)
    try:
        sys.exit(_run(arguments))
    except BaseException as error:
        code = _exit_code(error)
        if code is None:
            raise
        sys.exit(code)


def _run(arguments: list[str]) -> int:
    if arguments and arguments[0] in _ROOMS:
        target, _ = _ROOMS[arguments[0]]
        module, name = target.split(":")
        room: typer.Typer = getattr(importlib.import_module(module), name)
        result = room(
            args=arguments[1:], prog_name=f"millgate {arguments[0]}", standalone_mode=True
        )
        return int(result or 0)
    if arguments and arguments[0] in {"--version", "-V"}:
        typer.echo(__version__)
        return 0
    if arguments and arguments[0] not in {"--help", "-h"}:
        typer.echo(
            tr(
                f"millgate: there is no command '{arguments[0]}'",
                f"millgate：没有命令 '{arguments[0]}'",
            ),
            err=True,
        )
        typer.echo(_help(), err=True)
        return 2
    typer.echo(_help())
    return 0


def _help() -> str:
    width = max(len(name) for name in _ROOMS)
    rows = "\n".join(f"  {name:<{width}}  {text}" for name, (_, text) in _ROOMS.items())
    return tr(
        f"Usage: millgate COMMAND [ARGUMENTS]\n\nCommands:\n{rows}\n\n"
        "'millgate COMMAND --help' tells more. Example: millgate demo --duration 60",
        f"用法：millgate 命令 [参数]\n\n命令：\n{rows}\n\n"
        "'millgate 命令 --help' 查看详情。示例：millgate demo --duration 60",
    )


def _exit_code(error: BaseException) -> int | None:
    """Print a fault as people should meet it; None when it is not ours to explain."""
    if isinstance(error, BaseExceptionGroup):
        codes = [_exit_code(inner) for inner in error.exceptions]
        return None if None in codes else max(code or 1 for code in codes)
    if isinstance(error, MillgateError):
        typer.echo(str(error), err=True)
        return error.exit_code
    if isinstance(error, KeyboardInterrupt):
        return 130
    return None


if __name__ == "__main__":
    main()
