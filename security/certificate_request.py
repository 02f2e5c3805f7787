"""The holder's side of a certificate: a private key that never leaves, and a request for it."""

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import NameOID

from protocols.errors import MillgateError
from protocols.language import tr
from protocols.places import located, open_to_others
from security.at_rest import KeyFault
from security.files import write_whole

RENEW_AT: Final = 2 / 3
"""The part of a certificate's life after which it is renewed."""


@dataclass(frozen=True, slots=True)
class Life:
    """What a certificate says of itself.

    Attributes:
        name: its common name.
        serial: its number.
        starts_s, ends_s: when it is valid, seconds since 1970 UTC.
    """

    name: str
    serial: int
    starts_s: int
    ends_s: int

    @property
    def renew_s(self) -> int:
        """When it should be renewed, seconds since 1970 UTC."""
        return self.starts_s + int((self.ends_s - self.starts_s) * RENEW_AT)


def make_private_key(path: Path) -> bytes:
    """Make a P-256 key in a new file of mode 0600, and return the request for its certificate, PEM.

    A key that is there already is taken, so that a step done twice asks for the same certificate.

    Raises:
        KeyFault: when the file cannot be made, or holds something else.
    """
    if not path.exists():
        key = ec.generate_private_key(ec.SECP256R1())
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        try:
            write_whole(path, pem)
        except OSError as error:
            raise KeyFault(
                tr("the key file cannot be made", "无法创建密钥文件"),
                where=str(path),
                remedy=str(error.strerror),
            ) from None
    return request_for(path)


def read_pem_key(path: Path) -> PrivateKeyTypes | None:
    """Return the private key in a PEM file or credential that is not encrypted; None for no such key.

    Raises:
        KeyFault: when others can read it.
    """
    try:
        data, exposed = located(path).read_bytes(), open_to_others(path)
        key = load_pem_private_key(data, None)
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm):
        return None
    if exposed:
        raise KeyFault(
            tr("the key is open to other users", "其他用户可读取此密钥"),
            where=str(path),
            remedy=f"chmod 600 {path}",
        )
    return key


def request_for(path: Path) -> bytes:
    """Return a request for a certificate, PEM, signed with the key in a file.

    The request names nobody: the authority decides what the certificate says.

    Raises:
        KeyFault: when there is no such key, or others can read it.
    """
    key = read_pem_key(path)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise KeyFault(
            tr("there is no P-256 key here", "此处没有 P-256 私钥"),
            where=str(path),
            remedy=tr("give the right file", "请提供正确的文件"),
        )
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "millgate")])
    request = x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, hashes.SHA256())
    return request.public_bytes(Encoding.PEM)


def life_of(certificate: bytes) -> Life:
    """Read the first certificate of a PEM text.

    Raises:
        MillgateError: when there is none.
    """
    try:
        found = x509.load_pem_x509_certificates(certificate)[0]
    except ValueError:
        raise MillgateError(tr("this is not a certificate (PEM)", "不是证书（PEM）")) from None
    names = found.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return Life(
        name=str(names[0].value) if names else "",
        serial=found.serial_number,
        starts_s=_seconds(found.not_valid_before_utc),
        ends_s=_seconds(found.not_valid_after_utc),
    )


def certifies(certificate: bytes, request: bytes) -> bool:
    """Tell whether a certificate, PEM, is for the key that signed a request, PEM."""
    try:
        ours = x509.load_pem_x509_csr(request).public_key()
        theirs = x509.load_pem_x509_certificates(certificate)[0].public_key()
    except (ValueError, UnsupportedAlgorithm):
        return False
    spki = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return ours.public_bytes(*spki) == theirs.public_bytes(*spki)


def _seconds(at: datetime) -> int:
    return int(at.timestamp())
