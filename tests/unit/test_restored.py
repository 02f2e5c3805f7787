"""Restored copies on either side, two messages for one place, reordering: every one heals or is told."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent import spool as spool_module
from agent.asking import Asker
from agent.chains import Missing, Verdict, compare
from agent.spool import Spool
from aggregator.alarms import EPOCH_UNEXPLAINED, EQUIVOCATION
from aggregator.early import WINDOW
from aggregator.sums import LostRange, lost_ranges
from protocols.batch import Block
from security import cose
from security.answers import MOST_HEADS, Head, Standing, answer_kid, read_answer
from security.envelope import REASON_DROPPED, REASON_RESTORED, Before, parse
from security.statements import parse_statement
from tests.small_factory import (
    ENERGY,
    NOW,
    SHORT_S,
    Agent,
    Brain,
    Forger,
    Keys,
    block,
    signed_policy,
)

KEYS = Keys()
POLICY = signed_policy(KEYS)
SLOT = NOW // SHORT_S


@pytest.fixture
def brain(tmp_path: Path) -> Iterator[Brain]:
    opened = Brain(tmp_path, KEYS)
    yield opened
    opened.close()


def energy(slot: int) -> Block:
    return block(SLOT + slot, [ENERGY], [5 * slot])


def asker_of(agent: Agent) -> Asker:
    return Asker(
        agent.spool,
        KEYS.address,
        KEYS.signing,
        agent.sealer.streams(),
        lambda: NOW * 10**9,
    )


def ask(agent: Agent, brain: Brain, asker: Asker | None = None) -> Verdict:
    """Ask, and do what the answer demands, as the uplink does."""
    asker = asker or asker_of(agent)
    (answer,) = brain.take(KEYS, asker.ask(0.0)).answers
    standing = read_answer(answer[1], KEYS.address, [KEYS.receipt.public])
    assert isinstance(standing, Standing)
    verdict = asker.take(standing, answer_kid(answer[1]), answer[1])
    assert verdict is not None
    assert asker.cleared
    for signed in asker.losses(verdict.missing):
        assert brain.take(KEYS, signed).counts["declared_lost"] == 1
    return verdict


def deliver(agent: Agent, brain: Brain) -> None:
    outcome = brain.take(KEYS, *agent.waiting())
    for _, answer in outcome.answers:
        agent.settle(answer)


def started(folder: Path) -> Agent:
    agent = Agent(folder, KEYS, POLICY)
    agent.start()
    return agent


def slots_in(brain: Brain) -> list[int]:
    found: list[int] = []
    for one in brain.ledger.batches(0, 10_000):
        for _, part in brain.opener.blocks(one):
            found += range(part.slot - SLOT, part.slot - SLOT + part.rows)
    return sorted(found)


def alarms(brain: Brain) -> list[tuple[str, int, int]]:
    agent = brain.ledger.agents()[KEYS.address]
    return [(one.kind, one.first, one.last) for one in brain.ledger.record.alarms(agent)]


def test_a_new_agent_asks_and_may_send(tmp_path: Path, brain: Brain) -> None:
    agent = started(tmp_path / "a")
    verdict = ask(agent, brain)
    assert (verdict.forked, verdict.again, verdict.missing) == (False, 0, [])
    deliver(agent, brain)
    assert agent.spool.tally().waiting_batches == 0


def test_asking_again_changes_nothing_while_both_go_on(tmp_path: Path, brain: Brain) -> None:
    agent = started(tmp_path / "a")
    for slot in range(3):
        agent.release(energy(slot))
        deliver(agent, brain)
        agent.release(energy(slot + 10))
        verdict = ask(agent, brain)
        assert (verdict.forked, verdict.again, verdict.missing) == (False, 0, [])
    assert agent.sealer.epoch_due == 0


def restored_agent(tmp_path: Path, brain: Brain) -> Agent:
    """An agent that ran on after its disk was copied, and now runs from the copy."""
    agent = started(tmp_path / "a")
    agent.release(energy(0))
    deliver(agent, brain)
    agent.release(energy(1))
    (tmp_path / "b").mkdir()
    agent.spool.close()
    shutil.copytree(tmp_path / "a", tmp_path / "b", dirs_exist_ok=True)
    agent.spool = Spool(tmp_path / "a" / "spool.db")
    agent = Agent(tmp_path / "a", KEYS, POLICY)
    agent.start()
    for slot in (2, 3):
        agent.release(energy(slot))
    deliver(agent, brain)
    copy = Agent(tmp_path / "b", KEYS, POLICY)
    copy.start()
    return copy


def test_an_agent_restored_from_an_old_copy_begins_a_new_epoch_and_says_why(
    tmp_path: Path, brain: Brain
) -> None:
    copy = restored_agent(tmp_path, brain)
    copy.release(energy(7))
    heads = {head.stream: head for head in brain.ledger.record.heads(1, 10)}
    assert ask(copy, brain).forked
    assert copy.sealer.epoch_due == 2
    # What was sealed beside the brain's chain is never sent, and counted.
    assert copy.waiting() == []
    assert copy.spool.tally().lost == 2
    copy.start(copy.sealer.epoch_due)
    assert copy.number == 0
    assert copy.spool.meta("memory") == b""
    copy.release(energy(8))
    firsts = [parse(sealed).header for sealed in copy.waiting()]
    assert [(one.epoch, one.sequence) for one in firsts] == [(2, 0), (2, 0)]
    for one in firsts:
        head = heads[one.stream]
        assert one.before == Before(1, head.sequence + 1, head.digest, REASON_RESTORED)
    deliver(copy, brain)
    assert slots_in(brain) == [0, 1, 2, 3, 8]
    assert copy.spool.tally().waiting == 0
    assert copy.spool.tally().acknowledged == 1
    assert alarms(brain) == []
    assert not ask(copy, brain).forked


def test_a_lost_spool_is_told_from_the_brain_where_the_epoch_before_ended(
    tmp_path: Path, brain: Brain
) -> None:
    agent = started(tmp_path / "a")
    agent.release(energy(0))
    deliver(agent, brain)
    agent.spool.close()
    new = Agent(tmp_path / "c", KEYS, POLICY)
    assert ask(new, brain).forked
    new.start(max(2, new.sealer.epoch_due))
    new.release(energy(1))
    deliver(new, brain)
    assert slots_in(brain) == [0, 1]
    assert alarms(brain) == []


def test_an_epoch_that_begins_without_a_word_raises_an_alarm(brain: Brain) -> None:
    forger = Forger(KEYS, POLICY)
    brain.take(KEYS, forger.sheet_message(), forger.batch(energy(0)), forger.batch(energy(1)))
    brain.take(KEYS, forger.sheet_message(epoch=2), forger.batch(energy(2), epoch=2))
    assert alarms(brain) == [(EPOCH_UNEXPLAINED, 1, 1), (EPOCH_UNEXPLAINED, 2, 2)]
    said = brain.ledger.record.heads(1, 10)
    short = next(h for h in said if h.epoch == 2 and h.stream == forger.short)
    right = Before(2, 1, short.digest, REASON_RESTORED)
    brain.take(KEYS, forger.batch(energy(3), epoch=3, before=right))
    assert len(alarms(brain)) == 2


def old_ledger(tmp_path: Path, brain: Brain) -> None:
    brain.close()
    shutil.copy(tmp_path / "old.db", brain.path)
    for tail in ("-wal", "-shm"):
        brain.path.with_name(brain.path.name + tail).unlink(missing_ok=True)
    brain.open()


def test_a_brain_restored_from_an_old_copy_gets_again_what_it_lost(
    tmp_path: Path, brain: Brain
) -> None:
    agent = started(tmp_path / "a")
    for slot in range(8):
        agent.release(energy(slot))
        deliver(agent, brain)
        if slot == 2:
            brain.close()
            shutil.copy(brain.path, tmp_path / "old.db")
            brain.open()
    old_ledger(tmp_path, brain)
    assert slots_in(brain) == [0, 1, 2]
    assert ask(agent, brain).again == 5
    assert agent.spool.tally().waiting == 5
    deliver(agent, brain)
    assert slots_in(brain) == list(range(8))
    assert agent.spool.tally().acknowledged == 8


def test_what_the_archive_no_longer_holds_is_declared_lost_and_the_rest_goes_on(
    tmp_path: Path, brain: Brain
) -> None:
    agent = started(tmp_path / "a")
    brain.close()
    shutil.copy(brain.path, tmp_path / "old.db")
    brain.open()
    for slot in range(6):
        agent.release(energy(slot))
        deliver(agent, brain)
    size = len(next(sealed for _, sealed in agent.spool.archived()))
    agent.spool.trim(3 * size)
    left = [parse(sealed).header for _, sealed in agent.spool.archived()]
    batches = [one.sequence for one in left if one.stream == agent.short]
    assert 0 < len(batches) < 6
    agent.release(energy(6))
    old_ledger(tmp_path, brain)
    verdict = ask(agent, brain)
    (missing,) = verdict.missing
    assert (missing.first, missing.last) == (0, batches[0] - 1)
    assert missing.reason == REASON_DROPPED
    deliver(agent, brain)
    assert slots_in(brain) == [*batches, 6]
    (signed,) = brain.ledger.record.losses(1, 0, NOW + 1)
    assert parse_statement(signed)[1].address == KEYS.address


def test_a_loss_is_taken_only_for_what_comes_next(tmp_path: Path, brain: Brain) -> None:
    agent = started(tmp_path / "a")
    agent.release(energy(0))
    deliver(agent, brain)
    asker = asker_of(agent)
    for first, last in ((0, 0), (0, 5), (2, 3)):
        lost = Missing(1, agent.short, first, last, b"x" * 32)
        (signed,) = asker.losses([lost])
        assert brain.take(KEYS, signed).counts == {"loss_out_of_order": 1}
    assert brain.ledger.record.losses(1, 0, NOW + 1) == []


def test_an_answer_to_no_question_of_ours_is_at_most_a_hint(tmp_path: Path, brain: Brain) -> None:
    agent = started(tmp_path / "a")
    asker = asker_of(agent)
    (answer,) = brain.take(KEYS, asker.ask(0.0)).answers
    standing = read_answer(answer[1], KEYS.address, [KEYS.receipt.public])
    assert isinstance(standing, Standing)
    kid = answer_kid(answer[1])
    assert asker.take(standing, b"?" * 16, answer[1]) is None
    assert not asker.cleared
    assert asker.take(standing, kid, answer[1]) is not None
    # The same answer again, from a broker that repeats it, is not acted on.
    assert asker.take(standing, kid, answer[1]) is None
    assert asker.hinted(0.0, standing, kid)
    assert asker.left_s(0.0) == 0
    assert not asker.hinted(5.0, standing, kid)


def test_a_log_that_was_rewritten_is_told_and_both_statements_are_kept(
    tmp_path: Path, brain: Brain, caplog: pytest.LogCaptureFixture
) -> None:
    agent = started(tmp_path / "a")
    for slot in range(3):
        agent.release(energy(slot))
        deliver(agent, brain)
    asker = asker_of(agent)
    ask(agent, brain, asker)
    agent.release(energy(3))
    deliver(agent, brain)
    ask(agent, brain, asker)
    assert "log" not in caplog.text
    db = brain.ledger._db
    db.execute("UPDATE node SET hash = ? WHERE level = 0 AND place = 1", (b"x" * 32,))
    db.execute("UPDATE node SET hash = ? WHERE level = 1 AND place = 0", (b"y" * 32,))
    db.execute("UPDATE node SET hash = ? WHERE level = 2 AND place = 0", (b"z" * 32,))
    ask(agent, brain, asker)
    assert "rewritten" in caplog.text
    with agent.spool.transaction() as spool:
        ((what, first, second),) = spool.execute("SELECT what, first, second FROM proof").fetchall()
    assert what == "log"
    for signed in (first, second):
        read_answer(signed, KEYS.address, [KEYS.receipt.public])


# Two messages for one place.


def test_equivocation_is_kept_as_proof_and_quarantined_until_a_person_releases_it(
    brain: Brain,
) -> None:
    forger = Forger(KEYS, POLICY)
    sheet, first = forger.sheet_message(), forger.batch(energy(0))
    brain.take(KEYS, sheet, first)
    genesis_hash = parse(first).header.previous
    second = forger.batch(energy(1), sequence=0, previous=genesis_hash, advance=False)
    outcome = brain.take(KEYS, second)
    assert outcome.counts == {"equivocation": 1}
    (standing,) = brain.answers(KEYS, outcome)
    assert isinstance(standing, Standing)
    assert standing.quarantined
    assert alarms(brain) == [(EQUIVOCATION, 0, 0)]
    ((kept, other),) = brain.ledger.record.equivocations(1)
    assert (kept, other) == (first, second)
    for proof in (kept, other):
        parse(proof).signed.verify(KEYS.signing.public)
    assert parse(kept).header.sequence == parse(other).header.sequence
    # Nothing more is taken, in no epoch; what was taken is still answered.
    following = forger.batch(energy(2))
    assert brain.take(KEYS, following).counts == {"quarantined": 1}
    assert brain.take(KEYS, forger.sheet_message(epoch=2)).counts == {"quarantined": 1}
    assert brain.take(KEYS, first).counts == {"replayed": 1}
    assert brain.take(KEYS, second).counts == {"equivocation": 1}
    assert len(brain.ledger.record.equivocations(1)) == 1
    assert brain.ledger.record.release(1)
    assert not brain.ledger.record.release(1)
    assert brain.take(KEYS, following).counts == {"kept": 1}
    assert len(brain.ledger.record.equivocations(1)) == 1


def test_proofs_of_one_agent_are_bounded(brain: Brain) -> None:
    forger = Forger(KEYS, POLICY)
    brain.take(KEYS, forger.sheet_message(), *[forger.batch(energy(at)) for at in range(20)])
    for sequence in range(20):
        brain.take(KEYS, forger.batch(energy(99), sequence=sequence, advance=False))
    assert len(brain.ledger.record.equivocations(1)) == 16


# Reordering.


@settings(
    deadline=None, max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(order=st.permutations(range(12)), data=st.data())
def test_whatever_order_a_line_brings_them_in_all_are_kept_with_each_sent_once(
    tmp_path_factory: pytest.TempPathFactory, order: list[int], data: st.DataObject
) -> None:
    brain = Brain(tmp_path_factory.mktemp("brain"), KEYS)
    forger = Forger(KEYS, POLICY)
    brain.take(KEYS, forger.sheet_message())
    messages = [forger.batch(energy(at)) for at in range(12)]
    shuffled = [messages[at] for at in order]
    while shuffled:
        size = data.draw(st.integers(1, len(shuffled)))
        brain.take(KEYS, *shuffled[:size])
        shuffled = shuffled[size:]
    assert slots_in(brain) == list(range(12))
    assert brain.ledger.next_of(1, 1, forger.short) == 12
    brain.close()


def test_the_reorder_window_is_bounded_in_places_and_in_time(brain: Brain) -> None:
    forger = Forger(KEYS, POLICY)
    brain.take(KEYS, forger.sheet_message())
    messages = [forger.batch(energy(at)) for at in range(WINDOW + 3)]
    far = messages[WINDOW + 1]
    brain.take(KEYS, far, messages[0])
    brain.take(KEYS, *messages[1 : WINDOW + 1])
    assert brain.ledger.next_of(1, 1, forger.short) == WINDOW + 1
    brain.take(KEYS, messages[WINDOW + 2])
    brain.clock += 601
    brain.take(KEYS, messages[WINDOW + 2], far)
    assert brain.ledger.next_of(1, 1, forger.short) == WINDOW + 3


# Bounds.


def test_the_refused_box_is_bounded_and_the_sum_still_holds(
    tmp_path: Path, brain: Brain, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spool_module, "_MOST_REFUSED", 3)
    agent = started(tmp_path / "a")
    for slot in range(6):
        # The same slot over and over: the first is kept, the others are refused.
        agent.release(energy(0))
        agent.release(energy(slot + 10))
        deliver(agent, brain)
    before = agent.spool.tally()
    assert before.refused == 5
    agent.spool.trim(1 << 20)
    assert agent.spool.tally() == before
    left = [status for status, _ in agent.spool.archived()]
    assert left.count(spool_module.REFUSED) == 3


def test_a_replay_whose_refusal_was_forgotten_is_not_taken_for_fraud(brain: Brain) -> None:
    forger = Forger(KEYS, POLICY)
    brain.take(KEYS, forger.sheet_message())
    bad = forger.batch(block(SLOT, [ENERGY], [7]))
    brain.take(KEYS, bad)
    brain.ledger._db.execute("DELETE FROM refused")
    brain.ledger._db.execute("DELETE FROM log WHERE kind = 1")
    assert brain.take(KEYS, bad).counts == {"replayed": 1}
    assert not brain.ledger.record.quarantined(1)


def test_a_message_that_came_early_is_taken_when_the_loss_before_it_is_declared(
    tmp_path: Path, brain: Brain
) -> None:
    forger = Forger(KEYS, POLICY)
    brain.take(KEYS, forger.sheet_message(), forger.batch(energy(0)))
    last = b"l" * 32
    early = forger.batch(energy(9), sequence=4, previous=last)
    assert brain.take(KEYS, early).counts == {"out_of_order": 1}
    asker = asker_of(started(tmp_path / "a"))
    (loss,) = asker.losses([Missing(1, forger.short, 1, 3, last)])
    outcome = brain.take(KEYS, loss)
    assert outcome.counts == {"declared_lost": 1, "kept": 1}
    assert slots_in(brain) == [0, 9]


def test_where_messages_are_lost_is_told_by_what_is_kept_around_them(
    tmp_path: Path, brain: Brain
) -> None:
    forger = Forger(KEYS, POLICY)
    brain.take(KEYS, forger.sheet_message(), forger.batch(energy(0)))
    asker, last = asker_of(started(tmp_path / "a")), b"l" * 32
    brain.take(KEYS, *asker.losses([Missing(1, forger.short, 1, 3, last)]))
    assert lost_ranges(brain.path) == {}
    brain.take(KEYS, forger.batch(energy(9), sequence=4, previous=last))
    # A slot counts from when it begins; the new epoch's first message is what is kept behind the last.
    brain.take(KEYS, *asker.losses([Missing(1, forger.short, 5, 5, last)]))
    brain.take(KEYS, forger.batch(energy(20), sequence=0, epoch=2))
    found = [
        LostRange(1, forger.short, first, last, (SLOT + begin) * SHORT_S, (SLOT + end) * SHORT_S)
        for first, last, begin, end in ((1, 3, 1, 9), (5, 5, 10, 20))
    ]
    assert lost_ranges(brain.path) == {KEYS.address: found}


def test_a_loss_that_does_not_fit_is_answered_with_where_the_chain_stands(
    tmp_path: Path, brain: Brain
) -> None:
    asker = asker_of(started(tmp_path / "a"))
    (foreign, loss) = asker.losses(
        [Missing(1, stream, 5, 6, b"l" * 32) for stream in (7, Forger(KEYS).short)]
    )
    assert brain.take(KEYS, foreign).answers == []
    (standing,) = brain.answers(KEYS, brain.take(KEYS, loss))
    assert isinstance(standing, Standing)
    assert not any(standing.nonce)


def test_refusals_that_nobody_declares_are_bounded(
    brain: Brain, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aggregator.ledger.MOST_UNDECLARED", 3)
    forger = Forger(KEYS, POLICY)
    brain.take(KEYS, forger.sheet_message())
    bad = [forger.batch(block(SLOT, [ENERGY], [7])) for _ in range(4)]
    counts = brain.take(KEYS, *bad).counts
    assert counts == {"refused": 3, "too_many_refused": 1}
    assert brain.ledger.next_of(1, 1, forger.short) == 3


# Statements are believed only with the agent's own signature.


def test_a_statement_of_another_key_or_for_another_agent_is_neither_kept_nor_answered(
    tmp_path: Path, brain: Brain
) -> None:
    agent = started(tmp_path / "a")
    signed = asker_of(agent).ask(0.0)
    body = cose.parse_sign1(
        signed, content_types={"application/mg1-ask+cbor": None}, limit=1 << 16
    ).payload
    rival = cose.sign1(
        cose.protected_header("application/mg1-ask+cbor", KEYS.receipt.public, {}),
        body,
        KEYS.receipt,
    )
    for message, counter in ((rival, "bad_signature"), (signed[:-1], "malformed")):
        outcome = brain.take(KEYS, message)
        assert outcome.counts == {counter: 1}
        assert outcome.answers == []
    other = Keys("other mill")
    brain.factories |= Brain(tmp_path / "x", other).factories
    outcome = brain.take(other, signed)
    assert outcome.counts == {"wrong_topic": 1}
    assert outcome.answers == []


def put_back(tmp_path: Path, agent: Agent) -> Agent:
    """Return the agent as it runs from a copy of its disk; `agent` ends."""
    agent.spool.close()
    return started(tmp_path / "copy")


def copied(tmp_path: Path, agent: Agent) -> Agent:
    """Copy an agent's disk, and let it go on."""
    agent.spool.close()
    shutil.copytree(tmp_path / "a", tmp_path / "copy")
    return started(tmp_path / "a")


def test_what_came_early_from_before_the_disk_was_put_back_is_not_taken_behind_its_answer(
    tmp_path: Path, brain: Brain
) -> None:
    agent = started(tmp_path / "a")
    deliver(agent, brain)
    agent.release(energy(0))
    agent = copied(tmp_path, agent)
    agent.release(energy(1))
    _, early = agent.waiting()
    assert brain.take(KEYS, early).counts == {"out_of_order": 1}
    agent = put_back(tmp_path, agent)
    assert not ask(agent, brain).forked
    agent.release(energy(2))
    for _ in range(2):
        deliver(agent, brain)
    assert slots_in(brain) == [0, 2]
    assert agent.waiting() == []
    assert not brain.ledger.record.quarantined(1)


def test_what_was_held_for_its_sheet_from_before_the_disk_was_put_back_is_not_taken_either(
    tmp_path: Path, brain: Brain
) -> None:
    agent = copied(tmp_path, started(tmp_path / "a"))
    agent.release(energy(1))
    _, held = agent.waiting()
    assert brain.take(KEYS, held).counts == {"held_for_sheet": 1}
    agent = put_back(tmp_path, agent)
    assert not ask(agent, brain).forked
    agent.release(energy(2))
    for _ in range(2):
        deliver(agent, brain)
    assert slots_in(brain) == [2]
    assert agent.waiting() == []
    assert not brain.ledger.record.quarantined(1)


@pytest.mark.parametrize("heads", [MOST_HEADS - 1, MOST_HEADS])
def test_of_chains_that_a_full_standing_has_no_room_for_nothing_is_said(
    tmp_path: Path, heads: int
) -> None:
    """Taken for missing at the brain, all of an old epoch would be sent again, or declared lost."""
    spool, stream, digest = Spool(tmp_path / "spool.db"), 7, bytes(32)
    spool.set_meta({"epoch": 2})
    with spool.transaction() as db:
        db.execute("INSERT INTO chain VALUES (1, ?, 3, ?)", (stream, digest))
    newer = [Head(2, 1000 + one, 0, digest) for one in range(heads)]
    found = compare(spool, KEYS.address, 2, newer, {stream}).missing
    spool.close()
    assert found == ([] if heads == MOST_HEADS else [Missing(1, stream, 0, 2, digest)])
