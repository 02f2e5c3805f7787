"""Lists of keys: rotation with overlap, revocation by place, and old messages that stay verifiable."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.attest import Attester
from aggregator import app as aggregator_app
from aggregator.alarms import REVOKED_KEY, in_words
from aggregator.config import Factory, read_factories
from aggregator.evidence import export
from protocols import strict_cbor
from protocols.batch import Block
from protocols.errors import ConfigError
from protocols.strict_cbor import Malformed
from security import cose
from security.cards import write_card
from security.evidence import reading
from security.evidence_check import Grade, Report, check
from security.key_list import (
    COMPROMISED,
    KEYS,
    LOST,
    REPLACED,
    KeyList,
    KeyRecord,
    Mark,
    NotNext,
    check_next,
    first_list,
    from_bytes,
    read_keys,
    to_bytes,
    with_key,
    without_key,
)
from security.keys import BadSignature, SigningKey
from security.schemes import P256
from security.secret import Secret
from security.statements import Ask, Loss, sign_statement
from tests.small_factory import (
    ENERGY,
    NOW,
    SHORT_S,
    Agent,
    Brain,
    Forger,
    block,
    signed_policy,
    signing_key,
)
from tests.small_factory import Keys as Mill

MILL = Mill()
POLICY = signed_policy(MILL)
OLD, NEW, THIRD = MILL.signing, signing_key("the new key"), signing_key("the third key")
TOKEN = SigningKey(Secret(b"\x31" * 32), P256)
FIRST = first_list(MILL.address, OLD.public)
OFFICERS = [key.public for key in MILL.officers]


def signed(found: KeyList, officers: list[SigningKey] | None = None) -> bytes:
    return cose.sign_many(KEYS, to_bytes(found), officers or MILL.officers)


def energy(slot: int) -> Block:
    return block(NOW // SHORT_S + slot, [ENERGY], [5 * slot])


def place_of(forger: Forger) -> Mark:
    return Mark(1, {stream: count for (_, stream), (count, _) in forger.ends.items()})


@pytest.fixture
def forger() -> Forger:
    return Forger(MILL, POLICY)


@pytest.fixture
def brain(tmp_path: Path, forger: Forger) -> Iterator[Brain]:
    """A brain that keeps lists of keys, and has the sheet and three batches of the old key."""
    opened = Brain(tmp_path, MILL)
    factory = Factory(MILL.name, "main", MILL.agent_card, None, tmp_path / "mill.keys")
    opened.factories[MILL.address] = factory
    opened.take(MILL, forger.sheet_message())
    outcome = opened.take(MILL, *(forger.batch(energy(slot)) for slot in range(3)))
    assert outcome.kept == 3
    yield opened
    opened.close()


def rotated(forger: Forger) -> KeyList:
    return with_key(FIRST, NEW.public, place_of(forger), NOW)


# At the brain.


def test_a_new_key_counts_when_officers_have_listed_it_and_not_before(
    brain: Brain, forger: Forger
) -> None:
    message = forger.batch(energy(3), signer=NEW)
    assert brain.take(MILL, message).counts["bad_signature"] == 1
    assert brain.take(MILL, signed(rotated(forger))).answers == []
    # The mark was taken behind the message above.
    assert brain.take(MILL, message).counts["revoked_key"] == 1


def test_old_and_new_keys_count_side_by_side_until_the_old_one_is_ended(
    brain: Brain, forger: Forger
) -> None:
    first = rotated(forger)
    brain.take(MILL, signed(first))
    signers = [NEW, OLD, NEW, OLD]
    messages = [forger.batch(energy(3 + at), signer=key) for at, key in enumerate(signers)]
    assert brain.take(MILL, *messages).kept == 4
    second = without_key(first, OLD.public.kid, place_of(forger), REPLACED, NOW)
    brain.take(MILL, signed(second))
    refused = forger.batch(energy(7), signer=OLD, advance=False)
    assert brain.take(MILL, refused).counts["revoked_key"] == 1
    assert brain.take(MILL, forger.batch(energy(7), signer=NEW)).kept == 1


def test_a_revoked_key_is_refused_from_its_place_on_and_an_alarm_names_the_place(
    brain: Brain, forger: Forger
) -> None:
    first = rotated(forger)
    second = without_key(first, OLD.public.kid, place_of(forger), COMPROMISED, NOW)
    brain.take(MILL, signed(first), signed(second))
    stolen = forger.batch(energy(3), signer=OLD, advance=False)
    outcome = brain.take(MILL, stolen)
    assert outcome.counts["revoked_key"] == 1
    assert (outcome.answers, outcome.kept) == ([], 0)
    agent = brain.ledger.agents()[MILL.address]
    (alarm,) = [one for one in brain.ledger.record.alarms(agent) if one.kind == REVOKED_KEY]
    assert (alarm.epoch, alarm.stream, alarm.first, alarm.last) == (1, forger.short, 3, 3)
    assert "ended" in in_words(alarm)
    assert brain.take(MILL, forger.batch(energy(3), signer=NEW)).kept == 1


def test_a_message_that_says_it_is_older_is_refused_all_the_same(
    brain: Brain, forger: Forger
) -> None:
    first = rotated(forger)
    second = without_key(first, OLD.public.kid, place_of(forger), COMPROMISED, NOW)
    brain.take(MILL, signed(first), signed(second))
    stolen = forger.batch(energy(3), signer=OLD, issued_at=NOW - 10**7)
    assert brain.take(MILL, stolen).counts["revoked_key"] == 1


def test_what_the_old_key_signed_before_is_still_answered_with_its_receipt(
    brain: Brain, forger: Forger
) -> None:
    again = [row.sealed for row in brain.ledger.batches(0, 10)]
    first = rotated(forger)
    second = without_key(first, OLD.public.kid, place_of(forger), COMPROMISED, NOW)
    brain.take(MILL, signed(first), signed(second))
    outcome = brain.take(MILL, *again)
    assert outcome.counts["replayed"] == len(again)
    assert len(outcome.answers) >= 1


@pytest.mark.parametrize("reason", [COMPROMISED, LOST])
def test_a_key_that_others_may_have_can_neither_ask_nor_declare_nor_attest(
    tmp_path: Path, brain: Brain, forger: Forger, reason: int
) -> None:
    first = rotated(forger)
    second = without_key(first, OLD.public.kid, place_of(forger), reason, NOW)
    brain.take(MILL, signed(first), signed(second))
    ask = Ask(MILL.address, NOW, bytes(16))
    assert brain.take(MILL, sign_statement(ask, OLD)).counts["revoked_key"] == 1
    assert brain.take(MILL, sign_statement(ask, NEW)).counts["asked"] == 1
    loss = Loss(MILL.address, NOW, 1, forger.short, 3, 5, bytes(32), 2)
    assert brain.take(MILL, sign_statement(loss, OLD)).counts["revoked_key"] == 1
    agent = Agent(tmp_path / "agent", MILL, POLICY)
    agent.start()
    agent.release(energy(0), energy(9))
    keys = (OLD, MILL.attestation)
    attester = Attester(agent.spool, MILL.address, keys, (1, POLICY.hash), brain.now)
    count = brain.take(MILL, *attester.waiting()).counts
    assert count["attested"] == 1  # its chains end before the mark
    for slot in range(5):
        agent.release(energy(20 + slot))
    brain.clock += 4000
    assert brain.take(MILL, *attester.waiting()[1:]).counts["revoked_key"] == 1


def test_a_replaced_key_may_still_ask(brain: Brain, forger: Forger) -> None:
    first = rotated(forger)
    second = without_key(first, OLD.public.kid, place_of(forger), REPLACED, NOW)
    brain.take(MILL, signed(first), signed(second))
    ask = sign_statement(Ask(MILL.address, NOW, bytes(16)), OLD)
    assert brain.take(MILL, ask).counts["asked"] == 1


def test_a_key_in_a_token_can_take_over(brain: Brain, forger: Forger) -> None:
    brain.take(MILL, signed(with_key(FIRST, TOKEN.public, place_of(forger), NOW)))
    assert brain.take(MILL, forger.batch(energy(3), signer=TOKEN)).kept == 1


NOT_TAKEN = {
    "signed by one officer of two": lambda found: signed(found, MILL.officers[:1]),
    "signed by strangers": lambda found: signed(found, [NEW, THIRD]),
    "signed by the agent itself": lambda found: signed(found, [OLD]),
    "of another agent": lambda found: signed(replace(found, address=Mill("other").address)),
    "without the key that was there": lambda found: signed(
        replace(found, records=found.records[1:])
    ),
    "with the first key moved": lambda found: signed(
        replace(found, records=(replace(found.records[0], since=Mark(2)), *found.records[1:]))
    ),
    "changed after signing": lambda found: signed(found).replace(
        NEW.public.public, THIRD.public.public
    ),
    "of another content type": lambda found: cose.sign_many(
        "application/mg1-policy-stop+cbor", to_bytes(found), MILL.officers
    ),
}


@pytest.mark.parametrize("make", NOT_TAKEN.values(), ids=NOT_TAKEN.keys())
def test_a_list_that_officers_did_not_sign_so_changes_nothing(
    brain: Brain, forger: Forger, make: object
) -> None:
    assert callable(make)
    outcome = brain.take(MILL, make(rotated(forger)))
    assert outcome.counts["keys_listed"] == 0
    assert sum(outcome.counts.values()) == 1
    assert brain.take(MILL, forger.batch(energy(3), signer=NEW)).kept == 0
    assert not brain.factories[MILL.address].keys_file.exists()  # type: ignore[union-attr] # set above


def test_an_older_list_does_not_bring_a_revoked_key_back(brain: Brain, forger: Forger) -> None:
    first = rotated(forger)
    second = without_key(first, OLD.public.kid, place_of(forger), COMPROMISED, NOW)
    brain.take(MILL, signed(first), signed(second), signed(first))
    assert brain.take(MILL, forger.batch(energy(3), signer=OLD)).counts["revoked_key"] == 1


def test_a_list_outlives_a_restart_of_the_brain(brain: Brain, forger: Forger) -> None:
    first = rotated(forger)
    second = without_key(first, OLD.public.kid, place_of(forger), COMPROMISED, NOW)
    brain.take(MILL, signed(second))
    folder = brain.path.parent
    write_card(folder / "mill.card", MILL.agent_card)
    brain.close()
    brain.factories = dict(read_factories(folder))
    brain.open()
    assert brain.take(MILL, forger.batch(energy(3), signer=OLD)).counts["revoked_key"] == 1


def test_a_list_that_an_officer_brings_counts_within_a_minute(brain: Brain, forger: Forger) -> None:
    """The folder is looked at every few seconds; no restart, and the agent need not take part."""
    assert aggregator_app._FACTORIES_S <= 60
    folder = brain.path.parent
    write_card(folder / "mill.card", MILL.agent_card)
    (folder / "mill.keys").write_bytes(
        signed(without_key(rotated(forger), OLD.public.kid, place_of(forger), COMPROMISED, NOW))
    )
    brain.factories.update(read_factories(folder))
    assert brain.take(MILL, forger.batch(energy(3), signer=OLD)).counts["revoked_key"] == 1


def test_a_file_of_keys_that_does_not_count_is_a_named_fault(tmp_path: Path) -> None:
    write_card(tmp_path / "mill.card", MILL.agent_card)
    (tmp_path / "mill.keys").write_bytes(signed(with_key(FIRST, NEW.public, Mark(1), NOW), [NEW]))
    with pytest.raises(ConfigError, match=r"mill\.keys.*does not count"):
        read_factories(tmp_path)


# Evidence.


def bundle(brain: Brain, path: Path) -> Report:
    export(
        brain.ledger,
        path,
        (NOW - 10, NOW + 10),
        MILL.brain_card,
        brain.receipt,
        brain.factories,
        brain.now,
    )
    with reading(path) as opened:
        return check(opened, MILL.brain_card, {MILL.address: MILL.agent_card})


def said(report: Report, grade: Grade) -> str:
    return "\n".join(one.text for one in report.findings if one.grade is grade)


def test_evidence_holds_over_a_change_of_keys_each_message_under_the_key_of_its_place(
    tmp_path: Path, brain: Brain, forger: Forger
) -> None:
    first = rotated(forger)
    brain.take(MILL, signed(first))
    brain.take(MILL, forger.batch(energy(3), signer=NEW), forger.batch(energy(4), signer=OLD))
    second = without_key(first, OLD.public.kid, place_of(forger), COMPROMISED, NOW)
    brain.take(MILL, signed(second), forger.batch(energy(5), signer=NEW))
    report = bundle(brain, tmp_path / "whole.zip")
    assert said(report, Grade.FORGED) == ""
    assert "signed with 2 key(s), by list 2" in said(report, Grade.PROVEN)


def test_evidence_without_the_list_does_not_believe_the_new_key(
    tmp_path: Path, brain: Brain, forger: Forger
) -> None:
    brain.take(MILL, signed(rotated(forger)), forger.batch(energy(3), signer=NEW))
    brain.factories[MILL.address].keys_file.unlink()  # type: ignore[union-attr] # set above
    assert "was not signed by the agent" in said(bundle(brain, tmp_path / "bare.zip"), Grade.FORGED)


def test_evidence_names_what_was_taken_behind_the_place_where_a_key_was_ended_later(
    tmp_path: Path, brain: Brain, forger: Forger
) -> None:
    """Somebody used the stolen key before the officers knew: that part is no longer proven."""
    first, at = rotated(forger), place_of(forger)
    brain.take(MILL, signed(first), forger.batch(energy(3), signer=OLD))
    brain.take(MILL, signed(without_key(first, OLD.public.kid, at, COMPROMISED, NOW)))
    report = bundle(brain, tmp_path / "stolen.zip")
    found = said(report, Grade.FORGED)
    assert "sequence 3 of" in found
    assert "officers had ended" in found
    assert "sequence 2 of" not in found


# The list itself.

marks = st.builds(
    Mark, st.integers(0, 5), st.dictionaries(st.integers(0, 9), st.integers(0, 9), max_size=4)
)
places = st.tuples(st.integers(0, 6), st.integers(0, 10), st.integers(0, 10))


@given(marks, marks, places)
def test_marks_are_in_one_order_for_all_places(
    one: Mark, other: Mark, place: tuple[int, ...]
) -> None:
    epoch, stream, sequence = place
    if one.not_after(other) and other.reached((epoch, stream, sequence)):
        assert one.reached((epoch, stream, sequence))
    assert one.not_after(one)


@given(marks, places)
def test_a_place_behind_a_mark_stays_behind_it_further_on(
    mark: Mark, place: tuple[int, ...]
) -> None:
    epoch, stream, sequence = place
    if mark.reached((epoch, stream, sequence)):
        assert mark.reached((epoch, stream, sequence + 1))
        assert mark.reached((epoch + 1, stream, 0))


@settings(max_examples=50, deadline=None)
@given(marks, marks, st.sampled_from([REPLACED, COMPROMISED, LOST]))
def test_a_list_is_read_as_it_was_written(since: Mark, until: Mark, reason: int) -> None:
    records = (
        KeyRecord(OLD.public, Mark(), until, reason),
        KeyRecord(NEW.public, since),
        KeyRecord(TOKEN.public, since, until, reason),
    )
    found = KeyList(MILL.address, 7, bytes(32), NOW, records)
    assert from_bytes(to_bytes(found)) == found
    assert read_keys(signed(found), OFFICERS, 2) == found


def rows(**changes: object) -> list[object]:
    item = strict_cbor.decode(
        to_bytes(with_key(FIRST, NEW.public, Mark(1, {3: 4, 5: 6}), NOW)), max_bytes=9999
    )
    named = dict(
        zip(("version", "factory", "agent", "number", "previous", "at", "keys"), item, strict=True)
    )
    return list({**named, **changes}.values())


ROW = [OLD.public.alg, OLD.public.public, [0, []], []]
MALFORMED: dict[str, object] = {
    "another version": rows(version=2),
    "number 0": rows(number=0),
    "a negative number": rows(number=-1),
    "a short factory": rows(factory=bytes(15)),
    "a short hash": rows(previous=bytes(31)),
    "no keys": rows(keys=[]),
    "33 keys": rows(keys=[ROW] * 33),
    "a key twice": rows(keys=[ROW, ROW]),
    "a map": {},
    "more than it has": [*rows(), 0],
    "an unknown scheme": rows(keys=[[-7, *ROW[1:]]]),
    "ML-DSA": rows(keys=[[-49, bytes(1952), *ROW[2:]]]),
    "a short key": rows(keys=[[ROW[0], bytes(31), *ROW[2:]]]),
    "an Ed25519 key as P-256": rows(keys=[[-9, *ROW[1:]]]),
    "a point beside the curve": rows(keys=[[-9, b"\x04" + bytes(64), *ROW[2:]]]),
    "a mark of three parts": rows(keys=[[*ROW[:2], [0, [], 0], []]]),
    "streams not sorted": rows(keys=[[*ROW[:2], [0, [[5, 1], [3, 1]]], []]]),
    "a stream twice": rows(keys=[[*ROW[:2], [0, [[3, 1], [3, 1]]], []]]),
    "a negative place": rows(keys=[[*ROW[:2], [0, [[3, -1]]], []]]),
    "a place of one part": rows(keys=[[*ROW[:2], [0, [[3]]], []]]),
    "513 streams": rows(keys=[[*ROW[:2], [0, [[at, 1] for at in range(513)]], []]]),
    "an end without a reason": rows(keys=[[*ROW[:3], [0, []]]]),
    "reason 0": rows(keys=[[*ROW[:3], [0, [], 0]]]),
    "reason 4": rows(keys=[[*ROW[:3], [0, [], 4]]]),
    "a key of three parts": rows(keys=[ROW[:3]]),
}


@pytest.mark.parametrize("item", MALFORMED.values(), ids=MALFORMED.keys())
def test_what_is_not_exactly_a_list_is_malformed(item: object) -> None:
    with pytest.raises(Malformed):
        from_bytes(strict_cbor.encode(item))
    assert from_bytes(strict_cbor.encode(rows())).number == 1


def test_a_list_goes_on_from_the_one_before_and_takes_nothing_back() -> None:
    first = with_key(FIRST, NEW.public, Mark(1, {3: 4}), NOW)
    second = without_key(first, OLD.public.kid, Mark(1, {3: 9}), REPLACED, NOW)
    third = with_key(second, THIRD.public, Mark(2), NOW)
    for newer, older in ((first, FIRST), (second, first), (third, second), (third, first)):
        check_next(newer, older)
    sooner = replace(second.records[0], until=Mark(1, {3: 5}), reason=COMPROMISED)
    check_next(replace(third, records=(sooner, *third.records[1:])), second)
    later = replace(second.records[0], until=Mark(1, {3: 10}))
    forever = replace(second.records[0], until=None, reason=0)
    for wrong in (
        replace(third, records=(later, *third.records[1:])),
        replace(third, records=(forever, *third.records[1:])),
        replace(third, records=third.records[1:]),
        replace(third, records=third.records[::-1]),
        replace(third, previous=bytes(32)),
        replace(third, number=2),
        replace(third, address=Mill("other").address),
    ):
        with pytest.raises(NotNext):
            check_next(wrong, second)


def test_a_first_list_names_the_key_on_the_card() -> None:
    first = with_key(FIRST, NEW.public, Mark(), NOW)
    assert first.number == 1
    assert first.previous == FIRST.previous
    other = with_key(first_list(MILL.address, THIRD.public), NEW.public, Mark(), NOW)
    with pytest.raises(NotNext):
        check_next(other, FIRST)


def test_a_key_is_listed_once_and_ended_only_when_it_is_there() -> None:
    with pytest.raises(Malformed):
        with_key(FIRST, OLD.public, Mark(), NOW)
    with pytest.raises(Malformed):
        without_key(FIRST, NEW.public.kid, Mark(), LOST, NOW)
    with pytest.raises(BadSignature):
        read_keys(signed(FIRST, MILL.officers[:1]), OFFICERS, 2)
