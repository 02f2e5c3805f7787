"""Keys are replaced and ended while real processes run: by place in the chain, and within a minute."""

import asyncio
import sqlite3
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import pytest

from agent.config import AgentConfig, read_config
from agent.keys_cli import app as keys_app
from agent.listed_keys import next_key, ours, read_list
from aggregator.alarms import REVOKED_KEY
from aggregator.config import read_config as read_brain
from aggregator.ledger import Ledger
from protocols.broker import BrokerConfig
from protocols.mqtt import Mqtt, connection
from security import envelope
from security.cards import read_brain_card
from security.key_list import KeyList
from security.keys import SigningKey, load_signing_key
from simulators.demo import Mill
from tests.mill_folder import call
from tests.servers.mosquitto import HOST, running
from tests.system.mills import MOSQUITTO, edit, kept, replay_mill, until

PROMISED_S: Final = 60
FAR: Final = 1000
"""So many places ahead nothing is kept for its turn."""

pytestmark = pytest.mark.timeout(240)


@dataclass
class Watched:
    """A mill whose agent sends ten rows a second, and a look at what the brain has of it."""

    mill: Mill
    config: AgentConfig

    async def keys(self, command: str, *arguments: object) -> None:
        """Run `millgate keys ...` with the officer's key."""
        officer = self.mill.agent_toml.parent / "keys" / "officer.key"
        words = (command, self.mill.agent_toml, *arguments, "--key", officer)
        done = await asyncio.to_thread(call, *words, room=keys_app)
        assert done.exit_code == 0, done.output or done.exception

    async def rotate(self) -> SigningKey:
        """Give the agent a new key, and return it once the agent signs with it."""
        await self.keys("rotate")
        new = load_signing_key(next_key(self.config))
        says = f"key {new.public.kid.hex()[:8]} signs from now on"
        log = self.mill.folder / "agent.log"
        await until(lambda: says in log.read_text("utf-8"), 60, self.mill)
        return new

    async def sealed(self, more: int = 5) -> None:
        """Wait until the agent has sealed some more values."""
        start = await self._sealed()
        while await self._sealed() < start + more:
            self.mill.check_alive()
            await asyncio.sleep(0.1)

    async def _sealed(self) -> int:
        outputs = (await self.mill.inside() or {}).get("outputs") or {}
        return int(outputs.get("acknowledged", 0)) + int(outputs.get("waiting", 0))

    def kept(self) -> list[envelope.Sealed]:
        return kept(self.mill)

    def newest(self) -> envelope.Sealed:
        return next(one for one in reversed(self.kept()) if one.content_type == envelope.BATCH)

    def has_of(self, key: SigningKey) -> bool:
        """the brain has batches of the new key"""
        return self.newest().signed.kid == key.public.kid

    def count(self, name: str) -> int:
        ledger = Ledger(read_brain(self.mill.aggregator_toml).ledger)
        try:
            return ledger.counters().get(name, 0)
        finally:
            ledger.close()

    def alarms(self) -> list[tuple[str, int]]:
        ledger = Ledger(read_brain(self.mill.aggregator_toml).ledger)
        try:
            return [(one.kind, one.last) for one in ledger.record.all_alarms(None, 100)]
        finally:
            ledger.close()

    def list_at_brain(self) -> KeyList | None:
        (factory,) = read_brain(self.mill.aggregator_toml).factories().values()
        return factory.key_list

    def forged(self, key: SigningKey) -> tuple[int, bytes]:
        """Return a batch that a thief signs with a key of the agent's for a place to come."""
        padded = envelope.pad(b"forged", 64)
        brain = read_brain_card(self.mill.folder / "brain" / "brain.card")
        known = self.newest().header
        header = replace(
            known, sequence=known.sequence + FAR, commitment=envelope.commitment(padded)
        )
        keys = [brain.encryption_key, self.config.policy.audit_key]
        return header.sequence, envelope.seal(header, padded, key, keys)

    async def publish(self, thief: Mqtt, message: bytes, counter: str) -> None:
        """Send a message to the brain until a counter says that it came; within a minute."""
        before = await asyncio.to_thread(self.count, counter)
        async with asyncio.timeout(PROMISED_S):
            while await asyncio.to_thread(self.count, counter) == before:
                thief.publish(self.config.identity.address.topic("up"), message)
                await asyncio.sleep(0.2)


@asynccontextmanager
async def watched(folder: Path) -> AsyncIterator[tuple[Watched, Mqtt]]:
    """Run a mill, and let somebody else in at its broker."""
    with running(folder / "mosquitto", MOSQUITTO) as broker:
        async with replay_mill(folder, broker, "mqtt311", "--generate", "8000") as (mill, _):
            edit(mill.agent_toml, 'interval = "0s"', 'interval = "100ms"')
            await mill.start("aggregator")
            await mill.start("agent", ready=False)
            place = BrokerConfig(host=HOST, port=broker.port)
            async with connection(place, "thief", []) as thief:
                found = Watched(mill, read_config(mill.agent_toml))
                await until(lambda: bool(found.kept()), 60, mill)
                await found.sealed()
                await thief.connected.wait()
                yield found, thief


async def test_keys_are_replaced_and_ended_by_place_while_agent_and_brain_run(
    tmp_path: Path,
) -> None:
    async with watched(tmp_path) as (site, thief):
        mill = site.mill
        first = load_signing_key(site.config.identity.signing_key)

        # The brain is away while the key is replaced and the old one ended.
        await mill.stop("aggregator")
        before = len(await asyncio.to_thread(site.kept))
        await site.sealed()
        second = await site.rotate()
        await site.sealed()
        kid = first.public.kid
        await site.keys("revoke", kid.hex()[:8], "--why", "compromised")
        await mill.start("aggregator")
        await until(lambda: site.has_of(second), PROMISED_S, mill)
        await until(lambda: getattr(site.list_at_brain(), "number", 0) == 2, PROMISED_S, mill)
        _, listed = read_list(site.config)
        assert listed == site.list_at_brain()
        assert listed is not None
        found = await asyncio.to_thread(site.kept)
        check_one_chain_each(found, listed)
        # What the first key had signed before its end came afterwards, and was taken.
        assert [one.signed.kid for one in found[before:]].count(kid) > 0
        sequence, forged = site.forged(first)
        await site.publish(thief, forged, REVOKED_KEY)
        assert (REVOKED_KEY, sequence) in site.alarms()

        # All run; two keys count side by side until one is ended.
        third = await site.rotate()
        await until(lambda: site.has_of(third), PROMISED_S, mill)
        sequence, forged = site.forged(second)
        await site.publish(thief, forged, "out_of_order")
        began = time.monotonic()
        await site.keys("revoke", second.public.kid.hex()[:8], "--why", "compromised")
        await site.publish(thief, forged, REVOKED_KEY)
        print(f"refused {time.monotonic() - began:.1f} s after the officer's command")
        assert (REVOKED_KEY, sequence) in site.alarms()
        # At its own place an old message still counts, and gets its receipt again.
        early = next(one for one in found if one.signed.kid == kid)
        await site.publish(thief, raw(site, early), "replayed")

        await site.sealed()
        await mill.stop("agent")
        await mill.stop("aggregator")
        found = await asyncio.to_thread(site.kept)
        _, listed = read_list(site.config)
        assert listed is not None
        assert [record.key for record in listed.records if record.until is None] == [third.public]
        check_one_chain_each(found, listed)
        assert site.count("refused") == 0
        assert ours(site.config)[-1].public == third.public


def raw(site: Watched, sealed: envelope.Sealed) -> bytes:
    """Return a message's bytes as the brain keeps them."""
    path = read_brain(site.mill.aggregator_toml).ledger
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as ledger:
        row = ledger.execute("SELECT sealed FROM batch WHERE digest=?", (sealed.digest,)).fetchone()
    return bytes(row[0])


def check_one_chain_each(found: list[envelope.Sealed], listed: KeyList) -> None:
    """Nothing is missing from any chain, and each message has a key that counts at its place."""
    records = {record.key.kid: record for record in listed.records}
    chains: dict[tuple[int, int], list[int]] = {}
    for one in found:
        header = one.header
        chains.setdefault((header.epoch, header.stream), []).append(header.sequence)
        assert records[one.signed.kid].covers((header.epoch, header.stream, header.sequence))
    for sequences in chains.values():
        assert sequences == list(range(len(sequences)))
