"""Cases of kind `message`: sections 4 and 5, and checks 3, 5, 9, 12, 13 and 14 of section 9."""

import hashlib
from collections.abc import Callable, Iterator
from typing import Any

import cbor2

from protocols import batch
from security.envelope import CLAIMS, Before, Gap
from tests.vectors.cases_cbor import Case
from tests.vectors.cases_content import frame, sample
from tests.vectors.material import (
    AGENT,
    AUDIT,
    BRAIN,
    PAD,
    RECEIPT,
    RIVAL,
    STRANGER,
    Sealing,
    encoded,
    pad,
    seed,
)

CONTENT = batch.encode([sample()])
FIRST = min(BRAIN.public.kid, AUDIT.public.kid)
ED25519_ORDER = 2**252 + 27742317777372353535851937790883648493


def case(
    name: str,
    reason: str,
    message: bytes,
    content: bytes = b"",
    opening: str = "brain",
    agent: bytes = AGENT.public.public,
) -> Case:
    terms = [
        ("agent", agent.hex()),
        ("opening", seed(opening).hex()),
        ("pad", str(PAD)),
    ]
    if reason == "-":
        terms.append(("content", hashlib.sha256(content).hexdigest()))
    return "message", name, reason, message, terms


def sealed(name: str, **changes: Any) -> bytes:
    return Sealing(name, CONTENT, **changes).message()


def put(*place: Any, value: Any) -> Callable[[Any], Any]:
    """Return a change that sets one member, however deep."""

    def change(item: Any) -> Any:
        inner = item
        for step in place[:-1]:
            inner = inner[step]
        inner[place[-1]] = value
        return item

    return change


def drop(label: Any) -> Callable[[Any], Any]:
    def change(item: Any) -> Any:
        return {key: value for key, value in item.items() if key != label}

    return change


def added(value: Any) -> Callable[[Any], Any]:
    return lambda item: [*item, value]


def cases() -> Iterator[Case]:
    yield from _accepted()
    yield from _headers()
    yield from _claims()
    yield from _encrypted()
    yield from _signatures()
    yield from _opening()
    yield from _bits()


def _accepted() -> Iterator[Case]:
    variants: dict[str, dict[str, Any]] = {
        "a batch": {},
        "a batch later in its chain": {"header": {"sequence": 41, "previous": bytes(32)}},
        "a batch with gaps and a right": {
            "header": {"right_hash": seed("right"), "gaps": _gaps((1, 2, 1), (5, 5, 2), (9, 9, 5))}
        },
        "a batch of a new epoch": {"header": {"epoch": 4, "before": _before(3, 9)}},
        "a batch padded to twice the unit": {"padded": pad(CONTENT, 4 * PAD)},
        "a batch with every claim there is": {
            "header": {
                "epoch": 4,
                "right_hash": seed("right"),
                "gaps": _gaps((0, 0, 1), (7, 9, 4)),
                "before": _before(3, 0, 4),
            }
        },
        "a batch of an epoch that begins after a refusal": {
            "header": {"epoch": 4, "before": _before(3, 9, 1)}
        },
        "a batch of an empty window": {"header": {"window": (5, 5)}},
        "a batch for the brain alone": {"recipients": [BRAIN]},
    }
    for name, changes in variants.items():
        message = sealed(name, real=True, **changes)
        yield case(name, "-", message, CONTENT)
    message = sealed("a batch", real=True)
    yield case("a batch opened by the firm's audit key", "-", message, CONTENT, "audit")
    empty = frame([1, [[0, 1, *_small()]]])
    message = Sealing("a batch of one small block", empty, real=True).message()
    yield case("a batch of one small block", "-", message, empty)


def _small() -> list[Any]:
    one = cbor2.CBORTag(72, b"\x01")
    none = cbor2.CBORTag(72, b"")
    return [one, one, b"", [], b"", none, none]


def _gaps(*rows: tuple[int, int, int]) -> tuple[Any, ...]:
    return tuple(Gap(*row) for row in rows)


def _before(epoch: int, count: int, reason: int = 3) -> Any:
    return Before(epoch, count, seed("before"), reason)


# The inputs that at least one other COSE library accepts are marked (X).


def _headers() -> Iterator[Case]:
    variants: dict[str, dict[str, Any]] = {
        "no alg (X)": {"protected": drop(1)},
        "alg only in the unprotected header (X)": {
            "protected": drop(1),
            "parts": put(1, value={1: -19}),
        },
        "a bogus alg in the unprotected header (X)": {"parts": put(1, value={1: -7})},
        "kid in the unprotected header": {"parts": put(1, value={4: AGENT.public.kid})},
        "an unknown critical label (X)": {"protected": put(2, value=[CLAIMS, 99])},
        "a critical label that is not there (X)": {"protected": put(2, value=[99])},
        "no crit": {"protected": drop(2)},
        "an empty crit": {"protected": put(2, value=[])},
        "crit in the unprotected header (X)": {
            "protected": drop(2),
            "parts": put(1, value={2: [CLAIMS]}),
        },
        "an unknown label in the protected header (X)": {"protected": put(99, value=1)},
        "a label that is text": {"protected": put("alg", value=-19)},
        "a header label twice (X)": {"protected_bytes": _doubled},
        "header labels not sorted": {"protected_bytes": _unsorted},
        "the alg in a head too long": {"protected_bytes": _long_alg},
        "bytes behind the protected header": {"protected_bytes": lambda data: data + b"\0"},
        "an empty protected header": {"protected_bytes": lambda _: b""},
        "a protected header that is an array": {"protected_bytes": lambda _: b"\x80"},
        "no content type": {"protected": drop(3)},
        "another content type": {"protected": put(3, value="application/cbor")},
        "a content type that is a number": {"protected": put(3, value=60)},
        "the content type of a receipt": {
            "protected": put(3, value="application/mg1-receipt+cbor")
        },
        "no key id": {"protected": drop(4)},
        "no claims": {"protected": drop(CLAIMS)},
        "bytes behind the message (X)": {"whole_bytes": lambda data: data + b"\0"},
        "a message cut short": {"whole_bytes": lambda data: data[:-1]},
        "no tag": {"whole_bytes": lambda data: data[1:]},
        "the tag of a COSE_Mac0": {"whole_bytes": lambda data: b"\xd1" + data[1:]},
        "the tag twice": {"whole_bytes": lambda data: b"\xd2" + data},
        "the tag in a head too long": {"whole_bytes": lambda data: b"\xd8\x12" + data[1:]},
        "an array of indefinite length": {"whole_bytes": lambda d: b"\xd2\x9f" + d[2:] + b"\xff"},
        "a fifth member": {"parts": added(0)},
        "three members": {"parts": lambda parts: parts[:3]},
        "a detached payload": {"parts": put(2, value=None)},
        "a payload that is not in a byte string": {"parts": put(2, value=[])},
    }
    for name, changes in variants.items():
        yield case(name, "malformed", sealed(name, **changes))


def _doubled(protected: bytes) -> bytes:
    """The alg twice: first a wrong one, then the right one."""
    return bytes([protected[0] + 1]) + b"\x01\x26" + protected[1:]


def _unsorted(protected: bytes) -> bytes:
    rest = cbor2.loads(protected)
    order = [4, 1, 2, 3, CLAIMS]
    return cbor2.dumps({label: rest[label] for label in order})


def _long_alg(protected: bytes) -> bytes:
    assert protected[1:3] == b"\x01\x32"
    return protected[:1] + b"\x01\x38\x12" + protected[3:]


def _claims() -> Iterator[Case]:
    kids = sorted(key.public.kid for key in (BRAIN, AUDIT))
    for name, change in {
        "another profile": put(1, value="mg2"),
        "a factory of 15 bytes": put(2, value=bytes(15)),
        "a factory that is text": put(2, value="f" * 16),
        "a negative epoch": put(4, value=-1),
        "a sequence beyond 63 bits": put(6, value=1 << 63),
        "a hash before of 31 bytes": put(7, value=bytes(31)),
        "a policy without a hash": put(8, value=[3]),
        "a policy of three parts": put(8, value=[3, bytes(32), 0]),
        "no release sheet": drop(9),
        "a window that ends before it starts": put(10, value=[10, 9]),
        "a window of three": put(10, value=[1, 2, 3]),
        "an expiry": put(12, value=1 << 40),
        "no recipients in the claims": put(13, value=[]),
        "recipients not sorted": put(13, value=kids[::-1]),
        "a recipient twice": put(13, value=[kids[0], kids[0], kids[1]]),
        "five recipients": put(13, value=[bytes([at]) * 16 for at in range(5)]),
        "a recipient that is not sealed to": put(13, value=sorted([*kids, bytes(16)])),
        "a recipient sealed to and not signed": put(13, value=kids[:1]),
        "other recipients than signed": put(13, value=[bytes(16), bytes([1]) * 16]),
        "a commitment of 16 bytes": put(14, value=bytes(16)),
        "no receipt seen": drop(15),
        "an empty list of gaps": put(16, value=[]),
        "a gap that ends before it starts": put(16, value=[[5, 4, 1]]),
        "a gap without a reason": put(16, value=[[4, 5]]),
        "a gap for reason 0": put(16, value=[[4, 5, 0]]),
        "a gap for reason 6": put(16, value=[[4, 5, 6]]),
        "65 gaps": put(16, value=[[at, at, 1] for at in range(65)]),
        "a purpose that is text": put(17, value="carbon-emission"),
        "a right of 31 bytes": put(18, value=bytes(31)),
        "an epoch before that is not earlier": put(19, value=[1, 0, bytes(32), 3]),
        "an epoch before for reason 0": put(19, value=[0, 0, bytes(32), 0]),
        "an unknown claim": put(20, value=1),
        "a claim whose label is text": put("exp", value=1),
    }.items():
        yield case(name, "malformed", sealed(name, claims=change))
    name = "an epoch before in the middle of a chain"
    changes = {"epoch": 4, "sequence": 2, "before": _before(3, 9)}
    yield case(name, "malformed", sealed(name, header=changes))


def _encrypted() -> Iterator[Case]:
    for name, change in {
        "content of another cipher": put(0, value=encoded({1: 1})),
        "a key id in the content header": put(0, value=encoded({1: 3, 4: b"k"})),
        "an IV of 8 bytes": put(1, value={5: bytes(8)}),
        "no IV": put(1, value={}),
        "a partial IV": put(1, value={6: bytes(12)}),
        "the cipher in the unprotected header": put(1, value={1: 3, 5: bytes(12)}),
        "no ciphertext": put(2, value=[]),
        "no recipients": put(3, value=[]),
        "a fifth part of the content": added(0),
        "a recipient of four parts": lambda content: [*content[:3], [[*r, []] for r in content[3]]],
        "a recipient that is a map": put(3, 0, value={}),
        "a recipient of another suite": put(3, 0, 0, value=encoded({1: 35, 4: FIRST})),
        "a recipient with another label": put(3, 0, 0, value=encoded({1: 57, 4: FIRST, 5: 0})),
        "a recipient whose key id is text": put(3, 0, 0, value=encoded({1: 57, 4: "k" * 16})),
        "a recipient whose protected header is no byte string": put(3, 0, 0, value=[]),
        "a recipient whose wrapped key is no byte string": put(3, 0, 2, value=[]),
        "a recipient with another unprotected label": put(3, 0, 1, value={-5: bytes(1120)}),
        "a recipient without a key id": put(3, 0, 0, value=encoded({1: 57})),
        "a recipient without a protected header": put(3, 0, 0, value=b""),
        "an encapsulated key of 1119 bytes": put(3, 0, 1, value={-4: bytes(1119)}),
        "an encapsulated key of X25519 alone": put(3, 0, 1, value={-4: bytes(32)}),
        "a wrapped key of 47 bytes": put(3, 0, 2, value=bytes(47)),
        "the recipients in the other order": lambda content: [*content[:3], content[3][::-1]],
    }.items():
        yield case(name, "malformed", sealed(name, content=change))
    kids = sorted(key.public.kid for key in (BRAIN, AUDIT))
    five = [bytes([at]) * 16 for at in range(5)]
    for name, chosen in (
        ("recipients not sorted, claimed and sealed alike", kids[::-1]),
        ("five recipients, claimed and sealed alike", five),
        ("no recipients, neither claimed nor sealed", []),
    ):
        message = sealed(
            name,
            claims=put(13, value=chosen),
            content=lambda content, chosen=chosen: [*content[:3], [_recipient(k) for k in chosen]],
        )
        yield case(name, "malformed", message)
    for name, change in {
        "content without its tag": lambda payload: payload[2:],
        "content with the tag of a COSE_Encrypt0": lambda payload: b"\xd0" + payload[2:],
        "bytes behind the content": lambda payload: payload + b"\0",
        "content that is empty": lambda _: b"",
    }.items():
        yield case(name, "malformed", sealed(name, payload_bytes=change))


def _recipient(kid: bytes) -> list[Any]:
    return [encoded({1: 57, 4: kid}), {-4: bytes(1120)}, bytes(48)]


def _signatures() -> Iterator[Case]:
    whole = sealed("signatures")

    def parts(**changed: Callable[[Any], Any]) -> bytes:
        return sealed("signatures", **changed)

    def larger(parts_: list[Any]) -> list[Any]:
        """S + L: the same point for a verifier that does not compare S with the order."""
        signature = parts_[3]
        s = int.from_bytes(signature[32:], "little") + ED25519_ORDER
        return [*parts_[:3], signature[:32] + s.to_bytes(32, "little")]

    for name, message in {
        "a signature of zeros": parts(parts=put(3, value=bytes(64))),
        "a signature of ones": parts(parts=put(3, value=b"\xff" * 64)),
        "a signature whose S is larger than the order": parts(parts=larger),
        "the signature of another message": parts(
            parts=lambda p: [*p[:3], cbor2.loads(sealed("another")).value[3]]
        ),
        "a signature by a rival": sealed("a signature by a rival", signer=RIVAL),
        "a signature by the brain's receipt key": sealed("by the brain", signer=RECEIPT),
        "a rival's signature under the agent's key id": sealed(
            "under the agent's key id", signer=RIVAL, protected=put(4, value=AGENT.public.kid)
        ),
        "the agent's signature under another key id": sealed(
            "under another key id", protected=put(4, value=RIVAL.public.kid)
        ),
        "the alg of ECDSA on an Ed25519 key (X)": sealed("ES256", protected=put(1, value=-7)),
        "the older EdDSA alg": sealed("EdDSA", protected=put(1, value=-8)),
        "the alg of ML-DSA": sealed("ML-DSA", protected=put(1, value=-49)),
        "no alg at all: 0": sealed("alg 0", protected=put(1, value=0)),
        "a claim changed after signing": parts(parts=lambda p: [p[0][:-1] + b"\x04", *p[1:]]),
        "content of another message": parts(
            parts=lambda p: [*p[:2], cbor2.loads(sealed("another")).value[2], p[3]]
        ),
    }.items():
        yield case(name, "bad_signature", message)
    for name, length in (("a signature of 63 bytes", 63), ("a signature of 65 bytes", 65)):
        yield case(name, "malformed", parts(parts=put(3, value=bytes(length))))
    yield case(
        "an agent's key of small order",
        "bad_signature",
        parts(parts=put(3, value=b"\x01" + bytes(63))),
        agent=b"\x01" + bytes(31),
    )
    assert whole == parts()


def _opening() -> Iterator[Case]:
    """A right signature, and content that must not be opened or taken."""

    def cannot(name: str, opening: str = "brain", **changes: Any) -> Case:
        return case(name, "cannot_open", sealed(name, **{"real": True, **changes}), b"", opening)

    yield cannot("sealed to a stranger", recipients=[STRANGER, AUDIT])
    yield cannot("opened by a stranger", opening="stranger")
    yield cannot("a content key that was never wrapped", real=False)
    yield cannot("a bit of the ciphertext turned", content=_turn(2))
    yield cannot("a bit of the wrapped key turned", content=_turn_wrapped)
    yield cannot("a bit of the encapsulated key turned", content=_turn_encapsulated)
    yield cannot("another IV", content=put(1, value={5: bytes(12)}))
    yield cannot("a ciphertext shorter than its tag", content=put(2, value=bytes(15)))
    yield cannot("a plaintext other than committed", committed=pad(b"other", PAD))
    name = "a rival's signature and key id over the agent's ciphertext"
    yield case(name, "cannot_open", _resigned(name), agent=RIVAL.public.public)
    name = "the agent's ciphertext under a changed header"
    yield case(name, "cannot_open", _reheaded(name))

    def not_a_batch(name: str, **changes: Any) -> Case:
        message = Sealing(name, **{"content_of": CONTENT, "real": True, **changes}).message()
        return case(name, "not_a_batch", message)

    yield not_a_batch("padding of zeros alone", padded=bytes(PAD))
    yield not_a_batch("padding that ends in another byte", padded=pad(CONTENT, PAD)[:-1] + b"\x01")
    yield not_a_batch("not a multiple of the unit", padded=pad(CONTENT, PAD) + bytes(8))
    yield not_a_batch("nothing inside", padded=b"")
    yield not_a_batch("no frame inside", content_of=b"plain text")
    yield not_a_batch("a byte behind the frame inside", content_of=CONTENT + b"\0")


def _turn(at: int) -> Callable[[Any], Any]:
    def change(content: list[Any]) -> list[Any]:
        content[at] = content[at][:-1] + bytes([content[at][-1] ^ 1])
        return content

    return change


def _turn_wrapped(content: list[Any]) -> list[Any]:
    for one in content[3]:
        one[2] = bytes([one[2][0] ^ 0x80]) + one[2][1:]
    return content


def _turn_encapsulated(content: list[Any]) -> list[Any]:
    for one in content[3]:
        one[1] = {-4: one[1][-4][:-1] + bytes([one[1][-4][-1] ^ 1])}
    return content


def _resigned(name: str) -> bytes:
    """Strip a signature and sign the ciphertext as one's own."""
    payload = cbor2.loads(sealed("a batch", real=True)).value[2]
    return sealed(name, signer=RIVAL, payload_bytes=lambda _: payload)


def _reheaded(name: str) -> bytes:
    """The agent itself puts an old ciphertext under a header of another window."""
    payload = cbor2.loads(sealed("a batch", real=True)).value[2]
    return sealed(name, header={"window": (0, 5)}, payload_bytes=lambda _: payload)


def _bits() -> Iterator[Case]:
    """One bit turned in each part of a real message; all others are turned by the suite."""
    message = sealed("a batch", real=True)
    protected, _, payload, _ = cbor2.loads(message).value
    for name, at in {
        "the tag": 0,
        "the head": 1,
        "the claims": message.index(protected) + len(protected) // 2,
        "the payload's length": message.index(payload) - 1,
        "the ciphertext": message.index(payload) + 60,
        "the wrapped key": message.index(payload) + len(payload) - 10,
        "the signature": len(message) - 1,
    }.items():
        turned = message[:at] + bytes([message[at] ^ 1]) + message[at + 1 :]
        signed = name in {"the ciphertext", "the wrapped key", "the signature", "the claims"}
        reason = "bad_signature" if signed else "malformed"
        yield case(f"a bit turned in {name}", reason, turned)
