"""Real processes put back from an old copy: the agent begins a new epoch, the brain gets all again."""

import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from aggregator.config import read_config
from simulators.demo import Mill
from tests.system.mills import plant_mill, until

pytestmark = pytest.mark.timeout(400)


def kept(mill: Mill, epoch: int = 1) -> int:
    """Return how many messages of an epoch the ledger has."""
    path = read_config(mill.aggregator_toml).ledger
    db = sqlite3.connect(path, timeout=30)
    try:
        row = db.execute("SELECT COUNT(*) FROM batch WHERE epoch = ?", (epoch,)).fetchone()
    finally:
        db.close()
    return int(row[0])


def at_least(mill: Mill, count: int, epoch: int = 1) -> Callable[[], bool]:
    def done() -> bool:
        return kept(mill, epoch) >= count

    done.__doc__ = f"{count} messages of epoch {epoch}"
    return done


async def test_an_agent_put_back_from_an_old_copy_begins_a_new_epoch_by_itself(
    tmp_path: Path,
) -> None:
    async with plant_mill(tmp_path, 41) as mill:
        data, copy = tmp_path / "mill" / "data", tmp_path / "copy"
        await until(at_least(mill, 2), 90, mill)
        await mill.stop("agent")
        shutil.copytree(data, copy, ignore=shutil.ignore_patterns("*.sock"))
        await mill.start("agent", ready=False)
        await until(at_least(mill, 4), 90, mill)
        await mill.kill("agent")
        shutil.rmtree(data)
        shutil.copytree(copy, data)
        await mill.start("agent", ready=False)
        await until(at_least(mill, 2, epoch=2), 90, mill)
        await mill.stop("agent")
        report = await mill.settled_account(tolerance="5s")
    assert (report["wrong"], report["doubled"], report["refused"]) == (0, 0, 0)
    assert "a new epoch begins" in (tmp_path / "agent.log").read_text("utf-8")
    said = (tmp_path / "aggregator.log").read_text("utf-8")
    assert "equivocation" not in said
    assert "epoch_unexplained" not in said


async def test_a_brain_put_back_from_an_old_copy_gets_again_what_it_lost(tmp_path: Path) -> None:
    async with plant_mill(tmp_path, 42) as mill:
        data, copy = tmp_path / "brain" / "data", tmp_path / "copy"
        await until(at_least(mill, 2), 90, mill)
        await mill.stop("aggregator")
        shutil.copytree(data, copy, ignore=shutil.ignore_patterns("*.sock"))
        await mill.start("aggregator")
        await until(at_least(mill, 4), 90, mill)
        before = kept(mill)
        await mill.stop("aggregator")
        shutil.rmtree(data)
        shutil.copytree(copy, data)
        (data / "projection.json").unlink(missing_ok=True)
        await mill.start("aggregator")
        await until(at_least(mill, before + 1), 90, mill)
        await mill.stop("agent")
        report = await mill.settled_account(tolerance="5s")
    assert (report["lost"], report["wrong"], report["doubled"], report["refused"]) == (0, 0, 0, 0)
    said = (tmp_path / "agent.log").read_text("utf-8")
    assert "sent again from the archive" in said
