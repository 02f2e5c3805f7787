"""Joining by code: the way it goes, and every way in which it must not."""

import asyncio
import dataclasses
import hashlib
import json
import sqlite3
import stat
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from agent import enrolling
from agent.authority import usable_policy
from agent.config import read_config
from agent.founding import make_keys
from agent.registry import Registry
from aggregator import joining_api
from aggregator.alarms import SILENCE
from aggregator.api.server import serving
from aggregator.authority import open_authority, open_joining, renew_own
from aggregator.joining import APPROVAL_S, MOST_TRIES, Joining, JoiningFault, Terms
from aggregator.joining_api import make_app
from aggregator.ledger import Ledger
from aggregator.reporting import Reporter
from aggregator.revocations import note_revocations
from protocols.errors import MillgateError
from protocols.https import NotBelieved, ask_server, believing
from protocols.tls import server_context
from security.admin_log import LogFault, read_log
from security.ca import load_authority
from security.cards import AgentCard, card_text, read_agent_card, write_card
from security.certificate_request import life_of, make_private_key
from security.cli import policy_app
from security.enrolment import (
    AUTHORITY_PATH,
    MOST_BODY,
    PATH,
    RENEWAL_PATH,
    Application,
    Grant,
    Progress,
    Record,
    Unsound,
    make_record,
    read_message,
)
from security.joining_code import Code, new_code, read_approval, read_code
from security.policy.bundle import NoPolicy
from tests.certificates import own_authority
from tests.documents import codes, text
from tests.joining_site import Invitation, Site, enter
from tests.mill_folder import call
from tests.small_factory import ENERGY, NOW, SHORT_S, Brain, Forger, Keys, block, signing_key
from tests.system.mills import REPLAY_DEVICE


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


@pytest.fixture
async def opened(site: Site) -> AsyncIterator[Site]:
    async with site.open():
        yield site


def prepared(site: Site, invitation: Invitation, mill: Path) -> enrolling.Errand:
    """Make an application without sending it."""
    code = read_code(invitation.code)
    digits = read_approval(invitation.approval)
    bundle = open_authority(site.config).bundle
    keys = make_keys(mill, [], None, again=True)
    return enrolling.prepare(mill, code, digits, keys, 1, bundle)


def terms(site: Site) -> Terms:
    config = site.config
    assert config.enrolment is not None
    brain = (site.path.parent / "brain.card").read_text("utf-8")
    fingerprint = open_authority(config).fingerprint
    return Terms(fingerprint, brain, config.enrolment.broker_place(config.broker))


def given(site: Site, application: Application, now_s: float | None = None) -> str:
    """Give an application to the brain, and return what it says."""
    now = time.time() if now_s is None else now_s
    joining = Joining(site.config.ledger.with_name("joining.db"), lambda: int(now * 10**9))
    try:
        progress = joining.apply(application, terms(site))
    finally:
        joining.close()
    return progress.refusal or progress.state


async def test_a_factory_joins_with_one_code(opened: Site, tmp_path: Path) -> None:
    mill = tmp_path / "mill"
    await opened.join(opened.invite("华丰", "--site", "织造"), mill, "华丰/织造")
    config = read_config(mill / "agent.toml")
    (factory,) = opened.config.factories().values()
    assert (factory.enterprise, factory.site) == ("华丰", "织造")
    assert factory.card == read_agent_card(mill / "agent.card")
    assert factory.card.address == config.identity.address
    assert [key.to_text() for key in factory.card.officers] == [
        key.to_text() for key in config.policy.officers
    ]
    (brain,) = config.consumers.values()
    assert brain.name == "brain"
    assert config.broker.tls
    assert config.broker.certificate is not None
    assert life_of(config.broker.certificate.read_bytes()).name == config.identity.agent.hex()
    assert not (mill / "joining.json").exists()
    for path in [*mill.glob("keys/*.key"), opened.config.ledger.with_name("joining.db")]:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
    log = read_log(opened.config.ledger.with_name("admin.log"))
    assert [entry.action for entry in log] == ["authority", "invite", "approve"]
    assert log[-1].facts["officers"] == factory.card.officers[0].kid.hex()


async def test_nothing_is_accepted_before_approval(opened: Site, tmp_path: Path) -> None:
    invitation = opened.invite()
    with pytest.raises(MillgateError, match=r"not approved yet — give the same command again"):
        await enter(invitation, tmp_path / "mill", minutes=0.02)
    assert opened.config.factories() == {}
    joining = open_joining(opened.config)
    assert joining.certificates() == []
    joining.close()
    assert not (tmp_path / "mill" / "agent.toml").exists()
    assert "to approve" in await asyncio.to_thread(opened.run, "factories")


async def test_the_brains_keys_count_only_as_the_signed_policy_pins_them(
    opened: Site, tmp_path: Path
) -> None:
    mill = tmp_path / "mill"
    await opened.join(opened.invite(), mill)
    path = mill / "agent.toml"
    with path.open("a", encoding="utf-8") as file:
        file.write(REPLAY_DEVICE.format(port=1502))
    registry = Registry(mill / "registry.json")
    with pytest.raises(NoPolicy):
        usable_policy(read_config(path), registry)
    for words in (
        ("new", path),
        ("sign", mill / "policy.toml", "--key", mill / "keys/officer.key"),
    ):
        assert call(*words, room=policy_app).exit_code == 0
    assert usable_policy(read_config(path), registry).policy.version == 1
    write_card(mill / "brain.card", Keys("thief").brain_card)
    with pytest.raises(NoPolicy, match="no card has the two keys that the policy pins"):
        usable_policy(read_config(path), registry)


async def test_the_same_command_goes_on_where_it_was(opened: Site, tmp_path: Path) -> None:
    invitation, mill = opened.invite(), tmp_path / "mill"
    with pytest.raises(MillgateError, match="not approved yet"):
        await enter(invitation, mill, minutes=0)
    await asyncio.to_thread(opened.approve, invitation)
    # Now without the approval code, which was used, and nobody keeps.
    await enter(dataclasses.replace(invitation, approval=""), mill)
    assert read_config(mill / "agent.toml").identity.address in opened.config.factories()


@pytest.mark.parametrize("crash", ["write_agent", "write_whole"])
async def test_a_crash_while_keys_are_written_does_no_harm(
    opened: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, crash: str
) -> None:
    invitation, mill = opened.invite(), tmp_path / "mill"
    await asyncio.to_thread(prepared, opened, invitation, mill)
    assert given(opened, prepared_again(mill, invitation)) == "waiting"
    await asyncio.to_thread(opened.approve, invitation)

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(enrolling, crash, fail)
        with pytest.raises(OSError, match="No space"):
            await enter(invitation, mill)
    assert not (mill / "agent.toml").exists()
    await enter(invitation, mill)
    assert read_config(mill / "agent.toml").identity.address in opened.config.factories()


def test_a_crash_in_the_middle_of_an_approval_does_no_harm(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    invitation = site.invite()
    application = prepared(site, invitation, tmp_path / "mill").application
    assert given(site, application) == "waiting"

    def fail(*_: object) -> None:
        raise sqlite3.OperationalError("disk I/O error")

    with monkeypatch.context() as patch:
        patch.setattr(Joining, "_mark", fail)
        with pytest.raises(sqlite3.OperationalError):
            site.approve(invitation)
    assert given(site, application) == "waiting"
    site.approve(invitation)
    assert given(site, application) == "granted"
    assert len(site.config.factories()) == 1


def joined(site: Site) -> Keys:
    """Return the keys of an agent that has a card and a certificate here."""
    keys = Keys()
    write_card(site.config.brain.factories / "mill.card", keys.agent_card)
    joining, authority = open_joining(site.config), open_authority(site.config)
    request = make_private_key(site.folder / "agent.key")
    joining.add_certificate(keys.address.agent, authority.issue_client(request, "mill"))
    joining.close()
    return keys


def test_nothing_more_is_taken_from_a_revoked_agent_also_over_a_connection_that_is_open(
    site: Site,
) -> None:
    keys = joined(site)
    brain, forger = Brain(site.config.ledger.parent, keys), Forger(keys)
    sheet = forger.sheet_message()
    assert brain.take(keys, sheet).kept == 1
    said = site.run("revoke", "mill")
    assert "the brain takes nothing more" in said
    assert "broker-config" in said
    assert "systemctl reload mosquitto" in said
    assert "systemctl restart mosquitto" in said
    outcome = brain.take(keys, forger.batch(block(NOW // SHORT_S - 1, [ENERGY], [5])))
    assert (outcome.kept, outcome.counts["quarantined"]) == (0, 1)
    # What it sent before stays, and its receipt is given again.
    again = brain.take(keys, sheet)
    assert (again.counts["replayed"], len(again.answers)) == (1, 1)
    with pytest.raises(MillgateError, match="revoked, for good"):
        site.run("trust", "--release", keys.address.agent.hex())
    assert brain.take(keys, forger.batch(block(NOW // SHORT_S, [ENERGY], [5]))).kept == 0
    brain.close()


def test_all_that_tell_of_a_revoked_agent_say_so_at_once_and_nothing_is_awaited_of_it(
    site: Site,
) -> None:
    keys = joined(site)
    brain = Brain(site.config.ledger.parent, keys)
    brain.take(keys, Forger(keys).sheet_message())
    brain.clock += 3600
    brain.inbox.look()
    assert [one.kind for one in brain.ledger.record.alarms(1)] == [SILENCE]

    def told() -> set[str]:
        reporter = Reporter(site.config.ledger, site.config.factories, {})
        try:
            (arrival,) = reporter.arrivals()
        finally:
            reporter.close()
        (standing,) = json.loads(site.run("factories", "--json"))
        return {arrival.trust, standing["trust"].replace("alarms", "good")}

    assert told() == {"good"}
    with brain.ledger.transaction():
        brain.ledger.record.quarantine(1, NOW, "equivocation")
    assert told() == {"quarantined"}
    site.run("revoke", "mill")
    assert told() == {"revoked"}
    brain.inbox.look()
    assert brain.ledger.record.alarms(1) == []
    # A ledger from before the revocation was put back.
    with brain.ledger.transaction():
        brain.ledger.record.release(1)
    note_revocations(site.config, brain.ledger)
    assert told() == {"revoked"}
    brain.close()


def test_whoever_makes_the_brokers_files_is_told_where_it_listens_and_may_narrow_it(
    site: Site, tmp_path: Path
) -> None:
    folder = tmp_path / "broker"

    def made(*more: str) -> tuple[str, str]:
        said = site.run("broker-config", folder, "--user", "", *more)
        lines = (folder / "millgate.conf").read_text("utf-8").splitlines()
        return said, next(line for line in lines if line.startswith("listener"))

    said, listener = made()
    assert "every address" in said
    assert "--bind" in said
    assert len(listener.split()) == 2
    said, listener = made("--bind", "192.0.2.7")
    assert "on 192.0.2.7 only" in said
    assert listener.endswith(" 192.0.2.7")
    assert made()[1] == listener
    assert len(made("--bind", "all")[1].split()) == 2
    with pytest.raises(MillgateError, match="is no address"):
        made("--bind", "eth0 acl_file x")


def test_a_revoked_agent_is_shown_as_such_and_is_on_the_brokers_list(
    site: Site, tmp_path: Path
) -> None:
    broker = tmp_path / "broker"
    site.run("broker-config", broker, "--user", "")
    invitation = site.invite()
    assert given(site, prepared(site, invitation, tmp_path / "mill").application) == "waiting"
    site.approve(invitation)
    before = (broker / "revoked.pem").read_bytes()
    (address,) = site.config.factories()
    assert "no data yet" in site.run("factories")
    assert "1 certificate(s) revoked" in site.run("revoke", "mill", "--broker", broker)
    assert (broker / "revoked.pem").read_bytes() != before
    shut_out = f"user {address.agent.hex()}\ntopic deny mg1/#"
    assert shut_out in (broker / "millgate.acl").read_text("ascii")
    site.run("broker-config", broker, "--user", "root")
    assert shut_out in (broker / "millgate.acl").read_text("ascii")
    assert "REVOKED" in site.run("factories")
    assert "0 certificate(s)" in site.run("revoke", address.agent.hex()[:8])
    with pytest.raises(MillgateError, match="no agent, or more than one, is called so"):
        site.run("revoke", "nobody")


def prepared_again(mill: Path, invitation: Invitation) -> Application:
    errand = enrolling.under_way(mill, read_code(invitation.code))
    assert errand is not None
    return errand.application


def test_an_application_sent_again_changes_nothing(site: Site, tmp_path: Path) -> None:
    invitation = site.invite()
    errand = prepared(site, invitation, tmp_path / "mill")
    late = time.time() + 3600
    assert given(site, errand.application) == "waiting"
    assert given(site, errand.application, late) == "waiting"
    site.approve(invitation)
    assert given(site, errand.application, late) == "granted"
    assert "approved already" in site.approve(invitation)
    assert len(site.config.factories()) == 1


def test_a_code_is_good_once(site: Site, tmp_path: Path) -> None:
    invitation = site.invite()
    assert given(site, prepared(site, invitation, tmp_path / "mill").application) == "waiting"
    thief = prepared(site, invitation, tmp_path / "thief").application
    assert given(site, thief) == "used"
    site.approve(invitation)
    assert given(site, thief) == "used"


def test_a_code_is_good_for_minutes(site: Site, tmp_path: Path) -> None:
    invitation = site.invite("mill", "--minutes", 5)
    application = prepared(site, invitation, tmp_path / "mill").application
    assert given(site, application, time.time() + 301) == "expired"
    assert given(site, application, time.time() + 290) == "waiting"


def test_a_new_invitation_ends_the_one_before(site: Site, tmp_path: Path) -> None:
    first = prepared(site, site.invite(), tmp_path / "mill").application
    assert "no longer counts" not in site.run("invite", "other")
    assert "no longer counts" in site.run("invite", "mill")
    assert given(site, first) == "expired"


def test_wrong_secrets_lock_the_code_and_tell_nothing(site: Site, tmp_path: Path) -> None:
    invitation = site.invite()
    right = prepared(site, invitation, tmp_path / "mill").application
    wrong = right.model_copy(update={"secret": bytes(5)})
    for _ in range(MOST_TRIES):
        assert given(site, wrong) == "unknown"
    assert given(site, right) == "locked"
    assert given(site, wrong) == "unknown"
    nobody = right.model_copy(update={"invitation": right.invitation ^ 1})
    assert given(site, nobody) == "unknown"


def _other_officer(record: Record) -> Record:
    return record.model_copy(update={"officers": [signing_key("thief").public]})


def _other_key(record: Record) -> Record:
    return record.model_copy(update={"signing_key": signing_key("thief").public})


def _other_authority(record: Record) -> Record:
    return record.model_copy(update={"authority": bytes(32)})


@pytest.mark.parametrize("change", [_other_officer, _other_key, _other_authority])
def test_a_record_changed_on_the_way_is_refused(
    site: Site, tmp_path: Path, change: Callable[[Record], Record]
) -> None:
    right = prepared(site, site.invite(), tmp_path / "mill").application
    record = change(Record.model_validate_json(right.record))
    changed = right.model_copy(update={"record": make_record(record)})
    assert given(site, changed) == "unsound"
    assert given(site, right) == "waiting"


def test_keys_and_requests_of_others_are_refused(site: Site, tmp_path: Path) -> None:
    right = prepared(site, site.invite(), tmp_path / "mill").application
    request = make_private_key(tmp_path / "other.key").decode()
    for changes in ({"request": request}, {"signature": bytes(64)}, {"attestation": bytes(3309)}):
        assert given(site, right.model_copy(update=changes)) == "unsound"


def test_a_record_that_met_another_authority_is_refused(site: Site, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    elsewhere = Site(tmp_path / "elsewhere")
    invitation = site.invite()
    code = read_code(invitation.code)
    keys = make_keys(tmp_path / "mill", [], None)
    bundle = open_authority(elsewhere.config).bundle
    digits = read_approval(invitation.approval)
    errand = enrolling.prepare(tmp_path / "mill", code, digits, keys, 1, bundle)
    assert given(site, errand.application) == "unsound"


def test_who_did_not_hear_the_approval_code_is_not_approved(site: Site, tmp_path: Path) -> None:
    invitation = site.invite()
    overheard = dataclasses.replace(invitation, approval=site.invite("other").approval)
    assert given(site, prepared(site, overheard, tmp_path / "thief").application) == "waiting"
    with pytest.raises(JoiningFault, match=r"another approval code was typed.*4 tries are left"):
        site.approve(invitation)
    assert site.config.factories() == {}
    log = read_log(site.config.ledger.with_name("admin.log"))
    assert log[-1].action == "approval-failed"


def test_wrong_approval_codes_end_the_application(site: Site, tmp_path: Path) -> None:
    invitation = site.invite()
    errand = prepared(site, invitation, tmp_path / "mill")
    assert given(site, errand.application) == "waiting"
    wrong = site.invite("other")
    for _ in range(MOST_TRIES - 1):
        with pytest.raises(JoiningFault, match="tries are left"):
            site.run("approve", "mill", wrong.approval)
    with pytest.raises(JoiningFault, match="wrong approval code too often"):
        site.run("approve", "mill", wrong.approval)
    with pytest.raises(MillgateError, match="nobody of this name waits"):
        site.approve(invitation)
    assert given(site, errand.application) == "refused"


def test_an_application_does_not_wait_for_ever(site: Site, tmp_path: Path) -> None:
    application = prepared(site, site.invite(), tmp_path / "mill").application
    past = time.time() - APPROVAL_S - 1
    assert given(site, application, past) == "waiting"
    assert given(site, application) == "late"
    with pytest.raises(MillgateError, match="nobody of this name waits"):
        site.run("approve", "mill")


def test_an_operator_may_refuse(site: Site, tmp_path: Path) -> None:
    errand = prepared(site, site.invite(), tmp_path / "mill")
    assert given(site, errand.application) == "waiting"
    assert "is refused" in site.run("refuse", "mill")
    assert given(site, errand.application) == "refused"


@pytest.mark.parametrize("first", ["granted", "refused"])
def test_an_application_is_decided_once_also_by_two_who_look_at_it_together(
    site: Site, tmp_path: Path, first: str
) -> None:
    given(site, prepared(site, site.invite(), tmp_path / "mill").application)
    joining = open_joining(site.config)
    (found,) = joining.waiting()
    agent = found.address.agent.hex()
    cards: list[AgentCard] = []

    def approve() -> None:
        issued = open_authority(site.config).issue_client(found.request, agent)
        joining.approve(found, issued, cards.append)

    def refuse() -> None:
        joining.refuse(found)

    one, other = (approve, refuse) if first == "granted" else (refuse, approve)
    one()
    with pytest.raises(JoiningFault, match="decided on this application meanwhile"):
        other()
    assert [one.state for one in joining.applicants()] == [first]
    assert len(joining.certificates()) == len(cards) == (first == "granted")
    joining.close()


def test_a_name_is_given_once_and_can_be_a_files(site: Site, tmp_path: Path) -> None:
    invitation = site.invite()
    assert given(site, prepared(site, invitation, tmp_path / "mill").application) == "waiting"
    site.approve(invitation)
    with pytest.raises(MillgateError, match="an agent of this name already"):
        site.invite()
    for name in ("../mill", "a.b", "", "-x", "a\nb", "x" * 65):
        with pytest.raises(MillgateError, match="cannot be used"):
            site.invite("--", name) if name == "-x" else site.invite(name)


def test_agents_of_one_firm_share_its_id(site: Site, tmp_path: Path) -> None:
    for place in ("east", "west"):
        invitation = site.invite("mill", "--site", place)
        application = prepared(site, invitation, tmp_path / place).application
        assert given(site, application) == "waiting"
        site.approve(invitation, f"mill/{place}")
    east, west = site.config.factories()
    assert east.factory == west.factory
    assert east.agent != west.agent


async def test_another_server_is_noticed_before_anything_is_sent(
    site: Site, tmp_path: Path
) -> None:
    invitation = site.invite()
    (tmp_path / "fake").mkdir()
    fake = Site(tmp_path / "fake", site.port)
    async with fake.open():
        with pytest.raises(
            MillgateError, match=r"not the one that the code names; nothing was sent"
        ):
            await enter(invitation, tmp_path / "mill")
    assert not (tmp_path / "mill").exists()


async def test_somebody_in_between_learns_nothing(site: Site, tmp_path: Path) -> None:
    """It shows the right authority, as anybody can, but has no key that the authority vouches for."""
    invitation = site.invite()
    (tmp_path / "fake").mkdir()
    fake = Site(tmp_path / "fake").config.enrolment
    assert fake is not None
    asked: list[str] = []

    @web.middleware
    async def note(request: web.Request, handler: Any) -> web.StreamResponse:
        asked.append(f"{request.method} {request.path}")
        answer: web.StreamResponse = await handler(request)
        return answer

    app = web.Application(middlewares=[note])
    bundle = open_authority(site.config).bundle

    async def show(_: web.Request) -> web.Response:
        return web.Response(body=bundle)

    app.add_routes([web.get(AUTHORITY_PATH, show)])
    tls = server_context(fake.certificate, fake.private_key)
    async with serving(app, "127.0.0.1", site.port, tls):
        with pytest.raises(NotBelieved, match="its certificate is not accepted"):
            await enter(invitation, tmp_path / "mill")
    assert asked == [f"GET {AUTHORITY_PATH}"]


@pytest.mark.parametrize(
    ("host", "sound"),
    [
        ("brain.example", True),
        ("[::1]", True),
        ('b"\nusername = "u"\npassword_file = "keys/audit.key" #', False),
        ("brain.example\n", False),
        ("", False),
    ],
)
def test_a_brain_writes_a_host_into_agent_toml_and_not_a_word_more(
    host: str, *, sound: bool
) -> None:
    """Else it could name a key of the firm as the password that the agent shows its broker."""
    keys = Keys()
    place = {"host": host, "port": 8883, "protocol": "mqtt5", "tls": True}
    grant = {
        "factory": keys.address.factory.hex(),
        "agent": keys.address.agent.hex(),
        "certificate": "",
        "brain": card_text(keys.brain_card),
        "broker": place,
    }
    body = json.dumps({"state": "granted", "grant": grant}).encode()
    if sound:
        granted = read_message(body, Progress).grant
        assert granted is not None
        assert granted.broker.host == host
    else:
        with pytest.raises(Unsound):
            read_message(body, Progress)


async def test_a_server_is_believed_under_its_own_names_only(site: Site, tmp_path: Path) -> None:
    invitation, enrolment = site.invite(), site.config.enrolment
    assert enrolment is not None
    request = make_private_key(enrolment.private_key)
    elsewhere = open_authority(site.config).issue_server(request, ["elsewhere.example"])
    enrolment.certificate.write_bytes(elsewhere.certificate)
    async with site.open():
        with pytest.raises(NotBelieved, match="its certificate is not accepted"):
            await enter(invitation, tmp_path / "mill")
    assert site.config.factories() == {}


@pytest.mark.parametrize(
    "url", ["http://localhost:1", "ftp://localhost", "https://", "https://a:b@c"]
)
def test_joining_is_always_over_https(url: str) -> None:
    with pytest.raises(MillgateError, match="no HTTPS address"):
        enrolling.base_url(_code(""), url)


def _code(host: str) -> Code:
    return new_code(1, bytes(32), host)


def test_the_address_is_in_the_code_or_given() -> None:
    assert enrolling.base_url(_code("brain:8751"), "") == "https://brain:8751"
    assert enrolling.base_url(_code("brain:8751"), "other:1") == "https://other:1"
    assert enrolling.base_url(_code(""), "https://a.example/x/") == "https://a.example/x"
    with pytest.raises(MillgateError, match="give the whole code"):
        enrolling.base_url(_code(""), "")


async def test_malformed_and_oversized_requests_are_refused_in_one_way(opened: Site) -> None:
    base, trust = (
        f"https://localhost:{opened.port}",
        believing(open_authority(opened.config).bundle),
    )
    for body in (b"", b"{}", b"[1]", b"\xff", b"[" * 20_000, json.dumps({"state": "x"}).encode()):
        status, answer = await ask_server(base + PATH, trust, MOST_BODY, body=body)
        assert (status, json.loads(answer)["refusal"]) == (403, "unsound")
    status, _ = await ask_server(base + PATH, trust, MOST_BODY, body=bytes(MOST_BODY + 1))
    assert status == 413
    for ticket in ("", "zz", "00" * 32):
        status, answer = await ask_server(base + PATH, trust, MOST_BODY, token=ticket)
        assert (status, json.loads(answer)["refusal"]) == (403, "unknown")


async def test_who_asks_too_often_is_slowed_down(site: Site) -> None:
    joining = open_joining(site.config)
    app = make_app(joining, terms(site), b"")
    async with serving(app, "127.0.0.1", site.port):
        seen = set()
        for _ in range(40):
            reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
            writer.write(f"GET {PATH} HTTP/1.0\r\n\r\n".encode())
            seen.add((await reader.read(100)).split()[1])
            writer.close()
    joining.close()
    assert seen == {b"403", b"429"}


def test_what_is_kept_of_a_code_does_not_give_it_back(site: Site) -> None:
    invitation = site.invite()
    secret = read_code(invitation.code).secret.reveal()
    digits = read_approval(invitation.approval)
    for path in site.config.ledger.parent.iterdir():
        data = path.read_bytes()
        assert secret not in data, path
        assert secret.hex().encode() not in data, path
        assert digits.encode() not in data, path
        assert invitation.approval.encode() not in data, path
        assert hashlib.sha256(secret).digest() not in data, path


def test_our_own_certificates_are_renewed_in_time_and_others_left_alone(site: Site) -> None:
    config, enrolment = site.config, site.config.enrolment
    assert enrolment is not None
    assert renew_own(config, open_authority(config)) == []
    past = time.time() - 800 * 86_400
    old = load_authority(enrolment.authority, enrolment.authority_key, lambda: int(past * 10**9))
    request = make_private_key(enrolment.private_key)
    enrolment.certificate.write_bytes(old.issue_server(request, ["localhost"]).certificate)
    assert renew_own(config, open_authority(config)) == [enrolment.certificate]
    assert life_of(enrolment.certificate.read_bytes()).renew_s > time.time()
    # One that was made by a clock a year ahead would not be valid until then.
    ahead = time.time() + 365 * 86_400
    early = load_authority(enrolment.authority, enrolment.authority_key, lambda: int(ahead * 10**9))
    enrolment.certificate.write_bytes(early.issue_server(request, ["localhost"]).certificate)
    assert renew_own(config, open_authority(config)) == [enrolment.certificate]
    assert life_of(enrolment.certificate.read_bytes()).starts_s <= time.time()
    foreign = old.issue_server(request, ["site.example"]).certificate
    enrolment.certificate.write_bytes(foreign)
    assert renew_own(config, open_authority(config)) == []
    assert enrolment.certificate.read_bytes() == foreign


async def test_factories_join_under_the_sites_own_authority(site: Site, tmp_path: Path) -> None:
    keys = site.path.parent / "keys"
    chain, private = own_authority(tmp_path)
    with site.path.open("a", encoding="utf-8") as file:
        file.write(f'authority = "{chain}"\nauthority_key = "{private}"\n')
    for name in ("server.pem", "brain.pem", "ca.pem", "ca.key"):
        (keys / name).unlink()
    site.run("authority")
    assert not (keys / "ca.pem").exists()
    async with site.open():
        await site.join(site.invite(), tmp_path / "mill")
    config = read_config(tmp_path / "mill" / "agent.toml").broker
    assert config.ca_file is not None
    assert config.ca_file.read_bytes() == chain.read_bytes()


@pytest.mark.parametrize("path", [PATH, RENEWAL_PATH])
async def test_who_sends_slowly_does_not_keep_others_out(
    opened: Site, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    monkeypatch.setattr(joining_api, "_BODY_S", 0.05)
    monkeypatch.setattr(joining_api, "_serial_shown", lambda _: 7)
    trust = believing(open_authority(opened.config).bundle)
    reader, writer = await asyncio.open_connection("localhost", opened.port, ssl=trust)
    writer.write(f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n".encode())
    async with asyncio.timeout(20):
        assert (await reader.readline()).split()[1] == b"408"
    writer.close()


def test_what_administrators_do_is_recorded(site: Site) -> None:
    path = site.config.ledger.with_name("admin.log")
    ledger = Ledger(site.config.ledger)
    address = Keys().address
    with ledger.transaction():
        ledger.agent(address)
    ledger.close()
    agent = address.agent.hex()
    site.run("trust", "--release", agent)
    site.run("token", "carbon-office", "--firm", "mill")
    site.run("rebuild")
    done = [(entry.action, dict(entry.facts)) for entry in read_log(path)[1:]]
    assert done == [
        ("lift-quarantine", {"agent": agent}),
        ("token", {"name": "carbon-office", "firms": "mill"}),
        ("rebuild", {}),
    ]
    assert "4 entries, unchanged" in site.run("log")
    head = read_log(path)[-1].digest
    path.write_bytes(path.read_bytes().replace(b"carbon-office", b"carbon-0ffice"))
    with pytest.raises(LogFault, match="the log was changed here"):
        site.run("log")
    path.unlink()
    with pytest.raises(LogFault, match="no longer holds"):
        site.run("log", "--head", head[:12])


def test_an_action_that_cannot_be_recorded_is_not_done(site: Site) -> None:
    path = site.config.ledger.with_name("admin.log")
    path.unlink()
    path.mkdir()
    with pytest.raises(LogFault, match="cannot be written"):
        site.invite()
    joining = open_joining(site.config)
    assert joining._db.execute("SELECT COUNT(*) FROM invitation").fetchone() == (0,)
    joining.close()


@pytest.mark.parametrize("page", ["docs/joining.md", "docs/joining.zh-CN.md"])
def test_the_page_names_every_field_of_every_message(page: str) -> None:
    rows = [line for line in text(page).splitlines() if line.startswith("| ")]
    for message in (Application, Record, Progress, Grant):
        fields = set(message.model_fields)
        assert any(fields <= set(codes(row)) for row in rows), message
