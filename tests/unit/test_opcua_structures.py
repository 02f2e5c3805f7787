"""Bytes of structures, against a plain encoder, and against nonsense."""

import struct
from typing import Any

import pytest
from asyncua import ua
from hypothesis import given
from hypothesis import strategies as st

from protocols.drivers.opcua.parts import pick
from protocols.drivers.opcua.steps import parse_part
from protocols.drivers.opcua.structures import Field, Layout, Typed, decode

T = ua.VariantType
FORMATS = {
    T.Boolean: "?",
    T.SByte: "b",
    T.Byte: "B",
    T.Int16: "h",
    T.UInt16: "H",
    T.Int32: "i",
    T.UInt32: "I",
    T.Int64: "q",
    T.UInt64: "Q",
    T.Float: "f",
    T.Double: "d",
    T.String: "",
}
MARK: ua.NodeId = ua.NodeId(ua.Int32(9), ua.Int16(1))
STRUCTURE: Any = ua.ExtensionObject
VARIANT: Any = ua.Variant


def scalars(kind: ua.VariantType) -> st.SearchStrategy[Any]:
    if kind is T.String:
        return st.none() | st.text(st.characters(codec="utf-8"), max_size=5)
    if kind is T.Boolean:
        return st.booleans()
    if kind in (T.Float, T.Double):
        return st.floats(width=32, allow_nan=False)
    bits = 8 * struct.calcsize(FORMATS[kind])
    low = -(2 ** (bits - 1)) if FORMATS[kind].islower() else 0
    return st.integers(low, low + 2**bits - 1)


def put(kind: ua.VariantType | Layout, value: Any) -> bytes:
    if isinstance(kind, Layout):
        return encode(kind, value)
    if kind is T.String:
        data = None if value is None else value.encode()
        return struct.pack("<i", -1 if data is None else len(data)) + (data or b"")
    return struct.pack(f"<{FORMATS[kind]}", value)


def encode(layout: Layout, values: dict[str, Any]) -> bytes:
    """Write values as Part 6 of the standard says, the plain way."""
    if layout.union:
        for number, field in enumerate(layout.fields, 1):
            if field.name in values:
                return struct.pack("<I", number) + put_field(field, values[field.name])
        return struct.pack("<I", 0)
    optional = [field.name for field in layout.fields if field.optional]
    mask = sum(1 << at for at, name in enumerate(optional) if name in values)
    head = struct.pack("<I", mask) if layout.optional else b""
    return head + b"".join(
        put_field(field, values[field.name]) for field in layout.fields if field.name in values
    )


def put_field(field: Field, value: Any) -> bytes:
    if field.rank < 1:
        return put(field.kind, value)
    if field.rank == 1:
        return struct.pack("<i", len(value)) + b"".join(put(field.kind, one) for one in value)
    rows, columns = len(value), len(value[0])
    flat = b"".join(put(field.kind, one) for row in value for one in row)
    return struct.pack("<iii", 2, rows, columns) + flat


@st.composite
def layouts(draw: st.DrawFn, depth: int = 0) -> Layout:
    union = draw(st.booleans())
    optional = not union and draw(st.booleans())
    kinds = st.sampled_from(sorted(FORMATS, key=lambda kind: kind.name))
    kind = kinds if depth > 1 else kinds | layouts(depth + 1)
    fields = [
        Field(
            f"f{at}",
            draw(kind),
            draw(st.sampled_from([-1, -1, 1, 2])),
            optional and draw(st.booleans()),
        )
        for at in range(draw(st.integers(1, 4)))
    ]
    return Layout(MARK, tuple(fields), union, optional)


def values_of(kind: ua.VariantType | Layout) -> st.SearchStrategy[Any]:
    return filled(kind) if isinstance(kind, Layout) else scalars(kind)


@st.composite
def filled(draw: st.DrawFn, layout: Layout) -> dict[str, Any]:
    chosen = list(layout.fields)
    if layout.union:
        chosen = draw(st.lists(st.sampled_from(chosen), max_size=1))
    values: dict[str, Any] = {}
    for field in chosen:
        if field.optional and draw(st.booleans()):
            continue
        one = values_of(field.kind)
        if field.rank == 1:
            one = st.lists(one, max_size=3)
        elif field.rank == 2:
            width = draw(st.integers(1, 3))
            row = st.lists(one, min_size=width, max_size=width)
            one = st.lists(row, min_size=1, max_size=2)
        values[field.name] = draw(one)
    return values


@st.composite
def cases(draw: st.DrawFn) -> tuple[Layout, dict[str, Any]]:
    layout = draw(layouts())
    return layout, draw(filled(layout))


def plain(value: Any) -> Any:
    """Take the types away."""
    if isinstance(value, Typed):
        return plain(value.value)
    if isinstance(value, dict):
        return {name: plain(one) for name, one in value.items()}
    return [plain(one) for one in value] if isinstance(value, list) else value


@given(cases())
def test_what_was_written_is_read(case: tuple[Layout, dict[str, Any]]) -> None:
    layout, values = case
    assert plain(decode(layout, encode(layout, values))) == values


@given(cases(), st.integers(1, 60))
def test_bytes_that_are_cut_off_are_never_read_as_something(
    case: tuple[Layout, dict[str, Any]], cut: int
) -> None:
    layout, values = case
    body = encode(layout, values)
    with pytest.raises(Exception):  # noqa: B017, PT011 - any kind is the promise
        decode(layout, body[: max(len(body) - cut, 0)] if body else b"\0")


@given(layouts(), st.binary(max_size=400))
def test_nonsense_ends_soon_in_values_or_in_an_exception(layout: Layout, body: bytes) -> None:
    try:
        fields = decode(layout, body)
    except Exception:  # noqa: BLE001 - any kind is the promise
        return
    assert count(fields) <= 8 * len(body) + 8 * len(layout.fields)


def count(value: Any) -> int:
    """Count everything that was made."""
    if isinstance(value, Typed):
        return count(value.value)
    if isinstance(value, dict):
        return 1 + sum(count(one) for one in value.values())
    return 1 + sum(count(one) for one in value) if isinstance(value, list) else 1


@pytest.mark.parametrize("length", [2**31 - 1, 10_000_000, -2, -4])
def test_a_length_that_cannot_be_does_not_make_us_wait(length: int) -> None:
    texts = Layout(MARK, (Field("texts", T.String, 1, False),), False, False)
    body = struct.pack("<i", length) + b"\xfc\xff\xff\xff" * 10
    with pytest.raises(Exception):  # noqa: B017, PT011 - any kind is the promise
        decode(texts, body)


INNER = Layout(MARK, (Field("Load", T.Double, -1, False),), False, False)
OUTER = Layout(
    MARK, (Field("Axes", INNER, 1, False), Field("Count", T.UInt16, -1, False)), False, False
)
VALUES = {"Axes": [{"Load": 0.5}, {"Load": 1.5}], "Count": 7}


@pytest.mark.parametrize(
    ("part", "expected", "value"),
    [
        ("Axes[1].Load", T.Double, 1.5),
        ("Count", T.UInt16, 7),
        ("Count", T.UInt32, None),
        ("Axes[2].Load", T.Double, None),
        ("Axes[0]", T.Double, None),
        ("Axes.Load", T.Double, None),
        ("Count[0]", T.UInt16, None),
        ("Other", T.UInt16, None),
    ],
)
def test_a_part_is_the_scalar_it_names_or_nothing(
    part: str, expected: ua.VariantType, value: Any
) -> None:
    variant = VARIANT(STRUCTURE(TypeId=MARK, Body=encode(OUTER, VALUES)), T.ExtensionObject)
    assert pick(variant, parse_part(part), expected, {MARK: OUTER}) == value
    assert pick(variant, parse_part(part), expected, {}) is None


def test_a_field_of_a_known_class_must_be_of_the_kind_of_number_that_is_declared() -> None:
    known = VARIANT(ua.Range(Low=ua.Double(1.5), High=ua.Double(2.5)), T.ExtensionObject)
    assert pick(known, ("High",), T.Double, {}) == 2.5
    assert pick(known, ("High",), T.Int32, {}) is None
    assert pick(known, ("High",), T.Boolean, {}) is None
    assert pick(known, ("__class__",), T.Double, {}) is None
