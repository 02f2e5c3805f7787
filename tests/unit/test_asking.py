"""Asking how far the brain is, and its answers: when, how often, what is said, and what is not taken."""

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.asking import Asker
from agent.chains import Missing, Verdict
from agent.spool import Spool
from aggregator import statements
from protocols.batch import Block
from protocols.topics import Address
from security.answers import NO_LOG, Standing, answer_kid, read_answer
from security.envelope import parse
from security.evidence import ATTESTATION
from security.statements import RUN_BYTES, Ask, Loss, parse_statement, sign_statement
from tests.small_factory import (
    ENERGY,
    NOW,
    SHORT_S,
    Agent,
    Brain,
    Forger,
    Keys,
    attestation_key,
    block,
    signed_policy,
)

KEYS = Keys()
POLICY = signed_policy(KEYS)
KID = KEYS.receipt.public.kid
OTHER = b"\x0f" * 16


@pytest.fixture
def brain(tmp_path: Path) -> Iterator[Brain]:
    opened = Brain(tmp_path, KEYS)
    yield opened
    opened.close()


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    opened = Spool(tmp_path / "spool.db")
    yield opened
    opened.close()


def energy(slot: int) -> Block:
    return block(NOW // SHORT_S + slot, [ENERGY], [5 * slot])


def asker(spool: Spool, *kids: bytes) -> Asker:
    streams = {kid: frozenset({7}) for kid in kids or (KID,)}
    return Asker(spool, KEYS.address, KEYS.signing, streams, lambda: NOW * 10**9)


def nonce_of(question: bytes) -> bytes:
    ask = parse_statement(question)[1]
    assert isinstance(ask, Ask)
    return ask.nonce


def standing(nonce: bytes, **changes: object) -> Standing:
    fields = {
        "address": KEYS.address,
        "issued_at": NOW,
        "nonce": nonce,
        "epoch": 0,
        "quarantined": False,
        "attested": 0,
        "log": NO_LOG,
        "proof": (),
        "heads": (),
    }
    return Standing(**{**fields, **changes})  # type: ignore[arg-type] # fields by name


# The agent's questions.


def test_an_agent_asks_at_once_and_then_with_longer_and_longer_waits(spool: Spool) -> None:
    asking = asker(spool)
    assert asking.left_s(50.0) == 0
    now, waits = 50.0, []
    for _ in range(8):
        asking.ask(now)
        left = asking.left_s(now)
        assert left is not None
        assert asking.left_s(now + 1) == pytest.approx(max(left - 1, 0))
        waits.append(left)
        now += left
    for wait, middle in zip(waits, (2, 4, 8, 16, 32, 60, 60, 60), strict=True):
        assert 0.8 * middle <= wait <= 1.2 * middle


def test_it_repeats_its_question_until_it_is_answered_and_then_has_none(spool: Spool) -> None:
    asking = asker(spool)
    first, again = asking.ask(0.0), asking.ask(9.0)
    assert nonce_of(first) == nonce_of(again)
    assert asking.take(standing(nonce_of(first)), KID, b"") is not None
    assert asking.cleared
    assert asking.left_s(10.0) is None
    assert nonce_of(asking.ask(20.0)) != nonce_of(first)


def test_with_two_brains_it_asks_on_until_both_have_answered(spool: Spool) -> None:
    asking = asker(spool, KID, OTHER)
    nonce = nonce_of(asking.ask(0.0))
    assert asking.take(standing(nonce), KID, b"") is not None
    assert asking.take(standing(nonce), KID, b"") is None
    assert asking.left_s(100.0) is not None
    assert nonce_of(asking.ask(100.0)) == nonce
    assert asking.take(standing(nonce), OTHER, b"") is not None
    assert asking.left_s(100.0) is None


def test_a_hint_is_followed_once_in_a_while_and_not_while_a_question_is_open(
    spool: Spool,
) -> None:
    asking = asker(spool)
    asking.take(standing(nonce_of(asking.ask(0.0))), KID, b"")
    assert asking.hinted(100.0, standing(bytes(16)), KID)
    assert not asking.hinted(100.0, standing(bytes(16)), KID)
    assert not asking.hinted(200.0, standing(bytes(16)), KID)
    asking.take(standing(nonce_of(asking.ask(201.0))), KID, b"")
    asking.hinted(300.0, standing(bytes(16)), KID)
    asking.take(standing(nonce_of(asking.ask(301.0))), KID, b"")
    assert not asking.hinted(309.0, standing(bytes(16)), KID)
    assert asking.hinted(310.0, standing(bytes(16)), KID)


def test_a_hint_is_followed_while_another_brain_is_away_and_a_repeated_answer_is_none(
    spool: Spool,
) -> None:
    asking = asker(spool, KID, OTHER)
    answer = standing(nonce_of(asking.ask(0.0)))
    assert asking.take(answer, KID, b"") is not None
    assert not asking.hinted(100.0, answer, KID)
    assert not asking.hinted(100.0, standing(bytes(16)), OTHER)
    assert asking.hinted(100.0, standing(bytes(16)), KID)
    assert asking.take(answer, OTHER, b"") is None
    assert asking.held == {7}


def test_each_brain_clears_its_own_streams_and_speaks_for_them_only(spool: Spool) -> None:
    streams = {KID: frozenset({7}), OTHER: frozenset({8, 9})}
    asking = Asker(spool, KEYS.address, KEYS.signing, streams, lambda: NOW * 10**9)
    assert asking.held == {7, 8, 9}
    nonce = nonce_of(asking.ask(0.0))
    asking.take(standing(nonce), OTHER, b"")
    assert (asking.begun, asking.cleared, asking.held) == (True, False, frozenset({7}))
    asking.take(standing(nonce), KID, b"")
    assert (asking.begun, asking.cleared, asking.held) == (True, True, frozenset())
    said = {(kid, stream) for kid in (KID, OTHER) for stream in range(7, 11)}
    counts = {one for one in said if asking.may_speak(*one)}
    # 10 is of a policy before, and nobody else's.
    assert counts == {(KID, 7), (KID, 10), (OTHER, 8), (OTHER, 9), (OTHER, 10)}
    asking.again(0.0)
    assert (asking.begun, asking.cleared, asking.held) == (False, False, frozenset({7, 8, 9}))


def test_any_standing_tells_which_attestation_the_brain_has(spool: Spool) -> None:
    for number in (1, 2, 3):
        spool.keep_attestation(number, NOW, b"signed %d" % number)
    asker(spool).take(standing(bytes(16), attested=2), KID, b"")
    assert spool.attestations(10) == [b"signed 3"]


def test_a_quarantine_is_said_once_and_once_more_when_it_begins_anew(
    spool: Spool, caplog: pytest.LogCaptureFixture
) -> None:
    asking = asker(spool)
    said = []
    for quarantined in (False, True, True, False, True):
        asking.take(standing(bytes(16), quarantined=quarantined), KID, b"")
        assert asking.quarantined == quarantined
        said.append(sum("two different messages" in one.message for one in caplog.records))
    assert said == [0, 1, 1, 1, 2]


@pytest.mark.parametrize(
    ("verdict", "said"),
    [
        (Verdict(), []),
        (Verdict(forked=True), ["a new epoch begins"]),
        (Verdict(again=3), ["3 message(s) are sent again from the archive, 0 are no longer"]),
        (
            Verdict(missing=[Missing(1, 7, 4, 9, bytes(32)), Missing(1, 8, 0, 0, bytes(32))]),
            ["0 message(s) are sent again from the archive, 7 are no longer"],
        ),
        (
            Verdict(forked=True, again=1),
            ["a new epoch begins", "1 message(s) are sent again from the archive, 0 are no longer"],
        ),
    ],
)
def test_what_a_brains_answer_means_is_said_in_numbers(
    spool: Spool,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    verdict: Verdict,
    said: list[str],
) -> None:
    monkeypatch.setattr("agent.asking.compare", lambda *_: verdict)
    asking = asker(spool)
    with caplog.at_level(logging.INFO):
        assert asking.take(standing(nonce_of(asking.ask(0.0))), KID, b"") is verdict
    lines = [one.message for one in caplog.records]
    assert len(lines) == len(said)
    assert all(part in line for part, line in zip(said, lines, strict=True))


# The brain's answers.


def answered(brain: Brain, question: bytes) -> Standing:
    (answer,) = brain.take(KEYS, question).answers
    found = read_answer(answer[1], KEYS.address, [KEYS.receipt.public])
    assert isinstance(found, Standing)
    assert answer_kid(answer[1]) == KID
    return found


def test_a_standing_for_an_unknown_agent_is_of_epoch_0_and_proves_nothing_to_who_knows_nothing(
    brain: Brain,
) -> None:
    forger = Forger(KEYS, POLICY)
    ask = Ask(KEYS.address, NOW, bytes(16))
    assert answered(brain, sign_statement(ask, KEYS.signing)).epoch == 0
    brain.take(KEYS, forger.sheet_message(), *(forger.batch(energy(at)) for at in range(3)))
    for logs, proven in (
        ((), False),
        (((KID, 0),), False),
        (((KID, 1),), True),
        (((OTHER, 1),), False),
    ):
        ask = Ask(KEYS.address, NOW, bytes(16), logs)
        found = answered(brain, sign_statement(ask, KEYS.signing))
        assert (found.epoch, found.log.size, bool(found.proof)) == (1, 4, proven)


def hint(brain: Brain, name: str = "mill") -> bool:
    desk = brain.inbox._statements
    return desk.hint(Address(name.encode().ljust(16), bytes(16))) is not None


def test_an_agent_is_hinted_at_most_once_in_five_seconds_and_apart_from_others(
    brain: Brain,
) -> None:
    assert [hint(brain), hint(brain, "other"), hint(brain)] == [True, True, False]
    brain.clock += 4
    assert not hint(brain)
    brain.clock += 1
    assert hint(brain)


def test_how_many_hints_are_remembered_is_bounded(
    brain: Brain, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(statements, "_MOST_HINTED", 3)
    for at in range(10):
        assert hint(brain, f"mill {at}")
        assert len(brain.inbox._statements._hinted) <= 3


def test_a_quarantined_agent_can_declare_nothing_lost(brain: Brain) -> None:
    forger = Forger(KEYS, POLICY)
    first = forger.batch(energy(0))
    brain.take(KEYS, forger.sheet_message(), first)
    second = forger.batch(
        energy(1), sequence=0, previous=parse(first).header.previous, advance=False
    )
    assert brain.take(KEYS, second).counts["equivocation"] == 1
    loss = sign_statement(
        Loss(KEYS.address, NOW, 1, forger.short, 1, 3, bytes(32), 2), KEYS.signing
    )
    assert brain.take(KEYS, loss).counts["declared_lost"] == 0
    assert brain.ledger.record.release(1)
    assert brain.take(KEYS, loss).counts["declared_lost"] == 1


def test_an_attestation_stands_in_the_log_under_its_number_and_no_stream(
    tmp_path: Path, brain: Brain
) -> None:
    from agent.attest import Attester  # noqa: PLC0415 - beside its use

    agent = Agent(tmp_path / "agent", KEYS, POLICY)
    agent.start()
    keys = (KEYS.signing, attestation_key("mill agent"))
    attester = Attester(agent.spool, KEYS.address, keys, (1, POLICY.hash), brain.now)
    brain.take(KEYS, *attester.waiting())
    (leaf,) = brain.ledger.record.leaves(0, NOW + 1)
    assert (leaf.kind, leaf.epoch, leaf.stream, leaf.sequence) == (ATTESTATION, 1, 0, 1)


def test_the_questions_of_one_run_begin_alike_and_those_of_another_run_otherwise(
    spool: Spool,
) -> None:
    asking, another = asker(spool), asker(spool)
    first = nonce_of(asking.ask(0.0))
    asking.again(1.0)
    again = nonce_of(asking.ask(1.0))
    assert first != again
    assert first[:RUN_BYTES] == again[:RUN_BYTES] != nonce_of(another.ask(0.0))[:RUN_BYTES]
