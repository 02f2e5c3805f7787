"""Strict CBOR: one meaning has one form, and nothing else is read."""

import itertools
import subprocess
import sys
from typing import Any

import cbor2
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from protocols import strict_cbor
from protocols.strict_cbor import MAX_DEPTH, Malformed, decode, encode, fixed, uint

TAGS = frozenset({18, 72, 98})
MUCH = 1 << 20

integers = st.integers(-(1 << 63), (1 << 63) - 1)
texts = st.text(max_size=30)
scalars = integers | st.binary(max_size=30) | texts
keys = integers | texts
items = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=5)
        | st.dictionaries(keys, inner, max_size=5)
        | st.builds(cbor2.CBORTag, st.sampled_from(sorted(TAGS)), inner)
    ),
    max_leaves=15,
)
unlimited = settings(deadline=None, max_examples=200)


def read(data: bytes, **limits: int) -> Any:
    return decode(data, max_bytes=MUCH, tags=TAGS, **limits)


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """The form of some item with a few bytes changed, lost, doubled or put in."""
    data = bytearray(encode(draw(items)))
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(data)))
        match draw(st.sampled_from(["change", "lose", "put in", "double"])):
            case "change" if at < len(data):
                data[at] = draw(st.integers(0, 255))
            case "lose":
                del data[at : at + draw(st.integers(1, 4))]
            case "put in":
                data[at:at] = draw(st.binary(min_size=1, max_size=4))
            case _:
                data[at:at] = data[at : at + 4]
    return bytes(data)


def refused_or_canonical(data: bytes) -> bool:
    """Return whether it was read; whatever is read must be in the one form another codec writes."""
    try:
        item = read(data)
    except Malformed:
        return False
    assert cbor2.dumps(item, canonical=True) == data
    return True


@unlimited
@given(items)
def test_what_is_encoded_decodes_to_the_same_item(item: object) -> None:
    found = read(encode(item), max_depth=64)
    assert found == item
    assert encode(found) == encode(item)


@unlimited
@given(st.binary(max_size=200) | damaged())
@example(b"")
def test_any_bytes_are_malformed_or_are_the_one_form_of_what_they_mean(data: bytes) -> None:
    refused_or_canonical(data)


def test_every_input_of_one_or_two_bytes_is_malformed_or_the_one_form_of_its_meaning() -> None:
    short = [bytes(two) for size in (1, 2) for two in itertools.product(range(256), repeat=size)]
    accepted = [data for data in short if refused_or_canonical(data)]
    # 24 + 24 small integers, empty bytes, text, list and map, then what holds one of these.
    assert [data.hex() for data in accepted if len(data) == 1] == [
        f"{first:02x}" for first in (*range(0x18), *range(0x20, 0x38), 0x40, 0x60, 0x80, 0xA0)
    ]
    two = {data for data in accepted if len(data) == 2}
    assert {data for data in two if data[0] == 0x81} == {
        b"\x81" + one for one in accepted if len(one) == 1
    }
    assert two == {
        *(bytes((0x18, value)) for value in range(24, 256)),
        *(bytes((0x38, value)) for value in range(24, 256)),
        *(bytes((0x41, value)) for value in range(256)),
        *(bytes((0x61, value)) for value in range(128)),
        *(b"\x81" + one for one in accepted if len(one) == 1),
        *(b"\xd2" + one for one in accepted if len(one) == 1),
    }


@unlimited
@given(items)
def test_a_missing_tail_is_malformed_wherever_it_begins(item: object) -> None:
    data = encode(item)
    for end in range(len(data)):
        with pytest.raises(Malformed):
            read(data[:end], max_depth=64)


@unlimited
@given(items, st.binary(min_size=1, max_size=5))
def test_bytes_after_the_end_are_malformed(item: object, rest: bytes) -> None:
    with pytest.raises(Malformed):
        read(encode(item) + rest, max_depth=64)


NOT_THE_ONE_FORM = {
    "integer in two bytes that fits one": "1817",
    "integer in three bytes that fits two": "1900ff",
    "integer in five bytes that fits three": "1a0000ffff",
    "integer in nine bytes that fits five": "1b00000000ffffffff",
    "negative integer in two bytes that fits one": "3817",
    "byte string whose length is not the shortest": "580161",
    "text whose length is not the shortest": "780161",
    "list whose length is not the shortest": "980100",
    "map whose length is not the shortest": "b8010000",
    "tag that is not the shortest": "d80200",
    "byte string of indefinite length": "5f4161ff",
    "text of indefinite length": "7f6161ff",
    "list of indefinite length": "9f00ff",
    "map of indefinite length": "bf0000ff",
    "break outside of anything": "ff",
    "reserved length 28": "1c",
    "reserved length 29": "5d",
    "reserved length 30": "9e",
    "integer 31": "1f",
    "map with one key twice": "a201000101",
    "map with one text key twice": "a2616100616101",
    "map with unsorted integer keys": "a202000100",
    "map with unsorted text keys": "a2616200616100",
    "map with a long key before a short one": "a2181800" + "0000",
    "map with a byte string as key": "a1416100",
    "map with a list as key": "a1800000",
    "map with a map as key": "a1a00000",
    "map with a tag as key": "a1d20000",
    "half float": "f93c00",
    "single float": "fa3f800000",
    "double float": "fb3ff0000000000000",
    "not a number": "f97e00",
    "infinity": "f97c00",
    "false": "f4",
    "true": "f5",
    "null": "f6",
    "undefined": "f7",
    "simple value": "e0",
    "simple value in two bytes": "f8ff",
    "unknown tag": "c100",
    "unknown tag inside": "81c100",
    "positive big number": "c249010000000000000000",
    "negative big number": "c349010000000000000000",
    "integer beyond 64 bits signed": "1b8000000000000000",
    "negative integer beyond 64 bits signed": "3b8000000000000000",
    "text that is not UTF-8": "61ff",
    "text with a surrogate": "63eda080",
    "text with an overlong letter": "62c1a1",
    "text cut within a letter": "61e4",
    "nothing": "",
}


@pytest.mark.parametrize("hexed", NOT_THE_ONE_FORM.values(), ids=NOT_THE_ONE_FORM.keys())
def test_what_is_not_in_the_one_form_is_malformed(hexed: str) -> None:
    with pytest.raises(Malformed):
        read(bytes.fromhex(hexed))


@pytest.mark.parametrize(
    "value", [-(1 << 63), -(1 << 63) + 1, (1 << 63) - 1, 0, -1, 23, 24, -24, -25]
)
def test_integers_of_64_bits_are_read_exactly(value: int) -> None:
    assert read(encode(value)) == value


@pytest.mark.parametrize("wrap", ["81", "a100", "d2"], ids=["lists", "maps", "tags"])
def test_nesting_ends_at_the_depth_that_was_named(wrap: str) -> None:
    head = bytes.fromhex(wrap)
    read(head * MAX_DEPTH + b"\x00")
    with pytest.raises(Malformed):
        read(head * (MAX_DEPTH + 1) + b"\x00")
    read(head * 3 + b"\x00", max_depth=3)
    with pytest.raises(Malformed):
        read(head * 4 + b"\x00", max_depth=3)


@pytest.mark.parametrize("wrap", ["81", "a100", "d2"], ids=["lists", "maps", "tags"])
def test_nesting_of_half_a_million_levels_is_malformed(wrap: str) -> None:
    with pytest.raises(Malformed):
        read(bytes.fromhex(wrap) * 500_000)


def test_more_bytes_than_were_allowed_are_malformed() -> None:
    assert decode(encode(b"12345678"), max_bytes=9) == b"12345678"
    with pytest.raises(Malformed):
        decode(encode(b"12345678"), max_bytes=8)


def test_more_items_than_the_bound_are_malformed() -> None:
    many = (1 << 20) + 1
    data = b"\x9a" + many.to_bytes(4, "big") + bytes(many)
    with pytest.raises(Malformed):
        decode(data, max_bytes=len(data))


BOMBS = """
import itertools, resource
from protocols.strict_cbor import Malformed, decode
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (32 << 20), used + (32 << 20)))
refused = 0
for major in range(2, 6):
    for info, width in ((25, 2), (26, 4), (27, 8)):
        for size in ({length}):
            if size.bit_length() <= 8 * width:
                head = bytes(((major << 5) | info,)) + size.to_bytes(width, "big")
                for data in (head, head * 8, head + bytes(4096), b"\\x84" + head * 4):
                    try:
                        decode(data, max_bytes=1 << 20)
                    except Malformed:
                        refused += 1
                    else:
                        raise SystemExit("accepted")
print(refused)
"""


def test_lengths_that_lie_are_malformed_without_taking_memory_for_them() -> None:
    sizes = ", ".join(f"(1 << {power}) - 1" for power in (16, 20, 31, 32, 40, 62, 63, 64))
    done = subprocess.run(
        [sys.executable, "-c", BOMBS.format(length=sizes)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 200


@pytest.mark.parametrize("value", [-1, b"", "1", [1], None, cbor2.CBORTag(1, 1)])
def test_only_an_integer_from_zero_on_is_an_unsigned_integer(value: object) -> None:
    with pytest.raises(Malformed):
        uint(value)
    assert uint(0) == 0


@pytest.mark.parametrize("value", [b"123", b"12345", "1234", 1234, [1, 2, 3, 4]])
def test_only_bytes_of_the_right_length_are_a_fixed_string(value: object) -> None:
    with pytest.raises(Malformed):
        fixed(value, 4)
    assert fixed(b"1234", 4) == b"1234"


def test_no_error_text_repeats_what_was_read() -> None:
    for hexed in NOT_THE_ONE_FORM.values():
        with pytest.raises(Malformed) as caught:
            strict_cbor.decode(bytes.fromhex(hexed), max_bytes=MUCH)
        assert not any(
            letter.isdigit()
            for letter in str(caught.value).replace("64 bits", "").replace("UTF-8", "")
        )
