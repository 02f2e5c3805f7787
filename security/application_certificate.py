"""The certificate by which devices know this agent (OPC UA application instance certificate)."""

import ipaddress
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from protocols.errors import MillgateError
from protocols.language import tr
from security.at_rest import KeyFault
from security.files import PRIVATE, PUBLIC, write_whole

_HEAD_START: Final = timedelta(hours=1)
"""Devices' clocks are often behind; a certificate that starts now would not be valid there yet."""


def new_application_uri() -> str:
    """Return a URI that no other application has, and that tells nothing."""
    return f"urn:millgate:{os.urandom(8).hex()}"


def create_application_certificate(
    pem: Path, der: Path, *, uri: str, host: str, days: int, bits: int, renew: bool = False
) -> None:
    """Make an RSA key and a certificate that it signs itself.

    Args:
        pem: file for both, mode 0600; it appears whole or not at all.
        der: file for the certificate alone, to be handed to others.
        uri: the application URI.
        host: name or address of this machine.
        days: how long the certificate is valid.
        bits: length of the key, 2048 to 4096.
        renew: replace what is there; it is kept beside, as `*.old`.

    Raises:
        KeyFault: when there is one already, or the files cannot be made.
    """
    if pem.exists() and not renew:
        raise KeyFault(
            tr("there is a certificate already", "证书已存在"),
            where=str(pem),
            remedy=tr(
                "keep it; or make a new one with --renew, which servers must trust again",
                "请沿用；或用 --renew 重新生成，之后各服务器须重新信任",
            ),
        )
    key = rsa.generate_private_key(public_exponent=65537, key_size=bits)
    certificate = _certificate(key, uri, host, days)
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    try:
        _write(pem, private + certificate.public_bytes(Encoding.PEM), PRIVATE)
        _write(der, certificate.public_bytes(Encoding.DER), PUBLIC)
    except OSError as error:
        raise KeyFault(
            tr("the certificate cannot be written", "无法写入证书"),
            where=str(pem),
            remedy=str(error.strerror),
        ) from None


def _certificate(key: rsa.RSAPrivateKey, uri: str, host: str, days: int) -> x509.Certificate:
    # After OPC 10000-6, 6.2.2.
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Millgate")])
    now = datetime.now(UTC)
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    usage = x509.KeyUsage(
        digital_signature=True,
        content_commitment=True,
        key_encipherment=True,
        data_encipherment=True,
        key_agreement=False,
        key_cert_sign=True,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )
    names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri), _host_name(host)])
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _HEAD_START)
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
        .add_extension(names, critical=False)
        .add_extension(identifier, critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier),
            critical=False,
        )
        .sign(key, hashes.SHA256())
    )


def _host_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return _dns_name(host)


def _dns_name(host: str) -> x509.DNSName:
    try:
        return x509.DNSName(host)
    except ValueError:
        raise MillgateError(
            tr("not a host name in ASCII", "不是 ASCII 主机名"), where="--host"
        ) from None


def _write(path: Path, data: bytes, mode: int) -> None:
    """Write a file whole; what was there before is kept beside it, and in its place until then."""
    if path.exists():
        write_whole(path.with_name(f"{path.name}.old"), path.read_bytes(), mode)
    write_whole(path, data, mode)
