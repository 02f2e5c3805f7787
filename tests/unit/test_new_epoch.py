"""The way out for an agent whose clock was far ahead: a new epoch, by order, explained to the brain."""

import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from agent import epoch_cli
from agent.config import AgentConfig, ClockConfig
from agent.kept_clock import KeptClock, Standing
from agent.new_epoch import begin_new_epoch
from agent.registry import Registry
from agent.spool import Spool
from aggregator.alarms import CLOCK_AHEAD
from protocols.errors import MillgateError
from protocols.frame import SECOND
from protocols.running import boot_id, running_ns
from protocols.status import AlreadyRunning, only_one
from security.envelope import Before, parse
from tests.small_factory import ENERGY, NOW, SHORT_S, Agent, Brain, Keys, block, signed_policy

KEYS = Keys()
POLICY = signed_policy(KEYS)
FAR = 365 * 86_400


@pytest.fixture
def brain(tmp_path: Path) -> Iterator[Brain]:
    opened = Brain(tmp_path, KEYS)
    yield opened
    opened.close()


def config_of(folder: Path) -> AgentConfig:
    spool = SimpleNamespace(folder=folder)
    return cast("AgentConfig", SimpleNamespace(spool=spool, path=folder / "agent.toml"))


def deliver(agent: Agent, brain: Brain) -> None:
    for _, answer in brain.take(KEYS, *agent.waiting()).answers:
        agent.settle(answer)


def meta(folder: Path, key: str) -> Any:
    spool = Spool(folder / "spool.db")
    try:
        return spool.meta(key)
    finally:
        spool.close()


def test_an_agent_that_was_a_year_ahead_goes_on_in_a_new_epoch_that_says_where_the_old_one_ended(
    tmp_path: Path, brain: Brain
) -> None:
    folder = tmp_path / "a"
    agent = Agent(folder, KEYS, POLICY)
    agent.sealer._now = lambda: (NOW + FAR) * 10**9
    agent.start()
    agent.release(block((NOW + FAR) // SHORT_S, [ENERGY], [5]))
    deliver(agent, brain)
    agent.spool.set_meta({"at": NOW + FAR})
    ended = {stream: agent.spool.chain(1, stream) for stream in agent.spool.chains(1)}
    agent.spool.close()
    registry = Registry(folder / "registry.json")
    registry.open_epoch(1, NOW + FAR)

    with only_one(folder), pytest.raises(AlreadyRunning):
        begin_new_epoch(config_of(folder), NOW)
    assert begin_new_epoch(config_of(folder), NOW) == 2
    # Nothing on record is later than now: neither the gate's clock nor a checkup stays at fault.
    assert meta(folder, "at") == 0
    assert Registry(folder / "registry.json").newest_s == NOW

    again = Agent(folder, KEYS, POLICY)
    restored = again.sealer.resume(1)
    assert (restored.epoch, restored.number, restored.memory, restored.at) == (2, 0, b"", 0)
    again.release(block(NOW // SHORT_S, [ENERGY], [10]))
    for sealed in again.waiting():
        header = parse(sealed).header
        following, digest = ended[header.stream] or (0, b"")
        if header.sequence == 0:
            assert header.before == Before(1, following, digest, 3)
    outcome = brain.take(KEYS, *again.waiting())
    assert outcome.counts["kept"] == len(again.waiting())
    known = brain.ledger.record.alarms(brain.ledger.agents()[KEYS.address])
    assert {one.kind for one in known} == {CLOCK_AHEAD}


@pytest.mark.parametrize("moved_s", [0, 3600])
def test_who_begins_a_new_epoch_is_told_at_once_whether_the_agent_will_wait_for_what_and_how_long(
    moved_s: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    config = config_of(tmp_path)
    cast("Any", config).clock = ClockConfig()
    before = Standing(boot_id(), time.time_ns() - moved_s * SECOND, running_ns())
    KeptClock(tmp_path).write(before)
    monkeypatch.setattr(epoch_cli, "read_config", lambda _: config)
    agent = Agent(tmp_path, KEYS, POLICY)
    agent.start()
    agent.spool.set_meta({"released": 0})
    agent.spool.db.execute("DELETE FROM batch")
    agent.spool.close()
    epoch_cli.new_epoch(config.path)
    said = capsys.readouterr().out
    assert "epoch 2" in said
    assert ("nothing leaves for 5m" in said) is bool(moved_s)
    assert ("it does not wait" in said) is not bool(moved_s)


def test_a_new_epoch_is_refused_while_something_waits_or_nothing_was_released(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "a"
    with pytest.raises(MillgateError, match="nothing was released"):
        begin_new_epoch(config_of(folder), NOW)
    agent = Agent(folder, KEYS, POLICY)
    agent.start()
    agent.release(block(NOW // SHORT_S, [ENERGY], [5]))
    agent.spool.close()
    with pytest.raises(MillgateError, match="still wait"):
        begin_new_epoch(config_of(folder), NOW)
