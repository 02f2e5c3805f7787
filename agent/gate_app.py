"""The gate side's process: devices in, released slots out to the sealed side, and nowhere else.

It can reach devices and holds the gate key. It has no code that speaks to a broker.
"""

import argparse
import asyncio
import contextlib
import logging
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from agent.authority import Authority
from agent.clock import ClockWatch
from agent.collect import Collector
from agent.config import AgentConfig, no_devices, read_config
from agent.devices import Devices
from agent.gateside import GateSide, Verdict, suspended_line
from agent.kept_clock import KeptClock
from agent.link import LinkLost, gate_end
from agent.process import Links, alone, connected_links, given_links, main
from agent.registry import Registry
from agent.reloading import unchangeable
from agent.suspended import Keeper, suspended_path
from agent.watched_files import WatchedFiles
from protocols.drivers import DeviceConfig
from protocols.errors import ConfigError
from protocols.heap import close_together, keep_lean
from protocols.language import tr
from protocols.status import serving
from security.policy.bundle import TrustedPolicy
from security.policy.gate import Gate

_LOOK_S: Final = 2.0
_LAST_S: Final = 6.0

# Run with -m its __name__ is "__main__", of which nothing is written: see `security.secret.Redacting`.
_log = logging.getLogger("agent.gate_app")


class GateApp:
    """One gate side."""

    def __init__(self, config: AgentConfig, registry: Registry, links: Links) -> None:
        self._config = config
        self._registry = registry
        self._authority = Authority(config, registry)
        self._files = WatchedFiles(config.path)
        self._links = links
        self._stop = links.stop
        self._verdict = Verdict()
        self._key = config.identity.load(config.identity.gate_key, "aes256")
        self._clock = ClockWatch(
            steady_ns=config.clock.steady,
            kept=KeptClock(config.spool.folder),
        )
        self.side = GateSide(
            self._make_gate,
            self._key,
            config.identity.address,
            self._clock,
            Keeper(suspended_path(config)),
        )
        self.devices = Devices([], self.side.put, time.time_ns)

    def _make_gate(self, policy: TrustedPolicy) -> Gate:
        return Gate(policy.packed or policy.policy, self.devices.tables, time.time_ns, self._key)

    async def run(self) -> None:
        """Run until told to stop; then release what is closed, and end."""
        await self._first_policy()
        if self._stop.is_set():
            return
        # Points stay for as long as this side runs: made last, they take little room of their own.
        configs = await asyncio.to_thread(close_together, self._config.devices)
        self.devices = Devices(configs, self.side.put, time.time_ns)
        async with asyncio.TaskGroup() as group:
            background = [
                group.create_task(self._watch(), name="policy"),
                group.create_task(self._reload(), name="configuration"),
                group.create_task(self.side.tick(), name="tick"),
                group.create_task(keep_lean(), name="memory"),
                group.create_task(self.side.take_frames(), name="gate"),
                group.create_task(self._listen_anew(), name="resume"),
            ]
            self.devices.start(group)
            talk = group.create_task(self._talk(), name="release")
            await self._stop.wait()
            self.devices.stop()
            for task in background:
                task.cancel()
            self.side.wake()
            await asyncio.wait([talk], timeout=_LAST_S)
            talk.cancel()

    async def _first_policy(self) -> None:
        """Wait for a policy that may be enforced; until then no device is read."""
        while not self._stop.is_set():
            self._verdict = await asyncio.to_thread(self._authority.look)
            if self._verdict.policy is not None:
                self.side.want(self._verdict)
                return
            await self._pause()
            await self._look_at_files()
            if self._links.reload.is_set():
                await self._read_anew()

    async def _watch(self) -> None:
        while True:
            await self._pause()
            before, self._verdict = self._verdict, await asyncio.to_thread(self._authority.look)
            if self._verdict.policy is None:
                # Under changed terms the policy may not be enforced: it stays, and nothing leaves.
                halted = replace(before, halted=self._verdict.problem)
                self._verdict = halted
            self.side.want(self._verdict)
            await asyncio.to_thread(self.side.suspended.refresh)
            await asyncio.to_thread(self._clock.keep)
            await self._look_at_files()

    async def _look_at_files(self) -> None:
        if await asyncio.to_thread(self._files.changed):
            self._links.changed()

    async def _reload(self) -> None:
        while True:
            await self._links.reload.wait()
            await self._read_anew()

    async def _listen_anew(self) -> None:
        """Subscribe again whenever the gate asks: what did not change is not told again by itself."""
        while True:
            await self.side.resumed.wait()
            self.side.resumed.clear()
            await self.devices.listen_anew()

    async def _read_anew(self) -> None:
        """Go over to the configuration as it is now; a faulty one changes nothing.

        The devices that are the same are not touched, but that those which tell only changes tell all again
        to the new gate. No sample is lost: frames that come meanwhile wait.
        """
        self._links.reload.clear()
        await asyncio.to_thread(self._files.read)
        try:
            config = await asyncio.to_thread(read_config, self._config.path)
            problem = no_devices(config) or unchangeable(self._config, config)
            if problem is not None:
                raise ConfigError([problem])
        except ConfigError as fault:
            _log.error(
                "%s\n%s",
                tr(
                    "the changed configuration is not used, the old one goes on:",
                    "不采用更改后的配置，继续使用原配置：",
                ),
                str(fault),
            )
            return
        if (config.policy, config.consumers) != (self._config.policy, self._config.consumers):
            self._authority = Authority(config, self._registry)
        self._config = config
        if self.devices.collectors:
            await self._change_devices(await asyncio.to_thread(close_together, config.devices))

    async def _change_devices(self, configs: list[DeviceConfig]) -> None:
        if not self.devices.changes(configs).any:
            return
        changes = await self.devices.change(configs, self._renew)
        parts = [
            (changes.added, "added", "新增"),
            (changes.removed, "taken out", "移除"),
            (changes.changed, "changed", "更改"),
        ]
        english = "; ".join(f"{word}: {', '.join(names)}" for names, word, _ in parts if names)
        chinese = "；".join(f"{word}：{'、'.join(names)}" for names, _, word in parts if names)
        _log.info("%s", tr(f"the devices have changed ({english})", f"设备配置已更改（{chinese}）"))

    async def _renew(self) -> None:
        if self.side.gate is not None:
            await self.side.renew()

    async def _pause(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LOOK_S):
                await self._stop.wait()

    async def _talk(self) -> None:
        """Hand over to the sealed side, on one link after the other."""
        while True:
            link = gate_end(await self._links.next())
            try:
                await self.side.converse(link, self._stop)
            except LinkLost as lost:
                _log.warning("%s", lost)
            else:
                return
            finally:
                link.close()

    async def report(self) -> dict[str, Any]:
        """Return what `agent status` shows of this side; it never leaves the factory."""
        policy, gate = self._verdict.policy, self.side.gate
        if policy is None or gate is None:
            return {"policy": None, "problem": self._verdict.problem}
        return {
            "policy": {
                "version": policy.policy.version,
                "hash": policy.hash.hex(),
                "valid_until": policy.policy.valid_until,
                "in_force": gate.in_force,
                "stopped": self._verdict.stopped,
                "expired": self._verdict.expired,
                "halted": gate.halted,
            },
            "suspended": [*gate.suspended, *map(suspended_line, self.side.suspended.now.names())],
            "devices": [
                self._device(gate, collector)
                for collector in self.devices.collectors
                # One that is just changing is shown again in a moment.
                if gate.tables.get(collector.table.device) is collector.table
            ],
        }

    def _device(self, gate: Gate, collector: Collector) -> dict[str, Any]:
        table = collector.table
        released = gate.released_points(table.device)
        book = gate.accounts[table.device]
        return {
            "id": table.device,
            "kind": table.kind,
            "connected": collector.state.connected,
            "fault": collector.state.fault,
            "losses": collector.state.losses,
            "age_s": collector.age_s(),
            "notes": collector.notes(),
            "skew_s": collector.skew.ahead_s if collector.state.connected else None,
            "skew": collector.clock_note(),
            "released": [p.id for p, out in zip(table.points, released, strict=True) if out],
            "withheld": [p.id for p, out in zip(table.points, released, strict=True) if not out],
            "account": book.as_dict(),
        }


async def run(arguments: argparse.Namespace) -> None:
    """Run the gate side."""
    config = read_config(arguments.config)
    problem = no_devices(config)
    if problem is not None:
        raise ConfigError([problem])
    with alone(config.spool.folder, watched=arguments.control is not None):
        await _run(arguments, config)


async def _run(arguments: argparse.Namespace, config: AgentConfig) -> None:
    registry = Registry(config.spool.folder / "registry.json")
    source = (
        connected_links(arguments.connect)
        if arguments.connect is not None
        else given_links(arguments.control)
    )
    try:
        async with source as links:
            app = GateApp(config, registry, links)
            async with serving(arguments.status or config.socket, app.report):
                await app.run()
    finally:
        registry.close()


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m agent.gate_app", description=__doc__)
    parser.add_argument("config", type=Path, help="agent.toml")
    parser.add_argument("--status", type=Path, help="socket that tells how it does")
    parser.add_argument("--parent", type=int, default=0, help="the supervisor")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--control", type=int, help="inherited control socket")
    source.add_argument("--connect", type=Path, help="socket of a sealed side by itself")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    found = parse()
    main(run(found), parent=found.parent)
