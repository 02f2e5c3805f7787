"""What an agent and a brain say to each other when a factory joins.

The *record* is the factory's word about itself: its public keys, who its data officers are, which
authority it met, what certificate it asks for. Both of the agent's keys sign it, and the approval code is
bound to it. The brain keeps it as it came.
"""

import hashlib
import hmac
import json
import re
from collections.abc import Callable
from typing import Annotated, Final, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, Field, PlainSerializer, ValidationError

from protocols.errors import MillgateError
from protocols.hosts import Host
from protocols.language import tr
from protocols.settings import Strict
from protocols.topics import Address
from security.ca import MOST_REQUEST, RequestRefused, check_request
from security.cards import AgentCard, AttestationKeyText, OpaqueId, VerifyKeyText
from security.keys import BadSignature, Signer

MOST_BODY: Final = 65_536
"""Largest message of either side, bytes."""

PATH: Final = "/enrol/v1"
AUTHORITY_PATH: Final = "/authority.pem"
RENEWAL_PATH: Final = "/enrol/v1/certificate"

_CONTEXT: Final = b"mg1/enrolment\x00"
_MOST_PEM: Final = 32_768
_HEX: Final = re.compile(r"(?:[0-9a-f]{2})*")

Refusal = Literal["unknown", "expired", "used", "locked", "unsound", "refused", "late"]
"""Why a factory does not join; `unknown` is all that somebody learns who has no right code."""


class Unsound(MillgateError):
    """A message of enrolment that is not what it should be."""


def _hex_bytes(*lengths: int) -> Callable[[object], bytes]:
    """Return what reads hex digits of one of these lengths, in bytes."""

    def read(value: object) -> bytes:
        if isinstance(value, bytes):
            return value
        if isinstance(value, str) and _HEX.fullmatch(value) and len(value) // 2 in lengths:
            return bytes.fromhex(value)
        raise ValueError("not hex digits of the right length")

    return read


Hash = Annotated[bytes, BeforeValidator(_hex_bytes(32)), PlainSerializer(bytes.hex)]
Secret5 = Annotated[bytes, BeforeValidator(_hex_bytes(5)), PlainSerializer(bytes.hex)]
Signature = Annotated[bytes, BeforeValidator(_hex_bytes(64, 3309)), PlainSerializer(bytes.hex)]


class Record(Strict):
    """A factory's word about itself.

    Attributes:
        authority: fingerprint of the authority that the agent met.
        request: SHA-256 of the request for a certificate.
        ticket: SHA-256 of the ticket by which the agent asks how it goes on.
        signing_key, attestation_key, officers, threshold: as on the agent's card.
    """

    record: Literal["millgate-enrolment/1"]
    authority: Hash
    request: Hash
    ticket: Hash
    signing_key: VerifyKeyText
    attestation_key: AttestationKeyText
    officers: list[VerifyKeyText] = Field(min_length=1, max_length=16)
    threshold: int = Field(ge=1, le=16)

    def card(self, address: Address) -> AgentCard:
        """Return the agent's card under the ids that the brain gave it.

        Raises:
            ValueError: when fewer officers are named than must sign.
        """
        return AgentCard(
            card="millgate-agent/1",
            factory=address.factory,
            agent=address.agent,
            signing_key=self.signing_key,
            attestation_key=self.attestation_key,
            officers=self.officers,
            threshold=self.threshold,
        )


class Application(Strict):
    """What the agent sends.

    Attributes:
        invitation, secret: from the code.
        record: JSON text of the record; its bytes are what is signed and kept.
        request: for a certificate, PEM.
        signature, attestation: of the record, by the two keys that it names.
        approval: the approval code bound to the record.
    """

    invitation: int = Field(ge=0, lt=1 << 16)
    secret: Secret5
    record: str = Field(max_length=16_384)
    request: str = Field(max_length=MOST_REQUEST)
    signature: Signature
    attestation: Signature
    approval: Hash

    def checked(self, fingerprint: bytes) -> Record:
        """Return the record, having checked everything that does not need the invitation.

        Raises:
            Unsound: when the record is not what it should be, met another authority, or was not made
                by who holds the keys that it names.
        """
        record = _read(self.record.encode(), Record)
        signed = _CONTEXT + self.record.encode()
        request = self.request.encode()
        try:
            record.signing_key.verify(self.signature, signed)
            record.attestation_key.verify(self.attestation, signed)
            check_request(request)
            # Also checks that so many officers are named.
            record.card(Address(bytes(16), bytes(16)))
        except (BadSignature, RequestRefused, ValueError):
            raise _unsound() from None
        bound = hashlib.sha256(request).digest()
        if not hmac.compare_digest(bound, record.request) or record.authority != fingerprint:
            raise _unsound()
        return record


class BrokerPlace(Strict):
    """Where the agent delivers; it is written into agent.toml, so a host is a host and no more."""

    host: Host = Field(min_length=1, max_length=255)
    port: int = Field(ge=1, le=65535)
    protocol: Literal["mqtt311", "mqtt5"]
    tls: bool


class Grant(Strict):
    """What the agent receives once it was approved.

    Attributes:
        factory, agent: its ids.
        certificate: PEM, for the key that asked for it.
        brain: text of the brain's card; its keys count only once the officer's policy pins them.
    """

    factory: OpaqueId
    agent: OpaqueId
    certificate: str = Field(max_length=_MOST_PEM)
    brain: str = Field(max_length=8192)
    broker: BrokerPlace


class Progress(Strict):
    """How an enrolment goes; a refusal says why, a grant ends it."""

    state: Literal["waiting", "granted", "refused"]
    refusal: Refusal | None = None
    grant: Grant | None = None


def make_record(record: Record) -> str:
    """Return the text of a record, which is what is signed."""
    return json.dumps(record.model_dump(mode="json"), sort_keys=True)


def sign_record(text: str, signer: Signer) -> bytes:
    """Return a key's signature of a record."""
    return signer.sign(_CONTEXT + text.encode())


Message = TypeVar("Message", Application, Progress)


def read_message(body: bytes, kind: type[Message]) -> Message:
    """Read what the other side sent.

    Raises:
        Unsound: when it is not that.
    """
    return _read(body, kind)


_Any = TypeVar("_Any", bound=BaseModel)


def _read(body: bytes, kind: type[_Any]) -> _Any:
    if len(body) > MOST_BODY:
        raise _unsound()
    try:
        return kind.model_validate_json(body)
    except ValidationError:
        raise _unsound() from None


def _unsound() -> Unsound:
    return Unsound(
        tr("not a sound message of enrolment", "接入消息无效"),
        remedy=tr("begin again with a new code", "请用新的邀请码重新开始"),
    )
