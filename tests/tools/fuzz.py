"""Fuzzing of the strict decoder and of everything that reads bytes before a signature is verified.

    python -m tests.tools.fuzz --inputs 1000000 --seed 1

Inputs are the test kit's files, changed: bits, bytes, lengths, pieces moved, doubled, joined. Each goes
to one reader; nothing but a refusal may come of it, and nothing may be decrypted.
"""

import argparse
import random
import resource
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from protocols import batch, strict_cbor
from protocols.errors import MillgateError
from security import answers, cose, envelope, statements
from security.keys import VerifyKey
from security.policy import bundle
from tests.vectors.material import ADDRESS, AGENT, ATTESTER, FOLDER, OFFICERS, RECEIPT
from tests.vectors.run import read

MEMORY: Final = 64 << 20
"""How much the process may grow, in bytes."""

_TAGS: Final = frozenset({18, 72, 77, 78, 79, 96, 98})
_EDGES: Final = [0, 1, 0x17, 0x18, 0x19, 0x1A, 0x1B, 0x1F, 0x3B, 0x5B, 0x7F, 0x80, 0x9B, 0x9F]
_EDGES_MORE: Final = [0xA0, 0xBB, 0xBF, 0xC2, 0xD2, 0xD8, 0xDB, 0xF6, 0xF9, 0xFB, 0xFF]
_LONGEST: Final = 300_000


@dataclass
class Result:
    """What a run did.

    Attributes:
        outcomes: by reader, how often it accepted or refused.
        slowest_s: the longest that one input took.
        grown: by how many bytes the process grew.
    """

    outcomes: Counter[str] = field(default_factory=Counter)
    slowest_s: float = 0.0
    grown: int = 0


def _cbor(data: bytes) -> None:
    item = strict_cbor.decode(data, max_bytes=_LONGEST, tags=_TAGS)
    if strict_cbor.encode(item) != data:
        raise AssertionError("what decodes does not encode back")


def _message(data: bytes) -> None:
    envelope.parse(data).signed.verify(AGENT.public)


def _statement(data: bytes) -> None:
    signed, _ = statements.parse_statement(data)
    signed.verify(AGENT.public)


def _attestation(data: bytes) -> None:
    statements.claimed_address(data)
    statements.read_attestation(data, AGENT.public, ATTESTER.public)


def _answer(data: bytes) -> None:
    answers.read_answer(data, ADDRESS, [RECEIPT.public])


def _sheet(data: bytes) -> None:
    officers: list[VerifyKey] = [key.public for key in OFFICERS]
    cose.verify_many(data, content_type=bundle.SHEET, trusted=officers, threshold=2, limit=_LONGEST)


def _body(data: bytes) -> None:
    batch.decode(data)


READERS: Final[dict[str, Callable[[bytes], None]]] = {
    "cbor": _cbor,
    "message": _message,
    "statement": _statement,
    "attestation": _attestation,
    "answer": _answer,
    "sheet": _sheet,
    "body": _body,
}


def corpus() -> dict[str, list[bytes]]:
    """Return the test kit's bytes by reader."""
    found: dict[str, list[bytes]] = {name: [] for name in READERS}
    for path in sorted(FOLDER.glob("[0-9][0-9][0-9]-*.txt")):
        vector = read(path)
        if vector.text("kind") in found:
            found[vector.text("kind")].append(vector.data)
    return found


def changed(data: bytes, others: list[bytes], chance: random.Random) -> bytes:
    """Return bytes with one to four changes."""
    found = bytearray(data)
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(found) + 1)
        match chance.randrange(8):
            case 0 if at < len(found):
                found[at] ^= 1 << chance.randrange(8)
            case 1 if at < len(found):
                found[at] = chance.choice(_EDGES + _EDGES_MORE)
            case 2:
                found[at:at] = chance.randbytes(chance.choice([1, 2, 8]))
            case 3:
                del found[at : at + chance.choice([1, 2, 9, 64])]
            case 4:
                piece = found[at : at + chance.choice([1, 8, 64])]
                found[at:at] = piece * chance.choice([1, 2, 50])
            case 5:
                other = chance.choice(others)
                start = chance.randrange(len(other) + 1)
                found[at:] = other[start:]
            case 6:
                # A head that claims very much.
                kind = chance.choice([0x5B, 0x7B, 0x9B, 0xBB])
                found[at : at + 9] = bytes([kind]) + chance.randbytes(8)
            case _:
                found[at:at] = bytes([chance.choice([0x81, 0xA1, 0xD8])]) * chance.choice(
                    [1, 9, 500]
                )
    return bytes(found[:_LONGEST])


def fuzz(inputs: int, seed: int) -> Result:
    """Feed so many inputs to the readers, in turn.

    Raises:
        Exception: whatever a reader raised that is no refusal; its input is printed.
    """
    chance, result = random.Random(seed), Result()
    material = corpus()
    everything = [data for kind in material.values() for data in kind]
    names = list(READERS)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for number in range(inputs):
        name = names[number % len(names)]
        data = changed(chance.choice(material[name]), everything, chance)
        start = time.perf_counter()
        try:
            READERS[name](data)
        except MillgateError as refusal:
            result.outcomes[f"{name}: {type(refusal).__name__}"] += 1
        except BaseException:
            sys.stderr.write(f"{name}: {data.hex()}\n")
            raise
        else:
            result.outcomes[f"{name}: accepted"] += 1
        result.slowest_s = max(result.slowest_s, time.perf_counter() - start)
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    result.grown = (after - before) * 1024
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--inputs", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    start = time.perf_counter()
    result = fuzz(given.inputs, given.seed)
    took = time.perf_counter() - start
    print(f"{given.inputs} inputs in {took:.0f} s, {given.inputs / took:.0f} per second")
    print(f"slowest {result.slowest_s * 1000:.0f} ms, grown by {result.grown / 2**20:.1f} MiB")
    for name, count in sorted(result.outcomes.items()):
        print(f"  {name}: {count}")


if __name__ == "__main__":
    main()
