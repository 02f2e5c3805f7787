"""Topics: opaque ids and a direction; everything else is not ours."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocols import topics
from protocols.topics import Address, Direction

ids = st.binary(min_size=16, max_size=16)
directions: st.SearchStrategy[Direction] = st.sampled_from(("up", "down", "state"))
F, A = "0123456789abcdef" * 2, "fedcba9876543210" * 2


@settings(deadline=None, max_examples=100)
@given(ids, ids, directions)
def test_a_topic_comes_back_as_its_address_and_direction(
    factory: bytes, agent: bytes, direction: Direction
) -> None:
    address = Address(factory, agent)
    topic = address.topic(direction)
    assert topics.parse(topic) == (address, direction)
    assert topic == f"mg1/{factory.hex()}/{agent.hex()}/{direction}"


@pytest.mark.parametrize(
    "topic",
    [
        "",
        "mg1",
        f"mg1/{F}/{A}",
        f"mg1/{F}/{A}/",
        f"mg1/{F}/{A}/sideways",
        f"mg1/{F}/{A}/up/",
        f"mg1/{F}/{A}/up\n",
        f"/mg1/{F}/{A}/up",
        f"mg2/{F}/{A}/up",
        f"MG1/{F}/{A}/up",
        f"mg1/{F.upper()}/{A}/up",
        f"mg1/{F[:-1]}/{A}/up",
        f"mg1/{F}0/{A}/up",
        f"mg1/{F}/{A[:-1]}g/up",
        f"mg1/{F}//up",
        f"mg1/+/{A}/up",
        f"mg1/{F}/{A}/#",
        f"mg1/{F}/{'٠' * 32}/up",
    ],
)
def test_what_is_not_exactly_one_of_our_topics_is_nobodys(topic: str) -> None:
    assert topics.parse(topic) is None


@settings(deadline=None, max_examples=200)
@given(st.text(max_size=100))
def test_any_other_text_is_nobodys(topic: str) -> None:
    assert topics.parse(topic) is None
