"""Golden cases: every folder of tests/cases is an input, what must come out, and why."""

import tomllib
from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from aggregator.carbon_codes import find_profile
from aggregator.derivation import Derivation, People
from aggregator.factors import fuel_set, shipped_equivalents
from aggregator.localtime import LocalTime
from aggregator.projection import known_last
from aggregator.revisions import CarbonRules
from aggregator.series import carbon, future_factory
from aggregator.series.derived.site import Context, plan_of
from aggregator.series.future_factory import EnergyTerms
from aggregator.series.products import exact_product
from aggregator.series.slots import ReleasedSlots, merge
from aggregator.stores import Store, embedded
from aggregator.tariffs import NAMES, Tariff, find_tariff
from protocols.batch import NO_VALUE
from protocols.frame import SECOND, Quality
from security.policy.compiled import STATE_PARTS, SheetPoint
from tests.small_factory import block
from tests.unit.gate_material import counter
from tests.unit.test_gate_delta import deltas, of, sums
from tests.unit.test_modbus_decode import decode, points_of

CASES = Path(__file__).parents[1] / "cases"
FOLDERS = sorted(path.parent for path in CASES.glob("*/case.toml"))
NOW = Path("/nonexistent")


def read(folder: Path, name: str) -> dict[str, Any]:
    return tomllib.loads((folder / f"{name}.toml").read_text("utf-8"))


@pytest.mark.parametrize("folder", FOLDERS, ids=[folder.name for folder in FOLDERS])
def test_case(folder: Path, tmp_path: Path) -> None:
    case, expected = read(folder, "case"), read(folder, "expected")
    assert (folder / "README.md").read_text("utf-8").startswith("# ")
    KINDS[case["kind"]](case, expected, tmp_path)


# Series.


def ns(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp()) * SECOND


def sheet_point(number: int, line: Mapping[str, Any], **changes: Any) -> SheetPoint:
    known = {"measurand", "unit", "aggregate", "equipment", "role"}
    step = Decimal(str(line.get("step", "1"))).normalize()
    exponent = min(int(step.as_tuple().exponent), 0)
    base = {
        "number": number,
        "stream": 1,
        "part": "",
        "unit": "1",
        "exponent": exponent,
        "step": int(step.scaleb(-exponent)),
        "aggregate": "delta",
        "equipment": "meter-1",
        "role": "",
    }
    return SheetPoint.model_validate(
        {**base, **{name: line[name] for name in known if name in line}, **changes}
    )


def lines_of(case: Mapping[str, Any]) -> tuple[list[SheetPoint], list[list[Any]]]:
    """Return sheet lines and their values, one list per line."""
    points: list[SheetPoint] = []
    columns: list[list[Any]] = []
    for line in case["point"]:
        number = len(points) + 1
        if line["measurand"] != "machine.state":
            points.append(sheet_point(number, line))
            columns.append(line["values"])
            continue
        for at, part in enumerate(STATE_PARTS):
            changes = {"part": part, "aggregate": "state", "unit": "s" if at else "1"}
            points.append(sheet_point(number + at, line, **changes))
            names = ["end", *STATE_PARTS[1:]]
            columns.append([row if row == "-" else row.get(names[at], 0) for row in line["values"]])
    return points, columns


def cells(points: Sequence[SheetPoint], columns: Sequence[Sequence[Any]]) -> Any:
    rows = max(map(len, columns))
    mantissa = np.zeros((rows, len(points)), np.int64)
    quality = np.full((rows, len(points)), NO_VALUE, np.uint8)
    spans: dict[int, int] = {}
    for at, (point, values) in enumerate(zip(points, columns, strict=True)):
        for row, cell in enumerate(values):
            if cell == "-":
                continue
            value, span = cell if isinstance(cell, list) else (cell, 1)
            quality[row, at] = 0
            mantissa[row, at] = int(Decimal(str(value)).scaleb(-point.exponent))
            if span > 1:
                spans[row * len(points) + at] = span
    return mantissa, quality, spans


class Bench:
    """Two embedded stores, and the rules a case names."""

    def __init__(self, case: Mapping[str, Any], folder: Path) -> None:
        rules = case.get("rules", {})
        self.local = LocalTime(rules.get("zone", "Asia/Shanghai"))
        shipped = CarbonRules.shipped(
            rules.get("region", "CN-ZJ"),
            [],
            rules.get("factor_set", ""),
            rules.get("fuel_set", "cn-fuel-a"),
        )
        self.factors = shipped.factors()
        tariff = None
        if "tariff" in rules:
            tariff = Tariff(find_tariff(rules["tariff"], folder), rules.get("holidays", []))
        self.terms = EnergyTerms(shipped_equivalents().by_unit, tariff)
        config = embedded.Config(path=folder / "store")
        self.stores: dict[str, Store] = {
            name: embedded.Store(config, name) for name in ("future_factory", "carbon_emission")
        }
        (folder / "calendars").mkdir()
        if "calendar" in case:
            (folder / "calendars" / "mill.main.toml").write_text(case["calendar"], "utf-8")
        if "facts" in case:
            head = "enterprise,site,equipment,name,value,from,until,source,entered\n"
            (folder / "facts.csv").write_text(head + case["facts"], "utf-8")
        profile = find_profile("zj-2021-method", folder)
        registers = rules.get("registers", {})
        context = Context(self.local, self.factors, profile, tariff, registers)
        people = People(folder / "facts.csv", folder / "calendars")
        self.derivation = Derivation(self.stores, context, people)

    def run(self, case: Mapping[str, Any]) -> None:
        window_s = case["window_s"]
        points, columns = lines_of(case)
        start = ns(case["start"]) // (window_s * SECOND)
        one = block(start, [p.number for p in points], *cells(points, columns))
        slots = ReleasedSlots("mill", "main", window_s, tuple(points), one)
        found = list(future_factory.project(slots, self.terms))
        self.stores["future_factory"].write(merge(known_last(found)))
        made = list(carbon.project(slots, self.factors, self.local))
        self.stores["carbon_emission"].write(merge(made))
        self.derivation.look()
        plan = plan_of((point, window_s) for point in points)
        site, _ = self.derivation.site("mill", "main", plan)
        hours = [(start * window_s // 3600, (start + one.rows) * window_s // 3600)]
        for first, last in self.derivation.ranges(site, hours):
            self.derivation.derive(site, first, last)


def run_series(case: Mapping[str, Any], expected: Mapping[str, Any], folder: Path) -> None:
    bench = Bench(case, folder)
    bench.run(case)
    for wanted in expected.get("row", []):
        check_row(bench.stores, wanted)
    for wanted in expected.get("total", []):
        check_total(bench.stores, wanted)
    written = {key.measurement for store in bench.stores.values() for key in store.series()}
    assert written.isdisjoint(expected.get("absent", []))


def test_a_day_that_is_derived_alone_makes_no_row_of_the_day_before(tmp_path: Path) -> None:
    """In India a day begins within a UTC hour, which is worked out with both days."""
    line = {"unit": "kWh", "role": "main", "measurand": "energy.active_import", "values": [10] * 48}
    made = {
        "measurand": "production.good",
        "equipment": "press-1",
        "unit": "pcs",
        "values": [1] * 48,
    }
    case = {
        "window_s": 3600,
        "start": "2023-06-01T00:00:00Z",
        "rules": {"zone": "Asia/Kolkata"},
        "point": [line, made],
    }
    bench = Bench(case, tmp_path)
    bench.run(case)
    wanted = {"measurement": "ce_intensity", "field": "quantity", "value": "48"}
    check_total(bench.stores, wanted)
    plan = plan_of((point, 3600) for point in lines_of(case)[0])
    site, _ = bench.derivation.site("mill", "main", plan)
    at = ns("2023-06-02T03:00:00Z") // (3600 * SECOND)
    for first, last in bench.derivation.ranges(site, [(at, at)]):
        bench.derivation.derive(site, first, last)
    check_total(bench.stores, wanted)


def the_series(stores: Mapping[str, Store], wanted: Mapping[str, Any]) -> tuple[Store, Any]:
    bucket = "future_factory" if wanted["measurement"].startswith("ff_") else "carbon_emission"
    tags = set(wanted.get("tags", {}).items())
    keys = [key for key in stores[bucket].series(wanted["measurement"]) if tags <= set(key.tags)]
    assert len(keys) == 1, (wanted, stores[bucket].series(wanted["measurement"]))
    return stores[bucket], keys[0]


def check_row(stores: Mapping[str, Store], wanted: Mapping[str, Any]) -> None:
    store, key = the_series(stores, wanted)
    at = ns(wanted["time"])
    fields = [*wanted.get("fields", {}), *wanted.get("missing", [])]
    found = store.query(key, [*fields, "window_s"], at, at + 1)
    assert len(found) == 1, (wanted, store.query(key, fields, 0, 1 << 62).time)
    for name, value in wanted.get("fields", {}).items():
        cell = found.fields[name][0]
        assert (cell if isinstance(value, str) else Decimal(repr(float(cell)))) == (
            value if isinstance(value, str) else Decimal(str(value))
        ), (name, cell, value)
    for name in wanted.get("missing", []):
        column = found.fields.get(name)
        assert column is None or np.isnan(np.asarray(column, np.float64)).all(), name


def check_total(stores: Mapping[str, Store], wanted: Mapping[str, Any]) -> None:
    """The exact sum of one field over some series."""
    bucket = "future_factory" if wanted["measurement"].startswith("ff_") else "carbon_emission"
    tags = set(wanted.get("tags", {}).items())
    total = Decimal(0)
    for key in stores[bucket].series(wanted["measurement"]):
        if tags <= set(key.tags):
            found = stores[bucket].query(key, [wanted["field"]], 0, 1 << 62)
            values = np.asarray(found.fields.get(wanted["field"], []), np.float64)
            total += sum((Decimal(repr(value)) for value in values.tolist()), Decimal(0))
    assert total == Decimal(str(wanted["value"])), (wanted, total)


# Tariffs, grades, factors.


def run_tariff(case: Mapping[str, Any], expected: Mapping[str, Any], folder: Path) -> None:
    tariff = Tariff(find_tariff(case["tariff"], folder), case.get("holidays", []))
    for time, period in expected["period"].items():
        starts = np.array([ns(time)], np.int64)
        assert NAMES[int(tariff.codes(starts, case["window_s"])[0])] == period, time


def run_grade(case: Mapping[str, Any], expected: Mapping[str, Any], folder: Path) -> None:
    profile = find_profile(case["profile"], folder)
    assert {k: profile.grade_of(Decimal(k)) for k in case["K"]} == expected["grade"]
    assert {value: profile.level_of(Decimal(value)) for value in case["L"]} == expected["level"]


def run_factor(case: Mapping[str, Any], expected: Mapping[str, Any], folder: Path) -> None:
    for fuel, row in expected["kg"].items():
        one = fuel_set(case["fuel_set"]).factor_set(fuel)
        assert one is not None
        found = exact_product(np.array([row["amount"]]), 0, one.factor[0].exact)
        assert one.activity_unit == row["unit"]
        assert round(Decimal(float(found[0])), row.get("digits", 2)) == Decimal(row["co2"])


# Meters and registers, in the factory.


def run_meter(case: Mapping[str, Any], expected: Mapping[str, Any], _: Path) -> None:
    owner = of(counter("c", rollover=case.get("rollover")), real=True)
    samples = [(at, value, *(BAD[word] for word in rest)) for at, value, *rest in case["readings"]]
    found = deltas(owner, samples, step=case["step"], until_s=case.get("until_s"))
    assert {str(slot): list(cell) for slot, cell in found.items()} == expected["slot"]
    assert sums(found) == expected["total"]


BAD = {"bad": int(Quality.BAD)}


def run_sentinel(case: Mapping[str, Any], expected: Mapping[str, Any], _: Path) -> None:
    for name, point in case["register"].items():
        (made,) = points_of({"type": point["type"], "invalid": point["invalid"]})
        words = [int(word, 16) for word in point["words"]]
        value, quality = decode([made], [words])[0][0]
        wanted = expected["value"][name]
        assert quality == (Quality.BAD if wanted == "none" else Quality.GOOD), name
        assert wanted in {"none", value}, name


KINDS = {
    "meter": run_meter,
    "sentinel": run_sentinel,
    "series": run_series,
    "tariff": run_tariff,
    "grade": run_grade,
    "factor": run_factor,
}


def test_there_are_cases_of_every_kind() -> None:
    assert {read(folder, "case")["kind"] for folder in FOLDERS} == set(KINDS)
