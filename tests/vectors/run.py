"""Runs one file of the test kit against this implementation; see README.md for the format."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from protocols import batch, strict_cbor
from protocols.strict_cbor import Malformed
from protocols.topics import Address
from security import answers, cose, envelope, statements
from security.envelope import CannotOpen
from security.keys import (
    AttestationVerifyKey,
    BadSignature,
    OpeningKey,
    VerifyKey,
)
from security.policy import bundle
from security.policy.compiled import MAX_COMPILED
from security.schemes import ED25519, P256
from security.secret import Secret
from security.transparency import NotProven, check_consistency, check_inclusion

ACCEPTED = "-"


@dataclass
class Vector:
    """One file.

    Attributes:
        terms: its lines, by name; several lines of one name are kept in order.
    """

    terms: dict[str, list[str]]
    data: bytes

    def text(self, name: str) -> str:
        (found,) = self.terms[name]
        return found

    def raw(self, name: str) -> bytes:
        return bytes.fromhex(self.text(name))

    def number(self, name: str) -> int:
        return int(self.text(name))

    @property
    def address(self) -> Address:
        return Address(self.raw("factory"), self.raw("id"))


class WrongTopic(Exception):
    """A statement of another agent than the topic's."""


def read(path: Path) -> Vector:
    head, _, body = path.read_text("utf-8").partition("\n\n")
    terms: dict[str, list[str]] = {}
    for line in head.splitlines():
        name, _, value = line.partition(":")
        terms.setdefault(name, []).append(value.strip())
    return Vector(terms, bytes.fromhex("".join(body.split())))


def outcome(vector: Vector) -> str:
    """Return the reason this implementation gives; ACCEPTED for none."""
    try:
        _RUN[vector.text("kind")](vector)
    except tuple(_REASONS) as error:
        return _REASONS[type(error)]
    return ACCEPTED


class NotABatch(Exception):
    """Content that is not padded or formed as it must be."""


def _key(public: bytes) -> VerifyKey:
    """Return a key of the scheme that its length tells."""
    return VerifyKey(public, P256 if len(public) == P256.public_bytes else ED25519)


def _cbor(vector: Vector) -> None:
    tags = frozenset(int(tag) for tag in vector.text("tags").split(",") if tag)
    item = strict_cbor.decode(vector.data, max_bytes=1 << 20, tags=tags)
    assert strict_cbor.encode(item) == vector.data


def _body(vector: Vector) -> None:
    batch.decode(vector.data)


def _message(vector: Vector) -> None:
    sealed = envelope.parse(vector.data)
    sealed.signed.verify(_key(vector.raw("agent")))
    assert envelope._claims(sealed.header) == sealed.signed.headers[envelope.CLAIMS]
    padded = envelope.open_sealed(sealed, OpeningKey(Secret(vector.raw("opening"))))
    try:
        if len(padded) % vector.number("pad"):
            raise Malformed("not padded to the stream's size")
        content = envelope.unpad(padded)
        batch.decode(content)
    except Malformed:
        raise NotABatch from None
    assert hashlib.sha256(content).hexdigest() == vector.text("content")


def _statement(vector: Vector) -> None:
    signed, statement = statements.parse_statement(vector.data)
    if statement.address != vector.address:
        raise WrongTopic
    signed.verify(_key(vector.raw("agent")))


def _attestation(vector: Vector) -> None:
    if statements.claimed_address(vector.data) != vector.address:
        raise WrongTopic
    statements.read_attestation(
        vector.data, _key(vector.raw("agent")), AttestationVerifyKey(vector.raw("attester"))
    )


def _answer(vector: Vector) -> None:
    answers.read_answer(vector.data, vector.address, [_key(vector.raw("receipt"))])


def _sheet(vector: Vector) -> None:
    officers = [_key(bytes.fromhex(one)) for one in vector.terms["officer"]]
    cose.verify_many(
        vector.data,
        content_type=bundle.SHEET,
        trusted=officers,
        threshold=vector.number("threshold"),
        limit=MAX_COMPILED,
    )


def _inclusion(vector: Vector) -> None:
    entry, path = strict_cbor.decode(vector.data, max_bytes=1 << 16)
    check_inclusion(vector.number("index"), vector.number("size"), entry, path, vector.raw("root"))


def _consistency(vector: Vector) -> None:
    path = strict_cbor.decode(vector.data, max_bytes=1 << 16)
    check_consistency(
        vector.number("older"),
        vector.raw("older-root"),
        vector.number("newer"),
        vector.raw("newer-root"),
        path,
    )


_RUN: dict[str, Callable[[Vector], None]] = {
    "cbor": _cbor,
    "body": _body,
    "message": _message,
    "statement": _statement,
    "attestation": _attestation,
    "answer": _answer,
    "sheet": _sheet,
    "inclusion": _inclusion,
    "consistency": _consistency,
}

_REASONS: dict[type[Exception], str] = {
    Malformed: "malformed",
    BadSignature: "bad_signature",
    CannotOpen: "cannot_open",
    NotProven: "not_proven",
    WrongTopic: "wrong_topic",
    NotABatch: "not_a_batch",
}
