"""A new agent's folder: its keys, `agent.toml` and its card."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from string import Template
from typing import Final

from protocols.errors import MillgateError
from protocols.language import tr
from protocols.templates import switch_on, template
from security.at_rest import KeyKind
from security.cards import AgentCard, write_card
from security.files import PUBLIC, write_whole
from security.keys import (
    AttestationKey,
    MessageSigner,
    OpeningKey,
    SealingKey,
    SigningKey,
    VerifyKey,
    create_key_file,
    load_key_file,
)
from security.secret import Secret
from security.signers import load_token

SIGNING: Final = "keys/signing.key"
"""Where the signing key is, unless it is in a token."""

_OFFICER: Final = "officer.key"
_AUDIT: Final = "audit.key"


@dataclass(frozen=True, slots=True)
class Keys:
    """The keys of a new agent; of officers and the firm's auditors, the public halves.

    Attributes:
        signer: where the signing key is, as agent.toml says it.
    """

    signing: MessageSigner
    signer: str
    attestation: AttestationKey
    officers: list[VerifyKey]
    audit: SealingKey


@dataclass(frozen=True, slots=True)
class BrokerWords:
    """What `[broker]` says.

    Attributes:
        tls: further keys for a protected connection: name -> value.
    """

    host: str
    port: int
    protocol: str
    tls: dict[str, str | bool] = field(default_factory=dict)


def refuse_configured(folder: Path) -> None:
    """Raise MillgateError where an agent is configured already."""
    if (folder / "agent.toml").exists():
        raise MillgateError(
            tr("an agent is configured here already", "此处已有代理程序配置"),
            where=str(folder / "agent.toml"),
            remedy=tr("choose another folder", "请换一个目录"),
        )


def make_keys(
    folder: Path,
    officers: Sequence[str],
    audit: Path | None,
    *,
    signer: Path | None = None,
    again: bool = False,
) -> Keys:
    """Make an agent's keys in its folder.

    Args:
        folder: the agent's.
        officers: public keys as text; without any, an officer's key is made as well.
        audit: file with the firm's public audit key; without it, one is made as well.
        signer: a token that holds the signing key; without it, one is made as a file.
        again: take keys that are there already, as a step done twice finds them.

    Raises:
        KeyFault: when a key cannot be made.
        TokenFault: when the token does not answer.
        MillgateError: when what was given is no public key, or the signer no token.
    """
    given = [_public_key(text) for text in officers]
    given_audit = _read_audit_key(audit)
    keys = folder / "keys"
    signing = _signing(folder, signer, again=again)
    attestation = AttestationKey(_key(keys / "attestation.key", "mldsa65", again=again))
    _key(keys / "gate.key", "aes256", again=again)
    if not given:
        given = [SigningKey(_key(keys / _OFFICER, "ed25519", again=again)).public]
    if given_audit is None:
        given_audit = OpeningKey(_key(keys / _AUDIT, "xwing", again=again)).public
    return Keys(signing, str(signer or SIGNING), attestation, given, given_audit)


def notes_of(folder: Path) -> list[str]:
    """Tell which keys in an agent's folder belong elsewhere, a sentence each."""
    officer, audit = folder / "keys" / _OFFICER, folder / "keys" / _AUDIT
    notes = []
    if officer.exists():
        notes.append(
            tr(
                f"{officer}: the data officer's key. Move it to the officer's own machine.",
                f"{officer}：数据官私钥，请移到数据官自己的电脑上。",
            )
        )
    if audit.exists():
        notes.append(
            tr(
                f"{audit}: the firm's audit key; it opens everything that left. Move it to a safe place.",
                f"{audit}：企业审计私钥，可解开所有已外发的数据，请移到安全的地方。",
            )
        )
    return notes


def write_agent(
    folder: Path,
    card: AgentCard,
    audit: SealingKey,
    broker: BrokerWords,
    cards: Sequence[str],
    identity: Mapping[str, str] | None = None,
) -> None:
    """Write the agent's card and agent.toml.

    Args:
        folder, card, audit, broker: of the agent.
        cards: names of the brains' cards in the folder.
        identity: what `[identity]` says besides.
    """
    write_card(folder / "agent.card", card)
    values = {
        "factory": card.factory.hex(),
        "agent": card.agent.hex(),
        "officers": "".join(f'    "{key.to_text()}",\n' for key in card.officers),
        "threshold": card.threshold,
        "audit_key": audit.to_text(),
        "broker_host": broker.host,
        "broker_port": broker.port,
        "protocol": broker.protocol,
        "consumers": "".join(f'[[consumer]]\ncard = "{name}"\n\n' for name in cards),
        "devices": template("device.toml"),
    }
    text = Template(template("agent.toml")).substitute(values)
    whole = switch_on(switch_on(text, "broker", broker.tls), "identity", identity or {})
    write_whole(folder / "agent.toml", whole.encode(), PUBLIC)


def next_steps(folder: Path) -> str:
    """Tell what to do once the agent is configured."""
    path = folder / "agent.toml"
    return tr(
        f"Next:\n"
        f"  millgate agent add {path}      (asks for a device; again for each)\n"
        f"  millgate agent check {path}\n"
        f"  millgate policy new {path}",
        f"下一步：\n"
        f"  millgate agent add {path}      （询问并添加设备，每台一次）\n"
        f"  millgate agent check {path}\n"
        f"  millgate policy new {path}",
    )


def _signing(folder: Path, signer: Path | None, *, again: bool) -> MessageSigner:
    if signer is None:
        return SigningKey(_key(folder / SIGNING, "ed25519", again=again))
    return load_token(signer)


def _key(path: Path, kind: KeyKind, *, again: bool) -> Secret[bytes]:
    if again and path.exists():
        return load_key_file(path, kind)
    return create_key_file(path, kind)


def _public_key(text: str) -> VerifyKey:
    try:
        return VerifyKey.from_text(text)
    except ValueError:
        raise MillgateError(
            tr("not an officer's public key", "不是数据官公钥"),
            where="--officer",
            remedy=tr("it starts with 'ed25519:' or 'p256:'", "应以 'ed25519:' 或 'p256:' 开头"),
        ) from None


def _read_audit_key(given: Path | None) -> SealingKey | None:
    if given is None:
        return None
    try:
        return SealingKey.from_text(given.read_text(encoding="ascii").strip())
    except (OSError, ValueError):
        raise MillgateError(
            tr("not a public audit key", "不是审计公钥"), where=str(given)
        ) from None
