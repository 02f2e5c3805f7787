"""What is suspended leaves as missing until a person has looked, over restarts too."""

from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from agent import cli
from agent.strange import MOST_SLOTS, Strange
from agent.suspended import DAY_S, Keeper, Suspended, suspended_path, without
from protocols.batch import NO_VALUE, Block
from protocols.errors import MillgateError
from protocols.frame import SECOND, Frame
from security.policy.compiled import Rule
from tests.unit.gate_material import Clock, counter, frame, point, rule, table
from tests.unit.test_gate_side import Sealed, feed, gate_in, running, side_of

OWNER = table([counter("energy"), point("power", "power.active", scale="0.1")])
RULES = [rule(OWNER, "energy", 1), rule(OWNER, "power", 2)]
STREAM = RULES[0].stream
NOW_S = 1_767_600_000


def ranged(low: str, high: str) -> list[Rule]:
    return [RULES[0], RULES[1].model_copy(update={"range": [low, high]})]


def block() -> Block:
    return Block(
        slot=4,
        numbers=np.array([1, 2]),
        mantissa=np.array([[5, 6], [7, 8]]),
        quality=np.zeros((2, 2), np.uint8),
        span_cells=np.array([0, 3]),
        spans=np.array([2, 3]),
    )


# Rule 2: exceptions in the gate.


def test_a_second_exception_in_a_day_suspends_the_stream_and_one_does_not() -> None:
    suspended = Suspended()
    assert not suspended.fault(7, NOW_S)
    assert not suspended.fault(8, NOW_S + 5)
    assert not suspended.fault(7, NOW_S + DAY_S + 1)
    assert suspended.fault(7, NOW_S + DAY_S + 60)
    assert suspended.names() == ["stream-7"]
    assert not suspended.fault(7, NOW_S + DAY_S + 61)


async def test_a_gate_that_fails_twice_lets_nothing_of_the_stream_leave_but_missing_slots(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    clock, sealed = Clock(), Sealed()
    side = side_of(clock)
    async with running(side, sealed):
        await feed(side, clock, range(25))
        before = sealed.found
        assert before
        (lane,) = gate_in(side)._lanes["dev"]
        with monkeypatch.context() as patched:
            for start in (25, 36):
                patched.setattr(lane, "take", lambda _: 1 // 0)
                await feed(side, clock, range(start, start + 1))
                patched.undo()
                await feed(side, clock, range(start + 1, start + 11))
        await feed(side, clock, range(47, 73))
    late = {at for at in sealed.found if at[1] >= 4}
    assert late == set()
    rows = [b for m in sealed.kept for blocks in m.streams.values() for b in blocks]
    assert max(b.slot + b.rows for b in rows) * 10 >= clock.ns // SECOND - 15
    assert "suspended" in caplog.text
    assert "division" not in caplog.text


# Rule 3: readings that are not what was signed.


def readings(value: int, s: int) -> Frame:
    return frame(OWNER, s, {"power": value})


def test_readings_out_of_the_signed_range_in_three_slots_suspend_the_point() -> None:
    strange = Strange(ranged("0", "50"), {OWNER.device: OWNER})
    window = RULES[1].window_s
    found = []
    for slot in range(6):
        now = (NOW_S + slot * window) * SECOND
        # 0.1 W a step, as the register gives it; the range is in the measurand's unit.
        strange.take(readings(501 if slot >= 1 else 500, slot * window))
        found.append(strange.names(now + (window - 1) * SECOND))
    assert found[: MOST_SLOTS + 1] == [[]] * MOST_SLOTS + [["dev/power"]]


def test_a_strange_reading_now_and_then_suspends_nothing() -> None:
    strange = Strange(ranged("0", "50"), {OWNER.device: OWNER})
    window = RULES[1].window_s
    for slot in range(40):
        strange.take(readings(501 if slot % 3 else 500, slot * window))
        now = (NOW_S + slot * window) * SECOND
        assert strange.names(now + (window - 1) * SECOND) == []


def test_a_type_that_was_not_signed_is_strange() -> None:
    strange = Strange(RULES, {OWNER.device: OWNER})
    window, found = RULES[1].window_s, list[str]()
    for slot in range(6):
        right = readings(5, slot * window)
        strange.take(
            Frame(
                device=right.device,
                columns=right.columns,
                time=right.time,
                values=right.values.astype(np.float64),
                quality=right.quality,
            )
        )
        found += strange.names((NOW_S + slot * window + window - 1) * SECOND)
    assert "dev/power" in found


def test_withheld_points_are_never_strange() -> None:
    secret = table([point("power", "power.active"), point("secret", "power.active")])
    strange = Strange([rule(secret, "power", 1)], {"dev": secret})
    for slot in range(10):
        wrong = frame(secret, slot * 10, {"secret": 1})
        strange.take(
            Frame(
                device="dev",
                columns=wrong.columns,
                time=wrong.time,
                values=wrong.values.astype(np.float64),
                quality=wrong.quality,
            )
        )
        assert strange.names((NOW_S + slot * 10 + 9) * SECOND) == []


def test_what_is_suspended_leaves_as_if_it_were_missing() -> None:
    streams = {STREAM: [block()]}
    assert without(streams, Suspended(), RULES) is streams
    only = without(streams, Suspended(points={"dev/power": 1}), RULES)[STREAM][0]
    assert only.mantissa.tolist() == [[5, 0], [7, 0]]
    assert only.quality.tolist() == [[0, NO_VALUE], [0, NO_VALUE]]
    assert (only.span_cells.tolist(), only.spans.tolist()) == ([0], [2])
    everything = without(streams, Suspended(streams={STREAM: 1}), RULES)[STREAM][0]
    assert everything.values == 0
    assert (everything.slot, everything.rows) == (4, 2)
    assert len(everything.span_cells) == 0


# Until a person has looked.


def test_a_restart_acknowledges_nothing_and_a_person_does(tmp_path: Path) -> None:
    path = tmp_path / "gate" / "suspended.json"
    keeper = Keeper(path)
    assert keeper.note([7], ["dev/power"], NOW_S) == ["dev/power"]
    assert Keeper(path).note([7], ["dev/power"], NOW_S + 60) == ["stream-7"]
    again = Keeper(path)
    assert again.now.names() == ["stream-7", "dev/power"]
    assert again.acknowledge(["dev/power", "dev/other", "stream-7", "stream-9"]) == [
        "dev/power",
        "stream-7",
    ]
    keeper.refresh()
    assert keeper.now.names() == []
    # Acknowledged, the first fault counts no more either.
    assert keeper.note([7], [], NOW_S + 90) == []


@pytest.mark.parametrize("spoilt", [b"", b"[]", b'{"streams": {}}', b'{"streams": 1}'])
def test_a_damaged_list_is_not_taken_for_an_empty_one(tmp_path: Path, spoilt: bytes) -> None:
    path = tmp_path / "suspended.json"
    path.write_bytes(spoilt)
    with pytest.raises(MillgateError, match="damaged"):
        Keeper(path)


def test_the_command_acknowledges_and_names_what_is_suspended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Config:
        class spool:  # noqa: N801 - as the configuration names it
            folder = tmp_path

    monkeypatch.setattr(cli, "read_config", lambda _: Config)
    keeper = Keeper(suspended_path(Config))  # type: ignore[arg-type] # all that is read of it
    keeper.note([], ["dev/power", "dev/energy"], NOW_S)
    runner = CliRunner()
    done = runner.invoke(cli.app, ["acknowledge", "agent.toml", "dev/power"])
    assert done.exit_code == 0
    assert "dev/power" in done.stdout
    missed = runner.invoke(cli.app, ["acknowledge", "agent.toml", "dev/pwer"])
    assert isinstance(missed.exception, MillgateError)
    assert "dev/energy" in str(missed.exception)
    keeper.refresh()
    assert keeper.now.names() == ["dev/energy"]
