"""Keys at rest: encrypted, handed over by the service manager, or refused; and no text shows them."""

import contextlib
import os
import pty
import subprocess
import sys
import traceback
from pathlib import Path

import pytest

from protocols.checkup import Grade
from protocols.places import NoCredential, located, under
from security import at_rest
from security.at_rest import (
    KeyFault,
    KeyKind,
    Unlock,
    encrypt_file,
    from_place,
    is_encrypted,
    read_key,
    read_passphrase,
)
from security.key_checkup import look_at_keys
from security.keys import create_key_file, load_key_file, load_signing_key
from security.secret import Secret
from tests.unit.test_keys import shows

KINDS: tuple[KeyKind, ...] = ("ed25519", "p256", "xwing", "aes256", "mldsa65")
OTHER = Secret(b"another passphrase")
WORDS = Secret(b"twelve words that nobody guesses")


@pytest.fixture(autouse=True)
def cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every guess is to cost a lot; every test is not. The file says what it cost."""
    monkeypatch.setattr(at_rest, "COST", 10)


def unlock(_: Path) -> Secret[bytes]:
    return WORDS


def words_in(folder: Path, words: bytes = WORDS.reveal(), mode: int = 0o600) -> Path:
    path = folder / "passphrase"
    path.write_bytes(words + b"\n")
    path.chmod(mode)
    return path


@pytest.mark.parametrize("kind", KINDS)
def test_an_encrypted_key_is_loaded_again_with_its_passphrase(
    tmp_path: Path, kind: KeyKind
) -> None:
    path = tmp_path / "one.key"
    made = create_key_file(path, kind, WORDS)
    assert is_encrypted(path)
    assert load_key_file(path, kind, unlock).reveal() == made.reveal()
    assert not shows(path.read_text("ascii"), made.reveal())
    assert "BEGIN ENCRYPTED PRIVATE KEY" in path.read_text("ascii")


@pytest.mark.parametrize("kind", KINDS)
def test_a_plain_key_is_encrypted_in_its_place_and_stays_the_same_key(
    tmp_path: Path, kind: KeyKind
) -> None:
    path = tmp_path / "one.key"
    made = create_key_file(path, kind)
    assert not is_encrypted(path)
    encrypt_file(path, WORDS)
    assert read_key(path, unlock)[0] == kind
    assert read_key(path, unlock)[1].reveal() == made.reveal()
    assert path.stat().st_mode & 0o777 == 0o600
    assert [one.name for one in tmp_path.iterdir()] == ["one.key"]


def test_the_same_key_and_passphrase_never_give_the_same_file(tmp_path: Path) -> None:
    path = tmp_path / "one.key"
    create_key_file(path, "xwing", WORDS)
    before = path.read_bytes()
    encrypt_file(path, WORDS, unlock)
    assert path.read_bytes() != before


def test_a_wrong_passphrase_is_a_plain_fault_that_shows_neither_key_nor_passphrase(
    tmp_path: Path,
) -> None:
    path = tmp_path / "one.key"
    made = create_key_file(path, "ed25519", WORDS)
    with pytest.raises(KeyFault, match="passphrase is wrong") as caught:
        load_key_file(path, "ed25519", lambda _: OTHER)
    text = "".join(
        traceback.TracebackException.from_exception(caught.value, capture_locals=True).format()
    )
    assert not shows(text, made.reveal())
    assert "twelve words" not in text
    assert "another passphrase" not in text


def test_an_encrypted_key_without_a_passphrase_says_how_to_give_one(tmp_path: Path) -> None:
    create_key_file(tmp_path / "one.key", "ed25519", WORDS)
    with pytest.raises(KeyFault, match="no passphrase is configured"):
        load_key_file(tmp_path / "one.key", "ed25519")


def test_an_encrypted_key_of_one_kind_does_not_pass_as_another_by_its_first_line(
    tmp_path: Path,
) -> None:
    path = tmp_path / "one.key"
    create_key_file(path, "xwing", WORDS)
    path.write_text(path.read_text("ascii").replace(" xwing ", " ed25519 "), "ascii")
    with pytest.raises(KeyFault):
        load_key_file(path, "ed25519", unlock)


@pytest.mark.parametrize("cut", [0, 20, 75, 200, -20, -1])
def test_a_damaged_encrypted_key_is_refused(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "one.key"
    create_key_file(path, "ed25519", WORDS)
    data = bytearray(path.read_bytes())
    data[cut - (cut < 0)] ^= 0x15
    path.write_bytes(bytes(data))
    with pytest.raises(KeyFault):
        load_key_file(path, "ed25519", unlock)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o644])
def test_a_passphrase_that_others_can_read_is_refused(tmp_path: Path, mode: int) -> None:
    with pytest.raises(KeyFault, match="chmod 600"):
        read_passphrase(words_in(tmp_path, mode=mode))


@pytest.mark.parametrize("words", [b"", b"short", b"eleven char"])
def test_a_passphrase_that_protects_nothing_is_refused(tmp_path: Path, words: bytes) -> None:
    with pytest.raises(KeyFault, match="at least 12") as caught:
        read_passphrase(words_in(tmp_path, words))
    assert not words or words.decode() not in str(caught.value)


def test_a_key_file_without_end_is_not_read_to_its_end(tmp_path: Path) -> None:
    with (tmp_path / "one.key").open("wb") as file:
        file.truncate(1 << 40)
    (tmp_path / "one.key").chmod(0o600)
    with pytest.raises(KeyFault):
        read_key(tmp_path / "one.key")


# Credentials of the service manager.


@pytest.fixture
def credentials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "credentials"
    folder.mkdir(mode=0o700)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(folder))
    return folder


@pytest.mark.parametrize("mode", [0o400, 0o440])
def test_a_credential_is_taken_as_systemd_hands_it_over(credentials: Path, mode: int) -> None:
    """For a unit with a user of its own, the access list's mask shows as the group's bits."""
    made = create_key_file(credentials / "signing", "ed25519")
    (credentials / "signing").chmod(mode)
    place = Path("credential:signing")
    assert load_key_file(place, "ed25519").reveal() == made.reveal()


@pytest.mark.parametrize("mode", [0o444, 0o460, 0o404, 0o401])
def test_a_credential_that_everybody_can_reach_is_refused(credentials: Path, mode: int) -> None:
    create_key_file(credentials / "signing", "ed25519")
    (credentials / "signing").chmod(mode)
    with pytest.raises(KeyFault, match="open to other users"):
        load_signing_key(Path("credential:signing"))


def test_a_passphrase_may_be_a_credential(credentials: Path, tmp_path: Path) -> None:
    words_in(credentials, mode=0o400)
    made = create_key_file(tmp_path / "one.key", "aes256", WORDS)
    give: Unlock = from_place(Path("credential:passphrase"))
    assert load_key_file(tmp_path / "one.key", "aes256", give).reveal() == made.reveal()


@pytest.mark.parametrize("name", ["", "../signing", "a/b", ".", "..", "a b", "/etc/passwd"])
def test_the_name_of_a_credential_leads_nowhere_else(credentials: Path, name: str) -> None:
    (credentials.parent / "signing").write_text("")
    with pytest.raises(NoCredential):
        located(Path(f"credential:{name}"))


def test_without_credentials_it_says_which_line_the_unit_lacks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    with pytest.raises(NoCredential, match="LoadCredentialEncrypted=signing:"):
        load_signing_key(Path("credential:signing"))


def test_names_do_not_count_from_the_folder_of_the_configuration() -> None:
    folder = Path("/somewhere")
    assert under(folder, Path("keys/one.key")) == folder / "keys/one.key"
    assert under(folder, Path("/keys/one.key")) == Path("/keys/one.key")
    for name in ("credential:signing", "token:/run/signer.sock"):
        assert str(under(folder, Path(name))) == name


# What people see.


def test_doctor_warns_of_plain_keys_and_of_no_others(credentials: Path, tmp_path: Path) -> None:
    for name, words in (("plain", None), ("other", None), ("closed", WORDS)):
        create_key_file(tmp_path / name, "ed25519", words)
    create_key_file(credentials / "handed", "ed25519")
    places = {name: tmp_path / name for name in ("plain", "other", "closed")} | {
        "handed": Path("credential:handed")
    }

    def findings(*names: str) -> list[tuple[Grade, str]]:
        keys = {
            places[name]: lambda name=name: load_signing_key(places[name], unlock) for name in names
        }
        return [(one.grade, one.what) for one in look_at_keys(keys)]

    assert {grade for grade, _ in findings("closed", "handed")} == {Grade.GOOD}
    grade, what = findings("plain", "closed", "other")[-1]
    assert grade is Grade.NOTICE
    assert "plain, other" in what
    assert "closed" not in what
    (tmp_path / "plain").chmod(0o644)
    assert findings("plain")[0][0] is Grade.FAULT


def encrypt_command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "millgate", "keys", "encrypt", *arguments]


def test_keys_are_encrypted_by_a_command_that_takes_the_passphrase_from_a_file(
    tmp_path: Path,
) -> None:
    made = create_key_file(tmp_path / "one.key", "ed25519")
    words = words_in(tmp_path)
    command = encrypt_command(str(tmp_path / "one.key"), "--passphrase-file", str(words))
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert "one.key: encrypted" in done.stdout
    assert not shows(done.stdout + done.stderr, made.reveal())
    assert "twelve words" not in done.stdout + done.stderr
    assert (
        (tmp_path / "one.key")
        .read_text("ascii")
        .startswith("millgate-private-key/1 ed25519 scrypt 15 ")
    )
    assert load_key_file(tmp_path / "one.key", "ed25519", unlock).reveal() == made.reveal()
    again = subprocess.run(
        command, capture_output=True, text=True, timeout=60, check=False, stdin=subprocess.DEVNULL
    )
    assert again.returncode == 1
    assert "no passphrase is configured" in again.stderr


def test_a_passphrase_is_asked_for_on_a_terminal_and_not_shown(tmp_path: Path) -> None:
    create_key_file(tmp_path / "one.key", "ed25519")
    ours, theirs = pty.openpty()
    command = encrypt_command(str(tmp_path / "one.key"))
    # Without a terminal of its own to control, it asks where its input comes from.
    with subprocess.Popen(
        command, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True
    ) as process:
        os.close(theirs)
        seen = b""
        for _ in range(2):
            while not seen.rstrip().endswith(b":"):
                seen += os.read(ours, 1024)
            seen += b"|"
            os.write(ours, WORDS.reveal() + b"\n")
        with contextlib.suppress(OSError):  # how a terminal whose other side is closed ends
            while part := os.read(ours, 1024):
                seen += part
        assert process.wait(60) == 0, seen
    os.close(ours)
    assert b"twelve words" not in seen
    assert is_encrypted(tmp_path / "one.key")
