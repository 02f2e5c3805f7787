"""Recorded energy: read strictly, counted exactly, served reading by reading."""

import struct
from decimal import Decimal
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocols.errors import MillgateError
from protocols.frame import SECOND
from simulators.mbap import IllegalAddress
from simulators.plant import ROLLOVER
from simulators.recording import Recording, generate, read_recording, zone
from simulators.replay import ReplayMeter, readings

QUARTER = 900 * SECOND
SEOUL = zone("Asia/Seoul")


def write(path: Path, *rows: str, header: str = "date,Usage_kWh") -> Path:
    path.write_text("\r\n".join((header, *rows)) + "\r\n", encoding="utf-8-sig")
    return path


def day(number: int, usage: str = "1.5") -> list[str]:
    """A day of 15-minute rows as the steel plant's file writes them, midnight on the wrong day."""
    labels = [
        f"{number:02}/01/2018 {at // 4 % 24:02}:{at % 4 * 15:02},{usage}" for at in range(1, 97)
    ]
    assert labels[-1].endswith(f"00:00,{usage}")
    return labels


def read(path: Path, column: str = "Usage_kWh") -> Recording:
    return read_recording(path, column, SEOUL, QUARTER)


def test_midnight_rows_of_the_day_just_ended_are_mended_and_counted(tmp_path: Path) -> None:
    recording = read(write(tmp_path / "r.csv", *day(1), *day(2)))
    assert (len(recording.counts), recording.mended) == (192, 2)
    assert recording.first_ns == 1_514_732_400 * SECOND
    assert recording.total_kwh == Decimal(288)


def test_midnight_rows_of_the_new_day_are_right_as_they_are(tmp_path: Path) -> None:
    rows = day(1)
    rows[-1] = "02/01/2018 00:00,1.5"
    assert read(write(tmp_path / "r.csv", *rows, *day(2))).mended == 1


def test_a_byte_order_mark_and_other_columns_do_not_matter(tmp_path: Path) -> None:
    header = "x,Usage_kWh,date"
    for encoding in ("utf-8", "utf-8-sig"):
        path = tmp_path / f"{encoding}.csv"
        path.write_text(f'{header}\n"a,\nb",0.07,01/01/2018 00:15\n', encoding=encoding)
        assert read(path).counts == (7,)


@pytest.mark.parametrize(
    ("rows", "line", "says"),
    [
        (["01/01/2018 00:15,1", "01/01/2018 00:45,1"], 3, "does not follow"),
        (["01/01/2018 00:15,1", "01/01/2018 00:15,1"], 3, "does not follow"),
        (["01/01/2018 00:30,1", "01/01/2018 00:15,1"], 3, "does not follow"),
        ([*day(1), *day(3)], 98, "does not follow"),
        # A day less is right at midnight only.
        (["02/01/2018 00:15,1", "01/01/2018 00:30,1"], 3, "does not follow"),
        (["2018-01-01 00:15,1"], 2, "not a time"),
        (["1/1/2018 00:15,1"], 2, "not a time"),
        (["31/02/2018 00:15,1"], 2, "not a time"),
        (["01/01/0001 00:15,1"], 2, "not a time"),
        (["01/01/2018 00:15,1.234"], 2, "not energy"),
        (["01/01/2018 00:15,-1"], 2, "not energy"),
        (["01/01/2018 00:15,1e2"], 2, "not energy"),
        (["01/01/2018 00:15,04.07"], 2, "not energy"),
        (["01/01/2018 00:15,NaN"], 2, "not energy"),
        (["01/01/2018 00:15, 1"], 2, "not energy"),
        (["01/01/2018 00:15,１"], 2, "not energy"),
        (["01/01/2018 00:15,"], 2, "not energy"),
        (["01/01/2018 00:15"], 2, "too few or too many"),
        (["01/01/2018 00:15,1,2"], 2, "too few or too many"),
        ([""], 2, "too few or too many"),
        (["01/01/2018 00:15,1", '"01/01/2018 00:30,1'], 3, "not valid CSV"),
        ([], 1, "no rows"),
    ],
)
def test_a_row_that_is_not_right_is_one_fault_with_its_line(
    tmp_path: Path, rows: list[str], line: int, says: str
) -> None:
    path = write(tmp_path / "r.csv", *rows)
    with pytest.raises(MillgateError, match=says) as caught:
        read(path)
    assert caught.value.where == f"{path}:{line}"
    assert "\n" not in str(caught.value)


def test_two_decimals_may_be_written_with_zeros(tmp_path: Path) -> None:
    rows = ["01/01/2018 00:15,3.170000", "01/01/2018 00:30,0", "01/01/2018 00:45,0.1"]
    assert read(write(tmp_path / "r.csv", *rows)).counts == (317, 0, 10)


def test_a_misspelt_column_is_named_with_the_nearest_one(tmp_path: Path) -> None:
    path = write(tmp_path / "r.csv", *day(1))
    with pytest.raises(MillgateError, match="did you mean 'Usage_kWh'"):
        read(path, "Usage_kwh")


@pytest.mark.parametrize("header", ["date,a,a", "when,Usage_kWh", "", "date,Usage_kWh,date"])
def test_a_header_without_the_one_column_is_refused(tmp_path: Path, header: str) -> None:
    path = write(tmp_path / "r.csv", "01/01/2018 00:15,1,1", header=header)
    with pytest.raises(MillgateError, match="no single column"):
        read(path, "a" if ",a" in header else "Usage_kWh")


def test_text_in_another_encoding_is_refused_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "r.csv"
    path.write_bytes(b"date,Usage_kWh\n01/01/2018 00:15,\xff\n")
    with pytest.raises(MillgateError, match="not UTF-8") as caught:
        read(path)
    assert caught.value.where.endswith(":2")


def test_a_missing_or_huge_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MillgateError, match="cannot be read"):
        read(tmp_path / "none.csv")
    huge = tmp_path / "huge.csv"
    with huge.open("wb") as file:
        file.truncate(64 * 2**20 + 1)
    with pytest.raises(MillgateError, match="too large"):
        read(huge)


def test_labels_follow_the_clock_of_their_time_zone(tmp_path: Path) -> None:
    # Central European clocks went from 02:00 to 03:00 on 25 March 2018.
    rows = ["25/03/2018 01:45,1", "25/03/2018 03:00,1", "25/03/2018 03:15,1"]
    path = write(tmp_path / "r.csv", *rows)
    berlin = read_recording(path, "Usage_kWh", zone("Europe/Berlin"), QUARTER)
    assert len(berlin.counts) == 3
    with pytest.raises(MillgateError, match="does not follow"):
        read_recording(path, "Usage_kWh", SEOUL, QUARTER)


def test_a_moment_the_time_zone_skips_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "r.csv", "25/03/2018 02:30,1")
    with pytest.raises(MillgateError, match="no such moment"):
        read_recording(path, "Usage_kWh", zone("Europe/Berlin"), QUARTER)


@pytest.mark.parametrize("name", ["Asia/Nowhere", "+25:00", "+9", "", "../etc/passwd", "+09:60"])
def test_an_unknown_time_zone_is_refused(name: str) -> None:
    with pytest.raises(MillgateError, match="no such time zone"):
        zone(name)


def test_an_offset_is_a_time_zone(tmp_path: Path) -> None:
    path = write(tmp_path / "r.csv", *day(1))
    by_offset = [
        read_recording(path, "Usage_kWh", zone(name), QUARTER).first_ns
        for name in ("+09:00", "-09:00", "Asia/Seoul")
    ]
    assert by_offset[0] == by_offset[2] == by_offset[1] - 18 * 3600 * SECOND


@pytest.mark.parametrize("interval", [0, 1, SECOND + 1, 2 * 86_400 * SECOND])
def test_an_interval_that_is_not_whole_seconds_is_refused(tmp_path: Path, interval: int) -> None:
    path = write(tmp_path / "r.csv", *day(1))
    with pytest.raises(MillgateError, match="whole seconds"):
        read_recording(path, "Usage_kWh", SEOUL, interval)
    with pytest.raises(MillgateError, match="whole seconds"):
        generate(10, 1, SEOUL, interval)


def test_a_generated_year_follows_from_its_seed() -> None:
    year = generate(35_040, 3, SEOUL, QUARTER)
    assert len(year.counts) == 35_040
    assert year == generate(35_040, 3, SEOUL, QUARTER)
    assert year != generate(35_040, 4, SEOUL, QUARTER)
    assert generate(100, 3, SEOUL, QUARTER).counts == year.counts[:100]
    assert year.total_kwh == sum((Decimal(counts) / 100 for counts in year.counts), Decimal(0))


@pytest.mark.parametrize("rows", [0, -1, 1_000_001])
def test_a_generated_year_has_a_bounded_number_of_rows(rows: int) -> None:
    with pytest.raises(MillgateError, match="out of range"):
        generate(rows, 1, SEOUL, QUARTER)


@settings(deadline=None)
@given(
    st.lists(st.integers(0, 10**7), min_size=1, max_size=50),
    st.integers(0, ROLLOVER - 1),
)
def test_the_counter_rises_by_exactly_each_row(counts: list[int], start: int) -> None:
    recording = Recording(1_514_732_400 * SECOND, QUARTER, tuple(counts))
    served = readings(recording, start)
    assert len(served) == len(counts) + 1
    assert (served[0].energy, served[0].power) == (start, 0)
    for counted, (before, after) in zip(counts, pairwise(served), strict=True):
        assert (after.energy - before.energy) % ROLLOVER == counted
        assert after.time - before.time == 900
        assert after.remaining == before.remaining - 1
        assert after.power == counted * 40
    assert served[0].time == 1_514_732_400
    assert served[-1].remaining == 0


def test_what_does_not_fit_its_register_is_refused() -> None:
    with pytest.raises(MillgateError, match="power exceeds"):
        readings(Recording(0, SECOND, (ROLLOVER,)))
    with pytest.raises(MillgateError, match="1970 and 2106"):
        readings(Recording((ROLLOVER - 1) * SECOND, QUARTER, (1, 1)))
    with pytest.raises(MillgateError, match="1970 and 2106"):
        readings(Recording(-SECOND, QUARTER, (1,)))


def test_each_further_read_on_a_connection_moves_on_by_one_row() -> None:
    meter = ReplayMeter(readings(Recording(0, QUARTER, (1, 2, 3))))
    first = meter.opened()
    assert [energy(first(0, 8)) for _ in range(2)] == [0, 1]
    second = meter.opened()
    assert [energy(second(0, 8)) for _ in range(5)] == [1, 3, 6, 6, 6]
    assert energy(meter.opened()(0, 8)) == 6


def test_a_refused_read_moves_nothing() -> None:
    meter = ReplayMeter(readings(Recording(0, QUARTER, (1, 2, 3))))
    read_block = meter.opened()
    for first, count in ((0, 9), (8, 1), (7, 2)):
        with pytest.raises(IllegalAddress):
            read_block(first, count)
    assert energy(read_block(0, 8)) == 0


def energy(block: bytes) -> int:
    value: int = struct.unpack_from(">I", block)[0]
    return value
