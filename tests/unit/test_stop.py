"""The one-touch stop: any trusted officer ends a policy, nobody else does, and a spoilt one stops too."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols import strict_cbor
from protocols.strict_cbor import Malformed
from security import cose
from security.keys import BadSignature
from security.policy.bundle import NoPolicy
from security.policy.stop import (
    MOST_BYTES,
    STOP,
    Stop,
    find_stop,
    read_stop,
    sign_stop,
    stop_path,
    write_stop,
)
from tests.unit.policy_material import officer

OFFICERS = [officer(1).public, officer(2).public]
STOPPED = Stop(through=7, at=1_772_000_000, reason="recipe changed")


def test_one_trusted_officer_is_enough_to_stop() -> None:
    for number in (1, 2):
        assert read_stop(sign_stop(STOPPED, [officer(number)]), OFFICERS) == STOPPED


def test_a_strangers_stop_is_not_one() -> None:
    with pytest.raises(BadSignature):
        read_stop(sign_stop(STOPPED, [officer(9)]), OFFICERS)


@given(st.data())
def test_any_changed_bit_spoils_a_stop(data: st.DataObject) -> None:
    signed = bytearray(sign_stop(STOPPED, [officer(1)]))
    bit = data.draw(st.integers(0, 8 * len(signed) - 1))
    signed[bit // 8] ^= 1 << bit % 8
    with pytest.raises((Malformed, BadSignature)):
        read_stop(bytes(signed), OFFICERS)


@pytest.mark.parametrize(
    "content",
    [
        {"stop": "mg-stop/1", "through": 7, "at": 1, "reason": "", "until": 9},
        {"stop": "mg-stop/2", "through": 7, "at": 1, "reason": ""},
        {"stop": "mg-stop/1", "through": 0, "at": 1, "reason": ""},
        {"stop": "mg-stop/1", "through": 7, "at": 1},
        ["mg-stop/1"],
    ],
)
def test_a_signed_stop_of_another_form_is_refused(content: object) -> None:
    signed = cose.sign_many(STOP, strict_cbor.encode(content), [officer(1)])
    with pytest.raises(Malformed):
        read_stop(signed, OFFICERS)


def test_a_stop_lies_beside_the_policy_it_stops(tmp_path: Path) -> None:
    policy = tmp_path / "policy.signed"
    assert find_stop(policy, OFFICERS) is None
    assert write_stop(policy, sign_stop(STOPPED, [officer(2)])) == stop_path(policy)
    assert stop_path(policy) == tmp_path / "policy.stop"
    assert find_stop(policy, OFFICERS) == STOPPED


@pytest.mark.parametrize("spoilt", [b"", b"half", bytes(MOST_BYTES + 1)])
def test_a_half_written_or_foreign_stop_lets_nothing_leave(tmp_path: Path, spoilt: bytes) -> None:
    policy = tmp_path / "policy.signed"
    stop_path(policy).write_bytes(spoilt)
    with pytest.raises(NoPolicy, match="nothing leaves"):
        find_stop(policy, OFFICERS)
    stop_path(policy).write_bytes(sign_stop(STOPPED, [officer(9)]))
    with pytest.raises(NoPolicy, match="nothing leaves"):
        find_stop(policy, OFFICERS)
