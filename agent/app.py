"""The agent's process: every task is born here, named, in one TaskGroup."""

import asyncio
import contextlib
import logging
import resource
import signal
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from agent.asking import Asker
from agent.attest import Attester
from agent.collect import Collector
from agent.config import AgentConfig, pin_of
from agent.disk import SpoolThread
from agent.gateside import GateSide
from agent.registry import Registry
from agent.released import Link
from agent.sealedside import SealedSide, Sealer
from agent.spool import Spool
from agent.uplink import Uplink
from protocols.frame import SECOND
from protocols.language import tr
from protocols.status import serving
from protocols.version import VERSION
from security.keys import AttestationKey, SigningKey, load_key_file
from security.policy.bundle import (
    NoPolicy,
    TrustedPolicy,
    keep_enforced,
    load_policy,
    read_enforced,
)
from security.policy.gate import Gate

_FLUSH_S: Final = 5.0
_POLICY_POLL_S: Final = 2.0

_log = logging.getLogger(__name__)


def usable_policy(config: AgentConfig, registry: Registry) -> TrustedPolicy:
    """Return the policy that may be enforced now.

    Raises:
        NoPolicy: with one plain line that says why nothing leaves.
    """
    version, policy_hash = registry.last_policy()
    policy = load_policy(
        config.policy.file,
        config.policy.officers,
        config.policy.threshold,
        now_s=time.time_ns() // SECOND,
        last_version=version,
        last_hash=policy_hash,
        last=read_enforced(_enforced(config), policy_hash),
        widen_threshold=config.policy.widen_threshold,
        agent_version=VERSION,
    )
    for terms in policy.policy.consumers:
        card = config.consumers.get(terms.encryption_key)
        if card is None or pin_of(card.receipt_key.public) != terms.receipt_key:
            raise NoPolicy(
                tr(
                    f"nothing leaves: no card has the two keys that the policy pins for {terms.id}",
                    f"不放行任何数据：没有名片同时具有策略为 {terms.id} 指定的两个密钥",
                ),
                where=str(config.path),
                remedy=tr(
                    "give the right card under [[consumer]], or have the policy signed for it",
                    "请在 [[consumer]] 中给出正确的名片，或为其签署策略",
                ),
            )
    return policy


def _enforced(config: AgentConfig) -> Path:
    return config.spool.folder / "policy.enforced"


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


class Agent:
    """One agent with one policy."""

    def __init__(
        self, config: AgentConfig, policy: TrustedPolicy, spool: Spool, epoch: int
    ) -> None:
        address = config.identity.address
        self._config = config
        self._policy = policy
        self._epoch = epoch
        self._spool = spool
        self._thread = SpoolThread()
        self.collectors = [Collector(device, time.time_ns) for device in config.devices]
        tables = {collector.table.device: collector.table for collector in self.collectors}
        self.gate = Gate(policy.policy, tables, time.time_ns)
        link = Link()
        gate_key = load_key_file(config.identity.gate_key, "aes256")
        self.gate_side = GateSide(self.gate, policy, gate_key, address, link)
        signer = SigningKey(load_key_file(config.identity.signing_key, "ed25519"))
        sealer = Sealer(
            spool, policy, config.consumers, signer, config.policy.audit_key, address, time.time_ns
        )
        attestation = AttestationKey(load_key_file(config.identity.attestation_key, "mldsa65"))
        cards = [config.consumers[terms.encryption_key] for terms in policy.policy.consumers]
        self.uplink = Uplink(
            spool,
            config.broker,
            address,
            [card.receipt_key for card in cards],
            config.spool.archive_bytes,
            self._thread,
            sealer.sheet_again,
            Asker(spool, address, signer, sealer.streams(), time.time_ns),
            Attester(
                spool,
                address,
                (signer, attestation),
                (policy.policy.version, policy.hash),
                time.time_ns,
            ),
        )
        self.sealed_side = SealedSide(
            sealer,
            spool,
            config.spool,
            link,
            self._thread,
            self.uplink.wake,
            self.uplink.heads_known,
        )

    async def run(self, end: asyncio.Event, stop: asyncio.Event) -> None:
        """Run until `end`; then release what is closed, and end.

        When it is the end of the process (`stop`), what waits is delivered for a few seconds.
        """
        for line in self.gate.suspended:
            _log.warning("%s", line)
        async with asyncio.TaskGroup() as group:
            uplink = group.create_task(self.uplink.run(), name="uplink")
            sealed = group.create_task(self.sealed_side.run(self._epoch, end), name="sealed-side")
            await self.gate_side.restore()
            release = group.create_task(self.gate_side.release(end), name="release")
            feed = group.create_task(self.gate_side.take_frames(), name="gate")
            collecting = [
                group.create_task(collector.run(self.gate_side.put, end), name=f"collect-{number}")
                for number, collector in enumerate(self.collectors)
            ]
            await end.wait()
            for task in (*collecting, feed):
                task.cancel()
            await asyncio.wait([release])
            sealed.cancel()
            if stop.is_set():
                await self.uplink.flush(_FLUSH_S)
            uplink.cancel()
        self._thread.shutdown()

    async def report(self) -> dict[str, Any]:
        """Return what `agent status` shows."""
        tally = await self._thread.call(self._spool.tally)
        policy = self._policy.policy
        uplink = self.uplink.state
        return {
            "policy": {
                "version": policy.version,
                "hash": self._policy.hash.hex(),
                "valid_until": policy.valid_until,
                "in_force": self.gate.in_force,
            },
            "epoch": self._epoch,
            "suspended": self.gate.suspended,
            "devices": [self._device(collector) for collector in self.collectors],
            "outputs": asdict(tally),
            "broker": {"connected": uplink.connected, "receipts": uplink.receipts},
        }

    def _device(self, collector: Collector) -> dict[str, Any]:
        table = collector.table
        released = self.gate.released_points(table.device)
        book = self.gate.accounts[table.device]
        return {
            "id": table.device,
            "kind": table.kind,
            "connected": collector.state.connected,
            "fault": collector.state.fault,
            "losses": collector.state.losses,
            "age_s": collector.age_s(),
            "notes": collector.notes(),
            "released": [p.id for p, out in zip(table.points, released, strict=True) if out],
            "withheld": [p.id for p, out in zip(table.points, released, strict=True) if not out],
            "account": book.as_dict(),
        }


@asynccontextmanager
async def stop_on_signals() -> AsyncGenerator[asyncio.Event, None]:
    """Give an event that SIGTERM or SIGINT sets."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    try:
        yield stop
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)


async def run(config: AgentConfig) -> None:
    """Run the agent until SIGTERM or SIGINT.

    Without a policy that may be enforced nothing leaves, one line says why, and the file is
    looked at again until there is one.
    """
    # A core dump would write raw values to disk.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    registry = Registry(config.spool.folder / "registry.json")
    problem: dict[str, Any] = {}
    agent: Agent | None = None

    async def report() -> dict[str, Any]:
        return await agent.report() if agent is not None else problem

    async with stop_on_signals() as stop, serving(config.socket, report):
        policy = await _await_policy(config, registry, stop, problem)
        if policy is None:
            return
        spool = Spool(config.spool.folder / "spool.db")
        try:
            epoch = open_epoch(registry, spool)
            while policy is not None and not stop.is_set():
                registry.enforce(policy.policy.version, policy.hash, time.time_ns() // SECOND)
                # After the registry: of the hash that it knows, no signature is asked for again.
                await asyncio.to_thread(keep_enforced, _enforced(config), policy.policy)
                agent = Agent(config, policy, spool, epoch)
                policy = await _run_until_new_policy(agent, config, registry, policy, stop)
        finally:
            spool.close()
            registry.close()


async def _run_until_new_policy(
    agent: Agent,
    config: AgentConfig,
    registry: Registry,
    policy: TrustedPolicy,
    stop: asyncio.Event,
) -> TrustedPolicy | None:
    """Run the agent; return the policy to go on with, None at the end."""
    end = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        watch = group.create_task(_watch_policy(config, registry, policy, stop, end), name="policy")
        await agent.run(end, stop)
        end.set()
        return await watch


async def _watch_policy(
    config: AgentConfig,
    registry: Registry,
    policy: TrustedPolicy,
    stop: asyncio.Event,
    end: asyncio.Event,
) -> TrustedPolicy | None:
    """End the run when it must stop, or when the officer has signed a newer policy.

    A file that may not be enforced changes nothing: one line says why, the old one goes on.
    """
    seen = await asyncio.to_thread(_signature, config.policy.file)
    while not (stop.is_set() or end.is_set()):
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_POLICY_POLL_S):
                await stop.wait()
        now = await asyncio.to_thread(_signature, config.policy.file)
        if now == seen or now is None or stop.is_set():
            continue
        seen = now
        try:
            newer = await asyncio.to_thread(usable_policy, config, registry)
        except NoPolicy as fault:
            _log.error(
                "%s",
                tr(
                    f"version {policy.policy.version} stays in force: {fault}",
                    f"继续执行版本 {policy.policy.version}：{fault}",
                ),
            )
            continue
        if newer.hash != policy.hash:
            _log.info(
                "%s",
                tr(
                    f"policy version {newer.policy.version} is enforced from now on",
                    f"自此执行策略版本 {newer.policy.version}",
                ),
            )
            end.set()
            return newer
    end.set()
    return None


def _signature(path: Path) -> tuple[int, int, int] | None:
    """Return what changes when a file is replaced; None while there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


async def _await_policy(
    config: AgentConfig, registry: Registry, stop: asyncio.Event, problem: dict[str, Any]
) -> TrustedPolicy | None:
    said = ""
    while not stop.is_set():
        try:
            return usable_policy(config, registry)
        except NoPolicy as fault:
            if str(fault) != said:
                said = str(fault)
                _log.error("%s", said)
            problem.update({"policy": None, "problem": said})
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_POLICY_POLL_S):
                await stop.wait()
    return None
