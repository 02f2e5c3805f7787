"""Cases of all signed kinds with P-256 keys: section 3a. A signature has one form; all others are refused."""

import hashlib
from collections.abc import Iterator
from typing import Any

import cbor2
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import (
    Prehashed,
    decode_dss_signature,
    encode_dss_signature,
)
from cryptography.hazmat.primitives.hashes import SHA256, SHA384

from security import answers, statements
from security.keys import SigningKey
from security.policy import bundle
from security.schemes import P256, P256_ORDER
from security.secret import Secret
from tests.vectors.cases_cbor import Case
from tests.vectors.cases_messages import CONTENT, case, put, sealed
from tests.vectors.cases_signed import ASK, START, TOPIC, attested, two
from tests.vectors.material import (
    AGENT,
    ATTESTER,
    OFFICERS,
    STREAM,
    FrozenAttester,
    encoded,
    seed,
    sign1,
)

AGENT_P256 = SigningKey(Secret(seed("agent P-256")), P256)
OFFICER_P256 = SigningKey(Secret(seed("officer P-256")), P256)
RECEIPT_P256 = SigningKey(Secret(seed("receipt P-256")), P256)
RIVAL_P256 = SigningKey(Secret(seed("rival P-256")), P256)


def cases() -> Iterator[Case]:
    yield from _messages()
    yield from _schemes()
    yield from _others()
    yield from _sheets()


def halves(signature: bytes) -> tuple[int, int]:
    return int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")


def raw(r: int, s: int) -> bytes:
    return r.to_bytes(32, "big") + s.to_bytes(32, "big")


def twin(signature: bytes) -> bytes:
    """Return the other signature that is right for the same key and data."""
    r, s = halves(signature)
    return raw(r, P256_ORDER - s)


def _twisted(change: Any) -> Any:
    return lambda parts: [*parts[:-1], change(parts[-1])]


def _little(signature: bytes) -> bytes:
    return signature[:32][::-1] + signature[32:][::-1]


def _other_hash(parts: list[Any]) -> list[Any]:
    """Sign with SHA-384, which the algorithm does not name."""
    private = ec.derive_private_key(int.from_bytes(seed("agent P-256"), "big"), ec.SECP256R1())
    to_sign = encoded(["Signature1", parts[0], b"", parts[2]])
    der = private.sign(to_sign, ec.ECDSA(SHA384(), deterministic_signing=True))
    return [*parts[:-1], _low(der)]


def _twice_hashed(parts: list[Any]) -> list[Any]:
    private = ec.derive_private_key(int.from_bytes(seed("agent P-256"), "big"), ec.SECP256R1())
    to_sign = hashlib.sha256(encoded(["Signature1", parts[0], b"", parts[2]])).digest()
    digest = hashlib.sha256(to_sign).digest()
    der = private.sign(digest, ec.ECDSA(Prehashed(SHA256()), deterministic_signing=True))
    return [*parts[:-1], _low(der)]


def _low(der: bytes) -> bytes:
    r, s = decode_dss_signature(der)
    return raw(r, min(s, P256_ORDER - s))


def _messages() -> Iterator[Case]:
    public = AGENT_P256.public.public

    def one(name: str, reason: str, change: Any = None, **changes: Any) -> Case:
        if change is not None:
            changes["parts"] = change
        message = sealed(name, signer=AGENT_P256, real=reason == "-", **changes)
        return case(name, reason, message, CONTENT, agent=public)

    yield one("a batch signed with P-256", "-")
    yield one("a batch signed with P-256 with a high s", "bad_signature", _twisted(twin))
    forms: dict[str, tuple[str, Any]] = {
        "in DER": ("malformed", lambda found: encode_dss_signature(*halves(found))),
        "in DER cut to 64 bytes": (
            "bad_signature",
            lambda found: encode_dss_signature(*halves(found))[:64],
        ),
        "whose r is 0": ("bad_signature", lambda found: bytes(32) + found[32:]),
        "whose s is 0": ("bad_signature", lambda found: found[:32] + bytes(32)),
        "of zeros": ("bad_signature", lambda found: bytes(len(found))),
        "whose r is the order": (
            "bad_signature",
            lambda found: raw(P256_ORDER, halves(found)[1]),
        ),
        "whose s is the order": (
            "bad_signature",
            lambda found: raw(halves(found)[0], P256_ORDER),
        ),
        "whose halves are swapped": ("bad_signature", lambda found: found[32:] + found[:32]),
        "in little-endian": ("bad_signature", _little),
        "of 63 bytes": ("malformed", lambda found: found[:-1]),
        "of 65 bytes": ("malformed", lambda found: found + b"\0"),
        "of 65 bytes with a zero in front": ("malformed", lambda found: b"\0" + found),
    }
    for name, (reason, change) in forms.items():
        yield one(f"a batch with a P-256 signature {name}", reason, _twisted(change))
    yield one("a batch signed with P-256 over SHA-384", "bad_signature", _other_hash)
    yield one("a batch signed with P-256 over a hash hashed again", "bad_signature", _twice_hashed)
    message = sealed("a batch signed with a rival's P-256 key", signer=RIVAL_P256)
    yield case("a batch signed with a rival's P-256 key", "bad_signature", message, agent=public)


def _schemes() -> Iterator[Case]:
    """The key's scheme counts, whatever a message says."""
    p256, ed25519 = AGENT_P256.public, AGENT.public
    for name, alg in (
        ("ES256, which leaves the curve open", -7),
        ("Ed25519", -19),
        ("EdDSA", -8),
        ("ESP384", -51),
    ):
        title = f"a P-256 signature under the number of {name} (X)"
        message = sealed(title, signer=AGENT_P256, protected=put(1, value=alg))
        yield case(title, "bad_signature", message, agent=p256.public)
    title = "an Ed25519 signature under the key id of a P-256 key"
    message = sealed(title, protected=put(4, value=p256.kid))
    yield case(title, "bad_signature", message, agent=p256.public)

    def as_p256(protected: Any) -> Any:
        return {**protected, 1: P256.alg, 4: p256.kid}

    title = "an Ed25519 signature that says it is of the P-256 key"
    yield case(title, "bad_signature", sealed(title, protected=as_p256), agent=p256.public)

    def as_ed25519(protected: Any) -> Any:
        return {**protected, 1: -19, 4: ed25519.kid}

    title = "a P-256 signature that says it is of the Ed25519 key"
    message = sealed(title, signer=AGENT_P256, protected=as_ed25519)
    yield case(title, "bad_signature", message)
    title = "a batch signed with P-256 where Ed25519 is pinned"
    yield case(title, "bad_signature", sealed(title, signer=AGENT_P256))


def _others() -> Iterator[Case]:
    terms = [("agent", AGENT_P256.public.public.hex()), *TOPIC]
    ask = sign1(statements.ASK, ASK, AGENT_P256)
    yield "statement", "an ask signed with P-256", "-", ask, terms
    high = ask[:-64] + twin(ask[-64:])
    yield "statement", "an ask signed with P-256 with a high s", "bad_signature", high, terms
    receipt = sign1(
        answers.RECEIPT,
        [*START, [[1, STREAM, 3, seed("head")]], [], [12, seed("root")]],
        RECEIPT_P256,
    )
    terms = [("receipt", RECEIPT_P256.public.public.hex()), *TOPIC]
    yield "answer", "a receipt signed with P-256", "-", receipt, terms
    high = receipt[:-64] + twin(receipt[-64:])
    yield "answer", "a receipt signed with P-256 with a high s", "bad_signature", high, terms
    terms = [
        ("agent", AGENT_P256.public.public.hex()),
        ("attester", ATTESTER.public.public.hex()),
        *TOPIC,
    ]
    parts = two(attested(), [AGENT_P256, FrozenAttester()])

    def one(name: str, reason: str, signatures: list[Any]) -> Case:
        data = encoded(cbor2.CBORTag(98, [*parts[:3], signatures]))
        return "attestation", name, reason, data, terms

    yield one("an attestation signed with P-256 and ML-DSA", "-", parts[3])
    yield one(
        "an attestation whose P-256 signature has a high s",
        "bad_signature",
        [_with_twin(part) for part in parts[3]],
    )


def _with_twin(part: list[Any]) -> list[Any]:
    return [part[0], part[1], twin(part[2])] if len(part[2]) == P256.signature_bytes else part


def _sheets() -> Iterator[Case]:
    content = {"sheet": "mg-sheet/1", "policy_hash": seed("policy")}
    both = [OFFICERS[0], OFFICER_P256]
    right = two(content, both, bundle.SHEET)
    at = next(place for place, part in enumerate(right[3]) if OFFICER_P256.public.kid in part[0])
    mine, other = right[3][at], right[3][1 - at]

    def one(name: str, reason: str, signatures: list[Any]) -> Case:
        terms = [*(("officer", key.public.public.hex()) for key in both), ("threshold", "2")]
        data = encoded(cbor2.CBORTag(98, [*right[:3], signatures]))
        return "sheet", name, reason, data, terms

    yield one("a sheet signed by an Ed25519 and a P-256 officer", "-", right[3])
    for name, signature in (
        ("with a high s", twin(mine[2])),
        ("in DER", encode_dss_signature(*halves(mine[2]))),
        ("of zeros", bytes(64)),
    ):
        changed = [other, [mine[0], {}, signature]]
        yield one(f"a sheet with a P-256 signature {name}", "bad_signature", changed)
    yield one(
        "a sheet signed twice by one P-256 officer, once with each s",
        "bad_signature",
        [mine, _with_twin(mine)],
    )
    renamed = encoded({1: -7, 4: OFFICER_P256.public.kid})
    yield one(
        "a sheet with a P-256 signature under the number of ES256",
        "bad_signature",
        [other, [renamed, {}, mine[2]]],
    )
