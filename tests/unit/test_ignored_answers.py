"""Why an answer from the brain is ignored is told as it is."""

import pytest

from agent.uplink import ignored
from protocols.errors import MillgateError
from protocols.language import spoken_to
from protocols.topics import ID_BYTES, Address
from security.answers import read_answer
from security.keys import BadSignature


def test_what_is_no_answer_is_not_put_down_to_a_wrong_key() -> None:
    with pytest.raises(MillgateError) as caught:
        read_answer(b"\xd2\x00", Address(bytes(ID_BYTES), bytes(ID_BYTES)), [])
    assert not isinstance(caught.value, BadSignature)
    with spoken_to(chinese=False):
        assert "signed" not in ignored(caught.value)
        assert "one version" in ignored(caught.value)
        assert "keys on its cards" in ignored(BadSignature("not signed with a pinned key"))
    with spoken_to(chinese=True):
        assert "名片" in ignored(BadSignature("not signed with a pinned key"))
