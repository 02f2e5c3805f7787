"""Keys: private ones from files or tokens, public ones as text.

Private keys live in files of mode 0600 and are refused otherwise (`security.at_rest`).
Every key has a `kid`: the first 16 bytes of the SHA-256 of its public bytes.
"""

import base64
import binascii
import hashlib
import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final, Protocol

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hpke import MLKEM768X25519PrivateKey, MLKEM768X25519PublicKey

from protocols.errors import MillgateError, Misfit
from protocols.language import tr
from security.at_rest import (
    SEED_BYTES,
    KeyKind,
    Unlock,
    encrypted_text,
    no_passphrase,
    not_a_key,
    plain_text,
    read_key,
    write_new,
)
from security.schemes import ED25519, MLDSA65, P256, P256_ORDER, Scheme
from security.secret import Secret

KID_BYTES: Final = 16
_MLKEM_PUBLIC: Final = 1184
SEALING_BYTES: Final = _MLKEM_PUBLIC + 32
_SEALING: Final = "mlkem768-x25519"
SIGNING_SCHEMES: Final = {scheme.name: scheme for scheme in (ED25519, P256)}
"""What may sign batches, answers and policies, by the name of its keys."""

ALG_EDDSA: Final = ED25519.alg
ALG_MLDSA65: Final = MLDSA65.alg
MLDSA65_PUBLIC: Final = MLDSA65.public_bytes
MLDSA65_SIGNATURE: Final = MLDSA65.signature_bytes


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
        """Its public half; the algorithm belongs to it."""
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
        scheme = SIGNING_SCHEMES.get(text.partition(":")[0], ED25519)
        key = VerifyKey(_public_bytes(text, scheme.name, scheme.public_bytes), scheme)
        if not key.is_sound():
            raise ValueError(tr("not a point of the curve", "不是曲线上的点"))
        return key

    def is_sound(self) -> bool:
        """Tell whether the bytes are a key of their scheme at all."""
        return self.scheme.is_key(self.public)


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
    """A private key in this process, Ed25519 or P-256; its `repr` shows nothing."""

    __slots__ = ("_sign", "public")

    def __init__(self, seed: Secret[bytes], scheme: Scheme = ED25519) -> None:
        sign, public = scheme.expand(seed.reveal())
        self._sign, self.public = Secret(sign), VerifyKey(public, scheme)

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


class MessageSigner(Signer, Protocol):
    """A private key, here or in a token, that signs batches, answers or policies."""

    @property
    def public(self) -> VerifyKey:
        """Its public half."""
        ...


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
        found, public = "", b""
    if found != kind or len(public) != length:
        raise Misfit(
            tr(f"not a public key of kind {kind}", f"不是 {kind} 类公钥"),
            tr("copy the whole line that was printed with it", "请完整复制所显示的整行公钥"),
        )
    return public


def create_key_file(
    path: Path, kind: KeyKind, passphrase: Secret[bytes] | None = None
) -> Secret[bytes]:
    """Make a new private key in a new file of mode 0600, under a passphrase where one is given.

    Raises:
        KeyFault: when the file is there already or cannot be made.
    """
    seed = Secret(new_seed(kind))
    text = plain_text(kind, seed) if passphrase is None else encrypted_text(kind, seed, passphrase)
    write_new(path, text)
    return seed


def new_seed(kind: KeyKind) -> bytes:
    """Return the 32 random bytes of a new key; for P-256 they are a number below the curve's order."""
    while True:
        seed = os.urandom(SEED_BYTES)
        if kind != P256.name or 0 < int.from_bytes(seed, "big") < P256_ORDER:
            return seed


def load_key_file(path: Path, kind: KeyKind, unlock: Unlock = no_passphrase) -> Secret[bytes]:
    """Read a private key of one kind.

    Args:
        path: a file, or `credential:NAME`.
        kind: what it must be.
        unlock: gives the passphrase where the file is encrypted.

    Raises:
        KeyFault: when the file is missing, open to others, or holds no such key.
        NoCredential: when it names a credential that was not handed over.
    """
    found, seed = read_key(path, unlock)
    if found != kind:
        raise not_a_key(path, kind)
    return seed


def load_signing_key(path: Path, unlock: Unlock = no_passphrase) -> SigningKey:
    """Read a private key that signs, Ed25519 or P-256.

    Raises:
        KeyFault, NoCredential: see `load_key_file`.
    """
    kind, seed = read_key(path, unlock)
    scheme = SIGNING_SCHEMES.get(kind)
    if scheme is None:
        raise not_a_key(path, " | ".join(SIGNING_SCHEMES))
    return SigningKey(seed, scheme)
