"""Non-interference: whoever stands past the gate sees nothing of what is withheld, in no form.

Two factories whose devices differ only in withheld data are run side by side. What leaves must be the
same in every respect that can be seen without a key: sizes, counts, topics, slots, times, logs, figures.
"""

import logging
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent.released import Released, encode
from agent.sealedside import Sealer
from agent.spool import Spool
from protocols.frame import SECOND, Frame, Quality
from protocols.points import PointTable
from security.envelope import parse
from security.policy.bundle import read_bundle, sign_bundle
from security.policy.gate import Gate, seal_memory
from security.secret import Redacting, Secret
from tests.unit.gate_material import T0, T0_S, Clock, counter, point, policy, rule, table
from tests.unit.policy_material import officer
from tests.unit.test_sealedside import ADDRESS, AUDIT, CARD, FAST, PIN, SIGNER, _with_terms

SECONDS = 12
OPEN = table(
    [counter("energy"), point("power", "power.active"), point("state", "machine.state")],
    device="meter",
)
SECRET = table([point(f"s{at}", "temperature") for at in range(3)], device="furnace", real=["s2"])
MIXED = table([point("load", "power.active"), point("recipe", "temperature")], device="press")
RULES = [
    rule(OPEN, "energy", 1, window_s=1, stream=FAST),
    rule(OPEN, "power", 2, window_s=1, stream=FAST),
    rule(OPEN, "state", 10, window_s=1, stream=FAST),
    rule(MIXED, "load", 3, window_s=1, stream=FAST),
]


class Watcher(logging.Handler):
    """Keeps the lines that a process writes."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []
        self.setFormatter(Redacting())

    def emit(self, record: logging.LogRecord) -> None:
        record.created = 0.0
        self.lines.append(f"{record.name}: {self.format(record)}")


def released_frames(s: int) -> list[Frame]:
    time = np.full((1, 1), T0 + s * SECOND, np.int64)
    columns = np.arange(3, dtype=np.int32)
    values = np.array([[3 * s, 100 + s % 7, s % 3]], np.int64)
    return [Frame("meter", columns, time, values, np.zeros((1, 3), np.uint8))]


def secret_frames(s: int, rng: np.random.Generator) -> list[Frame]:
    """Return what only the secret decides: values, quality, how often, and whether at all."""
    found = []
    for _ in range(int(rng.integers(0, 4))):
        time = np.full((1, 1), T0 + s * SECOND + int(rng.integers(0, SECOND)), np.int64)
        whole = rng.integers(-(2**62), 2**62, (1, 2))
        quality = rng.choice([0, 1, 2, 3, 4], (1, 2)).astype(np.uint8)
        found.append(Frame("furnace", np.arange(2, dtype=np.int32), time, whole, quality))
        real = rng.choice([np.nan, np.inf, -0.0, 1e300, 7.25], (1, 1))
        good = np.zeros((1, 1), np.uint8)
        found.append(Frame("furnace", np.array([2], np.int32), time, real, good))
    return found


def mixed_frame(s: int, rng: np.random.Generator) -> Frame:
    """Return a frame with a released column and a withheld one beside it."""
    time = np.full((1, 1), T0 + s * SECOND, np.int64)
    values = np.array([[50 + s, int(rng.integers(-(2**40), 2**40))]], np.int64)
    quality = np.array([[Quality.GOOD, rng.choice([0, 1, 2])]], np.uint8)
    return Frame("press", np.arange(2, dtype=np.int32), time, values, quality)


def outside(folder: Path, seed: int) -> dict[str, Any]:
    """Run one factory; return everything that can be seen past the gate without a key."""
    rng, clock, watcher = np.random.default_rng(seed), Clock(), Watcher()
    tables: dict[str, PointTable] = {one.device: one for one in (OPEN, SECRET, MIXED)}
    compiled = _with_terms(policy(RULES), 1)
    trusted = read_bundle(sign_bundle(compiled, [officer(1)]), [officer(1).public], 1)
    spool = Spool(folder / f"{seed}" / "spool.db")
    egress = logging.getLogger("agent")
    egress.addHandler(watcher)
    try:
        sealer = Sealer(spool, trusted, {PIN: CARD}, SIGNER, AUDIT.public, ADDRESS, clock)
        gate = Gate(compiled, tables, clock)
        sealer.restore(1)
        messages: list[tuple[int, int]] = []
        for s in range(SECONDS):
            clock.set(s + 0.5)
            for frame in [*secret_frames(s, rng), *released_frames(s), mixed_frame(s, rng)]:
                gate.feed(frame)
            clock.set(s + 0.9)
            gate.advance()
            if gate.has_closed:
                number = len(messages) + 1
                streams, memory = gate.take(), gate.memory()
                key = Secret(bytes(32))
                sealed = seal_memory(memory, key, ADDRESS, 1, trusted.hash, number)
                message = Released(number, trusted.hash, streams, sealed)
                messages.append((len(encode(message)), s))
                sealer.commit(message)
        rows = spool.waiting(0, 1000)
        headers = [parse(row.sealed) for row in rows]
        return {
            "link": messages,
            "sizes": [len(row.sealed) for row in rows],
            "kinds": [one.content_type for one in headers],
            "places": [(one.header.stream, one.header.sequence) for one in headers],
            "slots": [one.header.window for one in headers],
            "times": [one.header.issued_at for one in headers],
            "gaps": [one.header.gaps for one in headers],
            "topics": [ADDRESS.topic(kind) for kind in ("up", "down", "state")],
            "figures": asdict(spool.tally()),
            "settings": sorted(
                (name, len(value) if isinstance(value, bytes) else value)
                for name, value in spool._db.execute("SELECT key, value FROM meta")
            ),
            "logs": watcher.lines,
        }
    finally:
        egress.removeHandler(watcher)
        spool.close()


@settings(
    max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.integers(0, 2**32), st.integers(0, 2**32))
def test_two_factories_that_differ_in_withheld_data_alone_look_the_same(
    tmp_path: Path, one: int, other: int
) -> None:
    first = outside(tmp_path / "one", one)
    second = outside(tmp_path / "other", other)
    assert first == second
    assert len(first["sizes"]) > SECONDS // 2
    for folder in ("one", "other"):
        for seed in (one, other):
            (tmp_path / folder / str(seed) / "spool.db").unlink(missing_ok=True)


def test_the_comparison_can_find_a_difference(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One released slot more or less, and the two do not look the same."""
    first = outside(tmp_path / "one", 1)
    monkeypatch.setattr("tests.unit.test_non_interference.SECONDS", SECONDS - 3)
    assert outside(tmp_path / "other", 1) != first


def test_batches_leave_at_the_same_rhythm_and_size_whether_devices_run_or_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cover: a device that is off still makes its slots, without values, in as large a batch."""
    busy = outside(tmp_path / "busy", 1)
    monkeypatch.setattr("tests.unit.test_non_interference.released_frames", lambda _: list[Frame]())
    idle = outside(tmp_path / "idle", 1)
    for what in ("sizes", "kinds", "places", "slots", "times", "topics"):
        assert idle[what] == busy[what]
    assert idle["figures"]["released"] < busy["figures"]["released"]
    assert min(start for start, end in busy["slots"] if end) > T0_S
