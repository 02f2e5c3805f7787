"""Cases of kinds `statement`, `attestation`, `answer` and `sheet`."""

from collections.abc import Iterator
from typing import Any

import cbor2

from security import answers, statements
from security.envelope import commitment, genesis
from security.policy import bundle
from tests.vectors.cases_cbor import Case
from tests.vectors.material import (
    ADDRESS,
    AGENT,
    ATTESTER,
    NOW,
    OFFICERS,
    OTHER_ADDRESS,
    RECEIPT,
    RIVAL,
    STREAM,
    FrozenAttester,
    encoded,
    seed,
    sign1,
)

START = [1, ADDRESS.factory, ADDRESS.agent, NOW]
ASK = [*START, seed("nonce")[:16], [[RECEIPT.public.kid, 12]]]
LOSS = [*START, 1, STREAM, 4, 9, seed("last"), 2]
TOPIC = [("factory", ADDRESS.factory.hex()), ("id", ADDRESS.agent.hex())]


def cases() -> Iterator[Case]:
    yield from _statements()
    yield from _attestations()
    yield from _answers()
    yield from _sheets()


def _statements() -> Iterator[Case]:
    terms = [("agent", AGENT.public.public.hex()), *TOPIC]

    def one(name: str, reason: str, kind: str, body: Any, key: Any = AGENT) -> Case:
        return "statement", name, reason, sign1(kind, body, key), terms

    ask, loss = statements.ASK, statements.LOSS
    yield one("an ask", "-", ask, ASK)
    yield one("an ask that knows no log", "-", ask, [*ASK[:5], []])
    yield one("a loss", "-", loss, LOSS)
    yield one("an ask by a rival", "bad_signature", ask, ASK, RIVAL)
    yield one("a loss by the brain", "bad_signature", loss, LOSS, RECEIPT)
    other = [1, OTHER_ADDRESS.factory, OTHER_ADDRESS.agent, NOW]
    yield one("an ask for another agent", "wrong_topic", ask, [*other, *ASK[4:]])
    for name, kind, body in (
        ("an ask of version 2", ask, [2, *ASK[1:]]),
        ("an ask with a nonce of 15 bytes", ask, [*START, bytes(15), []]),
        ("an ask of nine logs", ask, [*ASK[:5], [[bytes(16), 1]] * 9]),
        ("an ask with a log of negative size", ask, [*ASK[:5], [[bytes(16), -1]]]),
        ("an ask with more than it has", ask, [*ASK, 0]),
        ("the body of a loss in an ask", ask, LOSS),
        ("a loss that ends before it starts", loss, [*LOSS[:6], 10, *LOSS[7:]]),
        ("a loss for reason 0", loss, [*LOSS[:-1], 0]),
        ("a loss for reason 6", loss, [*LOSS[:-1], 6]),
        ("a loss with a short hash", loss, [*LOSS[:-2], bytes(31), 2]),
        ("a statement that is a map", ask, {}),
        ("a statement of another content type", "application/mg1-question+cbor", ASK),
    ):
        yield one(name, "malformed", kind, body)
    critical = sign1(ask, ASK, AGENT, {2: [99], 99: 1})
    yield "statement", "an ask with a critical label (X)", "malformed", critical, terms


def attested(**changes: Any) -> list[Any]:
    fields = {
        "version": 1,
        "factory": ADDRESS.factory,
        "agent": ADDRESS.agent,
        "epoch": 1,
        "number": 5,
        "issued": NOW,
        "policy": 3,
        "policy_hash": seed("policy"),
        "receipt": [9, seed("receipt seen")],
        "chains": [[3, 1, seed("head 3")], [STREAM, 12, seed("head 7")]],
    }
    return list({**fields, **changes}.values())


def two(body: Any, keys: Any, kind: str = statements.ATTESTATION) -> list[Any]:
    """Return the parts of a COSE_Sign by some keys, in the order of key ids."""
    protected, payload = encoded({3: kind}), encoded(body)
    signed = []
    for key in sorted(keys, key=lambda key: key.public.kid):
        signer = encoded({1: key.public.alg, 4: key.public.kid})
        to_sign = encoded(["Signature", protected, signer, b"", payload])
        signed.append([signer, {}, key.sign(to_sign)])
    return [protected, {}, payload, signed]


def _attestations() -> Iterator[Case]:
    terms = [
        ("agent", AGENT.public.public.hex()),
        ("attester", ATTESTER.public.public.hex()),
        *TOPIC,
    ]
    both = [AGENT, FrozenAttester()]

    def one(name: str, reason: str, parts: list[Any], tag: int = 98) -> Case:
        return "attestation", name, reason, encoded(cbor2.CBORTag(tag, parts)), terms

    def body(name: str, **changes: Any) -> Case:
        return one(name, "malformed", two(attested(**changes), both))

    right = two(attested(), both)
    classical = next(at for at in (0, 1) if len(right[3][at][2]) == 64)

    def with_signatures(signatures: list[Any]) -> list[Any]:
        return [*right[:3], signatures]

    def turned(at: int) -> list[Any]:
        signatures = [list(part) for part in right[3]]
        signature = signatures[at][2]
        signatures[at][2] = signature[:-1] + bytes([signature[-1] ^ 1])
        return with_signatures(signatures)

    def zeroed(at: int) -> list[Any]:
        signatures = [list(part) for part in right[3]]
        signatures[at][2] = bytes(len(signatures[at][2]))
        return with_signatures(signatures)

    yield one("an attestation", "-", right)
    yield one("an attestation of no chains", "-", two(attested(chains=[]), both))
    quantum = 1 - classical
    yield one(
        "an attestation without the ML-DSA signature (X)",
        "bad_signature",
        with_signatures([right[3][classical]]),
    )
    yield one(
        "an attestation without the Ed25519 signature (X)",
        "bad_signature",
        with_signatures([right[3][quantum]]),
    )
    yield one(
        "an attestation whose ML-DSA signature is zeros (X)", "bad_signature", zeroed(quantum)
    )
    yield one(
        "an attestation whose Ed25519 signature is zeros (X)", "bad_signature", zeroed(classical)
    )
    yield one("an attestation with a bit of ML-DSA turned", "bad_signature", turned(quantum))
    yield one("an attestation with a bit of Ed25519 turned", "bad_signature", turned(classical))
    yield one(
        "an attestation with one signature twice",
        "bad_signature",
        with_signatures([right[3][classical]] * 2),
    )
    yield one(
        "an attestation with a third signature",
        "bad_signature",
        two(attested(), [*both, RIVAL]),
    )
    yield one(
        "an attestation by a rival and the attester",
        "bad_signature",
        two(attested(), [RIVAL, FrozenAttester()]),
    )
    yield one("an attestation without signatures", "malformed", with_signatures([]))
    yield one(
        "an attestation of another content type",
        "malformed",
        two(attested(), both, "application/mg1-ask+cbor"),
    )
    yield one("an attestation in a COSE_Sign1", "malformed", right, 18)
    other = two(attested(factory=OTHER_ADDRESS.factory), both)
    yield one("an attestation of another agent", "wrong_topic", other)
    yield body("an attestation of version 2", version=2)
    yield body("an attestation whose chains are not sorted", chains=attested()[-1][::-1])
    yield body("an attestation with a chain twice", chains=[[3, 1, bytes(32)]] * 2)
    yield body("an attestation with a negative number", number=-1)
    yield body("an attestation with a chain of two parts", chains=[[3, 1]])


def _answers() -> Iterator[Case]:
    terms = [("receipt", RECEIPT.public.public.hex()), *TOPIC]
    log, head = [12, seed("root")], [1, STREAM, 3, seed("head")]

    def one(name: str, reason: str, kind: str, body: Any, key: Any = RECEIPT) -> Case:
        return "answer", name, reason, sign1(kind, body, key), terms

    receipt, request, standing = answers.RECEIPT, answers.REQUEST, answers.STANDING
    stand = [*START, seed("nonce")[:16], 1, 0, 5, log, [seed("p")], [head]]
    yield one("a receipt", "-", receipt, [*START, [head], [], log])
    yield one("a receipt with a refusal", "-", receipt, [*START, [head], [[*head, 3]], log])
    yield one("a request", "-", request, [*START, seed("sheet")])
    yield one("a standing", "-", standing, stand)
    erased = [*START, [[1, STREAM, 0, 3, seed("erased")]]]
    yield one("an erasure", "-", answers.ERASURE, erased)
    yield one("a receipt by a rival", "bad_signature", receipt, [*START, [head], [], log], RIVAL)
    for name, kind, body in (
        ("a receipt of no heads", receipt, [*START, [], [], log]),
        ("a receipt without a log", receipt, [*START, [head], []]),
        ("a receipt with an unknown code", receipt, [*START, [head], [[*head, 7]], log]),
        ("a receipt with 65 refusals", receipt, [*START, [head], [[*head, 3]] * 65, log]),
        ("a receipt with 513 heads", receipt, [*START, [head] * 513, [], log]),
        ("a receipt for another agent", receipt, [1, bytes(16), *START[2:], [head], [], log]),
        ("a receipt whose log has a short root", receipt, [*START, [head], [], [1, bytes(31)]]),
        ("a request for a short hash", request, [*START, bytes(31)]),
        ("the body of a receipt in a request", request, [*START, [head], [], log]),
        ("a standing with a quarantine of 2", standing, [*stand[:6], 2, *stand[7:]]),
        ("a standing with 127 hashes of proof", standing, [*stand[:9], [bytes(32)] * 127, []]),
        ("an erasure of nothing", answers.ERASURE, [*START, []]),
        ("an answer of another content type", "application/mg1-answer+cbor", [*START, [head]]),
    ):
        yield one(name, "malformed", kind, body)


def _sheets() -> Iterator[Case]:
    """The signatures alone; the bytes signed need not be a sheet for that."""
    content = {"sheet": "mg-sheet/1", "policy_hash": genesis(ADDRESS, 1, 1)}
    officers = [("officer", key.public.public.hex()) for key in OFFICERS]

    def one(name: str, reason: str, parts: list[Any], threshold: int = 2) -> Case:
        terms = [*officers, ("threshold", str(threshold))]
        return "sheet", name, reason, encoded(cbor2.CBORTag(98, parts)), terms

    right = two(content, OFFICERS, bundle.SHEET)
    first, second = right[3]
    yield one("a sheet signed by both officers", "-", right)
    yield one("a sheet signed by one where one is enough", "-", [*right[:3], [first]], 1)
    yield one("a sheet signed by one where two are needed", "bad_signature", [*right[:3], [first]])
    yield one("a sheet signed twice by one", "bad_signature", [*right[:3], [first, first]])
    yield one(
        "a sheet whose second signature is zeros (X)",
        "bad_signature",
        [*right[:3], [first, [second[0], {}, bytes(64)]]],
    )
    yield one(
        "a sheet with a wrong signature beside enough right ones (X)",
        "bad_signature",
        [*right[:3], [first, [second[0], {}, bytes(64)]]],
        1,
    )
    yield one(
        "a sheet also signed by a stranger",
        "bad_signature",
        two(content, [*OFFICERS, RIVAL], bundle.SHEET),
    )
    unprotected = [second[0], {1: -19}, second[2]]
    yield one(
        "a sheet with an alg in an unprotected header (X)",
        "bad_signature",
        [*right[:3], [first, unprotected]],
    )
    yield one("a sheet with a threshold of 0", "bad_signature", [*right[:3], [first]], 0)
    swapped = [*right[:2], encoded({**content, "policy_hash": commitment(b"")}), right[3]]
    yield one("a sheet changed after signing", "bad_signature", swapped)
    untagged = encoded(right)
    terms = [*officers, ("threshold", "2")]
    yield "sheet", "a sheet without its tag", "malformed", untagged, terms
    for number in (18, 96, 97):
        tagged = encoded(cbor2.CBORTag(number, right))
        yield "sheet", f"a sheet under tag {number}", "malformed", tagged, terms
    in_map = encoded(cbor2.CBORTag(98, {1: right}))
    yield "sheet", "a sheet whose tag holds a map", "malformed", in_map, terms
    for name, parts in (
        ("a sheet with an unprotected header", [right[0], {1: -19}, *right[2:]]),
        ("a sheet of five parts", [*right, 0]),
        ("a sheet of three parts", right[:3]),
        ("a sheet with a signature of two parts", [*right[:3], [first, second[:2]]]),
        ("a sheet with a signature of four parts", [*right[:3], [first, [*second, 0]]]),
        ("a sheet with a signature that is a byte string", [*right[:3], [first, second[2]]]),
        ("a sheet without signatures", [*right[:3], []]),
        ("a sheet with 17 signatures", [*right[:3], [first] * 17]),
        ("a sheet whose signatures are a map", [*right[:3], {}]),
        ("a sheet whose payload is no byte string", [*right[:2], [], right[3]]),
        ("a sheet whose protected header is no byte string", [[], *right[1:]]),
    ):
        yield one(name, "malformed", parts)
    policy = two(content, OFFICERS, bundle.POLICY)
    yield one("a policy where a sheet is expected", "malformed", policy)
