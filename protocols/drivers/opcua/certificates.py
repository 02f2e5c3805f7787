"""What matters of a certificate. All cryptography is the OPC UA library's own."""

import base64
import binascii
import hashlib
import ipaddress
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from asyncua.crypto import uacrypto

from protocols.frame import SECOND

_ALTERNATIVE_NAMES: Final = "2.5.29.17"
_RSA: Final = "1.2.840.113549.1.1.1"
_PEM: Final = re.compile(
    rb"-----BEGIN (CERTIFICATE|(?:RSA )?PRIVATE KEY)-----\s+(.+?)-----END \1-----", re.DOTALL
)
_LONGEST_TEXT: Final = 200
# The library leaves these without annotations.
_X509_OF: Final[Callable[[bytes], Any]] = uacrypto.x509_from_der
_DER_OF: Final[Callable[[Any], bytes]] = uacrypto.der_from_x509


@dataclass(frozen=True, slots=True)
class Certificate:
    """What matters of an application's certificate.

    Attributes:
        der: its bytes.
        subject: whom it names; printable text.
        uris: the application URIs in it.
        hosts: the host names and addresses in it.
        starts_ns, ends_ns: when it is valid.
        rsa_bits: length of its RSA key; 0 for a key of another kind.
    """

    der: bytes
    subject: str
    uris: tuple[str, ...]
    hosts: tuple[str, ...]
    starts_ns: int
    ends_ns: int
    rsa_bits: int

    @property
    def sha256(self) -> str:
        """The fingerprint, 64 hex digits."""
        return hashlib.sha256(self.der).hexdigest()

    @property
    def thumbprint(self) -> str:
        """The SHA-1 thumbprint, 40 hex digits, as OPC UA tools show it; nothing depends on it."""
        return hashlib.sha1(self.der, usedforsecurity=False).hexdigest()

    def covers(self, host: str) -> bool:
        """Tell whether the certificate names this host."""
        return _plain_host(host) in {_plain_host(name) for name in self.hosts}


def parse_certificate(data: bytes) -> Certificate:
    """Read a certificate, DER or PEM; of a chain the first.

    Raises:
        ValueError: when it is none.
    """
    try:
        der = pem_blocks(data).get("CERTIFICATE", data)
        made = x509_of(der)
        if made is None:
            raise ValueError("empty")
        uris, hosts = _names(made)
        return Certificate(
            der=_DER_OF(made),
            subject=printable(made.subject.rfc4514_string()),
            uris=tuple(uris),
            hosts=tuple(hosts),
            starts_ns=int(made.not_valid_before_utc.timestamp()) * SECOND,
            ends_ns=int(made.not_valid_after_utc.timestamp()) * SECOND,
            rsa_bits=_rsa_bits(made),
        )
    except Exception as error:
        # What others send can trip the parser in any way it has; all of them mean the same.
        raise ValueError("not a certificate") from error


def x509_of(der: bytes) -> Any:
    """Return the library's object for a certificate, of a chain for the first; None for nothing.

    Raises:
        ValueError: when it is none.
    """
    return _X509_OF(der)


def pem_blocks(data: bytes) -> dict[str, bytes]:
    """Return the content of a PEM text's first block of each kind; DER has none.

    Raises:
        ValueError: when a block is not base64.
    """
    blocks: dict[str, bytes] = {}
    for match in _PEM.finditer(data):
        try:
            content = base64.b64decode(b"".join(match[2].split()), validate=True)
        except binascii.Error:
            raise ValueError("not base64") from None
        blocks.setdefault(match[1].decode(), content)
    return blocks


def printable(text: str) -> str:
    """Return the text without what could steer a terminal, and no longer than a line or two."""
    return "".join(char if char.isprintable() else "?" for char in text)[:_LONGEST_TEXT]


def _names(made: Any) -> tuple[list[str], list[str]]:
    uris: list[str] = []
    hosts: list[str] = []
    for extension in made.extensions:
        if extension.oid.dotted_string != _ALTERNATIVE_NAMES:
            continue
        for name in extension.value:
            kind = type(name).__name__
            if kind == "UniformResourceIdentifier":
                uris.append(printable(name.value))
            elif kind in {"DNSName", "IPAddress"}:
                hosts.append(printable(str(name.value)))
    return uris, hosts


def _rsa_bits(made: Any) -> int:
    if made.public_key_algorithm_oid.dotted_string != _RSA:
        return 0
    return int(made.public_key().key_size)


def _plain_host(host: str) -> str:
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        return host.rstrip(".").lower()
