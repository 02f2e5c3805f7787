"""Names of machines: what a Chinese input method leaves in them goes no further."""

import pytest

from aggregator.joining_config import EnrolmentConfig
from protocols.errors import MillgateError, Misfit
from protocols.hosts import check_host, check_place, given_host
from protocols.language import spoken_to


@pytest.mark.parametrize(
    "host", ["brain.example", "127.0.0.1", "::1", "[::1]", "plc_3", "工厂.example", "a."]
)
def test_names_and_addresses_are_taken_as_they_are(host: str) -> None:
    assert check_host(host) == host
    assert check_place(f"[{host}]:8751" if host == "::1" else f"{host}:8751")


@pytest.mark.parametrize(
    ("host", "remedy"),
    [
        ("brain.example：8751", "write ':' instead"),
        ("127.0.0。1", "write '.' instead"),
        ("ｂrain", "write 'b' instead"),
        ("brain　", "write a space instead"),
        (" brain", "remove it"),
        ("brain\u200b", "remove it"),
        ("brain:8751", "write it alone, without port and path"),
        ("https://brain", "write it alone, without port and path"),
        ("", "write it alone, without port and path"),
    ],
)
def test_what_is_no_host_is_refused_with_what_to_write(host: str, remedy: str) -> None:
    with spoken_to(chinese=False):
        with pytest.raises(Misfit) as caught:
            check_host(host)
        assert caught.value.remedy == remedy
        with pytest.raises(MillgateError, match="--host"):
            given_host(host, "--host")


@pytest.mark.parametrize("place", ["brain:0", "brain:70000", "brain:", "brain:x", "a:1:2", ":1"])
def test_a_place_ends_in_a_port_that_there_is(place: str) -> None:
    with pytest.raises(Misfit):
        check_place(place)


def test_no_full_width_sign_gets_into_an_invitation() -> None:
    with spoken_to(chinese=False), pytest.raises(ValueError, match="the full-width sign '：'"):
        EnrolmentConfig(address="brain.example：8751")
    assert EnrolmentConfig(address="brain.example:8751").reached_at == "brain.example:8751"
    assert EnrolmentConfig(address="").reached_at == "127.0.0.1:8751"
