"""The folder of certificates of an OPC UA client.

    pki/own.pem                our private key and our certificate, in one file of mode 0600
    pki/own.der                the certificate alone, to be handed to servers
    pki/trusted/<sha256>.der   a server that is trusted
    pki/trusted/<sha256>.toml  how well it protected its connections when it came to be trusted

Trust is in single certificates, never in who issued them: applications sign their own, and one
server's key must not be able to vouch for another.
"""

import logging
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from asyncua.crypto import uacrypto

from protocols.drivers import NotConnected
from protocols.drivers.opcua.certificates import Certificate, parse_certificate, pem_blocks, x509_of
from protocols.drivers.opcua.levels import Level, ModeName, PolicyName, level_of
from protocols.errors import ConfigError
from protocols.language import tr
from protocols.settings import Strict, load_settings

OWN: Final = "own.pem"
OWN_DER: Final = "own.der"
_TRUSTED: Final = "trusted"
_log = logging.getLogger(__name__)
_ENDINGS: Final = ("der", "cer", "crt", "pem")
_LARGEST_FILE: Final = 1 << 16
_MOST_TRUSTED: Final = 10_000
_OTHERS: Final = 0o077
_OTHERS_WRITE: Final = 0o022


class _Hidden:
    """Keeps a private key out of every `repr`."""

    __slots__ = ("value",)

    def __init__(self, value: bytes) -> None:
        self.value = value

    def __repr__(self) -> str:
        return "<secret>"


@dataclass(frozen=True, slots=True)
class Own:
    """A certificate of ours and its private key.

    Attributes:
        certificate: what others see.
        path: the file that holds both.
    """

    certificate: Certificate
    path: Path
    _key: _Hidden

    @property
    def key_der(self) -> bytes:
        """The private key."""
        return self._key.value


async def parse_own(data: bytes, path: Path, remedy: str) -> Own:
    """Take a PEM text with a private key and its certificate apart.

    Raises:
        NotConnected: when it is not that.
    """
    try:
        blocks = pem_blocks(data)
        key = blocks.get("PRIVATE KEY") or blocks.get("RSA PRIVATE KEY") or b""
        certificate = parse_certificate(blocks.get("CERTIFICATE", b""))
        private: Any = await uacrypto.load_private_key(key, None, "der")
        public = x509_of(certificate.der).public_key()
        usable = private.public_key().public_numbers() == public.public_numbers()
        usable = usable and certificate.rsa_bits > 0
    except (ValueError, TypeError, AttributeError):
        usable = False
    if not usable:
        raise NotConnected(
            tr("is not an RSA private key with its certificate", "不是 RSA 私钥及其证书"),
            where=str(path),
            remedy=remedy,
        )
    return Own(certificate, path, _Hidden(key))


def read_private(path: Path, remedy: str) -> bytes:
    """Read a file that only its owner may read.

    Raises:
        NotConnected: when it is missing, or other users may read or change it.
    """
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            data = file.read(_LARGEST_FILE + 1)
    except OSError as error:
        raise NotConnected(
            tr(
                f"the private file cannot be read ({type(error).__name__})",
                f"无法读取私密文件（{type(error).__name__}）",
            ),
            where=str(path),
            remedy=remedy,
        ) from None
    if stat.S_IMODE(mode) & _OTHERS:
        raise NotConnected(
            tr("the file is open to other users", "其他用户可访问此文件"),
            where=str(path),
            remedy=f"chmod 600 {path}",
        )
    if len(data) > _LARGEST_FILE:
        raise NotConnected(tr("the file is too large", "文件过大"), where=str(path), remedy=remedy)
    return data


def read_certificate(path: Path) -> Certificate:
    """Read a certificate that somebody exported.

    Raises:
        NotConnected: when it cannot be read or is none.
    """
    try:
        with path.open("rb") as file:
            return parse_certificate(file.read(_LARGEST_FILE))
    except (OSError, ValueError):
        raise NotConnected(
            tr("there is no readable certificate", "没有可读的证书"),
            where=str(path),
            remedy=tr(
                "export the server's certificate again, as DER or PEM",
                "请重新导出服务器证书（DER 或 PEM）",
            ),
        ) from None


class _Record(Strict):
    """What is written down beside a trusted certificate."""

    device: str
    security: PolicyName | None = None
    security_mode: ModeName | None = None


@dataclass(frozen=True, slots=True)
class Trusted:
    """A server that is trusted.

    Attributes:
        certificate: its certificate.
        device: id of the device for which it was trusted; empty where nobody wrote it down.
        floor: how well it protected its connections then; None where nobody wrote it down.
    """

    certificate: Certificate
    device: str = ""
    floor: Level | None = None


class TrustFolder:
    """The servers that are trusted."""

    def __init__(self, pki: Path) -> None:
        self.path = pki / _TRUSTED

    def find(self, certificate: Certificate) -> Trusted | None:
        """Return what is known of exactly this certificate; None when it is not trusted.

        Raises:
            NotConnected: when the folder cannot be believed.
        """
        # Certificates put here by hand may have any name.
        found = (one for _, one in self._read() if one.der == certificate.der)
        return next((self._known(one) for one in found), None)

    def all(self) -> list[Trusted]:
        """Return every certificate in the folder.

        Raises:
            NotConnected: when the folder cannot be believed.
        """
        return [self._known(certificate) for _, certificate in self._read()]

    def add(self, trusted: Trusted) -> Path:
        """Trust a server from now on; other certificates of the same device no longer.

        Returns:
            where its certificate now is.
        """
        self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
        for old in self.all():
            if old.device and old.device == trusted.device:
                self.remove(old.certificate.sha256)
        stem = self.path / trusted.certificate.sha256
        lines = [f'device = "{trusted.device}"\n']
        if trusted.floor is not None:
            lines.append(f'security = "{trusted.floor.policy}"\n')
            lines.append(f'security_mode = "{trusted.floor.mode}"\n')
        stem.with_suffix(".toml").write_text("".join(lines), encoding="utf-8")
        path = stem.with_suffix(".der")
        path.write_bytes(trusted.certificate.der)
        return path

    def remove(self, sha256: str) -> bool:
        """Trust no longer the certificate of that fingerprint; tell whether it was trusted.

        Raises:
            NotConnected: when the folder cannot be believed.
        """
        paths = [path for path, one in self._read() if one.sha256 == sha256]
        for path in paths:
            path.unlink(missing_ok=True)
        (self.path / f"{sha256}.toml").unlink(missing_ok=True)
        return bool(paths)

    def of_device(self, device: str) -> list[Trusted]:
        """Return what was trusted for a device."""
        return [one for one in self.all() if one.device == device]

    def _read(self) -> list[tuple[Path, Certificate]]:
        self._check_writers()
        paths = [path for ending in _ENDINGS for path in self.path.glob(f"*.{ending}")]
        found = []
        for path in sorted(paths)[:_MOST_TRUSTED]:
            try:
                found.append((path, read_certificate(path)))
            except NotConnected as fault:
                # One damaged file must not keep every other server out.
                _log.warning("%s", fault)
        return found

    def _known(self, certificate: Certificate) -> Trusted:
        path = self.path / f"{certificate.sha256}.toml"
        if not path.exists():
            return Trusted(certificate)
        try:
            record = load_settings(path, _Record)
        except ConfigError as error:
            fault = error.faults[0]
            raise NotConnected(
                fault.what,
                where=fault.where,
                remedy=tr(
                    "trust the server again: millgate agent cert trust",
                    "请重新信任该服务器：millgate agent cert trust",
                ),
            ) from None
        if record.security is None or record.security_mode is None:
            return Trusted(certificate, record.device)
        level = level_of(record.security, record.security_mode)
        return Trusted(certificate, record.device, level)

    def _check_writers(self) -> None:
        """Whoever may write here decides whom we trust."""
        for path in (self.path, self.path.parent):
            if path.exists() and stat.S_IMODE(path.stat().st_mode) & _OTHERS_WRITE:
                raise NotConnected(
                    tr("other users may change whom we trust", "其他用户可更改信任列表"),
                    where=str(path),
                    remedy=f"chmod go-w {path}",
                )
