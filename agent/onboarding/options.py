"""Words of the command line that stand for settings of a device."""

import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

import typer

from protocols.errors import MillgateError
from protocols.language import tr

AgentToml = Annotated[Path, typer.Argument(help=tr("path of agent.toml", "agent.toml 的路径"))]

Security = Annotated[
    str | None,
    typer.Option(help=tr("OPC UA: 'none' gives up protection", "OPC UA：'none' 表示放弃保护")),
]

Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--with",
        help=tr(
            "any other setting, such as interval=5s or baud=19200 (repeatable)",
            "其他设置，例如 interval=5s 或 baud=19200（可重复）",
        ),
    ),
]

RawElsewhere = Annotated[
    bool,
    typer.Option(
        "--redirect-raw-values",
        help=tr("let raw values go elsewhere than to a terminal", "允许原始值输出到终端以外"),
    ),
]


def pair(text: str, option: str) -> tuple[str, str]:
    """Split KEY=VALUE.

    Raises:
        MillgateError: when it is none.
    """
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise MillgateError(
            tr(f"'{text}' is not KEY=VALUE", f"'{text}' 不是 键=值"),
            where=option,
            remedy=tr("such as scale=tenths", "例如 scale=tenths"),
        )
    return key.strip(), value.strip()


def pairs(texts: Iterable[str], option: str) -> dict[str, str]:
    """Return all of some KEY=VALUE."""
    return dict(pair(text, option) for text in texts)


def toml_value(text: str) -> Any:
    """Return what TOML makes of a value; text needs no quotes here."""
    try:
        return tomllib.loads(f"x = {text}")["x"]
    except tomllib.TOMLDecodeError:
        return text


def changes(texts: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Return POINT.KEY=VALUE as keys to set by point."""
    found: dict[str, dict[str, Any]] = {}
    for text in texts:
        name, value = pair(text, "--set")
        point, dot, key = name.rpartition(".")
        if not dot:
            raise MillgateError(
                tr(f"'{text}' is not POINT.KEY=VALUE", f"'{text}' 不是 点.键=值"),
                where="--set",
                remedy=tr(
                    "such as total.measurand=production.total",
                    "例如 total.measurand=production.total",
                ),
            )
        found.setdefault(point, {})[key] = toml_value(value)
    return found


def place(text: str) -> dict[str, Any]:
    """Return the settings that a target on the command line stands for.

    `opc.tcp://…` is an OPC-UA server, `/dev/…` a serial line, `host:port` or `host` Modbus TCP.

    Raises:
        MillgateError: when it is none of them.
    """
    if text.startswith("opc.tcp://"):
        return {"kind": "opcua", "url": text}
    if text.startswith("/"):
        return {"kind": "modbus", "transport": "rtu", "serial": text}
    try:
        parts = urlsplit(f"//{text}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if not host or parts.path or parts.username:
        raise MillgateError(
            tr(f"'{text}' is no place of a device", f"'{text}' 不是设备地址"),
            remedy=tr(
                "write HOST, HOST:PORT, opc.tcp://HOST:PORT/PATH or /dev/ttyUSB0",
                "请写 主机、主机:端口、opc.tcp://主机:端口/路径 或 /dev/ttyUSB0",
            ),
        )
    return {"kind": "modbus", "host": host} | ({"port": port} if port is not None else {})
