"""Fuzzing: no crash, bounded memory, and nothing is decrypted before it is verified.

CI makes 20,000 inputs; `--fuzz 1000000` makes a million, and so does `python -m tests.tools.fuzz`.
"""

import random
from pathlib import Path

import pytest

from tests.small_factory import ENERGY, NOW, SHORT_S, Brain, Forger, Keys, block, signed_policy
from tests.tools.fuzz import MEMORY, READERS, changed, corpus, fuzz

KEYS = Keys()


@pytest.mark.timeout(7200)
def test_whatever_comes_is_refused_within_bounded_memory(request: pytest.FixtureRequest) -> None:
    inputs = request.config.getoption("--fuzz")
    result = fuzz(inputs, request.config.getoption("--seed"))
    assert sum(result.outcomes.values()) == inputs
    assert {name.split(":")[0] for name in result.outcomes} == set(READERS)
    assert result.grown < MEMORY


def test_the_same_seed_makes_the_same_inputs() -> None:
    material = corpus()["message"]
    once, again = (
        [changed(material[0], material, chance) for _ in range(50)]
        for chance in (random.Random(5), random.Random(5))
    )
    assert once == again
    assert len(set(once)) > 40


@pytest.mark.timeout(7200)
def test_nothing_is_decrypted_kept_or_answered_before_it_is_verified(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    brain, forger = Brain(tmp_path, KEYS), Forger(KEYS, signed_policy(KEYS))
    brain.take(KEYS, forger.sheet_message())
    real = [
        forger.batch(block(NOW // SHORT_S + at, [ENERGY], [5]), advance=False) for at in range(4)
    ]
    opened: list[object] = []
    monkeypatch.setattr("aggregator.inbox.open_sealed", lambda *args: opened.append(args))
    chance = random.Random(request.config.getoption("--seed"))
    others = [*real, *corpus()["statement"], *corpus()["attestation"]]
    rows = brain.ledger._db.total_changes
    size = brain.ledger.record.size()
    for _ in range(request.config.getoption("--fuzz") // 1000):
        group = [changed(chance.choice(others), others, chance) for _ in range(64)]
        outcome = brain.take(KEYS, *[one for one in group if one not in real])
        assert outcome.answers == []
        assert outcome.kept == 0
    assert opened == []
    assert brain.ledger.record.size() == size
    assert brain.ledger._db.total_changes > rows  # the counters
    brain.close()
