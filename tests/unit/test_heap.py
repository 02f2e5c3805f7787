"""What stays in memory for as long as an agent runs takes little of it."""

from pathlib import Path

from protocols import drivers
from protocols.drivers import read_devices
from protocols.heap import close_together

COMMON = {"unit": "kW", "measurand": "power.active"}
DEVICES = [
    {
        "id": f"meter-{number}",
        "kind": "modbus",
        "host": f"192.168.1.{number}",
        "points": [
            {
                "id": f"p{at}",
                "address": f"holding:{at}",
                "type": "uint16",
                "scale": "0.10",
                **COMMON,
            }
            for at in range(3)
        ],
    }
    for number in range(2)
] + [
    {
        "id": "press",
        "kind": "opcua",
        "url": "opc.tcp://192.168.1.9:4840/",
        "points": [
            {"id": f"p{at}", "address": f"nsu=urn:press;s=p{at}", "type": "Double", **COMMON}
            for at in range(3)
        ],
    }
]


def test_devices_of_every_kind_are_the_same_when_they_are_made_anew() -> None:
    assert {one["kind"] for one in DEVICES} == set(drivers.kinds())
    again = read_devices(DEVICES, Path("agent.toml"))
    old = list(again)
    anew = close_together(again)
    assert anew == old
    assert [one.points[0].model_fields_set for one in anew] == [
        one.points[0].model_fields_set for one in old
    ]
    assert not any(one is other for one, other in zip(anew, old, strict=True))
    assert again == []


def test_what_is_equal_in_the_points_of_all_devices_is_there_once() -> None:
    devices = read_devices(DEVICES, Path("agent.toml"))
    points = [point for device in devices for point in device.points]
    tables = [device.table() for device in devices]
    assert len({id(point.unit) for point in points}) == 1
    assert len({id(point.scale) for point in points if point.type == "uint16"}) == 1
    assert len({id(origin) for table in tables for origin in table.origins}) == 3
    # A scale of other digits is another scale: it decides what leaves.
    assert {str(point.scale) for point in points} == {"0.10", "1"}
