"""`agent doctor`: looks over an installation and says what to mend."""

import asyncio
import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from agent.authority import usable_policy
from agent.config import AgentConfig, no_devices
from agent.registry import Registry
from agent.unheard import unheard
from protocols.checkup import Finding, Grade, broker, clock, disk, private
from protocols.drivers import DeviceConfig, load
from protocols.errors import MillgateError
from protocols.frame import SECOND
from protocols.language import tr
from protocols.status import NotRunning, ask
from security.key_checkup import look_at_certificate, look_at_keys
from security.policy.bundle import NoPolicy
from security.policy.gate import Gate

_FIRST_FRAME_S: Final = 15.0
_AT_ONCE: Final = 8
_DAYS_LEFT: Final = 14
_DAY_S: Final = 86400


async def examine(config: AgentConfig) -> list[Finding]:
    """Return what was found; a running agent is asked, not disturbed.

    Where none runs, each device is read once: what it says is thrown away.
    """
    registry = Registry(config.spool.folder / "registry.json")
    folder = config.spool.folder
    findings = [*_keys(config), *_policy(config, registry)]
    if config.broker.certificate is not None:
        findings.append(_certificate(config.broker.certificate))
    findings += [private(folder), disk(folder, config.spool.max_bytes + config.spool.archive_bytes)]
    findings += clock(registry.newest_s)
    report = await asyncio.to_thread(_ask, config)
    used = (report or {}).get("broker", {})
    for one in config.brokers:
        connected = bool(used.get("connected")) and used.get("place") == one.place
        findings.append(await broker(one, connected=connected))
    if report is None:
        remedy = f"millgate agent run {config.path}"
        findings.append(
            Finding(Grade.NOTICE, tr("process", "进程"), tr("not running", "未运行"), remedy)
        )
        return [*findings, *await _devices(config)]
    return [*findings, *_process(report)]


def _ask(config: AgentConfig) -> dict[str, Any] | None:
    try:
        return ask(config.socket)
    except NotRunning:
        return None


def _certificate(path: Path) -> Finding:
    remedy = tr(
        "it is renewed by itself while the agent runs and reaches [identity] enrolment; else join again",
        "代理程序运行且可访问 [identity] enrolment 时会自动续签；否则请重新接入",
    )
    return look_at_certificate(path, time.time_ns() // SECOND, remedy)


def _keys(config: AgentConfig) -> Iterator[Finding]:
    identity = config.identity
    gate, attestation = identity.gate_key, identity.attestation_key
    return look_at_keys(
        {
            identity.signing_key: identity.signer,
            gate: lambda: identity.load(gate, "aes256"),
            attestation: lambda: identity.load(attestation, "mldsa65"),
        }
    )


def _policy(config: AgentConfig, registry: Registry) -> Iterator[Finding]:
    subject = tr("policy", "策略")
    try:
        policy = usable_policy(config, registry).policy
    except NoPolicy as fault:
        yield Finding.of(subject, fault)
        return
    days = (policy.valid_until - time.time_ns() // SECOND) // _DAY_S
    said = tr(
        f"version {policy.version}, {days} days left", f"版本 {policy.version}，剩余 {days} 天"
    )
    if days < _DAYS_LEFT:
        remedy = tr("have a new version signed in time", "请及时签署新版本")
        yield Finding(Grade.NOTICE, subject, said, remedy)
    else:
        yield Finding(Grade.GOOD, subject, said)
    tables = {device.id: device.table() for device in config.devices}
    for line in Gate(policy, tables, time.time_ns).suspended:
        yield Finding(Grade.FAULT, subject, line)


async def _devices(config: AgentConfig) -> list[Finding]:
    nothing = no_devices(config)
    if nothing is not None:
        return [Finding.of(tr("devices", "设备"), nothing)]
    places = asyncio.Semaphore(_AT_ONCE)

    async def look(device: DeviceConfig) -> Finding:
        async with places:
            return await _device(device)

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(look(device), name=device.id) for device in config.devices]
    return [task.result() for task in tasks]


async def _device(device: DeviceConfig) -> Finding:
    subject = tr(f"device {device.id}", f"设备 {device.id}")
    try:
        driver = load(device.kind).Driver(device, time.time_ns)
        async with contextlib.aclosing(driver.frames()) as frames, asyncio.timeout(_FIRST_FRAME_S):
            await anext(frames)
    except MillgateError as fault:
        return Finding.of(subject, fault)
    except TimeoutError:
        remedy = tr("check the device, and its timeout", "请检查设备及 timeout 设置")
        what = tr("connected, but nothing came", "已连接，但没有数据")
        return Finding(Grade.FAULT, subject, what, remedy)
    return Finding(Grade.GOOD, subject, tr("answers", "有应答"))


def _process(report: dict[str, Any]) -> Iterator[Finding]:
    subject = tr("process", "进程")
    if report.get("policy") is None:
        problem = str(report.get("problem") or tr("starting", "正在启动"))
        yield Finding(Grade.FAULT, subject, problem)
        return
    yield Finding(Grade.GOOD, subject, tr("running", "运行中"))
    yield from _halt(report["policy"])
    for device in report["devices"]:
        name = tr(f"device {device['id']}", f"设备 {device['id']}")
        if device["connected"]:
            yield Finding(Grade.GOOD, name, tr("connected", "已连接"))
        else:
            yield Finding(Grade.FAULT, name, device["fault"] or tr("not connected", "未连接"))
        if device.get("skew"):
            yield Finding(Grade.NOTICE, name, device["skew"])
    yield from _brain_clock(report.get("brain_clock"))
    of_no_use = unheard(report, time.time())
    if of_no_use is not None:
        yield Finding(Grade.FAULT, tr("brain", "产业大脑"), *of_no_use)
    outputs = report["outputs"]
    waiting = tr(
        f"{outputs['waiting']} values wait for a receipt", f"{outputs['waiting']} 个值等待回执"
    )
    yield Finding(Grade.GOOD, tr("spool", "缓存"), waiting)
    if outputs["refused"]:
        what = tr(
            f"the brain refused {outputs['refused']} values",
            f"产业大脑拒收 {outputs['refused']} 个值",
        )
        remedy = tr("see the log for the code", "代码见日志")
        yield Finding(Grade.NOTICE, tr("brain", "产业大脑"), what, remedy)


def _halt(policy: dict[str, Any]) -> Iterator[Finding]:
    """Say that nothing leaves although the policy itself is in order; the remedy is in the line."""
    if policy.get("halted") and not policy.get("expired"):
        grade = Grade.NOTICE if policy.get("stopped") else Grade.FAULT
        why = policy["halted"]
        yield Finding(grade, tr("gate", "闸门"), tr(f"nothing leaves: {why}", f"不放行：{why}"))


def _brain_clock(found: dict[str, Any] | None) -> Iterator[Finding]:
    """Look at what the brain's signed answers say of our clock; the remedy is in the line itself."""
    subject = tr("clock", "时钟")
    if found is None:
        return
    if found["line"]:
        yield Finding(Grade.FAULT, subject, found["line"])
        return
    said = tr(
        f"{found['ahead_s']:+.1f} s against the brain's (give or take {found['within_s']:.1f} s)",
        f"与产业大脑相差 {found['ahead_s']:+.1f} 秒（误差 {found['within_s']:.1f} 秒）",
    )
    yield Finding(Grade.GOOD, subject, said)
