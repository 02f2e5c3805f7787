"""What a device refuses is found out: all that it gives is read, and soon nothing else is asked."""

import asyncio
import logging
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocols.drivers.modbus import learning
from protocols.drivers.modbus import poller as poller_module
from protocols.drivers.modbus.config import Config
from protocols.drivers.modbus.line import Line, Refused
from protocols.drivers.modbus.point import WORDS
from protocols.drivers.modbus.poller import Poll, Poller

ILLEGAL_ADDRESS, ILLEGAL_VALUE = 2, 3
SETTLED = 40
"""Polls after which a device of this size is known; each may only divide so much."""


class Device(Line):
    """Holds register n = n; refuses holes, crossing a border, and asking for too much.

    Attributes:
        refusals: how often it did.
    """

    def __init__(self, holes: set[int], border: int, most: int) -> None:
        super().__init__()
        self.holes, self.border, self.most = holes, border, most
        self.refusals = self.requests = 0

    async def ask(self, config: Config, function: int, first: int, length: int) -> bytes:
        count = length
        assert (config.unit, function) == (1, 3)
        self.requests += 1
        if count > self.most:
            self.refusals += 1
            raise Refused(ILLEGAL_VALUE)
        span = range(first, first + count)
        if self.holes & set(span) or first < self.border < first + count:
            self.refusals += 1
            raise Refused(ILLEGAL_ADDRESS)
        return b"".join(at.to_bytes(2, "big") for at in span)

    def gives(self, first: int, words: int) -> bool:
        span = range(first, first + words)
        crosses = first < self.border < first + words
        return not self.holes & set(span) and not crosses and words <= self.most


def poller_of(device: Device, chosen: list[tuple[int, str]], gap: int) -> Poller:
    points = [
        {"id": f"p{at}", "address": f"holding:{first}", "type": kind}
        for at, (first, kind) in enumerate(chosen)
    ]
    data = {"id": "m", "kind": "modbus", "host": "h", "max_gap": gap, "points": points}
    poller = Poller(Config.model_validate(data), time.time_ns)
    poller._line = device
    return poller


def read(poller: Poller, poll: Poll, at: int, words: int) -> tuple[list[int], bool]:
    """Return the registers of a point, and whether they are usable."""
    place = int(poller.image.places[at])
    good = not poll.bad[poll.layout.block_of[at]]
    return poll.row[place : place + words].tolist(), good


@settings(deadline=None, max_examples=80)
@given(
    st.lists(
        st.tuples(st.integers(0, 60), st.sampled_from(sorted(WORDS))), min_size=1, max_size=20
    ),
    st.sets(st.integers(0, 63), max_size=6),
    st.integers(0, 64),
    st.integers(3, 125),
    st.integers(0, 12),
)
def test_all_that_is_given_is_read_and_what_is_refused_is_left_alone(
    chosen: list[tuple[int, str]], holes: set[int], border: int, most: int, gap: int
) -> None:
    device = Device(holes, border, most)
    poller = poller_of(device, chosen, gap)

    async def polls() -> tuple[list[Poll], int]:
        found = [await poller.poll() for _ in range(SETTLED)]
        before = device.refusals
        found += [await poller.poll() for _ in range(5)]
        return found, device.refusals - before

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(poller_module, "_IDLE_S", 0.0)
        patch.setattr(learning, "_FIRST_WAIT_S", 3600.0)
        patch.setattr(logging.root.manager, "disable", logging.CRITICAL)
        found, later = asyncio.run(polls())
    assert later == 0
    for at, (first, kind) in enumerate(chosen):
        words = WORDS[kind]
        for poll in found:
            shown, good = read(poller, poll, at, words)
            # Never a wrong value, not even while finding out.
            assert not good or shown == list(range(first, first + words))
        assert read(poller, found[-1], at, words)[1] == device.gives(first, words)


async def test_every_point_that_is_given_comes_with_the_very_first_poll(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(learning, "_FIRST_WAIT_S", 3600.0)
    device = Device({17}, 0, 125)
    chosen = [(at, "uint16") for at in range(40)]
    poller = poller_of(device, chosen, 8)
    poll = await poller.poll()
    assert [at for at in range(40) if not read(poller, poll, at, 1)[1]] == [17]
    before = device.requests
    await poller.poll()
    assert device.requests - before == 2


async def test_a_device_that_refuses_everything_is_not_flooded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(poller_module, "_IDLE_S", 0.0)
    monkeypatch.setattr(learning, "_FIRST_WAIT_S", 3600.0)
    device = Device(set(range(2000)), 0, 125)
    poller = poller_of(device, [(at, "uint16") for at in range(500)], 8)
    asked = []
    for _ in range(40):
        before = device.requests
        await poller.poll()
        asked.append(device.requests - before)
    assert max(asked) < 100
    assert asked[-1] < 10


async def test_what_is_refused_is_tried_ever_more_seldom(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learning, "_FIRST_WAIT_S", 0.001)
    device = Device({5}, 0, 125)
    poller = poller_of(device, [(5, "uint16")], 8)
    waits = []
    for _ in range(8):
        await poller.poll()
        (out,) = poller._learner._out.values()
        waits.append(out.wait_s)
        out.due = 0.0
    assert waits == [0.001 * 2**at for at in range(8)]
    device.holes.clear()
    await poller.poll()
    assert not poller.notes()


async def test_limits_are_forgotten_from_time_to_time() -> None:
    """A device that was changed is not read in small pieces for ever."""
    device = Device(set(), 0, 20)
    poller = poller_of(device, [(at, "uint16") for at in range(100)], 8)
    await poller.poll()
    assert any("at most" in note for note in poller.notes())
    device.most = 125
    poller._learner._forget_at = 0.0
    await poller.poll()
    before = device.requests
    await poller.poll()
    assert device.requests - before == 1
    assert not poller.notes()
