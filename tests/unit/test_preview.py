"""Preview: what it shows is what the gate lets out, and its files hold nothing else."""

import csv
import io
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from protocols.batch import Block
from protocols.errors import MillgateError
from protocols.frame import SECOND
from security.policy.tools import preview as tool
from security.policy.tools.csv_past import read_csv_past
from security.policy.tools.past import Past
from security.policy.tools.preview import Preview
from tests.unit.gate_material import (
    T0,
    T0_S,
    Clock,
    cells_of,
    counter,
    frame,
    gate_of,
    point,
    policy,
    rule,
    table,
)

CANARY = "987654.25"
TABLE = table([counter("energy"), point("power", "power.active"), point("recipe", "other")])
RULES = [
    rule(TABLE, "energy", 1, equipment="main-meter"),
    rule(TABLE, "power", 2, step="5", equipment="main-meter"),
]


def past() -> Past:
    frames = [
        frame(TABLE, s, {"energy": 7 * s, "power": 40 + s % 9, "recipe": 4711 + s})
        for s in range(65)
    ]
    return Past({TABLE.device: TABLE}, frames)


def seen() -> Preview:
    return Preview.of(policy(RULES), past())


def test_rows_are_those_that_the_running_gate_lets_out() -> None:
    clock = Clock()
    gate = gate_of(TABLE, RULES, clock)
    streams: dict[int, list[Block]] = {}
    for s, one in enumerate(past().frames):
        clock.set(s)
        gate.advance()
        gate.feed(one)
    clock.set(66)
    gate.advance()
    for stream, blocks in gate.take().items():
        streams.setdefault(stream, []).extend(blocks)
    expected = {
        (number, T0_S // 10 + slot): mantissa
        for (number, slot), (mantissa, _, _) in cells_of(streams).items()
    }
    found = {
        (number, int(slot)): int(mantissa)
        for number, one in seen().played.released.items()
        for slot, mantissa in zip(one.slot, one.mantissa, strict=True)
    }
    assert found == expected
    assert len(found) == 12


@pytest.mark.parametrize("rows", [2, 5, 10])
def test_how_many_rows_of_a_past_travel_together_changes_nothing(rows: int) -> None:
    rules = [rule(TABLE, "energy", 1, window_s=5), rule(TABLE, "power", 2, window_s=5, step="5")]

    def played(at_once: int) -> str:
        frames = [
            frame(
                TABLE,
                range(s, s + at_once),
                {"energy": [7 * at for at in range(s, s + at_once)], "power": 40},
            )
            for s in range(0, 60, at_once)
        ]
        return tool.as_csv(Preview.of(policy(rules), Past({TABLE.device: TABLE}, frames)))

    assert played(rows) == played(1)


def test_files_hold_what_leaves_and_no_name_or_value_that_stays() -> None:
    shown = seen()
    written = tool.as_csv(shown)
    assert len(list(csv.reader(io.StringIO(written)))) == 1 + shown.values
    for text in (written, tool.as_html(shown)):
        assert "main-meter" in text
        assert "recipe" not in text
        assert "4711" not in text
        assert "holding:" not in text
        assert f"{TABLE.device}/" not in text


def test_the_terminal_shows_what_stays_beside_it() -> None:
    console = Console(record=True, width=160, file=io.StringIO())
    tool.show(seen(), console, 2)
    text = console.export_text()
    assert "dev/recipe" in text
    assert "10 values" in text
    assert "12 values would leave" in text


def test_slots_that_end_beyond_the_past_are_not_shown() -> None:
    slots = seen().played.released[1].slot - T0_S // 10
    assert slots.tolist() == [0, 1, 2, 3, 4, 5]


def test_a_rule_whose_source_is_another_is_told_and_releases_nothing() -> None:
    wrong = rule(TABLE, "energy", 1, address="holding:other")
    shown = Preview.of(policy([wrong]), past())
    assert shown.values == 0
    assert len(shown.played.suspended) == 1


def test_an_expired_policy_can_be_previewed() -> None:
    shown = Preview.of(policy(RULES, valid_until=1), past())
    assert shown.values == 12


# History as CSV.


class Device:
    """A device as its configuration gives it."""

    id = TABLE.device

    def table(self) -> object:
        return TABLE


def read(tmp_path: Path, text: str) -> Past:
    path = tmp_path / "past.csv"
    path.write_text(text, encoding="utf-8")
    return read_csv_past(path, [Device()])  # type: ignore[list-item]  # only id and table are used


def test_a_csv_gives_the_values_it_says(tmp_path: Path) -> None:
    found = read(
        tmp_path,
        "time,dev/energy,dev/power\n"
        "2026-01-05T16:00:00+08:00,100,5\n"
        "2026-01-05T08:00:01Z,,6\n"
        f"{T0_S + 7},103,7\n",
    )
    times, values = found.column("dev", "energy")
    assert values.tolist() == [100.0, 103.0]
    assert (times[1] - T0) // SECOND == 7
    assert found.column("dev", "power")[1].tolist() == [5.0, 6.0, 7.0]
    assert found.column("dev", "recipe")[1].dtype == np.float64
    assert any("dev/recipe" in note for note in found.notes)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("zeit,dev/energy\n", 1),
        ("time,dev/enregy\n", 1),
        ("time,dev/energy,dev/energy\n", 1),
        ("time,dev/energy\n2026-01-05T08:00:00,1\n", 2),
        ("time,dev/energy\n5,1\n4,1\n", 3),
        ("time,dev/energy\n5,1,2\n", 2),
        (f"time,dev/energy\n5,{CANARY}\n", 2),
        ("time,dev/energy\n5,abc\n", 2),
        ("time,dev/energy\n5,nan\n", 2),
        ("time,dev/energy\n5,1e999\n", 2),
    ],
)
def test_a_fault_in_a_csv_names_its_line_and_repeats_no_value(
    tmp_path: Path, text: str, line: int
) -> None:
    with pytest.raises(MillgateError) as caught:
        read(tmp_path, text)
    assert f"past.csv:{line}" in str(caught.value)
    assert CANARY not in str(caught.value)


def test_an_empty_past_is_told(tmp_path: Path) -> None:
    with pytest.raises(MillgateError):
        Preview.of(policy(RULES), read(tmp_path, "time,dev/energy\n"))
