"""A running agent goes over to a changed configuration and loses no sample; a faulty one changes nothing.

The account says so afterwards, and names the first slot of everything that is tampered with.
"""

import asyncio
import os
import re
import signal
import sqlite3
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest
from typer.testing import CliRunner

from aggregator.app import make_stores
from aggregator.cli import app
from aggregator.config import read_config
from aggregator.ledger import Ledger
from aggregator.stores import RowSpan, SeriesBlock
from millgate import account
from protocols.frame import SECOND
from security.cards import read_agent_card
from security.statements import read_attestation
from simulators.demo import Mill
from tests.servers.mosquitto import running
from tests.system.mills import (
    LAST_TRAFFIC_S,
    MOSQUITTO,
    check,
    edit,
    plant_mill,
    position,
    rows,
)
from tests.system.test_sides import SLOT, processes

pytestmark = pytest.mark.timeout(240)

WAIT_S: Final = 60.0

SPARE: Final = """
[[device]]
id = "spare"
kind = "modbus"
host = "127.0.0.1"
port = {port}
interval = "1s"

[[device.points]]
id = "energy"
address = "holding:0"
type = "uint32"
"""


async def told(mill: Mill, holds: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """Wait until what `agent status` asks for is as it should be, and return it."""
    deadline = asyncio.get_running_loop().time() + WAIT_S
    while True:
        report = await mill.inside() or {}
        if report.get("policy") and "outputs" in report and holds(report):
            return report
        assert asyncio.get_running_loop().time() < deadline, report
        await asyncio.sleep(0.2)


def books(report: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {device["id"]: device for device in report["devices"]}


async def test_devices_come_go_and_change_while_the_others_go_on(tmp_path: Path) -> None:
    with running(tmp_path / "mosquitto", MOSQUITTO) as broker:
        async with plant_mill(tmp_path, 17, broker) as mill:
            before = await processes(mill)
            start = books(await told(mill, lambda found: len(found["devices"]) == 2))
            whole = mill.agent_toml.read_text("utf-8")

            # Half-written, and nobody goes on writing: it is told, and changes nothing.
            mill.agent_toml.write_text(whole[: whole.index("[[device]]") + 40], "utf-8")
            await told(mill, lambda found: bool(found["configuration"]["problem"]))
            assert await processes(mill) == before

            port = re.findall(r"(?m)^port = (\d+)", whole)[-1]
            edit_whole(mill, whole + SPARE.format(port=port))
            report = await told(mill, lambda found: "spare" in books(found))
            await told(mill, lambda found: books(found)["spare"]["account"]["produced"] > 0)
            assert report["configuration"]["problem"] == ""

            # By signal, at once: one device is read more slowly, the new one is gone.
            edit_whole(mill, whole.replace('interval = "500ms"', 'interval = "750ms"'))
            os.kill(mill.processes["agent"].pid, signal.SIGHUP)
            await told(mill, lambda found: "spare" not in books(found))
            after = books(await told(mill, lambda found: len(found["devices"]) == 2))
            for name, device in after.items():
                assert device["losses"] == 0
                assert device["account"]["produced"] > start[name]["account"]["produced"]
            assert await processes(mill) == before

            # What the sealed side runs with changes: only that side starts anew.
            edit(mill.agent_toml, "[broker]\n", "[broker]\nkeepalive_s = 30\n")
            report = await told(
                mill, lambda found: found["processes"]["sealed"]["pid"] != before["sealed"]
            )
            assert report["processes"]["gate"] == {"pid": before["gate"], "restarts": 0}
            assert report["processes"]["sealed"]["restarts"] == 0

            await asyncio.sleep(LAST_TRAFFIC_S / 2)
            # Who stops the brain in order finds everything that had come in the series.
            await mill.stop("aggregator")
            assert position(mill)["batch"] == newest_batch(mill) > 0
            await mill.start("aggregator")
            await mill.stop("agent")
            # So the brain can hold an agent that was stopped to its last word, not to the last hour's.
            assert await asyncio.to_thread(attested_heads, mill) == chain_heads(mill)
            check(await mill.settled_account(tolerance=SLOT))
            await asyncio.to_thread(check_that_series_are_written_anew, mill)
            await mill.stop("aggregator")
            await asyncio.to_thread(check_that_series_are_written_anew, mill)
            await asyncio.to_thread(check_that_every_tampering_is_named, mill)


def attested_heads(mill: Mill) -> dict[int, int]:
    card = read_agent_card(mill.folder / "mill" / "agent.card")
    ledger = Ledger(mill.folder / "brain/data/ledger.db")
    try:
        signed = ledger.record.attestation_of(ledger.agents()[card.address], 1 << 40)
    finally:
        ledger.close()
    found = read_attestation(signed, card.signing_key, card.attestation_key)
    return {chain.stream: chain.count for chain in found.chains}


def chain_heads(mill: Mill) -> dict[int, int]:
    with closing(sqlite3.connect(mill.folder / "mill/data/spool.db")) as db:
        return dict(db.execute("SELECT stream, next FROM chain").fetchall())


def newest_batch(mill: Mill) -> int:
    with closing(sqlite3.connect(mill.folder / "brain/data/ledger.db")) as db:
        found: int = db.execute("SELECT MAX(id) FROM batch WHERE cells > 0").fetchone()[0]
    return found


def check_that_series_are_written_anew(mill: Mill) -> None:
    """By the running aggregator and without one, and all rows are there again."""
    before = energy_rows(mill)
    done = CliRunner().invoke(app, ["rebuild", str(mill.aggregator_toml)])
    assert done.exit_code == 0, done.output
    assert energy_rows(mill) == before != []
    assert not (mill.folder / "brain/data/rebuild.wanted").exists()


def energy_rows(mill: Mill) -> list[tuple[Any, ...]]:
    return [
        (key, block.time.tolist(), {name: list(column) for name, column in block.fields.items()})
        for key, block in rows(mill, "future_factory", "ff_energy")
    ]


def look(mill: Mill) -> dict[str, Any]:
    return account(mill.agent_toml, mill.aggregator_toml, None, SLOT)


def check_that_every_tampering_is_named(mill: Mill) -> None:
    """Of a row in the store, one that nothing explains, a batch here and there, and the inputs."""
    good = look(mill)
    assert (good["first_wrong"], good["wrong"], good["balanced"]) == ("", 0, True)
    assert all(one["balanced"] and one["kept"] for one in good["chains"])
    assert {one["sealed"] for one in good["streams"]} <= {one["decided"] for one in good["chains"]}
    tamper_store(mill)
    ledger, spool = mill.folder / "brain/data/ledger.db", mill.folder / "mill/data/spool.db"
    for path, where in ((ledger, "cells > 0"), (spool, "is_sheet = 0")):
        with closing(sqlite3.connect(path)) as db, db:
            found = f"SELECT id, sequence, sealed FROM batch WHERE {where} ORDER BY id LIMIT 1"  # noqa: S608 - one of two constants
            number, sequence, sealed = db.execute(found).fetchone()
            bad = sealed[:-1] + bytes([sealed[-1] ^ 1])
            db.execute("UPDATE batch SET sealed = ? WHERE id = ?", (bad, number))
        told = look(mill)
        assert told["wrong"] > 0
        assert re.search(rf"\b{sequence}\b.*20\d\d-.*Z", told["first_wrong"]), told["first_wrong"]
        with closing(sqlite3.connect(path)) as db, db:
            db.execute("UPDATE batch SET sealed = ? WHERE id = ?", (sealed, number))
    with closing(sqlite3.connect(ledger)) as db, db:
        db.execute("DELETE FROM batch WHERE cells > 0 AND id = (SELECT MIN(id) FROM batch)")
        db.execute("UPDATE chain SET next = next + 1 WHERE next > 1")
    told = look(mill)
    assert not all(one["balanced"] for one in told["chains"])
    assert told["first_wrong"]


def tamper_store(mill: Mill) -> None:
    config = read_config(mill.aggregator_toml)
    for moved_ns, more in ((0, 1), (7, 1)):
        stores = make_stores(config)
        try:
            store = stores["future_factory"]
            (key, *_) = store.series("ff_energy")
            row = store.query(key, list(store.newest(key).fields), 0, 2**62, limit=1)
            at = row.time + moved_ns
            value = next(
                name for name, column in row.fields.items() if not isinstance(column, list)
            )
            changed = {**row.fields, value: np.asarray(row.fields[value]) + 1}
            store.write([SeriesBlock(key, at, changed)])
        finally:
            for each in stores.values():
                each.close()
        told = look(mill)
        moment = datetime.fromtimestamp(int(at[0]) // SECOND, UTC)
        assert told["wrong"] >= more
        assert told["first_wrong"].startswith("ff_energy")
        assert f"{moment:%Y-%m-%dT%H:%M:%SZ}" in told["first_wrong"]
        stores = make_stores(config)
        try:
            store = stores["future_factory"]
            store.delete_rows([RowSpan(key, int(at[0]), int(at[0]) + 1)])
            if not moved_ns:
                store.write([row])
        finally:
            for each in stores.values():
                each.close()


def edit_whole(mill: Mill, text: str) -> None:
    mill.agent_toml.write_text(text, "utf-8")
