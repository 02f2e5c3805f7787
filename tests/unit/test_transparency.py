"""The Merkle log: against the definitions of RFC 9162 written down once more, and its known roots."""

import hashlib
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from security.transparency import (
    EMPTY_ROOT,
    NotProven,
    append,
    check_consistency,
    check_inclusion,
    consistency,
    inclusion,
    root,
)


class Tree:
    """A log in memory."""

    def __init__(self, leaves: Sequence[bytes]) -> None:
        self.nodes: dict[tuple[int, int], bytes] = {}
        for size, leaf in enumerate(leaves):
            append(size, leaf, self.get, self.put)

    def get(self, level: int, place: int) -> bytes:
        return self.nodes[level, place]

    def put(self, level: int, place: int, found: bytes) -> None:
        assert (level, place) not in self.nodes
        self.nodes[level, place] = found


def mth(leaves: Sequence[bytes]) -> bytes:
    """MTH of section 2.1.1, as it is written there."""
    if not leaves:
        return hashlib.sha256().digest()
    if len(leaves) == 1:
        return hashlib.sha256(b"\0" + leaves[0]).digest()
    k = 1
    while 2 * k < len(leaves):
        k *= 2
    return hashlib.sha256(b"\1" + mth(leaves[:k]) + mth(leaves[k:])).digest()


def path(m: int, leaves: Sequence[bytes]) -> list[bytes]:
    """PATH of section 2.1.3.1."""
    if len(leaves) == 1:
        return []
    k = 1
    while 2 * k < len(leaves):
        k *= 2
    if m < k:
        return [*path(m, leaves[:k]), mth(leaves[k:])]
    return [*path(m - k, leaves[k:]), mth(leaves[:k])]


def subproof(m: int, leaves: Sequence[bytes], *, whole: bool) -> list[bytes]:
    """SUBPROOF of section 2.1.4.1."""
    if m == len(leaves):
        return [] if whole else [mth(leaves)]
    k = 1
    while 2 * k < len(leaves):
        k *= 2
    if m <= k:
        return [*subproof(m, leaves[:k], whole=whole), mth(leaves[k:])]
    return [*subproof(m - k, leaves[k:], whole=False), mth(leaves[:k])]


def leaves_of(count: int) -> list[bytes]:
    return [bytes([at, at + 1]) for at in range(count)]


def test_roots_and_proofs_are_those_of_the_definitions_for_all_small_logs() -> None:
    for size in range(1, 40):
        leaves = leaves_of(size)
        tree = Tree(leaves)
        assert root(size, tree.get) == mth(leaves)
        for index in range(size):
            found = inclusion(index, size, tree.get)
            assert found == path(index, leaves)
            check_inclusion(index, size, leaves[index], found, mth(leaves))
        for older in range(1, size):
            between = consistency(older, size, tree.get)
            assert between == subproof(older, leaves, whole=True)
            check_consistency(older, mth(leaves[:older]), size, mth(leaves), between)


def test_the_root_of_an_old_log_can_still_be_made_from_a_grown_one() -> None:
    leaves = leaves_of(37)
    tree = Tree(leaves)
    assert [root(size, tree.get) for size in range(38)] == [mth(leaves[:s]) for s in range(38)]


def test_roots_are_those_of_certificate_transparency() -> None:
    """The eight leaves and roots that the reference implementation of RFC 6962 is tested with."""
    inputs = [
        "",
        "00",
        "10",
        "2021",
        "3031",
        "40414243",
        "5051525354555657",
        "606162636465666768696a6b6c6d6e6f",
    ]
    tree = Tree([bytes.fromhex(one) for one in inputs])
    first = "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"
    last = "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328"
    assert root(1, tree.get).hex() == first
    assert root(8, tree.get).hex() == last


def test_nothing_is_needed_from_nothing_or_to_the_same() -> None:
    tree = Tree(leaves_of(5))
    head = root(5, tree.get)
    check_consistency(0, EMPTY_ROOT, 5, head, consistency(0, 5, tree.get))
    check_consistency(5, head, 5, head, consistency(5, 5, tree.get))
    for older, known, proof in (
        (0, head, []),
        (5, EMPTY_ROOT, []),
        (5, head, [head]),
        (6, head, []),
        (-1, EMPTY_ROOT, []),
        (3, head, []),
    ):
        with pytest.raises(NotProven):
            check_consistency(older, known, 5, head, proof)
    with pytest.raises(ValueError, match="larger"):
        consistency(6, 5, tree.get)
    with pytest.raises(ValueError, match="leaf"):
        inclusion(5, 5, tree.get)


@settings(deadline=None, max_examples=200)
@given(size=st.integers(2, 70), data=st.data())
def test_a_proof_shows_only_what_it_is_for(size: int, data: st.DataObject) -> None:
    leaves = leaves_of(size)
    tree, head = Tree(leaves), mth(leaves)
    index = data.draw(st.integers(0, size - 1))
    proof = inclusion(index, size, tree.get)
    other = data.draw(st.integers(0, size - 1).filter(lambda at: at != index))
    older = data.draw(st.integers(1, size - 1))
    between = consistency(older, size, tree.get)
    for index_, leaf, proof_ in (
        (other, leaves[index], proof),
        (index, leaves[other], proof),
        (index, leaves[index], proof[:-1]),
        (index, leaves[index], [*proof, head]),
        (index, leaves[index], [head, *proof[1:]] if proof else [head]),
        (size, leaves[index], proof),
        (-1, leaves[index], proof),
    ):
        with pytest.raises(NotProven):
            check_inclusion(index_, size, leaf, proof_, head)
    for known, proof_ in (
        (mth(leaves_of(older - 1)) if older > 1 else EMPTY_ROOT, between),
        (mth(leaves[:older]), between[:-1]),
        (mth(leaves[:older]), [*between, head]),
        (mth(leaves[:older]), [head, *between[1:]]),
    ):
        with pytest.raises(NotProven):
            check_consistency(older, known, size, head, proof_)
    with pytest.raises(NotProven):
        check_consistency(older, mth(leaves[:older]), size, b"x" * 32, between)
