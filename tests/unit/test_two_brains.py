"""Two brains behind one broker, each with its own streams: neither is sent what it may have otherwise
already, neither waits for the other, and what waits for one is not lost by the answer of the other.

The uplink, sealer and spool are the shipped ones, as are both inboxes; only the broker is left out.
"""

import asyncio
import hashlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Final, cast

import pytest

from agent.asking import Asker
from agent.attest import MOST_AT_ONCE, Attester
from agent.chains import Missing
from agent.config import AgentConfig, Identity, PolicySource, SpoolConfig
from agent.disk import SpoolThread
from agent.lanes import due
from agent.uplink import Duty, Uplink
from aggregator.alarms import EPOCH_UNEXPLAINED, EQUIVOCATION, SILENCE
from aggregator.inbox import sheet_pin
from protocols.broker import MAX_MESSAGE, BrokerConfig
from protocols.frame import SECOND
from protocols.mqtt import Mqtt
from security.cards import BrainCard
from security.policy.bundle import read_bundle, sign_bundle
from security.policy.compiler import compile_policy
from security.policy.language import PolicyText
from security.policy.streams import own_streams, stream_id
from security.statements import ATTEST_S, Loss, parse_statement
from tests.small_factory import (
    ENERGY,
    NOW,
    POWER,
    SHORT_S,
    Agent,
    Brain,
    Keys,
    block,
    opening_key,
    policy_source,
    signing_key,
)
from tests.unit.delivery_material import SLOT, kept_slots

KEYS: Final = Keys()
OTHER: Final = "another brain"
CARD: Final = BrainCard(
    card="millgate-brain/1",
    name="other",
    encryption_key=opening_key(OTHER).public,
    receipt_key=signing_key(OTHER).public,
)
PIN: Final = sheet_pin(CARD.encryption_key.public)
SHORT: Final = stream_id(PIN, SHORT_S)
SHEETS: Final = stream_id(PIN, 0)


def _policy() -> PolicyText:
    source = policy_source(KEYS)
    (first,) = source["consumer"]
    receipt = hashlib.sha256(CARD.receipt_key.public).hexdigest()
    other = {"encryption_key": f"sha256:{PIN.hex()}", "receipt_key": f"sha256:{receipt}"}
    source["consumer"].append({**first, "id": "other", **other})
    (power,) = [one for one in source["point"] if one["number"] == POWER]
    power["consumer"] = "other"
    return PolicyText.model_validate(source)


POLICY: Final = read_bundle(
    sign_bundle(compile_policy(_policy()), KEYS.officers), [key.public for key in KEYS.officers], 2
)


class Mill:
    """An agent and its uplink, and the topic that both brains read.

    Attributes:
        sent: what the broker still holds for a brain that is away.
    """

    largest = MAX_MESSAGE
    place = "test"

    def __init__(self, folder: Path) -> None:
        self.agent = Agent(folder, KEYS, POLICY, CARD)
        self.agent.number = self.agent.sealer.resume(1).number
        self.sent: list[bytes] = []
        spool, sealer = self.agent.spool, self.agent.sealer
        clock = (lambda: NOW * SECOND,)
        self.asker = Asker(spool, KEYS.address, KEYS.signing, sealer.streams(), *clock)
        keys = KEYS.signing, KEYS.attestation
        streams = [*sealer.streams()]
        self.attester = Attester(spool, KEYS.address, keys, (1, bytes(32)), *clock, streams)
        config = AgentConfig(
            path=Path("agent.toml"),
            identity=Identity.model_construct(
                factory=KEYS.address.factory, agent=KEYS.address.agent
            ),
            policy=PolicySource.model_construct(),
            brokers=(BrokerConfig.model_validate({"host": "127.0.0.1", "port": 1}),),
            spool=SpoolConfig(),
            consumers={},
            devices=[],
        )
        trusted = [KEYS.receipt.public, CARD.receipt_key]
        duty = Duty(trusted, sealer.sheet_again, self.asker, self.attester)
        self.uplink = Uplink(spool, config, SpoolThread(), duty)

    def publish(self, topic: str, payload: bytes, **_: object) -> None:
        if topic.endswith("/up"):
            self.sent.append(payload)

    def power(self, *slots: int) -> None:
        for slot in slots:
            self.agent.release(block(SLOT + slot, [POWER], [slot]), stream=SHORT)

    def energy(self, *slots: int) -> None:
        for slot in slots:
            self.agent.release(block(SLOT + slot, [ENERGY], [5 * slot]))

    def talk(self, *brains: Brain) -> list[bytes]:
        """Connect, and let these brains hear all until nothing is left to say; return what was sent."""
        return asyncio.run(self._talk(brains))

    async def _talk(self, brains: tuple[Brain, ...]) -> list[bytes]:
        link = cast("Mqtt", self)
        all_sent: list[bytes] = []
        await self.uplink._begin(link)
        while True:
            await self.uplink._speak(link)
            sent, self.sent = self.sent, []
            if not sent:
                return all_sent
            all_sent += sent
            for brain in brains:
                for _, answer in brain.take(KEYS, *sent).answers:
                    await self.uplink._take(link, answer)

    def attest(self) -> None:
        self.attester.attest_now()
        self.uplink._attest_at = 0.0

    def begin_the_epoch_that_is_due(self) -> None:
        assert self.agent.sealer.epoch_due
        self.agent.number = self.agent.sealer.resume(1).number

    def copied(self, folder: Path) -> "Mill":
        """Return an agent that runs from a copy of this disk as it is now."""
        self.agent.spool.db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        folder.mkdir()
        shutil.copy(self.agent.spool._path, folder / "spool.db")
        return Mill(folder)


@pytest.fixture
def brains(tmp_path: Path) -> Iterator[tuple[Brain, Brain]]:
    for name in ("main", "other"):
        (tmp_path / name).mkdir()
    pair = Brain(tmp_path / "main", KEYS), Brain(tmp_path / "other", KEYS, name=OTHER)
    yield pair
    for brain in pair:
        brain.close()


def alarms(brain: Brain) -> set[str]:
    """Return the kinds of open alarms."""
    return {one.kind for one in brain.ledger.record.alarms(1)}


def losses(brain: Brain) -> list[tuple[int, int, int, int]]:
    found = []
    for signed in brain.ledger.record.losses(1, 0, 1 << 40):
        loss = parse_statement(signed)[1]
        assert isinstance(loss, Loss)
        if loss.stream in (SHORT, SHEETS):
            found.append((loss.epoch, loss.stream, loss.first, loss.last))
    return sorted(found)


def begun(folder: Path, brains: tuple[Brain, Brain]) -> Mill:
    mill = Mill(folder)
    mill.energy(0)
    mill.power(0)
    mill.talk(*brains)
    assert [kept_slots(one) for one in brains] == [[0], [0]]
    return mill


def gone_another_way(folder: Path, brains: tuple[Brain, Brain]) -> Mill:
    """Return an old copy that went on by itself, of a mill from which both brains have more."""
    mill = begun(folder / "a", brains)
    copy = mill.copied(folder / "b")
    mill.energy(1)
    mill.power(1, 2)
    mill.talk(*brains)
    copy.energy(7)
    copy.power(7)
    return copy


def test_each_brain_gets_its_own_and_its_word_counts_for_its_own_only(
    tmp_path: Path, brains: tuple[Brain, Brain]
) -> None:
    mill = begun(tmp_path / "a", brains)
    mill.energy(1)
    mill.power(1)
    # The other one reads all that is sent and passes over what is not its own.
    mill.talk(brains[1])
    tally = mill.agent.spool.tally()
    assert (tally.waiting, tally.refused) == (1, 0)
    mill.talk(*brains)
    assert [kept_slots(one) for one in brains] == [[0, 1], [0, 1]]
    assert mill.agent.spool.tally().acknowledged == 4


def test_what_is_meant_for_one_brain_leaves_nothing_at_the_other_but_a_count(
    tmp_path: Path, brains: tuple[Brain, Brain], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    mill = begun(tmp_path / "a", brains)
    mill.energy(1, 2)
    mill.power(1, 2)
    # So much the other one keeps, when a loss of another one's chain is declared before it.
    (loss,) = mill.asker.losses([Missing(1, SHORT, 0, 0, bytes(32))])
    assert brains[0].take(KEYS, loss).answers == []
    mill.talk(*brains)
    for brain in brains:
        brain.clock += ATTEST_S
        brain.inbox.look()
        pin = sheet_pin(brain.encryption.public.public)
        heads = brain.ledger.record.heads(1, 512)
        assert {head.stream for head in heads} <= own_streams(pin)
        assert brain.ledger.totals(1)[2] == 0
        assert brain.ledger.counters()["not_for_us"] >= 3
        assert alarms(brain) == {SILENCE}
    # Once an hour for each agent; both brains log here.
    assert sum("sends to another brain too" in one for one in caplog.messages) == len(brains)


def test_an_attestation_is_kept_until_each_brain_has_it_and_one_that_is_away_holds_up_none_of_the_others(
    tmp_path: Path, brains: tuple[Brain, Brain]
) -> None:
    main, other = brains
    mill = begun(tmp_path / "a", brains)
    for _ in range(MOST_AT_ONCE + 3):
        mill.attest()
        mill.talk(main)
    newest, _ = main.ledger.record.attested(1)
    assert newest == MOST_AT_ONCE + 4
    assert other.ledger.record.attested(1)[0] == 1
    while len(mill.agent.spool.attestations(100)):
        before, _ = other.ledger.record.attested(1)
        mill.uplink._attest_at = 0.0
        mill.talk(*brains)
        assert other.ledger.record.attested(1)[0] > before
    assert other.ledger.record.attested(1)[0] == newest
    assert alarms(other) == alarms(main) == set()


def test_nothing_is_sent_in_the_streams_of_a_brain_that_has_not_answered_and_the_other_goes_on(
    tmp_path: Path, brains: tuple[Brain, Brain]
) -> None:
    main, other = brains
    mill = begun(tmp_path / "a", brains)
    copy = mill.copied(tmp_path / "b")
    mill.power(1, 2)
    mill.talk(*brains)
    # Sealed beside what the other brain has; nobody here knows that yet.
    copy.power(7)
    copy.energy(7)
    queued = copy.talk(main)
    assert kept_slots(main) == [0, 7]
    assert copy.asker.held >= {SHORT, SHEETS}
    other.take(KEYS, *queued)
    assert not other.ledger.record.quarantined(1)
    copy.talk(*brains)
    copy.begin_the_epoch_that_is_due()
    copy.energy(8)
    copy.power(8)
    copy.talk(*brains)
    assert [kept_slots(one) for one in brains] == [[0, 7, 8], [0, 1, 2, 8]]
    assert copy.agent.spool.tally().lost == 1
    assert not alarms(other) & {EQUIVOCATION, EPOCH_UNEXPLAINED}
    assert not copy.asker.held


def test_what_waits_for_a_brain_that_is_away_is_not_lost_when_another_one_ends_the_epoch(
    tmp_path: Path, brains: tuple[Brain, Brain]
) -> None:
    main, other = brains
    mill = begun(tmp_path / "a", brains)
    mill.power(1)
    copy = mill.copied(tmp_path / "b")
    mill.energy(1)
    mill.talk(main)
    copy.power(2)
    copy.energy(7)
    copy.talk(main)
    assert copy.agent.spool.tally().lost == 1
    copy.begin_the_epoch_that_is_due()
    copy.energy(8)
    copy.power(8)
    copy.talk(main)
    assert kept_slots(main) == [0, 1, 8]
    # A restart, while it is still away, changes nothing.
    copy.agent.spool.close()
    copy = Mill(tmp_path / "b")
    copy.power(9)
    copy.talk(*brains)
    assert kept_slots(other) == [0, 1, 2, 8, 9]
    assert not alarms(other) & {EQUIVOCATION, EPOCH_UNEXPLAINED}
    assert losses(other) == []
    assert not copy.agent.spool.waiting_bytes()


def test_both_brains_are_ahead_and_both_say_so_before_the_new_epoch_begins(
    tmp_path: Path, brains: tuple[Brain, Brain]
) -> None:
    copy = gone_another_way(tmp_path, brains)
    copy.talk(*brains)
    assert copy.agent.spool.tally().lost == 2
    copy.begin_the_epoch_that_is_due()
    copy.energy(8)
    copy.power(8)
    copy.talk(*brains)
    assert [kept_slots(one) for one in brains] == [[0, 1, 8], [0, 1, 2, 8]]
    assert not alarms(brains[1]) & {EQUIVOCATION, EPOCH_UNEXPLAINED}
    assert losses(brains[1]) == []


def test_a_brain_that_is_ahead_too_and_says_so_late_is_told_exactly_what_is_lost(
    tmp_path: Path, brains: tuple[Brain, Brain]
) -> None:
    main, other = brains
    copy = gone_another_way(tmp_path, brains)
    copy.talk(main)
    copy.begin_the_epoch_that_is_due()
    copy.power(8, 9)
    queued = copy.talk(main)
    other.take(KEYS, *queued)
    copy.talk(*brains)
    copy.power(10)
    copy.talk(*brains)
    # The first message said wrongly where the epoch before ended: it is not sent.
    assert losses(other) == [(2, SHORT, 0, 0)]
    assert kept_slots(other) == [0, 1, 2, 9, 10]
    assert not other.ledger.record.quarantined(1)
    assert not alarms(other) & {EQUIVOCATION, EPOCH_UNEXPLAINED}
    tally = copy.agent.spool.tally()
    assert (tally.lost, tally.given_up, tally.waiting_batches) == (2, 1, 0)


def test_a_brain_that_was_put_back_is_heard_while_the_other_is_away(
    tmp_path: Path, brains: tuple[Brain, Brain]
) -> None:
    main, _ = brains
    mill = begun(tmp_path / "a", brains)
    main.close()
    shutil.copy(main.path, tmp_path / "old.db")
    main.open()
    mill.energy(1, 2)
    mill.talk(*brains)
    mill.agent.spool.close()
    mill = Mill(tmp_path / "a")
    mill.power(3)
    mill.talk(main)
    assert mill.asker.held
    main.close()
    shutil.copy(tmp_path / "old.db", main.path)
    for tail in ("-wal", "-shm"):
        main.path.with_name(main.path.name + tail).unlink(missing_ok=True)
    main.open()
    mill.energy(4)
    # What does not fit its chain makes it hint, and so the agent asks anew.
    mill.talk(main)
    assert kept_slots(main) == [0, 1, 2, 4]
    mill.talk(*brains)
    assert [kept_slots(one) for one in brains] == [[0, 1, 2, 4], [0, 3]]


def test_a_stream_begins_a_new_epoch_when_nothing_of_the_one_before_waits(tmp_path: Path) -> None:
    mill = Mill(tmp_path)
    mill.power(0)
    first = {(one.chain, one.sequence) for one in due(mill.agent.spool, {})}
    assert ((1, SHORT), 0) in first
    mill.agent.number = mill.agent.sealer.restore(2).number
    mill.power(1)
    assert {one.chain[0] for one in due(mill.agent.spool, {})} == {1}
    held = {one.chain[1] for one in due(mill.agent.spool, {}, held={SHORT, SHEETS})}
    assert held
    assert not held & {SHORT, SHEETS}
