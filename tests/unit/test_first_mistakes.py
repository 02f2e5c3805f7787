"""What goes wrong on the first evening: each is one line that says what, where and how to mend it."""

import socket
from pathlib import Path

import pytest

from agent.registry import Registry
from aggregator.cli import app as brain_app
from protocols.https import Unreachable, ask_server, unbelieving
from security.cards import read_brain_card
from security.evidence import NotABundle, reading
from security.keys import create_key_file
from tests.mill_folder import call, make_mill, told
from tests.unit.test_agent_points import DEVICES
from tests.unit.test_officer_tools import Desk

ROOT = Path(__file__).parents[2]
ROOMS = ("agent", "aggregator", "protocols", "security")


@pytest.mark.parametrize("name", ["signing", "gate", "attestation"])
def test_an_agent_whose_key_file_others_can_read_says_so_and_does_not_start(
    tmp_path: Path, name: str
) -> None:
    path = make_mill(tmp_path, DEVICES)
    key = path.parent / "keys" / f"{name}.key"
    key.chmod(0o644)
    done = call("run", path)
    assert told(done) == f"{key}: the key is open to other users — chmod 600 {key}"


def test_a_data_folder_that_cannot_be_made_is_named_with_what_to_do(tmp_path: Path) -> None:
    path = make_mill(tmp_path, DEVICES)
    written = path.read_text(encoding="utf-8")
    (tmp_path / "file").touch()
    path.write_text(
        written.replace('folder = "data"', f'folder = "{tmp_path}/file/data"'), encoding="utf-8"
    )
    assert f"{tmp_path}/file/data: the folder cannot be made" in told(call("run", path))


def test_the_data_folder_is_private_whoever_looks_at_it_first(tmp_path: Path) -> None:
    Registry(tmp_path / "data" / "registry.json").close()
    assert (tmp_path / "data").stat().st_mode & 0o077 == 0


def test_the_next_step_is_not_one_that_was_done_already(tmp_path: Path) -> None:
    path = make_mill(tmp_path, DEVICES)
    assert f"next: millgate policy new {path}" in call("check", path).output
    draft = path.with_name("policy.toml")
    draft.touch()
    assert f"next: millgate policy lint {draft}" in call("check", path).output


def test_an_officer_is_told_at_once_when_a_signature_counts_for_nothing(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    stranger = tmp_path / "stranger.key"
    create_key_file(stranger, "ed25519")
    assert "does not count" in desk.run("sign", desk.text, "--key", stranger)
    desk.signed.unlink()
    assert "does not count" not in desk.run("sign", desk.text, "--key", desk.keys[0])


def test_an_officer_is_told_at_once_when_the_policy_is_over_already(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    desk.rewrite("2036-01-01", "2026-01-02")
    assert "Its time is over" in desk.run("sign", desk.text, "--key", desk.keys[0])


async def test_a_server_that_is_not_there_is_told_in_words() -> None:
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        url = f"https://127.0.0.1:{reserved.getsockname()[1]}/x"
        with pytest.raises(Unreachable, match="the server cannot be reached"):
            await ask_server(url, unbelieving(), 1000)


def test_a_bundle_that_is_not_there_is_not_called_damaged(tmp_path: Path) -> None:
    with pytest.raises(NotABundle, match="cannot be read") as told, reading(tmp_path / "none.zip"):
        pass
    assert "Errno" not in str(told.value)


def test_no_process_logs_under_a_name_of_which_nothing_is_written() -> None:
    """A module run with -m is called `__main__`, and of others' loggers only the name is written."""
    started = [
        path
        for room in ROOMS
        for path in (ROOT / room).rglob("*.py")
        if 'if __name__ == "__main__"' in path.read_text(encoding="utf-8")
    ]
    assert {path.stem for path in started} >= {"gate_app", "sealed_app", "supervisor"}
    for path in started:
        assert "getLogger(__name__)" not in path.read_text(encoding="utf-8"), path


def test_the_brain_shows_the_keys_that_officers_compare_by_phone(tmp_path: Path) -> None:
    folder = tmp_path / "brain"
    done = call("init", folder, "--host", "localhost", room=brain_app)
    assert done.exit_code == 0, done.output
    card = read_brain_card(folder / "brain.card")
    shown = call("authority", folder / "aggregator.toml", room=brain_app).output
    assert card.encryption_key.kid.hex() in shown
    assert card.receipt_key.kid.hex() in shown
