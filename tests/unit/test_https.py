"""Asking a server over HTTPS, and what is said where none answers."""

import socket

import pytest

from protocols.https import Unreachable, ask_server, tried, unbelieving


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("https://brain.example", "https://brain.example:443"),
        ("https://brain.example/a?b", "https://brain.example:443/a?b"),
        ("https://[::1]/a", "https://[::1]:443/a"),
        ("https://brain.example:8751", "https://brain.example:8751"),
    ],
)
def test_the_port_that_is_tried_is_told_also_where_none_was_given(address: str, shown: str) -> None:
    assert tried(address) == shown


async def test_a_server_that_is_not_there_is_told_with_the_port_and_how_it_came_about() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with pytest.raises(Unreachable) as caught:
        await ask_server(f"https://127.0.0.1:{port}/", unbelieving(), 10)
    assert f":{port}/" in str(caught.value)
    assert "443" not in caught.value.remedy
    with pytest.raises(Unreachable) as caught:
        await ask_server("https://name.invalid/", unbelieving(), 10)
    assert "https://name.invalid:443/" in str(caught.value)
    assert "no port was given, so 443 was tried" in caught.value.remedy
