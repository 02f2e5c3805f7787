"""Signature schemes: what a key of a kind can do, and the one way in which each is written.

A scheme belongs to a key and is never chosen by a message.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA65PrivateKey, MLDSA65PublicKey

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
    """

    name: str
    alg: int
    public_bytes: int
    signature_bytes: int
    expand: Callable[[bytes], tuple[Sign, bytes]]
    check: Callable[[bytes, bytes, bytes], None]


def _expand_ed25519(seed: bytes) -> tuple[Sign, bytes]:
    private = Ed25519PrivateKey.from_private_bytes(seed)
    return private.sign, private.public_key().public_bytes_raw()


def _check_ed25519(public: bytes, signature: bytes, data: bytes) -> None:
    Ed25519PublicKey.from_public_bytes(public).verify(signature, data)


def _expand_mldsa65(seed: bytes) -> tuple[Sign, bytes]:
    private = MLDSA65PrivateKey.from_seed_bytes(seed)
    return private.sign, private.public_key().public_bytes_raw()


def _check_mldsa65(public: bytes, signature: bytes, data: bytes) -> None:
    MLDSA65PublicKey.from_public_bytes(public).verify(signature, data)


ED25519: Final = Scheme("ed25519", -19, 32, 64, _expand_ed25519, _check_ed25519)
"""Ed25519 (RFC 8032); COSE algorithm of RFC 9864."""

MLDSA65: Final = Scheme("mldsa65", -49, 1952, 3309, _expand_mldsa65, _check_mldsa65)
"""ML-DSA-65 (FIPS 204) with an empty context; COSE algorithm of RFC 9964."""
