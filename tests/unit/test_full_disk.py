"""A disk that takes nothing delays series; the brain goes on."""

import asyncio
import errno
import logging
import sqlite3
from pathlib import Path
from types import SimpleNamespace

import pytest

from aggregator import app
from aggregator.app import Aggregator
from aggregator.condition import Live
from aggregator.ledger import LedgerFault


@pytest.mark.parametrize(
    "fault",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        sqlite3.OperationalError("database or disk is full"),
        LedgerFault("the ledger cannot be opened"),
    ],
)
async def test_a_disk_that_is_full_beside_the_ledger_delays_series_and_ends_nothing(
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
