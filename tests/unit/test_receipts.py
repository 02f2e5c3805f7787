"""Old receipts go where a later one of the same hour says as much; evidence stays whole."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from aggregator.receipts import KEPT_DAYS, Thinning
from security.answers import Receipt, read_answer
from tests.small_factory import (
    ENERGY,
    HOURLY,
    LONG_S,
    NOW,
    SHORT_S,
    Brain,
    Forger,
    Keys,
    block,
)

KEYS = Keys()
SLOT = NOW // SHORT_S - 1000
LATER_S = NOW + (KEPT_DAYS + 1) * 86_400
MINUTE, HOUR = 60, 3600


@pytest.fixture
def brain(tmp_path: Path) -> Iterator[Brain]:
    opened = Brain(tmp_path, KEYS)
    yield opened
    opened.close()


def heads(brain: Brain) -> list[list[tuple[int, int]]]:
    """Return (stream, sequence) of the heads of every receipt that is kept."""
    found = []
    for _, _, _, signed in brain.ledger.record.old_receipts(0, 1 << 40, 1000):
        answer = read_answer(signed, KEYS.address, [KEYS.receipt.public])
        assert isinstance(answer, Receipt)
        found.append([(head.stream, head.sequence) for head in answer.heads])
    return found


def test_the_last_receipt_of_every_chain_and_hour_stays(brain: Brain) -> None:
    forger = Forger(KEYS)
    brain.clock = NOW // HOUR * HOUR
    brain.take(KEYS, forger.sheet_message())
    (sheet,) = heads(brain)
    slow = block(NOW // LONG_S - 9, [HOURLY], [7])
    brain.take(KEYS, forger.batch(slow, stream=forger.long))
    for at in range(5):
        brain.clock += 20 * MINUTE
        brain.take(KEYS, forger.batch(block(SLOT + at, [ENERGY], [5])))
    thinning = Thinning(brain.ledger, KEYS.receipt.public)
    assert thinning.go_on(NOW) == 0
    assert thinning.go_on(LATER_S) == 3
    # The slow chain's only receipt is older than others of its hour, and needed all the same.
    fast = [[(forger.short, at)] for at in (1, 4)]
    assert heads(brain) == [sheet, [(forger.long, 0)], *fast]
    assert thinning.go_on(LATER_S) == 0
    assert Thinning(brain.ledger, KEYS.receipt.public).go_on(LATER_S) == 0


def test_one_that_names_a_refusal_stays_and_so_does_what_another_key_signed(brain: Brain) -> None:
    forger = Forger(KEYS)
    brain.take(KEYS, forger.sheet_message())
    for _ in range(2):  # the second is refused: its slot is taken
        brain.take(KEYS, forger.batch(block(SLOT, [ENERGY], [5])))
    brain.take(KEYS, forger.batch(block(SLOT + 1, [ENERGY], [5])))
    before = heads(brain)
    assert Thinning(brain.ledger, Keys("other").signing.public).go_on(LATER_S) == 0
    assert Thinning(brain.ledger, KEYS.receipt.public).go_on(LATER_S) == 1
    kept = heads(brain)
    assert len(kept) == len(before) - 1
    assert [(forger.short, 1)] in kept
    assert [(forger.short, 0)] not in kept
