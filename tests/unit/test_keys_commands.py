"""`millgate keys`: changing a key as two officers and an operator would, and backups."""

from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

import millgate
from agent.config import AgentConfig, read_config
from agent.keys_cli import app
from agent.listed_keys import ListedSigner, NoSuchKey, list_path, next_key
from aggregator.cli import app as aggregator_app
from protocols.errors import MillgateError
from security.at_rest import KeyFault
from security.backup import NoBackup, gather, pack, unpack, write_files
from security.cards import read_agent_card, write_card
from security.key_list import Mark, read_keys
from security.key_signing import PARTLY, SIGNED, mark_text, read_mark
from security.keys import SigningKey, create_key_file, load_signing_key
from security.schemes import P256
from security.secret import Secret
from tests.small_factory import Agent, Brain, Keys, signed_policy
from tests.unit.test_p256 import KEY as TOKEN_KEY
from tests.unit.test_p256 import token

WORDS = Secret(b"twelve words that nobody guesses")


@pytest.fixture
def mill(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A founded agent with two officers, whose keys are elsewhere; nothing has run yet."""
    monkeypatch.setattr("security.at_rest.COST", 10)
    monkeypatch.setattr("security.backup.COST", 10)
    publics = [
        SigningKey(create_key_file(tmp_path / f"officer-{at}.key", "ed25519")).public.to_text()
        for at in (1, 2)
    ]
    brain = tmp_path / "brain.card"
    write_card(brain, Keys().brain_card)
    words = ["agent", "init", str(tmp_path / "mill"), "--brain", str(brain), "--threshold", "2"]
    with pytest.raises(SystemExit) as done:
        millgate.main([*words, *(word for key in publics for word in ("--officer", key))])
    assert done.value.code in {0, None}
    return tmp_path / "mill"


@pytest.fixture
def config(mill: Path) -> AgentConfig:
    return read_config(mill / "agent.toml")


def officer(mill: Path, number: int) -> list[str]:
    return ["--key", str(mill.parent / f"officer-{number}.key")]


def run(*words: str | Path) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


def done(*words: str | Path) -> str:
    result = run(*words)
    assert result.exit_code == 0, (result.output, result.exception)
    return result.output


def fault(*words: str | Path) -> str:
    result = run(*words)
    assert isinstance(result.exception, MillgateError), result.output
    return str(result.exception)


def rotate(mill: Path, *more: str) -> str:
    text = done("rotate", mill / "agent.toml", *more)
    done("sign", mill / "keys.draft", *officer(mill, 1))
    return text + done("sign", mill / PARTLY, *officer(mill, 2))


def test_a_new_key_takes_over_when_two_officers_have_signed_and_not_before(
    mill: Path, config: AgentConfig
) -> None:
    signer = ListedSigner(config)
    old = signer.public
    said = done("rotate", mill / "agent.toml")
    assert "keys sign" in said
    new = load_signing_key(next_key(config)).public
    assert not signer.look()
    said = done("sign", mill / "keys.draft", *officer(mill, 1))
    assert "1 more signature needed" in said
    assert not signer.look()
    assert "waits for the officers' signatures" in done("list", mill / "agent.toml")
    assert "is signed" in done("sign", mill / PARTLY, *officer(mill, 2))
    assert not (mill / PARTLY).exists()
    assert signer.look()
    assert signer.public == new != old
    new.verify(signer.sign(b"text"), b"text")
    assert signer.signed == (mill / SIGNED).read_bytes()
    assert not signer.look()
    assert ListedSigner(config).public == new
    said = done("list", mill / "agent.toml")
    assert f"{new.kid.hex()[:8]} signs" in said


def test_an_agent_without_a_list_signs_with_the_key_on_its_card(
    mill: Path, config: AgentConfig
) -> None:
    card = read_agent_card(mill / "agent.card")
    assert ListedSigner(config).public == card.signing_key
    assert "no list yet" in done("list", mill / "agent.toml")


def test_the_old_key_is_ended_afterwards_and_the_next_change_moves_the_files_up(
    mill: Path, config: AgentConfig
) -> None:
    rotate(mill)
    second = ListedSigner(config).public
    old = read_agent_card(mill / "agent.card").signing_key
    kid = old.kid.hex()[:8]
    done("revoke", mill / "agent.toml", kid, "--why", "compromised", *officer(mill, 1))
    assert "is signed" in done("sign", mill / PARTLY, *officer(mill, 2))
    assert "compromised" in done("list", mill / "agent.toml")
    assert ListedSigner(config).public == second
    rotate(mill, "--scheme", "p256")
    assert load_signing_key(config.identity.signing_key).public == second
    third = ListedSigner(config).public
    assert third.scheme is P256
    signed = (mill / SIGNED).read_bytes()
    found = read_keys(signed, config.policy.officers, 2)
    assert [record.key for record in found.records] == [old, second, third]
    assert found.number == 3


def test_a_change_that_is_cut_short_leaves_a_key_to_sign_with_and_can_be_made_again(
    mill: Path, config: AgentConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    rotate(mill)
    second, move = ListedSigner(config).public, Path.replace

    def cut(self: Path, target: Path) -> Path:
        if self == next_key(config):
            raise OSError
        return move(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", cut)
        assert run("rotate", mill / "agent.toml").exit_code
    assert ListedSigner(config).public == second
    rotate(mill)
    assert load_signing_key(config.identity.signing_key).public == second


def test_the_new_key_is_under_the_same_passphrase_as_the_others(
    mill: Path, config: AgentConfig
) -> None:
    words = mill / "keys" / "passphrase"
    words.write_bytes(WORDS.reveal())
    words.chmod(0o600)
    identity = config.identity
    done("encrypt", identity.signing_key, "--passphrase-file", words)
    text = (mill / "agent.toml").read_text("utf-8")
    text = text.replace("[identity]\n", '[identity]\npassphrase = "keys/passphrase"\n')
    (mill / "agent.toml").write_text(text, "utf-8")
    rotate(mill)
    with pytest.raises(KeyFault, match="no passphrase"):
        load_signing_key(next_key(config))
    fresh = read_config(mill / "agent.toml")
    assert ListedSigner(fresh).public == load_signing_key(next_key(config), lambda _: WORDS).public


def test_a_key_in_a_token_takes_over_without_a_file(
    mill: Path, config: AgentConfig, tmp_path: Path
) -> None:
    with token(tmp_path / "signer") as place:
        rotate(mill, "--token", str(tmp_path / "signer"))
        text = (mill / "agent.toml").read_text("utf-8")
        text = text.replace('signing_key = "keys/signing.key"', f'signing_key = "{place}"')
        (mill / "agent.toml").write_text(text, "utf-8")
        signer = ListedSigner(read_config(mill / "agent.toml"))
        assert signer.public == TOKEN_KEY.public
        signer.public.verify(signer.sign(b"text"), b"text")
        said = fault("rotate", mill / "agent.toml", "--token", tmp_path / "signer")
        assert "this key is listed already" in said
        assert "give a new key" in said
    assert not next_key(config).exists()


def test_a_list_that_two_officers_did_not_sign_stops_the_agent_and_is_named(
    mill: Path, config: AgentConfig
) -> None:
    rotate(mill)
    signer = ListedSigner(config)
    public = signer.public
    data = bytearray(list_path(config).read_bytes())
    data[-1] ^= 1
    list_path(config).write_bytes(bytes(data))
    assert not signer.look()
    assert signer.public == public
    with pytest.raises(MillgateError, match=r"keys\.signed.*does not count"):
        ListedSigner(config)
    assert "does not count" in fault("list", mill / "agent.toml")


def test_a_listed_key_that_is_not_here_signs_nothing(mill: Path, config: AgentConfig) -> None:
    rotate(mill)
    kid = read_agent_card(mill / "agent.card").signing_key.kid.hex()
    done("revoke", mill / "agent.toml", kid, *officer(mill, 1), *officer(mill, 2))
    next_key(config).unlink()
    with pytest.raises(NoSuchKey):
        ListedSigner(config)


def test_mistakes_are_told_with_the_way_out(mill: Path) -> None:
    path = mill / "agent.toml"
    kid = read_agent_card(mill / "agent.card").signing_key.kid.hex()
    assert "first 'millgate keys rotate'" in fault("revoke", path, kid)
    assert "--last" in fault("revoke", path, kid)
    assert "replaced, compromised, lost" in fault("revoke", path, kid, "--why", "stolen")
    assert "keys list" in fault("revoke", path, "ffff")
    assert "keys list" in fault("revoke", path, kid[:2])
    assert "EPOCH:STREAM=COUNT" in fault("revoke", path, kid, "--at", "5:x=1")
    assert "ed25519 | p256" in fault("rotate", path, "--scheme", "rsa")
    done("rotate", path)
    assert "waits already" in fault("rotate", path)
    assert "not an officer's" in fault(
        "sign", mill / "keys.draft", "--key", mill / "keys" / "signing.key"
    )
    assert "not a list of keys" in fault("sign", path, *officer(mill, 1))


@pytest.mark.parametrize("mark", [Mark(), Mark(3), Mark(4, {7: 1, 9: 12}), Mark(0, {0: 0})])
def test_a_place_is_handed_on_as_text(mark: Mark) -> None:
    assert read_mark(mark_text(mark)) == mark


@pytest.mark.parametrize("text", ["", "x", "-1", "1:2", "1:2=", "1:2=-3", "1:=4", "1;2=3"])
def test_what_is_no_place_is_refused(text: str) -> None:
    with pytest.raises(MillgateError, match="--at"):
        read_mark(text)


# At the brain.


@pytest.fixture
def brain(tmp_path: Path, mill: Path) -> Path:
    folder = tmp_path / "brain"
    with pytest.raises(SystemExit):
        millgate.main(["aggregator", "init", str(folder), "--name", "brain"])
    (folder / "factories" / "mill.card").write_bytes((mill / "agent.card").read_bytes())
    return folder


def at_brain(brain: Path, *words: str | Path) -> Result:
    arguments = ["keys", str(brain / "aggregator.toml"), *(str(word) for word in words)]
    return CliRunner().invoke(aggregator_app, arguments)


def test_an_officer_brings_a_list_to_the_brain_when_the_agent_is_gone(
    mill: Path, brain: Path
) -> None:
    assert "list 0" in at_brain(brain).output
    rotate(mill)
    said = at_brain(brain, "--take", mill / SIGNED).output
    assert "list 1 counts within seconds" in said
    assert (brain / "factories" / "mill.keys").read_bytes() == (mill / SIGNED).read_bytes()
    assert "nothing new" in at_brain(brain, "--take", mill / SIGNED).output
    done("rotate", mill / "agent.toml", *officer(mill, 1))
    refused = at_brain(brain, "--take", mill / PARTLY)
    assert "does not count" in str(refused.exception)
    assert "not a list" in str(at_brain(brain, "--take", mill / "agent.toml").exception)


# Backups.


def test_a_backup_holds_the_configuration_with_its_keys_and_no_data(
    mill: Path, tmp_path: Path
) -> None:
    (mill / "data").mkdir()
    (mill / "data" / "spool.db").write_bytes(b"chains must not go on from a copy")
    words = tmp_path / "words"
    words.write_bytes(WORDS.reveal())
    words.chmod(0o600)
    out = tmp_path / "mill.backup"
    said = done("backup", mill / "agent.toml", "--out", out, "--passphrase-file", words)
    assert "encrypted" in said
    assert out.stat().st_mode & 0o777 == 0o600
    key = (mill / "keys" / "signing.key").read_bytes()
    assert key.splitlines()[1] not in out.read_bytes()
    said = done("restore", out, "--into", tmp_path / "new", "--passphrase-file", words)
    assert "stop it first" in said
    for name in ("agent.toml", "agent.card", "keys/signing.key", "keys/gate.key"):
        assert (tmp_path / "new" / name).read_bytes() == (mill / name).read_bytes()
        assert (tmp_path / "new" / name).stat().st_mode & 0o777 == 0o600
    assert not (tmp_path / "new" / "data").exists()
    assert "not empty" in fault("restore", out, "--into", mill, "--passphrase-file", words)
    assert "not overwritten" in fault(
        "backup", mill / "agent.toml", "--out", out, "--passphrase-file", words
    )


def test_a_backup_says_which_keys_are_not_in_it(mill: Path, tmp_path: Path) -> None:
    text = (mill / "agent.toml").read_text("utf-8")
    text = text.replace('"keys/signing.key"', '"credential:signing"')
    (mill / "agent.toml").write_text(text, "utf-8")
    words = tmp_path / "words"
    words.write_bytes(WORDS.reveal())
    words.chmod(0o600)
    out = tmp_path / "mill.backup"
    result = run("backup", mill / "agent.toml", "--out", out, "--passphrase-file", words)
    assert "not in it: credential:signing" in result.output


FILES = {"agent.toml": b"text", "keys/one.key": bytes(range(256))}


def test_a_backup_opens_with_its_passphrase_alone_and_any_turned_bit_is_noticed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("security.backup.COST", 10)
    data = pack(FILES, WORDS)
    assert unpack(data, WORDS) == FILES
    with pytest.raises(NoBackup):
        unpack(data, Secret(b"another passphrase"))
    for at in range(0, len(data), 7):
        changed = bytearray(data)
        changed[at] ^= 1
        with pytest.raises(NoBackup):
            unpack(bytes(changed), WORDS)
    assert pack(FILES, WORDS) != data


@pytest.mark.parametrize("name", ["../out", "/etc/passwd", "a/../../b", "", ".", "a\\b", "a\0b"])
def test_a_backup_leads_nowhere_outside_its_folder(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr("security.backup.COST", 10)
    with pytest.raises(NoBackup):
        unpack(pack({name: b""}, WORDS), WORDS)


def test_a_folder_that_is_more_than_a_configuration_is_not_backed_up(tmp_path: Path) -> None:
    with (tmp_path / "recording").open("wb") as file:
        file.truncate(65 << 20)
    with pytest.raises(MillgateError, match="more than a configuration"):
        gather(tmp_path, [])
    (tmp_path / "recording").unlink()
    (tmp_path / "link").symlink_to("/etc/passwd")
    assert gather(tmp_path, []) == {}


def test_an_agent_on_a_new_machine_begins_a_new_epoch_and_says_where_the_old_one_ended(
    tmp_path: Path,
) -> None:
    """A restored agent has its keys and no spool: the brain tells it where its chains were."""
    from tests.unit.test_restored import ask, deliver, energy  # noqa: PLC0415 - beside its use

    keys = Keys()
    policy = signed_policy(keys)
    brain = Brain(tmp_path, keys)
    old = Agent(tmp_path / "old", keys, policy)
    old.start()
    old.release(energy(0))
    deliver(old, brain)
    write_files({"keys/signing.key": b"as it was"}, tmp_path / "new")
    new = Agent(tmp_path / "new" / "data", keys, policy)
    new.start()
    assert ask(new, brain).forked
    new.sealer.resume(1)
    assert new.sealer.epoch == 2
    new.number = 0
    new.release(energy(1))
    deliver(new, brain)
    agent = brain.ledger.agents()[keys.address]
    assert [one.kind for one in brain.ledger.record.alarms(agent)] == []
    assert max(head.epoch for head in brain.ledger.record.heads(agent, 10)) == 2
    brain.close()
