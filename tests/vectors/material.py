"""Keys, and messages with every part under control, for the test kit.

Everything is deterministic but two things: HPKE encapsulation and ML-DSA signing take randomness of
their own. What they once gave is kept in `randomized.txt` and used again.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import cbor2
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite

from protocols.topics import Address
from security import cose, envelope
from security.envelope import BATCH, CLAIMS, Header, commitment, genesis
from security.keys import AttestationKey, OpeningKey, SealingKey, SigningKey
from security.secret import Secret

FOLDER: Final = Path(__file__).parent
RANDOMIZED: Final = FOLDER / "randomized.txt"
NOW: Final = 1_770_000_000
STREAM: Final = 7
PAD: Final = 64
ADDRESS: Final = Address(bytes([0xFA]) * 16, bytes([0xA9]) * 16)
OTHER_ADDRESS: Final = Address(bytes([0xFB]) * 16, bytes([0xA9]) * 16)

_SUITE: Final = Suite(KEM.MLKEM768_X25519, KDF.SHAKE256, AEAD.AES_256_GCM)

Change = Callable[[Any], Any]


def seed(name: str) -> bytes:
    """Return the 32 bytes that a name stands for."""
    return hashlib.sha256(f"millgate test kit: {name}".encode()).digest()


def signing(name: str) -> SigningKey:
    return SigningKey(Secret(seed(name)))


AGENT, RIVAL, RECEIPT = signing("agent"), signing("rival"), signing("receipt")
OFFICERS: Final = [signing("officer 1"), signing("officer 2")]
ATTESTER: Final = AttestationKey(Secret(seed("attester")))
BRAIN: Final = OpeningKey(Secret(seed("brain")))
AUDIT: Final = OpeningKey(Secret(seed("audit")))
STRANGER: Final = OpeningKey(Secret(seed("stranger")))


class Randomized:
    """What randomized functions once gave, by the hash of what they were given."""

    def __init__(self) -> None:
        lines = RANDOMIZED.read_text("ascii").splitlines() if RANDOMIZED.exists() else []
        self._known = {name: bytes.fromhex(value) for name, value in map(str.split, lines)}
        self._used: dict[str, bytes] = {}

    def once(self, given: list[bytes], make: Callable[[], bytes]) -> bytes:
        name = hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in given)).hexdigest()
        self._used[name] = self._known.get(name) or make()
        return self._used[name]

    def write(self) -> int:
        """Keep what was used; return how much of it is new."""
        lines = sorted(f"{name} {value.hex()}" for name, value in self._used.items())
        RANDOMIZED.write_text("\n".join(lines) + "\n", "ascii")
        return len(set(self._used) - set(self._known))


RANDOM: Final = Randomized()


class FrozenAttester:
    """The attester, whose signature of the same bytes is always the same."""

    public = ATTESTER.public

    def sign(self, data: bytes) -> bytes:
        return RANDOM.once([self.public.public, data], lambda: ATTESTER.sign(data))


def header(**changes: Any) -> Header:
    """Return a header of the agent; recipients and commitment are filled in when sealing."""
    fields: dict[str, Any] = {
        "factory": ADDRESS.factory,
        "agent": ADDRESS.agent,
        "epoch": 1,
        "stream": STREAM,
        "sequence": 0,
        "previous": genesis(ADDRESS, 1, STREAM),
        "policy_version": 3,
        "policy_hash": seed("policy"),
        "sheet_hash": seed("sheet"),
        "window": (NOW, NOW + 5),
        "issued_at": NOW + 6,
        "recipients": (),
        "commitment": bytes(32),
        "receipt": (0, bytes(32)),
        "purpose": 3,
    }
    return Header(**{**fields, **changes})


def same(item: Any) -> Any:
    return item


@dataclass
class Sealing:
    """How one message is made; every step can be changed before the next is done.

    Attributes:
        claims, protected, content, parts: change the map or list of that level.
        protected_bytes, payload_bytes, whole_bytes: change its bytes.
        real: whether the content key is truly wrapped, at the cost of a kept encapsulation.
    """

    name: str
    content_of: bytes = b""
    padded: bytes | None = None
    unit: int = PAD
    kind: str = BATCH
    signer: SigningKey = AGENT
    recipients: list[OpeningKey] = field(default_factory=lambda: [BRAIN, AUDIT])
    header: dict[str, Any] = field(default_factory=dict)
    claims: Change = same
    protected: Change = same
    protected_bytes: Change = same
    content: Change = same
    payload_bytes: Change = same
    parts: Change = same
    whole_bytes: Change = same
    committed: bytes | None = None
    real: bool = False

    def message(self) -> bytes:
        """Return the bytes of the message."""
        padded = self.padded if self.padded is not None else pad(self.content_of, self.unit)
        keys = sorted((key.public for key in self.recipients), key=lambda key: key.kid)
        full = header(
            **{
                "recipients": tuple(key.kid for key in keys),
                "commitment": commitment(padded if self.committed is None else self.committed),
                **self.header,
            }
        )
        protected = self.protected_bytes(
            encoded(
                self.protected(
                    {
                        1: self.signer.public.alg,
                        2: [CLAIMS],
                        3: self.kind,
                        4: self.signer.public.kid,
                        CLAIMS: self.claims(envelope._claims(full)),
                    }
                )
            )
        )
        external = hashlib.sha256(protected).digest()
        key, iv = seed(f"content key of {self.name}"), seed(f"iv of {self.name}")[:12]
        inner = encoded({1: 3})
        sealed = AESGCM(key).encrypt(iv, padded, encoded(["Encrypt", inner, external]))
        wraps = [self._wrap(key, one, external) for one in keys]
        content = self.content([inner, {5: iv}, sealed, wraps])
        payload = self.payload_bytes(encoded(cbor2.CBORTag(96, content)))
        signature = self.signer.sign(encoded(["Signature1", protected, b"", payload]))
        parts = self.parts([protected, {}, payload, signature])
        whole: bytes = self.whole_bytes(encoded(cbor2.CBORTag(18, parts)))
        return whole

    def _wrap(self, key: bytes, public: SealingKey, external: bytes) -> list[Any]:
        protected = encoded({1: 57, 4: public.kid})
        info = encoded(["HPKE Recipient", 3, protected, external])

        def make() -> bytes:
            return _SUITE.encrypt(key, public.for_hpke(), info)

        if self.real:
            both = RANDOM.once([b"hpke", public.public, info, key], make)
        else:
            both = hashlib.shake_256(b"not wrapped" + info).digest(1168)
        return [protected, {-4: both[:1120]}, both[1120:]]


def pad(content: bytes, unit: int, name: str = "") -> bytes:
    """Pad as section 5 says, with a salt that follows from the content."""
    salt = seed(f"salt {name} {content.hex()}")[:16]
    size = len(salt) + len(content) + 1
    return salt + content + b"\x80" + bytes(-size % unit)


def encoded(item: object) -> bytes:
    return cbor2.dumps(item, canonical=True)


def sign1(kind: str, body: object, key: SigningKey, changes: dict[int, Any] | None = None) -> bytes:
    """Return a COSE_Sign1 of a statement or an answer."""
    protected = encoded({1: key.public.alg, 3: kind, 4: key.public.kid, **(changes or {})})
    payload = body if isinstance(body, bytes) else encoded(body)
    return cose.sign1(protected, payload, key)
