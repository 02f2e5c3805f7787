"""TLS: strict contexts, and plain words for what goes wrong with them."""

import ssl
from pathlib import Path

from protocols.errors import MillgateError
from protocols.language import tr
from protocols.places import located, open_to_others


class TlsFault(MillgateError):
    """A file that TLS needs cannot be used."""


def client_context(
    ca_file: Path | None, certificate: Path | None, private_key: Path | None
) -> ssl.SSLContext:
    """Return a context that checks the server's certificate and its name; TLS 1.2 or newer.

    Args:
        ca_file: authorities that may vouch for the server; None for the system's.
        certificate, private_key: ours; None where there is none to show.

    Raises:
        TlsFault: when a file cannot be used, or others can read the private key.
    """
    try:
        context = ssl.create_default_context(cafile=ca_file)
    except OSError as error:
        raise _unusable(ca_file, error) from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if certificate is not None and private_key is not None:
        _load(context, certificate, private_key)
    return context


def trusting_context(certificate: Path | None, private_key: Path | None) -> ssl.SSLContext:
    """Return a context that takes any server's certificate, where a person has asked for that.

    Raises:
        TlsFault: when a file cannot be used, or others can read the private key.
    """
    context = client_context(None, certificate, private_key)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def server_context(certificate: Path, private_key: Path) -> ssl.SSLContext:
    """Return a context for a server; TLS 1.2 or newer.

    Raises:
        TlsFault: when a file cannot be used, or others can read the private key.
    """
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    _load(context, certificate, private_key)
    return context


def show_certificate(context: ssl.SSLContext, certificate: Path, private_key: Path) -> None:
    """Let a context show this certificate from its next connection on.

    Raises:
        TlsFault: when a file cannot be used, or others can read the private key.
    """
    _load(context, certificate, private_key)


def _load(context: ssl.SSLContext, certificate: Path, private_key: Path) -> None:
    _check_private(private_key)
    try:
        context.load_cert_chain(certificate, located(private_key))
    except OSError as error:
        raise _unusable(certificate, error) from None


def _check_private(path: Path) -> None:
    try:
        open_ = open_to_others(path)
    except OSError as error:
        raise _unusable(path, error) from None
    if open_:
        raise TlsFault(
            tr("the private key is open to other users", "其他用户可读取私钥"),
            where=str(path),
            remedy=f"chmod 600 {path}",
        )


def _unusable(path: Path | None, error: OSError) -> TlsFault:
    what = error.strerror or getattr(error, "reason", "") or type(error).__name__
    return TlsFault(
        tr(f"cannot be used for TLS: {what}", f"无法用于 TLS：{what}"),
        where=str(path),
        remedy=tr("give a PEM file of the right kind", "请提供正确的 PEM 文件"),
    )


def refusal(error: BaseException | None) -> str:
    """Say in plain words why a TLS connection could not be made; empty where TLS is not why."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return tr(
            f"its certificate is not accepted ({error.verify_message})",
            f"其证书不被接受（{error.verify_message}）",
        )
    if isinstance(error, ssl.SSLError):
        reason = (error.reason or type(error).__name__).replace("_", " ").lower()
        return tr(f"TLS fails ({reason})", f"TLS 失败（{reason}）")
    return ""
