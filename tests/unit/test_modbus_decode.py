"""Decoding registers: exact numbers on their decimal grid, or BAD; nothing in between."""

import math
import struct
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocols.drivers import read_devices
from protocols.drivers.modbus.config import Config
from protocols.drivers.modbus.decode import Decoder
from protocols.drivers.modbus.image import Image
from protocols.drivers.modbus.point import WORDS, ModbusPoint
from protocols.errors import ConfigError
from protocols.frame import Quality

ORDERS = ("ABCD", "CDAB", "BADC", "DCBA")
FORMATS = {
    "int16": ">h",
    "uint16": ">H",
    "int32": ">i",
    "uint32": ">I",
    "float32": ">f",
    "int64": ">q",
    "uint64": ">Q",
    "float64": ">d",
}
BITS = {kind: 16 * words for kind, words in WORDS.items()}
LARGEST = 1 << 53
GOOD, BAD = int(Quality.GOOD), int(Quality.BAD)


def laid_out(data: bytes, order: str) -> list[int]:
    """Return the registers in which a device of that order keeps a big-endian value."""
    words = [data[at : at + 2] for at in range(0, len(data), 2)]
    if order in {"CDAB", "DCBA"}:
        words.reverse()
    if order in {"BADC", "DCBA"}:
        words = [word[::-1] for word in words]
    return [int.from_bytes(word, "big") for word in words]


def points_of(*fields: dict[str, Any]) -> list[ModbusPoint]:
    """Return points one behind the other in the holding registers."""
    found, first = [], 0
    for at, field in enumerate(fields):
        found.append(
            ModbusPoint.model_validate({"id": f"p{at}", "address": f"holding:{first}", **field})
        )
        first += found[-1].words
    return found


def decode(
    points: list[ModbusPoint], rows: list[list[int]], order: str = "ABCD"
) -> list[list[tuple[int | float, int]]]:
    """Return (value, quality) of every point in every row."""
    decoder = Decoder(points, Image(points, 8), order)
    integers, floats, integer_quality, float_quality = decoder.decode(np.array(rows, np.uint16))
    found: list[list[tuple[int | float, int]]] = [[(0, -1)] * len(points) for _ in rows]
    for row in range(len(rows)):
        for at, column in enumerate(decoder.integer_columns.tolist()):
            found[row][column] = (int(integers[row, at]), int(integer_quality[row, at]))
        for at, column in enumerate(decoder.float_columns.tolist()):
            found[row][column] = (float(floats[row, at]), int(float_quality[row, at]))
    return found


def one(kind: str, data: bytes, order: str = "ABCD", **field: Any) -> tuple[int | float, int]:
    points = points_of({"type": kind, **field})
    return decode(points, [laid_out(data, order)], order)[0][0]


def whole(kind: str, value: int, **field: Any) -> tuple[int | float, int]:
    return one(kind, struct.pack(FORMATS[kind], value), **field)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("kind", sorted(WORDS))
def test_every_type_is_read_in_every_byte_order(kind: str, order: str) -> None:
    """Each byte of the value names its own place, so that no two can be mistaken."""
    data = bytes(range(1, 2 * WORDS[kind] + 1))
    if BITS[kind] == 64 and not kind.startswith("float"):
        data = b"\x00" + data[1:]
        data = b"\x00\x01" + data[2:]
    (wanted,) = struct.unpack(FORMATS[kind], data)
    assert one(kind, data, order) == (wanted, GOOD)


@pytest.mark.parametrize("order", ORDERS)
def test_all_types_side_by_side_are_not_mixed_up(order: str) -> None:
    kinds = [kind for kind in sorted(WORDS) for _ in range(3)]
    values: list[float] = [
        float(10 * at + 1.5) if kind.startswith("float") else 1000 + at
        for at, kind in enumerate(kinds)
    ]
    points = points_of(*[{"type": kind} for kind in kinds])
    rows = []
    for row in range(4):
        registers: list[int] = []
        for kind, value in zip(kinds, values, strict=True):
            written = value + row
            data = struct.pack(FORMATS[kind], written)
            registers += laid_out(data, order)
        rows.append(registers)
    found = decode(points, rows, order)
    for row in range(4):
        assert found[row] == [(value + row, GOOD) for value in values]


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("int16", -32_768),
        ("int16", 32_767),
        ("uint16", 65_535),
        ("int32", -(1 << 31)),
        ("uint32", (1 << 32) - 1),
        ("int64", LARGEST),
        ("int64", -LARGEST),
        ("uint64", LARGEST),
        ("uint64", 0),
        ("int64", -1),
    ],
)
def test_the_extremes_of_integers_are_exact(kind: str, value: int) -> None:
    assert whole(kind, value) == (value, GOOD)


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("uint64", LARGEST + 1),
        ("uint64", (1 << 63) - 1),
        ("uint64", 1 << 63),
        ("uint64", (1 << 64) - 1),
        ("int64", LARGEST + 1),
        ("int64", -LARGEST - 1),
        ("int64", -(1 << 63)),
        ("int64", (1 << 63) - 1),
    ],
)
def test_an_integer_too_large_to_be_exact_is_bad(kind: str, value: int) -> None:
    assert whole(kind, value) == (0, BAD)


@pytest.mark.parametrize(("value", "quality"), [(LARGEST // 25, GOOD), (LARGEST // 25 + 1, BAD)])
def test_the_bound_holds_after_scaling(value: int, quality: int) -> None:
    found, judged = whole("uint64", value, scale="0.25")
    assert judged == quality
    assert found == (25 * value if quality == GOOD else 0)


numbers = st.decimals(-1000, 1000, allow_nan=False, allow_infinity=False, places=4)


@settings(deadline=None, max_examples=150)
@given(st.data(), numbers.filter(bool), numbers)
def test_integers_are_scaled_exactly(data: Any, scale: Decimal, offset: Decimal) -> None:
    kind = data.draw(st.sampled_from([k for k in WORDS if not k.startswith("float")]))
    bits, signed = BITS[kind], not kind.startswith("u")
    low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)
    raw = data.draw(st.integers(low, high) | st.integers(max(low, -9999), min(high, 9999)))
    (point,) = points_of({"type": kind, "scale": str(scale), "offset": str(offset)})
    found, quality = whole(kind, raw, scale=str(scale), offset=str(offset))
    exact = Fraction(raw) * Fraction(scale) + Fraction(offset)
    if quality == GOOD:
        assert Fraction(int(found)) * Fraction(10) ** point.grid_exponent() == exact
        assert abs(found) <= LARGEST
    else:
        on_grid = abs(exact / Fraction(10) ** point.grid_exponent())
        assert on_grid > LARGEST - 2 * abs(Fraction(offset) / Fraction(10) ** point.grid_exponent())


@pytest.mark.parametrize("kind", ["float32", "float64"])
@pytest.mark.parametrize("value", [math.nan, -math.nan, math.inf, -math.inf])
def test_what_is_no_number_is_bad(kind: str, value: float) -> None:
    assert one(kind, struct.pack(FORMATS[kind], value)) == (0.0, BAD)


@pytest.mark.parametrize(
    "bits", ["7fc00000", "ffc00000", "7f800001", "7fffffff", "ffffffff", "7f800000", "ff800000"]
)
def test_every_kind_of_not_a_number_is_bad(bits: str) -> None:
    assert one("float32", bytes.fromhex(bits)) == (0.0, BAD)


def test_a_number_that_overflows_by_scaling_is_bad() -> None:
    data = struct.pack(">d", 1e308)
    assert one("float64", data, scale="1000") == (0.0, BAD)
    assert one("float64", data) == (1e308, GOOD)


def test_floats_are_scaled_as_floats() -> None:
    assert one("float32", struct.pack(">f", 1.5), scale="0.1", offset="-2") == (1.5 * 0.1 - 2, GOOD)
    assert one("float64", struct.pack(">d", 5e-324)) == (5e-324, GOOD)
    found, quality = one("float64", struct.pack(">d", -0.0))
    assert (found, quality) == (0.0, GOOD)


def test_a_bad_value_spoils_no_other() -> None:
    points = points_of(
        {"type": "float32"}, {"type": "uint64"}, {"type": "float32"}, {"type": "int16"}
    )
    good = [
        *laid_out(struct.pack(">f", 2.5), "ABCD"),
        0,
        0,
        0,
        7,
        *laid_out(struct.pack(">f", 3.5), "ABCD"),
        9,
    ]
    nan = [0x7FC0, 0, *good[2:]]
    large = [*good[:2], 0xFFFF, 0, 0, 0, *good[6:]]
    found = decode(points, [good, nan, large])
    assert found[0] == [(2.5, GOOD), (7, GOOD), (3.5, GOOD), (9, GOOD)]
    assert found[1] == [(0.0, BAD), *found[0][1:]]
    assert found[2] == [found[0][0], (0, BAD), *found[0][2:]]


def test_points_far_apart_and_in_both_tables_find_their_registers() -> None:
    fields = [("holding", 3), ("input", 3), ("holding", 500), ("input", 4), ("holding", 2)]
    points = [
        ModbusPoint.model_validate(
            {"id": f"p{at}", "address": f"{table}:{first}", "type": "uint16"}
        )
        for at, (table, first) in enumerate(fields)
    ]
    # Only what is wanted lies in a row: holding 2-3, holding 500, input 3-4.
    # Each register holds its own name: 1000 for an input, and its number.
    row = [2, 3, 500, 1003, 1004]
    assert [value for value, _ in decode(points, [row])[0]] == [3, 1003, 500, 1004, 2]


def test_overlapping_points_read_the_same_registers() -> None:
    points = [
        ModbusPoint.model_validate({"id": "a", "address": "holding:0", "type": "uint32"}),
        ModbusPoint.model_validate({"id": "b", "address": "holding:1", "type": "uint16"}),
    ]
    assert decode(points, [[1, 2]]) == [[(65_538, GOOD), (2, GOOD)]]


# Digits, bits, and values that mean "none".


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize(
    ("kind", "digits"), [("bcd16", "9041"), ("bcd32", "12345678"), ("bcd64", "0000123456789012")]
)
def test_decimal_digits_are_a_number(kind: str, digits: str, order: str) -> None:
    assert one(kind, bytes.fromhex(digits), order, scale="0.01") == (int(digits), GOOD)


@pytest.mark.parametrize("digits", ["a000", "00f0", "ffff", "000A"])
def test_what_is_no_digit_is_no_number(digits: str) -> None:
    assert one("bcd16", bytes.fromhex(digits)) == (0, BAD)


def test_the_largest_digits_that_are_exact_are_taken_and_larger_ones_are_not() -> None:
    assert one("bcd64", bytes.fromhex(f"{LARGEST:016d}")) == (LARGEST, GOOD)
    assert one("bcd64", bytes.fromhex(f"{LARGEST + 1:016d}")) == (0, BAD)


@settings(deadline=None)
@given(
    st.sampled_from([("uint16", 16), ("uint32", 32), ("uint64", 64)]),
    st.sampled_from(ORDERS),
    st.binary(min_size=8, max_size=8),
    st.integers(0, 63),
    st.integers(0, 63),
)
def test_bits_are_taken_out_of_the_value_whatever_its_order(
    kind: tuple[str, int], order: str, data: bytes, one_end: int, other_end: int
) -> None:
    name, width = kind
    low, high = sorted((one_end % width, other_end % width))
    data = data[: width // 8]
    point = ModbusPoint.model_validate(
        {"id": "p", "address": f"holding:7.{low}-{high}", "type": name}
    )
    ((found,),) = decode([point], [laid_out(data, order)], order)
    value = int.from_bytes(data, "big") >> low & (1 << high - low + 1) - 1
    assert found == ((value, GOOD) if value <= LARGEST else (0, BAD))


def test_every_bit_of_a_register_is_itself() -> None:
    points = [
        ModbusPoint.model_validate({"id": f"b{at}", "address": f"input:3.{at}", "type": "bit"})
        for at in range(16)
    ]
    rows = [[1 << at] for at in range(16)]
    found = decode(points, rows)
    for row in range(16):
        assert found[row] == [(int(at == row), GOOD) for at in range(16)]


def test_coils_and_discrete_inputs_are_themselves_in_every_order() -> None:
    points = [
        ModbusPoint.model_validate(
            {"id": f"{table}{at}", "address": f"{table}:{at}", "type": "bit"}
        )
        for table in ("coil", "discrete")
        for at in range(5)
    ]
    row = [1, 0, 0, 1, 1, 0, 1, 1, 0, 0]
    for order in ORDERS:
        assert decode(points, [row], order)[0] == [(bit, GOOD) for bit in row]


def test_a_points_own_order_counts_before_the_devices() -> None:
    data = bytes.fromhex("01020304")
    points = points_of(
        {"type": "uint32"}, {"type": "uint32", "order": "CDAB"}, {"type": "uint32", "order": "DCBA"}
    )
    row = [*laid_out(data, "BADC"), *laid_out(data, "CDAB"), *laid_out(data, "DCBA")]
    assert decode(points, [row], "BADC") == [[(0x01020304, GOOD)] * 3]


@pytest.mark.parametrize(
    ("kind", "invalid", "data", "good"),
    [
        ("uint16", [0xFFFF], b"\xff\xff", False),
        ("uint16", [0xFFFF], b"\xff\xfe", True),
        ("int16", [0x8000], b"\x80\x00", False),
        ("int16", [-32768], b"\x80\x00", False),
        ("int16", [-1, 0x7FFF], b"\x7f\xff", False),
        ("int16", [-1, 0x7FFF], b"\xff\xff", False),
        ("int16", [-1, 0x7FFF], b"\x00\x01", True),
        ("uint32", [0xFFFFFFFF], b"\xff\xff\xff\xff", False),
        ("uint64", [(1 << 64) - 1, 0], b"\x00" * 8, False),
        ("float32", [-9999.9], struct.pack(">f", -9999.9), False),
        ("float32", [-9999.9], struct.pack(">f", -9999.8), True),
        ("float64", [1e300], struct.pack(">d", 1e300), False),
        ("bcd16", [9999], b"\x99\x99", False),
    ],
)
def test_a_value_that_means_none_is_none(
    kind: str, invalid: list[float], data: bytes, good: bool
) -> None:
    points = points_of({"type": kind, "invalid": invalid}, {"type": kind})
    (row,) = decode(points, [[*laid_out(data, "ABCD")] * 2])
    assert row[0][1] == (GOOD if good else BAD)
    # Another point's meaning is its own.
    assert row[1][1] == GOOD


def test_none_is_said_by_the_whole_register_also_where_bits_are_taken_out() -> None:
    points = [
        ModbusPoint.model_validate(
            {"id": "a", "address": "holding:0.4-7", "type": "uint16", "invalid": [0xFFFF]}
        )
    ]
    assert decode(points, [[0xFFFF], [0x00F0]]) == [[(0, BAD)], [(15, GOOD)]]


ANY: list[dict[str, Any]] = [
    *[{"type": kind} for kind in sorted(WORDS)],
    *[{"type": kind} for kind in ("bcd16", "bcd32", "bcd64")],
    {"type": "uint32", "invalid": [7, 9], "scale": "-0.1", "offset": "3"},
    {"type": "float32", "order": "CDAB", "scale": "1000000000000"},
]


@settings(deadline=None, max_examples=200)
@given(st.data(), st.sampled_from(ORDERS), st.integers(1, 4))
def test_whatever_lies_in_registers_is_a_usable_number_or_bad(
    data: st.DataObject, order: str, rows: int
) -> None:
    points = points_of(*ANY)
    size = sum(point.words for point in points)
    noise = data.draw(st.binary(min_size=2 * size * rows, max_size=2 * size * rows))
    registers = np.frombuffer(noise, ">u2").reshape(rows, size).tolist()
    for row in decode(points, registers, order):
        for point, (value, quality) in zip(points, row, strict=True):
            assert quality in {GOOD, BAD}
            assert math.isfinite(value)
            if point.integer:
                assert abs(value) <= LARGEST
            if quality == BAD:
                assert value == 0


# What a technician may write.


def config(**changes: Any) -> Config:
    point = {"id": "p", "address": "holding:0", "type": "uint32", **changes.pop("point", {})}
    return Config.model_validate(
        {"id": "m", "kind": "modbus", "host": "127.0.0.1", "points": [point], **changes}
    )


@pytest.mark.parametrize(
    "address",
    [
        "holding:65535",
        "input:-1",
        "holding:65536",
        "coil:1",
        "40001",
        "holding:",
        "holding: 1",
        "holding:0x10",
    ],
)
def test_an_address_that_no_request_can_name_is_a_fault(address: str) -> None:
    with pytest.raises(ValueError, match="1 validation error"):
        config(point={"address": address})


def test_the_last_register_that_fits_is_taken() -> None:
    assert config(point={"address": "holding:65534"}).points[0].first == 65_534
    assert config(point={"address": "input:65535", "type": "int16"}).points[0].first == 65_535


@pytest.mark.parametrize(
    "scaling",
    [
        {"scale": "0.000000001", "offset": "10000000000"},
        {"scale": "1e-31"},
        {"scale": "1e31"},
        {"scale": "12345678901234567890"},
        {"scale": "9007199254740993"},
        {"offset": "1e300", "scale": "0.1"},
        {"scale": "1e-999999"},
        {"scale": "1e-999999", "offset": "1"},
    ],
    ids=str,
)
def test_a_scaling_under_which_no_value_is_exact_is_a_fault_of_the_file(
    scaling: dict[str, str],
) -> None:
    """It must be said when the file is read, not when the device is."""
    device = {
        "id": "m",
        "kind": "modbus",
        "host": "127.0.0.1",
        "points": [{"id": "p", "address": "holding:0", "type": "uint32", **scaling}],
    }
    with pytest.raises(ConfigError, match=r"points\[1\]: .*exact"):
        read_devices([device], Path("agent.toml"))


@pytest.mark.parametrize(
    "scaling",
    [
        {"scale": "0.000000001"},
        {"scale": "1e-30"},
        {"scale": "1e15"},
        {"scale": "9007199254740992"},
        {"scale": "-0.01", "offset": "1000000"},
    ],
    ids=str,
)
def test_under_any_other_scaling_a_small_value_is_exact(scaling: dict[str, str]) -> None:
    (point,) = points_of({"type": "uint32", **scaling})
    exact = Fraction(point.scale) + Fraction(point.offset)
    value, quality = whole("uint32", 1, **scaling)
    assert quality == GOOD
    assert Fraction(int(value)) * Fraction(10) ** point.grid_exponent() == exact


def test_counters_roll_over_where_their_register_does() -> None:
    def modulus(**point: Any) -> Decimal:
        return config(point=point).table().modulus[0]

    assert modulus(type="uint16") == 1 << 16
    assert modulus(type="uint32", scale="0.01") == 1 << 32
    assert modulus(type="int32") == 0
    assert modulus(type="int32", counter={"rollover": "1000000"}) == 1_000_000
    assert modulus(type="uint32", scale="0.01", counter={"rollover": "1000000"}) == 100_000_000
    assert modulus(type="float32") == 0
    assert modulus(type="float64", counter={"rollover": "9999.5"}) == Decimal("9999.5")


@pytest.mark.parametrize(
    ("point", "good"),
    [
        ({"unit": "s"}, True),
        ({"unit": "s", "scale": "0.001"}, True),
        ({"unit": "s", "scale": "0.000000001"}, True),
        ({"unit": "s", "scale": "0.0000000001"}, False),
        ({"unit": "ms"}, False),
        ({"unit": "s", "type": "float32"}, False),
    ],
)
def test_a_devices_time_is_whole_and_in_seconds(point: dict[str, Any], *, good: bool) -> None:
    if good:
        assert config(point=point, slot_time="p").table().brings_time
    else:
        with pytest.raises(ValueError, match="slot_time"):
            config(point=point, slot_time="p")
    with pytest.raises(ValueError, match="slot_time"):
        config(point=point, slot_time="q")
