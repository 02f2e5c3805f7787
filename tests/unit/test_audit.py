"""`agent audit` and `aggregator trust`: the firm reads exactly what left; the brain sees whom to trust."""

import base64
import csv
import hashlib
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from agent.cli import app
from protocols.frame import SECOND
from security.cards import write_card
from simulators.torture.given_up import read_cells
from tests.small_factory import (
    ENERGY,
    NOW,
    POWER,
    SHORT_S,
    Agent,
    Brain,
    Keys,
    block,
    signed_policy,
)

KEYS = Keys()
SLOT = NOW // SHORT_S


def private(path: Path, kind: str, seed: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"millgate-private-key/1 {kind}\n{base64.b64encode(seed).decode()}\n")
    path.chmod(0o600)
    return path


@pytest.fixture
def config(tmp_path: Path) -> Path:
    write_card(tmp_path / "brain.card", KEYS.brain_card)
    path = tmp_path / "agent.toml"
    officers = ", ".join(f'"{key.public.to_text()}"' for key in KEYS.officers)
    path.write_text(
        f"""[identity]
factory = "{KEYS.address.factory.hex()}"
agent = "{KEYS.address.agent.hex()}"
signing_key = "keys/signing.key"
gate_key = "keys/gate.key"
[policy]
file = "policy.signed"
officers = [{officers}]
threshold = 2
audit_key = "{KEYS.audit.public.to_text()}"
[spool]
folder = "data"
[[consumer]]
card = "brain.card"
"""
    )
    return path


@pytest.fixture
def audit_key(tmp_path: Path) -> Path:
    return private(tmp_path / "audit.key", "xwing", hashlib.sha256(b"open mill audit").digest())


def run(*arguments: str) -> Any:
    return CliRunner().invoke(app, ["audit", *arguments])


def left(tmp_path: Path) -> None:
    brain, agent = (
        Brain(tmp_path / "brain", KEYS),
        Agent(tmp_path / "data", KEYS, signed_policy(KEYS)),
    )
    agent.start()
    agent.release(block(SLOT, [ENERGY, POWER], [[5, -3], [10, 0]], [[0, 0], [0, 2]]))
    for _, answer in brain.take(KEYS, *agent.waiting()).answers:
        agent.settle(answer)
    agent.release(block(SLOT + 17_000, [ENERGY], [25]))
    agent.spool.close()
    brain.close()


def test_the_firm_reads_back_every_value_exactly(
    tmp_path: Path, config: Path, audit_key: Path
) -> None:
    left(tmp_path)
    out = tmp_path / "left.csv"
    done = run(str(config), "--key", str(audit_key), "--csv", str(out))
    assert done.exit_code == 0, done.output
    assert "received: 2 messages, 3 values" in done.output
    assert "waiting: 1 message, 1 value" in done.output
    with out.open(encoding="utf-8-sig", newline="") as file:
        found = list(csv.DictReader(file))
    values = {(row["number"], row["slot_start"]): row["value"] for row in found}
    assert [row["value"] for row in found] == ["0.05", "-0.3", "0.10", "", "0.25"]
    assert ("1", "2026-02-02T02:40:00Z") in values
    assert found[3]["quality"] == "missing"
    assert {row["measurand"] for row in found} >= {"energy.active_import"}


def test_a_judge_of_what_was_given_up_reads_from_it_what_each_message_holds(
    tmp_path: Path, config: Path, audit_key: Path
) -> None:
    left(tmp_path)
    out = tmp_path / "left.csv"
    run(str(config), "--key", str(audit_key), "--csv", str(out))
    first, second = read_cells(out).values()
    start = SLOT * SHORT_S * SECOND
    assert [(cell.slots, cell.filled) for cell in first] == [
        ((start,), True),
        ((start,), True),
        ((start + SHORT_S * SECOND,), True),
        ((start + SHORT_S * SECOND,), False),
    ]
    assert first[0].series == second[0].series
    assert first[0].series.endswith(" energy.active_import")


def test_a_span_of_time_is_read_alone(tmp_path: Path, config: Path, audit_key: Path) -> None:
    left(tmp_path)
    done = run(str(config), "--key", str(audit_key), "--from", "2026-02-03")
    assert "waiting: 1 message, 1 value" in done.output
    assert "received: 1 message, 0 values" in done.output


@pytest.mark.parametrize(
    ("seed", "changed", "what"),
    [(b"open brain", False, "not the audit key"), (b"open mill audit", True, "was changed")],
)
def test_another_key_or_a_changed_archive_is_told(
    tmp_path: Path, config: Path, seed: bytes, changed: bool, what: str
) -> None:
    left(tmp_path)
    key = private(tmp_path / "k.key", "xwing", hashlib.sha256(seed).digest())
    if changed:
        agent = Agent(tmp_path / "data", KEYS, signed_policy(KEYS))
        with agent.spool.transaction() as db:
            db.execute("UPDATE batch SET sealed = substr(sealed, 1, 2000) WHERE id = 2")
        agent.spool.close()
    done = run(str(config), "--key", str(key))
    assert done.exit_code != 0
    assert what in str(done.exception)


def test_a_wrong_day_is_told_with_an_example(tmp_path: Path, config: Path, audit_key: Path) -> None:
    left(tmp_path)
    done = run(str(config), "--key", str(audit_key), "--from", "yesterday")
    assert "2026-01-31" in str(done.exception)
