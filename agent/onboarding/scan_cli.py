"""`millgate agent scan`: what is there, without a single value."""

import asyncio
import json
import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from rich.console import Console

from agent.config import read_config
from agent.onboarding import terminal
from agent.onboarding.adding import bare_config, before_configured
from agent.onboarding.options import AgentToml, Security, Settings, pairs, place, toml_value
from agent.onboarding.profiles import VARIABLE, ModbusProfile, shipped
from agent.registry import Discoveries
from protocols.drivers import NotConnected
from protocols.errors import MillgateError
from protocols.frame import SECOND
from protocols.language import tr
from protocols.sheet import Row, screen, show_sheet

if TYPE_CHECKING:
    from protocols.drivers.modbus.config import Config as ModbusConfig
    from protocols.drivers.modbus.point import Table as ModbusTable
    from protocols.drivers.modbus.survey import Ranges
    from protocols.drivers.opcua.config import Config as OpcuaConfig

_LAST_UNIT: Final = 255
_MOST_ROWS: Final = 200

HELP: Final = tr(
    "Look around at a device: endpoints and nodes of an OPC UA server, or units and readable "
    "addresses of Modbus devices.\n\n"
    "It only reads, slowly and within bounds, and shows no values. What was found is kept in the "
    "agent's folder; without a target that is shown.\n\n"
    "\b\nExamples:\n"
    "  millgate agent scan mill/agent.toml opc.tcp://192.168.1.30:4840 --security none\n"
    "  millgate agent scan mill/agent.toml 192.168.1.20 --units 1-10\n"
    "  millgate agent scan mill/agent.toml /dev/ttyUSB0 --with baud=19200",
    "查看设备概况：OPC UA 服务器的端点与节点，或 Modbus 设备的站号与可读地址。\n\n"
    "只读、缓慢、有界，不显示任何数值。结果保存在代理程序的登记文件中；不给目标则显示已有结果。\n\n"
    "\b\n示例：\n"
    "  millgate agent scan mill/agent.toml opc.tcp://192.168.1.30:4840 --security none\n"
    "  millgate agent scan mill/agent.toml 192.168.1.20 --units 1-10\n"
    "  millgate agent scan mill/agent.toml /dev/ttyUSB0 --with baud=19200",
)


def scan(
    path: AgentToml,
    target: Annotated[
        str | None,
        typer.Argument(
            help=tr(
                "HOST[:PORT], opc.tcp://HOST:PORT/PATH, /dev/ttyUSB0, or a configured device",
                "主机[:端口]、opc.tcp://主机:端口/路径、/dev/ttyUSB0，或已配置的设备",
            )
        ),
    ] = None,
    *,
    units: Annotated[
        str, typer.Option(help=tr("Modbus unit ids to look for", "要查找的 Modbus 站号"))
    ] = "1-10,255",
    security: Security = None,
    settings: Settings = None,
    seconds: Annotated[
        float, typer.Option(min=1, max=3600, help=tr("how long at most", "最长用时（秒）"))
    ] = 120.0,
    requests: Annotated[
        int, typer.Option(min=1, max=100_000, help=tr("most Modbus requests", "Modbus 请求数上限"))
    ] = 2000,
    per_second: Annotated[
        float, typer.Option(min=0.1, max=200, help=tr("most requests a second", "每秒请求数上限"))
    ] = 20.0,
    nodes: Annotated[
        int, typer.Option(min=1, max=50_000, help=tr("most OPC UA nodes", "OPC UA 节点数上限"))
    ] = 5000,
    as_json: Annotated[bool, typer.Option("--json", help=tr("as JSON", "输出 JSON"))] = False,
) -> None:
    """Look around at a device."""
    config = read_config(path)
    discoveries = Discoveries(config.spool.folder)
    try:
        if target is None:
            _show_known(discoveries, as_json=as_json)
            return
        device: Any = next((one for one in config.devices if one.id == target), None)
        if device is None:
            keys = {"id": "scan", **place(target)}
            keys |= {"security": security} if security is not None else {}
            keys |= {k: toml_value(v) for k, v in pairs(settings or [], "--with").items()}
            keys |= {"timeout": "1s"} if "timeout" not in keys and keys["kind"] == "modbus" else {}
            device = bare_config(path, keys)
        found: dict[str, Any]
        if device.kind == "opcua":
            limits = {"nodes": nodes, "seconds": seconds, "per_second": per_second}
            found = asyncio.run(_scan_opcua(device, limits))
        else:
            limits = {"requests": requests, "seconds": seconds, "per_second": per_second}
            found = asyncio.run(_scan_modbus(device, _units(units), limits))
        discoveries.note(target, found, time.time_ns() // SECOND)
    finally:
        terminal.progress_over()
        discoveries.close()
    _show(target, found, as_json=as_json)


def _units(text: str) -> list[int]:
    """Return the unit ids that '1-10,255' stands for."""
    found: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        ends = (first, last if dash else first)
        if not all(end.isdecimal() and int(end) <= _LAST_UNIT for end in ends):
            raise MillgateError(
                tr(f"'{part}' is no unit id", f"'{part}' 不是站号"),
                where="--units",
                remedy=tr("write 1-10,255; at most 255", "请写 1-10,255；最大 255"),
            )
        found += range(int(ends[0]), int(ends[1]) + 1)
    return list(dict.fromkeys(found))


async def _scan_modbus(
    config: "ModbusConfig", units: Sequence[int], limits: dict[str, Any]
) -> dict[str, Any]:
    from protocols.drivers.modbus import survey  # noqa: PLC0415 - slow to load

    known = _known_addresses()
    hints: dict[ModbusTable, list[int]] = {}
    for table, first, _ in sorted({one for places in known.values() for one in places}):
        hints.setdefault(table, []).append(first)
    async with survey.Survey(config, survey.Bounds(**limits)) as asking:
        complete = True
        try:
            answering = await survey.find_units(
                asking, units, lambda unit: terminal.progress(tr(f"unit {unit}", f"站号 {unit}"))
            )
        except survey.Spent:
            answering, complete = [], False
        found = [
            await survey.find_ranges(asking, unit, hints, terminal.progress) for unit in answering
        ]
        complete = complete and all(one.complete for one in found)
        return {
            "kind": "modbus",
            "units": [_unit(one, known) for one in found],
            "asked": list(units),
            "requests": asking.requests,
            "complete": complete,
        }


def _unit(
    ranges: "Ranges", known: "dict[str, set[tuple[ModbusTable, int, int]]]"
) -> dict[str, Any]:
    spans: dict[str, list[dict[str, Any]]] = {
        table: [asdict(span) for span in some] for table, some in ranges.spans.items() if some
    }

    def given(table: str, first: int, last: int) -> bool:
        return any(one["first"] <= first and last <= one["last"] for one in spans.get(table, []))

    everything = any(one["last"] - one["first"] == 65535 for some in spans.values() for one in some)
    fitting = [
        name for name, places in known.items() if places and all(given(*one) for one in places)
    ]
    return {
        "unit": ranges.unit,
        "readable": spans,
        # A device that answers at every address tells nothing by it.
        "perhaps": [] if everything else fitting,
        "complete": ranges.complete,
    }


def _known_addresses() -> "dict[str, set[tuple[ModbusTable, int, int]]]":
    """Return, by profile, the addresses that a device of it has whatever else it is."""
    from protocols.drivers.modbus.point import ADDRESS  # noqa: PLC0415 - slow to load
    from protocols.drivers.modbus.survey import TABLES, WORDS  # noqa: PLC0415 - same

    found: dict[str, set[tuple[ModbusTable, int, int]]] = {}
    for profile in shipped().values():
        if not isinstance(profile, ModbusProfile):
            continue
        places = found.setdefault(profile.id, set())
        for datum in profile.point:
            match = None if VARIABLE.search(datum.address) else ADDRESS.fullmatch(datum.address)
            if match is not None:
                table = next(one for one in TABLES if one == match[1])
                first = int(match[2])
                places.add((table, first, first + WORDS.get(datum.type, 1) - 1))
    return found


async def _scan_opcua(config: "OpcuaConfig", limits: dict[str, Any]) -> dict[str, Any]:
    from protocols.drivers.opcua import survey  # noqa: PLC0415 - slow to load

    where = f"{config.id} ({config.url})"
    offers = await survey.offers(config, where)
    found: dict[str, Any] = {
        "kind": "opcua",
        "endpoints": [asdict(one) for one in offers],
        "nodes": [],
        "namespaces": [],
        "requests": 0,
        "complete": False,
        "why": "",
    }
    try:
        tree = await survey.look_around(
            config,
            where,
            time.time_ns,
            survey.Bounds(**limits),
            lambda count: terminal.progress(tr(f"{count} nodes", f"{count} 个节点")),
        )
    except NotConnected as fault:
        # Its endpoints say how it would let us in; that is worth showing.
        return found | {"why": str(before_configured(fault, "scan", config.url))}
    return found | {
        "nodes": [
            {
                "path": node.path,
                "address": node.address,
                "by_path": node.by_path,
                "variable": node.variable,
                "type": node.type,
                "array": node.array,
                "readable": node.readable,
            }
            for node in tree.nodes
        ],
        "namespaces": tree.namespaces,
        "requests": tree.requests,
        "complete": not tree.left_out,
        "why": tree.left_out,
    }


def _show_known(discoveries: Discoveries, *, as_json: bool) -> None:
    known = discoveries.all()
    if as_json:
        typer.echo(json.dumps(known, ensure_ascii=False, indent=2))
        return
    if not known:
        typer.echo(tr("nothing was looked at yet", "尚未扫描过任何设备"))
    for one in known:
        typer.echo(time.strftime("%Y-%m-%d %H:%M", time.localtime(one["at"])))
        _show(one["place"], one["found"], as_json=False)


def _show(target: str, found: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps({"target": target, **found}, ensure_ascii=False, indent=2))
        return
    console = screen()
    if found["kind"] == "opcua":
        _show_opcua(console, target, found)
    else:
        _show_modbus(console, target, found)
    if not found["complete"]:
        why = found.get("why") or tr("the bounds were reached", "已达到限制")
        console.print(tr(f"not complete: {why}", f"不完整：{why}"), style="yellow", markup=False)


def _show_modbus(console: Console, target: str, found: dict[str, Any]) -> None:
    headings = (
        tr("unit", "站号"),
        tr("readable (counted from 0)", "可读地址（从 0 起）"),
        tr("has the addresses of", "地址符合的模板"),
    )
    rows = []
    for unit in found["units"]:
        lines = [
            f"{name}:{span['first']}-{span['last']}" + ("" if span["whole"] else " ~")
            for name, spans in unit["readable"].items()
            for span in spans
        ]
        perhaps = "\n".join(unit["perhaps"]) or "-"
        rows.append(Row((str(unit["unit"]), "\n".join(lines) or "-", perhaps)))
    show_sheet(headings, rows, title=target, console=console)
    console.print(
        tr(
            f"{len(found['units'])} of {len(found['asked'])} unit ids answer; "
            f"{found['requests']} requests; ~ means that not every address was tried",
            f"{len(found['asked'])} 个站号中有 {len(found['units'])} 个应答；共 {found['requests']} "
            "次请求；~ 表示未逐一尝试",
        ),
        highlight=False,
    )


def _show_opcua(console: Console, target: str, found: dict[str, Any]) -> None:
    ends = [
        Row((one["policy"], one["mode"], ", ".join(one["logins"]) or "-"))
        for one in found["endpoints"]
    ]
    headings = (tr("policy", "策略"), tr("mode", "模式"), tr("log in as", "登录方式"))
    show_sheet(headings, ends, title=target, console=console)
    nodes = []
    variables = [node for node in found["nodes"] if node["variable"]]
    for node in variables[:_MOST_ROWS]:
        kind = (node["type"] or "-") + ("[]" if node["array"] else "")
        closed = "" if node["readable"] else tr(" (not readable)", "（不可读）")
        nodes.append(Row((node["path"], kind + closed, node["address"])))
    headings = (tr("path", "路径"), tr("type", "类型"), tr("address", "地址"))
    show_sheet(headings, nodes, console=console)
    more = len(variables) - _MOST_ROWS
    if more > 0:
        console.print(tr(f"and {more} more; see --json", f"另有 {more} 个；见 --json"))
