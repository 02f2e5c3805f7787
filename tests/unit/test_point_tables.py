"""Point tables: what a spreadsheet makes of them is read back exactly, or refused by its line."""

import csv
import io
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from protocols.drivers import read_devices
from protocols.drivers.modbus.point import ModbusPoint
from protocols.drivers.opcua.point import OpcuaPoint
from protocols.errors import ConfigError
from protocols.points import Point
from protocols.settings import duration_text, parse_duration
from protocols.tables import _CHINESE, columns_of, points_text, read_points

ids = st.from_regex(r"[a-z0-9][a-z0-9_.-]{0,20}", fullmatch=True)
decimals = st.decimals(
    allow_nan=False, allow_infinity=False, min_value=-(10**12), max_value=10**12, places=9
)
text = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=12)
units = text.map(str.strip).filter(lambda unit: len(unit) <= 16)
common: dict[str, st.SearchStrategy[Any]] = {
    "unit": units,
    "scale": decimals.filter(bool),
    "offset": decimals,
    "cadence": st.none() | st.integers(1, 10**9).map(lambda ms: f"{ms}ms"),
    "counter": st.fixed_dictionaries(
        {},
        optional={
            "rollover": decimals.filter(lambda number: number > 0) | st.just(Decimal(2**64)),
            "on_reset": st.sampled_from(["from_zero", "rebase"]),
        },
    ),
}
numbers = st.fixed_dictionaries(
    {
        "address": st.integers(0, 65000).map(lambda first: f"holding:{first}"),
        "type": st.sampled_from(["int16", "uint16", "int32", "uint32", "float32", "bcd32"]),
    },
    optional=common
    | {
        "order": st.sampled_from(["ABCD", "CDAB", "BADC", "DCBA"]),
        "invalid": st.lists(st.integers(0, 9999), max_size=3),
    },
)
bits = st.fixed_dictionaries(
    {
        "address": st.integers(0, 15).map(lambda bit: f"input:7.{bit}") | st.just("coil:9"),
        "type": st.just("bit"),
    }
)
strings = st.fixed_dictionaries(
    {"address": st.just("holding:30000"), "type": st.just("string"), "length": st.integers(1, 20)}
)
modbus = st.one_of(numbers, bits, strings)
opcua = st.fixed_dictionaries(
    {
        "address": text.filter(bool).map(lambda name: f"nsu=urn:{name.replace(';', '')}x;s={name}"),
        "type": st.sampled_from(["Int32", "UInt16", "Float", "Double"]),
    },
    optional=common
    | {
        "deadband": decimals.filter(lambda number: number > 0),
        "sampling_interval": st.integers(0, 3_600_000).map(lambda ms: f"{ms}ms"),
        "queue_size": st.integers(1, 1000),
    },
)


def points_of(model: type[Point], raw: list[dict[str, Any]]) -> list[Point]:
    points = []
    for at, fields in enumerate(raw):
        try:
            points.append(model.model_validate({"id": f"p{at}", **fields}))
        except ValidationError:
            assume(False)
    return points


@given(
    st.one_of(
        st.tuples(st.just(ModbusPoint), st.lists(modbus, min_size=1, max_size=4)),
        st.tuples(st.just(OpcuaPoint), st.lists(opcua, min_size=1, max_size=4)),
    ),
    st.booleans(),
    st.sampled_from([",", ";", "\t"]),
    st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "gb18030"]),
)
@settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[
        HealthCheck.function_scoped_fixture,
        HealthCheck.filter_too_much,
        HealthCheck.too_slow,
    ],
)
def test_points_written_as_a_table_are_read_back_the_same(
    tmp_path: Path,
    case: tuple[type[Point], list[dict[str, Any]]],
    in_chinese: bool,
    delimiter: str,
    encoding: str,
) -> None:
    model, raw = case
    points = points_of(model, raw)
    written = points_text(points, chinese=in_chinese, delimiter=delimiter)
    if encoding == "gb18030" and not in_chinese:
        encoding = "utf-8"
    path = tmp_path / "points.csv"
    path.write_bytes(written.encode(encoding))
    rows = read_points(path, model)
    assert not rows.faults
    assert [model.model_validate(row) for row in rows.points] == points


@given(st.lists(opcua, min_size=1, max_size=3))
@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow],
)
def test_no_cell_of_a_written_table_is_a_formula(raw: list[dict[str, Any]]) -> None:
    points = points_of(OpcuaPoint, raw)
    rows = list(csv.reader(io.StringIO(points_text(points), newline="")))
    for cell in (cell for row in rows for cell in row):
        if cell[:1] in {"=", "+", "-", "@", "\t", "\r", "\n"}:
            Decimal(cell)


@given(st.integers(0, 10**9))
def test_durations_are_written_as_they_are_read(ms: int) -> None:
    assert parse_duration(duration_text(ms * 10**6)) == ms * 10**6


def write(folder: Path, table: str, encoding: str = "utf-8") -> Path:
    (folder / "meter.csv").write_bytes(table.encode(encoding))
    agent = folder / "agent.toml"
    agent.write_text("")
    return agent


def device(name: str = "meter.csv", **fields: Any) -> dict[str, Any]:
    return {"id": "meter-1", "kind": "modbus", "host": "127.0.0.1", "points": name, **fields}


def faults(folder: Path, table: str, encoding: str = "utf-8") -> list[str]:
    agent = write(folder, table, encoding)
    with pytest.raises(ConfigError) as caught:
        read_devices([device()], agent)
    return [str(fault).removeprefix(f"{folder}/") for fault in caught.value.faults]


GOOD = (
    "id,address,type,unit,measurand,scale\nenergy,holding:0,uint32,kWh,energy.active_import,0.01\n"
)


CHINESE = (
    "点标识,地址,类型,单位,测量量,倍率,备注\n"
    "energy,holding:0,uint32,kWh,energy.active_import,0.01,总表=A1\n"
)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "gb18030"])
@pytest.mark.parametrize(
    "table",
    [
        GOOD,
        GOOD.replace(",", ";"),
        GOOD.replace(",", "\t"),
        "sep=;\n" + GOOD.replace(",", ";"),
        GOOD.replace("\n", "\r\n") + ",,,,,\r\n\r\n",
        CHINESE,
        "ID， Address".replace("， ", ",") + GOOD[len("id,address") :],
        GOOD.replace("0.01", "1E-2"),
    ],
)
def test_a_device_takes_its_points_from_any_spreadsheets_csv(
    tmp_path: Path, table: str, encoding: str
) -> None:
    agent = write(tmp_path, table, encoding)
    (found,) = read_devices([device()], agent)
    (point,) = found.points
    assert (point.id, point.address, point.type, point.unit, point.measurand, point.scale) == (
        "energy",
        "holding:0",
        "uint32",
        "kWh",
        "energy.active_import",
        Decimal("0.01"),
    )


def test_every_fault_of_a_table_is_told_at_once_by_line_and_column(tmp_path: Path) -> None:
    table = (
        "id,address,type,unit,scale,counter.rollover\n"
        "energy,holding:0,uint32,kWh,0.01,\n"
        "energy,holding:2,uint32,kWh,0.01,\n"
        "Power,holding:4,uint33,W,1,\n"
        "\n"
        'net,"holding:6",int32,W,"0,1",1.84467E+19\n'
        "far,holding:70000,int32,W,1,,here\n"
    )
    told = faults(tmp_path, table)
    assert len(told) == 7
    assert told[0].startswith("meter.csv:3, column A (id): point id 'energy' is used twice")
    assert told[1].startswith("meter.csv:6, column F (counter.rollover): a spreadsheet has short")
    assert told[2].startswith("meter.csv:7, column G: a value without a column name")
    assert any(line.startswith("meter.csv:4, column A (id): id: is no id") for line in told)
    assert any(line.startswith("meter.csv:4, column C (type): type:") for line in told)
    assert any(
        line.startswith("meter.csv:6, column E (scale): scale: must be a number") for line in told
    )
    assert any(line.startswith("meter.csv:7, column B (address): address: write") for line in told)


def test_columns_that_nobody_knows_or_that_are_missing_are_told_with_the_likely_word(
    tmp_path: Path,
) -> None:
    told = faults(tmp_path, "id,adress,type,unit,unit\nenergy,holding:0,uint32,kWh,kWh\n")
    assert told == [
        "meter.csv:1, column B: there is no column 'adress' — did you mean 'address'?",
        "meter.csv:1, column E: column 'unit' is there twice",
        "meter.csv:1: has no column 'address'",
    ]


@pytest.mark.parametrize(
    ("table", "word"),
    [
        ('id,address,type\n"energy,holding:0,uint32\n', "type"),
        ("", "has no column 'id'"),
        ("\ufeff", "has no column 'id'"),
        ("id,address,type\n", "at least 1"),
    ],
)
def test_a_table_without_points_is_refused(tmp_path: Path, table: str, word: str) -> None:
    assert word in "\n".join(faults(tmp_path, table))


def test_a_western_file_is_never_read_as_chinese(tmp_path: Path) -> None:
    table = "id,address,type,unit\nheat,holding:0,int16,°C\n"
    assert faults(tmp_path, table, "cp1252") == [
        "meter.csv: is in an unknown character encoding — save it as 'CSV UTF-8'"
    ]


def test_a_missing_table_is_told_by_its_name(tmp_path: Path) -> None:
    agent = tmp_path / "agent.toml"
    agent.write_text("")
    with pytest.raises(ConfigError, match=r"none\.csv: the point table cannot be read"):
        read_devices([device("none.csv")], agent)


def test_the_number_of_faults_shown_is_bounded(tmp_path: Path) -> None:
    table = "id,address,type\n" + "same,holding:0,uint16\n" * 1000
    told = faults(tmp_path, table)
    assert len(told) == 101
    assert told[-1] == "and 899 more faults"


@pytest.mark.parametrize("model", [ModbusPoint, OpcuaPoint])
def test_every_column_has_a_chinese_name(model: type[Point]) -> None:
    assert [key for key in columns_of(model) if key not in _CHINESE] == []
