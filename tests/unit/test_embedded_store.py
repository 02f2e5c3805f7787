"""What is special about the embedded store: a file that outlives crashes, and bounded work."""

import os
import signal
import sqlite3
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aggregator.storable import FieldType, text_array
from aggregator.stores import RowSpan, SeriesBlock, SeriesKey, StoreRefused, StoreUnavailable
from aggregator.stores.embedded import Config, Store, chunks, pending
from aggregator.stores.embedded.codec import Codec, Damaged
from aggregator.stores.embedded.rows import Column, Rows

ROOT = Path(__file__).parents[2]
T0 = 1_700_000_100 * 10**9
KEY = SeriesKey.of("m", {"a": "1"})


def block(key: SeriesKey, times: list[int], **fields: list[Any]) -> SeriesBlock:
    columns = {
        name: values if isinstance(values[0], str) else np.array(values)
        for name, values in fields.items()
    }
    return SeriesBlock(key, np.array(times, np.int64) + T0, columns)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store(Config(path=tmp_path), "b")
    yield opened
    opened.close()


@pytest.fixture
def tight(monkeypatch: pytest.MonkeyPatch) -> None:
    """Short chunks and little room for pending parts, so that few rows go all the ways."""
    monkeypatch.setattr(chunks, "FULL", 8)
    monkeypatch.setattr(pending, "LARGEST", 4000)


def file_of(tmp_path: Path) -> Path:
    return tmp_path / "b.series"


# --- crashes and damage -----------------------------------------------------------------------

_WRITER = """
import sys
from pathlib import Path
import numpy as np
from aggregator.stores import RowSpan, SeriesBlock, SeriesKey
from aggregator.stores.embedded import Config, Store, pending
pending.LARGEST = 30_000
store = Store(Config(path=Path(sys.argv[1])), "b")
keys = [SeriesKey.of("m", {"a": str(at)}) for at in range(20)]
for number in range(10**6):
    rows = 300 if number % 7 == 0 else 1
    time = np.arange(number * 1000, number * 1000 + rows)
    store.write([SeriesBlock(key, time, {"x": np.full(rows, float(number))}) for key in keys])
    print(number, flush=True)
"""


@pytest.mark.parametrize("writes", [1, 40, 111])
def test_a_writer_killed_in_the_middle_loses_nothing_it_was_told_is_written(
    tmp_path: Path, writes: int
) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", _WRITER, tmp_path], stdout=subprocess.PIPE, cwd=ROOT, text=True
    ) as writer:
        assert writer.stdout is not None
        for _ in range(writes):
            assert writer.stdout.readline()
        os.kill(writer.pid, signal.SIGKILL)
        told = writes + len(writer.stdout.readlines())
    store = Store(Config(path=tmp_path), "b")
    for at in (0, 19):
        found = store.query(SeriesKey.of("m", {"a": str(at)}), ["x"], 0, told * 1000)
        values = found.fields["x"]
        assert isinstance(values, np.ndarray)
        rows = Counter(values.astype(int).tolist())
        assert rows == {number: 300 if number % 7 == 0 else 1 for number in range(told)}
    # The write that was cut short is there for all series, or for none.
    assert store.count("m") % 20 == 0
    store.write([block(KEY, [0], x=[1.0])])
    store.close()
    with sqlite3.connect(file_of(tmp_path)) as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    db.close()


def test_every_write_is_synced_before_it_returns(store: Store) -> None:
    store.write([block(KEY, [0], x=[1.0])])
    db = store._file._db
    assert db is not None
    assert db.execute("PRAGMA synchronous").fetchone() == (2,)
    assert db.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_a_file_that_is_something_else_is_left_alone(tmp_path: Path) -> None:
    with sqlite3.connect(file_of(tmp_path)) as db:
        db.execute("CREATE TABLE theirs (x)")
    db.close()
    before = file_of(tmp_path).read_bytes()
    store = Store(Config(path=tmp_path), "b")
    for call in (store.series, lambda: store.write([block(KEY, [0], x=[1.0])])):
        with pytest.raises(StoreRefused, match=r"b\.series"):
            call()
    assert file_of(tmp_path).read_bytes() == before


def test_a_file_of_a_later_version_is_refused(tmp_path: Path, store: Store) -> None:
    store.write([block(KEY, [0], x=[1.0])])
    store.close()
    with sqlite3.connect(file_of(tmp_path)) as db:
        db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(StoreRefused, match="ledger"):
        store.series()


def test_a_file_of_the_version_before_goes_on_and_loses_what_was_removed_before(
    tmp_path: Path, store: Store
) -> None:
    """Files of version 1 kept old copies of pieces in what these had freed."""
    store.write([block(KEY, [0], x=[1.0])])
    db = store._file._db
    assert db is not None
    db.execute("PRAGMA secure_delete = OFF")
    store.write([block(KEY, list(range(1, 3000)), name=[f"word {at}" for at in range(1, 3000)])])
    (old,) = db.execute("SELECT data FROM chunk ORDER BY id DESC LIMIT 1").fetchone()
    store.delete_rows([RowSpan(KEY, T0 + 1, T0 + 3000)])
    db.execute("DROP TABLE rewritten")
    db.execute("PRAGMA user_version = 1")
    store.close()
    assert old[-40:] in file_of(tmp_path).read_bytes()
    assert rows_of(store) == {0: 1.0}
    store.overwrite_removed()
    assert old[-40:] not in file_of(tmp_path).read_bytes()
    store.write([block(KEY, [5], x=[2.0])])
    store.close()
    assert rows_of(store) == {0: 1.0, 5: 2.0}


def rows_of(store: Store) -> dict[int, float]:
    """Return x of the series by time."""
    found = store.query(KEY, ["x"], 0, 2**62)
    return dict(zip((found.time - T0).tolist(), map(float, found.fields["x"]), strict=True))


def test_while_somebody_reads_what_was_removed_it_is_told_and_can_be_tried_again(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aggregator.stores.embedded.file._BUSY_SECONDS", 0.01)
    store.write([block(KEY, [0, 1], x=[1.0, 2.0])])
    reader = Store(Config(path=tmp_path), "b")
    with reader._reading():
        store.delete_rows([RowSpan(KEY, T0, T0 + 1)])
        with pytest.raises(StoreUnavailable, match="reading"):
            store.overwrite_removed()
    store.overwrite_removed()
    reader.close()
    assert rows_of(store) == {1: 2.0}


def test_a_file_of_other_bytes_is_called_damaged(tmp_path: Path, store: Store) -> None:
    file_of(tmp_path).write_bytes(b"not a database" * 1000)
    with pytest.raises(StoreUnavailable, match="damaged"):
        store.series()
    with pytest.raises(StoreUnavailable, match="ledger"):
        store.write([block(KEY, [0], x=[1.0])])


def test_once_a_damaged_file_is_moved_away_the_store_goes_on(tmp_path: Path, store: Store) -> None:
    others = [SeriesKey.of("m", {"a": name}) for name in "xyz"]
    store.write([block(key, [0], x=[1.0]) for key in (*others, KEY)])
    with sqlite3.connect(file_of(tmp_path)) as db:
        db.execute("UPDATE pending SET data = x'00'")
    db.close()
    store._forget()
    with pytest.raises(StoreUnavailable):
        store.newest(KEY)
    for path in tmp_path.iterdir():
        path.rename(path.with_name(f"moved.{path.name}"))
    store.write([block(KEY, [5], x=[2.0])])
    again = Store(Config(path=tmp_path), "b")
    assert again.series() == [KEY]
    assert list(again.newest(KEY).fields["x"]) == [2.0]
    again.close()


@pytest.mark.parametrize("table", ["chunk", "pending"])
def test_a_damaged_block_is_called_damaged_and_never_read_as_values(
    tmp_path: Path, store: Store, table: str
) -> None:
    times = list(range(2000 if table == "chunk" else 1))
    store.write([block(KEY, times, x=[0.5] * len(times))])
    store.close()
    with sqlite3.connect(file_of(tmp_path)) as db:
        (data,) = db.execute(f"SELECT data FROM {table}").fetchone()  # noqa: S608  # a word of ours
        spoilt = data[:-9] + bytes([data[-9] ^ 1]) + data[-8:]
        db.execute(f"UPDATE {table} SET data = ?", (spoilt,))  # noqa: S608  # a word of ours
    db.close()
    with pytest.raises(StoreUnavailable, match="damaged"):
        store.query(KEY, ["x"], 0, 2**62)


def test_a_full_disk_is_told_and_the_same_write_works_when_there_is_room(store: Store) -> None:
    store.write([block(KEY, [0], x=[1.0])])
    rng = np.random.default_rng(1)
    large = block(KEY, list(range(100_000)), x=rng.random(100_000).tolist())
    db = store._file._db
    assert db is not None
    db.execute("PRAGMA max_page_count = 20")
    with pytest.raises(StoreUnavailable, match="full"):
        store.write([large])
    assert store.count("m") == 1
    store.write([large])
    assert store.count("m") == 100_000


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StoreUnavailable, match="folder"):
        Store(Config(path=tmp_path / "file" / "series"), "b").series()


def test_a_second_writer_waits_its_turn_and_is_told_when_it_takes_too_long(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.write([block(KEY, [0], x=[1.0])])
    monkeypatch.setattr("aggregator.stores.embedded.file._BUSY_SECONDS", 0.05)
    other = Store(Config(path=tmp_path), "b")
    with store._file.writing():
        assert other.count("m") == 1
        with pytest.raises(StoreUnavailable, match="process"):
            other.write([block(KEY, [1], x=[1.0])])
    other.write([block(KEY, [1], x=[1.0])])
    assert store.count("m") == 2
    other.close()


def test_readers_see_whole_writes_only_while_one_writes(
    tmp_path: Path, store: Store, tight: None
) -> None:
    keys = [SeriesKey.of("m", {"a": str(at)}) for at in range(5)]
    store.write([block(key, [0], x=[0.0]) for key in keys])
    done = threading.Event()
    faults: list[str] = []

    def watch() -> None:
        reader = Store(Config(path=tmp_path), "b")
        while not done.is_set():
            # The count is one snapshot: of a write that is half there it would be uneven.
            if reader.count("m") % len(keys):
                faults.append("half a write")
        reader.close()

    watcher = threading.Thread(target=watch)
    watcher.start()
    for step in range(1, 150):
        store.write([block(key, [step], x=[float(step)]) for key in keys])
    done.set()
    watcher.join(30)
    assert not faults
    assert store.count("m") == 750


# --- rows -----------------------------------------------------------------------------------


@pytest.mark.parametrize("rows", [1, 600])
def test_a_row_written_again_is_replaced_as_a_whole(store: Store, rows: int) -> None:
    times = list(range(rows))
    store.write([block(KEY, times, x=[1.0] * rows, word=["w"] * rows)])
    store.write([block(KEY, times, x=[2.0] * rows)])
    assert list(store.query(KEY, ["x", "word"], 0, 2**62).fields) == ["x"]
    assert list(store.newest(KEY).fields) == ["x"]


def test_whatever_the_order_of_small_and_large_writes_the_later_one_wins(
    store: Store, tight: None
) -> None:
    rng = np.random.default_rng(7)
    model: dict[int, float] = {}
    for number in range(120):
        count = int(rng.choice([1, 3, 40, 300]))
        times = sorted(rng.choice(900, count, replace=False).tolist())
        store.write([block(KEY, times, x=[float(number)] * count)])
        model |= dict.fromkeys(times, float(number))
    found = store.query(KEY, ["x"], 0, 2**62)
    assert dict(zip((found.time - T0).tolist(), found.fields["x"], strict=True)) == model
    assert store.count("m") == len(model)
    check_chunks(store, full=8)


@pytest.mark.parametrize("order", ["forwards", "backwards", "shuffled"])
def test_chunks_stay_apart_and_well_filled_however_rows_come(
    store: Store, tight: None, order: str
) -> None:
    times = list(range(0, 4000, 10))
    if order == "backwards":
        times.reverse()
    if order == "shuffled":
        np.random.default_rng(3).shuffle(times)
    for time in times:
        store.write([block(KEY, [time], x=[float(time)])])
    store.write([block(KEY, [5000 + at for at in range(300)], x=[0.0] * 300)])
    filled = check_chunks(store, full=8)
    assert sum(filled) / len(filled) >= 4
    assert store.count("m") == 700


def check_chunks(store: Store, full: int) -> list[int]:
    """Check that a series' chunks do not overlap and none is too long; return their lengths."""
    with store._file.reading() as db:
        pieces = db.execute("SELECT start, last, rows FROM chunk ORDER BY series, start").fetchall()
    assert all(start <= last for start, last, _ in pieces)
    assert all(before[1] < after[0] for before, after in pairwise(pieces))
    assert max(rows for _, _, rows in pieces) <= full
    return [rows for _, _, rows in pieces]


def test_live_writes_rewrite_each_row_a_bounded_number_of_times(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pending, "LARGEST", 100_000)
    packed: list[int] = []
    pack = Codec.pack

    def counting(codec: Codec, rows: Rows) -> bytes:
        packed.append(len(rows))
        return pack(codec, rows)

    monkeypatch.setattr(Codec, "pack", counting)
    keys = [SeriesKey.of("m", {"a": str(at)}) for at in range(100)]
    per_half = []
    for half in range(2):
        packed.clear()
        for step in range(half * 300, half * 300 + 300):
            store.write([block(key, [step], x=[1.0]) for key in keys])
        per_half.append(sum(packed) / (300 * len(keys)))
    # 600 rows per series: a chunk rewritten at every write would have cost 450 for each row.
    assert max(per_half) < 20


def test_the_parts_a_reader_has_to_look_through_are_bounded(store: Store) -> None:
    for step in range(700):
        store.write([block(KEY, [step], x=[1.0])])
    with store._file.reading() as db:
        (parts,) = db.execute("SELECT count(*) FROM pending").fetchone()
    assert parts <= 3 * 15
    assert store.count("m") == 700


def test_long_texts_make_short_chunks(store: Store) -> None:
    words = [chr(0x4E00 + at) * 16_000 for at in range(1500)]
    store.write([block(KEY, list(range(1500)), word=words)])
    store.write([block(KEY, [9000], word=["w" * 16_000])])
    assert check_chunks(store, full=1024) == [512, 512, 476]
    assert store.query(KEY, ["word"], 0, 2**62).fields["word"] == [*words, "w" * 16_000]


def test_a_refused_write_does_not_settle_the_types_of_its_other_fields(store: Store) -> None:
    store.write([block(KEY, [0], x=[1.0])])
    with pytest.raises(StoreRefused, match=r"m\.x"):
        store.write([block(KEY, [1], x=["text"], y=["text"])])
    store.write([block(KEY, [2], y=[1.0])])
    assert store.count("m") == 2


def test_deleted_rows_leave_no_trace_in_the_tables(store: Store) -> None:
    for measurement in ("gone", "kept"):
        key = SeriesKey.of(measurement, {"a": "1"})
        store.write([block(key, list(range(2000)), x=[1.0] * 2000)])
        store.write([block(key, [9000], x=[1.0])])
    store.delete("gone")
    with store._file.reading() as db:
        for table, left in (("chunk", 2), ("pending", 1), ("series", 1), ("field", 1)):
            counted = db.execute(f"SELECT count(*) FROM {table}")  # noqa: S608  # a word of ours
            assert counted.fetchone() == (left,)


# --- bytes ----------------------------------------------------------------------------------

FLOATS = st.floats(allow_nan=False, allow_infinity=False) | st.decimals(-1000, 1000, places=2).map(
    float
)
COLUMNS = {
    FieldType.FLOAT: FLOATS,
    FieldType.INTEGER: st.integers(-(2**63), 2**63 - 1),
    FieldType.TEXT: st.text(st.characters(codec="utf-8"), max_size=5),
}


@st.composite
def some_rows(draw: st.DrawFn) -> Rows:
    count = draw(st.integers(0, 40))
    whole = st.lists(st.integers(-(2**63), 2**63 - 1), min_size=count, max_size=count)
    columns = {}
    for field, kind in enumerate(draw(st.lists(st.sampled_from(list(COLUMNS)), max_size=4))):
        cells = draw(st.lists(COLUMNS[kind], min_size=count, max_size=count))
        values = (
            text_array([str(cell) for cell in cells])
            if kind is FieldType.TEXT
            else np.array(cells, np.float64 if kind is FieldType.FLOAT else np.int64)
        )
        has = np.array(draw(st.lists(st.booleans(), min_size=count, max_size=count)), np.bool_)
        columns[field + 3] = Column(kind, values, has)
    return Rows(np.array(draw(whole), np.int64), np.array(draw(whole), np.int64), columns)


def _bits(values: "np.ndarray[Any, Any]") -> list[Any]:
    bits: list[Any] = (values.view(np.int64) if values.dtype == np.float64 else values).tolist()
    return bits


@settings(deadline=None)
@given(some_rows())
def test_rows_come_back_from_bytes_bit_by_bit(rows: Rows) -> None:
    codec = Codec()
    data = codec.pack(rows)
    back = codec.unpack(data)
    assert back.owner.tolist() == rows.owner.tolist()
    assert back.time.tolist() == rows.time.tolist()
    assert back.columns.keys() == rows.columns.keys()
    for field, column in rows.columns.items():
        found = back.columns[field]
        assert found.kind is column.kind
        assert found.has.tolist() == column.has.tolist()
        assert _bits(found.values[found.has]) == _bits(column.values[column.has])
    assert set(codec.unpack(data, [4]).columns) == set(rows.columns) & {4}


@settings(deadline=None)
@given(some_rows(), st.data())
def test_any_changed_byte_is_found_or_harmless(rows: Rows, data: st.DataObject) -> None:
    codec = Codec()
    packed = bytearray(codec.pack(rows))
    at = data.draw(st.integers(0, len(packed) - 1))
    packed[at] ^= 1 << data.draw(st.integers(0, 7))
    try:
        back = codec.unpack(bytes(packed))
    except Damaged:
        return
    # Some bits of a frame's header mean nothing; then the content must be what it was.
    assert codec.pack(back) == codec.pack(rows)


@pytest.mark.parametrize("data", [b"", b"x", b"\x28\xb5\x2f\xfd" * 20])
def test_other_bytes_are_called_damaged(data: bytes) -> None:
    with pytest.raises(Damaged):
        Codec().unpack(data)


def test_slow_decimal_telemetry_takes_less_than_a_byte_per_value() -> None:
    rng = np.random.default_rng(1)
    values = np.round(50 + np.cumsum(rng.normal(0, 0.05, 1024)), 2)
    whole = np.ones(1024, np.bool_)
    rows = Rows(
        np.full(1024, 7), np.arange(1024) * 900, {1: Column(FieldType.FLOAT, values, whole)}
    )
    assert len(Codec().pack(rows)) < 1024
