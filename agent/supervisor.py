"""The supervisor: starts the two sides, joins them, and starts again the one that ended.

`millgate agent run` becomes this process once the configuration is found right. It holds no key and no
value, and loads next to nothing.
"""

import asyncio
import contextlib
import json
import logging
import os
import random
import signal
import socket
import sys
from asyncio.subprocess import Process
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NoReturn

from agent.control import CONFIGURATION, MAKE_WAY, STOP, control_pair, give_link, heard, tell
from agent.monitor import monitoring
from protocols.language import speak_to_everyone, tr
from protocols.last_words import say_why
from protocols.logs import log_plainly
from protocols.service import READY, STOPPING, keep_telling
from protocols.service import tell as tell_service
from protocols.signals import reload_on_signal, stop_on_signals
from protocols.status import NotRunning, ask, ask_for_everyone, lock_of, serving, socket_path

GATE: Final = "gate"
SEALED: Final = "sealed"
_FIRST_WAIT_S: Final = 0.2
_LONGEST_WAIT_S: Final = 10.0
_LIVED_S: Final = 60.0
_END_S: Final = 14.0
_CONFIG_FAULT: Final = 2
_READ_S: Final = 60.0
_WATCH_S: Final = 30.0
_MOST_DEAF: Final = 10
_MOST_SETTINGS: Final = 2 << 20
# Threads share one heap, and what was used for reading a large file is given back.
_ALLOCATION: Final = {
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_TRIM_THRESHOLD_": str(1 << 20),
    "MALLOC_MMAP_THRESHOLD_": str(1 << 20),
}

_log = logging.getLogger("agent.supervisor")


def become(
    config: Path, folder: Path, settings: bytes, monitor: tuple[int, bool] = (0, False)
) -> NoReturn:
    """Turn this process into the supervisor of an agent whose configuration is right.

    Args:
        config: agent.toml.
        folder: where its data are; nobody else may use them meanwhile.
        settings: the sealed side's part of the configuration.
        monitor: the port of health and metrics, 0 for none; whether they tell of devices.

    Raises:
        AlreadyRunning: when somebody else does.
    """
    lock = lock_of(folder)
    given = _kept(settings)
    os.set_inheritable(lock.fileno(), True)  # noqa: FBT003 - the library's parameter has no name
    root = str(Path(__file__).parents[1])
    known = os.environ.get("PYTHONPATH")
    environment = {**_ALLOCATION, **os.environ}
    environment["PYTHONPATH"] = f"{root}:{known}" if known else root
    arguments = [str(config.absolute()), str(folder.absolute()), str(lock.fileno()), str(given)]
    arguments += [str(monitor[0]), "devices" if monitor[1] else ""]
    command = [sys.executable, "-P", "-m", __name__, *arguments]
    sys.stdout.flush()
    os.execve(sys.executable, command, environment)  # noqa: S606 - our own program, no shell


def _kept(data: bytes) -> int:
    """Return a file in memory that holds these bytes."""
    found = os.memfd_create("millgate-sealed-settings", 0)
    os.write(found, data)
    return found


class Side:
    """One of the two processes, started again whenever it ends.

    Attributes:
        renewed: whether it was told to make way for another one of its kind.
    """

    def __init__(self, name: str, command: Sequence[str], inherited: Sequence[int]) -> None:
        self.name = name
        self.control: socket.socket | None = None
        self.process: Process | None = None
        self.restarts = 0
        self.renewed = False
        self._command = list(command)
        self._inherited = list(inherited)

    async def start(self) -> None:
        """Start it with a control socket of its own."""
        mine, its = control_pair()
        with its:
            self.process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-P",
                "-m",
                *self._command,
                "--control",
                str(its.fileno()),
                "--parent",
                str(os.getpid()),
                pass_fds=[its.fileno(), *self._inherited],
                stdin=asyncio.subprocess.DEVNULL,
            )
        self.control = mine

    async def ended(self) -> int:
        """Wait for its end and return its exit code."""
        code = await self.process.wait() if self.process is not None else 0
        if self.control is not None:
            self.control.close()
            self.control = None
        return code

    def tell(self, word: bytes) -> None:
        """Say a word to it."""
        if self.control is not None:
            tell(self.control, word)

    def replace(self, command: Sequence[str], inherited: Sequence[int]) -> None:
        """Let another process take its place."""
        self._command, self._inherited = list(command), list(inherited)
        self.renewed = True
        self.tell(MAKE_WAY)

    def kill(self) -> None:
        """End it now."""
        with contextlib.suppress(ProcessLookupError):
            if self.process is not None and self.process.returncode is None:
                self.process.kill()


class Supervisor:
    """Keeps both sides running and joined."""

    def __init__(self, config: str, folder: Path, lock: int, settings: int) -> None:
        self._stop = asyncio.Event()
        self._code = 0
        self._sockets = {name: socket_path(folder / name) for name in (GATE, SEALED)}
        self._config, self._lock, self._settings = config, lock, settings
        self._reload = asyncio.Event()
        self._problem = ""
        gate = ["agent.gate_app", config, "--status", str(self._sockets[GATE])]
        # As long as one of them lives, nobody else may use the data.
        self._sealed = Side(SEALED, self._sealed_command(settings), [lock, settings])
        self._gate = Side(GATE, gate, [lock])
        self._sides = [self._sealed, self._gate]

    def _sealed_command(self, settings: int) -> list[str]:
        sockets = ["--status", str(self._sockets[SEALED])]
        return ["agent.sealed_app", "--settings", str(settings), *sockets]

    async def run(self, status: Path, monitor: tuple[int, bool] = (0, False)) -> int:
        """Run both until told to stop; return the exit code."""
        # Whoever closes a terminal wants to end what runs in it.
        told = self._stop if sys.stdin is not None and sys.stdin.isatty() else self._reload
        with stop_on_signals(self._stop), reload_on_signal(told):
            return await self._run(status, monitor)

    async def _run(self, status: Path, monitor: tuple[int, bool]) -> int:
        async with contextlib.AsyncExitStack() as stack:
            if monitor[0]:
                shown = monitoring(monitor[0], self.report, devices=monitor[1])
                await stack.enter_async_context(shown)
            await stack.enter_async_context(serving(status, self.report))
            group = await stack.enter_async_context(asyncio.TaskGroup())
            keeping = [group.create_task(self._keep(side), name=side.name) for side in self._sides]
            looking = [
                group.create_task(self._read_anew(), name="configuration"),
                group.create_task(keep_telling(self._is_alive), name="service-manager"),
                *(group.create_task(self._watch(side), name="watch") for side in self._sides),
            ]
            tell_service(READY)
            await self._stop.wait()
            tell_service(STOPPING)
            for task in looking:
                task.cancel()
            for side in self._sides:
                side.tell(STOP)
            _, alive = await asyncio.wait(keeping, timeout=_END_S)
            if alive:
                for side in self._sides:
                    side.kill()
        return self._code

    async def _keep(self, side: Side) -> None:
        """Start a side again whenever it ends, until told to stop."""
        loop = asyncio.get_running_loop()
        wait_s = _FIRST_WAIT_S
        while not self._stop.is_set():
            began = loop.time()
            await side.start()
            self._join()
            if side is self._gate:
                self._listen(side)
            code = await side.ended()
            if self._stop.is_set():
                return
            if side.renewed and code == 0:
                side.renewed = False
                continue
            if code == _CONFIG_FAULT:
                # The file was changed since; starting again would not mend it.
                self._code = code
                self._stop.set()
                return
            self._say(side, code)
            side.restarts += 1
            wait_s = _FIRST_WAIT_S if loop.time() - began > _LIVED_S else wait_s
            jitter = random.uniform(0.5, 1.0)  # noqa: S311 - jitter, no secret
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_s * jitter):
                    await self._stop.wait()
            wait_s = min(2 * wait_s, _LONGEST_WAIT_S)

    async def _is_alive(self) -> bool:
        return True

    async def _watch(self, side: Side) -> None:
        """End a side that answers nobody for long, so that it is started again."""
        deaf = 0
        while True:
            await asyncio.sleep(_WATCH_S)
            known = side.process
            try:
                await asyncio.to_thread(ask, self._sockets[side.name])
            except NotRunning:
                deaf = deaf + 1 if side.process is known else 0
            else:
                deaf = 0
            if deaf >= _MOST_DEAF:
                _log.error(
                    "%s",
                    tr(
                        f"the {side.name} side has not answered for a while and is ended",
                        f"{side.name} 侧进程长时间无应答，将其结束",
                    ),
                )
                side.kill()
                deaf = 0

    def _listen(self, side: Side) -> None:
        """Hear from the gate side when the configuration has changed."""
        control = side.control
        if control is None:
            return
        loop = asyncio.get_running_loop()

        def hear() -> None:
            if heard(control):
                self._reload.set()
            else:
                loop.remove_reader(control)

        loop.add_reader(control, hear)

    async def _read_anew(self) -> None:
        """Go over to a changed configuration, whenever there is one; a faulty one changes nothing."""
        while True:
            await self._reload.wait()
            self._reload.clear()
            found = await self._changed_settings()
            self._problem = found.get("faults", "")
            if self._problem:
                _log.error(
                    "%s\n%s",
                    tr(
                        "the changed configuration is not used, the old one goes on:",
                        "不采用更改后的配置，继续使用原配置：",
                    ),
                    self._problem,
                )
                continue
            new = found["settings"].encode()
            if new != os.pread(self._settings, _MOST_SETTINGS, 0):
                self._replace_sealed(new)
            self._gate.tell(CONFIGURATION)

    def _replace_sealed(self, settings: bytes) -> None:
        old, self._settings = self._settings, _kept(settings)
        command = self._sealed_command(self._settings)
        self._sealed.replace(command, [self._lock, self._settings])
        os.close(old)
        _log.info(
            "%s",
            tr(
                "the sealed side starts anew with the changed configuration",
                "封装侧以更改后的配置重新启动",
            ),
        )

    async def _changed_settings(self) -> dict[str, str]:
        """Let a process of its own read the configuration; see `agent.reloading`."""
        answer = _kept(b"")
        try:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-P",
                "-m",
                "agent.reloading",
                self._config,
                str(self._settings),
                str(answer),
                pass_fds=[self._settings, answer],
                stdin=asyncio.subprocess.DEVNULL,
            )
            try:
                async with asyncio.timeout(_READ_S):
                    code = await process.wait()
            except TimeoutError:
                process.kill()
                code = await process.wait()
            data = os.pread(answer, _MOST_SETTINGS, 0)
        finally:
            os.close(answer)
        if code or not data:
            return {"faults": tr("it cannot be read", "无法读取") + f" ({_how(code)})"}
        found: dict[str, str] = json.loads(data)
        return found

    def _join(self) -> None:
        """Give both sides, where both are there, the ends of a new link."""
        controls = [side.control for side in self._sides]
        ends = socket.socketpair()
        for control, end in zip(controls, ends, strict=True):
            if control is not None and None not in controls:
                give_link(control, end)
            end.close()

    def _say(self, side: Side, code: int) -> None:
        names = {GATE: ("gate side", "闸门侧"), SEALED: ("sealed side", "封装侧")}
        english, chinese = names[side.name]
        _log.error(
            "%s",
            tr(
                f"the {english} has ended ({_how(code)}) and is started again; nothing is lost "
                "that was released",
                f"{chinese}进程已结束（{_how(code)}），正在重新启动；已放行的数据不会丢失",
            ),
        )

    async def report(self) -> dict[str, Any]:
        """Return what both sides tell, and the processes."""
        found: dict[str, Any] = {"policy": None, "problem": ""}
        for side in self._sides:
            with contextlib.suppress(NotRunning):
                found |= await asyncio.to_thread(ask_for_everyone, self._sockets[side.name])
        found["configuration"] = {"problem": self._problem}
        found["processes"] = {
            side.name: {
                "pid": side.process.pid if side.process is not None else None,
                "restarts": side.restarts,
            }
            for side in self._sides
        }
        return found


def _how(code: int) -> str:
    return signal.Signals(-code).name if code < 0 else f"{code}"


def main(arguments: Sequence[str]) -> int:
    """Run the supervisor; see `become`."""
    config, folder, lock, settings, port, devices = arguments
    log_plainly()
    speak_to_everyone()

    async def supervise() -> int:
        supervisor = Supervisor(config, Path(folder), int(lock), int(settings))
        return await supervisor.run(socket_path(Path(folder)), (int(port), bool(devices)))

    try:
        return asyncio.run(supervise())
    except Exception as error:  # noqa: BLE001 - the last place to say what went wrong
        return say_why(error)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
