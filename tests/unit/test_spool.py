"""The spool: what was committed survives, waits for its receipt, and is counted exactly once."""

import hashlib
import signal
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from agent.spool import ACKNOWLEDGED, REFUSED, WAITING, Entry, Spool, SpoolFault, Tally
from security.answers import BEYOND_SHEET, Head, Refused
from security.envelope import REASON_REFUSED, Gap, parse
from tests.small_factory import ENERGY, Agent, Keys, block

ROOT = Path(__file__).parents[2]
SHEET = b"s" * 32
POLICY = b"p" * 32
STREAM = 7


def digest(*parts: object) -> bytes:
    return hashlib.sha256(repr(parts).encode()).digest()


def entry(
    sequence: int,
    cells: int = 10,
    size: int = 100,
    *,
    stream: int = STREAM,
    gaps: tuple[Gap, ...] = (),
    is_sheet: bool = False,
) -> Entry:
    return Entry(
        stream=stream,
        sequence=sequence,
        digest=digest(stream, sequence),
        sheet=SHEET,
        is_sheet=is_sheet,
        cells=cells,
        sealed=bytes([sequence % 256]) * size,
        gaps=gaps,
    )


def head(sequence: int, *, stream: int = STREAM, epoch: int = 1) -> Head:
    return Head(epoch, stream, sequence, digest(stream, sequence))


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    opened = Spool(tmp_path / "data" / "spool.db")
    yield opened
    opened.close()


def commit(spool: Spool, *entries: Entry, number: int = 1, epoch: int = 1) -> None:
    spool.commit(epoch, number, POLICY, b"memory %d" % number, entries)


def settle(spool: Spool, *heads: Head, refused: tuple[Refused, ...] = (), count: int = 1) -> int:
    return spool.settle(heads, refused, digest("receipt", count))


def snapshot(spool: Spool) -> list[tuple[object, ...]]:
    """Return everything that is in the file."""
    tables = ("meta", "chain", "batch", "gap")
    return [
        (table, *row)
        for table in tables
        for row in spool._db.execute(f"SELECT * FROM {table} ORDER BY 1, 2")  # noqa: S608 - constants
    ]


# Commits.


def test_a_message_of_several_streams_is_committed_as_one(spool: Spool) -> None:
    commit(spool, entry(0), entry(1), entry(0, stream=8, cells=5), number=4)
    assert spool.chain(1, STREAM) == (2, digest(STREAM, 1))
    assert spool.chain(1, 8) == (1, digest(8, 0))
    assert spool.chain(2, STREAM) is None
    assert (spool.meta("number"), spool.meta("memory")) == (4, b"memory 4")
    assert spool.meta("memory_policy") == POLICY
    assert [row.sealed[:1] for row in spool.waiting(0, 10)] == [b"\x00", b"\x01", b"\x00"]
    assert spool.tally() == Tally(25, 0, 25, 0, 3, 300)
    assert spool.waiting_bytes() == 300


@pytest.mark.parametrize("stream", [STREAM, 8])
def test_a_commit_that_fails_in_the_middle_leaves_nothing(spool: Spool, stream: int) -> None:
    commit(spool, entry(0), entry(1), number=1)
    before = snapshot(spool)
    with pytest.raises(sqlite3.IntegrityError):
        commit(spool, entry(0, stream=9), entry(2), entry(1), entry(0, stream=stream), number=2)
    assert snapshot(spool) == before
    commit(spool, entry(2), number=2)
    assert spool.chain(1, STREAM) == (3, digest(STREAM, 2))


def test_a_full_disk_leaves_the_spool_as_it_was_and_usable_when_there_is_room(
    spool: Spool,
) -> None:
    commit(spool, entry(0), number=1)
    before = snapshot(spool)
    pages = spool._db.execute("PRAGMA page_count").fetchone()[0]
    spool._db.execute(f"PRAGMA max_page_count={pages + 4}")
    with pytest.raises(sqlite3.OperationalError, match="full"):
        commit(spool, *[entry(at, size=4000) for at in range(1, 50)], number=2)
    assert snapshot(spool) == before
    spool._db.execute("PRAGMA max_page_count=1000000")
    commit(spool, *[entry(at, size=4000) for at in range(1, 50)], number=2)
    assert spool.tally().waiting_batches == 50


WRITER = """
import hashlib, os, sys
from pathlib import Path
from agent.spool import Entry, Spool
from security.answers import Head

def digest(*parts):
    return hashlib.sha256(repr(parts).encode()).digest()

def entry(stream, sequence):
    sealed = bytes([sequence % 256]) * 100
    return Entry(stream, sequence, digest(stream, sequence), b"s" * 32, False, 10, sealed)

spool = Spool(Path(sys.argv[1]))
number = spool.meta("number", 0)
while True:
    number += 1
    entries = [entry(7, 2 * number), entry(7, 2 * number + 1), entry(8, number)]
    spool.commit(1, number, b"p" * 32, b"memory %d" % number, entries)
    os.write(1, b"%d\\n" % number)
    if number % 5 == 0:
        head = Head(1, 7, 2 * number - 4, digest(7, 2 * number - 4))
        spool.settle([head], [], digest(number))
        spool.trim(2000)
"""


def written_until_killed(path: Path, after: int) -> list[int]:
    """Let a process write, kill it after so many commits; return what it said was committed."""
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path)], cwd=ROOT, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        said = b"".join(process.stdout.readline() for _ in range(after))
        process.kill()
        said += process.stdout.read()
    assert process.returncode == -signal.SIGKILL
    return [int(line) for line in said.split()]


@pytest.mark.parametrize("after", [1, 7, 40, 111])
def test_a_process_killed_at_any_moment_leaves_whole_messages_only(
    tmp_path: Path, after: int
) -> None:
    path = tmp_path / "spool.db"
    last = 0
    for _ in range(2):
        said = written_until_killed(path, after)
        assert said == list(range(last + 1, last + 1 + len(said)))
        spool = Spool(path)
        number = spool.meta("number")
        # What was said is kept; one more may have been committed and not said any more.
        assert number in {said[-1], said[-1] + 1}
        assert spool.meta("memory") == b"memory %d" % number
        assert spool.chain(1, STREAM) == (2 * number + 2, digest(STREAM, 2 * number + 1))
        assert spool.chain(1, 8) == (number + 1, digest(8, number))
        assert spool.tally().released == 30 * number
        assert integrity(spool) == "ok"
        last = number
        spool.close()


def integrity(spool: Spool) -> str:
    return str(spool._db.execute("PRAGMA integrity_check").fetchone()[0])


def test_every_commit_is_on_disk_before_it_returns(spool: Spool) -> None:
    assert spool._db.execute("PRAGMA synchronous").fetchone()[0] == 2
    assert spool._db.execute("PRAGMA journal_mode").fetchone()[0] == "wal"


# Receipts.


def test_a_receipt_settles_everything_up_to_its_head(spool: Spool) -> None:
    commit(spool, *[entry(at) for at in range(6)], entry(0, stream=8))
    assert settle(spool, head(3)) == 4
    assert [row.sealed[0] for row in spool.waiting(0, 10)] == [4, 5, 0]
    assert settle(spool, head(3)) == 0
    assert settle(spool, head(1)) == 0
    assert settle(spool, head(5), head(0, stream=8)) == 3
    assert spool.waiting(0, 10) == []
    assert spool.tally() == Tally(70, 70, 0, 0, 0, 0)


FOREIGN = {
    "of another epoch": head(2, epoch=2),
    "of another stream": head(2, stream=8),
    "beyond the chain": head(9),
    "with another hash": Head(1, STREAM, 2, digest("other")),
    "with the hash of another message": Head(1, STREAM, 2, digest(STREAM, 1)),
}


@pytest.mark.parametrize("foreign", FOREIGN.values(), ids=FOREIGN.keys())
def test_a_head_that_is_not_of_our_chain_settles_nothing(spool: Spool, foreign: Head) -> None:
    commit(spool, *[entry(at) for at in range(3)])
    assert settle(spool, foreign) == 0
    assert settle(spool, refused=(Refused(foreign, BEYOND_SHEET),)) == 0
    assert spool.tally() == Tally(30, 0, 30, 0, 3, 300)
    assert spool.gaps(1, STREAM, 10) == ()
    assert spool.gaps(foreign.epoch, foreign.stream, 10) == ()
    assert settle(spool, foreign, head(1)) == 2


def test_a_receipt_is_remembered_for_the_next_header(spool: Spool) -> None:
    commit(spool, entry(0))
    for seen in (1, 2, 3):
        settle(spool, head(0), count=seen)
        assert (spool.meta("receipts"), spool.meta("receipt")) == (seen, digest("receipt", seen))


def test_a_receipt_that_fails_in_the_middle_leaves_nothing(spool: Spool) -> None:
    commit(spool, *[entry(at) for at in range(3)])
    before = snapshot(spool)

    def heads() -> Iterator[Head]:
        yield head(1)
        raise RuntimeError("cut")

    with pytest.raises(RuntimeError, match="cut"):
        spool.settle(heads(), [Refused(head(0), BEYOND_SHEET)], digest("receipt"))
    assert snapshot(spool) == before


# Refused messages.


def status_of(spool: Spool, sequence: int) -> tuple[int, int]:
    row = spool._db.execute(
        "SELECT status, code FROM batch WHERE stream = ? AND sequence = ?", (STREAM, sequence)
    ).fetchone()
    return (row[0], row[1])


def test_a_refused_message_goes_to_the_refused_box_and_the_others_are_acknowledged(
    spool: Spool,
) -> None:
    commit(spool, *[entry(at) for at in range(4)])
    refusal = Refused(head(1), BEYOND_SHEET)
    assert settle(spool, head(3), refused=(refusal,)) == 4
    assert [status_of(spool, at) for at in range(4)] == [
        (ACKNOWLEDGED, 0),
        (REFUSED, BEYOND_SHEET),
        (ACKNOWLEDGED, 0),
        (ACKNOWLEDGED, 0),
    ]
    assert spool.tally() == Tally(40, 30, 0, 10, 0, 0)
    assert spool.gaps(1, STREAM, 10) == (Gap(1, 1, REASON_REFUSED),)
    assert spool.gaps(1, 8, 10) == ()


def test_a_refused_message_is_never_sent_again_nor_trimmed(spool: Spool) -> None:
    commit(spool, *[entry(at) for at in range(3)])
    settle(spool, head(2), refused=(Refused(head(1), BEYOND_SHEET),))
    spool.trim(0)
    assert spool.waiting(0, 10) == []
    assert status_of(spool, 1) == (REFUSED, BEYOND_SHEET)
    assert spool.tally() == Tally(30, 20, 0, 10, 0, 0)


def test_a_gap_is_declared_by_the_next_batch_and_by_no_other(spool: Spool) -> None:
    commit(spool, entry(0), entry(1))
    refusal = Refused(head(0), BEYOND_SHEET)
    settle(spool, head(1), refused=(refusal,))
    gaps = spool.gaps(1, STREAM, 10)
    commit(spool, entry(2, gaps=gaps), number=2)
    assert spool.gaps(1, STREAM, 10) == ()
    # The brain names it until it has seen the declaration, and a broker may repeat itself.
    for _ in range(2):
        assert settle(spool, head(1), refused=(refusal,)) == 0
        assert spool.gaps(1, STREAM, 10) == ()


def test_a_gap_whose_batch_was_not_committed_is_still_to_be_declared(spool: Spool) -> None:
    commit(spool, entry(0))
    settle(spool, head(0), refused=(Refused(head(0), BEYOND_SHEET),))
    gaps = spool.gaps(1, STREAM, 10)
    with pytest.raises(sqlite3.IntegrityError):
        commit(spool, entry(1, gaps=gaps), entry(0), number=2)
    assert spool.gaps(1, STREAM, 10) == gaps


def test_gaps_come_oldest_first_and_only_as_many_as_were_asked_for(spool: Spool) -> None:
    commit(spool, *[entry(at) for at in range(9)])
    refused = tuple(Refused(head(at), BEYOND_SHEET) for at in (7, 2, 5, 4))
    settle(spool, head(8), refused=refused)
    assert [gap.first for gap in spool.gaps(1, STREAM, 3)] == [2, 4, 5]
    assert [gap.first for gap in spool.gaps(1, STREAM, 9)] == [2, 4, 5, 7]


def test_a_message_acknowledged_before_it_was_refused_is_moved_once(spool: Spool) -> None:
    commit(spool, entry(0), entry(1))
    settle(spool, head(1))
    assert settle(spool, head(1), refused=(Refused(head(0), BEYOND_SHEET),)) == 1
    assert spool.tally() == Tally(20, 10, 0, 10, 0, 0)


# The sealed side on top: what the next batch really declares.


def test_the_sealed_side_declares_a_refusal_exactly_once(tmp_path: Path) -> None:
    agent = Agent(tmp_path, Keys())
    agent.start()
    for slot in range(3):
        agent.release(block(slot, [ENERGY], [5]))
    first, second = [parse(sealed) for sealed in agent.waiting()][1:3]
    heads = [
        Head(1, agent.short, parsed.header.sequence, parsed.digest) for parsed in (first, second)
    ]
    agent.spool.settle([heads[1]], [Refused(heads[0], BEYOND_SHEET)], digest("receipt"))
    agent.release(block(3, [ENERGY], [5]), block(9, [ENERGY], [5]))
    agent.release(block(10, [ENERGY], [5]))
    declared = [parse(sealed).header.gaps for sealed in agent.waiting()[-2:]]
    assert declared == [(Gap(0, 0, REASON_REFUSED),), ()]
    agent.spool.close()


# Archive.


def test_the_archive_is_trimmed_to_its_bound_oldest_first(spool: Spool) -> None:
    commit(spool, *[entry(at, size=100) for at in range(10)])
    settle(spool, head(7))
    assert spool.trim(1000) == 0
    assert spool.trim(350) == 5
    kept = spool._db.execute("SELECT sequence FROM batch ORDER BY id").fetchall()
    assert [row[0] for row in kept] == [5, 6, 7, 8, 9]
    assert spool.trim(350) == 0
    assert spool.trim(0) == 3
    assert spool.tally() == Tally(100, 80, 20, 0, 2, 200)


def test_sheets_are_never_trimmed(spool: Spool) -> None:
    commit(spool, entry(0, stream=1, is_sheet=True, cells=0, size=5000), entry(0))
    settle(spool, head(0, stream=1), head(0))
    assert spool.trim(0) == 1
    assert spool.sheet_sent(1, SHEET)


def test_sheets_are_kept_for_when_the_brain_asks(spool: Spool) -> None:
    commit(spool, entry(0, stream=1, is_sheet=True, cells=0), entry(0), entry(1))
    assert spool.sheet_sent(1, SHEET)
    assert not spool.sheet_sent(2, SHEET)
    assert not spool.sheet_sent(1, POLICY)
    assert len(spool.sheets_waiting(SHEET)) == 1
    assert spool.sheets_waiting(POLICY) == []
    settle(spool, head(0, stream=1), head(1))
    assert spool.sheets_waiting(SHEET) == []
    assert spool.kept_sheet(SHEET) is None
    spool.keep_sheet(SHEET, b"signed")
    assert spool.kept_sheet(SHEET) == b"signed"


def test_a_message_of_our_own_leaves_the_gates_place_alone(spool: Spool) -> None:
    commit(spool, entry(0), number=7)
    spool.append(1, [entry(0, stream=1, is_sheet=True, cells=0)])
    assert (spool.meta("number"), spool.meta("memory")) == (7, b"memory 7")
    assert spool.chain(1, 1) is not None
    assert len(spool.waiting(0, 10)) == 2


# Opening again.


def test_a_reopened_spool_goes_on_with_its_chains_and_sums(tmp_path: Path) -> None:
    path = tmp_path / "spool.db"
    spool = Spool(path)
    assert spool.is_new
    commit(spool, *[entry(at) for at in range(4)], number=3)
    settle(spool, head(2), refused=(Refused(head(1), BEYOND_SHEET),))
    before, tally = snapshot(spool), spool.tally()
    spool.close()
    spool = Spool(path)
    assert not spool.is_new
    assert (snapshot(spool), spool.tally()) == (before, tally)
    assert spool.chain(1, STREAM) == (4, digest(STREAM, 3))
    assert settle(spool, head(3)) == 1
    spool.close()


def test_a_reopened_sealed_side_goes_on_with_its_chain(tmp_path: Path) -> None:
    keys = Keys()
    agent = Agent(tmp_path, keys)
    agent.start()
    agent.release(block(0, [ENERGY], [5]))
    agent.spool.close()
    again = Agent(tmp_path, keys)
    assert again.sealer.restore(1).number == 1
    again.number = 1
    again.release(block(1, [ENERGY], [5]))
    sheet, *batches = [parse(sealed) for sealed in again.waiting()]
    assert sheet.header.sequence == 0
    assert [one.header.sequence for one in batches] == [0, 1]
    assert batches[1].header.previous == batches[0].digest
    again.spool.close()


@pytest.mark.parametrize("damage", ["text", "half", "version", "folder"])
def test_a_spool_that_cannot_be_used_is_a_plain_fault(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "spool.db"
    if damage == "folder":
        path.mkdir()
    elif damage == "text":
        path.write_text("this is no database " * 500)
    else:
        spool = Spool(path)
        commit(spool, *[entry(at, size=4000) for at in range(20)])
        if damage == "version":
            spool._db.execute("PRAGMA user_version=99")
        spool.close()
    if damage == "half":
        path.write_bytes(b"\0" * 100 + path.read_bytes()[100:])
    with pytest.raises(SpoolFault) as caught:
        Spool(path)
    assert str(path) in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


# Any history.


@dataclass
class Model:
    """What must be true, in the plainest form: each message's cells and where it is."""

    status: dict[tuple[int, int], int] = field(default_factory=dict)
    cells: dict[tuple[int, int], int] = field(default_factory=dict)
    next: Counter[int] = field(default_factory=Counter)
    gaps: set[tuple[int, int]] = field(default_factory=set)
    ever_declared: Counter[tuple[int, int]] = field(default_factory=Counter)

    def total(self, status: int) -> int:
        return sum(self.cells[key] for key, one in self.status.items() if one == status)


streams = st.sampled_from([STREAM, 8])


class SpoolHistory(RuleBasedStateMachine):
    """Commits, receipts, refusals, trims and restarts in any order."""

    path: Path

    @initialize()
    def begin(self) -> None:
        self.model = Model()
        for suffix in ("", "-wal", "-shm"):
            self.path.with_name(self.path.name + suffix).unlink(missing_ok=True)
        self.spool = Spool(self.path)
        self.number = 0
        self.receipts = 0

    @rule(stream=streams, cells=st.lists(st.integers(0, 50), min_size=1, max_size=3))
    def commit(self, stream: int, cells: list[int]) -> None:
        entries = []
        gaps = self.spool.gaps(1, stream, 2)
        for count in cells:
            sequence = self.model.next[stream]
            entries.append(entry(sequence, count, stream=stream, gaps=gaps))
            for gap in gaps:
                self.model.ever_declared[stream, gap.first] += 1
                self.model.gaps.discard((stream, gap.first))
            gaps = ()
            self.model.next[stream] += 1
            self.model.status[stream, sequence] = WAITING
            self.model.cells[stream, sequence] = count
        self.number += 1
        commit(self.spool, *entries, number=self.number)

    @rule(stream=streams, at=st.integers(0, 30), refused=st.sets(st.integers(0, 30), max_size=4))
    def receive(self, stream: int, at: int, refused: set[int]) -> None:
        """Take a receipt that may be new, old, repeated, or of a chain that is not ours."""
        named = tuple(Refused(head(one, stream=stream), BEYOND_SHEET) for one in sorted(refused))
        known = at < self.model.next[stream]
        there = {one for one in refused if self._kept(stream, one)}
        on_disk = known and self._kept(stream, at)
        self.receipts += 1
        settle(self.spool, head(at, stream=stream), refused=named, count=self.receipts)
        for one in there:
            if self.model.status[stream, one] != REFUSED:
                self.model.status[stream, one] = REFUSED
                self.model.gaps.add((stream, one))
        if on_disk:
            for sequence in range(at + 1):
                if self.model.status[stream, sequence] == WAITING:
                    self.model.status[stream, sequence] = ACKNOWLEDGED

    def _kept(self, stream: int, sequence: int) -> bool:
        row = self.spool._db.execute(
            "SELECT 1 FROM batch WHERE stream = ? AND sequence = ?", (stream, sequence)
        ).fetchone()
        return row is not None

    @rule(bound=st.integers(0, 1500))
    def trim(self, bound: int) -> None:
        self.spool.trim(bound)
        kept = self.spool._db.execute(
            "SELECT COALESCE(SUM(size), 0) FROM batch WHERE status = ?", (ACKNOWLEDGED,)
        ).fetchone()[0]
        assert kept <= bound

    @rule(stream=streams)
    @precondition(lambda self: self.number > 0)
    def fail(self, stream: int) -> None:
        if self.model.next[stream]:
            with pytest.raises(sqlite3.IntegrityError):
                commit(
                    self.spool,
                    entry(self.model.next[stream], stream=stream),
                    entry(self.model.next[stream], stream=stream),
                    number=999,
                )

    @rule()
    def reopen(self) -> None:
        self.spool.close()
        self.spool = Spool(self.path)

    @invariant()
    def sums_hold(self) -> None:
        if not hasattr(self, "spool"):
            return
        tally = self.spool.tally()
        assert tally.released == sum(self.model.cells.values())
        assert tally.waiting == self.model.total(WAITING)
        assert tally.refused == self.model.total(REFUSED)
        assert tally.acknowledged == self.model.total(ACKNOWLEDGED)
        assert tally.released == tally.acknowledged + tally.waiting + tally.refused
        waiting = [key for key, one in self.model.status.items() if one == WAITING]
        assert tally.waiting_batches == len(waiting) == len(self.spool.waiting(0, 1000))
        assert self.spool.meta("number", 0) == self.number

    @invariant()
    def every_refusal_is_declared_once_at_most(self) -> None:
        if not hasattr(self, "spool"):
            return
        for stream in (STREAM, 8):
            found = {(stream, gap.first) for gap in self.spool.gaps(1, stream, 1000)}
            assert found == {gap for gap in self.model.gaps if gap[0] == stream}
            following = self.spool.chain(1, stream)
            assert (following[0] if following else 0) == self.model.next[stream]
        assert all(count == 1 for count in self.model.ever_declared.values())

    def teardown(self) -> None:
        if hasattr(self, "spool"):
            self.spool.close()


def test_the_sums_hold_after_any_history(tmp_path: Path) -> None:
    class Here(SpoolHistory):
        path = tmp_path / "spool.db"

    run_state_machine_as_test(
        Here, settings=settings(deadline=None, max_examples=25, stateful_step_count=20)
    )
