"""Sealing and opening: per second, and bytes of overhead per batch; figures to read.

python -m tests.benchmarks.bench_seal
python -m tests.benchmarks.bench_seal --values 100 1000 10000 --seconds 2
"""

import argparse
from collections.abc import Callable
from typing import Final

import numpy as np

from protocols import batch
from protocols.batch import Block
from security.envelope import Header, commitment, genesis, open_sealed, pad, parse, seal, unpad
from security.keys import SigningKey
from security.schemes import ED25519, P256
from security.secret import Secret
from security.statements import Attestation, ChainEnd, read_attestation, sign_attestation
from security.transparency import append, inclusion, root
from tests.benchmarks.common import Cost, spent, table, walk
from tests.small_factory import NOW, Keys

KEYS: Final = Keys()
PADS: Final = (256, 1024)
POINTS: Final = 100


def block_of(values: int) -> Block:
    """Return so many values of up to 100 points in consecutive slots."""
    columns = min(values, POINTS)
    rows = max(values // columns, 1)
    return Block(
        slot=NOW,
        numbers=np.arange(1, columns + 1, dtype=np.int64),
        mantissa=walk(rows, columns),
        quality=np.zeros((rows, columns), np.uint8),
    )


def sealed(padded: bytes, signer: SigningKey = KEYS.signing) -> bytes:
    recipients = [KEYS.encryption.public, KEYS.audit.public]
    header = Header(
        factory=KEYS.address.factory,
        agent=KEYS.address.agent,
        epoch=1,
        stream=7,
        sequence=0,
        previous=genesis(KEYS.address, 1, 7),
        policy_version=1,
        policy_hash=bytes(32),
        sheet_hash=bytes(32),
        window=(NOW, NOW + 100),
        issued_at=NOW,
        recipients=tuple(sorted(key.kid for key in recipients)),
        commitment=commitment(padded),
        receipt=(0, bytes(32)),
        purpose=3,
    )
    return seal(header, padded, signer, recipients)


def opened(message: bytes, signer: SigningKey = KEYS.signing) -> bytes:
    """Do what the brain does until it has the content: parse, verify, open, take the padding off."""
    found = parse(message)
    found.signed.verify(signer.public)
    return unpad(open_sealed(found, KEYS.encryption))


def rate(work: Callable[[], object], seconds: float) -> float:
    """Return how often something is done in a CPU-second."""
    cost, times = Cost(), 0
    while cost.cpu < seconds:
        with spent(cost):
            for _ in range(20):
                work()
        times += 20
    return times / cost.cpu


def batches(values: list[int], seconds: float) -> None:
    rows = []
    for count in values:
        content = batch.encode([block_of(count)])
        for unit in PADS:
            padded = pad(content, unit)
            message = sealed(padded)
            rows.append(
                (
                    f"{count} values, pad {unit}",
                    f"{rate(lambda padded=padded: sealed(padded), seconds):,.0f}",  # type: ignore[misc] # a default binds it
                    f"{rate(lambda message=message: opened(message), seconds):,.0f}",  # type: ignore[misc] # same
                    f"{len(content):,}",
                    f"{len(message):,}",
                    f"{len(message) - len(padded):,}",
                    f"{len(padded) - len(content):,}",
                    f"{len(message) / count:.2f}",
                )
            )
    heads = (
        "batch, two recipients",
        "seal/CPU-s",
        "open/CPU-s",
        "content B",
        "message B",
        "envelope B",
        "salt, pad B",
        "B/value",
    )
    table("Sealing and opening", heads, rows)


def schemes(seconds: float) -> None:
    """Compare the two schemes that a batch may be signed with, both in software."""
    padded = pad(batch.encode([block_of(1_000)]), 1024)
    rows = []
    for scheme in (ED25519, P256):
        signer = SigningKey(Secret(bytes(range(1, 33))), scheme)
        message = sealed(padded, signer)
        rows.append(
            (
                f"1000 values, {scheme.name}",
                f"{rate(lambda signer=signer: sealed(padded, signer), seconds):,.0f}",  # type: ignore[misc] # a default binds it
                f"{rate(lambda message=message, signer=signer: opened(message, signer), seconds):,.0f}",  # type: ignore[misc] # same
            )
        )
    table("Schemes", ("batch", "seal/CPU-s", "open/CPU-s"), rows)


def evidence(seconds: float) -> None:
    attestation = Attestation(
        KEYS.address,
        1,
        1,
        NOW,
        1,
        bytes(32),
        (0, bytes(32)),
        tuple(ChainEnd(stream, 9, bytes(32)) for stream in range(4)),
    )
    signed = sign_attestation(attestation, KEYS.signing, KEYS.attestation)
    nodes: dict[tuple[int, int], bytes] = {}

    def get(level: int, place: int) -> bytes:
        return nodes[level, place]

    def put(level: int, place: int, found: bytes) -> None:
        nodes[level, place] = found

    size = 100_000
    grown = Cost()
    with spent(grown):
        for at in range(size):
            append(at, at.to_bytes(32, "big"), get, put)
    keys = KEYS.signing.public, KEYS.attestation.public
    rows = [
        (
            "attestation, signed twice",
            f"{rate(lambda: sign_attestation(attestation, KEYS.signing, KEYS.attestation), seconds):,.0f}",
        ),
        (
            f"attestation verified ({len(signed):,} B)",
            f"{rate(lambda: read_attestation(signed, *keys), seconds):,.0f}",
        ),
        (f"log of {size:,} leaves: appended", f"{size / grown.cpu:,.0f}"),
        ("  its root", f"{rate(lambda: root(size, get), seconds):,.0f}"),
        ("  an inclusion proof", f"{rate(lambda: inclusion(77_777, size, get), seconds):,.0f}"),
    ]
    table("Evidence", ("what", "per CPU-s"), rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--values", type=int, nargs="+", default=[100, 1_000, 10_000])
    parser.add_argument("--seconds", type=float, default=1.0, help="CPU-seconds per figure")
    given = parser.parse_args()
    batches(given.values, given.seconds)
    schemes(given.seconds)
    evidence(given.seconds)


if __name__ == "__main__":
    main()
