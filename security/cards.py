"""Cards: the public halves that a factory and a brain exchange as files, until enrolment."""

import json
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BeforeValidator, Field, PlainSerializer, model_validator

from protocols.errors import Misfit
from protocols.hosts import Name
from protocols.language import tr
from protocols.settings import Strict, load_settings
from protocols.strict_cbor import Malformed
from protocols.topics import ID_BYTES, Address
from security.keys import AttestationVerifyKey, SealingKey, VerifyKey


def _id_from_text(value: Any) -> bytes:
    try:
        found = bytes.fromhex(value) if isinstance(value, str) else value
    except ValueError:
        found = b""
    if not isinstance(found, bytes) or len(found) != ID_BYTES:
        raise Misfit(
            tr("is no such id", "不是此类标识"),
            tr("write its 32 hex digits", "请写 32 位十六进制"),
        )
    return found


def _verify_key(value: Any) -> VerifyKey:
    return value if isinstance(value, VerifyKey) else VerifyKey.from_text(str(value))


def _sealing_key(value: Any) -> SealingKey:
    return value if isinstance(value, SealingKey) else SealingKey.from_text(str(value))


def _attestation_key(value: Any) -> AttestationVerifyKey:
    if isinstance(value, AttestationVerifyKey):
        return value
    return AttestationVerifyKey.from_text(str(value))


OpaqueId = Annotated[bytes, BeforeValidator(_id_from_text), PlainSerializer(bytes.hex)]
VerifyKeyText = Annotated[
    VerifyKey, BeforeValidator(_verify_key), PlainSerializer(VerifyKey.to_text)
]
AttestationKeyText = Annotated[
    AttestationVerifyKey,
    BeforeValidator(_attestation_key),
    PlainSerializer(AttestationVerifyKey.to_text),
]
SealingKeyText = Annotated[
    SealingKey, BeforeValidator(_sealing_key), PlainSerializer(SealingKey.to_text)
]


def check_threshold(officers: Sequence[VerifyKey], threshold: int) -> None:
    """Check that enough different officers are named.

    Raises:
        ValueError: when they are not.
    """
    if len({key.public for key in officers}) < threshold:
        raise Misfit(
            tr(
                "threshold is larger than the number of different officers",
                "threshold 大于不同数据官的人数",
            ),
            tr("lower it, or name more officers", "请调低，或增列数据官公钥"),
            ("officers",),
        )


class BrainCard(Strict):
    """What a factory needs of a brain.

    Attributes:
        encryption_key: batches are sealed to it.
        receipt_key: it signs receipts, refusals and requests.
    """

    card: Literal["millgate-brain/1"]
    name: Name
    encryption_key: SealingKeyText
    receipt_key: VerifyKeyText


class AgentCard(Strict):
    """What a brain needs of a factory's agent.

    Attributes:
        factory, agent: opaque ids of 16 bytes.
        signing_key: it signs batches.
        attestation_key: it signs attestations, together with the signing key.
        officers: the data officers' keys; they sign release sheets.
        threshold: how many of them must sign.
    """

    card: Literal["millgate-agent/1"]
    factory: OpaqueId
    agent: OpaqueId
    signing_key: VerifyKeyText
    attestation_key: AttestationKeyText
    officers: list[VerifyKeyText] = Field(min_length=1, max_length=16)
    threshold: int = Field(default=1, ge=1, le=16)

    @model_validator(mode="after")
    def _reachable(self) -> "AgentCard":
        check_threshold(self.officers, self.threshold)
        return self

    @property
    def address(self) -> Address:
        """The agent's address on the broker."""
        return Address(self.factory, self.agent)


def read_brain_card(path: Path) -> BrainCard:
    """Read a brain's card.

    Raises:
        ConfigError: when it is not one.
    """
    return load_settings(path, BrainCard)


def read_agent_card(path: Path) -> AgentCard:
    """Read an agent's card.

    Raises:
        ConfigError: when it is not one.
    """
    return load_settings(path, AgentCard)


Card = TypeVar("Card", BrainCard, AgentCard)


def card_from_text(data: bytes, kind: type[Card]) -> Card:
    """Read a card from its text.

    Raises:
        Malformed: when it is not one.
    """
    try:
        return kind.model_validate(tomllib.loads(data.decode()))
    except ValueError:
        raise Malformed("not a card") from None


def write_card(path: Path, card: BrainCard | AgentCard) -> None:
    """Write a card as TOML text that anybody may read."""
    path.write_text(card_text(card), encoding="utf-8")


def card_text(card: BrainCard | AgentCard) -> str:
    """Return a card as TOML text."""
    lines = []
    for name, value in card.model_dump(mode="json").items():
        if isinstance(value, list):
            rows = "".join(f"    {_written(item)},\n" for item in value)
            lines.append(f"{name} = [\n{rows}]")
        else:
            lines.append(f"{name} = {_written(value)}")
    return "\n".join(lines) + "\n"


def _written(value: str | int) -> str:
    """Return a TOML value: its texts are JSON's, but for one character that TOML wants escaped."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
