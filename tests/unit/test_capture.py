"""Captures: every way a file, a packet or a conversation can be, and none that breaks."""

import io
import random
import struct
import tracemalloc
from collections.abc import Callable, Iterable
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocols.errors import MillgateError
from simulators.capture import Packets
from simulators.captured import Capture, CapturedDevice, decode, describe, read_capture
from simulators.faults.modbus_wire import ILLEGAL_ADDRESS, NO_ANSWER, Refusal
from tests.pcaps import (
    CLIENT,
    SERVER,
    Talk,
    adu,
    answering,
    asking,
    ethernet,
    file_of,
    ipv4,
    ipv6,
    meter,
    segment,
    tcp,
    words,
)

MEBIBYTE = 1 << 20
KNOWN = {
    (1, 4): [(10, 12)],
    (2, 3): [(10, 11)],
    (1, 1): [(0, 9)],
}


def capture(data: bytes, port: int = 502) -> Capture:
    return decode(Packets(io.BytesIO(data), "file"), port)


def only(data: bytes) -> CapturedDevice:
    (device,) = capture(data).devices
    return device


def values(device: CapturedDevice, unit: int, function: int, first: int, count: int) -> list[int]:
    data = device.read(unit, function, first, count)
    return list(struct.unpack(f">{count}H", data))


def refused(device: CapturedDevice, unit: int, function: int, first: int, count: int) -> int:
    with pytest.raises(Refusal) as told:
        device.read(unit, function, first, count)
    return told.value.code


def test_each_value_is_the_one_that_was_read_last() -> None:
    device = only(file_of(meter()))
    assert device.spans() == KNOWN
    assert values(device, 1, 4, 10, 3) == [100, 555, 102]
    assert values(device, 2, 3, 10, 2) == [200, 201]
    assert device.read(1, 1, 0, 10) == b"\x05\x02"
    assert device.read(1, 1, 2, 8) == b"\x81"
    assert device.end == SERVER
    assert (device.counts.requests, device.counts.answers) == (5, 4)
    assert device.counts.refusals == {2: 1}


def test_what_was_never_read_is_refused() -> None:
    device = only(file_of(meter()))
    assert refused(device, 1, 4, 9, 1) == ILLEGAL_ADDRESS
    assert refused(device, 1, 4, 12, 2) == ILLEGAL_ADDRESS
    assert refused(device, 1, 3, 10, 1) == ILLEGAL_ADDRESS
    assert refused(device, 1, 3, 900, 1) == ILLEGAL_ADDRESS
    assert refused(device, 9, 4, 10, 1) == NO_ANSWER


def test_a_written_value_is_not_taken_for_what_the_device_holds() -> None:
    talk = Talk()
    talk.ask(adu(1, 1, struct.pack(">BHH", 6, 10, 777)))
    talk.answer(adu(1, 1, struct.pack(">BHH", 6, 10, 777)))
    device = only(file_of(talk.frames))
    assert device.values == 0
    assert device.counts.others == 1


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"", "not a pcap"),
        (b"\xd4\xc3\xb2\xa1\x02", "not a pcap"),
        (b"GET / HTTP/1.1\r\nHost: 10.0.0.20\r\n\r\n", "not a pcap"),
        (b"\x0a\x0d\x0d\x0a" + bytes(60), "pcapng"),
        (file_of([], link=105), "link of type 105"),
    ],
)
def test_what_is_no_capture_is_refused_with_a_remedy(data: bytes, what: str) -> None:
    with pytest.raises(MillgateError) as told:
        capture(data)
    assert what in told.value.what
    assert (told.value.where, bool(told.value.remedy)) == ("file", True)


def test_a_file_that_cannot_be_read_is_a_fault_in_one_line(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none"):
        with pytest.raises(MillgateError) as told:
            read_capture(path)
        assert str(told.value).count("\n") == 0
        assert told.value.where == str(path)


def bare(frame: bytes) -> bytes:
    return frame[14:]


@pytest.mark.parametrize(
    ("link", "wrap"),
    [
        (1, lambda frame: frame),
        (1, lambda frame: ethernet(bare(frame), vlan=True)),
        (0, lambda frame: b"\x02\x00\x00\x00" + bare(frame)),
        (101, bare),
        (12, bare),
        (113, lambda frame: bytes(14) + b"\x08\x00" + bare(frame)),
        (276, lambda frame: b"\x08\x00" + bytes(18) + bare(frame)),
    ],
)
def test_every_link_that_is_accepted_is_read(link: int, wrap: Callable[[bytes], bytes]) -> None:
    frames = [wrap(frame) for frame in meter()]
    for order, nanoseconds in (("<", False), (">", False), ("<", True), (">", True)):
        data = file_of(frames, link=link, order=order, nanoseconds=nanoseconds)
        assert only(data).spans() == KNOWN


def test_times_are_nanoseconds_in_either_resolution() -> None:
    for nanoseconds in (False, True):
        file = Packets(io.BytesIO(file_of(meter()[:2], nanoseconds=nanoseconds)), "file")
        assert [packet.time_ns for packet in file] == [
            1_770_000_000_000_000_000,
            1_770_000_000_001_000_000,
        ]


@pytest.mark.parametrize("hops", [False, True])
def test_ipv6_is_read(hops: bool) -> None:
    client, server = ("fd00::9", 40_000), ("fd00::20", 502)
    ask, answer = asking(1, 1, 4, 0, 1), answering(1, 1, 4, words(7))
    frames = [
        ethernet(ipv6(client[0], server[0], tcp(client, server, 5, ask), hops=hops), kind=0x86DD),
        ethernet(
            ipv6(server[0], client[0], tcp(server, client, 5, answer), hops=hops), kind=0x86DD
        ),
    ]
    device = only(file_of(frames))
    assert device.end == server
    assert values(device, 1, 4, 0, 1) == [7]


def test_what_is_no_tcp_is_counted_by_its_reason() -> None:
    frames = [
        ethernet(b"\x00\x01\x08\x00", kind=0x0806),
        ethernet(ipv4("10.0.0.1", "10.0.0.2", bytes(8), protocol=17)),
        ethernet(ipv4("10.0.0.1", "10.0.0.2", bytes(20), fragment=0x2000)),
        ethernet(b"\x4f\x00" + bytes(18), pad=False),
        ethernet(ipv4("10.0.0.1", "10.0.0.2", bytes(20))),
        b"",
    ]
    found = capture(file_of(frames))
    assert found.devices == ()
    assert found.skipped == {"not IP": 2, "not TCP": 1, "fragment": 1, "damaged": 2}


def test_a_file_that_ends_in_the_middle_gives_what_came_before() -> None:
    whole = file_of(meter())
    found = capture(whole[:-10])
    assert found.damaged
    assert values(found.devices[0], 1, 4, 10, 3) == [100, 101, 102]
    assert not capture(whole).damaged


def test_a_packet_of_absurd_length_ends_the_file() -> None:
    whole = file_of(meter()[:2]) + struct.pack("<IIII", 1, 1, 0x7FFFFFFF, 0x7FFFFFFF) + bytes(100)
    found = capture(whole)
    assert found.damaged
    assert values(found.devices[0], 1, 4, 10, 3) == [100, 101, 102]


def test_two_devices_with_the_same_unit_are_two() -> None:
    other = ("10.0.0.21", 502)
    talk = Talk(CLIENT, other)
    talk.ask(asking(1, 1, 4, 10, 1))
    talk.answer(answering(1, 1, 4, words(9)))
    found = capture(file_of([*talk.frames, *meter()]))
    assert [device.end for device in found.devices] == [SERVER, other]
    assert values(found.device("10.0.0.21"), 1, 4, 10, 1) == [9]
    assert values(found.device("10.0.0.20:502"), 1, 4, 10, 1) == [100]
    assert found.device(None) is found.devices[0]
    with pytest.raises(MillgateError, match=r"10\.0\.0\.21:502"):
        found.device("10.0.0.22")


def test_another_port_is_asked_for() -> None:
    data = file_of(meter(server=("10.0.0.20", 1502)))
    assert capture(data).devices == ()
    assert capture(data, 1502).devices[0].spans() == KNOWN
    with pytest.raises(MillgateError, match="captured-port"):
        capture(data).device(None)


# What is paired with what


def test_an_answer_without_its_request_tells_nothing() -> None:
    talk = Talk()
    talk.ask(asking(1, 1, 4, 10, 1), captured=False)
    talk.answer(answering(1, 1, 4, words(100)))
    talk.ask(asking(2, 1, 4, 20, 1))
    talk.answer(answering(2, 1, 4, words(200)))
    device = only(file_of(talk.frames))
    assert device.spans() == {(1, 4): [(20, 20)]}
    assert device.counts.odd == 1


@pytest.mark.parametrize(
    "answer",
    [
        answering(1, 1, 4, words(1, 2)),
        answering(1, 1, 4, words(1, 2, 3, 4)),
        answering(1, 1, 4, b""),
        answering(1, 1, 3, words(1, 2, 3)),
        answering(1, 2, 4, words(1, 2, 3)),
        answering(2, 1, 4, words(1, 2, 3)),
        adu(1, 1, b"\x04\x08" + words(1, 2, 3)),
        adu(1, 1, b"\x83\x02"),
        adu(1, 1, b"\x84\x02\x00"),
    ],
)
def test_an_answer_that_does_not_fit_its_request_is_not_taken(answer: bytes) -> None:
    talk = Talk()
    talk.ask(asking(1, 1, 4, 10, 3))
    talk.answer(answer)
    device = only(file_of(talk.frames))
    assert device.values == 0
    assert device.counts.odd == 1
    assert not device.counts.refusals


def test_clients_that_never_change_the_transaction_are_followed_as_far_as_it_is_clear() -> None:
    talk = Talk()
    for first in (0, 40):
        talk.ask(asking(0, 1, 4, first, 1))
        talk.answer(answering(0, 1, 4, words(100 + first)))
    talk.ask(asking(0, 1, 4, 80, 1))  # never answered
    talk.ask(asking(0, 1, 4, 90, 1))
    talk.answer(answering(0, 1, 4, words(190)))
    talk.ask(asking(0, 1, 4, 60, 1))
    talk.answer(answering(0, 1, 4, words(160)))
    device = only(file_of(talk.frames))
    assert device.spans() == {(1, 4): [(0, 0), (40, 40), (60, 60)]}
    assert device.counts.unclear == 1


def test_what_is_missing_in_the_capture_mislabels_nothing() -> None:
    talk = Talk()
    talk.ask(asking(0, 1, 4, 0, 1))
    talk.answer(answering(0, 1, 4, words(100)), captured=False)
    talk.ask(asking(0, 1, 4, 40, 1), captured=False)
    talk.answer(answering(0, 1, 4, words(140)))
    talk.ask(asking(0, 1, 4, 50, 1))
    talk.answer(answering(0, 1, 4, words(150)))
    device = only(file_of(talk.frames))
    assert device.spans() == {(1, 4): [(50, 50)]}
    assert device.counts.gaps == 1


def test_an_acknowledgement_tells_what_was_missed_before_further_data_come() -> None:
    talk = Talk()
    talk.ask(asking(0, 1, 4, 0, 1))
    talk.answer(answering(0, 1, 4, words(100)))
    talk.ask(asking(0, 1, 4, 40, 1))
    talk.answer(answering(0, 1, 4, words(140)), captured=False)
    talk.ask(asking(0, 1, 4, 60, 1))
    talk.answer(answering(0, 1, 4, words(160)))
    device = only(file_of(talk.frames))
    assert device.spans() == {(1, 4): [(0, 0), (60, 60)]}
    assert (device.counts.gaps, device.counts.unclear) == (1, 0)


def test_what_is_not_modbus_is_passed_over_until_a_header_comes_again() -> None:
    talk = Talk()
    talk.ask(b"GET / HTTP/1.1\r\n\r\n")
    talk.answer(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    talk.ask(asking(1, 1, 4, 0, 1))
    talk.answer(answering(1, 1, 4, words(7)))
    device = only(file_of(talk.frames))
    assert values(device, 1, 4, 0, 1) == [7]
    assert device.counts.foreign == 2


def test_a_packet_cut_by_the_capture_is_a_gap() -> None:
    talk = Talk()
    talk.ask(asking(1, 1, 4, 0, 20))
    talk.answer(answering(1, 1, 4, words(*range(20))))
    talk.ask(asking(2, 1, 4, 0, 1))
    talk.answer(answering(2, 1, 4, words(7)))
    frames = [talk.frames[0], talk.frames[1][:80], *talk.frames[2:]]
    device = only(file_of(frames))
    assert device.spans() == {(1, 4): [(0, 0)]}
    assert device.counts.gaps == 1


def test_a_connection_on_the_same_ports_begins_anew() -> None:
    again = Talk(start=77)
    again.ask(asking(1, 1, 4, 10, 1))
    again.answer(answering(1, 1, 4, words(42)))
    opening = [
        segment(CLIENT, SERVER, 76, b"", flags=0x02),
        segment(SERVER, CLIENT, 5076, b"", heard=77, flags=0x12),
    ]
    device = only(file_of([*meter(), *opening, *again.frames]))
    assert values(device, 1, 4, 10, 1) == [42]


def test_opening_and_closing_leave_no_gap() -> None:
    talk = Talk()
    opening = [
        segment(CLIENT, SERVER, 999, b"", flags=0x02),
        segment(SERVER, CLIENT, 5999, b"", heard=1000, flags=0x12),
    ]
    talk.ask(asking(1, 1, 4, 10, 1))
    talk.answer(answering(1, 1, 4, words(42)))
    closing = [
        segment(CLIENT, SERVER, 1012, b"", heard=6011, flags=0x11),
        segment(SERVER, CLIENT, 6011, b"", heard=1013, flags=0x11),
        segment(CLIENT, SERVER, 1013, b"", heard=6012, flags=0x10),
    ]
    device = only(file_of([*opening, *talk.frames, *closing]))
    assert values(device, 1, 4, 10, 1) == [42]
    assert device.counts.gaps == 0


def test_values_beyond_the_bound_are_counted_not_kept() -> None:
    talk = Talk()
    for unit in range(66):
        for number in range(256):
            talk.ask(asking(number, unit, 4, number * 256, 1))
            talk.answer(answering(number, unit, 4, words(1)))
    device = only(file_of(talk.frames))
    assert device.values + device.counts.left_out == 66 * 256
    assert device.values == 16_384


# Bytes in any order


def conversation() -> tuple[bytes, bytes]:
    """What the client and what the server say in a long polling."""
    asked, answered = b"", b""
    for at in range(30):
        asked += asking(at + 1, 1, 4, 10 * at, 8)
        answered += answering(at + 1, 1, 4, words(*range(10 * at, 10 * at + 8)))
    return asked, answered


ASKED, ANSWERED = conversation()
WHOLE = {(1, 4): [(10 * at, 10 * at + 7) for at in range(30)]}


def pieces(data: bytes, cuts: Iterable[int]) -> list[tuple[int, bytes]]:
    edges = sorted({0, len(data), *(cut % len(data) for cut in cuts)})
    return [(first, data[first:stop]) for first, stop in pairwise(edges)]


@settings(max_examples=60, deadline=None)
@given(
    cuts=st.lists(st.integers(0, 10_000), max_size=40),
    start=st.sampled_from([0, 1000, 2**32 - 200, 2**31 - 100]),
    order=st.randoms(use_true_random=False),
    twice=st.booleans(),
)
def test_the_same_bytes_in_any_pieces_and_order_give_the_same_values(
    cuts: list[int], start: int, order: random.Random, twice: bool
) -> None:
    opening = [
        segment(CLIENT, SERVER, start - 1, b"", flags=0x02),
        segment(SERVER, CLIENT, start - 1, b"", flags=0x12),
    ]
    asked = [segment(CLIENT, SERVER, start + at, data) for at, data in pieces(ASKED, cuts)]
    told = [segment(SERVER, CLIENT, start + at, data) for at, data in pieces(ANSWERED, cuts)]
    for frames in (asked, told):
        frames.extend(frames[::3] if twice else [])
        order.shuffle(frames)
    device = only(file_of([*opening, *asked, *told]))
    assert device.spans() == WHOLE
    for first, last in WHOLE[1, 4]:
        assert values(device, 1, 4, first, 8) == list(range(first, last + 1))


@settings(max_examples=60, deadline=None)
@given(
    cuts=st.lists(st.integers(0, 10_000), min_size=3, max_size=40),
    lost=st.sets(st.integers(0, 100), min_size=1, max_size=10),
)
def test_whatever_was_not_captured_no_value_gets_another_address(
    cuts: list[int], lost: set[int]
) -> None:
    asked = [segment(CLIENT, SERVER, 500 + at, data) for at, data in pieces(ASKED, cuts)]
    told = [segment(SERVER, CLIENT, 500 + at, data) for at, data in pieces(ANSWERED, cuts)]
    frames = [frame for at, frame in enumerate([*asked, *told]) if at not in lost]
    for device in capture(file_of(frames)).devices:
        for (unit, function), runs in device.spans().items():
            assert (unit, function) == (1, 4)
            for first, last in runs:
                assert values(device, 1, 4, first, last - first + 1) == list(range(first, last + 1))


# Noise


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=400), st.sampled_from([0, 1, 12, 101, 113, 276]))
def test_noise_in_packets_breaks_nothing(noise: bytes, link: int) -> None:
    describe(capture(file_of([noise, noise[7:]], link=link)).devices)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.booleans(), st.integers(0, 2**32 - 1), st.integers(0, 255), st.binary(max_size=90)
        ),
        max_size=20,
    )
)
def test_noise_in_conversations_breaks_nothing(said: list[tuple[bool, int, int, bytes]]) -> None:
    frames = [
        segment(*((CLIENT, SERVER) if out else (SERVER, CLIENT)), sequence, data, flags=flags)
        for out, sequence, flags, data in said
    ]
    describe(capture(file_of(frames)).devices)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), max_size=30))
def test_a_damaged_file_is_read_or_refused(damage: list[tuple[int, int]]) -> None:
    data = bytearray(file_of(meter()))
    for at, value in damage:
        data[at % len(data)] = value
    try:
        found = capture(bytes(data))
    except MillgateError as fault:
        assert fault.remedy  # noqa: PT017 - a refusal is one of two right outcomes
        return
    describe(found.devices)


def peak(data: bytes) -> int:
    """Return the most memory that decoding took beyond the file itself."""
    file = Packets(io.BytesIO(data), "file")
    tracemalloc.start()
    try:
        decode(file)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_a_stream_whose_beginning_never_comes_stays_small() -> None:
    opening = segment(CLIENT, SERVER, 0, b"", flags=0x02)
    far = [segment(CLIENT, SERVER, 2 + 1000 * (at % 60), bytes(900)) for at in range(4000)]
    assert peak(file_of([opening, *far])) < 4 * MEBIBYTE


def test_many_connections_stay_small() -> None:
    frames = [
        segment((f"10.{at >> 16}.{at >> 8 & 255}.{at & 255}", 40_000), SERVER, 0, bytes(6))
        for at in range(10_000)
    ]
    assert peak(file_of(frames)) < 24 * MEBIBYTE


def test_requests_that_are_never_answered_stay_few() -> None:
    talk = Talk()
    for at in range(10_000):
        talk.ask(asking(at, at % 250, 4, at, 1))
    assert peak(file_of(talk.frames)) < 4 * MEBIBYTE


def test_a_stream_gives_up_what_is_far_ahead_and_goes_on() -> None:
    talk = Talk()
    talk.ask(asking(1, 1, 4, 0, 1))
    talk.answer(answering(1, 1, 4, words(7)))
    far = Talk(start=900_000)
    for transaction in (2, 3):
        far.ask(asking(transaction, 1, 4, 1, 1))
        far.answer(answering(transaction, 1, 4, words(5 + transaction)))
    device = only(file_of([*talk.frames, *far.frames]))
    # The first exchange after a gap cannot be told from one whose request was missed.
    assert values(device, 1, 4, 0, 2) == [7, 8]
    assert device.counts.gaps == 2
