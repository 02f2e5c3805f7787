"""Texts that are kept for whoever asks later, and told in their language."""

import asyncio
import logging
import socket
import time
from pathlib import Path

import pytest

from agent.collect import Collector
from protocols.drivers import read_devices
from protocols.errors import ConfigError, MillgateError
from protocols.frame import Frame
from protocols.language import counted, for_everyone, heard, heard_all, shortened, spoken_to, tr
from protocols.logs import JsonLines, TextLines
from protocols.status import ask, serving
from security.secret import Redacting


def both(text: str) -> tuple[str, str]:
    with spoken_to(chinese=False):
        english = heard(text)
    with spoken_to(chinese=True):
        return english, heard(text)


def test_a_text_for_everyone_is_told_in_the_language_of_whoever_asks() -> None:
    with for_everyone():
        inner = tr("no answer", "无应答")
        text = f"meter-1: {tr(f'lost ({inner})', f'中断（{inner}）')} — {tr('wait', '请等待')}"
    assert both(text) == ("meter-1: lost (no answer) — wait", "meter-1: 中断（无应答） — 请等待")


def test_a_fault_keeps_both_languages_and_prints_one() -> None:
    with for_everyone():
        fault = MillgateError(tr("lost", "中断"), where="m", remedy=tr("wait", "请等待"))
        several = ConfigError([fault, fault])
    for kept, english, chinese in (
        (fault, "m: lost — wait", "m: 中断 — 请等待"),
        (several, "m: lost — wait\nm: lost — wait", "m: 中断 — 请等待\nm: 中断 — 请等待"),
    ):
        assert both(kept.line) == (english, chinese)
        with spoken_to(chinese=True):
            assert str(kept) == chinese
        with spoken_to(chinese=False):
            assert f"{kept}" == english


def test_what_is_cut_off_or_made_up_still_reads_as_text() -> None:
    with for_everyone():
        text = tr("no answer", "无应答")
    assert both(text[:6]) == ("no an", "no an")
    assert both(shortened(text, 2)) == ("no", "无应")
    assert shortened("plain", 3) == "pla"
    assert both("\ufdd1a\ufdd2b\ufdd0c") == ("abc", "abc")


@pytest.mark.parametrize("lines", [TextLines(), JsonLines(), Redacting()])
def test_no_line_of_a_log_holds_both_languages(lines: logging.Formatter) -> None:
    with for_everyone():
        told = tr("lost", "中断")
    record = logging.LogRecord("agent.x", logging.ERROR, "x.py", 1, "%s", (told,), None)
    with spoken_to(chinese=True):
        line = lines.format(record)
    assert "中断" in line
    assert "lost" not in line
    assert heard(line) == line


def test_a_document_is_told_whole_in_one_language() -> None:
    with for_everyone():
        found = {"a": [tr("x", "甲"), 1, None], "b": {"c": tr("y", "乙")}}
    with spoken_to(chinese=True):
        assert heard_all(found) == {"a": ["甲", 1, None], "b": {"c": "乙"}}


async def test_a_devices_fault_is_told_in_the_language_of_who_asks_not_of_the_agent(
    tmp_path: Path,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    point = {"id": "p", "address": "holding:0", "type": "uint16"}
    place = {"host": "127.0.0.1", "port": port, "unit": 1, "interval": "1s"}
    table = {"id": "meter", "kind": "modbus", **place, "points": [point]}
    (device,) = read_devices([table], tmp_path / "agent.toml")
    collector, stop = Collector(device, time.time_ns), asyncio.Event()

    async def put(_: Frame) -> None:
        stop.set()

    async def until_lost() -> None:
        while not collector.state.fault:  # noqa: ASYNC110 - the collector tells nobody
            await asyncio.sleep(0.01)

    async def report() -> dict[str, str]:
        return {"fault": collector.state.fault}

    with for_everyone():
        running = asyncio.create_task(collector.run(put, stop))
    async with asyncio.timeout(20), serving(tmp_path / "status.sock", report):
        await until_lost()
        told = []
        for chinese in (False, True):
            with spoken_to(chinese=chinese):
                told.append((await asyncio.to_thread(ask, tmp_path / "status.sock"))["fault"])
        stop.set()
        await running
    english, chinese_text = told
    assert english.isascii() or "—" in english
    assert not any("一" <= sign <= "鿿" for sign in english)
    assert any("一" <= sign <= "鿿" for sign in chinese_text)


@pytest.mark.parametrize(
    ("count", "noun", "said"),
    [(0, "value", "0 values"), (1, "number", "1 number"), (2, "batch", "2 batches")],
)
def test_english_has_one_thing_and_several(count: int, noun: str, said: str) -> None:
    assert counted(count, noun) == said
    assert counted(2, "child", "children") == "2 children"
