"""`millgate sim`: a factory to try things on."""

import json
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Literal

import typer

from protocols.errors import MillgateError
from protocols.language import tr
from simulators.faults.cli import PROXY_HELP, chaos, proxy
from simulators.faults.kit_cli import CLOCK_HELP, DISK_HELP, clock, disk
from simulators.options import Duration, Port, Ready, fail, nanoseconds, run, seconds
from simulators.recording import Recording, generate, read_recording, zone
from simulators.torture.cli import SOAK_HELP, TORTURE_HELP, soak_command, torture_command

if TYPE_CHECKING:
    from simulators.faults.app import Outing

app = typer.Typer(
    name="sim",
    help=tr(
        "Simulators: a plant, recordings, a broker, and faults. For demo and tests.",
        "模拟器：工厂、历史回放、MQTT 代理与故障。供演示与测试。",
    ),
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
)

app.add_typer(chaos, name="chaos")
app.command(help=PROXY_HELP)(proxy)
app.command(help=DISK_HELP)(disk)
app.command(help=CLOCK_HELP)(clock)
app.command("torture", help=TORTURE_HELP)(torture_command)
app.command("soak", help=SOAK_HELP)(soak_command)

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

EnergyStart = Annotated[
    int | None,
    typer.Option(
        min=0,
        help=tr(
            "the energy register at the beginning, in 0.01 kWh; near 4294967295 it soon starts again",
            "电量寄存器初值，单位 0.01 kWh；接近 4294967295 时很快回绕",
        ),
    ),
]


def _moment(text: str | None) -> int | None:
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
        return (moment - _EPOCH) // timedelta(microseconds=1) * 1000
    except (ValueError, TypeError):
        fail(
            MillgateError(
                tr("is not a moment with a time zone", "不是带时区的时刻"),
                where="--start",
                remedy=tr(
                    "write it like 2026-01-31T08:00:00+08:00", "请写成 2026-01-31T08:00:00+08:00"
                ),
            )
        )


@app.command(
    help=tr(
        "Serve a small factory: a meter over Modbus TCP, a machine over OPC UA.\n\n"
        "All it does follows from seed and start, so a restarted plant continues exactly. "
        "The truth file records every meter reading served; results are judged against it.\n\n"
        "\b\nExample:\n  millgate sim plant --seed 7 --truth truth.jsonl --ready ready.json",
        "模拟一个小工厂：Modbus TCP 电表与 OPC UA 机器。\n\n"
        "其行为完全由 seed 与 start 决定，重启后精确延续。真值文件记录送出的每次电表读数，用于核对结果。\n\n"
        "\b\n示例：\n  millgate sim plant --seed 7 --truth truth.jsonl --ready ready.json",
    )
)
def plant(
    truth: Annotated[
        Path, typer.Option(help=tr("truth file to append to", "要追加写入的真值文件"))
    ],
    *,
    seed: Annotated[
        int | None,
        typer.Option(
            help=tr(
                "which factory; the truth file's, else 1", "哪座工厂；默认取真值文件中的，否则为 1"
            )
        ),
    ] = None,
    start: Annotated[
        str | None,
        typer.Option(
            help=tr(
                "when it was switched on, such as 2026-01-31T08:00:00Z; the truth file's, else now",
                "启动时刻，例如 2026-01-31T08:00:00Z；默认取真值文件中的，否则为当前",
            )
        ),
    ] = None,
    energy_start: EnergyStart = None,
    modbus_port: Port = 0,
    opcua_port: Port = 0,
    ready: Ready = None,
    duration: Duration = None,
) -> None:
    """Serve a small factory."""
    from simulators.app import choose_plant, run_plant  # noqa: PLC0415 - slow to load
    from simulators.truth import TruthFile  # noqa: PLC0415 - slow to load

    duration_s, start_ns = seconds(duration), _moment(start)
    try:
        factory = choose_plant(truth, seed, start_ns, energy_start)
        with closing(TruthFile(truth, factory)) as record:
            run(
                run_plant(
                    factory,
                    record,
                    modbus_port=modbus_port,
                    opcua_port=opcua_port,
                    ready=ready,
                    duration_s=duration_s,
                )
            )
    except MillgateError as error:
        fail(error)


@app.command(
    help=tr(
        "Serve recorded energy as a Modbus meter, in lock-step with its reader.\n\n"
        "The first read on a connection gets the current reading, each further one the next; "
        "so no slot is skipped at any speed.\n\n"
        "\b\nExamples:\n"
        "  millgate sim replay --csv steel.csv --timezone Asia/Seoul --port 1502\n"
        "  millgate sim replay --generate 35040 --seed 3 --totals",
        "把记录的电量作为 Modbus 电表送出，与读取者同步前进。\n\n"
        "同一连接上首次读取得到当前读数，此后每读一次前进一行，因此再快也不会跳过时段。\n\n"
        "\b\n示例：\n"
        "  millgate sim replay --csv steel.csv --timezone Asia/Seoul --port 1502\n"
        "  millgate sim replay --generate 35040 --seed 3 --totals",
    )
)
def replay(
    *,
    csv: Annotated[Path | None, typer.Option(help=tr("the recording", "记录文件（CSV）"))] = None,
    column: Annotated[
        str, typer.Option(help=tr("its column of energy in kWh", "以 kWh 计的电量列"))
    ] = "Usage_kWh",
    timezone: Annotated[
        str | None,
        typer.Option(
            help=tr(
                "time zone of its labels: Asia/Seoul or +09:00; needed with --csv",
                "时间标签的时区：Asia/Seoul 或 +09:00；与 --csv 一起必填",
            )
        ),
    ] = None,
    interval: Annotated[str, typer.Option(help=tr("length of a row", "每行的时长"))] = "15m",
    rows: Annotated[
        int | None,
        typer.Option("--generate", help=tr("make up this many rows instead", "改为生成这么多行")),
    ] = None,
    seed: Annotated[int, typer.Option(help=tr("which made-up year", "生成哪一年"))] = 1,
    totals: Annotated[
        bool,
        typer.Option(
            "--totals",
            help=tr("print the exact total as JSON and end", "以 JSON 输出精确总量后结束"),
        ),
    ] = False,
    energy_start: EnergyStart = None,
    port: Port = 0,
    ready: Ready = None,
    duration: Duration = None,
) -> None:
    """Serve recorded energy."""
    from simulators.app import describe, run_replay  # noqa: PLC0415 - slow to load

    duration_s, step = seconds(duration), nanoseconds(interval, "--interval")
    try:
        recording = _recording(csv, column, timezone, step, rows, seed)
    except MillgateError as error:
        fail(error)
    if totals:
        typer.echo(json.dumps(describe(recording)))
        return
    if recording.mended:
        typer.echo(
            tr(
                f"{recording.mended} labels of midnight carried the day just ended; read as its end",
                f"{recording.mended} 个零点标签写成了刚结束的那一天，已按该日结束处理",
            )
        )
    run(
        run_replay(
            recording,
            port=port,
            energy_start=energy_start or 0,
            ready=ready,
            duration_s=duration_s,
        )
    )


def _recording(
    csv: Path | None, column: str, timezone: str | None, step: int, rows: int | None, seed: int
) -> Recording:
    if (csv is None) == (rows is None):
        raise MillgateError(
            tr("give either --csv or --generate", "--csv 与 --generate 须且只须给出其一")
        )
    if csv is None:
        return generate(rows or 0, seed, zone(timezone or "+00:00"), step)
    if timezone is None:
        raise MillgateError(
            tr("the time zone of the recording is not stated", "未说明记录的时区"),
            where="--timezone",
            remedy=tr(
                "write a name such as Asia/Seoul, or +09:00", "请写 Asia/Seoul 之类的名称或 +09:00"
            ),
        )
    return read_recording(csv, column, zone(timezone), step)


@app.command(
    help=tr(
        "Run an MQTT broker for demo and tests only: loopback, anonymous, in memory.\n\n"
        "\b\nExample:\n  millgate sim broker --port 1883 --ready broker.json",
        "运行仅供演示与测试的 MQTT 代理：仅本机、匿名、不落盘。\n\n"
        "\b\n示例：\n  millgate sim broker --port 1883 --ready broker.json",
    )
)
def broker(*, port: Port = 0, ready: Ready = None, duration: Duration = None) -> None:
    """Run the embedded broker."""
    from simulators.app import run_broker  # noqa: PLC0415 - slow to load

    run(run_broker(port=port, ready=ready, duration_s=seconds(duration)))


@app.command(
    help=tr(
        "Serve what a captured device said: each value as it was last read.\n\n"
        "FILE is a classic pcap. Units, tables and addresses, or nodes and namespaces, are those "
        "of the capture; what was never read is refused. OPC UA can be read only where it was "
        "captured without security.\n\n"
        "\b\nExamples:\n  millgate sim capture meters.pcap --port 0 --ready device.json\n"
        "  millgate sim capture press.pcap --protocol opcua --captured-port 4840",
        "按抓包回放设备：每个值取最后一次读到的。\n\n"
        "FILE 为传统 pcap 文件。单元、表与地址，或节点与命名空间，均与抓包一致；从未读过的一律拒绝。"
        "OPC UA 只能读取未加密的抓包。\n\n"
        "\b\n示例：\n  millgate sim capture meters.pcap --port 0 --ready device.json\n"
        "  millgate sim capture press.pcap --protocol opcua --captured-port 4840",
    )
)
def capture(
    file: Annotated[Path, typer.Argument(help=tr("pcap file", "pcap 文件"))],
    *,
    protocol: Annotated[
        Literal["modbus", "opcua"],
        typer.Option(help=tr("what the devices in it speak", "抓包中设备的协议")),
    ] = "modbus",
    device: Annotated[
        str | None,
        typer.Option(
            help=tr(
                "address of the device; else the one with most values",
                "设备地址；默认取值最多的一台",
            )
        ),
    ] = None,
    captured_port: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=65535,
            help=tr(
                "port of the devices in it; else 502 or 4840", "抓包中设备的端口；默认 502 或 4840"
            ),
        ),
    ] = None,
    list_: Annotated[
        bool,
        typer.Option(
            "--list", help=tr("print what is in it as JSON and end", "以 JSON 列出内容后结束")
        ),
    ] = False,
    port: Port = 0,
    ready: Ready = None,
    duration: Duration = None,
) -> None:
    """Serve a captured device."""
    from simulators.faults.app import Outing  # noqa: PLC0415 - slow to load

    outing = Outing(ready, seconds(duration))
    serve = _captured_opcua if protocol == "opcua" else _captured_modbus
    try:
        serve(file, captured_port, device, port, None if list_ else outing)
    except MillgateError as error:
        fail(error)


def _captured_modbus(
    file: Path, captured_port: int | None, device: str | None, port: int, outing: "Outing | None"
) -> None:
    from simulators import captured  # noqa: PLC0415 - slow to load
    from simulators.faults.app import run_capture  # noqa: PLC0415 - slow to load

    found = captured.read_capture(file, captured_port or captured.PORT)
    if outing is None:
        typer.echo(json.dumps(captured.describe(found.devices)))
        return
    chosen = found.device(device)
    _tell_damage(damaged=found.damaged)
    run(run_capture(chosen, port=port, outing=outing))


def _captured_opcua(
    file: Path, captured_port: int | None, device: str | None, port: int, outing: "Outing | None"
) -> None:
    from simulators import captured_opcua  # noqa: PLC0415 - slow to load
    from simulators.captured_server import run_captured_server  # noqa: PLC0415 - slow to load

    found = captured_opcua.read_opcua_capture(file, captured_port or captured_opcua.PORT)
    if outing is None:
        typer.echo(json.dumps(captured_opcua.describe(found.servers)))
        return
    chosen = found.server(device)
    _tell_damage(damaged=found.damaged)
    run(run_captured_server(chosen, port=port, outing=outing))


def _tell_damage(*, damaged: bool) -> None:
    if damaged:
        typer.echo(tr("the file ends in the middle", "文件不完整"), err=True)


if __name__ == "__main__":
    app()
