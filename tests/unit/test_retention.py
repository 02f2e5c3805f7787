"""Retention: what came under a sheet is deleted in time, that is said, and it cannot come again."""

import contextlib
import hashlib
import random
import sqlite3
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from aggregator.retention import _kept_days, signed_erasure
from aggregator.stores import RowSpan, StoreRefused
from protocols.batch import Block
from security.answers import Erased, Erasure, read_answer
from security.envelope import Sealed, digest, open_sealed
from security.keys import OpeningKey
from tests.small_factory import ENERGY, HOURLY, LONG_S, NOW, SHORT_S, Agent, Forger, block
from tests.unit.test_projection import KEYS, POLICY, SLOT, Way

DAY_S = 86_400
RETENTION_S = 365 * DAY_S


@pytest.fixture
def way(tmp_path: Path) -> Iterator[Way]:
    opened = Way(tmp_path)
    yield opened
    opened.close()


def energy(slot: int, *values: int) -> Block:
    return block(SLOT + slot, [ENERGY], [5 * value for value in values])


def ended(slot: int) -> int:
    """Return the second at which the retention of a slot is over."""
    return (SLOT + slot + 1) * SHORT_S + RETENTION_S


def statement(way: Way, now_s: int) -> Erasure | None:
    signed = signed_erasure(way.ledger, way.brain.receipt, KEYS.address, now_s)
    if signed is None:
        return None
    answer = read_answer(signed, KEYS.address, [KEYS.receipt.public])
    assert isinstance(answer, Erasure)
    return answer


def test_content_is_deleted_when_its_retention_ends_and_not_a_second_before(way: Way) -> None:
    first, second = way.forger.batch(energy(0, 1)), way.forger.batch(energy(1, 2))
    assert way.brain.take(KEYS, first, second).counts == {"kept": 2}
    way.follow()
    assert way.projection.forget_ended(ended(0) - 1) == set()
    assert statement(way, NOW) is None
    assert way.projection.forget_ended(ended(0)) == {KEYS.address}
    assert way.energy() == {1: 0.1}
    assert [kept.digest for kept in way.ledger.batches(0, 9)] == [digest(second)]
    assert first not in way.brain.path.read_bytes()
    proof = hashlib.sha256(digest(first)).digest()
    assert statement(way, NOW) == Erasure(
        KEYS.address, NOW, (Erased(1, way.forger.short, 0, 0, proof),)
    )
    assert way.projection.forget_ended(ended(0)) == set()


def test_a_statement_names_neighbouring_batches_as_one_range(way: Way) -> None:
    messages = [way.forger.batch(energy(at, at)) for at in range(4)]
    assert way.brain.take(KEYS, *messages).counts == {"kept": 4}
    way.follow()
    way.projection.forget_ended(ended(2))
    proof = hashlib.sha256(b"".join(digest(one) for one in messages[:3])).digest()
    assert statement(way, NOW) == Erasure(
        KEYS.address, NOW, (Erased(1, way.forger.short, 0, 2, proof),)
    )


@pytest.mark.parametrize("at", [0, 1, 2])
def test_what_cannot_be_opened_stays_with_its_rows_and_is_not_said_to_be_deleted(
    way: Way, at: int
) -> None:
    messages = [way.forger.batch(energy(slot, 1)) for slot in range(3)]
    assert way.brain.take(KEYS, *messages).counts == {"kept": 3}
    way.follow()
    db = way.brain.ledger._db
    (sealed,) = db.execute("SELECT sealed FROM batch WHERE id = ?", (at + 2,)).fetchone()
    db.execute("UPDATE batch SET sealed = x'00' WHERE id = ?", (at + 2,))
    way.projection.forget_ended(ended(2))
    # Its neighbours go without it, also where it lies between them.
    assert way.energy() == {at: 0.05}
    assert erased_messages(way) == 2
    # Once it can be opened again, it goes as the others did.
    db.execute("UPDATE batch SET sealed = ? WHERE id = ?", (sealed, at + 2))
    way.projection.forget_ended(ended(2))
    assert way.stores["future_factory"].count("ff_energy") == 0
    assert erased_messages(way) == 3


def test_each_batch_is_opened_once_when_it_is_erased(
    way: Way, monkeypatch: pytest.MonkeyPatch
) -> None:
    messages = [way.forger.batch(energy(slot, 1)) for slot in range(5)]
    assert way.brain.take(KEYS, *messages).counts == {"kept": 5}
    way.follow()
    opened: list[bytes] = []

    def noted(sealed: Sealed, key: OpeningKey) -> bytes:
        opened.append(sealed.digest)
        return open_sealed(sealed, key)

    monkeypatch.setattr("aggregator.inbox.open_sealed", noted)
    way.projection.forget_ended(ended(4))
    assert sorted(opened) == sorted(map(digest, messages))


def test_after_an_erasure_no_file_of_the_brain_holds_what_was_deleted(way: Way) -> None:
    chance = random.Random(5)
    values = [chance.randrange(10**6, 10**7) for _ in range(100)]
    sent: list[bytes] = []
    seen: set[bytes] = set()
    for slot in range(0, 100, 5):
        sent.append(way.forger.batch(energy(slot, *values[slot : slot + 5])))
        assert way.brain.take(KEYS, sent[-1]).counts == {"kept": 1}
        way.follow()
        seen |= packed(way)
    way.projection.forget_ended(ended(49))
    assert sorted(way.energy()) == list(range(50, 100))
    raw = b"".join(p.read_bytes() for p in sorted(way.folder.rglob("*")) if p.is_file())
    left = b"".join(packed(way))
    for value in values[:50]:
        # In kWh as a float, and as the integer that travelled.
        assert struct.pack("<d", value * 0.05) not in raw
        assert (value * 5).to_bytes(8, "little") not in raw
    for message in sent[:10]:
        # The middle is ciphertext; what is around it is alike in all of them.
        assert not {piece for piece in pieces(message[1000:-1500]) if piece in raw}
    for gone in seen:
        assert not {piece for piece in pieces(gone) if piece in raw and piece not in left}


def packed(way: Way) -> set[bytes]:
    """Return the bytes of all rows in the stores' files, as they are kept now."""
    found: set[bytes] = set()
    for path in (way.folder / "store").glob("*.series"):
        with contextlib.closing(sqlite3.connect(path)) as db:
            rows = db.execute("SELECT data FROM chunk UNION SELECT data FROM pending")
            found |= {row[0] for row in rows}
    return found


def pieces(data: bytes) -> Iterator[bytes]:
    """Yield parts that are long enough to be nowhere by chance."""
    return (data[at : at + 24] for at in range(32, len(data) - 24, 97))


def erased_messages(way: Way) -> int:
    told = statement(way, NOW)
    assert told is not None
    return sum(one.last - one.first + 1 for one in told.erased)


def test_a_point_with_a_shorter_retention_shortens_that_of_its_stream() -> None:
    sheet = POLICY.sheets[0].sheet
    short, long = sorted(sheet.streams, key=lambda one: one.window_s)
    points = [
        one.model_copy(update={"retention_days": 30}) if one.number == ENERGY else one
        for one in sheet.points
    ]
    shorter = sheet.model_copy(update={"points": points})
    assert _kept_days(sheet) == {short.id: 365, long.id: 365}
    assert _kept_days(shorter) == {short.id: 30, long.id: 365}


def test_series_written_anew_do_not_hold_what_was_deleted(way: Way) -> None:
    way.send(energy(0, 1))
    way.send(energy(1, 2))
    way.follow()
    way.projection.forget_ended(ended(0))
    way.restart(rules="other rules")
    way.follow()
    assert way.energy() == {1: 0.1}


def test_what_was_deleted_cannot_come_again(way: Way) -> None:
    message = way.forger.batch(energy(0, 1))
    assert way.brain.take(KEYS, message).counts == {"kept": 1}
    way.follow()
    way.projection.forget_ended(ended(0))
    again = way.brain.take(KEYS, message)
    assert again.counts == {"replayed": 1}
    other = Forger(KEYS, POLICY)
    other.ends.clear()
    fresh = way.brain.take(KEYS, other.batch(energy(0, 1), epoch=2))
    assert fresh.counts == {"refused": 1}
    way.follow()
    assert way.stores["future_factory"].count("ff_energy") == 0
    assert way.brain.take(KEYS, way.forger.batch(energy(1, 2))).counts == {"kept": 1}


def test_the_sums_still_count_what_was_deleted(way: Way) -> None:
    way.send(energy(0, 1, 2))
    way.follow()
    before = way.ledger.stored(1)
    way.projection.forget_ended(ended(1))
    assert way.ledger.stored(1) == before == {1: 2}


def test_longer_slots_are_kept_until_their_own_end(way: Way) -> None:
    way.send(energy(0, 1))
    slot = NOW // LONG_S
    long = block(slot, [HOURLY], [7])
    if way.brain.take(KEYS, way.forger.batch(long, stream=way.forger.long)).counts != {"kept": 1}:
        pytest.fail("the hourly batch was not kept")
    way.follow()
    way.projection.forget_ended((slot + 1) * LONG_S + RETENTION_S - 1)
    assert {kept.stream for kept in way.ledger.batches(0, 9)} == {way.forger.long}


def test_where_a_store_cannot_delete_nothing_is_erased_and_nothing_claimed(
    way: Way, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    way.send(energy(0, 1))
    way.follow()

    def refuse(spans: Sequence[RowSpan]) -> None:
        raise StoreRefused("cannot delete")

    monkeypatch.setattr(way.stores["carbon_emission"], "delete_rows", refuse)
    assert way.projection.forget_ended(ended(0)) == set()
    assert statement(way, NOW) is None
    assert len(way.ledger.batches(0, 9)) == 1
    assert "cannot delete" in caplog.text


def test_the_agent_keeps_the_newest_statement_of_each_brain(way: Way, tmp_path: Path) -> None:
    agent = Agent(tmp_path, KEYS)
    way.send(energy(0, 1))
    way.follow()
    way.projection.forget_ended(ended(0))
    key = way.brain.receipt
    old, new = (signed_erasure(way.ledger, key, KEYS.address, NOW + at) for at in (0, 5))
    assert old is not None
    assert new is not None
    for signed in (old, new, old):
        agent.settle(signed)
    assert agent.spool.erasures() == [new]
    agent.spool.close()
