"""Answers: only the pinned receipt key is believed, and only by the agent it means."""

import dataclasses
from typing import Any

import cbor2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocols.strict_cbor import Malformed
from protocols.topics import Address
from security import answers, cose
from security.answers import (
    ERASURE,
    MAX_ANSWER,
    MOST_ERASED,
    MOST_REFUSED,
    NO_LOG,
    RECEIPT,
    REQUEST,
    STANDING,
    Answer,
    Erased,
    Erasure,
    Head,
    Log,
    Receipt,
    Refused,
    Request,
    Standing,
    answer_digest,
    answer_kid,
    read_answer,
    sign_answer,
)
from security.keys import BadSignature
from security.transparency import EMPTY_ROOT
from tests.small_factory import signing_key

KEY, OTHER = signing_key("brain"), signing_key("other brain")
ADDRESS = Address(b"F" * 16, b"A" * 16)
NOW = 1_770_000_000

numbers = st.integers(0, (1 << 63) - 1)
hashes = st.binary(min_size=32, max_size=32)
heads = st.builds(Head, numbers, numbers, numbers, hashes)
codes = st.integers(answers.CANNOT_OPEN, answers.BAD_SHEET)
receipts = st.builds(
    Receipt,
    st.just(ADDRESS),
    numbers,
    st.lists(heads, min_size=1, max_size=4).map(tuple),
    st.lists(st.builds(Refused, heads, codes), max_size=4).map(tuple),
)
ranges = st.tuples(numbers, numbers).map(sorted)
erased = st.builds(
    lambda epoch, stream, ends, digest: Erased(epoch, stream, ends[0], ends[1], digest),
    numbers,
    numbers,
    ranges,
    hashes,
)
erasures = st.builds(
    Erasure, st.just(ADDRESS), numbers, st.lists(erased, min_size=1, max_size=4).map(tuple)
)
requests = st.builds(Request, st.just(ADDRESS), numbers, hashes)
logs = st.builds(Log, numbers, hashes)
standings = st.builds(
    Standing,
    st.just(ADDRESS),
    numbers,
    st.binary(min_size=16, max_size=16),
    numbers,
    st.booleans(),
    numbers,
    logs,
    st.lists(hashes, max_size=4).map(tuple),
    st.lists(heads, max_size=4).map(tuple),
)


def read(data: bytes) -> Answer:
    return read_answer(data, ADDRESS, [OTHER.public, KEY.public])


def receipt(**changes: Any) -> Receipt:
    head = Head(1, 2, 3, b"d" * 32)
    return dataclasses.replace(Receipt(ADDRESS, NOW, (head,), (Refused(head, 3),)), **changes)


def by_hand(kind: str, content: Any) -> bytes:
    """An answer with any content, rightly signed."""
    protected = cose.protected_header(kind, KEY.public, {})
    return cose.sign1(protected, cbor2.dumps(content, canonical=True), KEY)


HEAD = [1, 2, 3, b"d" * 32]
ERASED = [1, 2, 3, 4, b"d" * 32]
START = [1, ADDRESS.factory, ADDRESS.agent, NOW]
LOG = [0, EMPTY_ROOT]
STAND = [b"n" * 16, 1, 0, 2, LOG, [], [HEAD]]


@settings(deadline=None, max_examples=150)
@given(receipts | requests | erasures | standings)
def test_answers_come_back_as_they_were_signed(answer: Answer) -> None:
    assert read(sign_answer(answer, KEY)) == answer


@settings(deadline=None, max_examples=50)
@given(receipts | requests | erasures | standings)
def test_the_same_answer_has_the_same_bytes(answer: Answer) -> None:
    signed = sign_answer(answer, KEY)
    assert sign_answer(answer, KEY) == signed
    assert len(answer_digest(signed)) == 32
    assert answer_digest(signed) != answer_digest(sign_answer(answer, OTHER))


def test_every_bit_flip_of_an_answer_is_refused() -> None:
    standing = Standing(ADDRESS, NOW, b"n" * 16, 1, False, 2, NO_LOG, (), ())
    for answer in (receipt(), Request(ADDRESS, NOW, b"s" * 32), standing):
        data = sign_answer(answer, KEY)
        for bit in range(8 * len(data)):
            changed = bytearray(data)
            changed[bit // 8] ^= 1 << bit % 8
            with pytest.raises((Malformed, BadSignature)):
                read(bytes(changed))


def test_an_answer_for_another_agent_is_refused() -> None:
    for other in (Address(b"G" * 16, b"A" * 16), Address(b"F" * 16, b"B" * 16)):
        signed = sign_answer(receipt(address=other), KEY)
        with pytest.raises(Malformed):
            read(signed)
        assert read_answer(signed, other, [KEY.public]) == receipt(address=other)


def test_an_answer_of_a_key_that_is_not_pinned_is_refused() -> None:
    with pytest.raises(BadSignature):
        read_answer(sign_answer(receipt(), OTHER), ADDRESS, [KEY.public])
    with pytest.raises(BadSignature):
        read_answer(sign_answer(receipt(), KEY), ADDRESS, [])


def test_a_receipt_does_not_pass_as_a_request_nor_the_other_way_round() -> None:
    with pytest.raises(Malformed):
        read(by_hand(REQUEST, [*START, [HEAD], []]))
    with pytest.raises(Malformed):
        read(by_hand(RECEIPT, [*START, b"s" * 32]))
    assert read(by_hand(RECEIPT, [*START, [HEAD], [], LOG])) == receipt(refused=())


SHAPES: dict[str, tuple[str, Any]] = {
    "another version": (RECEIPT, [2, *START[1:], [HEAD], []]),
    "no list": (RECEIPT, {}),
    "an empty list": (RECEIPT, []),
    "a number": (RECEIPT, 1),
    "no rest": (RECEIPT, START),
    "a negative time": (RECEIPT, [*START[:3], -1, [HEAD], [], LOG]),
    "a time that is bytes": (RECEIPT, [*START[:3], b"", [HEAD], [], LOG]),
    "no heads": (RECEIPT, [*START, [], [], LOG]),
    "too many heads": (RECEIPT, [*START, [HEAD] * 513, [], LOG]),
    "heads that are bytes": (RECEIPT, [*START, b"", [], LOG]),
    "a head that is a map": (RECEIPT, [*START, [{}], [], LOG]),
    "a head of three parts": (RECEIPT, [*START, [HEAD[:3]], [], LOG]),
    "a head of five parts": (RECEIPT, [*START, [[*HEAD, 1]], [], LOG]),
    "a negative sequence": (RECEIPT, [*START, [[1, 2, -1, b"d" * 32]], [], LOG]),
    "a short hash": (RECEIPT, [*START, [[1, 2, 3, b"d" * 31]], [], LOG]),
    "refused that are a map": (RECEIPT, [*START, [HEAD], {}, LOG]),
    "too many refused": (RECEIPT, [*START, [HEAD], [[*HEAD, 1]] * (MOST_REFUSED + 1), LOG]),
    "a refusal without a code": (RECEIPT, [*START, [HEAD], [HEAD], LOG]),
    "a refusal with code 0": (RECEIPT, [*START, [HEAD], [[*HEAD, 0]], LOG]),
    "a refusal with an unknown code": (RECEIPT, [*START, [HEAD], [[*HEAD, 7]], LOG]),
    "a refusal whose code is a list": (RECEIPT, [*START, [HEAD], [[*HEAD, [1]]], LOG]),
    "a refusal whose code is text": (RECEIPT, [*START, [HEAD], [[*HEAD, "1"]], LOG]),
    "more than a receipt has": (RECEIPT, [*START, [HEAD], [], LOG, 0]),
    "a receipt without a log": (RECEIPT, [*START, [HEAD], []]),
    "a log that is a number": (RECEIPT, [*START, [HEAD], [], 5]),
    "a log without a root": (RECEIPT, [*START, [HEAD], [], [5]]),
    "a log of negative size": (RECEIPT, [*START, [HEAD], [], [-1, b"r" * 32]]),
    "a log with a short root": (RECEIPT, [*START, [HEAD], [], [5, b"r" * 31]]),
    "a standing with half a quarantine": (STANDING, [*START, *STAND[:2], 2, *STAND[3:]]),
    "a standing whose quarantine is a list": (STANDING, [*START, *STAND[:2], [1], *STAND[3:]]),
    "a standing with a short nonce": (STANDING, [*START, b"n" * 15, *STAND[1:]]),
    "a standing with too long a proof": (
        STANDING,
        [*START, *STAND[:5], [b"p" * 32] * 127, STAND[6]],
    ),
    "a standing with too many heads": (STANDING, [*START, *STAND[:6], [HEAD] * 513]),
    "less than a standing has": (STANDING, [*START, *STAND[:6]]),
    "more than a standing has": (STANDING, [*START, *STAND, 0]),
    "a request for a short hash": (REQUEST, [*START, b"s" * 31]),
    "a request for a number": (REQUEST, [*START, 1]),
    "an erasure of nothing": (ERASURE, [*START, []]),
    "an erasure of too much": (ERASURE, [*START, [ERASED] * (MOST_ERASED + 1)]),
    "an erasure that is bytes": (ERASURE, [*START, b""]),
    "a range of four parts": (ERASURE, [*START, [ERASED[:4]]]),
    "a range that ends before it begins": (ERASURE, [*START, [[1, 2, 4, 3, b"d" * 32]]]),
    "a range with a short hash": (ERASURE, [*START, [[1, 2, 3, 4, b"d" * 31]]]),
    "more than an erasure has": (ERASURE, [*START, [ERASED], 0]),
    "more than a request has": (REQUEST, [*START, b"s" * 32, 0]),
}


@pytest.mark.parametrize(("kind", "content"), SHAPES.values(), ids=SHAPES.keys())
def test_an_answer_of_another_shape_is_malformed(kind: str, content: Any) -> None:
    with pytest.raises(Malformed):
        read(by_hand(kind, content))


def test_another_content_type_is_malformed() -> None:
    with pytest.raises(Malformed):
        read(by_hand("application/mg1-batch+cbor", [*START, [HEAD], []]))


def test_the_fullest_erasure_is_still_within_the_bound() -> None:
    big = (1 << 63) - 1
    full = Erasure(ADDRESS, big, (Erased(big, big, big, big, b"\xff" * 32),) * MOST_ERASED)
    signed = sign_answer(full, KEY)
    assert len(signed) <= MAX_ANSWER
    assert read(signed) == full
    assert answer_kid(signed) == KEY.public.kid


def test_the_fullest_receipt_is_still_within_the_bound() -> None:
    big = (1 << 63) - 1
    head = Head(big, big, big, b"\xff" * 32)
    full = receipt(issued_at=big, heads=(head,) * 512, refused=(Refused(head, 6),) * MOST_REFUSED)
    signed = sign_answer(full, KEY)
    assert len(signed) <= MAX_ANSWER
    assert read(signed) == full


@settings(deadline=None, max_examples=200)
@given(st.binary(max_size=400))
def test_arbitrary_bytes_are_refused(data: bytes) -> None:
    with pytest.raises((Malformed, BadSignature)):
        read(data)
