"""What people are told when a word that they wrote is none that may stand there."""

from pathlib import Path

import pytest

from protocols.drivers import read_devices
from protocols.errors import ConfigError
from protocols.language import spoken_to
from protocols.vocabulary.measurands import MEASURANDS
from protocols.vocabulary.missing import no_such_measurand
from protocols.words import instead_of, nearest


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("energy.active_imprt", "energy.active_import"),
        ("Energy.Active_Import", "energy.active_import"),
        ("energy-active-import", "energy.active_import"),
        ("energy．active＿import", "energy.active_import"),
        ("active_import", "energy.active_import"),
        ("active.power", "power.active"),
        ("ActivePower", "power.active"),
        ("reactive_power", "power.reactive"),
        ("total.active.power", "power.active"),
        ("power.activ", "power.active"),
        ("energy", "energy.active_import"),
        ("water", "water.volume"),
        ("产量", ""),
    ],
)
def test_the_word_that_was_meant_is_found_however_it_is_written(written: str, meant: str) -> None:
    assert nearest(written, MEASURANDS) == meant


@pytest.mark.parametrize(
    ("written", "unit", "meant"),
    [
        ("power", "var", "power.reactive"),
        ("active", "kWh", "energy.active_import"),
        ("active", "kW", "power.active"),
        ("power_factor", "W", "power.factor"),
        ("power", "1", "power.active"),
    ],
)
def test_of_measurands_alike_the_one_that_has_the_unit_is_meant(
    written: str, unit: str, meant: str
) -> None:
    with spoken_to(chinese=False):
        assert f"'{meant}'?" in no_such_measurand(written, unit).remedy


def test_a_long_list_is_named_and_not_printed() -> None:
    with spoken_to(chinese=False):
        said = instead_of("energy.activ_import", MEASURANDS, "docs/vocabulary.md")
    assert said == (
        f"did you mean 'energy.active_import'? all {len(MEASURANDS)}: docs/vocabulary.md"
    )
    with spoken_to(chinese=True):
        assert instead_of("x", MEASURANDS, "a.md") == f"全部 {len(MEASURANDS)} 个见 a.md"


def test_a_short_list_is_shown_whole_in_both_languages() -> None:
    with spoken_to(chinese=False):
        assert instead_of("mena", ["", "mean", "max"]) == (
            "did you mean 'mean'? there are: mean, max"
        )
    with spoken_to(chinese=True):
        assert instead_of("mena", ["mean", "max"]) == "是否应为 'mean'？可用：mean, max"
        assert instead_of("mena", []) == "目前一个也没有"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"measurand": "energy.activ_import"}, "did you mean 'energy.active_import'?"),
        ({"unit": "KWH"}, "did you mean 'kWh'?"),
        ({"measurand": "machine.state", "unit": "1", "state_model": "packm"}, "'packml'?"),
        ({"type": "unt32"}, "did you mean 'uint32'?"),
    ],
)
def test_a_mistyped_word_of_a_point_is_answered_in_one_short_line(
    change: dict[str, str], says: str
) -> None:
    point = {
        "id": "energy",
        "address": "holding:0",
        "type": "uint32",
        "unit": "kWh",
        "measurand": "energy.active_import",
    }
    table = {
        "id": "meter",
        "kind": "modbus",
        "host": "127.0.0.1",
        "unit": 1,
        "interval": "1s",
        "points": [point | change],
    }
    with pytest.raises(ConfigError) as caught, spoken_to(chinese=False):
        read_devices([table], Path("agent.toml"))
    line = str(caught.value)
    assert says in line
    assert len(line) < 300
