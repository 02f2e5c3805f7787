"""Texts of devices are shown as they are meant, and can do nothing to a terminal."""

import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocols.drivers.modbus.texts import text_of


@pytest.mark.parametrize(
    ("data", "order", "text"),
    [
        (b"SUN2000-100KTL\0\0", "ABCD", "SUN2000-100KTL"),
        (b"US2N00\x000", "BADC", "SUN2000"),
        (b"PAC3200   ", "CDAB", "PAC3200"),
        (b"old\0remains of before", "ABCD", "old"),
        (b"\xff" * 10, "ABCD", ""),
        ("电表".encode(), "ABCD", "电表"),
        ("电表".encode("gb18030"), "ABCD", "电表"),
        (b"caf\xe9", "ABCD", "café"),
        (b"\x1b[2Jgone", "ABCD", "\N{REPLACEMENT CHARACTER}[2Jgone"),
    ],
)
def test_a_text_is_what_the_device_means(data: bytes, order: str, text: str) -> None:
    assert text_of(data, order) == text  # type: ignore[arg-type] # the four are written above


@settings(deadline=None)
@given(st.binary(max_size=250), st.sampled_from(["ABCD", "CDAB", "BADC", "DCBA"]))
def test_no_bytes_move_a_cursor_or_hide_anything(data: bytes, order: str) -> None:
    text = text_of(data, order)  # type: ignore[arg-type] # as above
    assert len(text) <= len(data)
    assert not [sign for sign in text if unicodedata.category(sign)[0] == "C"]
