"""Texts in registers are shown to who asks, and are no part of what is sampled."""

from rich.console import Console

from agent.onboarding import app
from agent.onboarding.seen import Seen
from protocols.drivers.modbus import Config
from simulators.faults.modbus_server import chaos_modbus
from simulators.faults.modbus_wire import ILLEGAL_ADDRESS, Refusal

MODEL = b"SUN2000 [bold]".ljust(20, b"\0")


class Nameplate:
    """Holds a model's name in holding registers 100 to 109, and a number in register 0."""

    def read(self, unit: int, function: int, first: int, count: int) -> bytes:
        del unit, function
        if first == 0:
            return (7).to_bytes(2, "big")
        if not 100 <= first <= first + count <= 110:
            raise Refusal(ILLEGAL_ADDRESS)
        return MODEL[2 * (first - 100) : 2 * (first - 100 + count)]


async def test_a_text_is_shown_beside_the_values_and_is_in_no_frame() -> None:
    async with chaos_modbus(Nameplate()) as device:
        points = [
            {"id": "model", "address": "holding:100", "type": "string", "length": 10},
            {"id": "number", "address": "holding:0", "type": "uint16"},
            {"id": "firmware", "address": "holding:300", "type": "string", "length": 4},
        ]
        data = {"id": "inverter", "kind": "modbus", "host": device.host, "port": device.port}
        seen = Seen(Config.model_validate({**data, "interval": "10ms", "points": points}))
        await app.once([seen], 30)
        assert device.door.guests <= 1
    assert seen.fault is None
    assert set(seen.samples) == {"number"}
    assert seen.texts == {"model": "SUN2000 [bold]", "firmware": None}
    console = Console(record=True, width=120)
    console.print(seen.table())
    shown = console.export_text()
    assert "SUN2000 [bold]" in shown
    assert "refused" in shown
