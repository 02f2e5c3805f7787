"""As a service: systemd's own tools accept the units, and hear that we are ready and live."""

import asyncio
import os
import re
import shutil
import socket
import subprocess
from pathlib import Path
from typing import Final

import pytest

from protocols import service
from protocols.errors import MillgateError
from protocols.unit import credentials_in, unit, write_unit

NAMES: Final = ("agent", "aggregator")
MOST_EXPOSED: Final = 2.5
"""On systemd's scale of 0 (safe) to 10; a service without any setting has 9.6."""

analyze = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed here"
)


def written(folder: Path, name: str) -> Path:
    path = folder / f"millgate-{name}.service"
    config = folder / f"{name}.toml"
    text = unit(name, config, [folder / "data", folder], "daemon", "en", ["signing", "gate"])
    # The machine that runs this may have neither the command nor the group.
    text = re.sub(r"(?m)^ExecStart=\S+", "ExecStart=/bin/true", text)
    path.write_text(text.replace("dialout", "root"), "utf-8")
    return path


@analyze
@pytest.mark.parametrize("name", NAMES)
def test_systemd_finds_no_fault_in_a_unit(tmp_path: Path, name: str) -> None:
    command = ["systemd-analyze", "verify", "--man=no", str(written(tmp_path, name))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    lines = [line for line in done.stderr.splitlines() if f"millgate-{name}" in line]
    assert lines == []


@analyze
@pytest.mark.parametrize("name", NAMES)
def test_systemd_finds_a_unit_well_shut(tmp_path: Path, name: str) -> None:
    command = ["systemd-analyze", "security", "--offline=true", "--no-pager"]
    done = subprocess.run(
        [*command, str(written(tmp_path, name))],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    found = re.search(r"exposure level.*?: (\d+\.\d+)", done.stdout)
    assert found is not None, done.stdout + done.stderr
    assert float(found[1]) <= MOST_EXPOSED


@pytest.mark.parametrize("name", NAMES)
def test_a_unit_may_write_where_the_configuration_says_and_nowhere_else(
    tmp_path: Path, name: str
) -> None:
    config = tmp_path / "here" / f"{name}.toml"
    text = unit(name, config, [tmp_path / "here" / "data", Path("/srv/far")], "mill", "zh")
    assert f"ReadWritePaths=/srv/far {tmp_path}/here\n" in text
    assert f"{name} run {config}\n" in text
    assert "Environment=MILLGATE_LANG=zh" in text
    assert "$MAINPID" not in text or "kill -HUP $MAINPID" in text
    assert text.count("$") == text.count("$MAINPID")
    for setting in ("ProtectSystem=strict", "NoNewPrivileges=yes", "WatchdogSec=", "User=mill"):
        assert setting in text


@pytest.mark.parametrize("name", NAMES)
def test_a_unit_hands_over_every_credential_that_the_configuration_names(
    tmp_path: Path, name: str
) -> None:
    asked = {"identity": {"signing_key": "credential:signing", "gate_key": "keys/gate.key"}}
    place = "pkcs11:token=a;object=b?module-path=/l.so&pin-source=credential:pin"
    names = credentials_in({**asked, "broker": [{"password_file": "credential:mq.tt"}, place, 5]})
    assert names == ["mq.tt", "pin", "signing"]
    text = unit(name, tmp_path / "x.toml", [tmp_path], "mill", "en", names)
    for one in names:
        assert f"\nLoadCredentialEncrypted={one}:/etc/credstore.encrypted/{one}\n" in text
    assert "LoadCredential" not in unit(name, tmp_path / "x.toml", [tmp_path], "mill", "en")


@pytest.mark.parametrize("word", ["a b", 'a"b', "a%b", "a$b", "a\nb", ""])
def test_a_word_that_a_unit_would_take_for_something_else_is_refused(
    tmp_path: Path, word: str
) -> None:
    with pytest.raises(MillgateError):
        unit("agent", tmp_path / "agent.toml", [], word, "en")


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> socket.socket:
    heard = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    heard.bind(str(tmp_path / "notify"))
    heard.settimeout(20)
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    return heard


def test_the_service_manager_hears_what_it_is_told(manager: socket.socket) -> None:
    assert service.tell(service.READY)
    assert manager.recv(100) == b"READY=1"
    manager.close()


def test_a_name_in_the_abstract_namespace_is_understood(monkeypatch: pytest.MonkeyPatch) -> None:
    name = f"millgate-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
        heard.bind(f"\0{name}")
        monkeypatch.setenv("NOTIFY_SOCKET", f"@{name}")
        assert service.tell(service.STOPPING)
        assert heard.recv(100) == b"STOPPING=1"


@pytest.mark.parametrize("path", ["", "relative", "/nowhere/at/all"])
def test_without_a_service_manager_nothing_happens(
    monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", path)
    assert not service.tell(service.READY)


async def test_it_is_told_that_we_live_only_while_we_do(
    manager: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "60000")
    monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()))
    asked, enough = 0, asyncio.Event()

    async def alive() -> bool:
        nonlocal asked
        asked += 1
        if asked == 5:
            enough.set()
        if asked == 4:
            await asyncio.sleep(9)  # hangs: that must not count as living
        return asked != 3

    async with asyncio.TaskGroup() as group:
        telling = group.create_task(service.keep_telling(alive))
        await enough.wait()
        telling.cancel()
    manager.setblocking(False)
    words = []
    while True:
        try:
            words.append(manager.recv(100))
        except BlockingIOError:
            break
    assert words == [b"WATCHDOG=1"] * len(words)
    assert len(words) in {asked - 2, asked - 3}
    manager.close()


async def test_a_process_that_nobody_watches_tells_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    async def alive() -> bool:
        raise AssertionError

    for usec, pid in (("", ""), ("0", str(os.getpid())), ("1000", "1")):
        monkeypatch.setenv("WATCHDOG_USEC", usec)
        monkeypatch.setenv("WATCHDOG_PID", pid or str(os.getpid()))
        async with asyncio.timeout(10):
            await service.keep_telling(alive)


@pytest.mark.parametrize("name", NAMES)
def test_a_unit_is_printed_or_written_and_a_file_that_cannot_be_is_named(
    tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / f"{name}.toml"
    config.write_text('key = "credential:signing"\n', "utf-8")
    write_unit(name, config, [tmp_path / "data"], "daemon", None)
    printed = capsys.readouterr().out
    assert "LoadCredentialEncrypted=signing:" in printed
    write_unit(name, config, [tmp_path / "data"], "daemon", tmp_path / "unit")
    assert (tmp_path / "unit").read_text("utf-8") == printed
    with pytest.raises(MillgateError, match=r"no/unit: the unit cannot be written — No such file"):
        write_unit(name, config, [], "daemon", tmp_path / "no" / "unit")
