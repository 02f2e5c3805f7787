"""The arithmetic of OPC-UA columns, against exact decimals."""

from decimal import Decimal, localcontext

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.drivers.opcua.grid import Grid, bits_of
from protocols.drivers.opcua.point import OpcuaPoint

RANGES = {
    "Boolean": (0, 1),
    "SByte": (-(2**7), 2**7 - 1),
    "UInt16": (0, 2**16 - 1),
    "Int32": (-(2**31), 2**31 - 1),
    "Int64": (-(2**63), 2**63 - 1),
    "UInt64": (0, 2**64 - 1),
}


def point(type_name: str, scale: Decimal, offset: Decimal) -> OpcuaPoint:
    return OpcuaPoint(id="a", address="i=1", type=type_name, scale=scale, offset=offset)


@st.composite
def readings(draw: st.DrawFn) -> tuple[OpcuaPoint, list[int]]:
    name = draw(st.sampled_from(sorted(RANGES)))
    digits, exponent = draw(st.integers(-999, 999)), draw(st.integers(-6, 6))
    scale = Decimal(digits or 1).scaleb(exponent)
    offset = Decimal(draw(st.integers(-(10**6), 10**6))).scaleb(draw(st.integers(-6, 6)))
    edges = st.sampled_from(RANGES[name])
    return point(name, scale, offset), draw(
        st.lists(st.integers(*RANGES[name]) | edges, min_size=1)
    )


@given(readings())
def test_an_integer_value_is_exact_or_marked(reading: tuple[OpcuaPoint, list[int]]) -> None:
    made, raw = reading
    values, fits = Grid([made]).integers(np.zeros(len(raw), np.int32), bits_of(raw))
    with localcontext() as context:
        context.prec = 100
        exact = [
            (number * made.scale + made.offset).scaleb(-made.grid_exponent()) for number in raw
        ]
    assert fits.tolist() == [-(2**63) <= value < 2**63 for value in exact]
    assert values.tolist() == [value if fit else 0 for value, fit in zip(exact, fits, strict=True)]


def test_columns_keep_to_their_own_points() -> None:
    points = [
        point("Int32", Decimal("0.1"), Decimal(0)),
        point("UInt64", Decimal(1), Decimal(-(2**63))),
        point("Double", Decimal(2), Decimal(1)),
    ]
    grid = Grid(points)
    values, fits = grid.integers(np.array([1, 0, 1], np.int32), bits_of([2**64 - 1, -5, 0]))
    assert values.tolist() == [2**63 - 1, -5, -(2**63)]
    assert fits.all()
    reals, finite = grid.reals(np.array([2, 2, 2], np.int32), np.array([1.5, np.nan, 1e308]))
    assert reals.tolist() == [4.0, 0.0, 0.0]
    assert finite.tolist() == [True, False, False]


@pytest.mark.parametrize("numbers", [[], [True, False], [-1, 2**63 - 1], [2**64 - 1, -(2**63), 0]])
def test_numbers_keep_their_64_bits(numbers: list[int]) -> None:
    assert [bits % 2**64 for bits in bits_of(numbers).tolist()] == [n % 2**64 for n in numbers]
