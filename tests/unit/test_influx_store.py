"""What is special about the store in InfluxDB: a network between, and servers that refuse."""

import socket
import uuid
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from aggregator.stores import RowSpan, SeriesBlock, SeriesKey, StoreRefused, StoreUnavailable
from aggregator.stores.influx import Config, Store
from tests.servers.influx import InfluxServer, running

T0 = 1_700_000_100 * 10**9
SECRET = 31415.92653


def key_of(name: str, measurement: str = "ff_energy") -> SeriesKey:
    return SeriesKey.of(measurement, {"equipment_id": name})


def block(key: SeriesKey, rows: int = 1, value: float = SECRET) -> SeriesBlock:
    return SeriesBlock(key, np.arange(rows) + T0, {"x": np.full(rows, value)})


@pytest.fixture
def store(influx: InfluxServer) -> Iterator[Store]:
    opened = Store(Config(url=influx.url), uuid.uuid4().hex)
    yield opened
    opened.close()


def test_while_influxdb_is_down_writes_wait_and_then_the_same_write_works(
    own_influx: InfluxServer,
) -> None:
    store = Store(
        Config.model_validate({"kind": "influx", "url": own_influx.url, "timeout": "5s"}), "b"
    )
    key = key_of("a")
    store.write([block(key)])
    own_influx.stop()
    for call in (
        lambda: store.write([block(key, 2)]),
        lambda: store.delete("ff_energy"),
        store.series,
        lambda: store.newest(key),
    ):
        with pytest.raises(StoreUnavailable, match=r"127\.0\.0\.1"):
            call()
    own_influx.start()
    store.write([block(key, 2)])
    assert store.count("ff_energy") == 2
    store.close()


def test_what_was_written_survives_a_killed_influxdb(own_influx: InfluxServer) -> None:
    store = Store(Config(url=own_influx.url), "b")
    store.write([block(key_of("a"), 1000)])
    own_influx.kill()
    own_influx.start()
    assert store.count("ff_energy") == 1000
    store.close()


@pytest.mark.parametrize("status", [500, 502, 503, 429, 408])
def test_an_overloaded_server_is_one_to_wait_for(
    influx: InfluxServer, store: Store, status: int
) -> None:
    influx.door.faults.write = influx.door.faults.query = (status, f"x={SECRET}")
    with pytest.raises(StoreUnavailable, match=str(status)) as refused:
        store.write([block(key_of("a"))])
    assert str(SECRET) not in str(refused.value)
    assert refused.value.__cause__ is None
    with pytest.raises(StoreUnavailable):
        store.count("ff_energy")
    influx.door.faults.write = influx.door.faults.query = None
    store.write([block(key_of("a"))])
    assert store.count("ff_energy") == 1


def test_a_wrong_token_is_named_and_a_new_one_is_taken_up(
    influx: InfluxServer, tmp_path: Path
) -> None:
    token = tmp_path / "token"
    store = Store(Config(url=influx.url, token_file=token), uuid.uuid4().hex)
    right = "right"
    influx.door.faults.token = right
    with pytest.raises(StoreUnavailable, match="token"):
        store.write([block(key_of("a"))])
    token.write_text("wrong\n")
    with pytest.raises(StoreUnavailable, match="token_file") as refused:
        store.write([block(key_of("a"))])
    assert "wrong" not in str(refused.value)
    with pytest.raises(StoreUnavailable, match="token_file"):
        store.series()
    token.write_text(f"{right}\n")
    store.write([block(key_of("a"))])
    assert store.series() == [key_of("a")]
    store.close()


def test_a_bucket_that_nobody_can_make_is_asked_for(influx: InfluxServer, store: Store) -> None:
    influx.door.faults.unsupported = "CREATE"
    with pytest.raises(StoreUnavailable, match="dbrp"):
        store.write([block(key_of("a"))])
    assert store.series() == []
    influx.door.faults.unsupported = None
    store.write([block(key_of("a"))])
    assert store.series() == [key_of("a")]


def test_a_database_that_is_written_but_cannot_be_read_is_not_called_empty(
    influx: InfluxServer, store: Store
) -> None:
    store.write([block(key_of("a"))])
    influx.door.faults.query = (404, "database not found")
    with pytest.raises(StoreUnavailable, match="dbrp"):
        store.count("ff_energy")


def test_a_server_that_understands_no_query_is_told_so(influx: InfluxServer, store: Store) -> None:
    store.write([block(key_of("a"))])
    influx.door.faults.unsupported = "S"
    for call in (lambda: store.newest(key_of("a")), lambda: store.count("ff_energy"), store.series):
        with pytest.raises(StoreUnavailable, match="InfluxQL"):
            call()


def test_a_server_that_never_answers_is_given_up() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        store = Store(
            Config.model_validate({"kind": "influx", "url": url, "timeout": "200ms"}), "b"
        )
        with pytest.raises(StoreUnavailable, match="answer"):
            store.write([block(key_of("a"))])
        with pytest.raises(StoreUnavailable, match="answer"):
            store.series()
        store.close()


def test_what_is_not_influxdb_is_told_so(influx: InfluxServer) -> None:
    store = Store(Config(url=f"{influx.url}/ping?x="), "b")
    with pytest.raises(StoreUnavailable, match=r"store\.url"):
        store.series()
    store.close()


def test_requests_are_bounded_and_lose_nothing(influx: InfluxServer, store: Store) -> None:
    keys = [key_of(f"e{number}") for number in range(40)]
    store.write([block(key, 1000) for key in keys] + [block(key_of("big"), 30_000)])
    sizes = [size for path, size in influx.door.seen if path == "/api/v2/write"]
    assert max(sizes) <= 1 << 20
    assert store.count("ff_energy") == 70_000


def test_a_body_too_large_for_the_server_is_parted(influx: InfluxServer, store: Store) -> None:
    influx.door.faults.largest_body = 2000
    store.write([block(key_of("a"), 300), block(key_of("b"), 300)])
    assert store.count("ff_energy") == 600


def test_a_row_too_large_for_the_server_is_refused_alone(
    influx: InfluxServer, store: Store
) -> None:
    influx.door.faults.largest_body = 2000
    large = SeriesBlock(key_of("large"), np.array([T0]), {"word": ["w" * 3000]})
    with pytest.raises(StoreRefused, match="ff_energy") as refused:
        store.write([block(key_of("a"), 100), large, block(key_of("b"), 100)])
    assert "www" not in str(refused.value)
    assert store.count("ff_energy") == 200


def test_where_a_request_is_refused_as_a_whole_only_the_bad_series_is_lost(
    influx: InfluxServer, store: Store
) -> None:
    influx.door.faults.poison = b"equipment_id=bad"
    keys = [key_of(f"e{number:03d}") for number in range(500)]
    blocks = [block(key, 3) for key in keys]
    blocks[123] = block(key_of("bad"), 3)
    with pytest.raises(StoreRefused, match="ff_energy") as refused:
        store.write([*blocks, block(key_of("x", "other"))])
    assert str(SECRET) not in str(refused.value)
    assert refused.value.__cause__ is None
    assert store.count("ff_energy") == 499 * 3
    assert store.count("other") == 1
    writes = [size for path, size in influx.door.seen if path == "/api/v2/write"]
    assert len(writes) < 30


def test_names_cannot_break_out_of_a_statement(store: Store) -> None:
    word = "x' OR 'a'='a"
    name = 'm"; DROP MEASUREMENT "kept'
    store.write([block(key_of("a", "kept")), block(key_of(word, name)), block(key_of("b", name))])
    assert len(store.query(key_of("x' OR ''='", name), ["x"], 0, 2**62)) == 0
    assert len(store.query(key_of(word, name), ["x", '*" FROM kept --'], 0, 2**62)) == 1
    assert store.newest(key_of(word, name)).key == key_of(word, name)
    store.delete(name)
    assert store.series() == [key_of("a", "kept")]


def test_series_are_found_where_the_server_cannot_list_them(
    influx: InfluxServer, store: Store
) -> None:
    keys = [
        SeriesKey.of(name, tags) for name in ("m", "n") for tags in ({}, {"a": "1"}, {"b": "汉"})
    ]
    store.write([block(key) for key in keys])
    influx.door.faults.unsupported = "SHOW SERIES"
    assert store.series() == sorted(keys, key=lambda key: (key.measurement, key.tags))
    assert store.series("n") == sorted(keys[3:], key=lambda key: key.tags)


def test_a_server_that_cannot_delete_is_told_so(influx: InfluxServer, store: Store) -> None:
    store.write([block(key_of("a"))])
    influx.door.faults.unsupported = "DROP"
    with pytest.raises(StoreRefused, match="ff_energy"):
        store.delete("ff_energy")
    assert store.count("ff_energy") == 1


def test_a_servers_own_limit_of_rows_hides_nothing(tmp_path: Path) -> None:
    with running(tmp_path / "influx", max_rows=70) as server:
        store = Store(Config(url=server.url), "b")
        store.write([block(key_of("a"), 1000)])
        assert len(store.query(key_of("a"), ["x"], 0, 2**62)) == 1000
        assert len(store.query_steps(key_of("a"), "x", T0, T0 + 1000, 2, "sum")) == 500
        store.write([block(key_of(f"e{number:03d}", "many")) for number in range(200)])
        assert store.series("many") == [key_of(f"e{number:03d}", "many") for number in range(200)]
        store.close()


def test_series_that_a_reader_has_not_heard_of_do_not_mix_in(influx: InfluxServer) -> None:
    bucket = uuid.uuid4().hex
    writer, reader = (Store(Config(url=influx.url), bucket) for _ in range(2))
    plain = SeriesKey.of("m", {"a": "1"})
    writer.write([block(plain, 3)])
    assert len(reader.query(plain, ["x"], 0, 2**62)) == 3
    writer.write([block(SeriesKey.of("m", {"a": "1", "late": "2"}), 50, 0.0)])
    assert list(reader.query(plain, ["x"], 0, 2**62).fields["x"]) == [SECRET] * 3
    assert list(reader.newest(plain).fields["x"]) == [SECRET]
    steps = reader.query_steps(plain, "x", T0, T0 + 100, 1000, "min")
    assert list(steps.fields["x"]) == [SECRET]
    reader.delete_rows([RowSpan(plain, T0, T0 + 100)])
    assert reader.count("m") == 50
    writer.close()
    reader.close()


@pytest.mark.parametrize(
    "wrong",
    [{"url": "influx:8086"}, {"url": "http://x", "timeout": 0}, {"url": "http://x", "token": "t"}],
)
def test_a_faulty_configuration_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Config.model_validate(wrong)
