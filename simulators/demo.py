"""The demo: a whole mill on this machine, with nothing else installed.

Plant, broker, aggregator and agent run as processes of their own, set up by the same commands
that a person would use. At the end the account is judged against the plant's truth.
"""

import asyncio
import contextlib
import json
import os
import sys
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from protocols.errors import MillgateError
from protocols.language import tr
from protocols.status import NotRunning, ask, socket_path
from simulators.demo_site import tell
from simulators.plant import MACHINE

SLOT: Final = "5s"
_READY_S: Final = 120.0
_COMMAND_S: Final = 180.0
_STOP_S: Final = 20.0
_FIRST_S: Final = 180.0
_SETTLE_S: Final = 60.0
_ASK_S: Final = 5.0
_POLL_S: Final = 0.5
_TAIL: Final = 12
_FIRST: Final = frozenset({"ff_energy", "ff_equipment_state"})
"""One measurement of each device: once these are there, the whole way works."""

_ROOMS: Final = {"sim", "agent", "aggregator"}

_METER: Final = """
[[device]]
id = "meter-1"
kind = "modbus"
host = "{modbus_host}"
port = {modbus_port}
unit = {modbus_unit}
interval = "{poll}"
"""
_METER_POINTS: Final = (
    (
        "energy",
        "holding:0",
        "uint32",
        'scale = 0.01\nunit = "kWh"\nmeasurand = "energy.active_import"',
    ),
    ("power", "holding:2", "int32", 'unit = "W"\nmeasurand = "power.active"'),
    ("secret_furnace_setpoint", "holding:4", "float32", 'unit = "degC"\nmeasurand = "temperature"'),
    ("secret_phase_current_1", "holding:6", "uint16", "scale = 0.1"),
    ("secret_phase_current_2", "holding:7", "uint16", "scale = 0.1"),
    ("secret_phase_current_3", "holding:8", "uint16", "scale = 0.1"),
    ("power_factor", "holding:9", "uint16", 'scale = 0.001\nmeasurand = "power.factor"'),
    ("secret_recipe_number", "holding:10", "uint32", ""),
)
_MACHINE: Final = """
[[device]]
id = "machine-1"
kind = "opcua"
url = "{opcua_url}"
security = "none"
"""
_MACHINE_POINTS: Final = (
    (
        "state",
        "s=machine-1.Monitoring.MachineryItemState",
        "Int32",
        'measurand = "machine.state"\nstate_model = "machinery_item"',
    ),
    ("total", "i=2001", "UInt32", 'unit = "pcs"\nmeasurand = "production.total"'),
    ("good", "i=2002", "UInt32", 'unit = "pcs"\nmeasurand = "production.good"'),
    ("scrap", "i=2003", "UInt32", 'unit = "pcs"\nmeasurand = "production.scrap"'),
    (
        "secret_spindle_temperature",
        "s=machine-1.Monitoring.secret_spindle_temperature",
        "Double",
        "",
    ),
    ("secret_recipe_temperature", "s=machine-1.Monitoring.secret_recipe_temperature", "Double", ""),
    ("secret_ideal_cycle_time", "s=machine-1.Production.secret_ideal_cycle_time", "Double", ""),
    ("secret_program_number", "s=machine-1.Production.secret_program_number", "UInt32", ""),
)
_RELEASES: Final = {
    ("meter-1", "energy"): (1, "delta", "0.01", 'role = "main"\n'),
    ("meter-1", "power"): (2, "last", "0.1", ""),
    ("machine-1", "total"): (3, "delta", "1", ""),
    ("machine-1", "good"): (4, "delta", "1", ""),
    ("machine-1", "state"): (10, "state", "0.1", ""),
}


class DemoFault(MillgateError):
    """A part of the demo failed."""


@dataclass(slots=True)
class Mill:
    """A running demo.

    Attributes:
        folder: where everything is.
        port, token: of the API.
    """

    folder: Path
    port: int = 0
    token: str = ""
    processes: dict[str, asyncio.subprocess.Process] = field(default_factory=dict)
    commands: dict[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def page(self) -> str:
        """The page's address, with the token where only the browser sees it."""
        return f"http://127.0.0.1:{self.port}/#token={self.token}"

    @property
    def agent_toml(self) -> Path:
        """The agent's configuration."""
        return self.folder / "mill" / "agent.toml"

    @property
    def aggregator_toml(self) -> Path:
        """The aggregator's configuration."""
        return self.folder / "brain" / "aggregator.toml"

    @property
    def truth(self) -> Path:
        """The plant's truth file."""
        return self.folder / "truth.jsonl"

    async def inside(self) -> dict[str, Any] | None:
        """Return what the agent tells inside the factory; None while it does not answer."""
        try:
            return await asyncio.to_thread(ask, socket_path(self.folder / "mill" / "data"))
        except NotRunning:
            return None

    async def arrived(self) -> list[dict[str, Any]]:
        """Return the newest row of every series, as the brain's API gives it."""
        return await asyncio.to_thread(self._arrived)

    def _arrived(self) -> list[dict[str, Any]]:
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/api/v1/newest",
            headers={"Authorization": f"Bearer {self.token}"},
        )
        try:
            with urllib.request.urlopen(request, timeout=_ASK_S) as answer:  # noqa: S310 - same
                found: list[dict[str, Any]] = json.load(answer)["series"]
        except (urllib.error.URLError, TimeoutError, json.JSONDecodeError):
            return []
        return found

    async def first_values(self, stop: asyncio.Event) -> None:
        """Wait until something of each device has arrived, however slow the machine is.

        Returns early when told to stop.

        Raises:
            DemoFault: when a process ended, or nothing came within three minutes.
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + _FIRST_S
        while not stop.is_set():
            self.check_alive()
            found = {series["measurement"] for series in await self.arrived()}
            if found >= _FIRST:
                return
            if loop.time() > until:
                missing = ", ".join(sorted(_FIRST - found))
                raise DemoFault(
                    tr(f"no value arrived in time ({missing})", f"未能按时收到数据（{missing}）"),
                    where=str(self.folder / "agent.log"),
                    remedy=await asyncio.to_thread(_tail, self.folder / "agent.log"),
                )
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_POLL_S):
                    await stop.wait()

    async def account(self, tolerance: str = "2s") -> dict[str, Any]:
        """Return the account of both ends against the truth; see `millgate reconcile`."""
        report = await command(
            "reconcile",
            "--agent",
            str(self.agent_toml),
            "--aggregator",
            str(self.aggregator_toml),
            "--truth",
            str(self.truth),
            "--tolerance",
            tolerance,
            "--json",
            may_fail=True,
        )
        try:
            found: dict[str, Any] = json.loads(report)
        except json.JSONDecodeError:
            raise DemoFault(
                tr("the account could not be made", "无法完成对账"), where=report.strip()[-400:]
            ) from None
        return found

    async def settled_account(self, tolerance: str = "2s") -> dict[str, Any]:
        """Return the account once the brain has caught up, or as it is after a minute."""
        loop = asyncio.get_running_loop()
        until = loop.time() + _SETTLE_S
        while True:
            report = await self.account(tolerance)
            caught_up = not (report["waiting"] or report["wrong"] or report["lost"])
            if caught_up or loop.time() > until:
                return report
            await asyncio.sleep(1.0)

    def check_alive(self) -> None:
        """Raise DemoFault when a process has ended."""
        for name, process in self.processes.items():
            if process.returncode is not None:
                raise DemoFault(
                    tr(f"{name} ended unexpectedly", f"{name} 意外退出"),
                    where=str(self.folder / f"{name}.log"),
                    remedy=_tail(self.folder / f"{name}.log"),
                )

    async def start(
        self, name: str, *, ready: bool = True, environment: Mapping[str, str] | None = None
    ) -> dict[str, Any]:
        """Start one of the processes (again); return what its ready file says.

        Args:
            name: which.
            ready: whether it writes a ready file, for which is waited.
            environment: what it finds in its environment beside what there is.

        Raises:
            DemoFault: when it does not start.
        """
        path = self.folder / f"{name}.ready.json"
        arguments = self.commands[name] + (("--ready", str(path)) if ready else ())
        await asyncio.to_thread(path.unlink, missing_ok=True)
        log = await asyncio.to_thread((self.folder / f"{name}.log").open, "ab")
        with log:
            program = (sys.executable, "-m", "millgate") if arguments[0] in _ROOMS else ()
            self.processes[name] = await asyncio.create_subprocess_exec(
                *program,
                *arguments,
                stdout=log,
                stderr=log,
                env={**os.environ, **(environment or {})},
            )
        return await self._wait_ready(name, path) if ready else {}

    async def _wait_ready(self, name: str, path: Path) -> dict[str, Any]:
        loop = asyncio.get_running_loop()
        until = loop.time() + _READY_S
        while loop.time() < until:
            self.check_alive()
            found = await asyncio.to_thread(_read_json, path)
            if found is not None:
                return found
            await asyncio.sleep(0.05)
        raise DemoFault(
            tr(f"{name} did not start in time", f"{name} 未能按时启动"),
            where=str(self.folder / f"{name}.log"),
            remedy=await asyncio.to_thread(_tail, self.folder / f"{name}.log"),
        )

    async def kill(self, name: str) -> None:
        """Kill one process as a power cut would, and wait until it is gone."""
        process = self.processes.pop(name)
        process.kill()
        await process.wait()

    async def stop(self, name: str) -> None:
        """Stop one process and wait for it."""
        process = self.processes.pop(name, None)
        if process is None or process.returncode is not None:
            return
        process.terminate()
        try:
            async with asyncio.timeout(_STOP_S):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()


async def command(*arguments: str, may_fail: bool = False) -> str:
    """Run one millgate command to its end and return what it printed.

    Raises:
        DemoFault: when it fails, unless `may_fail`.
    """
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "millgate",
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        async with asyncio.timeout(_COMMAND_S):
            output, _ = await process.communicate()
    except TimeoutError:
        process.kill()
        await process.wait()
        raise DemoFault(tr("took too long", "超时"), where=" ".join(arguments)) from None
    text = output.decode(errors="replace")
    if process.returncode and not may_fail:
        raise DemoFault(
            tr("a command failed", "命令失败"),
            where=" ".join(arguments),
            remedy=text.strip()[-800:],
        )
    return text


@asynccontextmanager
async def running(folder: Path, seed: int) -> AsyncIterator[Mill]:
    """Set a mill up in a folder and run it for the length of the context.

    Raises:
        DemoFault: when a part does not start.
    """
    mill = Mill(folder)
    mill.commands |= {
        "plant": ("sim", "plant", "--seed", str(seed), "--truth", str(mill.truth)),
        "broker": ("sim", "broker"),
        "aggregator": ("aggregator", "run", str(mill.aggregator_toml)),
        "agent": ("agent", "run", str(mill.agent_toml)),
    }
    async with stopping_all(mill):
        plant = await mill.start("plant")
        broker = await mill.start("broker")
        await configure(mill, plant, broker["mqtt_port"])
        await _tell_of_site(mill)
        mill.port = (await mill.start("aggregator"))["port"]
        token = mill.folder / "brain" / "keys" / "api.token"
        mill.token = (await asyncio.to_thread(token.read_text, "ascii")).strip()
        await mill.start("agent", ready=False)
        yield mill


@asynccontextmanager
async def stopping_all(mill: Mill) -> AsyncIterator[None]:
    """Stop every process of a mill at the end, the agent before those that it speaks with."""
    try:
        yield
    finally:
        await mill.stop("agent")
        async with asyncio.TaskGroup() as tasks:
            for name in list(mill.processes):
                tasks.create_task(mill.stop(name), name=f"stop {name}")


def _read_json(path: Path) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        return None
    return found


def _tail(path: Path) -> str:
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    return "\n".join(lines[-_TAIL:])


async def configure(
    mill: Mill,
    plant: dict[str, Any],
    broker_port: int,
    protocol: str = "mqtt311",
    *,
    agent_port: int | None = None,
    slot: str = SLOT,
    poll: str = "500ms",
) -> None:
    """Do what a person does: init both ends, describe the devices, write and sign the policy.

    Args:
        mill: where.
        plant: what the plant's ready file says.
        broker_port: where the brain finds the broker, and the agent where it has no way of its own.
        protocol: what both speak with it.
        agent_port: where the agent finds the broker.
        slot: length of the released slots.
        poll: how often the meter is read.
    """
    brain, agent = mill.folder / "brain", mill.folder / "mill"
    port = ("--protocol", protocol, "--broker-port")
    its_port = str(broker_port if agent_port is None else agent_port)
    names = ("--name", "brain", "--api-port", "0")
    await command("aggregator", "init", str(brain), *names, *port, str(broker_port))
    card = ("--brain", str(brain / "brain.card"))
    await command("agent", "init", str(agent), *card, *port, its_port)
    await asyncio.to_thread(_describe_devices, mill, plant, poll)
    await command("policy", "new", str(mill.agent_toml))
    await asyncio.to_thread(_release, agent / "policy.toml", slot)
    key = str(agent / "keys" / "officer.key")
    await command("policy", "sign", str(agent / "policy.toml"), "--key", key)
    await command("agent", "check", str(mill.agent_toml))


async def _tell_of_site(mill: Mill) -> None:
    table = await asyncio.to_thread(tell, mill.folder / "brain", MACHINE)
    await command("aggregator", "facts", "import", str(mill.aggregator_toml), str(table))


def _describe_devices(mill: Mill, plant: dict[str, Any], poll: str) -> None:
    namespace = plant["opcua_namespace"]
    text = _METER.format(poll=poll, **plant) + "".join(_point(*point) for point in _METER_POINTS)
    text += _MACHINE.format(**plant)
    text += "".join(
        _point(name, f"nsu={namespace};{node}", kind, rest)
        for name, node, kind, rest in _MACHINE_POINTS
    )
    with mill.agent_toml.open("a", encoding="utf-8") as file:
        file.write(text)
    card = mill.folder / "mill" / "agent.card"
    (mill.folder / "brain" / "factories" / "mill.card").write_bytes(card.read_bytes())


def _point(name: str, address: str, kind: str, rest: str) -> str:
    return f'\n[[device.points]]\nid = "{name}"\naddress = "{address}"\ntype = "{kind}"\n' + (
        rest + "\n" if rest else ""
    )


def _release(path: Path, slot: str) -> None:
    text = path.read_text(encoding="utf-8")
    for (device, point), (number, aggregate, step, extra) in _RELEASES.items():
        start = f'[[point]]\ndevice = "{device}"\npoint = "{point}"\n'
        release = (
            f'consumer = "brain"\nnumber = {number}\nequipment = "{device}"\n{extra}'
            f'release = {{ aggregate = "{aggregate}", slot = "{slot}", round = {step} }}\n'
            'classes = { raw = "general-2", released = "general-1" }\n'
        )
        text = text.replace(start, start + release)
    path.write_text(text, encoding="utf-8")
