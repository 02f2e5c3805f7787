"""Health and metrics of an agent: for this machine, in public words unless somebody asks for more."""

import re
from collections.abc import Mapping
from copy import deepcopy
from typing import Any, Final

import aiohttp
import pytest

from agent.monitor import monitoring

SAMPLE: Final = re.compile(r'millgate_[a-z_]+(\{([a-z]+="[^"\n]*",?)+\})? [-+0-9.e]+')
REPORT: Final[dict[str, Any]] = {
    "policy": {"version": 3, "valid_until": 2_000_000_000, "in_force": True},
    "broker": {"connected": True, "receipts": 7},
    "outputs": {
        "released": 9,
        "acknowledged": 7,
        "waiting": 2,
        "refused": 0,
        "lost": 0,
        "waiting_batches": 1,
        "waiting_bytes": 4096,
    },
    "epoch": 2,
    "processes": {"gate": {"pid": 1, "restarts": 0}, "sealed": {"pid": 2, "restarts": 5}},
    "devices": [
        {
            "id": "secret-press",
            "connected": True,
            "age_s": 0.5,
            "losses": 1,
            "withheld": ["secret_recipe"],
            "account": {
                "produced": 31415,
                "consumed": 9,
                "withheld": 31400,
                "open": 4,
                "dropped": {"late": 2},
            },
        }
    ],
}


async def ask(
    report: Mapping[str, Any], path: str, *, devices: bool = False, **headers: str
) -> tuple[int, str]:
    async def told() -> dict[str, Any]:
        return deepcopy(dict(report))

    async with (
        monitoring(0, told, devices=devices) as port,
        aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=20)) as session,
        session.get(f"http://127.0.0.1:{port}{path}", headers=headers) as answer,
    ):
        return answer.status, await answer.text()


async def test_metrics_can_be_read_and_count_slots_not_samples() -> None:
    status, text = await ask(REPORT, "/metrics")
    assert status == 200
    for line in text.splitlines():
        assert line.startswith("# ") or SAMPLE.fullmatch(line), line
    assert 'millgate_agent_values{place="released"} 9' in text
    assert 'millgate_agent_restarts_total{side="sealed"} 5' in text
    assert "millgate_agent_up 1" in text


async def test_what_is_withheld_is_not_in_metrics_unless_they_are_asked_for_devices() -> None:
    _, text = await ask(REPORT, "/metrics")
    for word in ("secret", "31415", "31400", "device"):
        assert word not in text
    _, more = await ask(REPORT, "/metrics", devices=True)
    assert 'millgate_agent_samples{device="secret-press",place="produced"} 31415' in more
    assert 'millgate_agent_samples_dropped{device="secret-press",reason="late"} 2' in more
    # Points have no name in either.
    assert "secret_recipe" not in more


@pytest.mark.parametrize(
    ("change", "status", "why"),
    [
        ({}, 200, "ready\n"),
        ({"policy": None}, 503, "not ready: policy\n"),
        ({"policy": {**REPORT["policy"], "in_force": False}}, 503, "not ready: halted\n"),
        ({"broker": {"connected": False}}, 503, "not ready: broker\n"),
    ],
)
async def test_ready_says_in_a_word_why_not(change: dict[str, Any], status: int, why: str) -> None:
    assert await ask({**REPORT, **change}, "/readyz") == (status, why)
    assert await ask({**REPORT, **change}, "/healthz") == (200, "ok\n")


async def test_an_agent_that_has_just_started_has_metrics_without_what_is_not_known() -> None:
    status, text = await ask({"policy": None, "problem": "", "processes": {}}, "/metrics")
    assert status == 200
    assert "millgate_agent_up 0" in text
    assert "\nmillgate_agent_epoch " not in text


async def test_a_page_under_another_name_and_other_paths_get_nothing() -> None:
    assert (await ask(REPORT, "/metrics", Host="evil.example"))[0] == 400
    assert (await ask(REPORT, "/status"))[0] == 404
