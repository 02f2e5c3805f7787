"""The brain's account: every batch is opened once, and what is not what came is named."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from aggregator import account
from aggregator.account import BrainAccount
from aggregator.config import AggregatorConfig
from aggregator.factors import Factors, shipped_sets
from aggregator.inbox import Opened, Opener
from aggregator.ledger import Ledger
from aggregator.projection import Cursor, Projection
from aggregator.stores import RowSpan, Store
from security.envelope import Sealed, digest, open_sealed
from security.keys import OpeningKey
from tests.small_factory import ENERGY, POWER, block
from tests.unit.test_projection import KEYS, SLOT, Way


@pytest.fixture
def way(tmp_path: Path) -> Iterator[Way]:
    opened = Way(tmp_path)
    yield opened
    opened.close()


def sent(way: Way, count: int) -> list[bytes]:
    messages = [
        way.forger.batch(block(SLOT + slot, [ENERGY, POWER], [5 * slot, slot]))
        for slot in range(count)
    ]
    assert way.brain.take(KEYS, *messages).counts == {"kept": count}
    way.follow()
    return messages


def compared(way: Way, monkeypatch: pytest.MonkeyPatch) -> BrainAccount:
    """Return what comparing ledger and stores finds."""

    def projection(
        _config: Any, factories: Any, opened: Opened, targets: Mapping[str, Store]
    ) -> Projection:
        ledger = Ledger(way.brain.path)
        opener = Opener(ledger, way.brain.encryption, opened)
        factors = Factors(shipped_sets(), "CN-ZJ", "")
        return Projection(ledger, opener, targets, factors, factories, Cursor(way.folder / "p"), "")

    monkeypatch.setattr(account, "make_projection", projection)
    monkeypatch.setattr(account, "read_factories", lambda _: way.brain.factories)
    brain = SimpleNamespace(opening=lambda: way.brain.encryption, factories=None)
    config = cast("AggregatorConfig", SimpleNamespace(ledger=way.brain.path, brain=brain))
    found = BrainAccount()
    account._compare(config, way.ledger, way.stores, found)
    return found


def test_each_batch_is_opened_once(way: Way, monkeypatch: pytest.MonkeyPatch) -> None:
    messages = sent(way, 70)  # more than are looked at together
    opened: list[bytes] = []

    def noted(sealed: Sealed, key: OpeningKey) -> bytes:
        opened.append(sealed.digest)
        return open_sealed(sealed, key)

    monkeypatch.setattr("aggregator.inbox.open_sealed", noted)
    found = compared(way, monkeypatch)
    assert sorted(opened) == sorted(map(digest, messages))
    assert (found.altered, found.differing) == (0, 0)
    (cells,) = found.cells.values()
    assert {one.point.number: len(one.mantissa) for one in cells} == {ENERGY: 70, POWER: 70}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("UPDATE batch SET sealed = substr(sealed, 1, 900) WHERE id = 3", "is altered"),
        ("UPDATE batch SET cells = cells + 1 WHERE id = 3", "is altered"),
        ("UPDATE batch SET digest = zeroblob(32) WHERE id = 3", "is altered"),
        ("UPDATE batch SET sealed = x'00' WHERE cells = 0", "message 0"),
        ("DELETE FROM batch WHERE id = 3", "gone"),
    ],
)
def test_a_batch_that_is_not_what_came_is_named(
    way: Way, monkeypatch: pytest.MonkeyPatch, change: str, said: str
) -> None:
    sent(way, 4)
    way.brain.ledger._db.execute(change)
    found = compared(way, monkeypatch)
    assert found.altered == 1
    assert said in found.first_altered


def test_a_row_that_the_stores_lack_is_named(way: Way, monkeypatch: pytest.MonkeyPatch) -> None:
    sent(way, 4)
    store = way.stores["future_factory"]
    (key, *_) = store.series("ff_energy")
    at = int(store.newest(key).time[0])
    store.delete_rows([RowSpan(key, at, at + 1)])
    found = compared(way, monkeypatch)
    assert (found.altered, found.differing) == (0, 1)
    assert "ff_energy" in found.first_differing
