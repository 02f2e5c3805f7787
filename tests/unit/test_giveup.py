"""What the spool lets go of is an exact gap that the agent signs and the brain keeps; nothing else is."""

import asyncio
import os
import random
import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.clock import ClockWatch
from agent.config import SpoolConfig
from agent.disk import SpoolThread
from agent.giveup import give_up_oldest
from agent.kept_clock import KeptClock
from agent.lanes import due, load
from agent.mending import ASIDE, mark_damaged, open_mended
from agent.reserve import Reserve
from agent.spool import GIVEN_UP, WAITING, Spool, SpoolFault, is_damage
from agent.upkeep import Upkeep, delivery_ages
from agent.window import MOST_IN_FLIGHT
from protocols import patience
from protocols.frame import SECOND
from security.answers import BEYOND_SHEET, Head, Refused
from security.envelope import REASON_DROPPED, REASON_REFUSED, Gap
from security.statements import Loss, parse_statement
from simulators.faults.disk import SmallDisk
from tests.small_factory import ENERGY, NOW, Agent, Brain, block
from tests.unit.delivery_material import KEYS, POLICY, SLOT, Line, filled, kept_slots, started


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of two megabytes."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)]
    if os.geteuid() or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("only root may mount a small disk")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)  # noqa: S607 - wherever it is


@pytest.fixture
def brain(tmp_path: Path) -> Iterator[Brain]:
    opened = Brain(tmp_path, KEYS)
    yield opened
    opened.close()


def losses(brain: Brain) -> list[tuple[int, int]]:
    """Return the ranges of the losses that the brain keeps, each with its signature checked."""
    found = []
    for signed in brain.ledger.record.losses(brain.ledger.agents()[KEYS.address], 0, 1 << 40):
        message, loss = parse_statement(signed)
        message.verify(KEYS.signing.public)
        assert isinstance(loss, Loss)
        assert loss.reason == REASON_DROPPED
        found.append((loss.first, loss.last))
    return found


def size_of(agent: Agent) -> int:
    (size,) = agent.spool.db.execute(
        "SELECT DISTINCT size FROM batch WHERE is_sheet = 0"
    ).fetchone()
    return int(size)


# Too much.


def test_the_oldest_that_was_dropped_is_exactly_the_gap_that_the_brain_keeps(
    tmp_path: Path, brain: Brain
) -> None:
    agent = filled(tmp_path / "a", 100)
    gone = give_up_oldest(agent.spool, 60 * size_of(agent))
    assert (gone.batches, gone.values, gone.from_s) == (60, 60, NOW)
    tally = agent.spool.tally()
    assert (tally.released, tally.waiting, tally.given_up) == (100, 40, 60)
    agent.release(block(SLOT + 100, [ENERGY], [5]))
    Line(agent, brain).run()
    assert losses(brain) == [(0, 59)]
    assert kept_slots(brain) == list(range(60, 101))
    tally = agent.spool.tally()
    assert (tally.released, tally.acknowledged, tally.given_up) == (101, 41, 60)
    assert (tally.waiting, tally.waiting_batches) == (0, 0)
    # A person at the brain is told of it, once.
    (alarm,) = brain.ledger.record.alarms(1)
    assert (alarm.kind, alarm.first, alarm.last) == ("gap", 0, 59)


def test_dropping_again_and_again_leaves_few_rows_and_one_range(
    tmp_path: Path, brain: Brain
) -> None:
    agent = filled(tmp_path / "a", 40)
    for at in range(40, 90):
        give_up_oldest(agent.spool, 1)
        agent.release(block(SLOT + at, [ENERGY], [5]))
    rows = agent.spool.db.execute(
        "SELECT COUNT(*) FROM batch WHERE status = ?", (GIVEN_UP,)
    ).fetchone()[0]
    assert rows == MOST_IN_FLIGHT + 1
    Line(agent, brain).run()
    assert losses(brain) == [(0, 49)]
    assert kept_slots(brain) == list(range(50, 90))
    assert agent.spool.tally().given_up == 50


def test_what_the_brain_had_got_before_it_was_dropped_is_not_declared_lost(
    tmp_path: Path, brain: Brain
) -> None:
    agent = filled(tmp_path / "a", 50)
    line = Line(agent, brain)
    line.ask()
    # Twenty are taken by the brain; its receipts never come back.
    for message in line.next_messages()[:21]:
        brain.take(KEYS, message)
    give_up_oldest(agent.spool, 30 * size_of(agent))
    line.run()
    assert losses(brain) == [(20, 29)]
    assert kept_slots(brain) == [*range(20), *range(30, 50)]
    tally = agent.spool.tally()
    assert (tally.acknowledged, tally.given_up, tally.waiting) == (40, 10, 0)


def test_what_the_brain_holds_because_something_before_it_is_missing_is_not_declared_lost(
    tmp_path: Path, brain: Brain
) -> None:
    agent = filled(tmp_path / "a", 6)
    line = Line(agent, brain)
    line.ask()
    messages = line.next_messages()
    # The sheet arrives, the first batch is lost on the way, and the brain holds those behind it.
    for message in (messages[0], *messages[2:]):
        brain.take(KEYS, message)
    agent.spool.db.execute(
        "UPDATE batch SET sealed = zeroblob(9) WHERE is_sheet = 0 AND sequence IN (2, 3)"
    )
    line.run()
    assert losses(brain) == []
    assert kept_slots(brain) == list(range(6))
    tally = agent.spool.tally()
    assert (tally.acknowledged, tally.given_up, tally.waiting) == (6, 0, 0)


def test_a_declared_loss_that_got_lost_itself_is_declared_again(
    tmp_path: Path, brain: Brain
) -> None:
    agent = filled(tmp_path / "a", 5)
    give_up_oldest(agent.spool, 2 * size_of(agent))
    line = Line(agent, brain)
    line.ask()
    assert line.next_messages()  # All of them vanish on the way.
    agent.spool.close()
    agent = Agent(tmp_path / "a", KEYS, POLICY)
    agent.start()
    Line(agent, brain).run()
    assert losses(brain) == [(0, 1)]
    assert kept_slots(brain) == [2, 3, 4]
    assert agent.spool.tally().given_up == 2


def test_what_was_given_up_on_its_way_and_is_refused_counts_once_and_leaves_no_empty_batch(
    tmp_path: Path,
) -> None:
    agent = filled(tmp_path / "a", 3)
    place = agent.spool.db.execute(
        "SELECT epoch, stream, sequence, digest FROM batch WHERE is_sheet = 0 ORDER BY id"
    ).fetchone()
    give_up_oldest(agent.spool, 1)
    refused = Refused(Head(*place), BEYOND_SHEET)
    for again in (False, True):
        assert agent.spool.settle([], [refused], b"d" * 32) == (not again)
        tally = agent.spool.tally()
        assert (tally.released, tally.waiting, tally.refused, tally.given_up) == (3, 2, 1, 0)
    assert agent.spool.gaps(place[0], place[1], 9) == (Gap(0, 0, REASON_REFUSED),)
    assert all(sealed for _, sealed in agent.spool.archived())


def test_sheets_are_never_given_up(tmp_path: Path) -> None:
    agent = filled(tmp_path / "a", 3)
    assert give_up_oldest(agent.spool, 1 << 30).batches == 3
    assert [one.due.chain for one in load(agent.spool, due(agent.spool, {}, only_sheets=True))]
    assert agent.spool.sheet_sent(1, POLICY.sheets[0].hash)


# Too old.


async def upkeep_of(agent: Agent, now_s: int, clock: ClockWatch) -> list[int]:
    told: list[int] = []
    upkeep = Upkeep(
        agent.spool,
        SpoolConfig(max_age="1d"),  # type: ignore[arg-type] # read as in agent.toml
        SpoolThread(),
        lambda: told.append(1),
        clock,
        lambda: now_s * SECOND,
    )
    await upkeep.step()
    return told


async def test_what_waited_longer_than_its_age_is_given_up_and_the_rest_is_not(
    tmp_path: Path, brain: Brain
) -> None:
    agent = filled(tmp_path / "a", 10)
    agent.spool.db.execute("UPDATE batch SET at = at - 100 WHERE sequence < 4 AND is_sheet = 0")
    assert delivery_ages(agent.spool, NOW * SECOND)["oldest_waiting_s"] == 100
    later = NOW + 86_400 - 50
    assert await upkeep_of(agent, later, ClockWatch(lambda: later * SECOND)) == [1]
    Line(agent, brain).run()
    assert kept_slots(brain) == [4, 5, 6, 7, 8, 9]
    assert losses(brain) == [(0, 3)]
    assert delivery_ages(agent.spool, NOW * SECOND)["oldest_waiting_s"] is None


async def test_a_clock_that_jumped_ahead_gives_nothing_up(tmp_path: Path) -> None:
    agent = filled(tmp_path / "a", 10)
    wall = NOW * SECOND
    clock = ClockWatch(lambda: wall, lambda: 0)
    wall += 400 * 86_400 * SECOND
    assert await upkeep_of(agent, wall // SECOND, clock) == []
    assert agent.spool.tally().waiting == 10


async def test_a_clock_that_was_set_ahead_while_the_agent_was_away_gives_nothing_up(
    tmp_path: Path,
) -> None:
    agent = filled(tmp_path / "a", 10)
    wall, kept = NOW * SECOND, KeptClock(tmp_path / "clock.json")
    await upkeep_of(agent, NOW, ClockWatch(lambda: wall, lambda: 0, kept=kept))
    wall += 400 * 86_400 * SECOND
    later = ClockWatch(lambda: wall, lambda: 0, kept=kept)
    assert await upkeep_of(agent, wall // SECOND, later) == []
    assert agent.spool.tally().waiting == 10


# Damage.


def flip(path: Path, at: int, bit: int) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ (1 << bit)]))


def test_a_batch_whose_bytes_have_changed_is_the_only_one_lost(
    tmp_path: Path, brain: Brain
) -> None:
    agent = filled(tmp_path / "a", 20)
    row_id, sealed = agent.spool.db.execute(
        "SELECT id, sealed FROM batch WHERE sequence = 7 AND is_sheet = 0"
    ).fetchone()
    changed = bytes([*sealed[:500], sealed[500] ^ 16, *sealed[501:]])
    agent.spool.db.execute("UPDATE batch SET sealed = ? WHERE id = ?", (changed, row_id))
    Line(agent, brain).run()
    assert losses(brain) == [(7, 7)]
    assert kept_slots(brain) == [at for at in range(20) if at != 7]
    tally = agent.spool.tally()
    assert (tally.acknowledged, tally.given_up, tally.waiting) == (19, 1, 0)


@pytest.mark.parametrize("seed", range(4))
def test_whatever_is_flipped_in_the_file_what_is_whole_arrives_and_the_rest_is_declared(
    tmp_path: Path, brain: Brain, seed: int
) -> None:
    chance = random.Random(seed)
    agent = filled(tmp_path / "a", 40)
    agent.spool.db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    agent.spool.close()
    path = tmp_path / "a" / "spool.db"
    # The first page names the tables; without it nothing can be read, which has its own test.
    for _ in range(4):
        flip(path, chance.randrange(4096, path.stat().st_size), chance.randrange(8))
    mark_damaged(path)
    open_mended(path).close()
    agent = Agent(tmp_path / "a", KEYS, POLICY)
    epoch = agent.spool.meta("epoch", 0)
    agent.start(epoch or 2)
    Line(agent, brain).run()
    kept = kept_slots(brain)
    lost = {at for first, last in losses(brain) for at in range(first, last + 1)}
    assert sorted([*kept, *lost]) == list(range(40))
    assert len(kept) >= 30
    assert agent.spool.tally().waiting_batches == 0
    if epoch:
        tally = agent.spool.tally()
        assert (tally.released, tally.acknowledged, tally.given_up) == (40, len(kept), len(lost))
    # And it goes on.
    agent.release(block(SLOT + 99, [ENERGY], [5]))
    Line(agent, brain).run()
    assert 99 in kept_slots(brain)


@pytest.mark.parametrize("damage", ["no database", "no first page", "half of it"])
def test_a_file_that_cannot_be_read_is_set_aside_and_a_new_one_begins(
    tmp_path: Path, damage: str
) -> None:
    agent = filled(tmp_path / "a", 40)
    agent.spool.close()
    path = tmp_path / "a" / "spool.db"
    whole = path.read_bytes()
    broken = {
        "no database": b"this is no database " * 500,
        "no first page": bytes(4096) + whole[4096:],
        "half of it": whole[: len(whole) // 2],
    }[damage]
    path.write_bytes(broken)
    spool = open_mended(path)
    assert spool.meta("epoch", 0) == 0 or damage == "half of it"
    assert spool.db.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
    spool.close()
    assert path.with_name(ASIDE).read_bytes() == broken
    # Mended once, it is not mended again.
    open_mended(path).close()
    assert path.with_name(ASIDE).read_bytes() == broken


def test_a_mending_that_was_cut_short_begins_again_and_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, brain: Brain
) -> None:
    filled(tmp_path / "a", 10).spool.close()
    path = tmp_path / "a" / "spool.db"
    mark_damaged(path)

    def cut(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("agent.mending._rebuild", cut)
        with pytest.raises(KeyboardInterrupt):
            open_mended(path)
    assert not path.exists()
    open_mended(path).close()
    agent = Agent(tmp_path / "a", KEYS, POLICY)
    agent.start()
    Line(agent, brain).run()
    assert kept_slots(brain) == list(range(10))


# The disk.


def test_the_file_shrinks_when_the_backlog_has_been_delivered(tmp_path: Path) -> None:
    agent = filled(tmp_path / "a", 300)
    path = tmp_path / "a" / "spool.db"
    agent.spool.db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    large = path.stat().st_size
    agent.spool.db.execute("UPDATE batch SET status = 1 WHERE is_sheet = 0")
    agent.spool.trim(0)
    assert path.stat().st_size == large
    while agent.spool.shrink():
        pass
    assert path.stat().st_size < large / 2
    assert path.with_name("spool.db-wal").stat().st_size == 0
    assert agent.spool.db.execute("PRAGMA integrity_check").fetchone()[0] == "ok"


async def until_gone(reserve: Reserve) -> None:
    while reserve.is_there:  # noqa: ASYNC110 - a file has no event
        await asyncio.sleep(0.01)


async def test_a_full_disk_pauses_what_adds_and_not_what_delivers(
    tmp_path: Path, brain: Brain, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patience, "_FIRST_WAIT_S", 0.01)
    agent = filled(tmp_path / "a", 20)
    thread = SpoolThread()
    reserve = thread.reserve = Reserve(tmp_path / "a" / "reserve", 1 << 16)
    assert reserve.take()
    pages = agent.spool.db.execute("PRAGMA page_count").fetchone()[0]
    agent.spool.db.execute(f"PRAGMA max_page_count={pages + 12}")
    with monkeypatch.context() as full:
        full.setattr(Reserve, "take", lambda self: self.is_there)
        chance = random.Random(1)
        rises = [5 * chance.randrange(1 << 40) for _ in range(30_000)]
        many = block(SLOT - 40_000, [ENERGY], rises)

        def add() -> None:
            agent.number = agent.spool.meta("number")
            agent.release(many)

        adding = asyncio.create_task(thread.keep(add))
        async with asyncio.timeout(30):
            await until_gone(reserve)
            # What was there before is delivered all the same.
            await thread.call(Line(agent, brain).run)
        assert kept_slots(brain) == list(range(20))
        assert not adding.done()
    agent.spool.db.execute("PRAGMA max_page_count=1000000")
    async with asyncio.timeout(30):
        await adding
    assert agent.spool.tally().waiting == len(rises)
    assert reserve.is_there


async def test_a_really_full_disk_loses_nothing(
    tmp_path: Path, brain: Brain, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patience, "_FIRST_WAIT_S", 0.01)
    agent = started(small_disk)
    thread = SpoolThread()
    thread.reserve = Reserve(small_disk / "reserve", 256 << 10)
    assert thread.reserve.take()
    agent.spool.db.execute("PRAGMA wal_autocheckpoint=16")

    async def add() -> None:
        while True:
            agent.number = agent.spool.meta("number")
            await thread.keep(agent.release, block(SLOT + agent.number, [ENERGY], [5]))

    adding = asyncio.create_task(add())
    async with asyncio.timeout(60):
        await until_gone(thread.reserve)
        adding.cancel()
        await asyncio.wait([adding])
        committed = agent.spool.meta("number")
        assert 20 < committed < 10_000
        await thread.call(Line(agent, brain).run)
    assert kept_slots(brain) == list(range(committed))
    thread.shutdown()
    agent.spool.close()


def test_a_side_that_starts_on_a_full_disk_opens_its_spool_with_the_reserve(
    small_disk: Path,
) -> None:
    filled(small_disk, 5).spool.close()
    thread = SpoolThread()
    thread.reserve = Reserve(small_disk / "reserve", 256 << 10)
    assert thread.reserve.take()
    SmallDisk(small_disk).fill()
    with pytest.raises(SpoolFault):
        Spool(small_disk / "spool.db")
    spool = thread.open(small_disk / "spool.db")
    assert spool.tally().waiting == 5
    assert not thread.reserve.is_there
    assert not thread.reserve.take()
    SmallDisk(small_disk).free()
    assert thread.reserve.take()
    spool.close()
    thread.shutdown()


def test_a_spool_of_the_form_before_is_taken_over(tmp_path: Path, brain: Brain) -> None:
    agent = filled(tmp_path / "a", 5)
    db = agent.spool.db
    db.execute("DROP INDEX batch_due")
    db.execute("ALTER TABLE batch DROP COLUMN at")
    db.execute("ALTER TABLE batch DROP COLUMN first")
    db.execute("PRAGMA user_version=2")
    agent.spool.close()
    agent = Agent(tmp_path / "a", KEYS, POLICY)
    agent.start()
    Line(agent, brain).run()
    assert kept_slots(brain) == [0, 1, 2, 3, 4]
    assert agent.spool.db.execute(
        "SELECT COUNT(*) FROM batch WHERE status = ?", (WAITING,)
    ).fetchone() == (0,)


def test_a_fault_of_the_disk_is_told_from_a_damaged_file(tmp_path: Path) -> None:
    agent = filled(tmp_path / "a", 1)
    with pytest.raises(sqlite3.IntegrityError) as caught:
        agent.spool.db.execute("INSERT INTO chain SELECT * FROM chain")
    assert not is_damage(caught.value)
