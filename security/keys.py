"""Keys and the files that hold them.

Private keys live in files of mode 0600 and are refused otherwise. Public keys travel as text.
Every key has a `kid`: the first 16 bytes of the SHA-256 of its public bytes.
"""

import base64
import binascii
import hashlib
import os
import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final, Literal, Protocol

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hpke import MLKEM768X25519PrivateKey, MLKEM768X25519PublicKey

from protocols.errors import MillgateError
from protocols.language import tr
from security.schemes import ED25519, MLDSA65, Scheme
from security.secret import Secret

KID_BYTES: Final = 16
SEED_BYTES: Final = 32
_MLKEM_PUBLIC: Final = 1184
SEALING_BYTES: Final = _MLKEM_PUBLIC + 32
_SEALING: Final = "mlkem768-x25519"

ALG_EDDSA: Final = ED25519.alg
ALG_MLDSA65: Final = MLDSA65.alg
MLDSA65_PUBLIC: Final = MLDSA65.public_bytes
MLDSA65_SIGNATURE: Final = MLDSA65.signature_bytes

KeyKind = Literal["ed25519", "xwing", "aes256", "mldsa65"]
_HEADER: Final = re.compile(r"millgate-private-key/1 (ed25519|xwing|aes256|mldsa65)")


class KeyFault(MillgateError):
    """A key file that is missing, readable by others, or not what it should be."""


class BadSignature(MillgateError):
    """A signature that the pinned key did not make."""


class Verifier(Protocol):
    """A public key that verifies signatures; the algorithm belongs to it."""

    @property
    def public(self) -> bytes:
        """Its bytes."""
        ...

    @property
    def kid(self) -> bytes:
        """Its key id."""
        ...

    @property
    def alg(self) -> int:
        """Its COSE algorithm."""
        ...

    def verify(self, signature: bytes, data: bytes) -> None:
        """Check a signature; raises BadSignature."""
        ...


class Signer(Protocol):
    """A private key that signs."""

    @property
    def public(self) -> Verifier:
        """Its public half."""
        ...

    def sign(self, data: bytes) -> bytes:
        """Return the signature of `data`."""
        ...


def kid_of(public: bytes) -> bytes:
    """Return the key id of public key bytes."""
    return hashlib.sha256(public).digest()[:KID_BYTES]


@dataclass(frozen=True, slots=True)
class _PublicKey:
    """A public key of any kind.

    Attributes:
        public: its bytes.
    """

    public: bytes

    @property
    def kid(self) -> bytes:
        """The key id."""
        return kid_of(self.public)


@dataclass(frozen=True, slots=True)
class _SchemeKey(_PublicKey):
    """A public key that verifies signatures of one scheme."""

    scheme: Scheme

    @property
    def alg(self) -> int:
        """The COSE algorithm; it belongs to the key and is never chosen by a message."""
        return self.scheme.alg

    def verify(self, signature: bytes, data: bytes) -> None:
        """Check a signature.

        Raises:
            BadSignature: when it is not this key's signature of `data`.
        """
        try:
            self.scheme.check(self.public, signature, data)
        except (InvalidSignature, ValueError):
            raise BadSignature("signature does not match") from None

    def to_text(self) -> str:
        """Return the key as text."""
        return _public_text(self.scheme.name, self.public)


@dataclass(frozen=True, slots=True)
class VerifyKey(_SchemeKey):
    """A public key that verifies batches, answers and what officers sign."""

    scheme: Scheme = ED25519

    @staticmethod
    def from_text(text: str) -> "VerifyKey":
        """Read what `to_text` wrote.

        Raises:
            ValueError: when it is not that.
        """
        return VerifyKey(_public_bytes(text, ED25519.name, ED25519.public_bytes))


@dataclass(frozen=True, slots=True)
class AttestationVerifyKey(_SchemeKey):
    """A public ML-DSA-65 key (FIPS 204), for what must stay unforgeable for decades."""

    scheme: Scheme = MLDSA65

    @staticmethod
    def from_text(text: str) -> "AttestationVerifyKey":
        """Read what `to_text` wrote.

        Raises:
            ValueError: when it is not that.
        """
        return AttestationVerifyKey(_public_bytes(text, MLDSA65.name, MLDSA65.public_bytes))


@dataclass(frozen=True, slots=True)
class SealingKey(_PublicKey):
    """A public MLKEM768-X25519 key (HPKE KEM 0x647a) that others seal to.

    Its 1216 bytes are the ML-KEM-768 key, then the X25519 key.
    """

    def for_hpke(self) -> MLKEM768X25519PublicKey:
        """Return the key as HPKE takes it."""
        return _for_hpke(self.public)

    def to_text(self) -> str:
        """Return the key as text."""
        return _public_text(_SEALING, self.public)

    @staticmethod
    def from_text(text: str) -> "SealingKey":
        """Read what `to_text` wrote.

        Raises:
            ValueError: when it is not that.
        """
        key = SealingKey(_public_bytes(text, _SEALING, SEALING_BYTES))
        key.for_hpke()
        if not key.is_sound():
            raise ValueError(
                tr("this public key protects nothing (low order)", "此公钥不起保护作用（低阶点）")
            )
        return key

    def is_sound(self) -> bool:
        """Tell whether the X25519 half has full order: with a low one anybody knows the secret."""
        ours = X25519PrivateKey.generate()
        try:
            ours.exchange(X25519PublicKey.from_public_bytes(self.public[_MLKEM_PUBLIC:]))
        except ValueError:
            return False
        return True


@lru_cache(maxsize=32)
def _for_hpke(public: bytes) -> MLKEM768X25519PublicKey:
    """Parse a public key; doing so costs as much as sealing a small message to it."""
    return MLKEM768X25519PublicKey(
        MLKEM768PublicKey.from_public_bytes(public[:_MLKEM_PUBLIC]),
        X25519PublicKey.from_public_bytes(public[_MLKEM_PUBLIC:]),
    )


class SigningKey:
    """A private Ed25519 key; its `repr` shows nothing."""

    __slots__ = ("_sign", "public")

    def __init__(self, seed: Secret[bytes]) -> None:
        sign, public = ED25519.expand(seed.reveal())
        self._sign, self.public = Secret(sign), VerifyKey(public)

    def sign(self, data: bytes) -> bytes:
        """Return the signature of `data`, 64 bytes."""
        return self._sign.reveal()(data)


class AttestationKey:
    """A private ML-DSA-65 key, expanded from its 32-byte seed; its `repr` shows nothing."""

    __slots__ = ("_sign", "public")

    def __init__(self, seed: Secret[bytes]) -> None:
        sign, public = MLDSA65.expand(seed.reveal())
        self._sign, self.public = Secret(sign), AttestationVerifyKey(public)

    def sign(self, data: bytes) -> bytes:
        """Return the signature of `data`, 3309 bytes, with an empty context (RFC 9964)."""
        return self._sign.reveal()(data)


class OpeningKey:
    """A private MLKEM768-X25519 key, expanded from its 32-byte seed as in X-Wing."""

    __slots__ = ("_private", "public")

    def __init__(self, seed: Secret[bytes]) -> None:
        wide = hashlib.shake_256(seed.reveal()).digest(96)
        mlkem = MLKEM768PrivateKey.from_seed_bytes(wide[:64])
        x25519 = X25519PrivateKey.from_private_bytes(wide[64:])
        self._private = Secret(MLKEM768X25519PrivateKey(mlkem, x25519))
        self.public = SealingKey(
            mlkem.public_key().public_bytes_raw() + x25519.public_key().public_bytes_raw()
        )

    def for_hpke(self) -> MLKEM768X25519PrivateKey:
        """Return the key as HPKE takes it."""
        return self._private.reveal()


def _public_text(kind: str, public: bytes) -> str:
    return f"{kind}:{base64.b64encode(public).decode()}"


def _public_bytes(text: str, kind: str, length: int) -> bytes:
    try:
        found, encoded = text.split(":", 1)
        public = base64.b64decode(encoded, validate=True)
    except (ValueError, binascii.Error):
        raise ValueError(tr("not a public key", "不是公钥")) from None
    if found != kind or len(public) != length:
        raise ValueError(tr(f"not a public key of kind {kind}", f"不是 {kind} 类公钥"))
    return public


def create_key_file(path: Path, kind: KeyKind) -> Secret[bytes]:
    """Make a new private key in a new file of mode 0600.

    Raises:
        KeyFault: when the file is there already or cannot be made.
    """
    seed = os.urandom(SEED_BYTES)
    text = f"millgate-private-key/1 {kind}\n{base64.b64encode(seed).decode()}\n"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "w", encoding="ascii") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
    except FileExistsError:
        raise KeyFault(
            tr("a key is there already and is not overwritten", "密钥已存在，不会覆盖"),
            where=str(path),
            remedy=tr("choose another place, or keep the key", "请换个位置，或沿用现有密钥"),
        ) from None
    except OSError as error:
        raise KeyFault(
            tr("the key file cannot be made", "无法创建密钥文件"),
            where=str(path),
            remedy=str(error.strerror),
        ) from None
    return Secret(seed)


def load_key_file(path: Path, kind: KeyKind) -> Secret[bytes]:
    """Read a private key.

    Raises:
        KeyFault: when the file is missing, open to others, or holds no such key.
    """
    try:
        mode = path.stat().st_mode & 0o777
        text = path.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError):
        raise KeyFault(
            tr("the key cannot be read", "无法读取密钥"),
            where=str(path),
            remedy=tr("make it with 'init', or correct the path", "请用 init 生成，或更正路径"),
        ) from None
    if mode & 0o077:
        raise KeyFault(
            tr("the key is open to other users", "其他用户可读取此密钥"),
            where=str(path),
            remedy=f"chmod 600 {path}",
        )
    lines = text.splitlines()
    header = _HEADER.fullmatch(lines[0]) if len(lines) == 2 else None
    try:
        seed = base64.b64decode(lines[1], validate=True) if header else b""
    except binascii.Error:
        seed = b""
    if header is None or header[1] != kind or len(seed) != SEED_BYTES:
        raise KeyFault(
            tr(f"this is not a private key of kind {kind}", f"不是 {kind} 类私钥"),
            where=str(path),
            remedy=tr("give the right file", "请提供正确的文件"),
        )
    return Secret(seed)
