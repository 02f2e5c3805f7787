"""Runs the simulators until they are told to stop. Each protocol library loads only when used."""

import asyncio
import time
from pathlib import Path
from typing import Final

from protocols.errors import MillgateError
from protocols.frame import SECOND
from protocols.language import tr
from simulators.mbap import ModbusServer
from simulators.minute import MINUTE
from simulators.modbus_server import PlantMeter
from simulators.plant import ROLLOVER, Plant
from simulators.recording import Recording
from simulators.replay import ReplayMeter, readings
from simulators.running import Report, announce, stopping, until
from simulators.truth import TruthFile, known_plant

_FLUSH_S: Final = 0.1


def choose_plant(
    truth: Path, seed: int | None, start_ns: int | None, energy_start: int | None
) -> Plant:
    """Return the plant that was asked for; what was not said comes from the truth file, if any.

    Raises:
        MillgateError: when the start is to come, a number does not fit, or the file is unusable.
    """
    known = known_plant(truth)
    now = time.time_ns()
    if known is not None:
        seed = known.seed if seed is None else seed
        start_ns = known.start_ns if start_ns is None else start_ns
        energy_start = known.energy_start if energy_start is None else energy_start
    start_ns = now - now % MINUTE if start_ns is None else start_ns
    if start_ns > now:
        raise MillgateError(
            tr("the plant's start is still to come", "工厂的启动时刻尚未到来"),
            where="--start",
            remedy=tr("give a moment that has passed", "请给出已过去的时刻"),
        )
    try:
        return Plant(1 if seed is None else seed, start_ns, energy_start)
    except ValueError:
        raise MillgateError(
            tr("does not fit the energy register", "超出电量寄存器范围"),
            where="--energy-start",
            remedy=f"0 … {ROLLOVER - 1}",
        ) from None


async def run_plant(
    plant: Plant,
    truth: TruthFile,
    *,
    modbus_port: int,
    opcua_port: int,
    ready: Path | None,
    duration_s: float | None,
) -> None:
    """Serve the plant's meter and machine.

    Raises:
        MillgateError: when a port cannot be had or a file cannot be written.
    """
    from simulators.opcua_server import NAMESPACE, MachineServer  # noqa: PLC0415 - slow to load

    meter = PlantMeter(plant, truth, time.time_ns)
    async with (
        stopping(ready) as stop,
        ModbusServer(meter.opened, port=modbus_port) as modbus,
        MachineServer(plant, port=opcua_port, now_ns=time.time_ns) as machine,
        asyncio.TaskGroup() as tasks,
    ):
        jobs = (
            tasks.create_task(machine.publish(), name="simulator: machine"),
            tasks.create_task(_keep_flushing(truth), name="simulator: truth file"),
        )
        await announce(
            ready,
            {
                "modbus_host": modbus.host,
                "modbus_port": modbus.port,
                "modbus_unit": modbus.unit,
                "opcua_url": machine.url,
                "opcua_port": machine.port,
                "opcua_namespace": NAMESPACE,
                "seed": plant.seed,
                "start_ns": plant.start_ns,
                "energy_start": plant.energy_start,
            },
            tr(
                f"plant: meter at {modbus.host}:{modbus.port} (Modbus TCP), machine at {machine.url}",
                f"工厂：电表 {modbus.host}:{modbus.port}（Modbus TCP），机器 {machine.url}",
            ),
        )
        await until(stop, duration_s)
        for job in jobs:
            job.cancel()


async def _keep_flushing(truth: TruthFile) -> None:
    while True:
        await asyncio.sleep(_FLUSH_S)
        truth.flush()


async def run_replay(
    recording: Recording,
    *,
    port: int,
    energy_start: int,
    ready: Path | None,
    duration_s: float | None,
) -> None:
    """Serve a recording as a Modbus meter.

    Raises:
        MillgateError: when the port cannot be had, a file cannot be written or a number misfits.
    """
    meter = ReplayMeter(readings(recording, energy_start))
    async with (
        stopping(ready) as stop,
        ModbusServer(meter.opened, port=port) as modbus,
    ):
        report: Report = {
            "modbus_host": modbus.host,
            "modbus_port": modbus.port,
            "modbus_unit": modbus.unit,
            "energy_start": energy_start,
            **describe(recording),
        }
        await announce(
            ready,
            report,
            tr(
                f"replay: {len(recording.counts)} rows at {modbus.host}:{modbus.port} (Modbus TCP)",
                f"回放：{len(recording.counts)} 行，{modbus.host}:{modbus.port}（Modbus TCP）",
            ),
        )
        await until(stop, duration_s)


def describe(recording: Recording) -> Report:
    """Return what a recording holds, with its exact total."""
    rows = len(recording.counts)
    return {
        "rows": rows,
        "readings": rows + 1,
        "total_kwh": str(recording.total_kwh),
        "mended": recording.mended,
        "interval_s": recording.interval_ns // SECOND,
        "first_ns": recording.first_ns,
        "last_ns": recording.first_ns + rows * recording.interval_ns,
    }


async def run_broker(*, port: int, ready: Path | None, duration_s: float | None) -> None:
    """Run the embedded broker.

    Raises:
        MillgateError: when the port cannot be had or the ready file cannot be written.
    """
    from simulators.broker import EmbeddedBroker  # noqa: PLC0415 - slow to load

    async with stopping(ready) as stop, EmbeddedBroker(port) as broker:
        await announce(
            ready,
            {"mqtt_host": "127.0.0.1", "mqtt_port": broker.port, "mqtt_url": broker.url},
            tr(
                f"broker: {broker.url} (for demo and tests only: anonymous, in memory)",
                f"代理：{broker.url}（仅供演示与测试：匿名、不落盘）",
            ),
        )
        await until(stop, duration_s)
