"""How the OPC-UA driver protects its connections, against real servers."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import aclosing, suppress
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from asyncua import ua
from asyncua.common.utils import ServiceError
from asyncua.crypto.permission_rules import User, UserRole
from asyncua.crypto.validator import CertificateValidator, CertificateValidatorOptions
from asyncua.server.internal_session import InternalSession
from asyncua.server.server import Server
from asyncua.server.uaprocessor import UaProcessor
from asyncua.server.user_managers import UserManager
from asyncua.ua.status_codes import StatusCodes
from cryptography.hazmat.primitives.serialization import Encoding

from protocols.drivers import NotConnected
from protocols.drivers.opcua import Driver
from protocols.drivers.opcua.certificates import parse_certificate
from protocols.drivers.opcua.levels import level_of
from protocols.drivers.opcua.pki import Trusted, TrustFolder
from protocols.frame import SECOND
from security.application_certificate import create_application_certificate
from tests.servers.opcua import (
    EVERY,
    MODES,
    POLICIES,
    STATUS,
    URI,
    Node,
    Pair,
    collect,
    driver_for,
    end_of,
    face,
    first_values,
    pair,
    plant,
    running,
    until,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")

NODES = [Node(URI, f"v{number}", "Int32", 4100 + number) for number in range(3)]
VALUES = {node.name: node.value for node in NODES}
OURS = "urn:millgate:test"
PASSWORD = "s3cret-水"  # noqa: S105 - the test server's own
USER = pair(7, "urn:user")
BEST = ("Aes256_Sha256_RsaPss", "SignAndEncrypt")
DAY = 86_400 * SECOND


class Users(UserManager):
    """Lets in nobody but one user by name and one by certificate."""

    def __init__(self, anonymous: bool) -> None:
        self.anonymous = anonymous
        self.let_in: list[str] = []

    def get_user(
        self, _: Any, username: Any = None, password: Any = None, certificate: Any = None
    ) -> User | None:
        if username is not None:
            found = "user" if (username, password) == ("gate", PASSWORD) else None
        elif certificate == USER.der:
            found = "certificate"
        else:
            found = "anonymous" if self.anonymous else None
        if found is None:
            return None
        self.let_in.append(found)
        return User(UserRole.User)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server() -> AsyncIterator[Server]:
    async with running() as shared, plant(shared, NODES):
        yield shared


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Our own certificate; making one takes long."""
    folder = tmp_path_factory.mktemp("pki")
    create_application_certificate(
        folder / "own.pem", folder / "own.der", uri=OURS, host="gate", days=90, bits=2048
    )
    return folder


@pytest.fixture
def pki(made: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "pki"
    folder.mkdir(mode=0o700)
    for name, mode in (("own.pem", 0o600), ("own.der", 0o644)):
        (folder / name).write_bytes((made / name).read_bytes())
        (folder / name).chmod(mode)
    return folder


@pytest.fixture
def users(server: Server, monkeypatch: pytest.MonkeyPatch) -> Users:
    manager = Users(anonymous=True)
    monkeypatch.setattr(server.iserver, "user_manager", manager)
    return manager


def trust(pki: Path, own: Pair, level: tuple[str, str] | None = None) -> None:
    floor = level_of(*level) if level is not None else None
    TrustFolder(pki).add(Trusted(parse_certificate(own.der), "press", floor))


def driver(port: int, pki: Path, **settings: Any) -> Driver:
    return driver_for(port, NODES, **({"security": "best", "pki": str(pki)} | settings))


async def values(port: int, pki: Path, **settings: Any) -> dict[str, Any]:
    return await first_values(driver(port, pki, **settings), VALUES)


async def refusal(port: int, pki: Path, **settings: Any) -> NotConnected:
    return await end_of(driver(port, pki, **settings).frames())


def identity_of(name: str, folder: Path) -> dict[str, str]:
    if name == "anonymous":
        return {}
    path = folder / name
    path.write_bytes(USER.pem if name == "certificate" else f"{PASSWORD}\n".encode())
    path.chmod(0o600)
    if name == "certificate":
        return {"user_certificate": str(path)}
    return {"user": "gate", "password_file": str(path)}


class Watch:
    """Notes how the channels of a server are protected."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.seen: set[tuple[str, str]] = set()

    def look(self) -> None:
        assert self.server.iserver is not None
        for transport in self.server.iserver.asyncio_transports:
            policy = transport.get_protocol().processor._connection.security_policy
            self.seen.add((policy.URI.partition("#")[2], policy.Mode.name))


@pytest.mark.parametrize("identity", ["anonymous", "user", "certificate"])
@pytest.mark.parametrize(("policy", "mode"), EVERY)
async def test_every_policy_mode_and_identity_gives_the_right_values(
    server: Server, users: Users, pki: Path, policy: str, mode: str, identity: str
) -> None:
    own = pair(0)
    trust(pki, own)
    users.anonymous = identity == "anonymous"
    named = {"security": policy, "security_mode": mode} | identity_of(identity, pki)
    watch = Watch(server)
    async with face(server, own) as port:
        one = driver(port, pki, **named)
        async with aclosing(one.frames()) as frames:
            got = await collect(frames, one, dict.fromkeys(VALUES, 1))
            watch.look()
    assert {name: samples[0][0] for name, samples in got.items()} == VALUES
    assert watch.seen == {(policy, mode)}
    assert users.let_in == [identity]


@pytest.mark.parametrize(
    ("offers", "taken"),
    [
        (EVERY, BEST),
        ([(policy, "Sign") for policy in POLICIES], (POLICIES[2], "Sign")),
        ([(POLICIES[2], "Sign"), (POLICIES[0], "SignAndEncrypt")], (POLICIES[0], "SignAndEncrypt")),
        ([(POLICIES[1], mode) for mode in MODES], (POLICIES[1], "SignAndEncrypt")),
    ],
)
async def test_best_takes_the_strongest_that_both_have_and_never_none(
    server: Server, pki: Path, offers: Iterable[tuple[str, str]], taken: tuple[str, str]
) -> None:
    own = pair(0)
    trust(pki, own)
    watch = Watch(server)
    async with face(server, own, offers, unsecured=True) as port:
        one = driver(port, pki)
        async with aclosing(one.frames()) as frames:
            await collect(frames, one, dict.fromkeys(VALUES, 1))
            watch.look()
    assert watch.seen == {taken}


async def test_a_server_without_any_secured_endpoint_is_refused_unless_none_is_written(
    server: Server, pki: Path
) -> None:
    async with face(server, pair(0), [], unsecured=True) as port:
        fault = await refusal(port, pki)
        assert "any secured policy" in fault.what
        assert 'security = "none"' in fault.remedy
        assert await values(port, pki, security="none") == VALUES
        await until(lambda: not server.iserver._external_sessions)


async def test_a_policy_that_is_named_is_taken_or_nothing(server: Server, pki: Path) -> None:
    own = pair(0)
    trust(pki, own)
    async with face(server, own, [(POLICIES[0], "SignAndEncrypt")]) as port:
        for named in (
            {"security": POLICIES[2]},
            {"security": POLICIES[0], "security_mode": "Sign"},
            {"security_mode": "Sign"},
        ):
            fault = await refusal(port, pki, **named)
            assert "it offers: Basic256Sha256, SignAndEncrypt" in fault.what
        assert await values(port, pki, security=POLICIES[0]) == VALUES


async def test_nothing_is_said_to_a_server_that_is_not_trusted(
    server: Server, users: Users, pki: Path
) -> None:
    own = pair(0)
    async with face(server, own) as port:
        fault = await refusal(port, pki, **identity_of("user", pki))
        assert "not trusted yet" in fault.what
        assert parse_certificate(own.der).sha256 in fault.what
        assert "agent cert trust" in fault.remedy
        trust(pki, pair(1))
        fault = await refusal(port, pki)
        assert not server.iserver._external_sessions
    assert "another certificate" in fault.what
    assert not users.let_in


async def test_a_certificate_that_changes_after_it_was_trusted_ends_the_trust(
    server: Server, pki: Path
) -> None:
    before, after = pair(0), pair(1)
    trust(pki, before)
    one = None
    async with face(server, before) as port:
        one = driver(port, pki)
        frames = one.frames()
        await collect(frames, one, dict.fromkeys(VALUES, 1))
    await end_of(frames)
    async with face(server, after, port=port):
        fault = await end_of(one.frames())
        assert "another certificate" in fault.what
        assert parse_certificate(before.der).sha256 in fault.what
        trust(pki, after)
        assert await first_values(one, VALUES) == VALUES
        assert [each.certificate.der for each in TrustFolder(pki).all()] == [after.der]


async def test_a_forger_with_the_trusted_certificate_but_not_its_key_gets_nowhere(
    server: Server, pki: Path, users: Users
) -> None:
    own = pair(0)
    trust(pki, own)
    forged = Pair(pair(1).private, own.certificate)
    async with face(server, forged) as port:
        fault = await refusal(port, pki, timeout="500ms")
    assert "does not open a channel" in fault.what
    assert not users.let_in


@pytest.mark.parametrize(
    ("own", "told"),
    [(pair(0, starts=-20, days=10), "has expired"), (pair(0, starts=5), "is not valid before")],
)
async def test_a_certificate_out_of_its_time_is_refused_unless_that_is_tolerated(
    server: Server, pki: Path, caplog: pytest.LogCaptureFixture, own: Pair, told: str
) -> None:
    trust(pki, own)
    async with face(server, own) as port:
        fault = await refusal(port, pki)
        assert told in fault.what
        assert "clocks" in fault.remedy
        assert await values(port, pki, tolerate=["time"]) == VALUES
    assert sum(told in line for line in caplog.messages) == 1


async def test_a_certificate_that_ends_soon_is_told_in_time(
    server: Server, pki: Path, caplog: pytest.LogCaptureFixture
) -> None:
    own = pair(0, days=10)
    trust(pki, own)
    async with face(server, own) as port:
        assert await values(port, pki) == VALUES
    assert any("server's certificate expires in 8 day" in line for line in caplog.messages)


async def test_a_certificate_of_another_application_is_refused_before_the_user_is_named(
    server: Server, pki: Path, users: Users
) -> None:
    own = pair(0, uri="urn:mill:other")
    trust(pki, own)
    user = identity_of("user", pki)
    async with face(server, own) as port:
        fault = await refusal(port, pki, **user)
        assert "another application URI" in fault.what
        assert not users.let_in
        await until(lambda: not server.iserver._external_sessions)
        assert await values(port, pki, tolerate=["uri"], **user) == VALUES


async def test_a_certificate_for_another_host_is_told_and_taken(
    server: Server, pki: Path, caplog: pytest.LogCaptureFixture
) -> None:
    own = pair(0, host="elsewhere.mill")
    trust(pki, own)
    async with face(server, own) as port:
        one = driver(port, pki)
        for _ in range(2):
            assert await first_values(one, VALUES) == VALUES
    assert sum("not made out for 127.0.0.1" in line for line in caplog.messages) == 1


async def test_a_short_key_is_refused(server: Server, pki: Path) -> None:
    own = pair(0, bits=1024)
    trust(pki, own)
    async with face(server, own) as port:
        fault = await refusal(port, pki)
    assert "2048" in fault.what


async def test_a_server_that_stops_offering_the_strong_policy_is_not_followed_down(
    server: Server, pki: Path
) -> None:
    own = pair(0)
    trust(pki, own)
    async with face(server, own) as port:
        one = driver(port, pki)
        assert await first_values(one, VALUES) == VALUES
    async with face(server, own, [(POLICIES[0], "SignAndEncrypt")], port=port):
        fault = await end_of(one.frames())
        assert "before it offered Aes256_Sha256_RsaPss, SignAndEncrypt" in fault.what
        named = {"security": POLICIES[0], "security_mode": "SignAndEncrypt"}
        assert await values(port, pki, **named) == VALUES
    async with face(server, own, port=port):
        assert await first_values(one, VALUES) == VALUES


async def test_what_was_offered_when_trust_was_given_holds_over_restarts_of_ours(
    server: Server, pki: Path
) -> None:
    own = pair(0)
    trust(pki, own, BEST)
    async with face(server, own, [(POLICIES[2], "Sign")]) as port:
        fault = await refusal(port, pki)
        assert "before it offered Aes256_Sha256_RsaPss, SignAndEncrypt" in fault.what
        assert "before it offered" in (await refusal(port, pki, security=POLICIES[2])).what
        trust(pki, own, (POLICIES[2], "Sign"))
        assert await values(port, pki) == VALUES


async def test_someone_who_hides_the_strong_endpoints_on_the_way_is_found_out(
    server: Server, pki: Path, users: Users, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = pair(0)
    trust(pki, own)
    whole: Callable[..., Any] = server.iserver.get_endpoints

    async def hidden(params: Any = None, sockname: Any = None) -> Any:
        found = await whole(params, sockname)
        # Outside the channel only the weak ones are seen; CreateSession tells all.
        return (
            found if asked_inside() else [one for one in found if one.SecurityMode.name == "Sign"]
        )

    def asked_inside() -> bool:
        transports = server.iserver.asyncio_transports
        return any(
            transport.get_protocol().processor._connection.security_policy.Mode.name != "None_"
            for transport in transports
        )

    monkeypatch.setattr(server.iserver, "get_endpoints", hidden)
    async with face(server, own) as port:
        fault = await refusal(port, pki, **identity_of("user", pki))
        await until(lambda: not server.iserver._external_sessions)
    assert "was hidden" in fault.what
    assert not users.let_in


async def test_a_server_that_does_not_trust_us_is_told_apart(
    server: Server, pki: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = pair(0)
    trust(pki, own)

    async def untrusting(*_: Any) -> None:
        raise ServiceError(StatusCodes.BadCertificateUntrusted)

    monkeypatch.setattr(server.iserver, "certificate_validator", untrusting)
    async with face(server, own) as port:
        fault = await refusal(port, pki)
    mine = parse_certificate((pki / "own.der").read_bytes())
    assert "BadCertificateUntrusted" in fault.what
    assert f"{pki / 'own.der'} (SHA-1 {mine.thumbprint})" in fault.remedy


async def test_our_certificate_passes_a_servers_full_checks(
    server: Server, pki: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = pair(0)
    trust(pki, own)
    wanted = CertificateValidatorOptions.EXT_VALIDATION | CertificateValidatorOptions.PEER_CLIENT
    monkeypatch.setattr(server.iserver, "certificate_validator", CertificateValidator(wanted))
    async with face(server, own) as port:
        assert await values(port, pki) == VALUES


@pytest.mark.parametrize(
    ("starts", "uri", "told"),
    [(-20, OURS, "BadCertificateTimeInvalid"), (-1, "urn:else", "")],
)
async def test_our_own_bad_certificate_is_told_apart(
    server: Server,
    pki: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    starts: int,
    uri: str,
    told: str,
) -> None:
    own = pair(0)
    trust(pki, own)
    (pki / "own.pem").write_bytes(pair(3, uri, starts=starts, days=10).pem)
    monkeypatch.setattr(
        server.iserver,
        "certificate_validator",
        CertificateValidator(CertificateValidatorOptions.BASIC_VALIDATION),
    )
    async with face(server, own) as port:
        if not told:
            # We call ourselves what our certificate says, whatever that is.
            assert await values(port, pki) == VALUES
            return
        fault = await refusal(port, pki)
    assert told in fault.what
    assert "clocks" in fault.remedy


async def test_without_our_own_certificate_the_command_that_makes_it_is_named(
    server: Server, pki: Path
) -> None:
    own = pair(0)
    trust(pki, own)
    async with face(server, own) as port:
        (pki / "own.pem").chmod(0o640)
        fault = await refusal(port, pki)
        assert fault.remedy == f"chmod 600 {pki / 'own.pem'}"
        (pki / "own.pem").write_bytes(pair(3).pem[:1000])
        (pki / "own.pem").chmod(0o600)
        assert "is not an RSA private key" in (await refusal(port, pki)).what
        mixed = Pair(pair(3).private, pair(4).certificate)
        (pki / "own.pem").write_bytes(mixed.pem)
        assert "is not an RSA private key" in (await refusal(port, pki)).what
        (pki / "own.pem").unlink()
        assert "agent cert init" in (await refusal(port, pki)).remedy


@pytest.mark.parametrize("name", ["user", "certificate"])
async def test_a_wrong_or_open_identity_is_refused_and_told(
    server: Server, pki: Path, users: Users, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    caplog.set_level(logging.DEBUG)
    own = pair(0)
    trust(pki, own)
    users.anonymous = False
    who = identity_of(name, pki)
    path = Path(who.get("password_file", who.get("user_certificate", "")))
    put, protect = path.write_bytes, path.chmod
    async with face(server, own) as port:
        protect(0o644)
        fault = await refusal(port, pki, **who)
        assert fault.remedy == f"chmod 600 {path}"
        protect(0o600)
        put(pair(8, "urn:no").pem if name == "certificate" else b"wrong-word")
        fault = await refusal(port, pki, **who)
        assert "BadUserAccessDenied" in fault.what
        assert ("password_file" if name == "user" else "user_certificate") in fault.remedy
        put(b"")
        fault = await refusal(port, pki, **who)
        assert fault.where == str(path)
        fault = await refusal(port, pki)
        assert "the server wants a user" in fault.remedy
        await until(lambda: not server.iserver._external_sessions)
    for secret in ("wrong-word", PASSWORD):
        assert secret not in caplog.text


async def test_a_password_never_goes_in_the_clear(server: Server, pki: Path, users: Users) -> None:
    own = pair(0)
    trust(pki, own)
    who = identity_of("user", pki)
    async with face(server, own, [(POLICIES[2], "Sign")], unsecured=True) as port:
        for endpoint in server.iserver.endpoints:
            for token in endpoint.UserIdentityTokens:
                token.SecurityPolicyUri = "http://opcfoundation.org/UA/SecurityPolicy#None"
        for security in ("best", "none"):
            fault = await refusal(port, pki, security=security, **who)
            assert "in the clear" in fault.what
        await until(lambda: not server.iserver._external_sessions)
    assert not users.let_in


async def test_without_security_a_password_is_only_encrypted_for_a_trusted_server(
    server: Server, pki: Path, users: Users
) -> None:
    own = pair(0)
    who = identity_of("user", pki) | {"security": "none"}
    async with face(server, own, [BEST], unsecured=True) as port:
        fault = await refusal(port, pki, **who)
        assert "not trusted yet" in fault.what
        assert not users.let_in
        trust(pki, own)
        assert await values(port, pki, **who) == VALUES
    assert users.let_in == ["user"]


async def test_a_server_that_tells_no_endpoints_can_be_reached_by_its_exported_certificate(
    server: Server, pki: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = pair(0)
    exported = tmp_path / "press.pem"
    exported.write_bytes(own.pem)
    named = {"security": POLICIES[2], "security_mode": "Sign", "server_certificate": str(exported)}
    whole: Callable[..., Any] = server.iserver.get_endpoints

    async def silent(params: Any = None, sockname: Any = None) -> Any:
        modes = {
            transport.get_protocol().processor._connection.security_policy.Mode.name
            for transport in server.iserver.asyncio_transports
        }
        if modes == {"None_"}:
            raise ServiceError(StatusCodes.BadSecurityPolicyRejected)
        return await whole(params, sockname)

    monkeypatch.setattr(server.iserver, "get_endpoints", silent)
    async with face(server, own) as port:
        fault = await refusal(port, pki)
        assert "server_certificate" in fault.remedy
        assert await values(port, pki, **named) == VALUES
        exported.write_bytes(pair(1).der)
        fault = await refusal(port, pki, timeout="500ms", **named)
        assert "does not open a channel" in fault.what


async def test_two_sessions_are_enough_over_twenty_secured_reconnects(
    server: Server, pki: Path, users: Users, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = pair(0)
    trust(pki, own)
    monkeypatch.setattr(
        InternalSession, "max_connections", InternalSession._current_connections + 2
    )
    most = 0
    async with face(server, own) as port:
        one = driver(port, pki, timeout="300ms")
        for turn in range(20):
            frames = one.frames()
            await collect(frames, one, dict.fromkeys(VALUES, 1))
            most = max(most, len(server.iserver._external_sessions))
            if turn % 4 == 3:
                # The server loses the session; what is left of it must not count.
                for session in list(server.iserver._external_sessions.values()):
                    await session.close_session(delete_subs=True)
                with suppress(NotConnected):
                    await asyncio.wait_for(anext(frames), 20)
            await frames.aclose()
        await until(lambda: not server.iserver._external_sessions)
    assert most == 1


async def test_a_trust_folder_that_others_may_write_is_not_believed(
    server: Server, pki: Path
) -> None:
    own = pair(0)
    trust(pki, own)
    async with face(server, own) as port:
        (pki / "trusted").chmod(0o777)
        fault = await refusal(port, pki)
        assert fault.remedy == f"chmod go-w {pki / 'trusted'}"
        (pki / "trusted").chmod(0o700)
        assert await values(port, pki) == VALUES


async def test_a_certificate_that_someone_put_into_the_folder_by_hand_is_trusted(
    server: Server, pki: Path, caplog: pytest.LogCaptureFixture
) -> None:
    own = pair(0)
    folder = pki / "trusted"
    folder.mkdir()
    (folder / "damaged.der").write_bytes(b"\x30\x82\x00")
    (folder / "press 1.crt").write_bytes(own.certificate.public_bytes(Encoding.PEM))
    async with face(server, own) as port:
        assert await values(port, pki) == VALUES
    assert any("damaged.der" in line for line in caplog.messages)


async def test_policies_of_tomorrow_do_not_disturb(server: Server, pki: Path) -> None:
    own = pair(0)
    trust(pki, own)
    async with face(server, own) as port:
        strange = server.iserver.endpoints[0]
        strange.SecurityPolicyUri = "http://opcfoundation.org/UA/SecurityPolicy#ECC_nistP256"
        strange.ServerCertificate = b"\x00"
        assert await values(port, pki) == VALUES


@pytest.mark.parametrize(
    ("refused", "settings", "told"),
    [
        ("None", {}, "server_certificate"),
        ("None", {"security": "none"}, 'leave out security = "none"'),
        (POLICIES[2], {}, "let it trust"),
    ],
)
async def test_a_channel_turned_down_without_a_word_is_explained(
    server: Server,
    pki: Path,
    monkeypatch: pytest.MonkeyPatch,
    refused: str,
    settings: dict[str, str],
    told: str,
) -> None:
    own = pair(0)
    trust(pki, own)
    usual: Callable[..., None] = UaProcessor.open_secure_channel

    def turn_down(self: Any, algorithm: Any, sequence: Any, body: Any) -> None:
        if not algorithm.SecurityPolicyURI.endswith(f"#{refused}"):
            usual(self, algorithm, sequence, body)
            return
        self._connection.select_policy(algorithm.SecurityPolicyURI, algorithm.SenderCertificate)
        fault = ua.ServiceFault()
        fault.ResponseHeader.ServiceResult = STATUS(StatusCodes.BadSecurityChecksFailed)
        self.send_response(1, sequence, fault, ua.MessageType.SecureOpen)

    monkeypatch.setattr(UaProcessor, "open_secure_channel", turn_down)
    async with face(server, own, unsecured=True) as port:
        fault = await refusal(port, pki, timeout="500ms", **settings)
    assert "expected" not in fault.what
    assert told in fault.remedy
