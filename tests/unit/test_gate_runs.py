"""Slots that come and close together: the same leaves as when each comes and closes by itself."""

from collections.abc import Iterator

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.random import Generator, default_rng

from protocols.frame import SECOND, Frame, Quality
from security.policy.gate import Gate
from tests.unit.gate_material import T0, Clock, cells_of, counter, gate_of, point, rule, table

OWNER = table(
    [
        point("power", "power.active"),
        point("hidden", "power.active"),
        point("banded", "power.active"),
        counter("energy", rollover=1000),
        point("warmth", "temperature"),
    ],
    real=["warmth"],
    brings_time=True,
)
RULES = [
    rule(OWNER, "power", 1, step="5"),
    rule(OWNER, "hidden", 2, pseudonym_s=20),
    rule(OWNER, "banded", 3, bands=[300, 600], bands_exponent=0),
    rule(OWNER, "energy", 4),
    rule(OWNER, "warmth", 5, step="0.25"),
    rule(OWNER, "warmth", 6, step="0.01", bands=[300, 600], bands_exponent=0),
]
WHOLE, REAL = np.arange(4, dtype=np.int32), np.array([4], np.int32)
KINDS = st.sampled_from(["clean", "with gaps", "of few points"])


def run_of(rng: Generator, rows: int, kind: str) -> list[Frame]:
    """Return a frame of whole numbers and one of floats, of rows in order of time."""
    seconds = np.cumsum(rng.choice([1, 5, 9, 10, 11, 40], rows))
    time = (T0 + seconds * SECOND)[:, None]
    values = rng.integers(0, 1000, (rows, 4))
    values[:, 3] = np.cumsum(rng.choice([0, 3, 400], rows)) % 1000
    warmth = rng.integers(0, 8000, (rows, 1)) / 8
    codes = [Quality.GOOD] * 8 + [Quality.UNCERTAIN]
    if kind == "with gaps":
        codes += [Quality.BAD, Quality.ABSENT, Quality.LOST]
    quality = rng.choice(np.array(codes, np.uint8), (rows, 5))
    columns = WHOLE if kind != "of few points" else WHOLE[1:]
    return [
        Frame("dev", columns, time, values[:, columns], quality[:, columns]),
        Frame("dev", REAL, time, warmth, quality[:, 4:], int(time[-1, 0])),
    ]


def one_by_one(frames: list[Frame]) -> Iterator[list[Frame]]:
    """Yield the same rows, each in frames of its own."""
    for row in range(len(frames[0].values)):
        part = slice(row, row + 1)
        yield [
            Frame(
                one.device,
                one.columns,
                one.time[part],
                one.values[part],
                one.quality[part],
                None if one.clock is None else int(one.time[row, 0]),
            )
            for one in frames
        ]


def fed(gate: Gate, frames: list[Frame]) -> None:
    for one in frames:
        gate.feed(one)
    gate.advance()


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 90), KINDS)
def test_slots_that_come_together_leave_as_they_do_one_by_one(
    seed: int, rows: int, kind: str
) -> None:
    frames = run_of(default_rng(seed), rows, kind)
    clock = Clock(86400)
    together, apart = (gate_of(OWNER, RULES, clock) for _ in range(2))
    # From here on there is something to hold, whatever comes first.
    first = Frame("dev", WHOLE, np.array([[T0]]), np.full((1, 4), 7), np.zeros((1, 4), np.uint8))
    for gate in (together, apart):
        gate.feed(first)
    fed(together, frames)
    for parts in one_by_one(frames):
        fed(apart, parts)
    assert together.memory() == apart.memory()
    assert together.accounts["dev"].balanced
    assert cells_of(together.take()) == cells_of(apart.take())
