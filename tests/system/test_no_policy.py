"""Fail closed: without a policy that may be enforced nothing leaves, and one plain line says why."""

import asyncio
import hashlib
import urllib.request
from pathlib import Path

import pytest

from aggregator.ledger import Ledger
from simulators.demo import Mill, command
from simulators.servers.programs import free_port
from tests.servers.mosquitto import running
from tests.system.mills import MOSQUITTO, edit, release, replay_mill, rows, sign, until
from tests.system.spy import Spy

QUIET_S = 4.0

pytestmark = pytest.mark.timeout(240)


def said(mill: Mill) -> list[str]:
    lines = (mill.folder / "agent.log").read_text("utf-8").splitlines()
    return [line for line in lines if "nothing leaves" in line]


async def said_so_often(mill: Mill, count: int) -> None:
    """Wait for a line that says why nothing leaves, and for what else might come."""
    await until(lambda: len(said(mill)) >= count, 30, mill)
    await asyncio.sleep(QUIET_S / 2)
    assert len(said(mill)) == count


async def test_nothing_leaves_without_a_right_policy_and_everything_once_there_is_one(
    tmp_path: Path,
) -> None:
    with running(tmp_path / "mosquitto", MOSQUITTO) as broker:
        spy = await asyncio.to_thread(Spy, broker.port)
        async with replay_mill(tmp_path, broker, "mqtt311", "--generate", "96", "--seed", "1") as (
            mill,
            _,
        ):
            folder = mill.folder / "mill"
            good = (folder / "policy.signed").read_bytes()
            text = (folder / "policy.toml").read_text("utf-8")
            await mill.start("aggregator")

            (folder / "policy.signed").unlink()
            await mill.start("agent", ready=False)
            await said_so_often(mill, 1)
            assert "there is no signed policy" in said(mill)[0]

            # Signed by somebody whom the agent does not trust.
            await command("keys", "officer", str(tmp_path / "stranger.key"))
            stranger = ("--key", str(tmp_path / "stranger.key"))
            await command("policy", "sign", str(folder / "policy.toml"), *stranger)
            await said_so_often(mill, 2)
            assert "not signed by enough of the trusted officers" in said(mill)[1]

            # Signed rightly, but for a brain whose keys nobody here has.
            key = text.split('encryption_key = "sha256:')[1][:64]
            edit(folder / "policy.toml", f"sha256:{key}", "sha256:" + "0" * 64)
            await sign(mill)
            await said_so_often(mill, 3)
            assert "pins" in said(mill)[2]

            # Damaged on the disk.
            (folder / "policy.signed").write_bytes(good[:-1])
            await said_so_often(mill, 4)

            assert spy.messages == 0
            assert not (folder / "data" / "spool.db").exists()

            (folder / "policy.signed").write_bytes(good)

            def complete() -> bool:
                """all slots arrived"""
                found = rows(mill, "future_factory", "ff_energy")
                return bool(found) and len(found[0][1]) == 96

            await until(complete, 60, mill)
        await asyncio.to_thread(spy.stop)


def read(port: int, path: str) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/{path}", timeout=20) as answer:
        found: str = answer.read().decode()
    return found


async def test_a_changed_address_suspends_the_point_and_says_so(tmp_path: Path) -> None:
    with running(tmp_path / "mosquitto", MOSQUITTO) as broker:
        async with replay_mill(tmp_path, broker, "mqtt311", "--generate", "96", "--seed", "1") as (
            mill,
            _,
        ):
            edit(mill.agent_toml, '\naddress = "holding:0"', '\naddress = "holding:6"')
            await mill.start("aggregator")
            await mill.start("agent", ready=False)
            log = mill.folder / "agent.log"
            await until(lambda: "steel-meter/energy" in log.read_text("utf-8"), 60, mill)
            await asyncio.sleep(QUIET_S)
            assert rows(mill, "future_factory", "ff_energy") == []
            assert rows(mill, "future_factory", "ff_reading") == []


async def test_a_newer_policy_takes_over_while_running_and_a_bad_one_changes_nothing(
    tmp_path: Path,
) -> None:
    with running(tmp_path / "mosquitto", MOSQUITTO) as broker:
        async with replay_mill(tmp_path, broker, "mqtt311", "--generate", "400", "--seed", "1") as (
            mill,
            _,
        ):
            folder = mill.folder / "mill"
            log = mill.folder / "agent.log"
            port = free_port()
            edit(mill.agent_toml, "[broker]\n", f"[monitor]\nport = {port}\n\n[broker]\n")
            await mill.start("aggregator")
            await mill.start("agent", ready=False)

            def complete() -> bool:
                """all slots arrived"""
                found = rows(mill, "future_factory", "ff_energy")
                return bool(found) and len(found[0][1]) == 400

            await until(complete, 90, mill)
            # Machines that watch over the agent read the same from the real process.
            assert await asyncio.to_thread(read, port, "readyz") == "ready\n"
            metrics = await asyncio.to_thread(read, port, "metrics")
            assert 'millgate_agent_values{place="released"} 400' in metrics
            assert "device" not in metrics
            # An older one, however rightly signed, is not taken.
            (folder / "policy.signed").write_bytes(b"half a fi")
            await until(lambda: "version 1 stays in force" in log.read_text("utf-8"), 20, mill)
            edit(folder / "policy.toml", "\nversion = 1\n", "\nversion = 2\n")
            before = hashlib.sha256(
                (folder / "data" / "gate" / "policy.enforced").read_bytes()
            ).hexdigest()
            edit(folder / "policy.toml", 'previous = ""', f'previous = "sha256:{before}"')
            release(folder / "policy.toml", "steel-meter", "power", slot="15m", number=2)
            await sign(mill)
            await until(lambda: "version 2 is enforced" in log.read_text("utf-8"), 20, mill)

            def second_sheet() -> bool:
                """the brain knows the new sheet"""
                ledger = Ledger(mill.folder / "brain" / "data" / "ledger.db")
                try:
                    return [len(ledger.sheets(n)) for n in ledger.agents().values()] == [2]
                finally:
                    ledger.close()

            await until(second_sheet, 30, mill)
            await mill.stop("agent")
            report = await command(
                "reconcile",
                "--agent",
                str(mill.agent_toml),
                "--aggregator",
                str(mill.aggregator_toml),
            )
            assert "the account holds" in report
