"""The inbox: decides about every message, cheap checks first, and never gives a value twice."""

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cbor2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aggregator import ledger as ledger_module
from aggregator.inbox import Outcome
from protocols import batch
from protocols.batch import NO_VALUE, Block
from protocols.mqtt import MAX_MESSAGE
from protocols.topics import Address
from security import cose
from security.answers import (
    BAD_SHEET,
    BEYOND_SHEET,
    CANNOT_OPEN,
    MOST_REFUSED,
    NOT_A_BATCH,
    SLOT_TAKEN,
    Head,
    Receipt,
    Request,
    Standing,
)
from security.envelope import REASON_REFUSED, SHEET, Gap, Sealed, digest, open_sealed, parse
from security.keys import OpeningKey, SigningKey
from security.policy.bundle import read_bundle, sign_bundle
from security.policy.compiled import content_hash, to_bytes
from security.policy.compiler import compile_policy
from security.policy.streams import stream_id
from security.statements import Loss, sign_statement
from tests.small_factory import (
    ENERGY,
    HOURLY,
    LONG_S,
    NOW,
    PAD,
    POWER,
    SHORT_S,
    STATE,
    Agent,
    Brain,
    Forger,
    Keys,
    block,
    opening_key,
    policy_text,
    signed_policy,
    signing_key,
)

KEYS = Keys()
OTHER = Keys("other mill")
POLICY = signed_policy(KEYS)
SLOT = NOW // SHORT_S


@pytest.fixture
def brain(tmp_path: Path) -> Iterator[Brain]:
    opened = Brain(tmp_path, KEYS, OTHER)
    yield opened
    opened.close()


@pytest.fixture
def forger() -> Forger:
    return Forger(KEYS, POLICY)


def state_of(brain: Brain) -> list[tuple[Any, ...]]:
    """Return everything in the ledger but the counters."""
    db = brain.ledger._db
    tables = [row[0] for row in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    return [
        (table, *row)
        for table in sorted(tables)
        if table not in {"counter", "agent"}
        for row in db.execute(f"SELECT * FROM {table} ORDER BY 1, 2, 3")  # noqa: S608 - names of our own tables
    ]


def energy(slot: int, *values: int) -> Block:
    """Energy in consecutive slots, in steps that the sheet allows."""
    return block(SLOT + slot, [ENERGY], [5 * value for value in values])


def kept(brain: Brain) -> dict[tuple[int, int, int], int]:
    """Return all values in the ledger by (window, number, slot); none may be there twice."""
    found: dict[tuple[int, int, int], int] = {}
    for one in brain.ledger.batches(0, 1_000_000):
        for window_s, part in brain.opener.blocks(one):
            for row, column in zip(*np.nonzero(part.quality != NO_VALUE), strict=True):
                key = (window_s, int(part.numbers[column]), part.slot + int(row))
                assert key not in found
                found[key] = int(part.mantissa[row, column])
    return found


def energies(brain: Brain) -> dict[int, int]:
    """Return the energy values by slot, in steps."""
    return {slot - SLOT: value // 5 for (_, n, slot), value in kept(brain).items() if n == ENERGY}


def begin(brain: Brain, forger: Forger, *batches: bytes) -> Outcome:
    """Let the sheet be known, and some batches with it."""
    outcome = brain.take(KEYS, forger.sheet_message(), *batches)
    assert outcome.counts == {"kept": 1 + len(batches)}
    return outcome


# What is right.


def test_sheet_and_batches_are_kept_and_one_receipt_answers_all(
    brain: Brain, forger: Forger
) -> None:
    sheet = forger.sheet_message()
    batches = [forger.batch(energy(at, at + 1)) for at in range(3)]
    outcome = brain.take(KEYS, sheet, *batches)
    assert outcome.counts == {"kept": 4}
    assert outcome.kept == 4
    receipt = brain.receipt_of(KEYS, outcome)
    assert receipt.refused == ()
    assert set(receipt.heads) == {
        Head(1, stream_id(KEYS.pin, 0), 0, digest(sheet)),
        Head(1, forger.short, 2, digest(batches[2])),
    }
    assert energies(brain) == {0: 1, 1: 2, 2: 3}


def test_what_the_shipped_agent_seals_is_kept_exactly(tmp_path: Path, brain: Brain) -> None:
    agent = Agent(tmp_path / "agent", KEYS, POLICY)
    agent.start()
    states = [STATE + at for at in range(9)]
    seconds = [1, *[0] * 8], [1, 10, *[0] * 7], [8, 0, 5, 5, *[0] * 5]
    agent.release(
        block(SLOT, [ENERGY, POWER], [[5, -3], [10, 0], [0, 7]], [[0, 0], [0, 2], [1, 0]]),
        block(SLOT, states, seconds),
    )
    agent.release(block(NOW // LONG_S, [HOURLY], [123], None, {0: 4}), stream=agent.long)
    outcome = brain.take(KEYS, *agent.waiting())
    assert outcome.counts == {"kept": 3}
    found = kept(brain)
    assert {key: found[key] for key in found if key[1] in {ENERGY, POWER, HOURLY}} == {
        (SHORT_S, ENERGY, SLOT): 5,
        (SHORT_S, ENERGY, SLOT + 1): 10,
        (SHORT_S, ENERGY, SLOT + 2): 0,
        (SHORT_S, POWER, SLOT): -3,
        (SHORT_S, POWER, SLOT + 2): 7,
        (LONG_S, HOURLY, NOW // LONG_S): 123,
    }
    assert len(found) == 6 + 27
    assert agent.settle(outcome.answers[0][1]) == 3
    assert agent.spool.tally().acknowledged == 33
    agent.spool.close()


# What is neither kept nor answered, and by which check.


def resigned(message: bytes, change: Callable[[list[Any]], None]) -> bytes:
    """Change the COSE_Encrypt inside and sign the whole again with the agent's true key."""
    protected, _, payload, _ = cbor2.loads(message).value
    content = [
        list(part) if isinstance(part, tuple) else part for part in cbor2.loads(payload).value
    ]
    change(content)
    inner = cbor2.dumps(cbor2.CBORTag(96, content), canonical=True)
    return cose.sign1(protected, inner, KEYS.signing)


def with_signature(message: bytes, signature: bytes) -> bytes:
    parts = list(cbor2.loads(message).value)
    return cbor2.dumps(cbor2.CBORTag(18, [*parts[:3], signature]), canonical=True)


UP, DOWN = KEYS.address.topic("up"), KEYS.address.topic("down")
STRANGER = Address(b"?" * 16, b"!" * 16)

Make = Callable[[Forger], bytes]
DISCARDED: dict[str, tuple[str, str, Make]] = {
    "no topic of ours": ("wrong_topic", "somewhere/else", lambda f: f.batch(energy(9, 1))),
    "a topic with a tail": ("wrong_topic", f"{UP}/more", lambda f: f.batch(energy(9, 1))),
    "the way down": ("wrong_topic", DOWN, lambda f: f.batch(energy(9, 1))),
    "the state": ("wrong_topic", KEYS.address.topic("state"), lambda f: f.batch(energy(9, 1))),
    "another agent's topic": (
        "wrong_topic",
        OTHER.address.topic("up"),
        lambda f: f.batch(energy(9, 1)),
    ),
    "an agent nobody knows": (
        "unknown_agent",
        STRANGER.topic("up"),
        lambda f: f.batch(energy(9, 1)),
    ),
    "nothing": ("malformed", UP, lambda _: b""),
    "garbage": ("malformed", UP, lambda _: b"\xff" * 100),
    "a cut message": ("malformed", UP, lambda f: f.batch(energy(9, 1))[:-1]),
    "bytes after a message": ("malformed", UP, lambda f: f.batch(energy(9, 1)) + b"\0"),
    "more than the bound": ("malformed", UP, lambda f: f.batch(energy(9, 1)) + bytes(MAX_MESSAGE)),
    "a message as long as the bound": ("malformed", UP, lambda _: bytes(MAX_MESSAGE)),
    "a rival's signature": (
        "bad_signature",
        UP,
        lambda f: f.batch(energy(9, 1), signer=signing_key("rival")),
    ),
    "the brain's own signature": (
        "bad_signature",
        UP,
        lambda f: f.batch(energy(9, 1), signer=KEYS.receipt),
    ),
    "a zeroed signature": (
        "bad_signature",
        UP,
        lambda f: with_signature(f.batch(energy(9, 1)), bytes(64)),
    ),
    "the signature of another message": (
        "bad_signature",
        UP,
        lambda f: with_signature(
            f.batch(energy(9, 1), advance=False), cbor2.loads(f.batch(energy(9, 1))).value[3]
        ),
    ),
    "a sequence left out": ("out_of_order", UP, lambda f: f.skipping().batch(energy(9, 1))),
    "another hash before": (
        "broken_chain",
        UP,
        lambda f: f.batch(energy(9, 1), previous=b"x" * 32),
    ),
    "the hash of the genesis again": (
        "broken_chain",
        UP,
        lambda f: f.batch(energy(9, 1), previous=parse(f.sheet_message()).header.previous),
    ),
    "another epoch in the middle": (
        "out_of_order",
        UP,
        lambda f: f.batch(energy(9, 1), epoch=2, sequence=5),
    ),
}

BEFORE_SIGNATURE = {"wrong_topic", "unknown_agent", "malformed", "bad_signature"}


@pytest.mark.parametrize(("counter", "topic", "make"), DISCARDED.values(), ids=DISCARDED.keys())
def test_what_is_discarded_is_counted_and_neither_kept_nor_answered(
    brain: Brain, forger: Forger, counter: str, topic: str, make: Make
) -> None:
    begin(brain, forger, forger.batch(energy(0, 1)), forger.batch(energy(1, 1)))
    before = state_of(brain)
    outcome = brain.inbox.process([(topic, make(forger))])
    # Whoever signed rightly is told where it stands; nobody else learns anything.
    if counter in BEFORE_SIGNATURE:
        assert outcome.answers == []
    else:
        (standing,) = brain.answers(KEYS, outcome)
        assert isinstance(standing, Standing)
    assert outcome.kept == 0
    ((found, times),) = outcome.counts.items()
    assert times == 1
    assert found == counter
    assert state_of(brain) == before
    assert brain.ledger.counters()[found] == 1


def test_checks_go_from_cheap_to_dear(brain: Brain, forger: Forger) -> None:
    """Each message is wrong in every later way too; the first check that it fails names it."""
    begin(brain, forger, forger.batch(energy(0, 1)))
    rival = signing_key("rival")
    beyond = {"recipients": [KEYS.audit.public], "previous": b"x" * 32, "sequence": 7}
    bad = block(1, [99], [1])
    garbage = b"garbage"
    steps = [
        ("elsewhere", garbage, "wrong_topic"),
        (STRANGER.topic("up"), garbage, "unknown_agent"),
        (UP, garbage, "malformed"),
        (OTHER.address.topic("up"), forger.batch(bad, signer=rival, advance=False), "wrong_topic"),
        (UP, forger.batch(bad, signer=rival, advance=False, **beyond), "bad_signature"),
        (UP, forger.batch(bad, advance=False, **beyond), "out_of_order"),
        (UP, forger.batch(bad, advance=False, **{**beyond, "sequence": 1}), "broken_chain"),
    ]
    for topic, message, counter in steps:
        assert brain.inbox.process([(topic, message)]).counts == {counter: 1}
    last = {"recipients": [KEYS.audit.public], "sheet_hash": b"?" * 32}
    outcome = brain.take(KEYS, forger.batch(bad, **last))
    assert [one.code for one in brain.receipt_of(KEYS, outcome).refused] == [CANNOT_OPEN]


def test_nothing_is_decrypted_before_signature_order_and_sheet_are_right(
    brain: Brain, forger: Forger, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin(brain, forger, forger.batch(energy(0, 1)))
    opened: list[bytes] = []

    def noted(sealed: Sealed, key: OpeningKey) -> bytes:
        opened.append(sealed.digest)
        return open_sealed(sealed, key)

    monkeypatch.setattr("aggregator.inbox.open_sealed", noted)
    good = forger.batch(energy(1, 1), advance=False)
    for message in (
        b"garbage",
        forger.batch(energy(1, 1), signer=signing_key("rival"), advance=False),
        with_signature(good, bytes(64)),
        forger.batch(energy(1, 1), sequence=5, advance=False),
        forger.batch(energy(1, 1), previous=b"x" * 32, advance=False),
        forger.batch(energy(1, 1), sheet_hash=b"?" * 32, advance=False),
    ):
        brain.take(KEYS, message)
    assert opened == []
    assert brain.take(KEYS, good).counts == {"kept": 1}
    assert opened == [digest(good)]


@pytest.mark.parametrize("signer", [KEYS.receipt, OTHER.signing], ids=["brain", "another firm"])
def test_whoever_holds_every_key_of_the_brain_or_of_another_firm_forges_no_batch(
    brain: Brain, forger: Forger, signer: SigningKey
) -> None:
    begin(brain, forger, forger.batch(energy(0, 1)))
    before = state_of(brain)
    # The brain can open what it got, so it knows every header and content there was.
    outcome = brain.take(KEYS, forger.batch(energy(1, 2), signer=signer, advance=False))
    assert outcome.kept == 0
    assert outcome.answers == []
    assert state_of(brain) == before


@settings(
    deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.binary(max_size=300), topic=st.text(max_size=60) | st.just(UP))
def test_arbitrary_messages_change_nothing(brain: Brain, data: bytes, topic: str) -> None:
    before = state_of(brain)
    outcome = brain.inbox.process([(topic, data)])
    assert outcome.answers == []
    assert sum(outcome.counts.values()) == 1
    assert state_of(brain) == before


# Replays.


def test_a_replay_gets_the_same_receipt_and_changes_nothing(brain: Brain, forger: Forger) -> None:
    messages = [forger.sheet_message(), *[forger.batch(energy(at, 1)) for at in range(3)]]
    first = brain.take(KEYS, *messages)
    before = state_of(brain)
    brain.clock += 86_400
    for message in (*messages, messages[0]):
        again = brain.take(KEYS, message)
        assert again.counts == {"replayed": 1}
        assert again.answers == first.answers
    together = brain.take(KEYS, *messages, *messages)
    assert together.counts == {"replayed": 8}
    assert together.answers == first.answers
    assert state_of(brain) == before


def test_a_replay_after_a_restart_gets_the_same_receipt(brain: Brain, forger: Forger) -> None:
    message = forger.batch(energy(0, 1))
    first = begin(brain, forger, message)
    brain.close()
    brain.open()
    assert brain.take(KEYS, message).answers == first.answers


def test_a_replay_of_an_old_message_gets_the_newest_receipt_of_its_chain(
    brain: Brain, forger: Forger
) -> None:
    old = forger.batch(energy(0, 1))
    begin(brain, forger, old)
    newest = brain.take(KEYS, forger.batch(energy(1, 1)))
    assert brain.take(KEYS, old).answers == newest.answers


def test_a_message_twice_in_one_group_is_kept_once(brain: Brain, forger: Forger) -> None:
    begin(brain, forger)
    message = forger.batch(energy(0, 1))
    outcome = brain.take(KEYS, message, message, message)
    assert outcome.counts == {"kept": 1, "replayed": 2}
    assert brain.receipt_of(KEYS, outcome).heads == (Head(1, forger.short, 0, digest(message)),)
    assert energies(brain) == {0: 1}


def test_a_replay_of_a_refused_message_names_the_refusal_again(
    brain: Brain, forger: Forger
) -> None:
    begin(brain, forger)
    bad = forger.batch(block(SLOT, [ENERGY], [7]))
    first = brain.take(KEYS, bad)
    before = state_of(brain)
    again = brain.take(KEYS, bad)
    assert again.answers == first.answers
    assert state_of(brain) == before


# Refusals.


def tampered(forger: Forger) -> bytes:
    """A ciphertext that its own agent signed, but that no longer opens."""
    message = forger.batch(energy(5, 1), advance=False)

    def spoil(content: list[Any]) -> None:
        content[2] = content[2][:-1] + bytes([content[2][-1] ^ 1])

    spoilt = resigned(message, spoil)
    sealed = parse(spoilt)
    forger.ends[1, forger.short] = (sealed.header.sequence + 1, sealed.digest)
    return spoilt


def sheet_of(forger: Forger, **changes: Any) -> tuple[bytes, bytes]:
    """Return a changed sheet that both officers signed, and its hash."""
    content = to_bytes(forger.sheet.sheet.model_copy(update=changes))
    signed = cose.sign_many("application/mg1-release-sheet+cbor", content, KEYS.officers)
    return signed, content_hash(content)


def sheet_message(forger: Forger, **changes: Any) -> bytes:
    signed, hashed = sheet_of(forger, **changes)
    return forger.sheet_message(signed, sheet_hash=hashed)


def point_changed(forger: Forger, **changes: Any) -> bytes:
    first, *others = forger.sheet.sheet.points
    return sheet_message(forger, points=[first.model_copy(update=changes), *others])


def signed_by(*signers: str) -> Make:
    def make(forger: Forger) -> bytes:
        content = to_bytes(forger.sheet.sheet)
        keys = [KEYS.officers[0] if name == "officer" else signing_key(name) for name in signers]
        return forger.sheet_message(
            cose.sign_many("application/mg1-release-sheet+cbor", content, keys)
        )

    return make


STATES = [STATE + at for at in range(9)]

REFUSED: dict[str, tuple[int, Make]] = {
    "not sealed to the brain": (
        CANNOT_OPEN,
        lambda f: f.batch(energy(5, 1), recipients=[KEYS.audit.public, opening_key("x").public]),
    ),
    "undecryptable": (CANNOT_OPEN, tampered),
    "no batch inside": (NOT_A_BATCH, lambda f: f.seal(b"garbage")),
    "nothing inside": (NOT_A_BATCH, lambda f: f.seal(b"")),
    "not padded": (NOT_A_BATCH, lambda f: f.seal(b"", padded=bytes(PAD))),
    "padded to another size": (NOT_A_BATCH, lambda f: f.batch(energy(5, 1), unit=PAD - 1)),
    "a sheet where a batch should be": (
        NOT_A_BATCH,
        lambda f: f.seal(f.sheet.signed),
    ),
    "a value off the rounding grid": (
        BEYOND_SHEET,
        lambda f: f.batch(block(SLOT + 5, [ENERGY], [5, 7])),
    ),
    "an unknown number": (BEYOND_SHEET, lambda f: f.batch(block(SLOT + 5, [ENERGY, 99], [5, 5]))),
    "a number of another stream": (BEYOND_SHEET, lambda f: f.batch(block(SLOT + 5, [HOURLY], [5]))),
    "a negative rise of a counter": (
        BEYOND_SHEET,
        lambda f: f.batch(block(SLOT + 5, [ENERGY], [-5])),
    ),
    "a gauge over several slots": (
        BEYOND_SHEET,
        lambda f: f.batch(block(SLOT + 5, [POWER], [5], None, {0: 2})),
    ),
    "more seconds than the slot has": (
        BEYOND_SHEET,
        lambda f: f.batch(block(SLOT + 5, STATES, [1, 55, *[0] * 7])),
    ),
    "negative seconds": (
        BEYOND_SHEET,
        lambda f: f.batch(block(SLOT + 5, STATES, [1, -5, *[0] * 7])),
    ),
    "an unknown state": (
        BEYOND_SHEET,
        lambda f: f.batch(block(SLOT + 5, STATES, [9, *[0] * 8])),
    ),
    "more seconds in all states than the slot has": (
        BEYOND_SHEET,
        lambda f: f.batch(block(SLOT + 5, STATES, [1, 50, 5, *[0] * 6])),
    ),
    "the end of a state without its seconds": (
        BEYOND_SHEET,
        lambda f: f.batch(block(SLOT + 5, [STATE], [1])),
    ),
    "some seconds of a state without the others": (
        BEYOND_SHEET,
        lambda f: f.batch(block(SLOT + 5, STATES[:5], [1, 5, 0, 0, 0])),
    ),
    "a stream that the sheet does not have": (
        BEYOND_SHEET,
        lambda f: f.batch(energy(5, 1), stream=12345),
    ),
    "a window that is longer than its slots": (
        BEYOND_SHEET,
        lambda f: f.batch(energy(5, 1), window=((SLOT + 5) * SHORT_S, (SLOT + 7) * SHORT_S)),
    ),
    "a window of another time": (BEYOND_SHEET, lambda f: f.batch(energy(5, 1), window=(0, 5))),
    "another policy version": (BEYOND_SHEET, lambda f: f.batch(energy(5, 1), policy_version=2)),
    "another policy": (BEYOND_SHEET, lambda f: f.batch(energy(5, 1), policy_hash=b"?" * 32)),
    "another purpose": (BEYOND_SHEET, lambda f: f.batch(energy(5, 1), purpose=1)),
    "another right": (BEYOND_SHEET, lambda f: f.batch(energy(5, 1), right_hash=b"?" * 32)),
    "no right where there is one": (
        BEYOND_SHEET,
        lambda f: f.batch(energy(5, 1), right_hash=b""),
    ),
    "sealed before its sheet was valid": (
        BEYOND_SHEET,
        lambda f: f.batch(energy(5, 1), issued_at=1_500_000_000),
    ),
    "sealed after its sheet had expired": (
        BEYOND_SHEET,
        lambda f: f.batch(energy(5, 1), issued_at=2_300_000_000),
    ),
    "a slot beyond all calendars": (
        BEYOND_SHEET,
        lambda f: f.batch(block((1 << 48) - 1, [ENERGY], [5])),
    ),
    "a slot taken": (SLOT_TAKEN, lambda f: f.batch(energy(0, 1))),
    "a slot taken among free ones": (SLOT_TAKEN, lambda f: f.batch(energy(-2, 1, 1, 1, 1))),
    "a slot twice in one batch": (SLOT_TAKEN, lambda f: f.batch(energy(5, 1), energy(5, 2))),
    "a slot twice in blocks that overlap": (
        SLOT_TAKEN,
        lambda f: f.batch(
            block(SLOT + 5, [ENERGY, POWER], [[5, 1], [5, 1]]), block(SLOT + 6, [ENERGY], [5, 5])
        ),
    ),
    "a sheet of one officer where two must sign": (BAD_SHEET, signed_by("officer")),
    "a sheet of strangers": (BAD_SHEET, signed_by("stranger", "another")),
    "a sheet of an officer and a stranger": (BAD_SHEET, signed_by("officer", "stranger")),
    "no sheet inside": (BAD_SHEET, lambda f: f.seal(b"garbage", kind=SHEET)),
    "a batch where a sheet should be": (BAD_SHEET, lambda f: f.batch(energy(5, 1), kind=SHEET)),
    "a sheet under another hash": (
        BAD_SHEET,
        lambda f: f.sheet_message(sheet_hash=b"?" * 32),
    ),
    "a sheet for another consumer": (
        BAD_SHEET,
        lambda f: sheet_message(f, consumer=b"?" * 32),
    ),
    "a sheet with a number twice": (
        BAD_SHEET,
        lambda f: sheet_message(f, points=[*f.sheet.sheet.points, f.sheet.sheet.points[0]]),
    ),
    "a sheet with a state that is not whole": (
        BAD_SHEET,
        lambda f: sheet_message(f, points=f.sheet.sheet.points[:-3]),
    ),
    "a sheet whose label no store can keep": (
        BAD_SHEET,
        lambda f: point_changed(f, equipment="a\nb"),
    ),
    "a sheet without a label": (BAD_SHEET, lambda f: point_changed(f, equipment="")),
    "a sheet with a strange measurand": (BAD_SHEET, lambda f: point_changed(f, measurand="\\")),
    "a sheet with a strange role": (BAD_SHEET, lambda f: point_changed(f, role="a b")),
    "a sheet with a step of nothing": (BAD_SHEET, lambda f: point_changed(f, step=0)),
    "a sheet with slots of more than a day": (
        BAD_SHEET,
        lambda f: sheet_message(
            f,
            streams=[one.model_copy(update={"window_s": 1 << 40}) for one in f.sheet.sheet.streams],
        ),
    ),
    "a sheet of another policy than its header names": (
        BAD_SHEET,
        lambda f: sheet_message(f, policy_version=5),
    ),
}


@pytest.mark.parametrize(("code", "make"), REFUSED.values(), ids=REFUSED.keys())
def test_what_is_refused_is_named_kept_apart_and_the_chain_goes_on(
    brain: Brain, forger: Forger, code: int, make: Make
) -> None:
    begin(brain, forger, forger.batch(energy(0, 1)))
    values = kept(brain)
    bad = make(forger)
    header = parse(bad).header
    outcome = brain.take(KEYS, bad)
    assert outcome.counts == {"refused": 1}
    head = Head(1, header.stream, header.sequence, digest(bad))
    receipt = brain.receipt_of(KEYS, outcome)
    assert receipt.heads == (head,)
    assert [(one.head, one.code) for one in receipt.refused] == [(head, code)]
    assert kept(brain) == values
    apart = brain.ledger._db.execute("SELECT sequence, code, sealed FROM refused").fetchall()
    assert apart == [(header.sequence, code, bad)]

    # The chain goes on, and the refusal is named until it is declared, not longer.
    after = {"stream": header.stream} if header.stream in {forger.short, forger.long} else {}
    if after:
        outcome = brain.take(KEYS, forger.batch(energy(20, 1)))
        assert outcome.counts == {"kept": 1}
        receipt = brain.receipt_of(KEYS, outcome)
        assert [(one.head, one.code) for one in receipt.refused] == [(head, code)]
        gap = Gap(header.sequence, header.sequence, REASON_REFUSED)
        outcome = brain.take(KEYS, forger.batch(energy(21, 1), gaps=(gap,)))
        assert brain.receipt_of(KEYS, outcome).refused == ()
        assert energies(brain) == {0: 1, 20: 1, 21: 1}


def test_a_gap_declared_by_a_batch_that_is_refused_itself_is_declared(
    brain: Brain, forger: Forger
) -> None:
    begin(brain, forger)
    brain.take(KEYS, forger.batch(block(SLOT, [ENERGY], [7])))
    second = forger.batch(block(SLOT, [ENERGY], [8]), gaps=(Gap(0, 0, REASON_REFUSED),))
    receipt = brain.receipt_of(KEYS, brain.take(KEYS, second))
    assert [one.head.sequence for one in receipt.refused] == [1]


def test_a_refused_batch_leaves_its_slots_free(brain: Brain, forger: Forger) -> None:
    """Nothing of a batch is kept when its last cell is refused."""
    begin(brain, forger)
    brain.take(KEYS, forger.batch(energy(0, 1, 2, 3), block(SLOT + 9, [ENERGY], [7])))
    brain.take(KEYS, forger.batch(energy(3, 1), energy(0, 4)))
    taken = forger.batch(energy(5, 1), energy(3, 1))
    assert brain.take(KEYS, taken).counts == {"refused": 1}
    assert brain.take(KEYS, forger.batch(energy(1, 5), energy(5, 6))).counts == {"kept": 1}
    assert energies(brain) == {3: 1, 0: 4, 1: 5, 5: 6}


def test_what_is_kept_of_refused_messages_is_bounded(
    brain: Brain, forger: Forger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger_module, "_MOST_REFUSED_BYTES", 10_000)
    begin(brain, forger)
    for _ in range(8):
        brain.take(KEYS, forger.batch(block(SLOT, [ENERGY], [7])))
    rows = brain.ledger._db.execute("SELECT LENGTH(sealed) FROM refused").fetchall()
    assert len(rows) == 8
    assert 0 < sum(row[0] for row in rows) <= 10_000


@pytest.mark.parametrize("together", [True, False], ids=["one group", "one by one"])
def test_no_receipt_acknowledges_a_refused_message_without_naming_it(
    tmp_path: Path, brain: Brain, *, together: bool
) -> None:
    """However many are refused, the agent's sums end up right."""
    agent = Agent(tmp_path / "agent", KEYS, POLICY)
    agent.start()
    many = MOST_REFUSED + 20
    for _ in range(many):
        # The sealed side would not seal what is beyond the sheet; a slot taken it cannot know.
        agent.release(energy(0, 1))
    waiting = agent.waiting()
    outcomes = (
        [brain.take(KEYS, *waiting)] if together else [brain.take(KEYS, one) for one in waiting]
    )
    refused = {parse(one).header.sequence for one in waiting[2:]}
    named: set[int] = set()
    for outcome in outcomes:
        receipt = brain.receipt_of(KEYS, outcome)
        named |= {one.head.sequence for one in receipt.refused}
        for head in receipt.heads:
            if head.stream == agent.short:
                assert {one for one in refused if one <= head.sequence} <= named
        agent.settle(outcome.answers[0][1])
    for _ in range(20):
        if not agent.spool.tally().waiting_batches:
            break
        agent.release(energy(100 + agent.number, 1))
        for message in agent.waiting():
            for _, answer in brain.take(KEYS, message).answers:
                agent.settle(answer)
    tally = agent.spool.tally()
    assert (tally.waiting, tally.refused) == (0, many - 1)
    assert tally.acknowledged == len(energies(brain))
    agent.spool.close()


def test_old_epochs_do_not_hide_new_refusals(brain: Brain, forger: Forger) -> None:
    """What an agent never declared, because its epoch ended, must not fill its receipts."""
    begin(brain, forger)
    bad = [block(SLOT, [ENERGY], [7])]
    for _ in range(MOST_REFUSED + 5):
        brain.take(KEYS, forger.batch(*bad))
    brain.take(KEYS, forger.sheet_message(epoch=2))
    message = forger.batch(*bad, epoch=2)
    receipt = brain.receipt_of(KEYS, brain.take(KEYS, message))
    assert Head(2, forger.short, 0, digest(message)) in {one.head for one in receipt.refused}
    assert receipt.heads == (Head(2, forger.short, 0, digest(message)),)


# Sheets.


def test_a_batch_before_its_sheet_is_held_and_the_sheet_asked_for(
    brain: Brain, forger: Forger
) -> None:
    early = forger.batch(energy(0, 1))
    before = state_of(brain)
    outcome = brain.take(KEYS, early)
    assert outcome.counts == {"held_for_sheet": 1}
    assert state_of(brain) == before
    assert brain.request_of(KEYS, outcome) == Request(KEYS.address, NOW, forger.sheet.hash)

    sheet = forger.sheet_message()
    outcome = brain.take(KEYS, sheet)
    assert outcome.counts == {"kept": 2}
    assert {head.digest for head in brain.receipt_of(KEYS, outcome).heads} == {
        digest(sheet),
        digest(early),
    }
    assert energies(brain) == {0: 1}


def test_what_was_held_need_not_be_sent_again_but_may_be(brain: Brain, forger: Forger) -> None:
    early = [forger.batch(energy(at, 1)) for at in range(3)]
    assert brain.take(KEYS, *early).counts == {"held_for_sheet": 1, "out_of_order": 2}
    outcome = brain.take(KEYS, *early, forger.sheet_message(), *early)
    assert outcome.counts["kept"] == 4
    assert energies(brain) == {0: 1, 1: 1, 2: 1}


def test_a_sheet_is_asked_for_again_as_long_as_its_batches_come_again(
    brain: Brain, forger: Forger
) -> None:
    """A request can get lost; two streams under one sheet must not silence each other."""
    early = [
        forger.batch(energy(0, 1)),
        forger.batch(block(NOW // LONG_S, [HOURLY], [1]), stream=forger.long),
    ]
    for _ in range(3):
        answers = [brain.answers(KEYS, brain.take(KEYS, message)) for message in early]
        # Once for both, and not again with every message: that would only add to the load.
        assert [[type(one) for one in group] for group in answers] == [[Request], []]
        brain.clock += 3
    together = brain.take(KEYS, *early)
    assert [type(one) for one in brain.answers(KEYS, together)] == [Request]
    assert brain.take(KEYS, forger.sheet_message()).counts == {"kept": 3}


def test_what_is_held_is_bounded_and_one_agent_leaves_room_for_others(
    brain: Brain, forger: Forger
) -> None:
    """An agent may name any sheet and any stream; all of that is held in memory."""
    size = 0
    for number in range(200):
        message = forger.batch(
            energy(0, 1), stream=1000 + number, sheet_hash=bytes([number % 251]) * 32
        )
        size += len(message)
        brain.take(KEYS, message)
    held = brain.inbox._held
    assert sum(len(one) for group in held.values() for one in group) <= 64 * len(message)
    assert len(held) <= 64
    other = Forger(OTHER)
    outcome = brain.take(OTHER, other.batch(energy(0, 1)))
    assert [type(one) for one in brain.answers(OTHER, outcome)] == [Request]
    assert brain.take(OTHER, other.sheet_message()).counts == {"kept": 2}


def test_sheets_are_of_one_agent_only(brain: Brain, forger: Forger) -> None:
    begin(brain, forger)
    other = Forger(OTHER)
    outcome = brain.take(OTHER, other.batch(energy(0, 1), sheet_hash=forger.sheet.hash))
    assert outcome.counts == {"held_for_sheet": 1}


def test_a_batch_under_an_older_policy_than_the_one_before_it_is_refused(brain: Brain) -> None:
    newer = Forger(KEYS, signed_policy(KEYS, 2))
    begin(brain, newer, newer.batch(energy(0, 1)))
    older = Forger(KEYS, POLICY)
    older.ends = newer.ends
    # The sheet itself may come: batches that waited under it in another stream may need it.
    outcome = brain.take(KEYS, older.sheet_message(), older.batch(energy(1, 1)))
    assert [one.code for one in brain.receipt_of(KEYS, outcome).refused] == [BEYOND_SHEET]
    assert energies(brain) == {0: 1}


def test_batches_that_waited_under_an_old_sheet_are_kept_after_a_new_one(brain: Brain) -> None:
    old = Forger(KEYS, POLICY)
    begin(brain, old, old.batch(energy(0, 1)))
    waited = old.batch(energy(1, 1))
    new = Forger(KEYS, signed_policy(KEYS, 2))
    new.ends = old.ends
    outcome = brain.take(KEYS, new.sheet_message(), waited, new.batch(energy(2, 1)))
    assert outcome.counts == {"kept": 3}
    assert energies(brain) == {0: 1, 1: 1, 2: 1}


def test_a_sheet_sent_again_in_a_new_epoch_is_kept_again(brain: Brain, forger: Forger) -> None:
    begin(brain, forger, forger.batch(energy(0, 1)))
    outcome = brain.take(KEYS, forger.sheet_message(epoch=2), forger.batch(energy(1, 1), epoch=2))
    assert outcome.counts == {"kept": 2}
    assert {head.epoch for head in brain.receipt_of(KEYS, outcome).heads} == {2}


# One point, one slot, one value.


def test_a_missing_slot_is_filled_once(brain: Brain, forger: Forger) -> None:
    gap = block(SLOT, [ENERGY], [5, 0, 5], [0, NO_VALUE, 0])
    begin(brain, forger, forger.batch(gap))
    assert brain.take(KEYS, forger.batch(energy(1, 7))).counts == {"kept": 1}
    assert brain.take(KEYS, forger.batch(energy(1, 7))).counts == {"refused": 1}
    assert brain.take(KEYS, forger.batch(energy(1, 8))).counts == {"refused": 1}
    assert energies(brain) == {0: 1, 1: 7, 2: 1}


def test_a_missing_slot_may_be_said_to_miss_again(brain: Brain, forger: Forger) -> None:
    missing = block(SLOT, [ENERGY], [0], [NO_VALUE])
    begin(brain, forger, forger.batch(missing), forger.batch(missing))
    assert brain.take(KEYS, forger.batch(energy(0, 3))).counts == {"kept": 1}
    assert brain.take(KEYS, forger.batch(missing)).counts == {"kept": 1}
    assert energies(brain) == {0: 3}


def test_nothing_is_opened_that_lies_between_the_slots_of_a_batch(
    brain: Brain, forger: Forger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else one batch over years would have all of them in memory."""
    begin(brain, forger)
    ends = [block(SLOT + at, [ENERGY, POWER], [0, 1], [NO_VALUE, 0]) for at in (0, 9)]
    between = [energy(at, 1) for at in range(2, 8)]
    messages = [forger.batch(one) for one in (*ends, *between)]
    assert brain.take(KEYS, *messages).counts == {"kept": len(messages)}
    opened: list[int] = []
    real = brain.opener.blocks

    def blocks(kept: Any) -> Any:
        opened.append(kept.start_s // SHORT_S - SLOT)
        return real(kept)

    monkeypatch.setattr(brain.inbox._opener, "blocks", blocks)
    assert brain.take(KEYS, forger.batch(energy(0, 3), energy(9, 4))).counts == {"kept": 1}
    assert sorted(opened) == [0, 9]


def test_different_points_share_a_slot(brain: Brain, forger: Forger) -> None:
    begin(brain, forger, forger.batch(energy(0, 1, 2)))
    power = forger.batch(block(SLOT, [POWER], [1, 2]))
    both = forger.batch(block(SLOT + 1, [ENERGY, POWER], [[5, 5], [5, 5]]))
    assert brain.take(KEYS, power).counts == {"kept": 1}
    assert brain.take(KEYS, both).counts == {"refused": 1}
    free = forger.batch(block(SLOT + 2, [ENERGY, POWER], [[5, 5], [5, 5]]))
    assert brain.take(KEYS, free).counts == {"kept": 1}


def test_a_slot_is_taken_across_epochs(brain: Brain, forger: Forger) -> None:
    """A new epoch, after lost state, must not bring the old values a second time."""
    begin(brain, forger, forger.batch(energy(0, 1)))
    brain.take(KEYS, forger.sheet_message(epoch=2))
    outcome = brain.take(KEYS, forger.batch(energy(0, 1), epoch=2))
    assert [one.code for one in brain.receipt_of(KEYS, outcome).refused] == [SLOT_TAKEN]
    assert energies(brain) == {0: 1}


def test_a_slot_is_taken_across_slot_lengths(brain: Brain, forger: Forger) -> None:
    """When a policy changes a point's slots, time already told is not told again."""
    begin(brain, forger, forger.batch(energy(0, 1)))
    officers = [key.public for key in KEYS.officers]
    compiled = compile_policy(policy_text(KEYS, 2, energy_slot_s=LONG_S))
    wider = Forger(KEYS, read_bundle(sign_bundle(compiled, KEYS.officers), officers, 2))
    wider.ends = forger.ends
    brain.take(KEYS, wider.sheet_message())
    around = block(NOW // LONG_S, [ENERGY], [5])
    after = block(NOW // LONG_S + 1, [ENERGY], [5])
    outcome = brain.take(KEYS, wider.batch(around, stream=wider.long))
    assert [one.code for one in brain.receipt_of(KEYS, outcome).refused] == [SLOT_TAKEN]
    assert brain.take(KEYS, wider.batch(after, stream=wider.long)).counts == {"kept": 1}


@st.composite
def any_block(draw: st.DrawFn) -> Block:
    numbers = draw(st.sampled_from([[ENERGY], [POWER], [ENERGY, POWER]]))
    rows = draw(st.integers(1, 4))
    cells = rows * len(numbers)
    codes = draw(st.lists(st.sampled_from([0, 0, 1, 2]), min_size=cells, max_size=cells))
    start = SLOT + draw(st.integers(0, 12))
    values = draw(st.lists(st.integers(0, 9), min_size=cells, max_size=cells))
    return block(start, numbers, [5 * value for value in values], codes)


@settings(
    deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(batches=st.lists(st.lists(any_block(), min_size=1, max_size=3), min_size=1, max_size=8))
def test_whatever_comes_a_point_has_one_value_per_slot_and_the_first_one(
    tmp_path_factory: pytest.TempPathFactory, batches: list[list[Block]]
) -> None:
    brain = Brain(tmp_path_factory.mktemp("brain"), KEYS)
    forger = Forger(KEYS, POLICY)
    brain.take(KEYS, forger.sheet_message())
    model: dict[tuple[int, int, int], int] = {}
    for parts in batches:
        cells = [
            ((SHORT_S, int(part.numbers[column]), part.slot + int(row)), part.mantissa[row, column])
            for part in parts
            for row, column in zip(*np.nonzero(part.quality != NO_VALUE), strict=True)
        ]
        keys = [key for key, _ in cells]
        free = len(set(keys)) == len(keys) and not set(keys) & set(model)
        outcome = brain.take(KEYS, forger.batch(*parts))
        assert outcome.counts == ({"kept": 1} if free else {"refused": 1})
        if free:
            model.update({key: int(value) for key, value in cells})
    assert kept(brain) == model
    brain.close()


# Faults.


def test_a_batch_that_meets_an_unforeseen_fault_is_refused_alone(
    brain: Brain, forger: Forger, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin(brain, forger)
    messages = [forger.batch(energy(at, 1)) for at in range(3)]
    calls = iter([True, False, True])
    real = batch.decode

    def decode(data: bytes) -> list[Block]:
        if next(calls):
            return real(data)
        raise ZeroDivisionError("never foreseen")

    monkeypatch.setattr(batch, "decode", decode)
    outcome = brain.take(KEYS, *messages)
    assert outcome.counts == {"kept": 2, "refused": 1}
    receipt = brain.receipt_of(KEYS, outcome)
    assert [(one.head.sequence, one.code) for one in receipt.refused] == [(1, NOT_A_BATCH)]
    monkeypatch.undo()
    assert energies(brain) == {0: 1, 2: 1}


def test_a_fault_half_way_through_a_batch_leaves_nothing_of_it(
    brain: Brain, forger: Forger, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin(brain, forger)
    monkeypatch.setattr(
        brain.ledger, "keep", lambda *_: (_ for _ in ()).throw(RuntimeError("half way"))
    )
    assert brain.take(KEYS, forger.batch(energy(0, 1))).counts == {"refused": 1}
    monkeypatch.undo()
    assert brain.take(KEYS, forger.batch(energy(0, 2))).counts == {"kept": 1}
    assert energies(brain) == {0: 2}


UNUSED = stream_id(KEYS.pin, 3600)
LAST = (1 << 63) - 1
"""The largest number that the decoder lets through, and that the ledger can keep."""


def loss_up_to(last: int, stream: int) -> bytes:
    loss = Loss(KEYS.address, NOW, 1, stream, 0, last, bytes(32), REASON_REFUSED)
    return sign_statement(loss, KEYS.signing)


def test_no_number_that_an_agent_signs_stops_the_inbox(brain: Brain, forger: Forger) -> None:
    begin(brain, forger)
    assert brain.take(KEYS, loss_up_to(LAST, UNUSED)).counts == {"malformed": 1}
    assert brain.take(KEYS, loss_up_to(LAST - 1, UNUSED)).counts == {"declared_lost": 1}
    forger.ends[1, UNUSED] = (LAST, bytes(32))
    assert brain.take(KEYS, forger.batch(energy(0, 1), stream=UNUSED)).counts == {"malformed": 1}
    for name in ("epoch", "stream", "policy_version", "issued_at", "purpose"):
        message = forger.batch(energy(0, 1), advance=False, **{name: LAST})
        assert not brain.take(KEYS, message).counts["unforeseen"]
    brain.inbox.look()


def test_a_statement_that_meets_an_unforeseen_fault_is_discarded_alone(
    brain: Brain, forger: Forger, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin(brain, forger)

    def fault(*_: object) -> None:
        raise ZeroDivisionError("never foreseen")

    monkeypatch.setattr(brain.ledger.record, "keep_loss", fault)
    messages = [forger.batch(energy(0, 1)), loss_up_to(3, UNUSED), forger.batch(energy(1, 1))]
    outcome = brain.take(KEYS, *messages)
    assert outcome.counts == {"kept": 2, "unforeseen": 1}
    assert energies(brain) == {0: 1, 1: 1}


def test_old_batches_that_no_longer_open_do_not_stop_the_inbox(
    brain: Brain, forger: Forger
) -> None:
    """After a change of the brain's key, a fill cannot be compared with what was there before."""
    other = Forger(OTHER)
    begin(brain, forger, forger.batch(energy(0, 1), block(SLOT + 1, [ENERGY], [0], [2])))
    brain.take(OTHER, other.sheet_message())
    fill, free = forger.batch(energy(1, 1)), forger.batch(energy(9, 1))
    brain.close()
    # Kept bytes that no key opens any more.
    brain.open()
    brain.ledger._db.execute(
        "UPDATE batch SET sealed = ? WHERE cells > 0",
        (forger.batch(energy(30, 1), advance=False)[:-9],),
    )
    topics = [(KEYS.address.topic("up"), fill), (KEYS.address.topic("up"), free)]
    outcome = brain.inbox.process([*topics, (OTHER.address.topic("up"), other.batch(energy(0, 1)))])
    assert outcome.counts == {"refused": 1, "kept": 2}


def test_a_factory_that_changed_its_officers_does_not_stop_the_inbox(
    brain: Brain, forger: Forger
) -> None:
    begin(brain, forger, forger.batch(energy(0, 1)))
    brain.close()
    card = KEYS.agent_card.model_copy(
        update={"officers": [signing_key("new officer").public], "threshold": 1}
    )
    known = brain.factories[KEYS.address]
    brain.factories[KEYS.address] = dataclasses.replace(known, card=card)
    brain.open()
    other = Forger(OTHER)
    outcome = brain.inbox.process(
        [
            (OTHER.address.topic("up"), other.sheet_message()),
            (KEYS.address.topic("up"), forger.batch(energy(1, 1))),
            (OTHER.address.topic("up"), other.batch(energy(0, 1))),
        ]
    )
    # What the old officers signed in their time stays good.
    assert outcome.counts == {"kept": 3}


def test_one_agents_faults_do_not_touch_another(brain: Brain, forger: Forger) -> None:
    other = Forger(OTHER)
    begin(brain, forger)
    outcome = brain.inbox.process(
        [
            (UP, b"garbage"),
            (OTHER.address.topic("up"), other.sheet_message()),
            (UP, forger.batch(block(SLOT, [ENERGY], [7]))),
            (OTHER.address.topic("up"), other.batch(energy(0, 1))),
            (UP, forger.batch(energy(0, 1))),
        ]
    )
    assert outcome.counts == {"malformed": 1, "kept": 3, "refused": 1}
    assert brain.receipt_of(OTHER, outcome).refused == ()
    mine = brain.receipt_of(KEYS, outcome)
    assert isinstance(mine, Receipt)
    assert [one.code for one in mine.refused] == [BEYOND_SHEET]
    assert mine.address == KEYS.address


def test_a_factory_whose_card_is_gone_is_unknown(brain: Brain, forger: Forger) -> None:
    begin(brain, forger)
    del brain.factories[KEYS.address]
    assert brain.take(KEYS, forger.batch(energy(0, 1))).counts == {"unknown_agent": 1}


# The whole way, over a broker that loses, doubles and reorders.


@settings(
    deadline=None, max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(seed=st.randoms(use_true_random=False))
def test_over_any_broker_every_released_value_ends_up_once_and_both_sums_agree(
    tmp_path_factory: pytest.TempPathFactory, seed: Any
) -> None:
    folder = tmp_path_factory.mktemp("way")
    agent, brain = Agent(folder / "agent", KEYS, POLICY), Brain(folder / "brain", KEYS)
    agent.start()
    expected: dict[int, int] = {}
    for turn in range(12):
        values = [seed.randrange(9) for _ in range(seed.randrange(1, 4))]
        agent.release(energy(10 * turn, *values))
        expected |= {10 * turn + at: value for at, value in enumerate(values)}
        sent = [one for one in agent.waiting() for _ in range(seed.choice([0, 1, 1, 2]))]
        if seed.random() < 0.4:
            seed.shuffle(sent)
        for group in (sent[:3], sent[3:]):
            answers = brain.take(KEYS, *group).answers
            for _, signed in answers:
                if seed.random() < 0.6:
                    agent.settle(signed)
    for _ in range(3):
        for _, signed in brain.take(KEYS, *agent.waiting()).answers:
            agent.settle(signed)
    tally = agent.spool.tally()
    assert (tally.waiting_batches, tally.refused) == (0, 0)
    assert tally.acknowledged == tally.released == len(expected)
    assert energies(brain) == expected
    agent.spool.close()
    brain.close()
