"""The statement: what left of a day, in plain words, and what the brain says it has deleted."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest
from typer.testing import CliRunner

from agent.policy_cli import app
from agent.released import Ended
from security.answers import Erased, Erasure, sign_answer
from security.policy.bundle import TrustedPolicy, read_bundle, sign_bundle
from security.policy.compiler import compile_policy
from tests.small_factory import (
    ENERGY,
    NOW,
    POWER,
    STATE,
    Agent,
    Brain,
    block,
    policy_text,
    signed_policy,
)
from tests.unit.test_audit import KEYS, SLOT, audit_key, config

__all__ = ["audit_key", "config"]

DAY = datetime.fromtimestamp(NOW).astimezone().date()


def left(folder: Path) -> Agent:
    """Two slots of energy and power and one of a state left and were received; one more waits."""
    brain = Brain(folder / "brain", KEYS)
    agent = Agent(folder / "data", KEYS, signed_policy(KEYS))
    agent.start()
    agent.release(block(SLOT, [ENERGY, POWER], [[5, -3], [10, 0]], [[0, 0], [0, 2]]))
    for _, answer in brain.take(KEYS, *agent.waiting()).answers:
        agent.settle(answer)
    brain.close()
    states = [STATE + part for part in range(9)]
    agent.release(block(SLOT + 2, states, [[1, 50, 0, 0, 0, 0, 0, 0, 0]]))
    return agent


def run(*arguments: object) -> str:
    done = CliRunner().invoke(app, ["statement", *map(str, arguments)])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.output


def test_a_day_is_told_in_plain_words(config: Path, audit_key: Path, tmp_path: Path) -> None:
    left(tmp_path).spool.close()
    said = run(config, "--key", audit_key, "--day", DAY)
    assert f"What left the factory of {DAY}" in said
    assert "12 values left, of 11 numbers, to brain, for carbon emission" in said
    assert "received: 1 message" in said
    assert "waiting: 1 message" in said
    assert "every 5 s: 2 values (0 slots without), 0.05 kWh … 0.10 kWh, together 0.15 kWh" in said
    assert "1 value (1 slot without)" in said
    assert "Nothing else left." in said


def test_versions_of_one_day_are_told_apart_and_how_they_ended(
    config: Path, audit_key: Path, tmp_path: Path
) -> None:
    agent = Agent(tmp_path / "data", KEYS, coarser(1, "0.05"))
    agent.start()
    agent.release(block(SLOT, [ENERGY], [[5], [10]]))
    agent.spool.close()
    agent = Agent(tmp_path / "data", KEYS, coarser(2, "1"))
    agent.start()
    agent.release(block(SLOT + 2, [ENERGY], [[3], [4]]))
    for ended in (Ended.EXPIRED, Ended.STOPPED):
        agent.sealer.ended = ended
        agent.sealer.restore(1)
    agent.spool.close()
    said = run(config, "--key", audit_key, "--day", DAY)
    assert "4 values left, of 1 number, to brain" in said
    assert "under policy versions 1 and 2." in said
    assert "(policy 1), every 5 s: 2 values (0 slots without), 0.05 kWh … 0.10 kWh" in said
    assert "(policy 2), every 5 s: 2 values (0 slots without), 3 kWh … 4 kWh, together 7" in said
    assert "policy version 2 had expired; the brain was told so." in said
    assert "an officer had stopped policy version 2; the brain was told so." in said
    assert "missing" not in said


def coarser(version: int, step: str) -> TrustedPolicy:
    """Return a policy in which energy leaves in such steps."""
    text = policy_text(KEYS, version)
    energy, *others = text.point
    assert energy.release is not None
    release = energy.release.model_copy(update={"round": Decimal(step)})
    points = [energy.model_copy(update={"release": release}), *others]
    bundle = sign_bundle(compile_policy(text.model_copy(update={"point": points})), KEYS.officers)
    return read_bundle(bundle, [key.public for key in KEYS.officers], 2)


def test_the_page_holds_the_same_and_no_local_name(
    config: Path, audit_key: Path, tmp_path: Path
) -> None:
    left(tmp_path).spool.close()
    page = tmp_path / "statement.html"
    run(config, "--key", audit_key, "--day", DAY, "--html", page)
    written = page.read_text("utf-8")
    assert "0.15 kWh" in written
    assert "meter-1" in written
    assert "holding:" not in written
    assert "<script" not in written


def test_a_day_of_which_nothing_left_says_so(config: Path, audit_key: Path, tmp_path: Path) -> None:
    left(tmp_path).spool.close()
    assert "Nothing left of this day" in run(
        config, "--key", audit_key, "--day", DAY - timedelta(days=3)
    )


def test_the_brains_word_on_what_it_deleted_is_told_and_a_strangers_is_not(
    config: Path, audit_key: Path, tmp_path: Path
) -> None:
    agent = left(tmp_path)
    erased = Erasure(KEYS.address, NOW + 5, (Erased(1, 2, 0, 6, bytes(32)),))
    agent.spool.keep_erasure(erased, sign_answer(erased, KEYS.receipt))
    agent.spool.keep_erasure(erased, sign_answer(erased, KEYS.officers[0]))
    agent.spool.close()
    said = run(config, "--key", audit_key, "--day", DAY)
    assert said.count("has deleted 7 messages") == 1


def test_yesterday_is_the_default_and_a_typo_is_told(
    config: Path, audit_key: Path, tmp_path: Path
) -> None:
    left(tmp_path).spool.close()
    yesterday = (datetime.now(UTC).astimezone() - timedelta(days=1)).date()
    assert str(yesterday) in run(config, "--key", audit_key)
    with pytest.raises(Exception, match="not a day"):
        run(config, "--key", audit_key, "--day", "yesterday")
