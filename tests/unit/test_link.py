"""The link: four messages in one bounded form; anything else ends it and releases nothing."""

import asyncio
import socket
import struct
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent import link as link_module
from agent.link import LinkLost, joined, sealed_end
from agent.released import (
    Committed,
    Ended,
    FromGate,
    FromSealed,
    Hello,
    Released,
    Restore,
    decode_from_gate,
    decode_from_sealed,
    encode,
)
from protocols import strict_cbor
from protocols.batch import LARGEST_MANTISSA, MAX_BLOCKS, MAX_CELLS, NO_VALUE, Block
from protocols.strict_cbor import Malformed
from security.policy.rows import blocks_of, row_of

HASH = bytes(range(32))
UINT = st.integers(0, 2**62)
FAST = Block(
    slot=5,
    numbers=np.array([1, 7]),
    mantissa=np.array([[10, -20], [30, 0]]),
    quality=np.array([[0, 1], [0, NO_VALUE]], np.uint8),
    span_cells=np.array([1]),
    spans=np.array([3]),
)
MESSAGE = Released(9, HASH, {3: [FAST], 8: [FAST, FAST]}, b"memory")


@st.composite
def blocks(draw: st.DrawFn) -> Block:
    rows, width = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    quality = rng.integers(0, 3, (rows, width)).astype(np.uint8)
    mantissa = rng.integers(-LARGEST_MANTISSA, LARGEST_MANTISSA, (rows, width))
    mantissa[quality == NO_VALUE] = 0
    cells = np.flatnonzero((quality.reshape(-1) != NO_VALUE) & (rng.random(quality.size) < 0.3))
    return Block(
        slot=draw(st.integers(0, 2**40)),
        numbers=np.cumsum(rng.integers(1, 1000, width)),
        mantissa=mantissa,
        quality=quality,
        span_cells=cells,
        spans=rng.integers(2, 2**40, len(cells)),
    )


FROM_GATE: st.SearchStrategy[FromGate] = st.one_of(
    st.builds(
        Hello, st.just(HASH), st.lists(st.binary(max_size=40), max_size=3).map(tuple), st.booleans()
    ),
    st.builds(
        Released,
        UINT,
        st.just(HASH),
        st.dictionaries(st.integers(0, 2**48), st.lists(blocks(), min_size=1, max_size=3)),
        st.binary(max_size=100),
    ),
)
FROM_SEALED: st.SearchStrategy[FromSealed] = st.one_of(
    st.builds(Restore, UINT, UINT, st.just(HASH), st.binary(max_size=100), UINT),
    st.builds(Committed, UINT),
)


def same(one: FromGate, other: FromGate) -> bool:
    return encode(one) == encode(other)


@given(FROM_GATE)
def test_what_the_gate_side_says_comes_back_as_it_was(message: FromGate) -> None:
    found = decode_from_gate(encode(message))
    assert same(found, message)
    if isinstance(found, Released) and isinstance(message, Released):
        for stream, sent in message.streams.items():
            for left, right in zip(sent, found.streams[stream], strict=True):
                assert np.array_equal(left.mantissa, right.mantissa)
                assert np.array_equal(left.quality, right.quality)
                assert np.array_equal(left.numbers, right.numbers)
                assert np.array_equal(left.span_matrix(), right.span_matrix())


@given(FROM_SEALED)
def test_what_the_sealed_side_says_comes_back_as_it_was(message: FromSealed) -> None:
    assert decode_from_sealed(encode(message)) == message


def test_however_much_closed_in_a_pause_it_passes_the_link() -> None:
    """More cells in a row than a block may have, and more blocks in a stream than a batch may."""
    width = 1 << 14
    row = row_of(0, np.ones(width, np.int64), np.zeros(width, np.uint8))
    slots = range(MAX_CELLS // width + 2)
    long = blocks_of([row._replace(slot=slot) for slot in slots], np.arange(width))
    assert [block.rows for block in long] == [MAX_CELLS // width, 2]
    one = np.ones((1, 1), np.int64)
    good = np.zeros((1, 1), np.uint8)
    many = [Block(slot, np.arange(1), one, good) for slot in range(0, 2 * MAX_BLOCKS + 2, 2)]
    decoded = decode_from_gate(encode(Released(9, HASH, {3: long, 8: many}, b"")))
    assert isinstance(decoded, Released)
    assert [block.slot for block in decoded.streams[3]] == [0, MAX_CELLS // width]
    assert [block.slot for block in decoded.streams[8]] == [block.slot for block in many]


@given(FROM_GATE, FROM_SEALED)
def test_each_side_may_say_only_its_own_messages(gate: FromGate, sealed: FromSealed) -> None:
    with pytest.raises(Malformed):
        decode_from_sealed(encode(gate))
    with pytest.raises(Malformed):
        decode_from_gate(encode(sealed))


@given(st.binary(max_size=200))
def test_other_bytes_are_no_message(data: bytes) -> None:
    for decode in (decode_from_gate, decode_from_sealed):
        with pytest.raises(Malformed):
            decode(data)


@given(st.data())
def test_a_damaged_message_is_refused_or_is_another_in_its_one_form(data: st.DataObject) -> None:
    damaged = bytearray(encode(MESSAGE))
    damaged[data.draw(st.integers(0, len(damaged) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        found = decode_from_gate(bytes(damaged))
    except Malformed:
        return
    assert encode(found) == bytes(damaged)


def edited(change: Callable[[list[object]], object]) -> bytes:
    """Return the message with one thing in its items changed."""
    items = strict_cbor.decode(encode(MESSAGE), max_bytes=1 << 20)
    change(items)
    return strict_cbor.encode(items)


def _block(items: list[object]) -> list[object]:
    streams = items[3]
    assert isinstance(streams, list)
    block = streams[0][1][0]
    assert isinstance(block, list)
    return block


@pytest.mark.parametrize(
    "change",
    [
        lambda items: items.append(0),
        lambda items: items.__setitem__(0, 5),
        lambda items: items.__setitem__(1, -1),
        lambda items: items.__setitem__(2, HASH[:-1]),
        lambda items: items.__setitem__(4, "text"),
        lambda items: items[3].reverse(),
        lambda items: items[3].append(items[3][-1]),
        lambda items: items[3][0].__setitem__(1, []),
        lambda items: _block(items).append(b""),
        lambda items: _block(items).__setitem__(0, -1),
        lambda items: _block(items).__setitem__(1, b"\0" * 16),
        lambda items: _block(items).__setitem__(1, b""),
        lambda items: _block(items).__setitem__(2, b"\0" * 24),
        lambda items: _block(items).__setitem__(2, struct.pack("<4q", 1 << 54, 1, 1, 0)),
        lambda items: _block(items).__setitem__(3, b"\3\0\0\2"),
        lambda items: _block(items).__setitem__(3, b"\0\0\0"),
        lambda items: _block(items).__setitem__(4, struct.pack("<q", 4)),
        lambda items: _block(items).__setitem__(5, struct.pack("<q", 1)),
        lambda items: _block(items).__setitem__(5, b"\0" * 7),
    ],
)
def test_whatever_is_not_slots_of_streams_is_refused(
    change: Callable[[list[object]], object],
) -> None:
    with pytest.raises(Malformed):
        decode_from_gate(edited(change))


@pytest.mark.parametrize("ended", [3, -1, "1"])
def test_a_hello_says_that_its_policy_has_ended_how_or_that_it_has_not(ended: object) -> None:
    for how in Ended:
        assert decode_from_gate(encode(Hello(HASH, (), how))) == Hello(HASH, (), how)
    with pytest.raises(Malformed):
        decode_from_gate(strict_cbor.encode([1, "mg-link/1", HASH, ended, []]))
    with pytest.raises(Malformed):
        decode_from_gate(strict_cbor.encode([1, "mg-link/2", HASH, 0, []]))


async def test_a_message_larger_than_the_bound_ends_the_link_before_it_is_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(link_module, "MOST_BYTES", 100)
    mine, its = socket.socketpair()
    with mine, its:
        mine.sendall(struct.pack(">I", 101))
        async with asyncio.timeout(20):
            with pytest.raises(Malformed):
                await sealed_end(its).receive()
    with joined() as (gate, _), pytest.raises(LinkLost):
        await gate.send(MESSAGE)


@pytest.mark.parametrize("cut", [0, 3, 4, 20])
async def test_a_message_that_breaks_off_is_none(cut: int) -> None:
    data = encode(MESSAGE)
    mine, its = socket.socketpair()
    with its:
        with mine:
            mine.sendall((struct.pack(">I", len(data)) + data)[:cut])
        async with asyncio.timeout(20):
            with pytest.raises(LinkLost):
                await sealed_end(its).receive()


async def test_large_messages_pass_both_ways_at_once() -> None:
    large = Block(
        slot=1,
        numbers=np.arange(1, 1001),
        mantissa=np.arange(1_000_000).reshape(1000, 1000),
        quality=np.zeros((1000, 1000), np.uint8),
    )
    message = Released(1, HASH, {1: [large]}, bytes(1 << 20))
    answer = Restore(1, 1, HASH, bytes(3 << 20))
    with joined() as (gate, sealed):
        async with asyncio.timeout(60), asyncio.TaskGroup() as group:
            group.create_task(gate.send(message))
            group.create_task(sealed.send(answer))
            there = group.create_task(sealed.receive())
            back = group.create_task(gate.receive())
        found = there.result()
        assert isinstance(found, Released)
        assert np.array_equal(found.streams[1][0].mantissa, large.mantissa)
        assert back.result() == answer


async def test_a_side_that_speaks_out_of_turn_ends_the_link() -> None:
    with joined() as (gate, sealed):
        async with asyncio.timeout(20):
            await sealed.send(Committed(1))
            with pytest.raises(Malformed):
                await gate.silence(asyncio.Event())
            woken = asyncio.Event()
            woken.set()
    with joined() as (gate, sealed):
        async with asyncio.timeout(20):
            await gate.silence(woken)
            await sealed.send(Committed(1))
            assert await gate.receive() == Committed(1)
            sealed.close()
            with pytest.raises(LinkLost):
                await gate.silence(asyncio.Event())
