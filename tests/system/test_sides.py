"""Two sides, two processes: what each can know and reach, and that they outlive each other's death."""

import asyncio
import os
import random
import re
import signal
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import psutil
import pytest

from security.keys import load_key_file
from simulators.demo import Mill
from simulators.modbus_server import registers
from simulators.plant import SECRETS
from simulators.truth import read_truth
from tests.servers.mosquitto import running
from tests.system.mills import LAST_TRAFFIC_S, MOSQUITTO, check, plant_mill

SLOT: Final = "5s"
READY_S: Final = 90.0
LOOKS: Final = 20
_CAP_SYS_PTRACE: Final = 19
_PIECE: Final = 16 << 20

pytestmark = pytest.mark.timeout(300)


async def processes(mill: Mill) -> dict[str, int]:
    """Return the process ids of both sides, once they have released something together."""
    deadline = asyncio.get_running_loop().time() + READY_S
    while True:
        report = await mill.inside() or {}
        if report.get("policy") and report.get("outputs", {}).get("released", 0) > 0:
            return {name: one["pid"] for name, one in report["processes"].items()}
        assert asyncio.get_running_loop().time() < deadline, report
        await asyncio.sleep(0.2)


async def gone(pids: list[int]) -> None:
    deadline = asyncio.get_running_loop().time() + READY_S
    while any(psutil.pid_exists(pid) for pid in pids):
        assert asyncio.get_running_loop().time() < deadline
        await asyncio.sleep(0.1)


async def test_either_side_or_both_or_the_supervisor_is_killed_and_nothing_is_lost_or_doubled(
    tmp_path: Path,
) -> None:
    with running(tmp_path / "mosquitto", MOSQUITTO) as broker:
        async with plant_mill(tmp_path, 11, broker, "mqtt5") as mill:
            for victims in (["gate"], ["sealed"], ["gate", "sealed"]):
                before = await processes(mill)
                for name in victims:
                    os.kill(before[name], signal.SIGKILL)
                await gone([before[name] for name in victims])
                after = await until_both(mill, before, victims)
                # The other one lives on.
                assert {name for name in after if after[name] != before[name]} == set(victims)
            # Without their supervisor they end, so that another may start in their place.
            await mill.kill("agent")
            await gone(list(after.values()))
            await mill.start("agent", ready=False)
            await processes(mill)
            await asyncio.sleep(LAST_TRAFFIC_S)
            await mill.stop("agent")
            check(await mill.settled_account(tolerance=SLOT))


async def until_both(mill: Mill, before: dict[str, int], victims: list[str]) -> dict[str, int]:
    """Wait until those that were killed are there again; return the process ids."""
    while True:
        after = await processes(mill)
        if all(after[name] != before[name] for name in victims):
            return after
        await asyncio.sleep(0.2)


# What each side's memory holds.


def may_read_memory() -> bool:
    text = Path("/proc/self/status").read_text("ascii")
    found = re.search(r"^CapEff:\s+([0-9a-f]+)$", text, re.MULTILINE)
    return found is not None and bool(int(found[1], 16) >> _CAP_SYS_PTRACE & 1)


def memory_of(pid: int) -> Iterator[bytes]:
    """Yield all that a process has in memory of its own, in pieces that overlap a little."""
    with Path(f"/proc/{pid}/maps").open() as maps, Path(f"/proc/{pid}/mem").open("rb", 0) as mem:
        for line in maps:
            place, rights, _, _, _, *name = line.split()
            # What a process has not written stands in a file, and is no value.
            if not rights.startswith("rw") or name[:1] == ["[vvar]"]:
                continue
            start, end = (int(part, 16) for part in place.split("-"))
            for at in range(start, end, _PIECE):
                try:
                    mem.seek(max(at - 256, start))
                    piece = mem.read(min(at + _PIECE, end) - mem.tell())
                    # Long runs of zeros hold nothing, and are slow to search.
                    yield re.sub(rb"\0{128,}", bytes(128), piece)
                except OSError:
                    continue


def found_in(pid: int, wanted: set[bytes]) -> set[bytes]:
    found: set[bytes] = set()
    for piece in memory_of(pid):
        found |= {one for one in wanted - found if one in piece}
    return found


def encodings(text: str) -> set[bytes]:
    """Return a name in every form that a process could keep it in."""
    raw = text.encode()
    wide = {text.encode(f"utf-{width}-{order}") for width in (16, 32) for order in ("le", "be")}
    return {raw, raw.hex().encode(), *wide}


def raw_values(mill: Mill) -> set[bytes]:
    """Return raw readings of the plant as a device gives them and as a process may keep them.

    The furnace set point and the cumulative energy are eight bytes side by side in no other place.
    """
    truth = read_truth(mill.truth)
    found: set[bytes] = set()
    for at in truth.time.tolist():
        reading = truth.plant.meter(at)
        block = registers(reading)
        found |= {block[:8], block[8:16]}
        set_point = struct.unpack(">f", block[8:12])[0]
        found |= {struct.pack("<d", set_point), struct.pack(">d", set_point)}
        words = struct.unpack(f">{len(block) // 2}H", block)
        found.add(struct.pack(f"<{len(words)}H", *words)[:8])
    return {one for one in found if len(one.strip(b"\0")) >= 6}


async def test_each_side_knows_and_reaches_only_what_is_its_own(tmp_path: Path) -> None:
    """The sealed side's memory never holds a canary; the gate side reaches devices, not the broker."""
    with running(tmp_path / "mosquitto", MOSQUITTO) as broker:
        async with plant_mill(tmp_path, 13, broker) as mill:
            pids = await processes(mill)
            pids["supervisor"] = mill.processes["agent"].pid
            await asyncio.sleep(6)
            reached = {name: ports(pid) for name, pid in pids.items()}
            text = mill.agent_toml.read_text("utf-8")
            check_files(pids)
            if may_read_memory():
                await asyncio.to_thread(check_memory, mill, pids)
    meter = re.findall(r"(?m)^port = (\d+)", text)
    devices = {int(port) for port in meter + re.findall(r"opc\.tcp://[^:]+:(\d+)", text)}
    devices.discard(broker.port)
    assert reached["gate"] == devices
    assert len(devices) == 2
    assert reached["sealed"] == {broker.port}
    assert reached["supervisor"] == set()


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    """Let a process stand still, so that what it has in memory is not overwritten meanwhile."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def caught_with_readings(
    mill: Mill, gate: int, others: set[bytes]
) -> tuple[set[bytes], set[bytes]]:
    """Return what is in the gate side's memory at a moment when it holds readings, and those.

    A reading stays in memory only until the next one takes its place or it was judged: a moment
    when there is none is no wonder.
    """
    for _ in range(LOOKS):
        with stopped(gate):
            readings = raw_values(mill)
            found = found_in(gate, others | readings)
        if found & readings:
            break
        time.sleep(random.uniform(0.1, 0.7))
    return found, readings


def check_memory(mill: Mill, pids: dict[str, int]) -> None:
    keys = mill.folder / "mill" / "keys"
    secrets = {name: secret_in(keys / f"{name}.key") for name in ("gate", "signing")}
    names = set[bytes]().union(*(encodings(name) for name in SECRETS))
    others = names | set(secrets.values())
    gate, readings = caught_with_readings(mill, pids["gate"], others)
    # The search finds, in the side that must know them, names, raw values and its own key.
    assert gate & names
    assert gate & readings
    assert secrets["gate"] in gate
    assert secrets["signing"] not in gate
    wanted = others | readings
    found = {name: found_in(pids[name], wanted) for name in ("sealed", "supervisor")}
    assert found["sealed"] == {secrets["signing"]}
    # It passes on what `agent status` shows to who asks inside: names, but no value and no key.
    assert not found["supervisor"] - names


def secret_in(path: Path) -> bytes:
    """Return the secret of a key file as a process holds it."""
    secret = load_key_file(path, "aes256" if path.stem == "gate" else "ed25519")
    return secret.reveal()


def ports(pid: int) -> set[int]:
    """Return the ports that a process is connected to, but for those that it has itself."""
    connections = psutil.Process(pid).net_connections("inet")
    own = {one.laddr.port for one in connections}
    return {one.raddr.port for one in connections if len(one.raddr)} - own


def check_files(pids: dict[str, int]) -> None:
    opened = {name: files_of(pid) for name, pid in pids.items()}
    assert any("spool.db" in name for name in opened["sealed"])
    assert not any("spool.db" in name or "memfd" in name for name in opened["gate"])
    for name in ("gate", "sealed"):
        limits, status = (read(pids[name], what) for what in ("limits", "status"))
        assert re.search(r"Max core file size\s+0\s+0", limits)
        assert "NoNewPrivs:\t1" in status


def files_of(pid: int) -> list[str]:
    return [str(one.readlink()) for one in Path(f"/proc/{pid}/fd").iterdir()]


def read(pid: int, name: str) -> str:
    return Path(f"/proc/{pid}/{name}").read_text("ascii")


def test_a_process_that_was_hardened_dies_with_its_parent_and_dumps_nothing() -> None:
    read, write = os.pipe()
    middle = os.fork()
    if middle == 0:
        child = os.fork()
        if child == 0:
            _hardened_child(write)
        os.close(write)
        signal.pause()
    os.close(write)
    ready = os.read(read, 1)
    assert ready == b"0"
    os.kill(middle, signal.SIGKILL)
    os.waitpid(middle, 0)
    # The child never closes its end by itself: the end of the pipe is its death.
    assert os.read(read, 1) == b""
    os.close(read)


def _hardened_child(write: int) -> None:
    import ctypes  # noqa: PLC0415 - for the child alone

    from agent.harden import harden  # noqa: PLC0415 - same

    harden(os.getppid())
    dumpable = ctypes.CDLL(None).prctl(3, 0, 0, 0, 0)
    os.write(write, str(dumpable).encode())
    signal.pause()
    os._exit(0)
