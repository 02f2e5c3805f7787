"""What every store promises, asked of every kind there is."""

import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from aggregator import stores
from aggregator.stores import (
    Aggregate,
    RowSpan,
    SeriesBlock,
    SeriesKey,
    Store,
    StoreConfig,
    StoreRefused,
    embedded,
    influx,
)
from tests.servers.influx import InfluxServer

Open = Callable[..., Store]

T0 = 1_700_000_100 * 10**9
"""A quarter of an hour on the grid, in 2023."""
QUARTER = 900 * 10**9
EXTREMES = [0.1 + 0.2, 5e-324, -1.7976931348623157e308, 1e22, 123456789.123456789, -0.0, 1.0, 1e-9]
WHOLE = [2**53 + 1, -(2**63), 2**63 - 1, 0, -1, 10**15, 7, 8]
TEXTS = [
    "二氧化碳",
    'quo"te',
    "a,b c=d",
    "back\\slash",
    "end\\",
    "two\nlines\r\t",
    "'; DROP--",
    "\x00",
]


def _config(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> StoreConfig:
    if kind == "embedded":
        return embedded.Config(path=tmp_path / "series")
    if kind == "influx":
        server: InfluxServer = request.getfixturevalue("influx")
        return influx.Config(url=server.url)
    pytest.fail(f"say here how a store of kind '{kind}' is configured")


@pytest.fixture(params=stores.kinds())
def open_store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Open]:
    """Opens stores of one place; without a bucket's name, of one bucket made for the test."""
    config = _config(request.param, request, tmp_path)
    usual = uuid.uuid4().hex
    opened: list[Store] = []

    def opener(bucket: str = usual) -> Store:
        store: Store = stores.load(request.param).Store(config, bucket)
        opened.append(store)
        return store

    yield opener
    for store in opened:
        store.close()


@pytest.fixture
def store(open_store: Open) -> Store:
    return open_store()


def key_of(measurement: str = "ff_energy", **tags: str) -> SeriesKey:
    return SeriesKey.of(measurement, tags)


KEY = key_of(equipment_id="press-1", medium="Electricity")


def block(key: SeriesKey, times: Sequence[int], **fields: Any) -> SeriesBlock:
    """Rows at T0 + times; lists of float and int become arrays."""
    columns = {
        name: values if isinstance(values[0], str) else np.array(values)
        for name, values in fields.items()
    }
    return SeriesBlock(key, np.array(times, np.int64) + T0, columns)


def read(store: Store, key: SeriesKey, *fields: str) -> dict[int, dict[str, Any]]:
    """All rows of a series: time - T0 -> the fields it has."""
    found = store.query(key, fields, 0, 2**63 - 1)
    return {
        int(time) - T0: {
            name: column[row] for name, column in found.fields.items() if _is(column[row])
        }
        for row, time in enumerate(found.time)
    }


def numbers(found: SeriesBlock, field: str) -> NDArray[Any]:
    column = found.fields[field]
    assert isinstance(column, np.ndarray)
    return column


def _is(value: object) -> bool:
    return value != "" if isinstance(value, str) else value == value  # noqa: PLR0124  # NaN is not


def test_values_come_back_bit_by_bit(store: Store) -> None:
    times = [row * QUARTER for row in range(len(EXTREMES))]
    store.write([block(KEY, times, x=EXTREMES, n=WHOLE, word=TEXTS)])
    found = store.query(KEY, ["x", "n", "word"], T0, T0 + len(times) * QUARTER)
    assert found.key == KEY
    assert found.time.tolist() == [T0 + time for time in times]
    floats, integers = numbers(found, "x"), numbers(found, "n")
    assert floats.dtype == np.float64
    assert integers.dtype == np.int64
    assert floats.view(np.int64).tolist() == np.array(EXTREMES).view(np.int64).tolist()
    assert integers.tolist() == WHOLE
    assert found.fields["word"] == TEXTS


def test_values_that_repeat_keep_every_bit(store: Store) -> None:
    values = [0.0, -0.0, 0.1, -0.0, 0.1 + 0.2] * 50
    store.write([block(KEY, list(range(250)), x=values)])
    found = numbers(store.query(KEY, ["x"], 0, 2**62), "x")
    assert found.view(np.int64).tolist() == np.array(values).view(np.int64).tolist()


def test_a_row_written_again_replaces_the_old_one(store: Store) -> None:
    store.write([block(KEY, [0, 10, 20], x=[1.0, 2.0, 3.0], q=["GOOD", "GOOD", "GOOD"])])
    store.write([block(KEY, [10, 30], x=[9.0, 4.0], q=["BAD", "GOOD"])])
    assert read(store, KEY, "x", "q") == {
        0: {"x": 1.0, "q": "GOOD"},
        10: {"x": 9.0, "q": "BAD"},
        20: {"x": 3.0, "q": "GOOD"},
        30: {"x": 4.0, "q": "GOOD"},
    }
    assert store.count("ff_energy") == 4


def test_of_one_series_given_twice_in_a_call_the_later_rows_win(store: Store) -> None:
    store.write(
        [
            block(KEY, [0, 10], x=[1.0, 1.0]),
            block(KEY, [10, 20], x=[2.0, 2.0], n=[2, 2]),
            block(KEY, [20], x=[3.0]),
        ]
    )
    assert {time: row["x"] for time, row in read(store, KEY, "x").items()} == {0: 1, 10: 2, 20: 3}
    assert store.count("ff_energy") == 3


def test_many_rows_written_again_replace_the_old_ones(store: Store) -> None:
    times = range(0, 3000 * 10, 10)
    store.write([block(KEY, list(times), x=[1.0] * 3000)])
    store.write([block(KEY, list(times[500:2500]), x=[2.0] * 2000)])
    store.write([block(KEY, [15], x=[3.0])])
    values = [row["x"] for row in read(store, KEY, "x").values()]
    assert values == [1.0, 1.0, 3.0, *[1.0] * 498, *[2.0] * 2000, *[1.0] * 500]
    assert store.count("ff_energy") == 3001


def test_rows_may_come_in_any_order(store: Store) -> None:
    order = np.random.default_rng(1).permutation(60).tolist()
    for part in _parts(order, 7):
        store.write([block(KEY, sorted(part), x=[float(time) for time in sorted(part)])])
    assert list(read(store, KEY, "x").items()) == [(time, {"x": time}) for time in range(60)]


def _parts(values: list[int], size: int) -> list[list[int]]:
    return [values[first : first + size] for first in range(0, len(values), size)]


def test_late_rows_find_their_place_among_many(store: Store) -> None:
    even = list(range(0, 5000, 2))
    store.write([block(KEY, even, x=[float(time) for time in even])])
    odd = list(range(4999, 0, -2))
    for part in _parts(odd, 500):
        store.write([block(KEY, sorted(part), x=[float(time) for time in sorted(part)])])
    assert [row["x"] for row in read(store, KEY, "x").values()] == list(range(5000))
    assert store.count("ff_energy") == 5000


def test_thousands_of_series_live_side_by_side(store: Store) -> None:
    keys = [key_of(equipment_id=f"e{number:04d}") for number in range(2000)]
    for step in range(3):
        store.write([block(key, [step], x=[float(at + step)]) for at, key in enumerate(keys)])
    assert store.series("ff_energy") == keys
    assert store.count("ff_energy") == 6000
    for at in (0, 1234, 1999):
        assert read(store, keys[at], "x") == {step: {"x": at + step} for step in range(3)}


@pytest.mark.parametrize(
    "word",
    [
        "嘉兴",
        "a b",
        "a,b",
        "a=b",
        'a"b',
        "a'b",
        "a\\b",
        "%s",
        "#1",
        "x' OR 1=1 --",
        '"; DROP',
        " a ",
    ],
)
def test_any_word_is_kept_in_names_and_tags(store: Store, word: str) -> None:
    key = SeriesKey.of("m" + word, {"t" + word: word, "other": "x"})
    store.write([block(key, [0, 10], **{"f" + word: [1.5, 2.5], word.strip() + "n": [1, 2]})])
    store.write([block(key_of("m" + word, other="x"), [0], **{"f" + word: [7.0]})])
    assert read(store, key, "f" + word) == {0: {"f" + word: 1.5}, 10: {"f" + word: 2.5}}
    assert store.newest(key).fields["f" + word][0] == 2.5
    assert key in store.series("m" + word)
    assert store.count("m" + word) == 3
    store.delete("m" + word)
    assert store.series() == []


@pytest.mark.parametrize(
    ("measurement", "tag", "word", "field"),
    [
        ("", "t", "w", "f"),
        ("_m", "t", "w", "f"),
        ("#m", "t", "w", "f"),
        ("time", "t", "w", "f"),
        ("m", "time", "w", "f"),
        ("m", "_field", "w", "f"),
        ("m", "t", "line\nbreak", "f"),
        ("m", "t", "end\\", "f"),
        ("m", "t", "a\\,b", "f"),
        ("m", "t", "\ud800", "f"),
        ("m", "t", "w" * 1001, "f"),
        ("m", "t", "w", "time"),
        ("m", "t", "w", "f\\"),
        ("m", "t", "w", ""),
        ("m", "t", "w", "t"),
    ],
)
def test_what_some_store_could_not_keep_is_refused_by_every_store(
    store: Store, measurement: str, tag: str, word: str, field: str
) -> None:
    good = block(key_of("fine", t="x"), [0], x=[1.0])
    with pytest.raises(ValueError, match=r"."):
        store.write([good, block(SeriesKey(measurement, ((tag, word),)), [0], **{field: [1.0]})])
    assert store.series() == []


@pytest.mark.parametrize(
    "bad",
    [
        SeriesBlock(KEY, np.array([2, 1]), {"x": np.array([1.0, 2.0])}),
        SeriesBlock(KEY, np.array([1, 1]), {"x": np.array([1.0, 2.0])}),
        SeriesBlock(KEY, np.array([-1]), {"x": np.array([1.0])}),
        SeriesBlock(KEY, np.array([2**63 - 1]), {"x": np.array([1.0])}),
        SeriesBlock(KEY, np.array([1, 2]), {"x": np.array([1.0])}),
        SeriesBlock(KEY, np.array([1]), {"x": np.array([1], np.int32)}),  # type: ignore[dict-item]  # wrong on purpose
        SeriesBlock(KEY, np.array([1]), {"x": ["\ud800"]}),
        SeriesBlock(KEY, np.array([1]), {"x": ["w" * 16_001]}),
        SeriesBlock(SeriesKey("m", (("b", "1"), ("a", "2"))), np.array([1]), {"x": ["w"]}),
        SeriesBlock(SeriesKey("m", (("a", ""),)), np.array([1]), {"x": ["w"]}),
    ],
)
def test_a_misshapen_block_is_refused_and_nothing_is_written(
    store: Store, bad: SeriesBlock
) -> None:
    with pytest.raises(ValueError, match=r"."):
        store.write([block(key_of("fine"), [0], x=[1.0]), bad])
    assert store.series() == []


def test_long_texts_are_kept(store: Store) -> None:
    text = '碳"\\' * 5000
    store.write([block(KEY, [0], word=[text])])
    assert store.newest(KEY).fields == {"word": [text]}


def test_what_is_not_a_number_is_not_there(store: Store) -> None:
    values = [1.0, np.nan, np.inf, -np.inf]
    store.write([block(KEY, [0, 10, 20, 30], x=values, n=[1, 2, 3, 4])])
    found = store.query(KEY, ["x", "n"], T0, T0 + 100)
    assert np.isnan(numbers(found, "x")).tolist() == [False, True, True, True]
    assert list(found.fields["n"]) == [1, 2, 3, 4]


def test_a_row_without_any_field_is_no_row(store: Store) -> None:
    store.write([block(KEY, [0, 10], x=[np.nan, 1.0], word=["", ""])])
    store.write([block(key_of(equipment_id="empty"), [0], x=[np.nan])])
    store.write([SeriesBlock(KEY, np.zeros(0, np.int64), {"x": np.zeros(0)})])
    store.write([SeriesBlock(KEY, np.array([T0]), {})])
    store.write([])
    assert read(store, KEY, "x", "word") == {10: {"x": 1.0}}
    assert store.count("ff_energy") == 1
    assert store.series() == [KEY]


def test_rows_that_lack_a_field_have_none_of_it(store: Store) -> None:
    store.write([block(KEY, [0, 10], x=[1.0, np.nan], word=["", "w"])])
    store.write([block(KEY, [20], n=[7])])
    found = store.query(KEY, ["x", "word", "n"], T0, T0 + 100)
    assert [str(value) for value in found.fields["x"]] == ["1.0", "nan", "nan"]
    assert found.fields["word"] == ["", "w", ""]
    assert [str(value) for value in found.fields["n"]] == ["nan", "nan", "7.0"]
    assert numbers(found, "n").dtype == np.float64
    assert numbers(store.query(KEY, ["n"], T0, T0 + 100), "n").dtype == np.int64


def test_rows_without_the_fields_asked_for_are_left_out(store: Store) -> None:
    store.write([block(KEY, [0, 10, 20], x=[1.0, np.nan, 3.0], n=[1, 2, 3])])
    found = store.query(KEY, ["x"], T0, T0 + 100)
    assert (found.time - T0).tolist() == [0, 20]


def test_the_fields_of_a_measurement_are_those_that_any_row_has(store: Store) -> None:
    other = SeriesKey.of(KEY.measurement, {"enterprise_id": "another"})
    store.write([block(KEY, [0], x=[1.0]), block(other, [1], word=["w"])])
    assert store.fields(KEY.measurement) == ["word", "x"]
    assert store.fields("nothing") == []


def test_fields_nobody_wrote_are_left_out(store: Store) -> None:
    store.write([block(KEY, [0], x=[1.0]), block(KEY, [1000], late=[1.0])])
    found = store.query(KEY, ["x", "nothing", "late"], T0, T0 + 100)
    assert list(found.fields) == ["x"]
    assert store.query(KEY, ["nothing"], T0, T0 + 100).fields == {}
    assert len(store.query(KEY, ["nothing"], T0, T0 + 100)) == 0
    assert len(store.query(KEY, [], T0, T0 + 100)) == 0


def test_what_is_unknown_is_empty_and_no_fault(store: Store) -> None:
    for key in (KEY, key_of("nothing"), key_of(equipment_id="other")):
        assert len(store.query(key, ["x"], 0, 2**62)) == 0
        assert len(store.query_steps(key, "x", 0, 2**62, QUARTER, "mean")) == 0
        assert len(store.newest(key)) == 0
        assert store.newest(key).fields == {}
        assert store.count(key.measurement) == 0
        store.write([block(KEY, [0], y=[1.0])])
        store.delete("nothing")
        store.delete(KEY.measurement)
    assert store.series() == []
    assert store.series("nothing") == []


def test_a_span_holds_its_start_and_not_its_end(store: Store) -> None:
    store.write([block(KEY, [0, 10, 20, 30], x=[0.0, 1.0, 2.0, 3.0])])
    assert list(store.query(KEY, ["x"], T0 + 10, T0 + 30).fields["x"]) == [1.0, 2.0]
    assert len(store.query(KEY, ["x"], T0 + 30, T0 + 10)) == 0
    assert len(store.query(KEY, ["x"], -(2**70), 2**70)) == 4


def test_a_limit_keeps_the_first_rows(store: Store) -> None:
    times = list(range(25_000))
    store.write([block(KEY, times, x=[float(time) for time in times])])
    for limit in (0, 1, 10_000, 10_001, 24_999):
        found = store.query(KEY, ["x"], 0, 2**62, limit=limit)
        assert (found.time - T0).tolist() == times[:limit]
    assert len(store.query(KEY, ["x"], 0, 2**62)) == 25_000


def test_series_with_more_tags_are_others(store: Store) -> None:
    keys = [key_of(), key_of(a="1"), key_of(a="1", b="2"), key_of(b="2")]
    for number, key in enumerate(keys):
        store.write([block(key, [0, 10], x=[float(number), 0.5])])
    for number, key in enumerate(keys):
        assert read(store, key, "x") == {0: {"x": number}, 10: {"x": 0.5}}
        assert len(store.newest(key)) == 1
        steps = store.query_steps(key, "x", T0, T0 + 100, 100, "sum")
        assert list(steps.fields["x"]) == [number + 0.5]
    assert len(store.query(key_of(c="3"), ["x"], 0, 2**62)) == 0
    assert store.series() == sorted(keys, key=lambda key: key.tags)


STEPS = {
    "mean": [(0, 1.5), (QUARTER, 4.0), (4 * QUARTER, -1.0)],
    "sum": [(0, 3.0), (QUARTER, 12.0), (4 * QUARTER, -1.0)],
    "min": [(0, 1.0), (QUARTER, 2.0), (4 * QUARTER, -1.0)],
    "max": [(0, 2.0), (QUARTER, 7.0), (4 * QUARTER, -1.0)],
    "last": [(0, 2.0), (QUARTER, 2.0), (4 * QUARTER, -1.0)],
}


def _samples(key: SeriesKey) -> SeriesBlock:
    minute = QUARTER // 15
    times = [0, 14 * minute, QUARTER, QUARTER + minute, QUARTER + 2 * minute, 4 * QUARTER + minute]
    values = [1.0, 2.0, 7.0, 3.0, 2.0, -1.0]
    return block(key, times, x=values, n=[int(value) for value in values])


@pytest.mark.parametrize("aggregate", get_args(Aggregate))
def test_steps_aggregate_what_is_there_and_skip_what_is_not(
    store: Store, aggregate: Aggregate
) -> None:
    store.write([_samples(KEY)])
    found = store.query_steps(KEY, "x", T0, T0 + 100 * QUARTER, QUARTER, aggregate)
    assert list(found.fields) == ["x"]
    assert numbers(found, "x").dtype == np.float64
    rows = zip((found.time - T0).tolist(), found.fields["x"], strict=True)
    assert list(rows) == STEPS[aggregate]


@pytest.mark.parametrize("aggregate", get_args(Aggregate))
def test_whole_numbers_stay_whole_except_in_means(store: Store, aggregate: Aggregate) -> None:
    store.write([_samples(KEY)])
    found = store.query_steps(KEY, "n", T0, T0 + 100 * QUARTER, QUARTER, aggregate)
    whole = np.float64 if aggregate == "mean" else np.int64
    assert numbers(found, "n").dtype == whole
    assert list(found.fields["n"]) == [value for _, value in STEPS[aggregate]]


def test_large_whole_numbers_are_summed_exactly(store: Store) -> None:
    store.write([block(KEY, [0, 10], n=[2**53 + 1, 2])])
    found = store.query_steps(KEY, "n", T0, T0 + 100, QUARTER, "sum")
    assert list(found.fields["n"]) == [2**53 + 3]


def test_steps_begin_at_multiples_of_their_length(store: Store) -> None:
    store.write([block(KEY, list(range(0, 100, 10)), x=[1.0] * 10)])
    found = store.query_steps(KEY, "x", T0 + 15, T0 + 75, 30, "sum")
    assert (found.time % 30).tolist() == [0] * len(found)
    assert numbers(found, "x").sum() == 6.0
    assert found.time[0] <= T0 + 20 < found.time[0] + 30


def test_steps_over_all_time_cost_no_more_than_the_rows(store: Store) -> None:
    store.write([block(KEY, [0, 10], x=[1.0, 2.0])])
    found = store.query_steps(KEY, "x", 0, 2**63 - 1, 60 * 10**9, "max")
    assert list(found.fields["x"]) == [2.0]


def test_more_steps_than_one_page_come_back(store: Store) -> None:
    times = list(range(0, 24_000, 2))
    store.write([block(KEY, times, x=[float(time) for time in times])])
    found = store.query_steps(KEY, "x", T0 + 1, T0 + 24_000, 2, "last")
    assert list(found.fields["x"]) == times[1:]


def test_steps_of_rows_without_the_field_are_absent(store: Store) -> None:
    store.write([block(KEY, [0, QUARTER], x=[np.nan, 1.0], n=[1, 2])])
    found = store.query_steps(KEY, "x", T0, T0 + 10 * QUARTER, QUARTER, "sum")
    assert (found.time - T0).tolist() == [QUARTER]
    assert store.query_steps(KEY, "x", T0, T0 + QUARTER, QUARTER, "sum").fields == {}


def test_of_texts_steps_give_the_last(store: Store) -> None:
    store.write([block(KEY, [0, 10, QUARTER], q=["GOOD", "BAD", "PARTIAL"])])
    found = store.query_steps(KEY, "q", T0, T0 + 10 * QUARTER, QUARTER, "last")
    assert found.fields == {"q": ["BAD", "PARTIAL"]}
    with pytest.raises(ValueError, match="last"):
        store.query_steps(KEY, "q", T0, T0 + 10 * QUARTER, QUARTER, "mean")


def test_a_step_without_length_is_refused(store: Store) -> None:
    with pytest.raises(ValueError, match="1"):
        store.query_steps(KEY, "x", 0, 10, 0, "mean")


def test_the_newest_row_comes_with_all_its_fields(store: Store) -> None:
    store.write([block(KEY, [30], x=[3.0], n=[2**53 + 1], word=["w"])])
    store.write([block(KEY, [10], x=[1.0], other=[5.0])])
    found = store.newest(KEY)
    assert found.time.tolist() == [T0 + 30]
    assert {name: list(column) for name, column in found.fields.items()} == {
        "n": [2**53 + 1],
        "word": ["w"],
        "x": [3.0],
    }
    store.write([block(KEY, [40], other=[6.0])])
    assert {name: list(column) for name, column in store.newest(KEY).fields.items()} == {
        "other": [6.0]
    }


def test_the_newest_row_may_lie_among_many(store: Store) -> None:
    times = list(range(3000))
    store.write([block(KEY, times, x=[float(time) for time in times])])
    assert list(store.newest(KEY).fields["x"]) == [2999.0]
    store.write([block(KEY, [2999], x=[-1.0])])
    assert list(store.newest(KEY).fields["x"]) == [-1.0]


def test_rows_are_counted_whatever_fields_they_have(store: Store) -> None:
    store.write([block(KEY, [0, 10, 20], x=[1.0, np.nan, 3.0], word=["", "w", ""])])
    store.write([block(key_of(equipment_id="b"), [0, 10], n=[1, 2])])
    store.write([block(key_of("other"), [0], x=[1.0])])
    assert store.count("ff_energy") == 5
    assert store.count("other") == 1


def test_deleting_a_measurement_leaves_the_others(store: Store) -> None:
    times = list(range(2000))
    for name in ("gone", "kept"):
        store.write([block(key_of(name, a="1"), times, x=[1.0] * 2000)])
        store.write([block(key_of(name, a="2"), [5000], x=[2.0])])
    store.delete("gone")
    assert store.count("gone") == 0
    assert store.series() == [key_of("kept", a="1"), key_of("kept", a="2")]
    assert len(store.newest(key_of("gone", a="2"))) == 0
    assert len(store.query(key_of("gone", a="1"), ["x"], 0, 2**62)) == 0
    assert store.count("kept") == 2001


def test_after_deleting_a_measurement_its_fields_may_have_other_types(store: Store) -> None:
    store.write([block(KEY, [0, 10], x=[1.0, 2.0])])
    store.delete(KEY.measurement)
    store.write([block(KEY, [10], x=["text"])])
    assert read(store, KEY, "x") == {10: {"x": "text"}}
    assert store.count(KEY.measurement) == 1


def test_rows_that_are_deleted_are_gone_and_all_others_stay(store: Store) -> None:
    more = key_of(equipment_id="press-1", medium="Electricity", meter_role="main")
    many = list(range(3000))
    store.write([block(KEY, many, x=[float(at) for at in many])])
    store.write([block(more, [0, 5, 9], x=[1.0, 2.0, 3.0]), block(KEY, [4000], x=[7.0])])
    unknown = RowSpan(key_of("nothing", a="b"), T0, T0 + 10)
    store.delete_rows([RowSpan(KEY, T0 + 2, T0 + 2998), RowSpan(more, T0 + 5, T0 + 6), unknown])
    store.overwrite_removed()
    assert sorted(read(store, KEY, "x")) == [0, 1, 2998, 2999, 4000]
    assert sorted(read(store, more, "x")) == [0, 9]
    assert store.count("ff_energy") == 7
    store.write([block(KEY, [2], x=[5.0])])
    assert read(store, KEY, "x")[2] == {"x": 5.0}


def test_rows_in_any_of_several_spans_are_deleted_however_these_overlap(store: Store) -> None:
    chance = np.random.default_rng(3)
    store.write([block(KEY, list(range(5000)), x=[float(at) for at in range(5000)])])
    spans = [(int(at), int(at + length)) for at, length in chance.integers(0, 900, (8, 2)) * 5]
    store.delete_rows([RowSpan(KEY, T0 + start, T0 + end) for start, end in spans])
    gone = {at for start, end in spans for at in range(start, end)}
    assert sorted(read(store, KEY, "x")) == [at for at in range(5000) if at not in gone]


def test_a_field_of_another_type_is_refused_and_blocks_nothing_else(store: Store) -> None:
    keys = [key_of(equipment_id=f"e{number}") for number in range(20)]
    store.write([block(KEY, [0], x=[1.0], secret=[1.0])])
    good = [block(key, [0], x=[2.0]) for key in keys]
    wrong = block(key_of(equipment_id="wrong"), [0], x=[424242])
    apart = block(key_of("elsewhere"), [0], x=[424242])
    with pytest.raises(StoreRefused) as refused:
        store.write([*good[:7], wrong, *good[7:], apart])
    assert "ff_energy" in str(refused.value)
    assert refused.value.remedy
    assert "424242" not in str(refused.value)
    assert "elsewhere" not in str(refused.value)
    assert all(read(store, key, "x") == {0: {"x": 2.0}} for key in keys)
    assert read(store, apart.key, "x") == {0: {"x": 424242}}
    assert read(store, wrong.key, "x") == {}


def test_two_buckets_do_not_mix(open_store: Open) -> None:
    first, second = open_store(f"a{uuid.uuid4().hex}"), open_store(f"b{uuid.uuid4().hex}")
    first.write([block(KEY, [0], x=[1.0])])
    second.write([block(KEY, [10], x=["text"])])
    assert read(first, KEY, "x") == {0: {"x": 1.0}}
    assert read(second, KEY, "x") == {10: {"x": "text"}}
    first.delete(KEY.measurement)
    assert second.count(KEY.measurement) == 1


@pytest.mark.parametrize("bucket", ["", "a/b", "../x", 'a"b', "a b", "a.b", "桶"])
def test_a_bucket_has_a_plain_name(open_store: Open, bucket: str) -> None:
    with pytest.raises(ValueError, match="_"):
        open_store(bucket)


def test_a_store_opened_again_has_everything(open_store: Open) -> None:
    store = open_store()
    store.write([block(KEY, list(range(3000)), x=[1.0] * 3000)])
    store.write([block(KEY, [5000], x=[2.0], word=["w"])])
    store.close()
    again = open_store()
    assert again.series() == [KEY]
    assert again.count(KEY.measurement) == 3001
    assert again.newest(KEY).fields["word"] == ["w"]
    again.write([block(KEY, [5000], x=[3.0], word=["v"])])
    assert list(again.query(KEY, ["x"], T0 + 2999, 2**62).fields["x"]) == [1.0, 3.0]


def test_another_reader_sees_what_was_written_and_what_was_deleted(open_store: Open) -> None:
    writer, reader = open_store(), open_store()
    for step in range(40):
        writer.write([block(KEY, [step], x=[float(step)])])
        assert list(reader.newest(KEY).fields["x"]) == [step]
    writer.delete(KEY.measurement)
    assert len(reader.newest(KEY)) == 0
    writer.write([block(KEY, [0], x=["text"])])
    assert reader.newest(KEY).fields == {"x": ["text"]}
    assert reader.count(KEY.measurement) == 1


def test_calls_may_come_from_one_thread_after_another(store: Store) -> None:
    for step in range(3):
        with ThreadPoolExecutor(1) as thread:
            thread.submit(store.write, [block(KEY, [step], x=[float(step)])]).result(30)
    with ThreadPoolExecutor(1) as thread:
        assert thread.submit(store.count, KEY.measurement).result(30) == 3


ROW = st.integers(0, 40)
FLOATS = st.floats(allow_nan=False, allow_infinity=False)
WORDS = st.text(st.characters(codec="utf-8"), min_size=1, max_size=8)
CELLS: Mapping[str, st.SearchStrategy[Any]] = {
    "x": FLOATS,
    "n": st.integers(-(2**63), 2**63 - 1),
    "w": WORDS,
}
FIELDS_OF = (("x", "n", "w"), ("x",), ("n", "w"), ("w",), ("x", "n"))
"""Which fields a row has depends on its time, since stores may merge rows field by field."""

Rows = dict[int, dict[str, Any]]
"""Time -> the fields it has."""


def rows_strategy() -> st.SearchStrategy[Rows]:
    def of_times(times: set[int]) -> st.SearchStrategy[Rows]:
        return st.fixed_dictionaries(
            {
                time: st.fixed_dictionaries(
                    {name: CELLS[name] for name in FIELDS_OF[time % len(FIELDS_OF)]}
                )
                for time in times
            }
        )

    return st.sets(ROW, min_size=1, max_size=8).flatmap(of_times)


WRITES = st.lists(
    st.dictionaries(st.sampled_from("abc"), rows_strategy(), min_size=1, max_size=3),
    min_size=1,
    max_size=6,
)


def _blocks(key: SeriesKey, rows: Rows) -> list[SeriesBlock]:
    """One block per set of fields: an int64 column cannot say that a row lacks it."""
    blocks = []
    for names in FIELDS_OF:
        times = sorted(time for time, row in rows.items() if set(row) == set(names))
        if times:
            blocks.append(block(key, times, **{n: [rows[t][n] for t in times] for n in names}))
    return blocks


@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(writes=WRITES, step=st.integers(1, 20), within=st.tuples(ROW, ROW))
def test_it_behaves_like_a_table_by_series_and_time(
    store: Store, writes: list[dict[str, Rows]], step: int, within: tuple[int, int]
) -> None:
    measurement = f"m{uuid.uuid4().hex}"
    model: dict[str, Rows] = {}
    for write in writes:
        store.write(
            [
                part
                for name, rows in write.items()
                for part in _blocks(key_of(measurement, s=name), rows)
            ]
        )
        for name, rows in write.items():
            model.setdefault(name, {}).update(rows)
    assert store.series(measurement) == [key_of(measurement, s=name) for name in sorted(model)]
    assert store.count(measurement) == sum(map(len, model.values()))
    for name, rows in model.items():
        _check_series(store, key_of(measurement, s=name), rows, step, within)


def _check_series(
    store: Store, key: SeriesKey, rows: Rows, step: int, within: tuple[int, int]
) -> None:
    assert _read_cells(store, key) == {
        field: [(time, rows[time][field]) for time in sorted(rows) if field in rows[time]]
        for field in CELLS
    }
    newest = store.newest(key)
    assert newest.time.tolist() == [T0 + max(rows)]
    assert {name: column[0] for name, column in newest.fields.items()} == rows[max(rows)]
    first, last = sorted(within)
    inside = [time for time in rows if first <= time < last and "n" in rows[time]]
    steps = store.query_steps(key, "n", T0 + first, T0 + last, step, "max")
    expected: dict[int, int] = {}
    for time in inside:
        at = (T0 + time) // step * step
        expected[at] = max(expected.get(at, rows[time]["n"]), rows[time]["n"])
    found = zip(steps.time.tolist(), steps.fields.get("n", []), strict=True)
    assert list(found) == sorted(expected.items())


def _read_cells(store: Store, key: SeriesKey) -> dict[str, list[tuple[int, Any]]]:
    """Each field on its own, so that whole numbers come back exact."""
    cells: dict[str, list[tuple[int, Any]]] = {}
    for field in CELLS:
        found = store.query(key, [field], 0, 2**63 - 1)
        values: Any = found.fields.get(field, [])
        cells[field] = list(zip((found.time - T0).tolist(), list(values), strict=True))
    return cells
