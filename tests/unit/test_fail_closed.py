"""Fail closed: each rule by which nothing leaves, as a test of that name.

Here are those about files, keys and clocks (1, 4, 6, 7, 8). A second exception in a day and strange readings
(2, 3) are in test_suspended.py; what the two sides know and reach (5) in system/test_sides.py and
system/test_two_services.py; full disks and lost counters (8) in test_spool.py and test_gate_memory.py.
"""

import asyncio
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from agent import clock as clock_module
from agent.authority import Authority, usable_policy
from agent.clock import LARGEST_JUMP_NS, STEADY_NS, ClockWatch
from agent.config import AgentConfig, Identity, PolicySource, SpoolConfig, pin_of
from agent.gateside import Verdict
from agent.kept_clock import KeptClock
from agent.registry import Registry
from agent.released import Ended
from protocols.broker import BrokerConfig
from protocols.frame import SECOND
from protocols.moments import utc_words
from security.cards import BrainCard
from security.keys import OpeningKey, SigningKey
from security.policy.bundle import NoPolicy, PolicyEnded, sign_bundle, write_bundle
from security.policy.compiled import CompiledPolicy, content_hash, to_bytes
from security.policy.fresh import Fresh, fresh_path, read_fresh, sign_fresh, write_fresh
from security.policy.stop import Stop, sign_stop, stop_path, write_stop
from security.secret import Secret
from tests.unit.gate_material import Clock, frame, policy
from tests.unit.policy_material import officer
from tests.unit.test_gate_side import (
    OWNER,
    RULES,
    Sealed,
    feed,
    feed_now,
    gate_in,
    running,
    side_of,
    trusted,
    until,
)

DAY_S = 86400
BRAIN = OpeningKey(Secret(b"\x01" * 32))
CARD = BrainCard(
    card="millgate-brain/1",
    name="brain",
    encryption_key=BRAIN.public,
    receipt_key=officer(7).public,
)
PIN = pin_of(BRAIN.public.public)
NOW_S = Clock().ns // SECOND


@dataclass
class Factory:
    """An agent's files, and a clock that is moved by hand."""

    folder: Path
    config: AgentConfig
    registry: Registry
    s: int = NOW_S

    @property
    def file(self) -> Path:
        return self.config.policy.file

    def now(self) -> int:
        return self.s * SECOND

    def sign(self, what: CompiledPolicy, *keys: SigningKey) -> bytes:
        signed = sign_bundle(what, keys or [officer(1)])
        write_bundle(self.file, signed)
        return signed

    def authority(self) -> Authority:
        return Authority(self.config, self.registry, self.now)

    def trusted_state(self) -> dict[str, bytes]:
        """Return everything on disk that later loading could trust."""
        return {
            str(path.relative_to(self.folder)): path.read_bytes()
            for path in sorted(self.folder.rglob("*"))
            if path.is_file() and path != self.file and not path.name.startswith(".")
        }


def compiled(version: int, previous: bytes = bytes(32), **changes: Any) -> CompiledPolicy:
    made = policy(RULES)
    terms = made.consumers[0].model_copy(
        update={"encryption_key": PIN, "receipt_key": pin_of(CARD.receipt_key.public)}
    )
    base = {
        "version": version,
        "previous": previous,
        "consumers": [terms],
        "valid_from": NOW_S - DAY_S,
        "valid_until": NOW_S + 30 * DAY_S,
    }
    return made.model_copy(update={**base, **changes})


def follow(what: CompiledPolicy, **changes: Any) -> CompiledPolicy:
    """Return the next version."""
    version = what.version + 1
    return compiled(version, content_hash(to_bytes(what)), **changes)


@pytest.fixture
def factory(tmp_path: Path) -> Iterator[Factory]:
    officers = [officer(1).public]
    source = PolicySource.model_construct(
        file=tmp_path / "policy.signed",
        officers=officers,
        threshold=1,
        widen_threshold=None,
        audit_key=BRAIN.public,
        max_stale=None,
        key_lifetime=None,
    )
    identity = Identity.model_construct(factory=b"f" * 16, agent=b"a" * 16)
    config = AgentConfig(
        path=tmp_path / "agent.toml",
        identity=identity,
        policy=source,
        brokers=(BrokerConfig(),),
        spool=SpoolConfig(folder=tmp_path / "data"),
        consumers={PIN: CARD},
        devices=[],
    )
    registry = Registry(tmp_path / "data" / "registry.json")
    yield Factory(tmp_path, config, registry)
    registry.close()


# Rule 1, 4: what may not be enforced is not, and leaves no trace.


def test_rollback_an_older_version_is_never_enforced_again_not_after_a_restart_either(
    factory: Factory,
) -> None:
    first = compiled(1)
    second = follow(first)
    old = factory.sign(first)
    authority = factory.authority()
    assert authority.look().policy is not None
    factory.sign(second)
    newer = authority.look().policy
    assert newer is not None
    assert newer.policy.version == 2
    write_bundle(factory.file, old)
    still = authority.look().policy
    assert still is not None
    assert still.policy.version == 2
    verdict = factory.authority().look()
    assert verdict.policy is None
    assert "older" in verdict.problem


def test_a_version_that_does_not_follow_the_one_before_is_not_enforced(factory: Factory) -> None:
    first = compiled(1)
    factory.sign(first)
    authority = factory.authority()
    authority.look()
    factory.sign(compiled(2, b"x" * 32))
    verdict = authority.look()
    assert verdict.policy is not None
    assert verdict.policy.policy.version == 1


@pytest.mark.parametrize("days", [-2, 30, 400])
def test_expiry_a_policy_outside_its_validity_is_not_enforced(factory: Factory, days: int) -> None:
    factory.sign(compiled(1))
    factory.s += days * DAY_S
    verdict = factory.authority().look()
    assert verdict.policy is None
    assert "expired or not yet valid" in verdict.problem


async def test_expiry_while_running_lets_nothing_more_leave(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock, sealed = Clock(), Sealed()
    side = side_of(clock)
    what = trusted()
    end_s = clock.ns // SECOND + 25
    from_ = {"valid_from": end_s - DAY_S, "valid_until": end_s}
    short = what.policy.model_copy(update=from_)
    side.want(side.wanted.__class__(what.__class__(short, what.hash, ())))
    async with running(side, sealed):
        await feed(side, clock, range(24))
        before = sealed.found
        await feed(side, clock, range(24, 60))
    assert sealed.found == before
    assert "expired" in caplog.text


def test_half_written_files_are_refused_at_every_length_and_leave_no_trace(
    factory: Factory,
) -> None:
    first = compiled(1)
    factory.sign(first)
    authority = factory.authority()
    authority.look()
    state = factory.trusted_state()
    whole = sign_bundle(follow(first), [officer(1)])
    for length in [*range(0, len(whole), 97), len(whole) - 1]:
        factory.file.write_bytes(whole[:length])
        verdict = authority.look()
        assert verdict.policy is not None
        assert verdict.policy.policy.version == 1
        with pytest.raises(NoPolicy):
            usable_policy(factory.config, factory.registry, factory.now)
    assert factory.trusted_state() == state


def test_a_rejected_file_leaves_no_trace_that_later_loading_could_trust(factory: Factory) -> None:
    """CVE-2020-15163: what was refused must not be what the next one is held against."""
    first = compiled(1)
    good = factory.sign(first)
    factory.authority().look()
    state = factory.trusted_state()
    rejected = [
        sign_bundle(follow(first), [officer(9)]),
        sign_bundle(compiled(9, b"x" * 32), [officer(1)]),
        sign_bundle(follow(first, valid_until=NOW_S - 1), [officer(1)]),
        b"\xa0",
    ]
    for bad in rejected:
        write_bundle(factory.file, bad)
        assert factory.authority().look().policy is None
        assert factory.trusted_state() == state
    # Where the bad ones had been believed, this would not follow.
    write_bundle(factory.file, good)
    assert factory.authority().look().policy is not None
    factory.sign(follow(first))
    found = factory.authority().look().policy
    assert found is not None
    assert found.policy.version == 2


def test_one_key_that_signs_twice_is_one_key(factory: Factory) -> None:
    factory.config.policy.officers.append(officer(2).public)
    object.__setattr__(factory.config.policy, "threshold", 2)
    factory.sign(compiled(1), officer(1), officer(1))
    assert factory.authority().look().policy is None
    factory.sign(compiled(1), officer(1), officer(2))
    assert factory.authority().look().policy is not None


# The one-touch stop.


def test_a_stop_stops_at_once_and_is_remembered_when_its_file_is_taken_away(
    factory: Factory,
) -> None:
    first = compiled(1)
    factory.sign(first)
    authority = factory.authority()
    assert not authority.look().stopped
    write_stop(factory.file, sign_stop(Stop(through=1, at=NOW_S), [officer(1)]))
    assert authority.look().stopped
    stop_path(factory.file).unlink()
    assert authority.look().stopped
    assert factory.authority().look().stopped
    factory.sign(follow(first))
    assert not authority.look().stopped


def test_a_spoilt_stop_halts_until_it_is_mended(factory: Factory) -> None:
    factory.sign(compiled(1))
    authority = factory.authority()
    stop_path(factory.file).write_bytes(b"half")
    verdict = authority.look()
    assert "stop" in verdict.halted
    assert not verdict.stopped
    stop_path(factory.file).unlink()
    assert authority.look().halted == ""


async def test_after_a_stop_nothing_leaves_and_no_later_rise_covers_its_time() -> None:
    clock, sealed = Clock(), Sealed()
    side = side_of(clock)
    async with running(side, sealed):
        await feed(side, clock, range(28))
        before = sealed.found
        assert before
        side.want(side.wanted.__class__(trusted(), stopped=True))
        await until(lambda: sealed.hellos[-1].ended is Ended.STOPPED and side.gate is not None)
        await feed(side, clock, range(28, 60))
        assert sealed.found == before
        book = gate_in(side).accounts["dev"]
        assert book.withheld >= 32
        side.want(side.wanted.__class__(trusted(2)))
        await until(lambda: len(sealed.hellos) == 3 and side.gate is not None)
        await feed(side, clock, range(60, 93))
    after = {at: cell for at, cell in sealed.found.items() if at not in before}
    # What the counter rose by between the last slot before the stop and the first after it is in none.
    assert after
    assert all(cell == (30, 0, 1) for cell in after.values())
    assert min(slot for _, slot in after) >= 6


# The end of a validity.


def test_a_policy_that_ended_while_the_agent_was_off_is_declared_and_enforces_nothing(
    factory: Factory,
) -> None:
    first = compiled(1)
    factory.sign(first)
    assert not factory.authority().look().expired
    factory.s = first.valid_until - 1
    assert not factory.authority().look().expired
    factory.s = first.valid_until
    state = factory.trusted_state()
    for _ in range(2):
        verdict = factory.authority().look()
        assert verdict.policy is not None
        assert verdict.ended is Ended.EXPIRED
        with pytest.raises(PolicyEnded):
            usable_policy(factory.config, factory.registry, factory.now)
    assert factory.trusted_state() == state
    # Another one that has ended was never enforced here: there is nothing to say of it.
    factory.sign(follow(first, valid_until=factory.s))
    assert factory.authority().look().policy is None


def test_readings_are_taken_over_only_from_a_policy_that_was_in_force_until_the_next(
    factory: Factory,
) -> None:
    first = compiled(1)
    factory.sign(first)
    before = factory.authority().look()
    second = follow(first, valid_until=first.valid_until + DAY_S)
    factory.s = first.valid_until - 1
    factory.sign(second)
    renewed = factory.authority().look()
    assert before.policy is not None
    assert renewed.policy is not None
    assert renewed.unbroken == frozenset({before.policy.hash, renewed.policy.hash})
    factory.s = second.valid_until
    factory.sign(follow(second, valid_until=factory.s + DAY_S))
    late = factory.authority().look()
    assert late.policy is not None
    assert late.unbroken == frozenset({late.policy.hash})


def test_after_a_stop_that_came_while_the_agent_was_off_no_readings_are_taken_over(
    factory: Factory,
) -> None:
    first = compiled(1)
    factory.sign(first)
    factory.authority().look()
    write_stop(factory.file, sign_stop(Stop(through=1, at=NOW_S), [officer(1)]))
    factory.sign(follow(first))
    verdict = factory.authority().look()
    assert verdict.policy is not None
    assert verdict.unbroken == frozenset({verdict.policy.hash})


@pytest.mark.parametrize("off", [False, True])
async def test_after_an_expiry_no_later_rise_covers_its_time(off: bool) -> None:
    clock, sealed = Clock(), Sealed()
    side = side_of(clock)
    async with running(side, sealed):
        await feed(side, clock, range(28))
        before = sealed.found
        if not off:
            side.want(Verdict(trusted(), expired=True))
            await until(lambda: sealed.hellos[-1].ended is Ended.EXPIRED and side.gate is not None)
            await feed(side, clock, range(28, 60))
            assert sealed.found == before
            assert gate_in(side).accounts["dev"].dropped["policy_ended"] > 0
            side.want(Verdict(trusted(2)))
            await until(lambda: len(sealed.hellos) == 3 and side.gate is not None)
            await feed(side, clock, range(60, 93))
    if off:
        side = side_of(clock)
        side.want(Verdict(trusted(2), unbroken=frozenset({trusted(2).hash})))
        clock.set(60)
        async with running(side, sealed):
            await feed(side, clock, range(60, 93))
    after = {at: cell for at, cell in sealed.found.items() if at not in before}
    assert before
    assert after
    assert all(cell == (30, 0, 1) for cell in after.values())
    assert min(slot for _, slot in after) >= 6


async def test_a_clock_that_is_not_believed_lets_no_validity_be_over() -> None:
    clock, sealed, running_s = Clock(), Sealed(), Clock()
    side = side_of(clock)
    side._clock = ClockWatch(clock, running_s)
    async with running(side, sealed):
        clock.set(10_000)
        side.step()
        side.want(Verdict(trusted(), expired=True))
        assert not side._is_to_change()
        assert not gate_in(side).in_force
        running_s.set(400)
        clock.set(10_400)
        side.step()
        side.want(Verdict(trusted(), expired=True))
        await until(lambda: sealed.hellos[-1].ended is Ended.EXPIRED)


# Rule 6: freshness.


def test_freeze_a_policy_that_no_officer_confirms_is_stopped_after_max_stale(
    factory: Factory,
) -> None:
    object.__setattr__(factory.config.policy, "max_stale", 7 * DAY_S * SECOND)
    what = compiled(1)
    factory.sign(what)
    authority = factory.authority()
    assert authority.look().halted == ""
    factory.s += 8 * DAY_S
    assert "max_stale" in authority.look().halted
    assert "max_stale" in factory.authority().look().halted
    hashed = content_hash(to_bytes(what))
    for bad in (
        b"half",
        sign_fresh(Fresh(policy=hashed, at=factory.s), [officer(9)]),
        sign_fresh(Fresh(policy=b"o" * 32, at=factory.s), [officer(1)]),
    ):
        write_fresh(factory.file, bad)
        assert "max_stale" in authority.look().halted
    write_fresh(factory.file, sign_fresh(Fresh(policy=hashed, at=factory.s), [officer(1)]))
    assert authority.look().halted == ""
    factory.s += 8 * DAY_S
    assert "max_stale" in authority.look().halted


# Rule 7: keys that nobody changes.


def test_key_expiry_a_key_in_use_for_two_lifetimes_stops_until_a_policy_pins_another(
    factory: Factory, caplog: pytest.LogCaptureFixture
) -> None:
    object.__setattr__(factory.config.policy, "key_lifetime", 90 * DAY_S * SECOND)
    first = compiled(1, valid_until=NOW_S + 900 * DAY_S)
    factory.sign(first)
    assert factory.authority().look().halted == ""
    factory.s += 89 * DAY_S
    # A new version with the same key, and a restart, make the key no younger.
    second = follow(first, valid_until=NOW_S + 900 * DAY_S)
    factory.sign(second)
    authority = factory.authority()
    assert authority.look().halted == ""
    assert "due for a change" not in caplog.text
    factory.s += 2 * DAY_S
    assert authority.look().halted == ""
    assert authority.look().halted == ""
    assert caplog.text.count("due for a change") == 1
    factory.s += 89 * DAY_S
    assert "key_lifetime" in authority.look().halted
    assert "key_lifetime" in factory.authority().look().halted
    other = OpeningKey(Secret(b"\x02" * 32)).public
    factory.config.consumers[pin_of(other.public)] = CARD
    terms = second.consumers[0].model_copy(update={"encryption_key": pin_of(other.public)})
    third = follow(second, valid_until=NOW_S + 900 * DAY_S, consumers=[terms])
    factory.sign(third)
    assert authority.look().halted == ""
    factory.s += 170 * DAY_S
    assert authority.look().halted == ""


def test_a_word_of_freshness_is_signed_whole(factory: Factory) -> None:
    word = Fresh(policy=b"h" * 32, at=5)
    signed = sign_fresh(word, [officer(1)])
    assert read_fresh(signed, [officer(1).public]) == word
    assert fresh_path(factory.file).parent == factory.folder


# Rule 8: the clock.


class Clocks:
    """A wall clock and the machine's running time, both moved by hand."""

    def __init__(self) -> None:
        self.wall = NOW_S * SECOND
        self.run = 1000 * SECOND

    def go(self, seconds: float, jump_ns: int = 0) -> None:
        self.run += round(seconds * SECOND)
        self.wall += round(seconds * SECOND) + jump_ns

    def watch(self, kept: KeptClock | None = None) -> ClockWatch:
        return ClockWatch(lambda: self.wall, lambda: self.run, kept=kept)


@pytest.mark.parametrize("jump_s", [600, -600, 365 * DAY_S, -365 * DAY_S, 121, -121])
def test_clock_jumps_forwards_and_backwards_stop_until_the_clock_goes_evenly(jump_s: int) -> None:
    clocks = Clocks()
    watch = clocks.watch()
    clocks.go(10)
    assert not watch.check()
    assert watch.fault == ""
    clocks.go(1, jump_s * SECOND)
    assert watch.check()
    assert "jumped" in watch.fault
    assert utc_words(clocks.wall // SECOND + 359) in watch.fault
    clocks.go(STEADY_NS / SECOND - 1)
    assert not watch.check()
    assert watch.fault
    clocks.go(2)
    assert not watch.check()
    assert watch.fault == ""


def test_slow_corrections_and_a_suspended_machine_are_no_jump() -> None:
    clocks = Clocks()
    watch = clocks.watch()
    for _ in range(100):
        clocks.go(3600, LARGEST_JUMP_NS // 100)
        assert not watch.check()


def test_many_small_jumps_are_one() -> None:
    clocks = Clocks()
    watch = clocks.watch()
    jumps = []
    for _ in range(4):
        clocks.go(1, 40 * SECOND)
        jumps.append(watch.check())
    assert any(jumps)


def test_a_lost_clock_stops_until_it_is_not_behind_what_was_released() -> None:
    clocks = Clocks()
    watch = clocks.watch()
    watch.committed(NOW_S + 3600)
    assert "behind" in watch.fault
    clocks.go(3600)
    watch.check()
    assert watch.fault == ""


@pytest.fixture
def kept(tmp_path: Path) -> KeptClock:
    return KeptClock(tmp_path)


@pytest.mark.parametrize("boot", ["one start", ""])
@pytest.mark.parametrize("jump_s", [121, 3600, -3600, 365 * DAY_S, -365 * DAY_S])
def test_a_clock_that_was_moved_while_the_agent_was_away_stops_until_it_goes_evenly(
    jump_s: int, boot: str, kept: KeptClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clock_module, "boot_id", lambda: boot)
    clocks = Clocks()
    clocks.run = 400 * DAY_S * SECOND
    clocks.watch(kept).keep()
    clocks.go(60, jump_s * SECOND)
    for _ in range(2):
        # Another restart makes it no better.
        watch = clocks.watch(kept)
        assert "jumped" in watch.fault
        clocks.go(STEADY_NS / SECOND - 1)
        watch.check()
        assert watch.fault
        watch.keep()
    clocks.go(2)
    watch.check()
    assert watch.fault == ""
    watch.keep()
    assert clocks.watch(kept).fault == ""


@pytest.mark.parametrize("boots", [("one start", "another"), ("", "")])
def test_a_machine_that_was_started_anew_makes_no_jump(
    boots: tuple[str, str], kept: KeptClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    clocks = Clocks()
    for boot in boots:
        monkeypatch.setattr(clock_module, "boot_id", lambda boot=boot: boot)
        watch = clocks.watch(kept)
        assert watch.fault == ""
        watch.keep()
        clocks.wall += 5 * DAY_S * SECOND
        # It has been up for longer now than it had been then.
        clocks.run = 2 * DAY_S * SECOND


@pytest.mark.parametrize("text", ["", "{", "[]", '{"boot": "", "wall_ns": "x", "running_ns": 1}'])
def test_a_kept_clock_that_cannot_be_read_is_none(text: str, tmp_path: Path) -> None:
    kept = KeptClock(tmp_path)
    assert kept.read() is None
    (tmp_path / "gate").mkdir()
    (tmp_path / "gate" / "clock.json").write_text(text)
    assert kept.read() is None
    assert Clocks().watch(kept).fault == ""


def test_what_the_disk_does_not_take_ends_nothing(tmp_path: Path) -> None:
    (tmp_path / "gate").write_text("no folder")
    kept = KeptClock(tmp_path)
    Clocks().watch(kept).keep()
    assert kept.read() is None


async def test_a_clock_jump_while_running_drops_open_windows_and_releases_nothing() -> None:
    clock, sealed = Clock(), Sealed()
    running_ns = Clock()
    side = side_of(clock)
    side._clock = ClockWatch(clock, lambda: running_ns.ns)
    async with running(side, sealed):
        for s in range(25):
            running_ns.set(s)
            await feed(side, clock, range(s, s + 1))
        before = sealed.found
        clock.set(25 + 3600)
        running_ns.set(25)
        side.step()
        assert not gate_in(side).in_force
        for s in range(26, 60):
            clock.set(s + 3600)
            running_ns.set(s)
            side.step()
            gate_in(side).feed(frame(OWNER, s + 3600, {"energy": 3 * s}))
    assert sealed.found == before


async def test_a_spool_with_a_later_time_than_now_lets_nothing_leave(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock, sealed = Clock(), Sealed()
    sealed.at = clock.ns // SECOND + DAY_S
    side = side_of(clock)
    with caplog.at_level(logging.ERROR):
        async with running(side, sealed):
            feed_now(side, clock, range(30))
            side.step()
            await asyncio.sleep(0.05)
    assert sealed.found == {}
    assert "behind" in caplog.text
