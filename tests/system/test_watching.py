"""Watching over a brain: status, doctor, readiness and metrics of a real process."""

import asyncio
import json
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from aggregator.ledger import Ledger
from simulators.demo import Mill, command, stopping_all
from tests.servers.mosquitto import Mosquitto, running
from tests.system.mills import MOSQUITTO, replay_mill, until

pytestmark = pytest.mark.timeout(180)


def get(mill: Mill, path: str, token: str = "") -> tuple[int, str]:
    request = urllib.request.Request(f"http://127.0.0.1:{mill.port}{path}")
    if token:
        request.add_header("Authorization", f"Bearer {token}")
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


async def status(mill: Mill) -> dict[str, Any]:
    text = await command("aggregator", "status", str(mill.aggregator_toml), "--json")
    found: dict[str, Any] = json.loads(text)
    return found


async def doctor(mill: Mill) -> str:
    return await command("aggregator", "doctor", str(mill.aggregator_toml), may_fail=True)


async def origin_of_newest_energy(mill: Mill) -> None:
    """The newest row's origin is a batch that the ledger has, and a leaf of its log."""

    def ask(path: str) -> Any:
        return json.loads(get(mill, f"/api/v1{path}", mill.token)[1])

    def written() -> bool:
        """The series have been written."""
        return bool(ask("/series?measurement=ff_energy")["series"])

    await until(written, 60, mill)
    for firm, sees in (("mill", True), ("other", False)):
        made = await command(
            "aggregator", "token", str(mill.aggregator_toml), f"of-{firm}", "--firm", firm
        )
        token = made.splitlines()[0]

        def listed(token: str = token) -> str:
            return get(mill, "/api/v1/series?measurement=ff_energy", token)[1]

        def counts(token: str = token) -> bool:
            """The new token is known."""
            return get(mill, "/api/v1/series", token)[0] == 200

        await until(counts, 30, mill)
        assert bool(json.loads(listed())["series"]) is sees
    (series,) = ask("/series?measurement=ff_energy")["series"]
    (source,) = ask(f"/series/{series['id']}/provenance")["sources"]
    ledger = Ledger(mill.folder / "brain" / "data" / "ledger.db")
    try:
        (address,) = ledger.agents()
        kept = {batch.digest.hex(): batch for batch in ledger.batches(0, 1000)}
        leaf = ledger.record.leaves(0, 1 << 40)[source["log_place"]]
    finally:
        ledger.close()
    assert source["agent"] == address.agent.hex()
    assert source["digest"] in kept
    assert leaf.digest.hex() == source["digest"]
    assert source["policy_version"] == 1


async def test_a_brain_says_how_it_and_its_factories_do(tmp_path: Path) -> None:
    with running(tmp_path / "mosquitto", MOSQUITTO) as broker:
        recording = ("--generate", "96", "--seed", "1")
        async with replay_mill(tmp_path, broker, "mqtt311", *recording) as (mill, _):
            before = await doctor(mill)
            assert "not running" in before
            assert "FAULT" not in before
            mill.port = (await mill.start("aggregator"))["port"]
            mill.token = (tmp_path / "brain/keys/api.token").read_text("ascii").strip()
            (agent,) = (await status(mill))["agents"]
            assert (agent["name"], agent["state"], agent["value_age_s"]) == (
                "mill",
                "awaited",
                None,
            )

            await mill.start("agent", ready=False)

            def delivered() -> bool:
                """All slots of the recording are kept."""
                _, text = get(mill, "/api/v1/metrics", mill.token)
                return any(
                    line.startswith("millgate_values_total{") and line.endswith(" 96")
                    for line in text.splitlines()
                )

            await until(delivered, 60, mill)
            found = await status(mill)
            (agent,) = found["agents"]
            # The recording's slots are years old, but they came just now.
            assert (agent["state"], agent["policy_version"], agent["values"]) == ("late", 1, 96)
            assert found["broker"]
            assert not found["store_fault"]
            await origin_of_newest_energy(mill)
            assert get(mill, "/healthz") == (200, "ok\n")
            assert get(mill, "/readyz") == (200, "ready\n")
            assert get(mill, "/api/v1/metrics")[0] == 401

            await asyncio.to_thread(broker.kill)
            await until(lambda: get(mill, "/readyz") == (503, "not ready\n"), 60, mill)
            after = await doctor(mill)
            assert "FAULT" in after
            assert f"127.0.0.1:{broker.port}" in after
            assert get(mill, "/healthz") == (200, "ok\n")


async def test_a_doctor_names_an_open_key_and_a_port_that_is_taken(
    tmp_path: Path, mosquitto: Mosquitto
) -> None:
    mill = Mill(tmp_path)
    port = ("--broker-port", str(mosquitto.port))
    async with stopping_all(mill):
        # The broker's own port cannot be listened on a second time.
        await command(
            "aggregator", "init", str(tmp_path / "brain"), "--api-port", str(mosquitto.port), *port
        )
        key = tmp_path / "brain" / "keys" / "receipt.key"
        key.chmod(0o644)
        found = " ".join((await doctor(mill)).split())
        assert "receipt.key" in found
        assert f"127.0.0.1:{mosquitto.port}: Address already in use" in found
        assert found.count("FAULT") == 2
