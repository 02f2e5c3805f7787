"""A disk that takes nothing delays series; the brain goes on."""

import asyncio
import errno
import logging
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from aggregator import app
from aggregator.app import Aggregator
from aggregator.condition import Live
from aggregator.ledger import Ledger, LedgerFault
from protocols import patience
from protocols.errors import ConfigError, MillgateError
from protocols.topics import Address
from tests.small_factory import signing_key


@pytest.mark.parametrize(
    "fault",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        sqlite3.OperationalError("database or disk is full"),
        LedgerFault("the ledger cannot be opened"),
        # Somebody is just writing a file of factors.
        ConfigError([MillgateError("half a file", where="factors.toml", remedy="write the rest")]),
    ],
)
async def test_whatever_is_wrong_beside_the_ledger_delays_series_and_ends_nothing(
    fault: Exception,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(app, "_STORE_WAIT_S", 0.001)
    brain = Aggregator.__new__(Aggregator)
    brain._config = SimpleNamespace(ledger=tmp_path / "ledger.db")  # type: ignore[assignment] # all that is asked of it
    brain._live, brain._ending = Live(), asyncio.Event()
    faults = []

    async def project_on(*_: object) -> None:
        faults.append(brain._live.store_fault)
        if len(faults) == 3:
            brain._ending.set()
            return
        raise fault

    monkeypatch.setattr(Aggregator, "_project_on", project_on)
    with caplog.at_level(logging.ERROR):
        await brain._project()
    assert len(faults) == 3
    assert faults[1] == faults[2]
    assert "series wait" in faults[1]
    assert "No space left on device" not in faults[1]
    assert len(caplog.records) == 1


async def test_an_agent_that_comes_online_while_the_ledger_cannot_be_read_ends_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(patience, "_FIRST_WAIT_S", 0.001)
    brain, times = Aggregator.__new__(Aggregator), 0
    brain._live, brain._erased, brain._executor = Live(), asyncio.Event(), ThreadPoolExecutor(1)
    brain._tell_erased, told = {Address(bytes(16), bytes(16))}, asyncio.Event()
    brain._ledger, brain._receipt_key = cast("Ledger", None), signing_key("brain")
    loop = asyncio.get_running_loop()

    def erasure(*_: object) -> None:
        nonlocal times
        times += 1
        if times < 3:
            raise sqlite3.OperationalError("database is locked")
        loop.call_soon_threadsafe(told.set)

    monkeypatch.setattr(app, "signed_erasure", erasure)
    brain._erased.set()
    with brain._executor:
        async with asyncio.timeout(20), asyncio.TaskGroup() as group:
            telling = group.create_task(brain._tell())
            await told.wait()
            telling.cancel()
    assert times == 3
    assert not brain._tell_erased
