"""The vocabulary: complete, exact, published, and the same in data, pages and code."""

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from aggregator.cli import app
from protocols.points import Point
from protocols.vocabulary import export, kpi
from protocols.vocabulary.measurands import CONVERSIONS, MEASURANDS, MEDIA, Kind, unit_factor
from protocols.vocabulary.states import (
    LARGEST_CODE,
    STATE_MODELS,
    TIME_ELEMENTS,
    OperatingState,
    TimeElement,
    lookup_table,
)

DOCS = Path(__file__).parents[2] / "docs"


def test_the_published_pages_are_made_from_the_data() -> None:
    """If not: millgate aggregator vocabulary > docs/vocabulary.json, and with --page."""
    page = (DOCS / "vocabulary.md").read_text("utf-8")
    assert export.fill(page) == page
    for name, table in export.tables().items():
        assert f"<!-- {name} -->\n{table}\n<!-- end -->" in page
    assert (DOCS / "vocabulary.json").read_text("utf-8") == export.as_json()


def test_the_command_prints_the_vocabulary_and_renews_a_page(tmp_path: Path) -> None:
    printed = CliRunner().invoke(app, ["vocabulary"])
    assert json.loads(printed.output) == json.loads(export.as_json())
    page = tmp_path / "page.md"
    page.write_text("x\n<!-- states -->\nold\n<!-- end -->\ny\n", "utf-8")
    assert CliRunner().invoke(app, ["vocabulary", "--page", str(page)]).exit_code == 0
    assert page.read_text("utf-8") == (
        f"x\n<!-- states -->\n{export.tables()['states']}\n<!-- end -->\ny\n"
    )


def test_every_measurand_has_its_medium_unit_and_both_names() -> None:
    for one in MEASURANDS.values():
        assert one.en
        assert one.zh
        assert one.medium in {"", *MEDIA}
        assert bool(one.scope) <= bool(one.medium)
        assert one.scope == 0 or one.kind is Kind.COUNTER
    assert {MEASURANDS[name].unit for name in ("heat.hot_water", "steam.saturated")} == {"GJ", "t"}


def test_conversions_lead_to_units_that_measurands_have_and_are_consistent() -> None:
    units = {one.unit for one in MEASURANDS.values()}
    for (source, target), factor in CONVERSIONS.items():
        assert target in units
        assert source != target
        assert factor > 0
        back = CONVERSIONS.get((target, source))
        assert back is None or back * factor == 1
    assert unit_factor("kWh", MEASURANDS["heat.hot_water"]) == Decimal("0.0036")
    assert unit_factor("MPa", MEASURANDS["pressure"]) == 10


@pytest.mark.parametrize(
    ("unit", "measurand"),
    [
        ("m3", "gas.volume_normal"),
        ("Nm3", "gas.volume"),
        ("L", "fuel.diesel"),
        ("t", "heat.hot_water"),
    ],
)
def test_what_no_fixed_number_converts_is_refused(unit: str, measurand: str) -> None:
    assert unit_factor(unit, MEASURANDS[measurand]) is None
    with pytest.raises(ValueError, match=f"unit .{unit}. does not fit measurand {measurand}"):
        Point.model_validate(
            {"id": "p", "address": "x", "type": "t", "unit": unit, "measurand": measurand}
        )


def test_every_state_but_unknown_is_a_time_element_of_iso_22400() -> None:
    assert set(TIME_ELEMENTS) == set(OperatingState) - {OperatingState.UNKNOWN}
    assert TIME_ELEMENTS[OperatingState.RUN] is TimeElement.PRODUCTION
    assert TIME_ELEMENTS[OperatingState.FAULT] is TimeElement.DELAY


@pytest.mark.parametrize("model", sorted(STATE_MODELS))
def test_a_code_that_a_model_does_not_list_is_unknown(model: str) -> None:
    table = lookup_table(model)
    assert len(table) == LARGEST_CODE + 1
    for code, state in enumerate(table.tolist()):
        assert state == STATE_MODELS[model].get(code, OperatingState.UNKNOWN)


def of(**values: float) -> dict[str, Any]:
    return {name: np.array([value], np.float64) for name, value in values.items()}


def figure(name: str, **values: float) -> float:
    formula = kpi.FORMULAS[name]
    elements = of(**values)
    return float(formula.compute(*(elements[name] for name in formula.inputs))[0])


EIGHT_HOURS = {
    "apt": 21_600.0,
    "aupt": 23_400.0,
    "pbt": 28_800.0,
    "pru": 45.0,
    "pq": 432.0,
    "gq": 410.0,
    "adet": 3_600.0,
}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("availability", 0.75),
        ("effectiveness", 0.9),
        ("quality_ratio", 410 / 432),
        ("oee", 410 * 45 / 28_800),
        ("nee", 23_400 / 28_800 * 410 * 45 / 21_600),
        ("technical_efficiency", 21_600 / 25_200),
    ],
)
def test_figures_of_a_shift(name: str, value: float) -> None:
    assert figure(name, **EIGHT_HOURS) == pytest.approx(value, rel=1e-15)


def test_oee_is_the_product_of_its_three_factors_and_never_above_nee() -> None:
    product = (
        figure("availability", **EIGHT_HOURS)
        * figure("effectiveness", **EIGHT_HOURS)
        * figure("quality_ratio", **EIGHT_HOURS)
    )
    assert figure("oee", **EIGHT_HOURS) == pytest.approx(product, rel=1e-14)
    assert figure("oee", **EIGHT_HOURS) <= figure("nee", **EIGHT_HOURS)


@pytest.mark.parametrize("name", sorted(kpi.FORMULAS))
def test_what_cannot_be_computed_is_absent_and_never_zero(name: str) -> None:
    inputs = kpi.FORMULAS[name].inputs
    for missing in inputs:
        values = dict.fromkeys(inputs, 5.0) | {missing: float("nan")}
        assert np.isnan(figure(name, **values))
    assert np.isnan(figure(name, **dict.fromkeys(inputs, 0.0)))
