"""`aggregator doctor`: looks over an installation and says what to mend."""

import asyncio
import socket
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, Final
from zoneinfo import ZoneInfo

from aggregator.alarms import Severity
from aggregator.alarms_cli import local_moments
from aggregator.api.scopes import read_tokens
from aggregator.app import make_stores, read_token
from aggregator.authority import open_authority
from aggregator.config import AggregatorConfig
from aggregator.expiry import own_certificates
from aggregator.ledger import Ledger
from aggregator.rules import read_rules
from protocols.checkup import (
    MEGABYTE,
    Finding,
    Grade,
    broker,
    checked,
    clock,
    disk,
    private,
)
from protocols.errors import ConfigError
from protocols.frame import SECOND
from protocols.language import counted, tr
from protocols.status import NotRunning, ask
from protocols.tls import server_context
from security.key_checkup import look_at_certificate, look_at_keys

_ROOM: Final = 1024 * MEGABYTE
_LAG_S: Final = 300
_MOST_ALARMS: Final = 20


async def examine(config: AggregatorConfig) -> list[Finding]:
    """Return what was found; nothing is changed and no process is disturbed."""
    findings = [*_rules(config), *_keys(config), *_factories(config), *_certificates(config)]
    findings += _servers(config)
    newest_s = await asyncio.to_thread(_newest_s, config.ledger)
    findings += [private(config.ledger.parent), disk(config.ledger.parent, _ROOM), *clock(newest_s)]
    connected = await asyncio.to_thread(_connected, config)
    findings += [await broker(one, connected=one.place in connected) for one in config.brokers]
    findings += _process(config)
    return findings


def _rules(config: AggregatorConfig) -> Iterator[Finding]:
    """Look at what series are computed with, by what the next start reads it with."""
    subject = tr("rules", "规则")
    try:
        read_rules(config)
    except ConfigError as error:
        yield from (Finding.of(subject, fault) for fault in error.faults)
    else:
        yield Finding(
            Grade.GOOD, subject, tr("factors, tariff, grading", "因子、分时电价、碳效评价")
        )


def _servers(config: AggregatorConfig) -> Iterator[Finding]:
    """Look whether every server of ours could show its certificate, with the key that is its own."""
    subject, api, enrolment = "TLS", config.api, config.enrolment
    if api.certificate is not None and api.private_key is not None:
        yield checked(subject, "[api]", partial(server_context, api.certificate, api.private_key))
    if enrolment is None:
        return
    yield checked(subject, str(enrolment.authority), partial(open_authority, config))
    if enrolment.certificate.exists():
        # Else it is made when the aggregator starts.
        pair = enrolment.certificate, enrolment.private_key
        yield checked(subject, "[enrolment]", partial(server_context, *pair))


def _certificates(config: AggregatorConfig) -> Iterator[Finding]:
    """Look at every certificate that connections of ours depend on."""
    remedy = tr(
        "one of our own authority is renewed when the aggregator starts; else give a new one",
        "由自有证书机构签发的证书在聚合器启动时续签；否则请更换",
    )
    now_s = time.time_ns() // SECOND
    for _, path in own_certificates(config):
        yield look_at_certificate(path, now_s, remedy)


def _newest_s(path: Path) -> int | None:
    """Return the last time on record, seconds since 1970 UTC; None before the first.

    Not the largest: a clock that was ahead and is right now would look wrong until then.
    """
    if not path.exists():
        return None
    ledger = Ledger(path)
    try:
        return ledger.last_received() or None
    finally:
        ledger.close()


def _connected(config: AggregatorConfig) -> set[str]:
    """Return the places of the brokers that the running process is connected to."""
    try:
        report = ask(config.socket)
    except NotRunning:
        return set()
    if not report["broker"]:
        return set()
    # Of several, those that are not connected are named in the fault.
    return {one.place for one in config.brokers if one.place not in report["broker_fault"]}


def _keys(config: AggregatorConfig) -> Iterator[Finding]:
    subject = tr("keys", "密钥")
    brain = config.brain
    yield from look_at_keys({brain.encryption_key: brain.opening, brain.receipt_key: brain.signer})
    token, tokens = config.api.token_file, config.api.tokens
    yield checked(subject, str(token), lambda: read_token(token))
    yield checked(subject, str(tokens), lambda: read_tokens(tokens))


def _factories(config: AggregatorConfig) -> Iterator[Finding]:
    subject = tr("factories", "工厂")
    try:
        found = config.factories()
    except ConfigError as error:
        yield from (Finding.of(subject, fault) for fault in error.faults)
        return
    if not found:
        what = tr(f"{config.brain.factories}: no card", f"{config.brain.factories}：没有名片")
        remedy = tr("put an agent's card there as NAME.card", "请将代理程序名片以 NAME.card 放入")
        yield Finding(Grade.NOTICE, subject, what, remedy)
        return
    names = sorted({factory.enterprise for factory in found.values()})
    said = tr(
        f"{counted(len(found), 'agent')} of {counted(len(names), 'firm')}",
        f"{len(names)} 家企业 {len(found)} 个代理程序",
    )
    yield Finding(Grade.GOOD, subject, said)


def _process(config: AggregatorConfig) -> Iterator[Finding]:
    """Check what a running process knows; where none runs, what it will need."""
    subject = tr("process", "进程")
    try:
        report = ask(config.socket)
    except NotRunning:
        yield Finding(
            Grade.NOTICE,
            subject,
            tr("not running", "未运行"),
            f"millgate aggregator run {config.path}",
        )
        yield _port(config.api.host, config.api.port, "[api]")
        if config.enrolment is not None:
            yield _port(config.enrolment.host, config.enrolment.port, "[enrolment]")
        yield _store(config)
        return
    yield Finding(Grade.GOOD, subject, tr("running", "运行中"))
    if not report["broker"]:
        remedy = tr("see the finding about the broker", "见关于消息代理的结果")
        yield Finding(Grade.FAULT, subject, tr("no broker", "未连接消息代理"), remedy)
    if report["store_fault"]:
        remedy = tr("receipts go on meanwhile; series follow", "期间回执照常，序列稍后补齐")
        yield Finding(Grade.FAULT, tr("store", "存储"), str(report["store_fault"]), remedy)
    if report["erasure_waits"]:
        said = local_moments(report["erasure_waits"], ZoneInfo(config.local.zone))
        yield Finding(Grade.NOTICE, tr("retention", "保存期限"), said)
    yield from _alarms(report["alarms"])
    lag = tr(f"{report['waiting']} batch(es) behind", f"落后 {report['waiting']} 个批次")
    grade = Grade.NOTICE if report["waiting_s"] > _LAG_S else Grade.GOOD
    yield Finding(grade, tr("series", "序列"), lag)


def _alarms(alarms: list[dict[str, Any]]) -> Iterator[Finding]:
    """Tell what the running process warns of: a fault is a fault here as well."""
    subject = tr("alarms", "告警")
    if not alarms:
        yield Finding(Grade.GOOD, subject, tr("none", "无"))
    for one in alarms[:_MOST_ALARMS]:
        grade = Grade.FAULT if one["severity"] == Severity.FAULT else Grade.NOTICE
        who = one["name"] or tr("the brain", "产业大脑")
        said = f"{who}: {one['kind']}: {tr(one['text']['en'], one['text']['zh'])}"
        remedy = tr(
            "see 'Early warning' in docs/operations.md", "见 docs/operations.zh-CN.md“预警”"
        )
        yield Finding(grade, subject, said, remedy)


def _port(host: str, port: int, table: str) -> Finding:
    subject, place = tr("port", "端口"), f"{host}:{port}"
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            remedy = tr(f"choose another {table} host or port", f"请更换 {table} 的 host 或 port")
            return Finding(Grade.FAULT, subject, f"{place}: {error.strerror}", remedy)
    return Finding(Grade.GOOD, subject, place)


def _store(config: AggregatorConfig) -> Finding:
    subject, place = tr("store", "存储"), getattr(config.store, "path", None)
    if isinstance(place, Path) and not place.exists():
        # Opening would make it, and as whoever asks here.
        return Finding(
            Grade.GOOD, subject, tr(f"{place}: made at the first start", f"{place}：首次启动时建立")
        )
    return checked(subject, config.store.kind, lambda: _touch_store(config))


def _touch_store(config: AggregatorConfig) -> None:
    for store in make_stores(config).values():
        try:
            store.series("health")
        finally:
            store.close()
