"""Every way in which a server turns us down is told with what to do about it."""

import socket
from collections.abc import Callable

import pytest
from asyncua.ua.status_codes import StatusCodes
from asyncua.ua.uaerrors import UaError, UaStatusCodeError

from protocols.drivers.opcua.faults import Situation, Stage, not_connected

STATUS: Callable[[int], BaseException] = UaStatusCodeError  # it has no annotations
OWN = "/mill/pki/own.der (SHA-1 ab)"


def told(error: BaseException, **situation: object) -> str:
    fault = not_connected(error, "press", Situation(**({"own": OWN} | situation)))  # type: ignore[arg-type] # the parameters mix types
    assert fault.where == "press"
    assert fault.what
    return f"{fault.what} | {fault.remedy}"


@pytest.mark.parametrize(
    ("name", "situation", "remedy"),
    [
        ("BadSecurityPolicyRejected", {"secured": True}, "name one that it offers"),
        ("BadSecurityPolicyRejected", {}, "SecurityPolicy None"),
        ("BadSecurityPolicyRejected", {"stage": Stage.DISCOVERY}, "server_certificate"),
        ("BadSecurityChecksFailed", {"secured": True}, OWN),
        ("BadCertificateUntrusted", {"secured": True}, "let it trust"),
        ("BadCertificateUriInvalid", {"secured": True}, "init --renew"),
        ("BadCertificateTimeInvalid", {"secured": True}, "clocks"),
        ("BadInvalidTimestamp", {}, "clocks"),
        ("BadUserAccessDenied", {}, "wants a user"),
        ("BadIdentityTokenRejected", {"identity": "user"}, "password_file"),
        ("BadIdentityTokenInvalid", {"identity": "certificate"}, "user_certificate"),
        ("BadTooManySessions", {}, "close other clients"),
        ("BadTcpEndpointUrlInvalid", {}, "url exactly"),
        ("BadOutOfService", {}, "server's own log"),
    ],
)
def test_a_status_is_named_and_says_what_to_do(
    name: str, situation: dict[str, object], remedy: str
) -> None:
    line = told(STATUS(getattr(StatusCodes, name)), **situation)
    assert name in line
    assert remedy in line


@pytest.mark.parametrize("error", [AssertionError(), TimeoutError(), ConnectionResetError()])
def test_silence_while_the_channel_opens_means_most_often_that_we_are_not_trusted(
    error: BaseException,
) -> None:
    assert OWN in told(error, stage=Stage.CHANNEL, secured=True)
    assert "SecurityPolicy None" in told(error, stage=Stage.CHANNEL)


def test_before_the_channel_it_is_the_network() -> None:
    assert "firewall" in told(TimeoutError(), stage=Stage.REACH, secured=True)
    assert "nothing listens" in told(ConnectionRefusedError(), stage=Stage.DISCOVERY)
    assert "host name" in told(socket.gaierror(), stage=Stage.DISCOVERY)


def test_the_text_of_what_went_wrong_is_never_repeated() -> None:
    for error in (UaError("body was 424242"), ValueError("424242"), OSError(5, "424242")):
        assert "424242" not in told(error)
    assert "closed" in told(ConnectionError("424242"))


def test_a_certificate_that_changes_within_the_channel_is_told() -> None:
    assert "another within the channel" in told(UaError("Server certificate mismatch"))
