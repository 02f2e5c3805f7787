"""A small certificate authority: it vouches for the brain's servers, and for agents by opaque ids.

Keys are P-256 and signatures ECDSA with SHA-256, which every broker and TLS library takes. What a
certificate says is decided here; of a request only its key counts. A site may bring an authority
of its own instead: PEM files of its key and of its certificate, followed by those above it.
"""

import hashlib
import ipaddress
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier

from protocols.errors import MillgateError
from protocols.frame import SECOND, NowNs
from protocols.language import tr
from protocols.places import located
from security.at_rest import KeyFault
from security.certificate_request import read_pem_key
from security.files import PUBLIC, write_whole

CLIENT_DAYS: Final = 90
SERVER_DAYS: Final = 1095
AUTHORITY_DAYS: Final = 7300
REVOCATION_DAYS: Final = 3650
"""A list that ends ends every connection with it; what makes it new is being written again."""

MOST_REQUEST: Final = 8192
"""Largest request for a certificate, bytes."""

_HEAD_START: Final = timedelta(hours=1)
"""Clocks in factories are often behind; a certificate that starts now would not be valid there."""

_PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey


class RequestRefused(MillgateError):
    """A request for a certificate that cannot be granted."""


@dataclass(frozen=True, slots=True)
class Issued:
    """A certificate that was issued.

    Attributes:
        certificate: PEM; the issuers between it and the root follow, where there are any.
        serial: its number, by which it is revoked.
        ends_s: when it ends, seconds since 1970 UTC.
    """

    certificate: bytes
    serial: int
    ends_s: int


class Authority:
    """Issues certificates.

    Attributes:
        bundle: PEM; what whoever trusts this authority must hold.
        fingerprint: SHA-256 of the bundle's certificates, 32 bytes; of one certificate it is the
            fingerprint that other tools show.
    """

    def __init__(
        self, chain: Sequence[x509.Certificate], key: _PrivateKey, now_ns: NowNs = time.time_ns
    ) -> None:
        self._chain = list(chain)
        self._key = key
        self._now_ns = now_ns
        self.bundle = b"".join(one.public_bytes(Encoding.PEM) for one in chain)
        self.fingerprint = fingerprint_of(self.bundle)

    @property
    def ends_s(self) -> int:
        """When the authority itself ends, seconds since 1970 UTC."""
        return int(self._chain[0].not_valid_after_utc.timestamp())

    def issue_client(self, request: bytes, name: str, days: int = CLIENT_DAYS) -> Issued:
        """Issue a certificate that is good for connecting to servers, and for nothing else.

        Args:
            request: PEM or DER (PKCS #10).
            name: common name: an opaque id, by which a broker knows the holder.
            days: how long it is valid.

        Raises:
            RequestRefused: when the request is not sound.
        """
        usage = ExtendedKeyUsageOID.CLIENT_AUTH
        return self._issue(request, name, usage, None, days)

    def issue_server(self, request: bytes, hosts: Sequence[str], days: int = SERVER_DAYS) -> Issued:
        """Issue a certificate for a server that is reached by these names and addresses.

        Raises:
            RequestRefused: when the request is not sound, or a host is no name in ASCII.
        """
        names = x509.SubjectAlternativeName([_host(host) for host in hosts])
        return self._issue(request, hosts[0][:64], ExtendedKeyUsageOID.SERVER_AUTH, names, days)

    def revocation_list(self, revoked: Mapping[int, int], number: int) -> bytes:
        """Return a signed list, PEM, of certificates that no longer count.

        Args:
            revoked: number of certificate -> when, seconds since 1970 UTC.
            number: of the list; larger than that of any list before.
        """
        now = self._now()
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self._chain[0].subject)
            .last_update(now - _HEAD_START)
            .next_update(now + timedelta(days=REVOCATION_DAYS))
            .add_extension(x509.CRLNumber(number), critical=False)
            .add_extension(self._key_identifier(), critical=False)
        )
        for serial, at_s in sorted(revoked.items()):
            one = x509.RevokedCertificateBuilder().serial_number(serial)
            one = one.revocation_date(datetime.fromtimestamp(at_s, UTC))
            builder = builder.add_revoked_certificate(one.build())
        return builder.sign(self._key, self._hash()).public_bytes(Encoding.PEM)

    def _issue(
        self,
        request: bytes,
        name: str,
        usage: ObjectIdentifier,
        hosts: x509.SubjectAlternativeName | None,
        days: int,
    ) -> Issued:
        key = check_request(request)
        now, last = self._now(), self._chain[0].not_valid_after_utc
        ends = min(now + timedelta(days=days), last).replace(microsecond=0)
        builder = (
            _builder(_named(name), self._chain[0].subject, key)
            .not_valid_before(now - _HEAD_START)
            .not_valid_after(ends)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(authority=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
            .add_extension(self._key_identifier(), critical=False)
        )
        if hosts is not None:
            builder = builder.add_extension(hosts, critical=False)
        leaf = builder.sign(self._key, self._hash())
        between = [one for one in self._chain if one.issuer != one.subject]
        pem = b"".join(one.public_bytes(Encoding.PEM) for one in (leaf, *between))
        return Issued(pem, leaf.serial_number, int(ends.timestamp()))

    def _key_identifier(self) -> x509.AuthorityKeyIdentifier:
        try:
            own = self._chain[0].extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
        except x509.ExtensionNotFound:
            return x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(own.value)

    def _hash(self) -> hashes.SHA256 | None:
        return None if isinstance(self._key, ed25519.Ed25519PrivateKey) else hashes.SHA256()

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._now_ns() // SECOND, UTC)


def create_authority(certificate: Path, private_key: Path, name: str) -> Authority:
    """Make an authority in two new files; the one with its private key has mode 0600.

    Raises:
        KeyFault: when there is one already, or the files cannot be made.
    """
    for path in (certificate, private_key):
        if path.exists():
            raise KeyFault(
                tr("there is a certificate authority already", "证书机构已存在"),
                where=str(path),
                remedy=tr("keep it: every agent trusts it", "请沿用：所有代理程序都信任它"),
            )
    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.now(UTC).replace(microsecond=0)
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    own = (
        _builder(_named(name), _named(name), key.public_key())
        .not_valid_before(now - _HEAD_START)
        .not_valid_after(now + timedelta(days=AUTHORITY_DAYS))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(authority=True), critical=True)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier),
            critical=False,
        )
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    try:
        write_whole(private_key, private)
        write_whole(certificate, own.public_bytes(Encoding.PEM), PUBLIC)
    except OSError as error:
        raise KeyFault(
            tr("the certificate authority cannot be written", "无法写入证书机构文件"),
            where=str(private_key),
            remedy=str(error.strerror),
        ) from None
    return Authority([own], key)


def load_authority(certificate: Path, private_key: Path, now_ns: NowNs = time.time_ns) -> Authority:
    """Read an authority: ours, or the site's own.

    Args:
        certificate: PEM; its certificate, then those above it up to the root.
        private_key: PEM, not encrypted, mode 0600; or `credential:NAME`.

    Raises:
        KeyFault: when a file is missing, open to others or of the wrong kind, the two do not belong
            together, or the certificate may not issue any.
    """
    chain = _read_chain(certificate)
    key = _read_key(private_key)
    if key.public_key() != chain[0].public_key():
        raise KeyFault(
            tr("key and certificate do not belong together", "私钥与证书不匹配"),
            where=str(private_key),
            remedy=tr(f"give the key of {certificate}", f"请提供 {certificate} 对应的私钥"),
        )
    return Authority(chain, key, now_ns)


def fingerprint_of(bundle: bytes) -> bytes:
    """Return the SHA-256 of the certificates in a PEM text.

    Raises:
        KeyFault: when there are none.
    """
    try:
        chain = x509.load_pem_x509_certificates(bundle)
    except ValueError:
        raise KeyFault(tr("this is not a certificate (PEM)", "不是证书（PEM）")) from None
    return hashlib.sha256(b"".join(one.public_bytes(Encoding.DER) for one in chain)).digest()


def _read_chain(path: Path) -> list[x509.Certificate]:
    try:
        chain = x509.load_pem_x509_certificates(located(path).read_bytes())
    except (OSError, ValueError):
        raise KeyFault(
            tr("the authority's certificate cannot be read", "无法读取证书机构的证书"),
            where=str(path),
            remedy=tr("give a PEM file", "请提供 PEM 文件"),
        ) from None
    if not all(_may_issue(one) for one in chain):
        raise KeyFault(
            tr("this certificate may not issue others", "此证书不可签发其他证书"),
            where=str(path),
            remedy=tr("give an authority's (CA:TRUE)", "请提供证书机构的证书（CA:TRUE）"),
        )
    return chain


def _may_issue(certificate: x509.Certificate) -> bool:
    try:
        found = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
    except (x509.ExtensionNotFound, ValueError):
        return False
    return found.value.ca


def _read_key(path: Path) -> _PrivateKey:
    key = read_pem_key(path)
    if not isinstance(key, _PrivateKey):
        raise KeyFault(
            tr("the authority's key cannot be read", "无法读取证书机构的私钥"),
            where=str(path),
            remedy=tr("give a PEM file that is not encrypted", "请提供未加密的 PEM 文件"),
        )
    return key


def check_request(request: bytes) -> ec.EllipticCurvePublicKey:
    """Return the key that a request is for, having checked that its holder made the request.

    Raises:
        RequestRefused: when the request is not sound.
    """
    try:
        pem = request.lstrip().startswith(b"-----BEGIN")
        load = x509.load_pem_x509_csr if pem else x509.load_der_x509_csr
        found = load(request[: MOST_REQUEST + 1])
        key, sound = found.public_key(), found.is_signature_valid
    except (ValueError, UnsupportedAlgorithm, TypeError):
        key, sound = None, False
    if not sound:
        raise RequestRefused(
            tr("not a sound request for a certificate", "证书申请无效"),
            remedy=tr("make it again", "请重新生成"),
        )
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise RequestRefused(
            tr("the key of this request is not P-256", "此申请的密钥不是 P-256"),
            remedy=tr("make a P-256 key", "请使用 P-256 密钥"),
        )
    return key


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _key_usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=authority,
        crl_sign=authority,
        encipher_only=False,
        decipher_only=False,
    )


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        pass
    try:
        return x509.DNSName(host)
    except ValueError:
        raise RequestRefused(
            tr("not a host name in ASCII", "不是 ASCII 主机名"), where=host
        ) from None
