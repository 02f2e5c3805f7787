"""`millgate sim chaos …` and `millgate sim proxy`: misbehaviour to ask for by name."""

import random
from typing import Annotated, Final, Literal

import typer

from protocols.errors import MillgateError
from protocols.language import tr
from simulators.faults.catalogue import MODBUS, MODBUS_SHAPES, OPCUA, PROXY
from simulators.faults.plan import check_name, read_plan
from simulators.options import Duration, Port, Ready, fail, run, seconds

chaos = typer.Typer(
    help=tr(
        "Devices that misbehave on command. 'millgate sim chaos list' names the faults.",
        "按命令出错的设备。'millgate sim chaos list' 列出全部故障。",
    ),
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
)

_MOST_UNITS: Final = 64
_SHORTEST_PAUSE_S: Final = 0.01

Seed = Annotated[int, typer.Option(min=0, help=tr("decides every choice", "决定所有随机选择"))]
After = Annotated[
    str | None, typer.Option(help=tr("sound for this long first", "先正常运行这么久"))
]
For = Annotated[
    str | None,
    typer.Option("--for", help=tr("misbehave for this long, then be sound", "故障持续多久后恢复")),
]


def _span(text: str, option: str) -> float:
    return seconds(text, option) or 0.0


def _pause(text: str, option: str) -> float:
    """Read how long to wait between two rounds; too short a wait would leave time for nothing."""
    span = _span(text, option)
    if span < _SHORTEST_PAUSE_S:
        fail(
            MillgateError(
                tr("is too short", "时间过短"),
                where=option,
                remedy=tr("write at least 10ms", "请至少写 10ms"),
            )
        )
    return span


@chaos.command(
    name="list",
    help=tr("Name all faults and say what each does.", "列出全部故障及其表现。"),
)
def list_faults() -> None:
    """Name all faults."""
    sections = {
        tr("modbus, request by request", "modbus，逐请求"): MODBUS,
        tr("modbus, all the time", "modbus，持续"): MODBUS_SHAPES,
        "opcua": OPCUA,
        "proxy": PROXY,
    }
    width = max(len(name) for faults in sections.values() for name in faults)
    for title, faults in sections.items():
        typer.echo(f"{title}:")
        for name, what in faults.items():
            typer.echo(f"  {name:<{width}}  {what}")


@chaos.command(
    help=tr(
        "Serve a Modbus device, or a gateway with several, that misbehaves.\n\n"
        "Every value tells where it belongs: unit x 1000 + address, and 500 more in the input "
        "table. Faults of single requests hit a share of them, or follow a script such as "
        "ok*20,late-reply*3,garbage.\n\n"
        "\b\nExample:\n"
        "  millgate sim chaos modbus --fault late-reply --seed 3 --port 0 --ready device.json",
        "模拟一台会出错的 Modbus 设备，或带多个单元的网关。\n\n"
        "每个值都标明自己的位置：单元 x 1000 + 地址，输入寄存器再加 500。单请求故障按比例出现，"
        "或按脚本出现，例如 ok*20,late-reply*3,garbage。\n\n"
        "\b\n示例：\n"
        "  millgate sim chaos modbus --fault late-reply --seed 3 --port 0 --ready device.json",
    )
)
def modbus(
    *,
    fault: Annotated[
        list[str] | None,
        typer.Option(help=tr("a fault, or a script; may be repeated", "故障名或脚本；可重复")),
    ] = None,
    seed: Seed = 1,
    share: Annotated[
        float,
        typer.Option(min=0, max=1, help=tr("share of requests that are hit", "受影响的请求比例")),
    ] = 0.2,
    units: Annotated[
        str, typer.Option(help=tr("unit ids behind it, 1 to 64", "单元号，1 至 64"))
    ] = "1,2,3",
    after: After = None,
    for_: For = None,
    late: Annotated[
        str,
        typer.Option(
            help=tr(
                "a late answer nobody waits for any more comes after this", "迟到应答最晚何时发出"
            )
        ),
    ] = "5s",
    drip: Annotated[
        str, typer.Option(help=tr("between bytes that drip", "逐字节发送的间隔"))
    ] = "50ms",
    away: Annotated[str, typer.Option(help=tr("how long a restart takes", "重启耗时"))] = "1s",
    gateway: Annotated[
        str, typer.Option(help=tr("a gateway's wait for a dead unit", "网关等待失联单元的时间"))
    ] = "1s",
    transport: Annotated[
        Literal["tcp", "rtu-over-tcp", "rtu"],
        typer.Option(
            help=tr(
                "TCP, serial frames over TCP, or a pseudo terminal",
                "TCP、TCP 承载的串行帧，或伪终端串口",
            )
        ),
    ] = "tcp",
    port: Port = 0,
    ready: Ready = None,
    duration: Duration = None,
) -> None:
    """Serve a Modbus device that misbehaves."""
    from simulators.faults.app import Outing, Season, run_chaos_modbus  # noqa: PLC0415 - slow
    from simulators.faults.modbus_lies import Pace  # noqa: PLC0415 - slow to load
    from simulators.faults.telling import TellingRegisters  # noqa: PLC0415 - slow to load

    names = fault or []
    shapes = [name for name in names if name in MODBUS_SHAPES]
    rest = [name for name in names if name not in MODBUS_SHAPES]
    chance = random.Random(seed)  # noqa: S311 - repeatable on purpose
    try:
        numbers = _units(units)
        plan = read_plan(rest, MODBUS, share, chance)
    except MillgateError as error:
        fail(error)
    run(
        run_chaos_modbus(
            TellingRegisters(numbers),
            plan=plan,
            shapes=shapes,
            season=Season(_span(after or "0", "--after"), seconds(for_, "--for")),
            pace=Pace(
                late_s=_span(late, "--late"),
                drip_s=_span(drip, "--drip"),
                away_s=_span(away, "--away"),
                gateway_s=_span(gateway, "--gateway"),
            ),
            seed=seed,
            port=port,
            outing=Outing(ready, seconds(duration)),
            report={"units": numbers, "faults": names, "seed": seed},
            what=tr("device", "设备"),
            transport=transport,
        )
    )


def _units(text: str) -> list[int]:
    try:
        numbers = sorted({int(part) for part in text.split(",")})
    except ValueError:
        numbers = []
    if not numbers or not 1 <= numbers[0] <= numbers[-1] <= _MOST_UNITS:
        raise MillgateError(
            tr("are not unit ids", "不是单元号"),
            where="--units",
            remedy=tr(
                "write numbers from 1 to 64, such as 1,2,3", "请写 1 至 64 的数字，例如 1,2,3"
            ),
        )
    return numbers


@chaos.command(
    help=tr(
        "Serve an OPC UA server that misbehaves.\n\n"
        "Node n shows a number that ends in n, in three namespaces that hold the same names. "
        "Faults either last, or happen again and again.\n\n"
        "\b\nExample:\n"
        "  millgate sim chaos opcua --fault session-drop --every 10s --ready server.json",
        "模拟一台会出错的 OPC UA 服务器。\n\n"
        "节点 n 的值以 n 结尾；三个命名空间中名称相同。故障或持续存在，或反复发生。\n\n"
        "\b\n示例：\n"
        "  millgate sim chaos opcua --fault session-drop --every 10s --ready server.json",
    )
)
def opcua(
    *,
    fault: Annotated[
        list[str] | None,
        typer.Option(help=tr("a fault; may be repeated", "故障名；可重复")),
    ] = None,
    every: Annotated[
        str,
        typer.Option(help=tr("how often a drop or restart happens", "断开、重启类故障的间隔")),
    ] = "10s",
    seed: Seed = 1,
    share: Annotated[
        float, typer.Option(min=0, max=1, help=tr("share of values that lie", "失真值的比例"))
    ] = 0.3,
    nodes: Annotated[int, typer.Option(min=1, max=999, help=tr("how many", "节点数"))] = 30,
    interval: Annotated[
        str, typer.Option(help=tr("how often all values change", "全部值的变化间隔"))
    ] = "100ms",
    delay: Annotated[
        str, typer.Option(help=tr("how late a slow server is", "缓慢时的延迟"))
    ] = "500ms",
    away: Annotated[str, typer.Option(help=tr("how long a restart takes", "重启耗时"))] = "1s",
    after: After = None,
    for_: For = None,
    port: Port = 0,
    ready: Ready = None,
    duration: Duration = None,
) -> None:
    """Serve an OPC UA server that misbehaves."""
    from simulators.faults.app import Chaos, Outing, Season, run_chaos_opcua  # noqa: PLC0415 - slow

    names = fault or []
    try:
        for name in names:
            check_name(name, OPCUA)
    except MillgateError as error:
        fail(error)
    run(
        run_chaos_opcua(
            Chaos(
                faults=names,
                every_s=_pause(every, "--every"),
                nodes=nodes,
                share=share,
                interval_s=_pause(interval, "--interval"),
                delay_s=_span(delay, "--delay"),
                away_s=_span(away, "--away"),
                seed=seed,
            ),
            season=Season(_span(after or "0", "--after"), seconds(for_, "--for")),
            port=port,
            outing=Outing(ready, seconds(duration)),
        )
    )


def proxy(
    *,
    to: Annotated[str, typer.Option(help=tr("HOST:PORT to relay to", "转发目标 HOST:PORT"))],
    fault: Annotated[str | None, typer.Option(help=", ".join(PROXY))] = None,
    way: Annotated[
        str,
        typer.Option(
            help=tr(
                "what is hindered: out (to the target), back, or both",
                "影响方向：out（去往目标）、back（返回）或 both",
            )
        ),
    ] = "both",
    delay: Annotated[str, typer.Option(help=tr("how long each piece waits", "每段延迟"))] = "200ms",
    rate: Annotated[
        int, typer.Option(min=1, help=tr("bytes per second when throttled", "限速，字节/秒"))
    ] = 1000,
    pieces: Annotated[
        int,
        typer.Option(
            min=1, help=tr("cut or drop within this many pieces", "在多少段之内断开或丢字节")
        ),
    ] = 10,
    seed: Seed = 1,
    after: After = None,
    for_: For = None,
    port: Port = 0,
    ready: Ready = None,
    duration: Duration = None,
) -> None:
    """Relay TCP connections, with hindrance."""
    from simulators.faults.app import Outing, Season, run_proxy  # noqa: PLC0415 - slow to load
    from simulators.faults.proxy import Hindrance, Way  # noqa: PLC0415 - slow to load

    try:
        target = _target(to)
        check_name(fault or next(iter(PROXY)), PROXY)
        if way not in {each.value for each in Way}:
            raise MillgateError(
                tr("is not a direction", "不是有效方向"), where="--way", remedy="out, back, both"
            )
    except MillgateError as error:
        fail(error)
    run(
        run_proxy(
            target,
            hindrance=Hindrance(
                fault or "", Way(way), _span(delay, "--delay"), rate=rate, pieces=pieces
            ),
            season=Season(_span(after or "0", "--after"), seconds(for_, "--for")),
            seed=seed,
            port=port,
            outing=Outing(ready, seconds(duration)),
        )
    )


PROXY_HELP: Final = tr(
    "Relay TCP connections to a device or broker, with hindrance.\n\n"
    "\b\nExample:\n  millgate sim proxy --to 127.0.0.1:1883 --fault cut --after 10s --for 30s",
    "转发到设备或消息代理的 TCP 连接，并施加故障。\n\n"
    "\b\n示例：\n  millgate sim proxy --to 127.0.0.1:1883 --fault cut --after 10s --for 30s",
)


def _target(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 1 << 16:
        raise MillgateError(
            tr("is not an address", "不是地址"),
            where=f"--to {text}",
            remedy=tr(
                "write HOST:PORT, such as 127.0.0.1:1883", "请写 主机:端口，例如 127.0.0.1:1883"
            ),
        )
    return host.strip("[]"), int(port)
