"""The ledger: whole groups or nothing, covered time exactly, and memory that stays small."""

import itertools
import json
import signal
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aggregator.ledger import Ledger, LedgerFault, _filled, repeats
from protocols.batch import NO_VALUE, Block
from protocols.database import open_database
from security.answers import Head
from security.envelope import digest
from tests.small_factory import (
    ENERGY,
    NOW,
    POWER,
    SHORT_S,
    Brain,
    Forger,
    Keys,
    block,
    signed_policy,
)

ROOT = Path(__file__).parents[2]
KEYS, OTHER = Keys(), Keys("other mill")
POLICY = signed_policy(KEYS)
SLOT = NOW // SHORT_S


@pytest.fixture
def brain(tmp_path: Path) -> Iterator[Brain]:
    opened = Brain(tmp_path / "brain", KEYS, OTHER)
    yield opened
    opened.close()


@pytest.fixture
def forger() -> Forger:
    return Forger(KEYS, POLICY)


def energy(slot: int, *values: int) -> Block:
    return block(SLOT + slot, [ENERGY], [5 * value for value in values])


def rows(ledger: Ledger, table: str) -> list[tuple[Any, ...]]:
    return ledger._db.execute(f"SELECT * FROM {table} ORDER BY 1, 2").fetchall()  # noqa: S608 - names of our own tables


# Whole groups or nothing.


def test_a_group_that_fails_leaves_nothing_and_the_next_one_is_taken(
    brain: Brain, forger: Forger, monkeypatch: pytest.MonkeyPatch
) -> None:
    messages = [forger.sheet_message(), forger.batch(energy(0, 1)), forger.batch(energy(1, 1))]

    def full(*_: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    for step in ("keep_sheet", "keep", "cover", "answer", "declare", "count"):
        monkeypatch.setattr(brain.ledger, step, full)
        with pytest.raises(sqlite3.OperationalError, match="full"):
            brain.take(KEYS, *messages)
        monkeypatch.undo()
        assert all(
            rows(brain.ledger, table) == [] for table in ("batch", "chain", "sheet", "agent")
        )
        assert rows(brain.ledger, "covered") == []
    assert brain.take(KEYS, *messages).counts == {"kept": 3}


def test_a_full_disk_leaves_nothing_of_the_group_and_heals_with_room(
    brain: Brain, forger: Forger
) -> None:
    brain.take(KEYS, forger.sheet_message())
    pages = brain.ledger._db.execute("PRAGMA page_count").fetchone()[0]
    brain.ledger._db.execute(f"PRAGMA max_page_count={pages + 3}")
    before = rows(brain.ledger, "batch"), rows(brain.ledger, "covered")
    messages = [forger.batch(energy(at, 1)) for at in range(40)]
    with pytest.raises(sqlite3.OperationalError, match="full"):
        brain.take(KEYS, *messages)
    assert (rows(brain.ledger, "batch"), rows(brain.ledger, "covered")) == before
    brain.ledger._db.execute("PRAGMA max_page_count=1000000")
    assert brain.take(KEYS, *messages).counts == {"kept": 40}


WRITER = """
import json, os, sys
from pathlib import Path
from tests.small_factory import ENERGY, Brain, Forger, Keys, block, signed_policy

keys = Keys()
brain = Brain(Path(sys.argv[1]), keys)
forger = Forger(keys, signed_policy(keys))
start = int(sys.argv[2])
epoch = start + 1
brain.take(keys, forger.sheet_message(epoch=epoch))
at = 0
while True:
    group = [forger.batch(block(start * 100000 + at + n, [ENERGY], [5]), epoch=epoch) for n in range(3)]
    answers = brain.take(keys, *group).answers
    os.write(1, json.dumps([at, answers[0][1].hex()]).encode() + b"\\n")
    at += 3
"""


def killed(path: Path, start: int, after: int) -> list[tuple[int, bytes]]:
    """Let a brain take groups of three, kill it; return what it answered and was durable."""
    command = [sys.executable, "-c", WRITER, str(path), str(start)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        said = b"".join(process.stdout.readline() for _ in range(after))
        process.kill()
        said += process.stdout.read()
    assert process.returncode == -signal.SIGKILL
    return [(at, bytes.fromhex(text)) for at, text in map(json.loads, said.splitlines())]


def test_what_was_answered_survives_a_kill_and_nothing_is_half_kept(tmp_path: Path) -> None:
    for start, after in enumerate((1, 13)):
        answered = killed(tmp_path, start, after)
        brain = Brain(tmp_path, KEYS)
        kept = [
            one.start_s // SHORT_S - start * 100_000
            for one in brain.ledger.batches(0, 100_000)
            if one.start_s // SHORT_S >= start * 100_000
        ]
        assert kept == list(range(len(kept)))
        assert len(kept) % 3 == 0
        assert len(kept) - 3 * len(answered) in {0, 3}
        newest = rows(brain.ledger, "chain")
        assert any(row[3] == len(kept) for row in newest)
        if len(kept) == 3 * len(answered):
            assert answered[-1][1] in {row[-1] for row in rows(brain.ledger, "receipt")}
        assert brain.ledger._db.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
        brain.close()


def test_every_group_is_on_disk_before_it_is_answered(brain: Brain) -> None:
    assert brain.ledger._db.execute("PRAGMA synchronous").fetchone()[0] == 2
    assert brain.ledger._db.execute("PRAGMA journal_mode").fetchone()[0] == "wal"


def test_another_connection_reads_what_was_kept_and_nothing_half_done(
    brain: Brain, forger: Forger
) -> None:
    reader = Ledger(brain.path)
    brain.take(KEYS, forger.sheet_message(), forger.batch(energy(0, 1, 2)))
    with brain.ledger.transaction():
        brain.ledger.count(Counter({"half done": 1}))
        assert len(reader.batches(0, 10)) == 1
        assert "half done" not in reader.counters()
    assert reader.counters()["half done"] == 1
    reader.close()


@pytest.mark.parametrize("damage", ["text", "header", "version", "folder"])
def test_a_ledger_that_cannot_be_used_is_one_plain_fault(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "ledger.db"
    if damage == "folder":
        path.mkdir()
    elif damage == "text":
        path.write_text("this is no database " * 500)
    else:
        ledger = Ledger(path)
        if damage == "version":
            ledger._db.execute("PRAGMA user_version=99")
        ledger.close()
    if damage == "header":
        path.write_bytes(b"\0" * 100 + path.read_bytes()[100:])
    with pytest.raises(LedgerFault) as caught:
        Ledger(path)
    assert str(path) in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_a_ledger_of_the_version_before_goes_on_with_the_same_totals(
    brain: Brain, forger: Forger
) -> None:
    """Version 2 counted all batches whenever somebody asked."""
    batches = [forger.batch(energy(slot, 1, 2)) for slot in range(0, 8, 2)]
    brain.take(KEYS, forger.sheet_message(), *batches[:3])
    agent = brain.ledger.agents()[KEYS.address]
    before = brain.ledger.totals(agent)
    assert before == (3, 6, 0, NOW, (SLOT + 6) * SHORT_S)
    brain.ledger._db.execute("DROP TABLE total")
    brain.ledger._db.execute("PRAGMA user_version=2")
    newer = Ledger(brain.path)
    assert newer.totals(agent) == before
    newer.close()
    brain.clock += 5
    brain.take(KEYS, batches[3])
    assert brain.ledger.totals(agent) == (4, 8, 0, NOW + 5, (SLOT + 8) * SHORT_S)


def test_of_two_that_open_an_older_file_at_once_only_one_makes_it_new(tmp_path: Path) -> None:
    schema = (
        "CREATE TABLE one (x); CREATE TRIGGER t AFTER INSERT ON one BEGIN SELECT 1; SELECT 2; END;"
    )
    path = tmp_path / "file.db"
    open_database(path, schema, 1).close()
    upgrades = {1: "CREATE TABLE two (x); INSERT INTO two VALUES ('a;b');"}
    with ThreadPoolExecutor(4) as pool:
        opened = list(
            pool.map(lambda _: open_database(path, schema, 2, upgrades=upgrades), range(4))
        )
    for db in opened:
        assert db.execute("SELECT x FROM two").fetchall() == [("a;b",)]
        db.close()
    with pytest.raises(sqlite3.DatabaseError):
        open_database(path, schema, 3, upgrades={1: "DROP TABLE two;"})


# What can be asked.


def test_totals_and_batches_tell_what_was_kept(brain: Brain, forger: Forger) -> None:
    sheet = forger.sheet_message()
    brain.take(KEYS, sheet, forger.batch(energy(0, 1, 2)), forger.batch(block(SLOT, [ENERGY], [7])))
    brain.clock += 60
    brain.take(KEYS, forger.batch(energy(5, 1), block(SLOT + 5, [POWER], [1])))
    agent = brain.ledger.agents()[KEYS.address]
    assert brain.ledger.totals(agent) == (2, 4, 1, NOW + 60, (SLOT + 6) * SHORT_S)
    assert brain.ledger.address(agent) == KEYS.address
    first, second = brain.ledger.batches(0, 10)
    assert (first.start_s, first.end_s) == (SLOT * SHORT_S, (SLOT + 2) * SHORT_S)
    assert brain.ledger.batches(first.id, 10) == [second]
    assert brain.ledger.batches(second.id, 10) == []
    assert brain.ledger.batches(0, 1) == [first]
    touched = [
        list(brain.ledger.overlapping(agent, (SLOT + at) * SHORT_S, (SLOT + 5) * SHORT_S))
        for at in (1, 2)
    ]
    assert touched == [[first], []]
    assert brain.ledger.has_batches(agent, first.id)
    assert not brain.ledger.has_batches(agent, first.id - 1)
    assert brain.ledger.sheet(agent, forger.sheet.hash) == forger.sheet.signed
    assert brain.ledger.sheet(agent + 1, forger.sheet.hash) is None
    assert [row[0] for row in brain.ledger.sheets(agent)] == [forger.sheet.hash]


def test_counters_add_up_over_restarts(brain: Brain) -> None:
    for _ in range(2):
        for payload in (b"", b"x"):
            brain.take(KEYS, payload, payload)
        brain.close()
        brain.open()
    assert brain.ledger.counters() == {"malformed": 8}


def test_a_head_before_the_first_message_is_none(brain: Brain, forger: Forger) -> None:
    messages = [forger.batch(energy(at, 1)) for at in range(3)]
    brain.take(KEYS, forger.sheet_message(), *messages)
    agent = brain.ledger.agents()[KEYS.address]
    head = Head(1, forger.short, 2, digest(messages[2]))
    first = brain.ledger.head_before(agent, head)
    assert first == Head(1, forger.short, 1, digest(messages[1]))
    before = brain.ledger.head_before(agent, first)
    assert before == Head(1, forger.short, 0, digest(messages[0]))
    assert brain.ledger.head_before(agent, before) is None


# Covered time.


def covered(ledger: Ledger) -> dict[int, list[tuple[int, int]]]:
    found: dict[int, list[tuple[int, int]]] = {}
    for points, start, end in ledger._db.execute("SELECT * FROM covered ORDER BY 1, 2"):
        found.setdefault(points, []).append((start // SHORT_S - SLOT, end // SHORT_S - SLOT))
    return found


@settings(deadline=None, max_examples=25)
@given(st.lists(st.tuples(st.integers(0, 40), st.integers(1, 6)), min_size=1, max_size=12))
def test_covered_time_is_the_union_of_all_blocks_in_the_fewest_ranges(
    tmp_path_factory: pytest.TempPathFactory, spans: list[tuple[int, int]]
) -> None:
    brain = Brain(tmp_path_factory.mktemp("brain"), KEYS)
    forger = Forger(KEYS, POLICY)
    brain.take(KEYS, forger.sheet_message())
    slots: set[int] = set()
    for start, length in spans:
        # Slots without a value collide with nothing, so that every batch is kept.
        missing = block(SLOT + start, [ENERGY], [0] * length, [NO_VALUE] * length)
        assert brain.take(KEYS, forger.batch(missing)).counts == {"kept": 1}
        slots |= set(range(start, start + length))
    (ranges,) = covered(brain.ledger).values()
    assert set().union(*[range(low, high) for low, high in ranges]) == slots
    assert all(one[1] < two[0] for one, two in itertools.pairwise(ranges))
    brain.close()


def test_a_year_of_slots_in_order_is_one_range(brain: Brain, forger: Forger) -> None:
    brain.take(KEYS, forger.sheet_message())
    for start in range(0, 40, 4):
        brain.take(KEYS, forger.batch(energy(start, 1, 2, 3, 4)))
    assert list(covered(brain.ledger).values()) == [[(0, 40)]]


def test_points_are_told_apart_by_agent(brain: Brain, forger: Forger) -> None:
    other = Forger(OTHER)
    brain.take(KEYS, forger.sheet_message(), forger.batch(energy(0, 1)))
    outcome = brain.take(OTHER, other.sheet_message(), other.batch(energy(0, 2)))
    assert outcome.counts == {"kept": 2}


# The two comparisons against the plainest form of what they mean.

codes = st.sampled_from([0, 0, 0, 1, NO_VALUE])


@st.composite
def coded(draw: st.DrawFn, most_slot: int = 30) -> Block:
    numbers = sorted(draw(st.sets(st.integers(1, 5), min_size=1, max_size=3)))
    length = draw(st.integers(1, 8))
    cells = length * len(numbers)
    quality = draw(st.lists(codes, min_size=cells, max_size=cells))
    return block(draw(st.integers(0, most_slot)), numbers, [1] * cells, quality)


def told(one: Block, window_s: int) -> list[tuple[int, int, int, int, int]]:
    """Return (row, column, number, start, end) of every value."""
    return [
        (
            int(row),
            int(column),
            int(one.numbers[column]),
            (one.slot + int(row)) * window_s,
            (one.slot + int(row) + 1) * window_s,
        )
        for row, column in zip(*np.nonzero(one.quality != NO_VALUE), strict=True)
    ]


@settings(deadline=None, max_examples=150)
@given(coded(), st.sampled_from([1, 5, 15, 60]), coded(), st.sampled_from([1, 5, 15, 60]))
def test_a_slot_is_taken_exactly_where_a_value_of_the_same_point_overlaps_it(
    new: Block, window_s: int, old: Block, old_window_s: int
) -> None:
    found = _filled(new, window_s, old, old_window_s)
    values = told(old, old_window_s)
    for row in range(new.rows):
        start, end = (new.slot + row) * window_s, (new.slot + row + 1) * window_s
        for column, number in enumerate(new.numbers.tolist()):
            wanted = any(
                number == other and start < stop and begin < end
                for _, _, other, begin, stop in values
            )
            assert found[row, column] == wanted


@settings(deadline=None, max_examples=150)
@given(st.lists(coded(most_slot=12), min_size=1, max_size=4))
def test_blocks_repeat_exactly_when_a_point_has_two_values_for_a_slot(blocks: list[Block]) -> None:
    cells = [(number, start) for one in blocks for _, _, number, start, _ in told(one, 1)]
    assert repeats(blocks) == (len(set(cells)) < len(cells))


LONG_BLOCKS = """
import resource
import numpy as np
from aggregator.ledger import _filled, repeats
from protocols.batch import Block

def long(rows, slot):
    return Block(slot, np.array([1]), np.ones((rows, 1), np.int64), np.zeros((rows, 1), np.uint8))

one, two = long(100_000, 0), long(100_000, 99_999)
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (64 << 20),) * 2)
print(int(_filled(one, 5, two, 5).sum()), repeats([one, two]), repeats([one, long(100_000, 100_000)]))
"""


def test_comparing_the_longest_blocks_takes_little_memory() -> None:
    done = subprocess.run(
        [sys.executable, "-c", LONG_BLOCKS],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["1", "True", "False"]
