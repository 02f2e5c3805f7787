"""When the X.509 certificates of connections end."""

from pathlib import Path

from cryptography import x509

from protocols.errors import MillgateError
from protocols.language import tr


def certificate_end(path: Path) -> int:
    """Return when the first certificate of a PEM file to end does, seconds since 1970 UTC.

    Raises:
        MillgateError: when the file cannot be read or holds no certificate.
    """
    try:
        found = x509.load_pem_x509_certificates(path.read_bytes())
    except (OSError, ValueError) as error:
        raise MillgateError(
            tr("the certificate cannot be read", "无法读取证书"),
            where=str(path),
            remedy=tr(
                f"give a PEM file with a certificate ({type(error).__name__})",
                f"请给出含证书的 PEM 文件（{type(error).__name__}）",
            ),
        ) from None
    return min(int(one.not_valid_after_utc.timestamp()) for one in found)
