"""Certificates are renewed by themselves at two thirds of their life, and only for who holds them."""

import asyncio
import errno
import ssl
import time
from collections.abc import AsyncIterator
from http import HTTPStatus
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from agent.config import AgentConfig, read_config
from agent.renewal import NotRenewed, _look, life_in, renew
from aggregator.authority import open_authority, open_joining
from aggregator.joining import _MOST_RENEWALS
from protocols.checkup import Grade
from protocols.errors import MillgateError
from protocols.https import ask_server, believing
from protocols.tls import client_context, show_certificate
from security.admin_log import read_log
from security.ca import Issued
from security.certificate_request import make_private_key, request_for
from security.enrolment import MOST_BODY, RENEWAL_PATH
from security.files import write_whole
from security.key_checkup import look_at_certificate
from tests.joining_site import Site

DAY = 86_400


@pytest.fixture
async def joined(tmp_path: Path) -> AsyncIterator[tuple[Site, AgentConfig]]:
    """A brain whose endpoint is open, and an agent that joined it."""
    site = Site(tmp_path)
    async with site.open():
        await site.join(site.invite(), tmp_path / "mill")
        yield site, read_config(tmp_path / "mill" / "agent.toml")


def certificate(config: AgentConfig) -> Path:
    assert config.broker.certificate is not None
    return config.broker.certificate


def key(config: AgentConfig) -> Path:
    assert config.broker.private_key is not None
    return config.broker.private_key


async def ask(config: AgentConfig, request: bytes, *, shown: bool = True) -> HTTPStatus:
    """Ask for a certificate as somebody who shows ours, or none."""
    assert config.broker.ca_file is not None
    context = believing(config.broker.ca_file.read_bytes())
    if shown:
        show_certificate(context, certificate(config), key(config))
    url = config.identity.enrolment + RENEWAL_PATH
    return (await ask_server(url, context, MOST_BODY, body=request))[0]


async def test_a_certificate_is_renewed_after_two_thirds_of_its_life_and_not_before(
    joined: tuple[Site, AgentConfig],
) -> None:
    site, config = joined
    old = life_in(certificate(config))
    assert (old.renew_s - old.starts_s) * 3 == pytest.approx((old.ends_s - old.starts_s) * 2, abs=3)
    assert await renew(config, old.renew_s - 1) is None
    await asyncio.sleep(1.1)  # certificates count in seconds
    new = await renew(config, old.renew_s)
    assert new is not None
    assert life_in(certificate(config)) == new
    assert (new.name, new.serial != old.serial) == (old.name, True)
    assert new.ends_s > old.ends_s
    client_context(config.broker.ca_file, certificate(config), key(config))
    log = read_log(site.config.ledger.with_name("admin.log"))
    assert log[-1].action == "renew"
    assert log[-1].facts["agent"] == config.identity.agent.hex()
    joining = open_joining(site.config)
    serials = [one.serial for one in joining.certificates(config.identity.agent)]
    joining.close()
    assert serials == [old.serial, new.serial]


async def test_nobody_gets_a_certificate_without_showing_one_that_counts(
    joined: tuple[Site, AgentConfig], tmp_path: Path
) -> None:
    site, config = joined
    mine = request_for(key(config))
    assert await ask(config, mine, shown=False) == HTTPStatus.FORBIDDEN
    assert await ask(config, b"no request") == HTTPStatus.FORBIDDEN
    assert await ask(config, mine) == HTTPStatus.OK
    theirs = make_private_key(tmp_path / "other.key")
    assert await ask(config, theirs) == HTTPStatus.OK  # a new key of the same holder
    joining = open_joining(site.config)
    joining.revoke_certificates(config.identity.agent)
    joining.close()
    assert await ask(config, mine) == HTTPStatus.FORBIDDEN


def test_who_is_revoked_while_a_certificate_is_renewed_is_left_with_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site, agent = Site(tmp_path), bytes(16)
    authority, request = open_authority(site.config), make_private_key(tmp_path / "client.key")
    joining = open_joining(site.config)
    first = authority.issue_client(request, agent.hex())
    joining.add_certificate(agent, first)
    other, issue = open_joining(site.config), authority.issue_client
    revoking = Thread(target=other.revoke_certificates, args=[agent])

    def issue_meanwhile(*given: Any) -> Issued:
        revoking.start()
        revoking.join(0.2)
        return issue(*given)

    monkeypatch.setattr(authority, "issue_client", issue_meanwhile)
    joining.renew(first.serial, request, authority, 90)
    revoking.join()
    other.close()
    found = joining.certificates(agent)
    joining.close()
    assert len(found) == 2
    assert all(one.revoked_s is not None for one in found)


async def test_the_brains_own_certificate_renews_no_agents(
    joined: tuple[Site, AgentConfig],
) -> None:
    site, config = joined
    folder = site.path.parent / "keys"
    own = config.broker.model_copy(
        update={"certificate": folder / "brain.pem", "private_key": folder / "brain.key"}
    )
    from dataclasses import replace  # noqa: PLC0415 - beside its use

    status = await ask(replace(config, brokers=(own,)), request_for(key(config)))
    assert status == HTTPStatus.FORBIDDEN


async def test_renewing_over_and_over_is_bounded(joined: tuple[Site, AgentConfig]) -> None:
    _, config = joined
    mine = request_for(key(config))
    found = [await ask(config, mine) for _ in range(_MOST_RENEWALS + 1)]
    assert found[-1] == HTTPStatus.FORBIDDEN
    assert found.count(HTTPStatus.OK) == _MOST_RENEWALS - 1  # one was issued when it joined


async def test_a_refusal_leaves_the_certificate_that_is_there(
    joined: tuple[Site, AgentConfig], caplog: pytest.LogCaptureFixture
) -> None:
    site, config = joined
    before = certificate(config).read_bytes()
    joining = open_joining(site.config)
    joining.revoke_certificates(config.identity.agent)
    joining.close()
    with pytest.raises(NotRenewed, match="join again"):
        await renew(config, life_in(certificate(config)).renew_s)
    assert certificate(config).read_bytes() == before
    certificate(config).write_bytes(b"")
    await _look(config)
    assert "certificate_not_renewed" in caplog.text


async def test_a_brain_that_cannot_be_believed_gets_no_request(
    joined: tuple[Site, AgentConfig], tmp_path: Path
) -> None:
    _, config = joined
    assert config.broker.ca_file is not None
    other = Site(tmp_path / "other")
    write_whole(config.broker.ca_file, (other.path.parent / "keys" / "ca.pem").read_bytes())
    with pytest.raises(MillgateError, match="not accepted"):
        await renew(config, life_in(certificate(config)).renew_s)


async def test_a_file_that_cannot_be_written_or_read_is_told_and_ends_nothing(
    joined: tuple[Site, AgentConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk must not end the side that delivers, which is what frees it."""
    _, config = joined
    due_s, before = life_in(certificate(config)).renew_s, certificate(config).read_bytes()

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    await asyncio.sleep(1.1)  # certificates count in seconds
    monkeypatch.setattr("agent.renewal.write_whole", full)
    with pytest.raises(NotRenewed, match="No space left"):
        await renew(config, due_s)
    assert certificate(config).read_bytes() == before
    assert config.broker.ca_file is not None
    config.broker.ca_file.unlink()
    with pytest.raises(MillgateError, match="cannot be read"):
        await renew(config, due_s)


async def test_doctor_and_log_name_a_certificate_that_ends(
    joined: tuple[Site, AgentConfig], caplog: pytest.LogCaptureFixture
) -> None:
    from agent.renewal import _warn  # noqa: PLC0415 - beside its use

    _, config = joined
    path, life = certificate(config), life_in(certificate(config))
    grades = {
        life.starts_s: Grade.GOOD,
        life.renew_s: Grade.GOOD,
        life.renew_s + 2 * DAY: Grade.NOTICE,
        life.ends_s: Grade.FAULT,
    }
    assert {at: look_at_certificate(path, at, "mend").grade for at in grades} == grades
    assert look_at_certificate(path.with_name("none.pem"), 0, "mend").grade is Grade.FAULT
    assert look_at_certificate(key(config), 0, "mend").grade is Grade.FAULT
    _warn(path, int(time.time()))
    assert caplog.text == ""
    _warn(path, life.ends_s - 3 * DAY)
    assert "certificate_ends: " in caplog.text
    _warn(path, life.ends_s)
    assert "certificate_ended: " in caplog.text


async def test_the_next_connection_shows_the_renewed_certificate(
    joined: tuple[Site, AgentConfig],
) -> None:
    """The context that a connection was made with is used again for the next."""
    _, config = joined
    context = client_context(config.broker.ca_file, certificate(config), key(config))
    seen: list[str] = []

    async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        shown = writer.get_extra_info("ssl_object").getpeercert()
        seen.append(shown["serialNumber"])
        writer.close()

    folder = config.path.parent.parent / "brain" / "keys"
    server_side = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=folder / "ca.pem")
    server_side.verify_mode = ssl.CERT_REQUIRED
    server_side.load_cert_chain(folder / "brain.pem", folder / "brain.key")
    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=server_side)
    port = server.sockets[0].getsockname()[1]
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    for renewed in (False, True):
        if renewed:
            old = life_in(certificate(config))
            await asyncio.sleep(1.1)
            await renew(config, old.renew_s)
            show_certificate(context, certificate(config), key(config))
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
        await reader.read()
        writer.close()
    server.close()
    await server.wait_closed()
    assert len(set(seen)) == 2
