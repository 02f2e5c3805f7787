"""When the X.509 certificates of connections begin and end."""

from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from cryptography import x509

from protocols.errors import MillgateError
from protocols.language import tr


class Span(NamedTuple):
    """When a certificate is valid, seconds since 1970 UTC."""

    starts_s: int
    ends_s: int


def span_in(path: Path) -> Span:
    """Return when that certificate of a PEM file is valid which is the first to end.

    Raises:
        MillgateError: when the file cannot be read or holds no certificate.
    """
    try:
        return _first(x509.load_pem_x509_certificates(path.read_bytes()))
    except (OSError, ValueError) as error:
        raise MillgateError(
            tr("the certificate cannot be read", "无法读取证书"),
            where=str(path),
            remedy=tr(
                f"give a PEM file with a certificate ({type(error).__name__})",
                f"请给出含证书的 PEM 文件（{type(error).__name__}）",
            ),
        ) from None


def span_of(der: bytes) -> Span | None:
    """Return when a certificate, DER, is valid; None for bytes that are none."""
    try:
        return _first([x509.load_der_x509_certificate(der)])
    except ValueError:
        return None


def _first(found: list[x509.Certificate]) -> Span:
    one = min(found, key=lambda each: each.not_valid_after_utc)
    return Span(_seconds(one.not_valid_before_utc), _seconds(one.not_valid_after_utc))


def _seconds(at: datetime) -> int:
    return int(at.timestamp())
