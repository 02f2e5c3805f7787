"""Attestations: both signatures or nothing; what was attested and did not come is named exactly."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.attest import Attester
from aggregator.alarms import (
    ATTESTATION_LATE,
    ATTESTATION_MISSING,
    CHAIN_DIFFERS,
    MESSAGES_MISSING,
    SILENCE,
    in_words,
)
from protocols.batch import Block
from security import cose, statements
from security.answers import Standing
from security.keys import Signer
from security.statements import ATTEST_S, read_attestation
from tests.small_factory import (
    ENERGY,
    NOW,
    SHORT_S,
    Agent,
    Brain,
    Keys,
    attestation_key,
    block,
    signed_policy,
    signing_key,
)

KEYS = Keys()
POLICY = signed_policy(KEYS)
HOUR = ATTEST_S


class Clock:
    def __init__(self) -> None:
        self.seconds = NOW

    def __call__(self) -> int:
        return self.seconds * 10**9


@pytest.fixture
def brain(tmp_path: Path) -> Iterator[Brain]:
    opened = Brain(tmp_path, KEYS)
    yield opened
    opened.close()


@pytest.fixture
def agent(tmp_path: Path) -> Agent:
    started = Agent(tmp_path / "agent", KEYS, POLICY)
    started.start()
    return started


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def attester(agent: Agent, clock: Clock) -> Attester:
    keys = (KEYS.signing, KEYS.attestation)
    return Attester(agent.spool, KEYS.address, keys, (1, POLICY.hash), clock)


def energy(slot: int) -> Block:
    return block(NOW // SHORT_S + slot, [ENERGY], [5 * slot])


def alarms(brain: Brain) -> list[tuple[str, int, int]]:
    agent = brain.ledger.agents().get(KEYS.address, 0)
    found = brain.ledger.record.alarms(agent)
    # Nothing comes between two looks of these tests, which is told as well.
    return [(one.kind, one.first, one.last) for one in found if one.kind != SILENCE]


def test_one_is_made_at_the_start_and_then_every_hour_until_the_brain_has_it(
    agent: Agent, brain: Brain, clock: Clock, attester: Attester
) -> None:
    (first,) = attester.waiting()
    assert attester.waiting() == [first]
    clock.seconds += HOUR - 1
    assert attester.waiting() == [first]
    clock.seconds += 1
    assert len(attester.waiting()) == 2
    found = [
        read_attestation(one, KEYS.signing.public, KEYS.attestation.public)
        for one in attester.waiting()
    ]
    assert [one.number for one in found] == [1, 2]
    outcome = brain.take(KEYS, *attester.waiting())
    assert outcome.counts == {"attested": 2}
    standing = brain.answers(KEYS, outcome)[-1]
    assert isinstance(standing, Standing)
    assert standing.attested == 2
    kid = brain.receipt.public.kid
    agent.spool.attested(kid, standing.attested, [kid])
    assert attester.waiting() == []


def test_a_clock_set_back_silences_no_attestation(attester: Attester, clock: Clock) -> None:
    attester.waiting()
    clock.seconds -= 10 * HOUR
    assert len(attester.waiting()) == 2


def test_it_tells_how_far_every_chain_has_come(agent: Agent, attester: Attester) -> None:
    for slot in range(3):
        agent.release(energy(slot))
    (signed,) = attester.waiting()
    found = read_attestation(signed, KEYS.signing.public, KEYS.attestation.public)
    counts = {end.stream: end.count for end in found.chains}
    assert counts[agent.short] == 3
    assert sorted(counts.values()) == [1, 3]
    assert found.policy_hash == POLICY.hash


def test_a_number_that_never_came_is_named_when_a_later_one_did(
    brain: Brain, clock: Clock, attester: Attester
) -> None:
    brain.take(KEYS, *attester.waiting())
    for _ in range(3):
        clock.seconds += HOUR
        attester.waiting()
    brain.take(KEYS, attester.waiting()[-1])
    assert alarms(brain) == [(ATTESTATION_MISSING, 2, 3)]


def test_messages_that_were_attested_and_did_not_come_are_named_exactly(
    agent: Agent, brain: Brain, attester: Attester
) -> None:
    for slot in range(6):
        agent.release(energy(slot))
    waiting = agent.waiting()
    brain.take(KEYS, *waiting[:3], *attester.waiting())
    brain.inbox.look()
    assert alarms(brain) == []
    brain.clock += HOUR
    brain.inbox.look()
    assert alarms(brain) == [(MESSAGES_MISSING, 2, 5)]
    brain.take(KEYS, waiting[3])
    brain.inbox.look()
    assert alarms(brain) == [(MESSAGES_MISSING, 3, 5)]
    brain.take(KEYS, *waiting[4:])
    brain.inbox.look()
    assert alarms(brain) == []


def test_a_tail_cut_off_for_ever_is_told_within_two_periods(
    agent: Agent, brain: Brain, clock: Clock, attester: Attester
) -> None:
    agent.release(energy(0))
    brain.take(KEYS, *agent.waiting(), *attester.waiting())
    brain.clock += 2 * HOUR + 1
    brain.inbox.look()
    assert alarms(brain) == [(ATTESTATION_LATE, 2, 2)]
    clock.seconds += 2 * HOUR
    brain.take(KEYS, *attester.waiting())
    brain.inbox.look()
    assert alarms(brain) == []


def test_another_message_than_attested_is_named(
    agent: Agent, brain: Brain, attester: Attester
) -> None:
    agent.release(energy(0))
    brain.take(KEYS, *agent.waiting())
    with agent.spool.transaction() as db:
        db.execute("UPDATE chain SET digest = ? WHERE stream = ?", (b"x" * 32, agent.short))
    brain.take(KEYS, *attester.waiting())
    brain.clock += HOUR
    brain.inbox.look()
    assert alarms(brain) == [(CHAIN_DIFFERS, 0, 0)]
    alarm = brain.ledger.record.alarms(1)[0]
    assert "not the one that was attested" in in_words(alarm)


def parts_of(signed: bytes) -> bytes:
    return cose.payload_of_many(signed, statements.MAX_STATEMENT)


@pytest.mark.parametrize(
    "keys",
    [
        [KEYS.signing],
        [KEYS.attestation],
        [KEYS.signing, attestation_key("rival")],
        [signing_key("rival"), KEYS.attestation],
        [KEYS.receipt, KEYS.attestation],
        [KEYS.signing, KEYS.attestation, signing_key("rival")],
    ],
    ids=["Ed25519 alone", "ML-DSA alone", "rival's ML-DSA", "rival's Ed25519", "brain's", "three"],
)
def test_without_exactly_both_signatures_nothing_is_kept_and_nobody_answered(
    brain: Brain, attester: Attester, keys: list[Signer]
) -> None:
    (right,) = attester.waiting()
    wrong = cose.sign_many(statements.ATTESTATION, parts_of(right), keys)
    outcome = brain.take(KEYS, wrong)
    assert outcome.counts == {"bad_signature": 1}
    assert outcome.answers == []
    assert brain.ledger.record.size() == 0
    assert brain.take(KEYS, right).counts == {"attested": 1}
    assert brain.ledger.record.size() == 1


def test_an_old_attestation_again_is_answered_and_kept_once(
    brain: Brain, attester: Attester
) -> None:
    (signed,) = attester.waiting()
    for _ in range(3):
        assert len(brain.take(KEYS, signed).answers) == 1
    assert brain.ledger.record.size() == 1


def test_nobody_attests_for_another_agent(tmp_path: Path, brain: Brain, attester: Attester) -> None:
    """A rival with keys of its own signs an attestation that names our agent, on its own topic."""
    rival = Keys("rival mill")
    brain.factories |= Brain(tmp_path / "x", rival).factories
    (right,) = attester.waiting()
    forged = cose.sign_many(
        statements.ATTESTATION, parts_of(right), [rival.signing, rival.attestation]
    )
    for keys, message in ((rival, forged), (rival, right)):
        outcome = brain.take(keys, message)
        assert outcome.counts == {"wrong_topic": 1}
        assert outcome.answers == []
    assert brain.take(KEYS, forged).counts == {"bad_signature": 1}
    assert brain.ledger.record.size() == 0
