"""The codes that people read, send and type."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.errors import MillgateError
from security.joining_code import (
    CodeFault,
    bind,
    new_approval,
    new_code,
    read_approval,
    read_code,
)

FINGERPRINT = bytes(range(32))
SYMBOLS = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


@given(st.integers(0, 65_535), st.binary(min_size=32, max_size=32))
def test_a_code_says_what_it_was_made_for(number: int, fingerprint: bytes) -> None:
    code = new_code(number, fingerprint, "brain.example:8751")
    read = read_code(code.to_text())
    assert (read.invitation, read.pin, read.host) == (
        number,
        fingerprint[:12],
        "brain.example:8751",
    )
    assert read.secret.reveal() == code.secret.reveal()


def test_it_may_be_typed_carelessly() -> None:
    text = new_code(7, FINGERPRINT, "").to_text()
    careless = text.lower().replace("-", " ").replace("0", "o").replace("1", "l")
    # As an input method for Chinese types it.
    wide = "".join(chr(ord(one) + 0xFEE0) if one.isalnum() else one for one in text)
    for typed in (careless, wide, f" {text}\n"):
        assert read_code(typed).secret.reveal() == read_code(text).secret.reveal()


def test_a_slip_shows_before_anything_is_sent() -> None:
    text = new_code(7, FINGERPRINT, "").to_text()
    slips = [
        text[:at] + other + text[at + 1 :]
        for at, symbol in enumerate(text)
        if symbol != "-"
        for other in SYMBOLS
        if other != symbol
    ]
    unseen = [slip for slip in slips if not _refused(slip)]
    # One check byte: one slip in 256 is seen by the brain only.
    assert len(slips) == 32 * 31
    assert len(unseen) < 20


def _refused(text: str) -> bool:
    try:
        read_code(text)
    except CodeFault:
        return True
    return False


@pytest.mark.parametrize("text", ["", "abc", "U" * 32, "7" * 31, "7" * 33, "@host", "钥" * 32])
def test_what_is_no_code_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(CodeFault, match=r"not an invitation's code"):
        read_code(text)


def test_a_code_does_not_show_its_secret_by_accident() -> None:
    assert "secret=<secret>" in repr(new_code(7, FINGERPRINT, "host:1"))


def test_every_slip_in_an_approval_code_shows() -> None:
    text = new_approval()
    digits = read_approval(text)
    assert read_approval(text.replace("-", " ")) == digits
    swapped = [
        digits[:at] + digits[at + 1] + digits[at] + digits[at + 2 :]
        for at in range(11)
        if digits[at] != digits[at + 1]
    ]
    changed = [
        digits[:at] + other + digits[at + 1 :]
        for at in range(12)
        for other in "0123456789"
        if other != digits[at]
    ]
    for slip in swapped + changed:
        with pytest.raises(CodeFault, match="misheard or mistyped"):
            read_approval(slip)


@pytest.mark.parametrize("text", ["", "1234", "1" * 13, "١" * 12, "abcdefghijkl"])
def test_what_is_no_approval_code_is_refused(text: str) -> None:
    with pytest.raises(MillgateError, match="not an approval code"):
        read_approval(text)


def test_an_approval_code_is_bound_to_one_record() -> None:
    assert bind("1" * 12, b"one") != bind("1" * 12, b"other")
    assert bind("1" * 12, b"one") != bind("2" * 12, b"one")
    assert bind("1" * 12, b"one") == bind("1" * 12, b"one")
