"""What may be the answer to a read: exactly the answer, or a refusal of it, and nothing else."""

import struct

from hypothesis import given, settings
from hypothesis import strategies as st

from protocols.drivers.modbus.watch import misfit
from simulators.faults.modbus_wire import READING, exception, frame, read_request

HEAD = 9

asking = st.builds(
    lambda transaction, unit, function, first, share: (
        transaction,
        unit,
        function,
        first,
        1 + share % READING[function],
    ),
    st.integers(1, 0xFFFF),
    st.integers(0, 255),
    st.sampled_from(sorted(READING)),
    st.integers(0, 0xFFFF),
    st.integers(0, 4000),
)
Asked = tuple[int, int, int, int, int]


def request(asked: Asked) -> bytes:
    transaction, unit, function, first, count = asked
    return read_request(unit, function, first, count, transaction)


def answer(asked: Asked, data: bytes) -> bytes:
    transaction, unit, function, _, count = asked
    size = -(-count // 8) if function < 3 else 2 * count
    filled = (data * (size // max(len(data), 1) + 1) + bytes(size))[:size]
    return frame(transaction, unit, bytes((function, size)) + filled)


@settings(deadline=None)
@given(asking, st.binary(max_size=300), st.integers(0, 300))
def test_the_answer_fits_at_every_moment_of_its_arrival(
    asked: Asked, data: bytes, cut: int
) -> None:
    whole = answer(asked, data)
    assert misfit(request(asked), whole) is None
    assert misfit(request(asked), whole[:cut]) is None


@settings(deadline=None)
@given(asking, st.integers(0, 255))
def test_a_refusal_fits(asked: Asked, code: int) -> None:
    transaction, unit, function, _, _ = asked
    whole = frame(transaction, unit, exception(function, code))
    assert all(misfit(request(asked), whole[:cut]) is None for cut in range(len(whole) + 1))
    assert misfit(request(asked), whole + b"\x00") is not None


@settings(deadline=None)
@given(asking, st.binary(max_size=300), st.integers(0, HEAD - 1), st.integers(1, 255))
def test_no_other_byte_of_the_head_will_do(asked: Asked, data: bytes, at: int, other: int) -> None:
    whole = bytearray(answer(asked, data))
    whole[at] ^= other
    assert misfit(request(asked), bytes(whole)) is not None


@settings(deadline=None)
@given(asking, st.binary(max_size=300), st.binary(min_size=1, max_size=50))
def test_nothing_may_follow_the_answer(asked: Asked, data: bytes, more: bytes) -> None:
    assert misfit(request(asked), answer(asked, data) + more) is not None


@settings(deadline=None)
@given(asking, asking, st.binary(max_size=300))
def test_the_answer_to_another_request_fits_only_where_its_head_is_the_same(
    asked: Asked, other: Asked, data: bytes
) -> None:
    same = answer(asked, data)[:HEAD] == answer(other, data)[:HEAD]
    assert (misfit(request(asked), answer(other, data)) is None) == same


@settings(deadline=None)
@given(asking, st.binary(max_size=400))
def test_noise_is_an_answer_only_where_it_begins_like_one(asked: Asked, noise: bytes) -> None:
    transaction, unit, function, _, _ = asked
    heads = (answer(asked, b"")[:HEAD], frame(transaction, unit, exception(function, 0))[:8])
    begins = any(noise[: len(head)] == head[: len(noise)] for head in heads)
    assert begins or misfit(request(asked), noise) is not None
    assert misfit(b"", noise) is not None


def test_every_text_says_what_is_wrong() -> None:
    asked = (7, 1, 3, 0, 2)
    head = struct.Struct(">HHHBBB")
    told = {
        misfit(request(asked), data)
        for data in (
            head.pack(8, 0, 7, 1, 3, 4) + bytes(4),
            head.pack(7, 0, 5, 1, 3, 2) + bytes(2),
        )
    } | {misfit(b"", b"\x00")}
    assert told == {
        "an answer to another request",
        "an answer of another function or of the wrong length",
        "an answer that nobody asked for",
    }
