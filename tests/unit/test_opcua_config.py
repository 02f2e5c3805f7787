"""What a technician may write of an OPC-UA device, and what is said of the rest."""

import uuid
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from protocols.drivers import read_devices
from protocols.drivers.opcua import Config
from protocols.drivers.opcua.address import (
    STANDARD_NAMESPACE,
    Address,
    NodeAddress,
    PathAddress,
    parse_address,
)
from protocols.drivers.opcua.config import Identity
from protocols.drivers.opcua.items import Ask, Deadband, items_of
from protocols.errors import ConfigError
from protocols.settings import check_settings

POINT = {"id": "a", "address": "nsu=urn:mill;s=A", "type": "UInt32"}
DEVICE = {
    "id": "press",
    "kind": "opcua",
    "url": "opc.tcp://10.0.0.3:4840/mill",
    "security": "none",
    "points": [POINT],
}

SOMEONE = {"user": "gate", "password_file": "w"}


def config(**settings: Any) -> Config:
    return check_settings(DEVICE | settings, Config, Path("agent.toml"))


def point(**settings: Any) -> Config:
    return config(points=[POINT | settings])


def faults(**settings: Any) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        config(**settings)
    return str(caught.value).splitlines()


@pytest.mark.parametrize(
    ("text", "namespace", "identifier"),
    [
        ("nsu=urn:mill;s=Line.1;Speed=x", "urn:mill", "Line.1;Speed=x"),
        ("nsu=http://mill.example/UA/;i=4294967295", "http://mill.example/UA/", 2**32 - 1),
        ("nsu=urn:a%3Bb%25;s=A", "urn:a;b%", "A"),
        ("nsu=urn:m;s=温度", "urn:m", "温度"),
        ("ns=0;i=2258", STANDARD_NAMESPACE, 2258),
        ("i=2258", STANDARD_NAMESPACE, 2258),
        (
            "nsu=urn:m;g=09087e75-8e5e-499b-954f-f2a9603db28a",
            "urn:m",
            uuid.UUID("09087e75-8e5e-499b-954f-f2a9603db28a"),
        ),
        ("nsu=urn:m;b=AQID", "urn:m", b"\x01\x02\x03"),
    ],
)
def test_an_address_names_its_namespace_by_uri(
    text: str, namespace: str, identifier: object
) -> None:
    assert parse_address(text) == Address(NodeAddress(namespace, identifier))  # type: ignore[arg-type] # the parameters mix types


@pytest.mark.parametrize(
    ("text", "names"),
    [
        (
            "path=/{urn:m}Line/Press/Speed",
            [("urn:m", "Line"), ("urn:m", "Press"), ("urn:m", "Speed")],
        ),
        (
            "path=/{http://a.example/UA/}Machines/{urn:m}m1/State",
            [("http://a.example/UA/", "Machines"), ("urn:m", "m1"), ("urn:m", "State")],
        ),
        (
            "path=/Server/ServerStatus",
            [(STANDARD_NAMESPACE, "Server"), (STANDARD_NAMESPACE, "ServerStatus")],
        ),
        ("path=/{urn:a%7Bb}x%2Fy%7B/100%25", [("urn:a{b", "x/y{"), ("urn:a{b", "100%")]),
        ("path=/{urn:m}温度 [1];a", [("urn:m", "温度 [1];a")]),
    ],
)
def test_a_path_names_the_namespace_of_each_step_or_takes_that_of_the_step_before(
    text: str, names: list[tuple[str, str]]
) -> None:
    assert parse_address(text) == Address(PathAddress(tuple(names)))


@pytest.mark.parametrize(
    ("part", "steps"),
    [
        ("[2]", ((2,),)),
        ("[0,3]", ((0, 3),)),
        ("Spindle.Speed", ("Spindle", "Speed")),
        ("Axes[2].Load", ("Axes", (2,), "Load")),
        ("[1].X[2][3]", ((1,), "X", (2,), (3,))),
    ],
)
def test_a_part_belongs_to_the_address(part: str, steps: tuple[Any, ...]) -> None:
    node = NodeAddress("urn:m", "A")
    assert parse_address(f"part={part};nsu=urn:m;s=A") == Address(node, steps)
    assert parse_address(f"part={part};path=/{{urn:m}}A").part == steps
    assert parse_address("nsu=urn:m;s=part=[2];A").part == ()


@pytest.mark.parametrize(
    ("address", "told"),
    [
        ("ns=2;s=A", "nsu=<namespace uri>"),
        ("ns=1;i=5", "nsu=<namespace uri>"),
        ("A", "write the node as"),
        ("nsu=;s=A", "write the node as"),
        ("nsu=urn:m;s=", "write the node as"),
        ("nsu=urn:m;x=1", "write the node as"),
        ("nsu=urn:m;i=4294967296", "0 to 4294967295"),
        ("nsu=urn:m;i=-1", "0 to 4294967295"),
        ("nsu=urn:m;i=٣", "0 to 4294967295"),
        ("nsu=urn:m;g=1", "GUID"),
        ("nsu=urn:m;b=*", "base64"),
        ("path=", "path=/{<namespace uri>}"),
        ("path=Line/Press", "path=/{<namespace uri>}"),
        ("path=/Line//Press", "path=/{<namespace uri>}"),
        ("path=/Line/", "path=/{<namespace uri>}"),
        ("path=/{}Line", "path=/{<namespace uri>}"),
        ("path=/{urn:m}", "path=/{<namespace uri>}"),
        ("path=" + 33 * "/x", "path=/{<namespace uri>}"),
        ("part=;nsu=urn:m;s=A", "counted from 0"),
        ("part=[];nsu=urn:m;s=A", "counted from 0"),
        ("part=[-1];nsu=urn:m;s=A", "counted from 0"),
        ("part=.X;nsu=urn:m;s=A", "counted from 0"),
        ("part=X Y]Z;nsu=urn:m;s=A", "counted from 0"),
        ("part=[1]X;nsu=urn:m;s=A", "counted from 0"),
        ("part=[1]", "write the node as"),
    ],
)
def test_a_wrong_address_is_one_line_with_its_key_path_and_remedy(address: str, told: str) -> None:
    (line,) = faults(points=[POINT, POINT | {"id": "b", "address": address}])
    assert line.startswith("agent.toml: points[2].address: ")
    assert told in line


def test_what_is_not_said_is_the_strongest_and_never_none() -> None:
    said = {key: value for key, value in DEVICE.items() if key != "security"}
    made = check_settings(said, Config, Path("agent.toml"))
    assert (made.security, made.security_mode) == ("best", "best")
    assert made.identity is Identity.ANONYMOUS
    assert not made.tolerate


def test_paths_are_meant_from_the_folder_of_the_file_wherever_we_are_started() -> None:
    def read(**more: Any) -> Config:
        (made,) = read_devices([DEVICE | more], Path("/mill/agent.toml"))
        assert isinstance(made, Config)
        return made

    made = read(**SOMEONE)
    assert (made.pki, made.password_file) == (Path("/mill/pki"), Path("/mill/w"))
    assert made.user_certificate is None
    assert read(pki="/etc/pki").pki == Path("/etc/pki")


@pytest.mark.parametrize(
    ("settings", "key", "told"),
    [
        ({"security": "None"}, "security", "none"),
        ({"security": "Basic256"}, "security", "Basic256Sha256"),
        ({"security": "Basic256Sha256", "security_mode": "None"}, "security_mode", "Sign"),
        ({"security_mode": "Sign"}, "", "leave one of them out"),
        ({"user": "gate"}, "", "together"),
        ({"password_file": "word"}, "", "together"),
        ({"user": "gate", "password": "secret-word"}, "password", "password_file"),
        (
            {"user": "gate", "password_file": "word", "user_certificate": "user.pem"},
            "",
            "not both",
        ),
        ({"security": "best", "server_certificate": "a.der"}, "", "name both"),
        ({"tolerate": ["everything"]}, "tolerate", "time"),
    ],
)
def test_what_would_weaken_a_connection_by_accident_is_refused(
    settings: dict[str, Any], key: str, told: str
) -> None:
    lines = faults(**settings)
    assert any(line.startswith(f"agent.toml: {key}") and told in line for line in lines)
    assert "secret-word" not in "".join(lines)


@pytest.mark.parametrize(
    ("settings", "key", "told"),
    [
        ({"url": "http://10.0.0.3"}, "url", "opc.tcp://"),
        ({"url": "opc.tcp://"}, "url", "opc.tcp://"),
        ({"url": "opc.tcp://10.0.0.3:99999"}, "url", "opc.tcp://"),
        ({"url": "opc.tcp://me:word@10.0.0.3"}, "url", "without user"),
        ({"publishing_interval": "1ms"}, "publishing_interval", "10ms to 1h"),
        ({"timeout": "2h"}, "timeout", "10ms to 1h"),
        ({"keep_alive": "soon"}, "keep_alive", "not a duration"),
        ({"sampling_interval": "2h"}, "sampling_interval", "0s to 1h"),
        ({"refill": "2d"}, "refill", "86400000000000"),
        ({"queue_size": 4}, "queue_size", "at least 5"),
        ({"queue_size": 0}, "queue_size", "at least 1"),
        ({"points": []}, "points", "at least 1"),
        ({"points": [POINT, POINT]}, "points[2].id", "used twice"),
        ({"points": [POINT | {"type": "String"}]}, "points[1].type", "Boolean"),
        ({"points": [POINT | {"type": "uint32"}]}, "points[1].type", "UInt32"),
        ({"points": [POINT | {"offset": "1e25"}]}, "points[1]", "64 bits"),
        ({"points": [POINT | {"scale": "1e-999999"}]}, "points[1]", "64 bits"),
        ({"point": []}, "point", "unknown key"),
    ],
)
def test_each_fault_is_one_line_with_its_key_path(
    settings: dict[str, Any], key: str, told: str
) -> None:
    (line,) = faults(**settings)
    assert line.startswith(f"agent.toml: {key}: ")
    assert told in line


def test_all_faults_come_at_once() -> None:
    assert len(faults(url="x", security="", points=[POINT | {"address": "x", "type": "y"}])) == 4


def test_faults_speak_chinese_to_a_chinese_reader(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MILLGATE_LANG", "zh_CN")
    (line,) = faults(points=[POINT | {"address": "ns=2;s=A"}])
    assert "命名空间" in line


def test_the_url_gets_the_standard_port() -> None:
    assert config(url="opc.tcp://press.mill").url == "opc.tcp://press.mill:4840"
    assert config(url="opc.tcp://[::1]/x").url == "opc.tcp://[::1]:4840/x"
    assert config(url="opc.tcp://press:51210/x").url == "opc.tcp://press:51210/x"


def asked(**settings: Any) -> list[Ask]:
    return [item.ask for item in items_of(config(**settings))]


@pytest.mark.parametrize(
    ("settings", "queue"),
    [
        ({"publishing_interval": "1s", "sampling_interval": "10ms"}, 200),
        ({"publishing_interval": "500ms", "sampling_interval": "500ms"}, 10),
        ({"publishing_interval": "1h", "sampling_interval": "0s"}, 10_000),
        ({"queue_size": 1, "sampling_interval": "1s"}, 1),
        ({"queue_size": 3, "sampling_interval": "0s"}, 3),
    ],
)
def test_the_queue_is_long_enough_for_the_intervals_unless_said_otherwise(
    settings: dict[str, Any], queue: int
) -> None:
    assert [ask.queue for ask in asked(**settings)] == [queue]


def test_a_point_may_be_sampled_and_queued_in_its_own_way() -> None:
    points = [
        POINT,
        POINT | {"id": "fast", "address": "i=1", "sampling_interval": "10ms"},
        POINT | {"id": "slow", "address": "i=2", "sampling_interval": "10s"},
        POINT | {"id": "short", "address": "i=3", "queue_size": 6},
    ]
    got = asked(points=points, queue_size=50)
    assert [(ask.sampling_ns // 10**6, ask.queue) for ask in got] == [
        (100, 50),
        (10, 100),
        (10_000, 10),
        (100, 6),
    ]


def test_a_node_is_asked_for_once_unless_its_points_want_it_differently() -> None:
    points = [
        POINT,
        POINT | {"id": "b", "scale": "0.1"},
        POINT | {"id": "c", "deadband": "5"},
        POINT | {"id": "d", "address": "nsu=urn:mill;s=B"},
    ]
    assert [item.columns for item in items_of(config(points=points))] == [(0, 1), (2,), (3,)]


def test_a_deadband_is_written_in_the_points_own_unit() -> None:
    points = [
        POINT | {"id": "a", "scale": "-0.01", "deadband": "0.5"},
        POINT | {"id": "b", "deadband_percent": "2.5"},
    ]
    assert [ask.deadband for ask in asked(points=points)] == [
        Deadband("absolute", 50.0),
        Deadband("percent", 2.5),
    ]


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({"deadband": "0"}, "greater"),
        ({"deadband_percent": "101"}, "100"),
        ({"deadband": "1", "deadband_percent": "1"}, "not both"),
        ({"deadband": "1", "type": "Boolean"}, "changes of state"),
        (
            {"deadband": "1", "measurand": "machine.state", "state_model": "packml"},
            "changes of state",
        ),
        ({"queue_size": 4}, "at least 5"),
        ({"sampling_interval": "1ms", "queue_size": 49}, "at least 50"),
        ({"sampling_interval": "2h"}, "0s to 1h"),
    ],
)
def test_what_would_lose_changes_of_a_point_is_refused(more: dict[str, Any], told: str) -> None:
    (line,) = faults(points=[POINT | more])
    assert told in line


@pytest.mark.parametrize(
    "more",
    [
        {"mode": "poll", "publishing_interval": "1s"},
        {"mode": "poll", "queue_size": 100},
        {"mode": "poll", "refill": "5m"},
        {"mode": "poll", "points": [POINT | {"deadband": "1"}]},
        {"mode": "subscribe", "interval": "1s"},
    ],
)
def test_what_does_nothing_in_a_mode_is_refused(more: dict[str, Any]) -> None:
    (line,) = faults(**more)
    assert "do nothing" in line


def test_polled_values_hold_for_a_time() -> None:
    assert config(mode="poll").table().hold_ns == 3 * 10**9
    assert config(mode="poll", interval="100ms").table().hold_ns == 2 * 10**9


def test_the_table_says_how_points_are_carried_and_that_values_hold() -> None:
    points = [
        POINT | {"id": "a", "type": "Boolean"},
        POINT | {"id": "b", "type": "Double"},
        POINT | {"id": "c", "type": "Int64", "scale": "0.001"},
        POINT | {"id": "d", "type": "Float", "scale": "0.001"},
    ]
    table = config(points=points).table()
    assert (table.device, table.kind) == ("press", "opcua")
    assert [made.id for made in table.points] == ["a", "b", "c", "d"]
    assert table.integer.tolist() == [True, False, True, False]
    assert table.exponents() == [0, 0, -3, 0]
    assert table.hold_ns is None
    assert not table.brings_time


@pytest.mark.parametrize(
    ("settings", "modulus"),
    [
        ({"type": "UInt16"}, 2**16),
        ({"type": "Int32"}, 0),
        ({"type": "Int32", "counter": {"rollover": "1000"}}, 1000),
        ({"type": "Byte"}, 2**8),
        ({"type": "UInt64"}, 2**64),
        ({"type": "UInt32", "scale": "0.5"}, 5 * 2**32),
        ({"type": "UInt32", "scale": "0.01", "offset": "0.001"}, 10 * 2**32),
        ({"type": "UInt32", "scale": "1000"}, 1000 * 2**32),
        ({"type": "UInt32", "scale": "0.01", "counter": {"rollover": "999999.99"}}, 99999999),
        ({"type": "Double"}, 0),
        ({"type": "Double", "counter": {"rollover": "1000"}}, 1000),
        ({"type": "UInt16", "measurand": "other"}, 0),
    ],
)
def test_a_counter_starts_again_at_its_rollover_or_its_width(
    settings: dict[str, Any], modulus: int
) -> None:
    counter = {"unit": "kWh", "measurand": "energy.active_import"} | settings
    (found,) = point(**counter).table().modulus
    assert found == Decimal(modulus)
