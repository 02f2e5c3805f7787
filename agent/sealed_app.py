"""The sealed side's process: released slots in, sealed batches to disk and broker.

It holds the signing key. It has no code that speaks to a device, never holds the gate key, and knows
of the policy only the release sheets that the officers signed.
"""

import argparse
import asyncio
import logging
import os
import time
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, Final

from agent.asking import Asker
from agent.attest import Attester
from agent.clock import ClockWatch
from agent.config import AgentConfig, for_sealed_side, read_sealed
from agent.disk import SpoolThread
from agent.kept_clock import KeptClock
from agent.limits import largest_message
from agent.link import LinkLost, SealedLink, sealed_end
from agent.listed_keys import ListedSigner
from agent.process import Links, alone, given_links, listened_links, main
from agent.registry import Registry
from agent.released import Ended, Hello
from agent.renewal import keep_renewed
from agent.reserve import Reserve
from agent.sealedside import NotOurs, SealedSide, Sealer, Sheets, verified
from agent.spool import Spool
from agent.upkeep import Upkeep, delivery_ages
from agent.uplink import Duty, Uplink
from protocols.errors import MillgateError
from protocols.frame import SECOND
from protocols.heap import give_back, keep_lean
from protocols.language import tr
from protocols.status import serving
from protocols.strict_cbor import Malformed
from security.keys import AttestationKey
from security.policy.check import BeyondSheet

_FLUSH_S: Final = 5.0
_FAREWELL_S: Final = 2.0
_LAST_S: Final = 7.0
_KEYS_S: Final = 5.0
_MOST_SETTINGS: Final = 1 << 20

_log = logging.getLogger("agent.sealed_app")


class Breach(MillgateError):
    """The gate side said what it may not; this side ends and is started afresh."""


def open_epoch(registry: Registry, spool: Spool) -> int:
    """Return the epoch to run in: a new one when the spool has none yet, so that no chain forks.

    The newer of what registry and spool know counts, so that losing one of them is no harm.
    """
    known = int(spool.meta("epoch", 0))
    if known and known >= registry.epoch:
        return known
    epoch = max(registry.epoch, known) + 1
    registry.open_epoch(epoch, time.time_ns() // SECOND)
    return epoch


class SealedApp:
    """One sealed side. The spool is opened, and the broker met, with the first policy."""

    def __init__(self, config: AgentConfig, registry: Registry, links: Links) -> None:
        self._config = config
        self._registry = registry
        self._links = links
        self._stop = links.stop
        self._signer = ListedSigner(config)
        attestation = config.identity.load(config.identity.attestation_key, "mldsa65")
        self._attestation = AttestationKey(attestation)
        self._thread = SpoolThread()
        self._spool: Spool | None = None
        self._uplink: Uplink | None = None
        self._epoch = 0
        self._version = 0
        self._sealer: Sealer | None = None
        self._told = b"", Ended.NOT
        self._ready = asyncio.Event()

    async def run(self) -> None:
        """Run until told to stop; then deliver for a few seconds what waits, and end."""
        try:
            async with asyncio.TaskGroup() as group:
                talk = group.create_task(self._talk(), name="sealed-side")
                uplink = group.create_task(self._deliver(), name="uplink")
                keys = group.create_task(self._watch_keys(), name="keys")
                upkeep = group.create_task(self._keep_up(), name="upkeep")
                certificate = group.create_task(keep_renewed(self._config), name="certificate")
                memory = group.create_task(keep_lean(), name="memory")
                await self._stop.wait()
                if self._links.watched and not self._links.at_once:
                    # The gate side's last message is still to come; then it ends the link.
                    await asyncio.wait([talk], timeout=_LAST_S)
                talk.cancel()
                if self._uplink is not None and not self._links.at_once:
                    await self._uplink.flush(_FLUSH_S)
                    await self._uplink.farewell(_FAREWELL_S)
                uplink.cancel()
                keys.cancel()
                upkeep.cancel()
                certificate.cancel()
                memory.cancel()
        finally:
            self._thread.shutdown()
            if self._spool is not None:
                self._spool.close()

    async def _deliver(self) -> None:
        await self._ready.wait()
        if self._uplink is not None:
            await self._uplink.run()

    async def _watch_keys(self) -> None:
        """Take over the key that the officers have listed, between two messages."""
        while True:
            await asyncio.sleep(_KEYS_S)
            if await self._thread.call(self._signer.look) and self._uplink is not None:
                self._uplink.announce(self._signer.signed)

    async def _keep_up(self) -> None:
        await self._ready.wait()
        if self._spool is not None and self._uplink is not None:
            clock = ClockWatch(
                steady_ns=self._config.clock.steady,
                kept=KeptClock(self._config.spool.folder / "clock.json"),
            )
            upkeep = Upkeep(
                self._spool, self._config.spool, self._thread, self._uplink.gave_up, clock
            )
            await upkeep.run()

    async def _talk(self) -> None:
        """Answer the gate side, on one link after the other."""
        while True:
            link = sealed_end(await self._links.next())
            try:
                await self._serve(link)
            except LinkLost:
                if self._stop.is_set():
                    return
            except (Malformed, NotOurs, BeyondSheet) as fault:
                raise Breach(
                    tr(
                        "the gate side said what it may not; nothing of it is kept",
                        "闸门侧发来不被允许的内容；未予保存",
                    ),
                    where=type(fault).__name__,
                ) from None
            finally:
                link.close()

    async def _serve(self, link: SealedLink) -> None:
        spool = self._config.spool
        side = SealedSide(
            spool.max_bytes,
            self._thread,
            self._enforce,
            self._wake,
            self._heads_known,
            self._gave_up if spool.when_full == "drop-oldest" else None,
        )
        await side.serve(link, self._stop)

    async def _enforce(self, hello: Hello) -> tuple[Sealer, int]:
        """Go on under the policy that the gate side enforces, if its officers signed it.

        Raises:
            NotOurs: when they did not, or it is older than one that was enforced before.
        """
        config = self._config
        source = config.policy
        told = hello.policy_hash, hello.ended
        if self._sealer is not None and told == self._told:
            return self._sealer, self._epoch
        sheets = await asyncio.to_thread(
            verified, hello, source.officers, source.threshold, config.consumers
        )
        spool = await self._thread.call(self._open)
        if sheets.version < await self._thread.call(spool.meta, "policy_version", 0):
            raise NotOurs("an older policy than before")
        await self._thread.call(spool.set_meta, {"policy_version": sheets.version})
        sealer = Sealer(
            spool,
            sheets,
            config.consumers,
            self._signer,
            source.audit_key,
            config.identity.address,
            time.time_ns,
            ended=hello.ended,
            largest=partial(largest_message, spool, config.brokers),
        )
        self._go_on(spool, sealer, sheets)
        self._sealer, self._told, self._version = sealer, told, sheets.version
        del sheets
        give_back()
        return sealer, self._epoch

    def _go_on(self, spool: Spool, sealer: Sealer, sheets: Sheets) -> None:
        """Deliver under these sheets; the first ones begin delivery."""
        config, address = self._config, self._config.identity.address
        cards = [config.consumers[sheet.sheet.consumer] for sheet in sheets.sheets]
        policy, streams = (sheets.version, sheets.hash), sealer.streams()
        duty = Duty(
            [card.receipt_key for card in cards],
            sealer.sheet_again,
            Asker(spool, address, self._signer, streams, time.time_ns),
            Attester(
                spool, address, (self._signer, self._attestation), policy, time.time_ns, [*streams]
            ),
            sealer.ended is Ended.STOPPED,
        )
        if self._uplink is None:
            self._uplink = Uplink(spool, config, self._thread, duty)
            self._uplink.announce(self._signer.signed)
            self._ready.set()
        else:
            self._uplink.enforce(duty)

    async def _heads_known(self, seconds: float) -> None:
        if self._uplink is not None:
            await self._uplink.heads_known(seconds)

    def _open(self) -> Spool:
        if self._spool is None:
            folder, reserved = self._config.spool.folder, self._config.spool.reserve_bytes
            if reserved:
                self._thread.reserve = Reserve(folder / "reserve", reserved)
            self._spool = self._thread.open(folder / "spool.db")
            if self._thread.reserve is not None:
                self._thread.reserve.take()
            self._epoch = open_epoch(self._registry, self._spool)
        return self._spool

    def _gave_up(self) -> None:
        if self._uplink is not None:
            self._uplink.gave_up()

    def _wake(self) -> None:
        if self._uplink is not None:
            self._uplink.wake()

    async def report(self) -> dict[str, Any]:
        """Return what `agent status` shows of this side."""
        if self._spool is None or self._uplink is None or self._sealer is None:
            return {}
        tally = await self._thread.call(self._spool.tally)
        state = self._uplink.state
        return {
            "epoch": self._sealer.epoch or self._epoch,
            "outputs": asdict(tally),
            "broker": {
                "connected": state.connected,
                "fault": state.fault,
                "silent_s": round(self._uplink.silent_s()),
                "quarantined": self._uplink.quarantined,
                "receipts": state.receipts,
                "place": self._config.brokers[state.broker].place,
                "preference": state.broker + 1,
                "brokers": len(self._config.brokers),
                "changes": state.changes,
                "too_large": state.too_large,
            },
            "brain_clock": self._uplink.brain_clock.report(),
            "delivery": await self._thread.call(delivery_ages, self._spool, time.time_ns()),
            "sealed_policy": {
                "version": self._version,
                "stopped": self._told[1] is Ended.STOPPED,
                "expired": self._told[1] is Ended.EXPIRED,
            },
        }


async def run(arguments: argparse.Namespace) -> None:
    """Run the sealed side."""
    given = arguments.settings
    settings = (
        os.pread(given, _MOST_SETTINGS, 0)
        if given is not None
        else await asyncio.to_thread(for_sealed_side, arguments.config)
    )
    config = await asyncio.to_thread(read_sealed, settings)
    with alone(config.spool.folder, watched=arguments.control is not None):
        await _run(arguments, config)


async def _run(arguments: argparse.Namespace, config: AgentConfig) -> None:
    registry = Registry(config.spool.folder / "registry.json")
    source = (
        listened_links(arguments.listen, arguments.gate_uid)
        if arguments.listen is not None
        else given_links(arguments.control)
    )
    try:
        async with source as links:
            app = SealedApp(config, registry, links)
            async with serving(arguments.status or config.socket, app.report):
                await app.run()
    finally:
        registry.close()


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m agent.sealed_app", description=__doc__)
    settings = parser.add_mutually_exclusive_group(required=True)
    settings.add_argument("--settings", type=int, help="inherited file with its part of agent.toml")
    settings.add_argument("--config", type=Path, help="agent.toml without any device")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--control", type=int, help="inherited control socket")
    source.add_argument("--listen", type=Path, help="socket to listen on for the gate side")
    parser.add_argument("--gate-uid", type=int, default=os.getuid(), help="the gate side's user")
    parser.add_argument("--status", type=Path, help="socket that tells how it does")
    parser.add_argument("--parent", type=int, default=0, help="the supervisor")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    found = parse()
    main(run(found), parent=found.parent)
