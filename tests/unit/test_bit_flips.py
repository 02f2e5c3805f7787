"""Every bit of real messages turned, one at a time: nothing is kept, answered or changed.

CI turns a sample; `--all-bits` turns every one.
"""

import random
from pathlib import Path

import pytest

from security.statements import Attestation, ChainEnd, Loss, sign_attestation, sign_statement
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

KEYS = Keys()
POLICY = signed_policy(KEYS)
GROUP = 64
SAMPLE = 1500


def fingerprint(brain: Brain) -> list[object]:
    """Return all that the ledger holds but its counters."""
    db = brain.ledger._db
    tables = [row[0] for row in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    return [db.execute(f"SELECT * FROM {t}").fetchall() for t in tables if t != "counter"]  # noqa: S608 - names of our own tables


def messages(forger: Forger) -> dict[str, bytes]:
    """Return real messages, each of which would be taken next."""
    slot = NOW // SHORT_S
    small = block(slot, [ENERGY], [5])
    large = block(slot, [ENERGY, POWER], [[5 * at, at] for at in range(40)], None, {0: 3})
    return {
        "a small batch": forger.batch(small, advance=False),
        "a large batch": forger.batch(large, advance=False),
        "a sheet": forger.sheet_message(sequence=1, previous=forger.ends[1, _sheets(forger)][1]),
        "a loss": sign_statement(
            Loss(KEYS.address, NOW, 1, forger.short, 0, 2, b"x" * 32, 2), KEYS.signing
        ),
        "an attestation": sign_attestation(
            Attestation(
                KEYS.address,
                1,
                1,
                NOW,
                1,
                bytes(32),
                (0, bytes(32)),
                (ChainEnd(forger.short, 1, bytes(32)),),
            ),
            KEYS.signing,
            KEYS.attestation,
        ),
    }


def _sheets(forger: Forger) -> int:
    return next(stream for _, stream in forger.ends if stream != forger.short)


@pytest.mark.timeout(3600)
def test_a_message_with_any_bit_turned_changes_nothing(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    brain, forger = Brain(tmp_path, KEYS), Forger(KEYS, POLICY)
    brain.take(KEYS, forger.sheet_message())
    before = fingerprint(brain)
    everything = request.config.getoption("--all-bits")
    made = messages(forger)
    for message in made.values():
        bits = range(8 * len(message))
        chosen = (
            bits if everything else sorted(random.Random(1).sample(bits, min(SAMPLE, len(bits))))
        )
        for at in range(0, len(chosen), GROUP):
            outcome = brain.take(KEYS, *[turned(message, bit) for bit in chosen[at : at + GROUP]])
            assert outcome.answers == []
            assert set(outcome.counts) <= {"malformed", "bad_signature", "wrong_topic"}
            assert fingerprint(brain) == before
    for name, message in made.items():
        if name != "a large batch":
            counts = brain.take(KEYS, message).counts
            assert counts.keys() <= {"kept", "attested", "loss_out_of_order", "replayed"}
    brain.close()


def turned(message: bytes, bit: int) -> bytes:
    changed = bytearray(message)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)
