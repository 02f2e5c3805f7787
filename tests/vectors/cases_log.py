"""Cases of kinds `inclusion` and `consistency`: section 8b."""

from collections.abc import Iterator

from security import transparency
from security.transparency import EMPTY_ROOT, consistency, inclusion, root
from tests.vectors.cases_cbor import Case
from tests.vectors.material import encoded, seed

ENTRIES = [seed(f"entry {at}") for at in range(11)]


def cases() -> Iterator[Case]:
    nodes: dict[tuple[int, int], bytes] = {}

    def get(level: int, place: int) -> bytes:
        return nodes[level, place]

    def put(level: int, place: int, found: bytes) -> None:
        nodes[level, place] = found

    for size, entry in enumerate(ENTRIES):
        transparency.append(size, entry, get, put)
    size = len(ENTRIES)
    head = root(size, get)

    def included(
        name: str, reason: str, index: int, path: list[bytes], entry: bytes, of: int = size
    ) -> Case:
        terms = [("index", str(index)), ("size", str(of)), ("root", root(of, get).hex())]
        return "inclusion", name, reason, encoded([entry, path]), terms

    def consistent(
        name: str, reason: str, older: int, newer: int, path: list[bytes], known: bytes
    ) -> Case:
        terms = [
            ("older", str(older)),
            ("newer", str(newer)),
            ("older-root", known.hex()),
            ("newer-root", root(newer, get).hex()),
        ]
        return "consistency", name, reason, encoded(path), terms

    for index in (0, 5, 7, 10):
        path = inclusion(index, size, get)
        yield included(f"entry {index} of 11", "-", index, path, ENTRIES[index])
    yield included("the only entry", "-", 0, [], ENTRIES[0], 1)
    path = inclusion(5, size, get)
    for name, index, changed, entry in (
        ("the proof of another entry", 4, path, ENTRIES[4]),
        ("another entry under the proof", 5, path, ENTRIES[4]),
        ("an inclusion proof cut short", 5, path[:-1], ENTRIES[5]),
        ("an inclusion proof that is too long", 5, [*path, head], ENTRIES[5]),
        ("an inclusion proof in the other order", 5, path[::-1], ENTRIES[5]),
        ("an entry beyond the end", 11, path, ENTRIES[5]),
        ("a node passed off as an entry", 2, inclusion(5, size, get)[1:], nodes[1, 2]),
    ):
        yield included(name, "not_proven", index, changed, entry)
    for older, newer in ((1, 11), (4, 11), (6, 8), (10, 11)):
        path = consistency(older, newer, get)
        yield consistent(f"from {older} to {newer}", "-", older, newer, path, root(older, get))
    yield consistent("from an empty log", "-", 0, 11, [], EMPTY_ROOT)
    yield consistent("from a log to itself", "-", 11, 11, [], head)
    path = consistency(6, size, get)
    known = root(6, get)
    for name, older, newer, changed, before in (
        ("a log that was rewritten", 6, 11, path, seed("rewritten")),
        ("a log that shrank", 11, 6, path, head),
        ("a consistency proof cut short", 6, 11, path[:-1], known),
        ("a consistency proof that is too long", 6, 11, [*path, head], known),
        ("a consistency proof of another size", 5, 11, path, root(5, get)),
        ("an empty log with another root", 0, 11, [], head),
        ("a proof where none is needed", 11, 11, [head], head),
        ("no proof where one is needed", 6, 11, [], known),
    ):
        yield consistent(name, "not_proven", older, newer, changed, before)
