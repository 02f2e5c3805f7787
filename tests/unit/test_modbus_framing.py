"""What may be the answer to a read: exactly the answer, or a refusal of it, and nothing else."""

import struct
from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocols.drivers.modbus.framing import (
    Answer,
    Ask,
    Framing,
    Mbap,
    Misfit,
    Refusal,
    Rtu,
    checksum,
)
from simulators.faults.modbus_wire import READING, exception, frame, read_request

ROOM = 1024
"""No answer is longer than 260 bytes; nothing may make a framing keep more than this."""

FRAMINGS = (Mbap, Rtu)

asks = st.builds(
    lambda unit, function, first, share: Ask(unit, function, first, 1 + share % READING[function]),
    st.integers(0, 255),
    st.sampled_from(sorted(READING)),
    st.integers(0, 0xFFFF),
    st.integers(0, 4000),
)
framings = st.sampled_from(FRAMINGS)


def reply(kind: type[Framing], ask: Ask, pdu: bytes, transaction: int = 1) -> bytes:
    if kind is Mbap:
        return frame(transaction, ask.unit, pdu)
    message = bytes((ask.unit,)) + pdu
    return message + checksum(message)


def filled(ask: Ask, data: bytes) -> bytes:
    return (data * (ask.size // max(len(data), 1) + 1) + bytes(ask.size))[: ask.size]


def right(ask: Ask, data: bytes) -> bytes:
    return bytes((ask.function, ask.size)) + filled(ask, data)


def feed(framing: Framing, pieces: Sequence[bytes]) -> Answer | None:
    found = None
    for piece in pieces:
        found = framing.fed(piece)
        assert len(framing._buffer) < ROOM
    return found


def cut(data: bytes, places: Sequence[int]) -> list[bytes]:
    ends = sorted({at % (len(data) + 1) for at in places} | {0, len(data)})
    return [data[a:b] for a, b in pairwise(ends)]


def asked(kind: type[Framing], ask: Ask) -> Framing:
    framing = kind()
    framing.request(ask)
    return framing


def test_a_request_is_written_as_the_standard_says() -> None:
    assert Mbap().request(Ask(9, 3, 107, 3)) == read_request(9, 3, 107, 3, 1)
    # MODBUS over Serial Line V1.02, and the worked example of many manuals.
    assert Rtu().request(Ask(17, 3, 107, 3)) == bytes.fromhex("1103006b00037687")


@settings(deadline=None)
@given(framings, asks, st.binary(max_size=300), st.lists(st.integers(0, 300), max_size=6))
def test_the_answer_is_taken_however_it_is_cut_into_pieces(
    kind: type[Framing], ask: Ask, data: bytes, places: list[int]
) -> None:
    whole = reply(kind, ask, right(ask, data))
    assert feed(asked(kind, ask), cut(whole, places)) == filled(ask, data)


@settings(deadline=None)
@given(framings, asks, st.integers(0, 255), st.lists(st.integers(0, 300), max_size=3))
def test_a_refusal_is_taken_for_one(
    kind: type[Framing], ask: Ask, code: int, places: list[int]
) -> None:
    whole = reply(kind, ask, exception(ask.function, code))
    assert feed(asked(kind, ask), cut(whole, places)) == Refusal(code)


@settings(deadline=None)
@given(asks, st.binary(max_size=300), st.integers(0, 8), st.integers(1, 255))
def test_no_other_byte_of_the_head_will_do_on_tcp(
    ask: Ask, data: bytes, at: int, other: int
) -> None:
    whole = bytearray(reply(Mbap, ask, right(ask, data)))
    whole[at] ^= other
    framing = asked(Mbap, ask)
    with pytest.raises(Misfit):
        framing.fed(bytes(whole))


@settings(deadline=None)
@given(asks, st.binary(max_size=300), st.integers(0, 260), st.integers(0, 7))
def test_no_bit_of_a_serial_frame_may_be_another(ask: Ask, data: bytes, at: int, bit: int) -> None:
    whole = bytearray(reply(Rtu, ask, right(ask, data)))
    whole[at % len(whole)] ^= 1 << bit
    framing = asked(Rtu, ask)
    try:
        assert framing.fed(bytes(whole)) is None
    except Misfit:
        return


@settings(deadline=None)
@given(framings, asks, st.binary(max_size=300), st.binary(min_size=1, max_size=50))
def test_nothing_may_follow_the_answer(
    kind: type[Framing], ask: Ask, data: bytes, more: bytes
) -> None:
    framing = asked(kind, ask)
    with pytest.raises(Misfit):
        framing.fed(reply(kind, ask, right(ask, data)) + more)


@settings(deadline=None)
@given(framings, asks, asks, st.binary(max_size=300))
def test_the_answer_to_another_request_fits_only_where_nothing_tells_them_apart(
    kind: type[Framing], ask: Ask, other: Ask, data: bytes
) -> None:
    alike = (ask.unit, ask.function, ask.size) == (other.unit, other.function, other.size)
    framing = asked(kind, ask)
    try:
        found = framing.fed(reply(kind, other, right(other, data)))
    except Misfit:
        found = None
    assert (found is not None) == alike


@settings(deadline=None, max_examples=300)
@given(framings, asks, st.lists(st.binary(max_size=400), max_size=12), st.booleans())
def test_noise_is_no_answer_and_takes_no_room(
    kind: type[Framing], ask: Ask, pieces: list[bytes], given_up: bool
) -> None:
    framing = asked(kind, ask)
    if given_up:
        framing.give_up()
    noise = b"".join(pieces)
    answer, refusal = right(ask, b""), exception(ask.function, 0)
    heads = (
        reply(kind, ask, answer)[: 9 if kind is Mbap else 3],
        reply(kind, ask, refusal)[: 8 if kind is Mbap else 2],
    )
    try:
        found = feed(framing, pieces)
    except Misfit:
        return
    assert found is None or noise.startswith(heads)


@settings(deadline=None)
@given(asks, asks, st.binary(max_size=40), st.lists(st.integers(0, 600), max_size=5), st.booleans())
def test_a_late_answer_is_left_out_and_the_next_one_taken(
    first: Ask, second: Ask, data: bytes, places: list[int], refused: bool
) -> None:
    framing = Mbap()
    framing.request(first)
    framing.give_up()
    framing.request(second)
    late = exception(first.function, 4) if refused else right(first, b"late")
    both = reply(Mbap, first, late, 1) + reply(Mbap, second, right(second, data), 2)
    assert feed(framing, cut(both, places)) == filled(second, data)
    assert framing.late == 1


def test_the_rest_of_an_answer_that_was_given_up_is_left_out() -> None:
    first, second = Ask(1, 3, 0, 10), Ask(2, 3, 50, 10)
    framing = Mbap()
    framing.request(first)
    late = reply(Mbap, first, right(first, b"\x11"), 1)
    assert framing.fed(late[:12]) is None
    framing.give_up()
    framing.request(second)
    good = reply(Mbap, second, right(second, b"\x22"), 2)
    assert framing.fed(late[12:] + good) == b"\x22" * 20


def test_what_was_given_up_is_forgotten_in_the_end() -> None:
    framing = Mbap()
    for _ in range(70_000):
        framing.request(Ask(1, 3, 0, 1))
        framing.give_up()
    assert len(framing._abandoned) < ROOM


def test_every_text_says_what_is_wrong() -> None:
    head = struct.Struct(">HHHBBB")
    told = []
    for kind, data in (
        (Mbap, head.pack(8, 0, 7, 1, 3, 4) + bytes(4)),
        (Mbap, head.pack(1, 0, 5, 1, 3, 2) + bytes(2)),
        (Rtu, b"\x02\x03\x04" + bytes(6)),
        (Rtu, b"\x01\x03\x02" + bytes(4)),
        (Rtu, b"\x01\x03\x04" + bytes(6)),
    ):
        framing = asked(kind, Ask(1, 3, 0, 2))
        with pytest.raises(Misfit) as caught:
            framing.fed(data)
        told.append(str(caught.value))
    other, length = (
        "an answer to another request",
        "an answer of another function or of the wrong length",
    )
    assert told == [other, length, other, length, "a garbled answer (checksum)"]
    for kind in FRAMINGS:
        with pytest.raises(Misfit, match="nobody asked for"):
            kind().fed(b"\x00")
