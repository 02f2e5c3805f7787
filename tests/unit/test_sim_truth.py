"""The truth file: written in order, read strictly, whole after a crash."""

import json
from pathlib import Path

import numpy as np
import pytest

from protocols.errors import MillgateError
from protocols.frame import SECOND
from simulators.plant import ROLLOVER, Plant
from simulators.truth import ENERGY_AT, POWER_AT, TruthFile, known_plant, read_truth

START = 1_795_392_000 * SECOND
PLANT = Plant(7, START, ROLLOVER - 10)


def serve(path: Path, *times: int, first: int = 0, registers: int = 12) -> None:
    truth = TruthFile(path, PLANT)
    for t in times:
        truth.reading(t, first, registers, PLANT.meter(t).energy, PLANT.meter(t).power)
    truth.close()


def test_what_was_recorded_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "truth.jsonl"
    times = [START + at * SECOND for at in range(20_500)]
    serve(path, *times)
    truth = read_truth(path)
    assert truth.plant == PLANT == known_plant(path)
    np.testing.assert_array_equal(truth.time, times)
    assert truth.energy.tolist() == [PLANT.meter(t).energy for t in times]
    assert truth.power.tolist() == [PLANT.meter(t).power for t in times]
    assert truth.serving(ENERGY_AT).all()


@pytest.mark.parametrize(
    ("first", "registers", "energy", "power"),
    [
        (0, 12, True, True),
        (0, 2, True, False),
        (0, 1, False, False),
        (2, 2, False, True),
        (1, 3, False, True),
        (4, 8, False, False),
    ],
)
def test_a_reading_tells_which_registers_it_served(
    tmp_path: Path, first: int, registers: int, energy: bool, power: bool
) -> None:
    serve(tmp_path / "t", START, first=first, registers=registers)
    truth = read_truth(tmp_path / "t")
    assert truth.serving(ENERGY_AT).tolist() == [energy]
    assert truth.serving(POWER_AT).tolist() == [power]


def test_a_restarted_plant_appends(tmp_path: Path) -> None:
    path = tmp_path / "t"
    serve(path, START, START + 1)
    serve(path, START + 2)
    assert read_truth(path).time.tolist() == [START, START + 1, START + 2]
    assert sum("kind" in line for line in path.read_text().splitlines()) == 2


def test_a_torn_last_line_costs_only_itself(tmp_path: Path) -> None:
    path = tmp_path / "t"
    serve(path, START, START + 1)
    whole = path.read_bytes()
    for cut in range(1, 60):
        path.write_bytes(whole[:-cut])
        assert read_truth(path).time.tolist()[0] == START
        serve(path, START + 2)
        assert read_truth(path).time.tolist()[-1] == START + 2
        assert len(read_truth(path).time) == 2


def test_a_file_that_tore_in_its_first_line_begins_anew(tmp_path: Path) -> None:
    path = tmp_path / "t"
    path.write_text('{"kind": "millgate-tr')
    serve(path, START)
    assert read_truth(path).time.tolist() == [START]


def test_another_plant_may_not_append(tmp_path: Path) -> None:
    path = tmp_path / "t"
    serve(path, START)
    for other in (Plant(8, START, ROLLOVER - 10), Plant(7, START, 5), Plant(7, START + SECOND)):
        with pytest.raises(MillgateError, match="another plant"):
            TruthFile(path, other)


def test_a_file_of_two_plants_is_refused(tmp_path: Path) -> None:
    serve(tmp_path / "one", START)
    TruthFile(tmp_path / "other", Plant(8, START)).close()
    both = tmp_path / "both"
    both.write_bytes((tmp_path / "one").read_bytes() + (tmp_path / "other").read_bytes())
    with pytest.raises(MillgateError, match="another plant"):
        read_truth(both)


@pytest.mark.parametrize(
    "line",
    [
        "no json",
        "[]",
        "{}",
        '{"t":1,"first":0,"registers":2,"energy":1,"power":1.5}',
        '{"t":1,"first":0,"registers":2,"energy":1,"power":true}',
        '{"t":1,"first":0,"registers":2,"energy":1,"power":1,"more":1}',
        '{"kind":"millgate-truth/2"}',
        '{"kind":"millgate-truth/1","seed":7}',
        '{"kind":"millgate-truth/1","seed":7,"start_ns":1,"energy_start":null}',
    ],
)
def test_a_damaged_line_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "t"
    serve(path, START)
    path.write_text(path.read_text() + line + "\n")
    with pytest.raises(MillgateError, match="not a line of a truth file") as caught:
        read_truth(path)
    assert caught.value.where == f"{path}:3"


def test_a_file_without_a_plant_or_no_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MillgateError, match="cannot be used"):
        read_truth(tmp_path / "none")
    assert known_plant(tmp_path / "none") is None
    empty = tmp_path / "empty"
    empty.touch()
    with pytest.raises(MillgateError, match="not a line"):
        read_truth(empty)


def test_a_file_that_cannot_be_written_is_one_fault(tmp_path: Path) -> None:
    with pytest.raises(MillgateError, match="cannot be used"):
        TruthFile(tmp_path, PLANT)
    (tmp_path / "file").touch()
    with pytest.raises(MillgateError, match="cannot be used"):
        TruthFile(tmp_path / "file" / "t", PLANT)


def test_a_full_disk_is_reported() -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("this system has no /dev/full")
    with pytest.raises(MillgateError, match="cannot be used"):
        TruthFile(full, PLANT).close()


def test_the_header_names_the_devices(tmp_path: Path) -> None:
    serve(tmp_path / "t")
    header = json.loads((tmp_path / "t").read_text())
    assert header == {
        "kind": "millgate-truth/1",
        "seed": 7,
        "start_ns": START,
        "energy_start": ROLLOVER - 10,
        "devices": {"meter": "meter-1", "machine": "machine-1"},
    }
