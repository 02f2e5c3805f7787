"""What may be written of a Modbus device: all of it, and nothing that would be read wrongly."""

from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from protocols.drivers import read_devices
from protocols.drivers.modbus import Config
from protocols.drivers.modbus.point import ModbusPoint
from protocols.errors import ConfigError

AGENT = Path("agent.toml")


def point(address: str, kind: str = "uint16", **fields: Any) -> dict[str, Any]:
    return {"id": address.replace(":", "-"), "address": address, "type": kind, **fields}


def device(**fields: Any) -> dict[str, Any]:
    data: dict[str, Any] = {"id": "meter", "kind": "modbus", "points": [point("holding:0")]}
    if "serial" not in fields:
        data["host"] = "10.0.0.1"
    return data | fields


def read(*tables: dict[str, Any]) -> list[Config]:
    found = read_devices(list(tables), AGENT)
    assert all(isinstance(one, Config) for one in found)
    return [one for one in found if isinstance(one, Config)]


def faults(*tables: dict[str, Any]) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        read_devices(list(tables), AGENT)
    return [str(fault) for fault in caught.value.faults]


GOOD_POINTS = [
    point("coil:3", "bit"),
    point("discrete:65535", "bit"),
    point("holding:5.15", "bit"),
    point("input:5.4-7"),
    point("input:5.4-31", "uint32"),
    point("holding:5.0-63", "uint64"),
    point("holding:0", "bcd16"),
    point("holding:0", "bcd32", invalid=[9999_9999]),
    point("holding:0", "bcd64"),
    point("holding:0", "int16", invalid=[-1, 0x7FFF, 0xFFFF]),
    point("holding:0", "float32", invalid=[-9999.9, 3.4028235e38]),
    point("holding:0", "uint32", order="CDAB"),
    point("holding:30000", "string", length=15, order="BADC"),
]


@pytest.mark.parametrize("one", GOOD_POINTS, ids=lambda one: f"{one['address']} {one['type']}")
def test_every_form_of_a_point_is_taken(one: dict[str, Any]) -> None:
    (config,) = read(device(points=[one, point("holding:9")]))
    assert config.points[0].address == one["address"]


@pytest.mark.parametrize(
    ("one", "told"),
    [
        (point("register:3"), "write 'coil:N'"),
        (point("holding:65536"), "write 'coil:N'"),
        (point("holding:65535", "uint32"), "reaches past"),
        (point("holding:４"), "write 'coil:N'"),
        (point("coil:3"), 'write type = "bit"'),
        (point("coil:3.1", "bit"), 'write type = "bit"'),
        (point("coil:3", "bit", order="BADC"), "no order"),
        (point("holding:3", "bit"), "such as 'holding:3.0'"),
        (point("holding:3.1-2", "bit"), 'write type = "uint16"'),
        (point("holding:3.1-2", "int16"), "taken out of uint16"),
        (point("holding:3.1-2", "float32"), "taken out of uint16"),
        (point("holding:3.16"), "go from 0 to 15"),
        (point("holding:3.32", "uint32"), "go from 0 to 31"),
        (point("holding:3.7-4"), "the lower first"),
        (point("holding:3", "string"), "a length"),
        (point("holding:3", "uint16", length=2), "a length"),
        (point("holding:3", "string", length=2, scale=2), "leave out scale"),
        (point("holding:3", "string", length=2, unit="degC"), "leave out unit"),
        (point("holding:3", "string", length=126), "at most 125"),
        (point("holding:3", invalid=[65536]), "can be 65536"),
        (point("holding:3", invalid=[0.5]), "can be 0.5"),
        (point("holding:3", "int16", invalid=[-32769]), "can be -32769"),
        (point("holding:3", "bcd16", invalid=[10_000]), "can be 10000"),
        (point("coil:3", "bit", invalid=[1]), "can be 1"),
        (point("holding:3", "float32", invalid=[float("nan")]), "can be nan"),
        (point("holding:3", "uint8"), "there are: bit, int16"),
        (point("holding:3", order="ABDC"), "there are: ABCD"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_a_remedy(one: dict[str, Any], told: str) -> None:
    (fault,) = faults(device(points=[one | {"id": "p"}]))
    assert told in fault
    assert "points[1]" in fault


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"transport": "udp"}, "there are: tcp, tls, rtu, rtu-over-tcp"),
        ({"transport": "rtu"}, 'do nothing with transport = "rtu": host'),
        ({"transport": "rtu", "serial": "/dev/ttyS0", "port": 502}, "do nothing"),
        ({"serial": "/dev/ttyS0"}, 'do nothing with transport = "tcp": serial'),
        ({"baud": 9600}, "do nothing"),
        ({"ca": "ca.pem"}, "do nothing"),
        ({"transport": "tls"}, 'verify = "none"'),
        ({"transport": "tls", "ca": "ca.pem", "verify": "none"}, "not both"),
        ({"transport": "rtu", "serial": "/dev/ttyS0", "unit": 0}, "from 1 to 247"),
        ({"transport": "rtu", "serial": "/dev/ttyS0", "unit": 248}, "from 1 to 247"),
        ({"transport": "rtu", "serial": "/dev/ttyS0", "baud": 9601}, "there are: 1200, 2400"),
        ({"limits": {"holding": 126}}, "from 1 to 125"),
        ({"limits": {"coil": 2001}}, "from 1 to 2000"),
        ({"limits": {"register": 9}}, ""),
        ({"limits": {"holding": 1}, "points": [point("holding:0", "uint32")]}, "more registers"),
        ({"forbidden": ["holding:9-3"]}, "such as 'holding:100-119'"),
        ({"forbidden": ["holding"]}, "such as 'holding:100-119'"),
        ({"forbidden": ["holding:0-9"]}, "forbidden"),
        ({"points": [point("holding:3", "string", length=2)]}, "not a string"),
    ],
)
def test_settings_that_do_not_fit_are_refused(fields: dict[str, Any], told: str) -> None:
    assert any(told in fault for fault in faults(device(**fields)))


def test_ports_are_those_of_the_transport() -> None:
    plain, tls, other = read(
        device(),
        device(id="b", transport="tls", ca="ca.pem"),
        device(id="c", transport="tls", verify="none", port=8802),
    )
    assert (plain.port, tls.port, other.port) == (502, 802, 8802)
    assert tls.ca == Path.cwd() / "ca.pem"


def test_devices_of_one_gateway_may_differ_in_everything_but_the_connection() -> None:
    read(
        device(id="a", unit=1, order="CDAB", timeout="1s", interval="1s"),
        device(id="b", unit=2, max_registers=20, timeout="5s", interval="1m"),
        device(id="c", unit=1, host="10.0.0.2", pause="50ms"),
    )


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({}, {"transport": "rtu-over-tcp"}),
        ({}, {"pause": "20ms"}),
        ({"host": "GW"}, {"host": "gw", "pause": "20ms"}),
        (
            {"transport": "tls", "ca": "a.pem", "port": 5000},
            {"transport": "tls", "ca": "b.pem", "port": 5000},
        ),
        (
            {"transport": "rtu", "serial": "/dev/ttyS0"},
            {"transport": "rtu", "serial": "/dev/ttyS0", "baud": 19200},
        ),
        (
            {"transport": "rtu", "serial": "/dev/ttyS0"},
            {"transport": "rtu", "serial": "/dev/ttyS0", "parity": "even"},
        ),
    ],
)
def test_conflicting_settings_of_one_connection_are_refused(
    one: dict[str, Any], other: dict[str, Any]
) -> None:
    (fault,) = faults(device(id="a", **one), device(id="b", unit=2, **other))
    assert "share one connection but not its settings: a, b" in fault


def test_strings_are_no_part_of_what_is_sampled() -> None:
    points = [
        point("holding:9", "string", length=4) | {"id": "model"},
        point("holding:0") | {"id": "power"},
    ]
    (config,) = read(device(points=points))
    table = config.table()
    assert [one.id for one in table.points] == ["power"]
    assert len(table.integer) == len(table.modulus) == 1


@pytest.mark.parametrize(
    ("one", "modulus"),
    [
        (point("holding:0", "uint32", scale="0.01"), 2**32),
        (point("holding:0", "bcd32", scale="0.1"), 10**8),
        (point("holding:0.4-15"), 2**12),
        (point("holding:0.3"), 0),
        (point("holding:0", "int32"), 0),
        (point("holding:0", "float32"), 0),
        (point("coil:0", "bit"), 0),
        (point("holding:0", "uint32", scale="0.01", counter={"rollover": 1_000_000}), 10**8),
        (point("holding:0", "float32", counter={"rollover": 1_000_000}), 10**6),
    ],
)
def test_a_counter_ends_where_its_width_or_its_maker_says(
    one: dict[str, Any], modulus: int
) -> None:
    assert ModbusPoint.model_validate(one).modulus() == Decimal(modulus)
