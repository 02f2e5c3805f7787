"""Signature schemes: what a key of a kind can do, and the one way in which each is written.

A scheme belongs to a key and is never chosen by a message.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA65PrivateKey, MLDSA65PublicKey
from cryptography.hazmat.primitives.asymmetric.utils import (
    decode_dss_signature,
    encode_dss_signature,
)
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

P256_ORDER: Final = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
"""How many points the curve's group has (SEC 2, secp256r1)."""

_CURVE: Final = ec.SECP256R1()

Sign = Callable[[bytes], bytes]


@dataclass(frozen=True, slots=True)
class Scheme:
    """A signature scheme.

    Attributes:
        name: how its public keys begin when written as text, and the kind of its key files.
        alg: COSE algorithm.
        public_bytes, signature_bytes: exact lengths.
        expand: a private key's 32 bytes -> the function that signs, and the public key's bytes.
        check: (public key, signature, data); raises InvalidSignature or ValueError.
        is_key: whether bytes of the right length are a public key.
    """

    name: str
    alg: int
    public_bytes: int
    signature_bytes: int
    expand: Callable[[bytes], tuple[Sign, bytes]]
    check: Callable[[bytes, bytes, bytes], None]
    is_key: Callable[[bytes], bool] = lambda _: True


def _expand_ed25519(seed: bytes) -> tuple[Sign, bytes]:
    private = Ed25519PrivateKey.from_private_bytes(seed)
    return private.sign, private.public_key().public_bytes_raw()


def _check_ed25519(public: bytes, signature: bytes, data: bytes) -> None:
    Ed25519PublicKey.from_public_bytes(public).verify(signature, data)


def _expand_p256(seed: bytes) -> tuple[Sign, bytes]:
    private = ec.derive_private_key(int.from_bytes(seed, "big"), _CURVE)
    public = private.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)

    def sign(data: bytes) -> bytes:
        # Nonces of RFC 6979: a weak source of randomness cannot give the key away.
        der = private.sign(data, ec.ECDSA(SHA256(), deterministic_signing=True))
        return low_s(*decode_dss_signature(der))

    return sign, public


def low_s(r: int, s: int) -> bytes:
    """Return an ECDSA signature in the one form that is taken: r, then the smaller s, 32 bytes each.

    (r, s) and (r, order - s) are both right for the same key and data. Were both taken, anybody on the
    way could give a batch a second hash, and two hashes in one place are the proof of a fraud.
    """
    return r.to_bytes(32, "big") + min(s, P256_ORDER - s).to_bytes(32, "big")


def _check_p256(public: bytes, signature: bytes, data: bytes) -> None:
    r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
    if len(signature) != P256.signature_bytes or not (
        0 < r < P256_ORDER and 0 < s <= P256_ORDER // 2
    ):
        raise ValueError("not r and a low s of 32 bytes each")
    _p256(public).verify(encode_dss_signature(r, s), data, ec.ECDSA(SHA256()))


@lru_cache(maxsize=256)
def _p256(public: bytes) -> ec.EllipticCurvePublicKey:
    if len(public) != P256.public_bytes:
        raise ValueError("not an uncompressed point")
    return ec.EllipticCurvePublicKey.from_encoded_point(_CURVE, public)


def _is_p256(public: bytes) -> bool:
    try:
        _p256(public)
    except ValueError:
        return False
    return True


def _expand_mldsa65(seed: bytes) -> tuple[Sign, bytes]:
    private = MLDSA65PrivateKey.from_seed_bytes(seed)
    return private.sign, private.public_key().public_bytes_raw()


def _check_mldsa65(public: bytes, signature: bytes, data: bytes) -> None:
    MLDSA65PublicKey.from_public_bytes(public).verify(signature, data)


ED25519: Final = Scheme("ed25519", -19, 32, 64, _expand_ed25519, _check_ed25519)
"""Ed25519 (RFC 8032); COSE algorithm of RFC 9864."""

P256: Final = Scheme("p256", -9, 65, 64, _expand_p256, _check_p256, _is_p256)
"""ECDSA with P-256 and SHA-256 (FIPS 186-5); COSE algorithm ESP256 of RFC 9864."""

MLDSA65: Final = Scheme("mldsa65", -49, 1952, 3309, _expand_mldsa65, _check_mldsa65)
"""ML-DSA-65 (FIPS 204) with an empty context; COSE algorithm of RFC 9964."""
