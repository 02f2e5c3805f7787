"""How the samples of a notification become frames."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from protocols.drivers.opcua.assembly import Assembler
from protocols.drivers.opcua.columns import NO_TIME
from protocols.drivers.opcua.notification import Notification, Samples
from protocols.drivers.opcua.point import OpcuaPoint
from protocols.frame import Frame, Quality

NOW_US = 1_770_000_000_000_000
POINTS = [OpcuaPoint(id=f"p{at}", address=f"i={at}", type="Int32") for at in range(3000)]


def samples(column: list[int], raw: list[int], time_us: list[int] | None = None) -> Samples:
    return Samples(
        np.array(column, np.int32),
        np.array(time_us or [NOW_US] * len(column), np.int64),
        np.zeros(len(column), np.uint32),
        np.array(raw, np.int64),
        np.ones(len(column), np.bool_),
    )


def frames_of(integers: Samples, assembler: Assembler | None = None) -> list[Frame]:
    maker = assembler or Assembler("press", POINTS)
    empty = samples([], [])
    return list(maker.frames(Notification(integers, empty, frozenset()), NOW_US * 1000))


def unpacked(frames: list[Frame]) -> dict[int, list[int]]:
    got: dict[int, list[int]] = {}
    for frame in frames:
        for place, column in enumerate(frame.columns.tolist()):
            present = frame.quality[:, place] != Quality.ABSENT
            # The k-th change stands in row k, so absent cells can only lie below.
            assert np.all(np.diff(present.astype(np.int8)) <= 0)
            assert column not in got
            got[column] = frame.values[present, place].tolist()
    return got


@given(st.lists(st.integers(0, 40), min_size=1, max_size=200))
def test_every_change_keeps_its_point_and_its_order(column: list[int]) -> None:
    raw = list(range(len(column)))
    expected: dict[int, list[int]] = {}
    for at, number in zip(column, raw, strict=True):
        expected.setdefault(at, []).append(number)
    assembler = Assembler("press", POINTS[:41])
    assert unpacked(frames_of(samples(column, raw), assembler)) == expected


def test_one_fast_point_among_thousands_does_not_blow_the_frames_up() -> None:
    column = [*range(3000), *[7] * 5000]
    frames = frames_of(samples(column, list(range(len(column)))))
    assert sum(frame.samples for frame in frames) == len(column)
    assert sum(frame.values.size for frame in frames) <= 2 * len(column)
    assert unpacked(frames)[7] == [7, *range(3000, 8000)]


def test_times_never_fall_within_a_column_and_corrections_are_counted() -> None:
    assembler = Assembler("press", POINTS)
    times = [NOW_US, NOW_US - 5, NOW_US + 3, NO_TIME, NOW_US - 9]
    (frame,) = frames_of(samples([0, 0, 0, 1, 2], [1, 2, 3, 4, 5], times), assembler)
    assert frame.time.T.tolist() == [
        [NOW_US * 1000, NOW_US * 1000, NOW_US * 1000 + 3000],
        [NOW_US * 1000] * 3,
        [NOW_US * 1000 - 9000] * 3,
    ]
    assert assembler.counts.backward_times == 1
    assert assembler.counts.absurd_times == 0


def test_what_the_server_dropped_is_counted_and_the_sample_stays_good() -> None:
    assembler = Assembler("press", POINTS)
    integers = samples([0, 0, 1], [1, 2, 3])
    # Good with info type DataValue and the overflow bit; the bit alone means nothing.
    integers.status[:] = [0x0480, 0x0080, 0x0400]
    (frame,) = frames_of(integers, assembler)
    assert assembler.counts.overflows == 1
    assert set(frame.quality[frame.quality != Quality.ABSENT].tolist()) == {Quality.GOOD}
