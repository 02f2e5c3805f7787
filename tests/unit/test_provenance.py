"""Where rows come from: the batches behind them, and no others."""

from pathlib import Path

from aggregator.provenance import Provenance
from aggregator.stores import SeriesKey
from protocols.frame import SECOND
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
SLOT = NOW // SHORT_S


def test_of_many_batches_the_newest_of_this_very_series_are_named(tmp_path: Path) -> None:
    brain, forger = Brain(tmp_path, KEYS), Forger(KEYS)
    brain.take(KEYS, forger.sheet_message())
    energy = [forger.batch(block(SLOT - 9 + at, [ENERGY], [5])) for at in range(4)]
    others = [
        forger.batch(block(NOW // LONG_S - at, [HOURLY], [5]), stream=forger.long)
        for at in range(1, 4)
    ]
    messages = [*energy[:3], *others, energy[3]]
    assert brain.take(KEYS, *messages).counts == {"kept": len(messages)}
    origins = Provenance(brain.path, lambda: brain.factories)
    tags = {"enterprise_id": "mill", "site_id": "main", "equipment_id": "meter-1"}
    found = origins.of(SeriesKey.of("ff_energy", tags), 0, NOW * SECOND, 2)
    starts = [(SLOT - 9 + at) * SHORT_S for at in (2, 3)]
    assert [one.batch.start_s for one in found] == starts
    assert {point.number for one in found for point in one.points} >= {ENERGY}
    origins.close()
    brain.close()
