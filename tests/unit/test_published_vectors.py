"""Published vectors through our own key code: ML-DSA-65, ML-KEM-768, and RFC 9180 for the library."""

import importlib.resources
import json
from collections.abc import Iterator
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA65PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite

from security.keys import AttestationKey, AttestationVerifyKey, BadSignature
from security.secret import Secret

KDFS = {1: KDF.HKDF_SHA256, 2: KDF.HKDF_SHA384, 3: KDF.HKDF_SHA512}
AEADS = {1: AEAD.AES_128_GCM, 2: AEAD.AES_256_GCM, 3: AEAD.CHACHA20_POLY1305}


def text(*path: str) -> str:
    try:
        found = importlib.resources.files("cryptography_vectors")
        for part in path:
            found /= part
        return found.read_text(encoding="utf-8")
    except (ModuleNotFoundError, FileNotFoundError):
        pytest.skip(f"this release of cryptography_vectors has no {'/'.join(path)}")


def answers(content: str) -> Iterator[dict[str, str]]:
    """Yield the records of a NIST response file."""
    for part in content.split("count = ")[1:]:
        pairs = (line.split(" =", 1) for line in part.splitlines()[1:] if " =" in line)
        yield {name.strip(): value.strip() for name, value in pairs}


def test_attestation_keys_expand_as_published_and_take_no_signature_with_a_context() -> None:
    found = list(answers(text("asymmetric", "MLDSA", "kat_MLDSA_65_det_pure.rsp")))
    assert len(found) >= 100
    for one in found:
        key = AttestationKey(Secret(bytes.fromhex(one["xi"])))
        assert key.public.public.hex() == one["pk"].lower()
        message, context = bytes.fromhex(one["msg"]), bytes.fromhex(one["ctx"])
        signed = bytes.fromhex(one["sm"])
        signature = signed[: len(signed) - len(message)]
        MLDSA65PublicKey.from_public_bytes(key.public.public).verify(signature, message, context)
        if context:
            with pytest.raises(BadSignature):
                AttestationVerifyKey(key.public.public).verify(signature, message)
        ours = key.sign(message)
        key.public.verify(ours, message)
        turned = bytes([ours[0] ^ 1]) + ours[1:]
        for wrong, data in ((turned, message), (ours, message + b"\0"), (ours[:-1], message)):
            with pytest.raises(BadSignature):
                key.public.verify(wrong, data)


def base_vectors() -> list[dict[str, Any]]:
    found = json.loads(text("HPKE", "test-vectors.json"))
    return [
        one
        for one in found
        if one["mode"] == 0 and one["kem_id"] == 0x20 and one["aead_id"] in AEADS
    ]


def test_the_library_opens_the_base_vectors_of_rfc_9180() -> None:
    """They carry additional data, which only a private function takes."""
    private = pytest.importorskip("cryptography.hazmat.bindings._rust").openssl.hpke
    if not hasattr(private, "_decrypt_with_aad"):
        pytest.skip("this release has no function that takes additional data")
    vectors = base_vectors()
    assert vectors
    for one in vectors:
        suite = Suite(KEM.X25519, KDFS[one["kdf_id"]], AEADS[one["aead_id"]])
        first = one["encryptions"][0]
        opened = private._decrypt_with_aad(
            suite,
            bytes.fromhex(one["enc"] + first["ct"]),
            X25519PrivateKey.from_private_bytes(bytes.fromhex(one["skRm"])),
            bytes.fromhex(one["info"]),
            bytes.fromhex(first["aad"]),
        )
        assert opened == bytes.fromhex(first["pt"])
