"""Scan, probe, read and the wizard against real Modbus devices."""

import asyncio
import json
import os
import pty
import random
import select
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from agent.config import read_config
from agent.onboarding import scan_cli
from agent.onboarding.looking import judged, views
from agent.onboarding.profiles import shipped
from protocols.drivers.modbus import Config
from protocols.drivers.modbus.survey import Bounds, Spent, Survey, find_ranges, find_units
from protocols.errors import MillgateError
from simulators.faults.modbus_lies import Pace
from simulators.faults.modbus_server import ChaosModbus, chaos_modbus
from simulators.faults.modbus_wire import NO_ANSWER, Refusal
from simulators.faults.plan import Sprinkle
from tests.contract.test_profiles import MODBUS, device_like
from tests.mill_folder import call, make_mill, told
from tests.servers.registers import Memory, serving

LONG = 60
METER = {"scale": "tenths", "energy": "h101e", "side": "direct"}


class Gateway:
    """Several units behind one address; a unit that is not there is told so."""

    def __init__(self, units: dict[int, Memory]) -> None:
        self.units = units

    def read(self, unit: int, function: int, first: int, count: int) -> bytes:
        if unit not in self.units:
            raise Refusal(NO_ANSWER)
        return self.units[unit].read(1, function, first, count)


def filled(*spans: tuple[str, int, int]) -> Memory:
    memory = Memory()
    for table, first, last in spans:
        for at in range(first, last + 1):
            memory.words[table, at] = 0xA5A5
    return memory


def config(port: int, **more: Any) -> Config:
    return Config.model_validate(
        {
            "id": "meter",
            "kind": "modbus",
            "host": "127.0.0.1",
            "port": port,
            "timeout": "500ms",
            "points": [{"id": "x", "address": "holding:0", "type": "uint16"}],
            **more,
        }
    )


@asynccontextmanager
async def asking(device: Any, **bounds: Any) -> AsyncIterator[tuple[Survey, ChaosModbus]]:
    limits = Bounds(**({"per_second": 10_000.0} | bounds))
    async with chaos_modbus(device) as server, Survey(config(server.port), limits) as survey:
        yield survey, server


def quiet(_: object) -> None:
    """Show no progress."""


async def test_units_behind_a_gateway_are_found_and_no_others() -> None:
    gateway = Gateway({unit: filled(("input", 5, 9)) for unit in (2, 7)})
    async with asking(gateway) as (survey, _):
        assert await find_units(survey, range(1, 11), quiet) == [2, 7]


@pytest.mark.parametrize(
    "spans",
    [
        [("holding", 0, 0)],
        [("holding", 0, 11), ("input", 0, 11)],
        [("holding", 8192, 8275), ("holding", 4126, 4139)],
        [("input", 4990, 5110), ("holding", 30000, 30499)],
        [("holding", 65500, 65535)],
    ],
)
async def test_readable_ranges_are_found_exactly(spans: list[tuple[str, int, int]]) -> None:
    hints = {"holding": [8192, 4126, 65500], "input": [5000]}
    async with asking(filled(*spans), requests=5000) as (survey, _):
        ranges = await find_ranges(survey, 1, hints, quiet)  # type: ignore[arg-type] # plain words
    found = sorted(
        (table, span.first, span.last) for table, some in ranges.spans.items() for span in some
    )
    assert found == sorted(spans)
    assert ranges.complete


async def test_a_hole_inside_a_range_is_not_claimed() -> None:
    memory = filled(("holding", 0, 99))
    for at in range(40, 44):
        del memory.words["holding", at]
    async with asking(memory, requests=5000) as (survey, _):
        ranges = await find_ranges(survey, 1, {}, quiet)
    assert [(span.first, span.last) for span in ranges.spans["holding"]] == [(0, 39), (44, 99)]


async def test_a_scan_only_reads_and_stays_within_its_requests_and_pace(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    memory = filled(("holding", 0, 999))
    async with asking(memory, requests=50) as (survey, server):
        ranges = await find_ranges(survey, 1, {}, quiet)
        assert not ranges.complete
        with pytest.raises(Spent):
            await survey.read("holding", 0, 1)
        assert server.requests == 50
    assert {function for function, _, _ in memory.asked} <= {1, 2, 3, 4}
    async with asking(memory, per_second=50.0) as (survey, _):
        waits: list[float] = []

        async def sleep(seconds: float) -> None:
            waits.append(seconds)

        await survey.read("holding", 0, 1)
        monkeypatch.setattr("protocols.drivers.modbus.survey.asyncio.sleep", sleep)
        for _ in range(5):
            await survey.read("holding", 0, 1)
    assert len([wait for wait in waits if 0 < wait <= 1 / 50]) == 5


@pytest.mark.parametrize(
    "lie",
    [
        "wrong-transaction",
        "wrong-unit",
        "wrong-function",
        "short-reply",
        "garbage",
        "hang-up",
        "restart",
        "exception-1",
        "exception-6",
        "exception-11",
        "no-reply",
    ],
)
async def test_ranges_are_right_on_a_bad_line(lie: str) -> None:
    memory = filled(("holding", 0, 99), ("input", 256, 300))
    plan = Sprinkle([lie], 0.05, random.Random(1))
    pace = Pace(late_s=0.1, drip_s=0.01, away_s=0.02, gateway_s=0.02)
    bounds = Bounds(per_second=10_000.0, requests=5000)
    async with (
        chaos_modbus(memory, plan=plan, seed=3, pace=pace) as server,
        Survey(config(server.port, timeout="100ms"), bounds) as survey,
    ):
        ranges = await find_ranges(survey, 1, {}, quiet)
        assert server.played[lie]
    spans = {(table, one.first, one.last) for table, some in ranges.spans.items() for one in some}
    for table, first, last in spans:
        assert all((table, at) in memory.words for at in range(first, last + 1))
    assert ("holding", 0, 99) in spans
    if ranges.complete:
        assert spans == {("holding", 0, 99), ("input", 256, 300)}


async def run(*words: object) -> Any:
    return await asyncio.to_thread(call, *words)


async def test_a_scan_tells_ranges_and_likely_profiles_and_keeps_no_value(tmp_path: Path) -> None:
    path = make_mill(tmp_path)
    memory = device_like(MODBUS["acrel-adw300"], {})
    async with serving(memory) as server:
        words = ("--units", "1", "--per-second", "200", "--json")
        done = await run("scan", path, f"127.0.0.1:{server.port}", *words)
    assert done.exit_code == 0, done.output
    found = json.loads(done.output)
    (unit,) = found["units"]
    assert {"first": 20, "last": 22, "whole": True} in unit["readable"]["holding"]
    assert unit["perhaps"] == ["acrel-adw300"]
    kept = (path.parent / "data" / "discovered.json").read_text(encoding="utf-8")
    for word in {str(word) for word in memory.words.values() if word > 255}:
        assert f" {word}" not in kept + done.output


@pytest.mark.parametrize("text", ["", "1-", "256", "a", "1,,2", "-3"])
def test_unit_ids_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(MillgateError, match="is no unit id"):
        scan_cli._units(text)


def test_unit_ids_are_read_as_people_write_them() -> None:
    assert scan_cli._units("1-3, 255,2") == [1, 2, 3, 255]


# Probe.


def test_the_right_type_and_order_stands_out_among_all() -> None:
    memory = Memory()
    memory.put("holding:0", "float32", 2301.5, "CDAB")
    data = b"".join(memory.words["holding", at].to_bytes(2, "big") for at in (0, 1))
    found = {(view.kind, view.order): view for view in views([data])}
    right = found["float32", "CDAB"]
    assert right.value == 2301.5
    assert right.hints == ("mains? V × 0.1",)
    assert found["float32", "ABCD"].odd
    wide = [one for one in found.values() if one.kind.endswith("32")]
    assert [one for one in wide if one.hints and not one.odd] == [right]


@pytest.mark.parametrize(
    ("kind", "numbers", "word", "odd"),
    [
        ("float32", [1e-41], "too small", True),
        ("float32", [float("nan")], "no such number", True),
        ("uint16", [65535], "no value", True),
        ("int32", [2**31 - 1], "no value", True),
        ("uint32", [100, 101, 101], "counter", False),
        ("uint32", [100, 99, 105], "changes", False),
        ("uint16", [5001], "Hz × 0.01", False),
        ("float32", [0.95], "power factor", False),
        ("uint32", [42, 42], "", False),
    ],
)
def test_hints_say_what_numbers_look_like(
    kind: str, numbers: list[float], word: str, odd: bool
) -> None:
    hints, is_odd = judged(kind, numbers)
    assert word in " ".join(hints)
    assert is_odd is odd


@asynccontextmanager
async def configured(tmp_path: Path) -> AsyncIterator[Path]:
    path = make_mill(tmp_path)
    async with serving(device_like(MODBUS["chint-dtsu666"], METER)) as server:
        target = f"127.0.0.1:{server.port}"
        words = ("--id", "meter-1", "--profile", "chint-dtsu666")
        done = await run("add", path, target, *words, "--with", "interval=50ms")
        assert done.exit_code == 0, done.output
        yield path


def contents(folder: Path) -> dict[Path, bytes]:
    return {one: one.read_bytes() for one in folder.rglob("*") if one.is_file()}


async def test_a_device_is_added_with_its_points_from_a_spreadsheet(tmp_path: Path) -> None:
    path = make_mill(tmp_path)
    table = tmp_path / "from office.csv"
    table.write_text("id,address,type,unit\nheat,holding:7,int16,degC\n", encoding="utf-8")
    before = path.read_bytes()
    words = ("add", path, "127.0.0.1:502", "--id", "oven", "--table", table, "--yes")
    shown = await run(*words, "--dry-run")
    assert shown.exit_code == 0, shown.output
    assert path.read_bytes() == before
    done = await run(*words)
    assert done.exit_code == 0, done.output
    assert path.read_bytes().startswith(before)
    (oven,) = read_config(path).devices
    assert [(one.id, one.address, one.type) for one in oven.points] == [
        ("heat", "holding:7", "int16")
    ]
    assert (path.parent / "oven.csv").read_bytes() == table.read_bytes()
    # A table with a fault changes nothing, and neither does a second device of that name.
    table.write_text("id,address,type\nheat,nowhere,int16\n", encoding="utf-8")
    kept = contents(path.parent)
    for name in ("oven", "second"):
        refused = await run(*(name if word == "oven" else word for word in words))
        assert refused.exit_code != 0
    assert contents(path.parent) == kept


async def test_probe_read_and_check_show_what_was_added(tmp_path: Path) -> None:
    async with configured(tmp_path) as path:
        files = contents(tmp_path)
        probed = await run(
            "probe", path, "meter-1", "voltage-l1", "--samples", 1, "--redirect-raw-values"
        )
        assert probed.exit_code == 0, probed.output
        assert "= 229 V" in probed.output
        assert "as configured: float32 ABCD" in probed.output
        read = await run("read", path, "meter-1", "--redirect-raw-values")
        assert read.exit_code == 0, read.output
        assert "4321.5" in read.output
        compared = await run("probe", path, "meter-1", "--profile", "chint-dtsu666")
        assert "scale = tenths" in compared.output
        checked = await run("check", path)
        assert checked.exit_code == 0, checked.output
        wrong = await run("probe", path, "meter-1", "voltage", "--redirect-raw-values")
        assert "neither a point nor an address" in told(wrong)
        refused = await run("probe", path, "meter-1", "input:9", "--redirect-raw-values")
        assert "refuses this address" in told(refused)
        assert contents(tmp_path) == files


async def test_raw_values_go_to_a_terminal_or_nowhere(tmp_path: Path) -> None:
    async with configured(tmp_path) as path:
        for words in (("read", path), ("probe", path, "meter-1", "energy-import")):
            done = await run(*words)
            assert "raw values are shown on a terminal only" in told(done)
            assert "4321" not in done.output


async def test_a_device_that_is_away_is_told_and_the_others_are_shown(tmp_path: Path) -> None:
    async with configured(tmp_path) as path:
        with path.open("a", encoding="utf-8") as file:
            file.write(
                '\n[[device]]\nid = "away"\nkind = "modbus"\nhost = "127.0.0.1"\nport = 1\n'
                '[[device.points]]\nid = "x"\naddress = "holding:0"\ntype = "uint16"\n'
            )
        read = await run("read", path, "--redirect-raw-values", "--wait", 5)
    assert read.exit_code == 1
    assert "4321.5" in read.output
    assert "the device cannot be reached" in read.output.replace("\n", " ")


# At a terminal.


class Terminal:
    """A command at a real pseudo-terminal, and a person who types."""

    def __init__(self, *words: object) -> None:
        self.master, slave = pty.openpty()
        environment = {**os.environ, "MILLGATE_LANG": "en", "TERM": "xterm", "COLUMNS": "120"}
        # At a terminal Ctrl-C counts, also where these tests were started in the background.
        code = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
        code += "import millgate; millgate.main()"
        self.process = subprocess.Popen(
            [sys.executable, "-c", code, "agent", *map(str, words)],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=environment,
            cwd=Path(__file__).parents[2],
        )
        os.close(slave)
        self.shown = ""

    def until(self, word: str) -> None:
        deadline = time.monotonic() + LONG
        while word not in self.shown:
            assert time.monotonic() < deadline, self.shown
            self._take()

    def type(self, line: str) -> None:
        self.shown = ""
        os.write(self.master, line.encode() + b"\n")

    def end(self) -> int:
        deadline = time.monotonic() + LONG
        while self.process.poll() is None and time.monotonic() < deadline:
            self._take()
        self._take()
        os.close(self.master)
        self.process.kill()
        return self.process.wait()

    def _take(self) -> None:
        ready, _, _ = select.select([self.master], [], [], 0.2)
        if ready:
            try:
                self.shown += os.read(self.master, 65536).decode(errors="replace")
            except OSError:
                # The other end was closed.
                time.sleep(0.05)


def at_the_wizard(path: Path, port: int) -> tuple[int, str]:
    """Answer what the wizard asks; return the exit code and all that it showed last."""
    screen = Terminal("add", path)
    screen.until("number")
    screen.type(str(1 + list(shipped()).index("chint-dtsu666")))
    screen.until("Where is it")
    screen.type(f"127.0.0.1:{port}")
    screen.until("Modbus unit id")
    screen.type("")
    screen.until("Your id for it")
    screen.type("meter-1")
    screen.until("number")
    assert "secondary" in screen.shown
    screen.type("3")
    screen.until("Write this into")
    screen.type("y")
    return screen.end(), screen.shown


async def test_the_wizard_asks_for_what_reading_does_not_tell(tmp_path: Path) -> None:
    path = make_mill(tmp_path)
    memory = device_like(MODBUS["chint-dtsu666"], METER | {"side": "secondary"})
    async with serving(memory) as server:
        code, shown = await asyncio.to_thread(at_the_wizard, path, server.port)
    assert code == 0, shown
    (device,) = read_config(path).devices
    assert device.id == "meter-1"
    power = next(point for point in device.points if point.id == "power")
    assert power.scale == 4


async def test_values_are_watched_at_a_terminal_until_ctrl_c(tmp_path: Path) -> None:
    async with configured(tmp_path) as path:

        def person() -> int:
            screen = Terminal("read", path, "--watch")
            screen.until("4321.5")
            screen.process.send_signal(signal.SIGINT)
            return screen.end()

        assert await asyncio.to_thread(person) == 0
