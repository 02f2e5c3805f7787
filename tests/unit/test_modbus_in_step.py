"""Lines whose answers do not say what they answer: how one that is still owed is never taken for another."""

import asyncio
from typing import Any

from protocols.drivers.modbus.config import Config
from protocols.drivers.modbus.framing import Answer, Ask, Rtu
from protocols.drivers.modbus.line import Line, line_to
from protocols.drivers.modbus.link import Link
from protocols.drivers.modbus.survey import Survey

DEVICE: dict[str, Any] = {
    "id": "m",
    "kind": "modbus",
    "transport": "rtu-over-tcp",
    "host": "127.0.0.1",
    "points": [{"id": "p", "address": "holding:10", "type": "uint16"}],
}


class Told(Link):
    """A link that answers everything, and keeps what it was asked."""

    def __init__(self) -> None:
        super().__init__(Rtu())
        self.asks: list[Ask] = []

    async def ask(self, ask: Ask, seconds: float) -> Answer:
        del seconds
        self.asks.append(ask)
        return bytes(ask.size)

    async def settle(self) -> None:
        pass

    def close(self) -> None:
        pass

    def _send(self, data: bytes) -> None:
        raise AssertionError(data)


async def asked(owed: tuple[int, int], ask: Ask, **settings: Any) -> list[Ask]:
    """Return what goes out for a read, while an answer of some function and size is owed."""
    config = Config.model_validate({**DEVICE, **settings})
    line, link = Line(), Told()
    line._link = link
    line.unit(config).owed[owed] = asyncio.get_running_loop().time()
    await line.ask(config, ask.function, ask.first, ask.length)
    return link.asks


async def test_what_is_forbidden_is_not_touched_to_get_in_step_either() -> None:
    ask = Ask(1, 3, 10, 1)
    free, last = await asked((3, 2), ask)
    assert (free, last) == (Ask(1, 3, 10, 2), ask)
    around, last = await asked((3, 2), ask, forbidden=["holding:11-20", "input:0-100"])
    assert (around, last) == (Ask(1, 3, 9, 2), ask)


async def test_nobody_who_looks_around_touches_what_is_forbidden() -> None:
    """To probe the register before a forbidden one, no more than it is read."""
    config = Config.model_validate({**DEVICE, "forbidden": ["holding:11-20"]})
    line, link = line_to(config), Told()
    line._link = link
    async with Survey(config) as survey:
        assert await survey.registers("holding:10", 4) is None
        assert await survey.registers("holding:10", 1) == bytes(2)
    assert link.asks == [Ask(1, 3, 10, 1)]


async def test_what_gets_in_step_cannot_be_mistaken_for_what_is_asked_then() -> None:
    """A late refusal says nothing of its request: it may be taken for the first answer, and all shift by one."""
    ask = Ask(1, 1, 0, 10)
    first, last = await asked((1, 5), ask)
    assert first.size not in {ask.size, 5}
    assert last == ask


async def test_nothing_beyond_the_last_address_is_asked_for() -> None:
    ask = Ask(1, 3, 65535, 1)
    assert await asked((3, 2), ask) == [Ask(1, 3, 65534, 2), ask]
