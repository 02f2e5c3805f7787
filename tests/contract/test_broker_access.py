"""The generated configuration on a real Mosquitto: every certificate at every topic with every key.

All messages are sent once, to one broker; each case then looks at who received what.
"""

import asyncio
import itertools
import os
import signal
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from aggregator.authority import REVOKED, open_authority, open_joining, write_revoked
from aggregator.broker_files import ACCESS, access_list
from protocols.broker import BrokerConfig
from protocols.errors import MillgateError
from protocols.mqtt import Mqtt, connection, greet
from protocols.topics import Address
from security.ca import Authority, Issued, create_authority, load_authority
from security.certificate_request import make_private_key
from tests.joining_site import Site
from tests.servers.mosquitto import HOST, Mosquitto, free_port
from tests.small_factory import Brain, Forger, Keys, signing_key

DAY_S = 86_400
LONG = 60
KEYS = {"a": Keys("mill a"), "b": Keys("mill b")}
SIGNERS = {"a": KEYS["a"].signing, "b": KEYS["b"].signing, "nobody": signing_key("nobody")}
WRITERS = ("a", "b", "brain")
A, B = KEYS["a"].address, KEYS["b"].address
TOPICS = {
    "a up": A.topic("up"),
    "a down": A.topic("down"),
    "a state": A.topic("state"),
    "b up": B.topic("up"),
    "b down": B.topic("down"),
    "b state": B.topic("state"),
    "a up under b's firm": Address(B.factory, A.agent).topic("up"),
    "elsewhere": "mg1/elsewhere",
    "the broker's own": "$SYS/broker/uptime",
}
RIGHT = {
    ("a", "a up"): {"brain"},
    ("a", "a state"): {"brain"},
    ("b", "b up"): {"brain"},
    ("b", "b state"): {"brain"},
    ("brain", "a down"): {"a"},
    ("brain", "b down"): {"b"},
    # Nobody's place: no other agent can read it, and the inbox knows no such agent.
    ("a", "a up under b's firm"): {"brain"},
}

Received = Mapping[str, list[tuple[str, bytes]]]

pytestmark = [
    pytest.mark.timeout(180),
    # paho leaves a socket whose handshake failed to the garbage collector, which closes it.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@dataclass
class Yard:
    """A broker with the generated files, and certificates right and wrong."""

    folder: Path
    site: Site
    broker: Mosquitto
    port: int
    received: Received = field(default_factory=dict)
    refused: Mapping[str, str] = field(default_factory=dict)

    @property
    def trust(self) -> Path:
        return self.site.path.parent / "keys/ca.pem"

    @property
    def authority(self) -> Authority:
        return open_authority(self.site.config)

    def connect(self, certificate: Path | None) -> BrokerConfig:
        own: dict[str, Any] = {}
        if certificate is not None:
            own = {"certificate": certificate, "private_key": certificate.with_suffix(".key")}
        return BrokerConfig(host=HOST, port=self.port, tls=True, ca_file=self.trust, **own)

    def of(self, who: str) -> BrokerConfig:
        return self.connect(self.folder / f"{who}.pem")

    def certify(self, who: str, name: str, authority: Authority | None = None) -> Issued:
        request = make_private_key(self.folder / f"{who}.key")
        issued = (authority or self.authority).issue_client(request, name)
        (self.folder / f"{who}.pem").write_bytes(issued.certificate)
        return issued

    def revoke(self, issued: Issued, agent: bytes = bytes(16)) -> None:
        joining = open_joining(self.site.config)
        joining.add_certificate(agent, issued)
        joining.revoke_certificates(agent)
        joining.close()
        revoked = write_revoked(self.site.config, self.authority)
        (self.site.folder / "broker" / REVOKED).write_bytes(revoked.certificates)
        (self.site.folder / "broker" / ACCESS).write_bytes(access_list(revoked.agents))

    def reload(self) -> None:
        """Do as `systemctl reload mosquitto` does."""
        assert self.broker.process is not None
        os.kill(self.broker.process.pid, signal.SIGHUP)


@pytest.fixture(scope="module")
def yard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Yard]:
    folder = tmp_path_factory.mktemp("yard")
    port = free_port()
    site = Site(folder, broker_port=port)
    broker = Mosquitto(folder / "run", f"include_dir {folder / 'broker'}")
    made = Yard(folder / "clients", site, broker, port)
    site.run("broker-config", folder / "broker", "--user", "root")
    for name, keys in KEYS.items():
        made.certify(name, keys.address.agent.hex())
    made.certify("brain", "brain")
    made.revoke(made.certify("revoked", A.agent.hex()))
    _wrong_ones(made)
    broker.start()
    try:
        made.received = asyncio.run(_send_everything(made))
        made.refused = asyncio.run(_knock(made))
        yield made
    finally:
        broker.stop()


def _wrong_ones(yard: Yard) -> None:
    keys = yard.site.path.parent / "keys"
    past = (time.time() - 200 * DAY_S) * 10**9
    old = load_authority(keys / "ca.pem", keys / "ca.key", lambda: int(past))
    yard.certify("ended", A.agent.hex(), old)
    strange = create_authority(yard.folder / "x.pem", yard.folder / "x.key", "brain")
    yard.certify("strange", A.agent.hex(), strange)
    request = make_private_key(yard.folder / "server.key")
    server = yard.authority.issue_server(request, [A.agent.hex()])
    (yard.folder / "server.pem").write_bytes(server.certificate)


async def _send_everything(yard: Yard) -> Received:
    """Let everybody write everything everywhere, and read whatever the broker lets them read."""
    received: dict[str, list[tuple[str, bytes]]] = {who: [] for who in WRITERS}
    async with AsyncExitStack() as stack, asyncio.timeout(LONG):
        # Everybody claims the brain's client id, and asks for everything.
        links = {
            who: await stack.enter_async_context(connection(yard.of(who), "brain", ["#", "$SYS/#"]))
            for who in WRITERS
        }
        for who, keys in KEYS.items():
            await _meet(links[who], keys.address.topic("up"), links["brain"])
            await _meet(links["brain"], keys.address.topic("down"), links[who])
        for who, (name, topic) in itertools.product(WRITERS, TOPICS.items()):
            links[who].publish(topic, _said(who, name))
        for who, target, signer in itertools.product(KEYS, KEYS, SIGNERS):
            links[who].publish(TOPICS[f"{target} up"], sealed(who, target, signer))
        for who in KEYS:
            links[who].publish(TOPICS[f"{who} state"], b"end")
        await _until_end(links["brain"], received["brain"], len(KEYS))
        for who in KEYS:
            links["brain"].publish(TOPICS[f"{who} down"], b"end")
        for who in KEYS:
            await _until_end(links[who], received[who], 1)
    return received


async def _knock(yard: Yard) -> Mapping[str, str]:
    """Return what each is told who asks to be let in: nothing where it is let in."""

    async def knock(who: str) -> str:
        try:
            await greet(yard.connect(None) if who == "none" else yard.of(who), "somebody")
        except MillgateError as fault:
            return str(fault)
        return ""

    async with asyncio.TaskGroup() as group:
        who = ("a", "none", "strange", "ended", "revoked", "server")
        tasks = {one: group.create_task(knock(one)) for one in who}
    return {one: task.result() for one, task in tasks.items()}


async def _meet(one: Mqtt, topic: str, other: Mqtt) -> None:
    """Publish until the other's subscription counts."""
    await one.connected.wait()
    message = None
    while message is None:
        one.publish(topic, b"hello")
        try:
            async with asyncio.timeout(0.5):
                message = await other.messages.get()
        except TimeoutError:
            continue
        message.acknowledge()


async def _until_end(link: Mqtt, into: list[tuple[str, bytes]], count: int) -> None:
    while count:
        message = await link.messages.get()
        message.acknowledge()
        into.append((message.topic, message.payload))
        count -= message.payload == b"end"


def _said(who: str, name: str) -> bytes:
    return f"{who} at {name}".encode()


_SEALED: dict[tuple[str, str, str], bytes] = {}


def sealed(who: str, target: str, signer: str) -> bytes:
    """Return a message in the name of an agent, signed with somebody's key; another for each sender."""
    case = (who, target, signer)
    if case not in _SEALED:
        _SEALED[case] = Forger(KEYS[target]).sheet_message(signer=SIGNERS[signer])
    return _SEALED[case]


@pytest.mark.parametrize("who", WRITERS)
@pytest.mark.parametrize("name", TOPICS)
def test_only_the_right_ones_write_and_read_a_topic(yard: Yard, who: str, name: str) -> None:
    sent = (TOPICS[name], _said(who, name))
    readers = {reader for reader, messages in yard.received.items() if sent in messages}
    assert readers == RIGHT.get((who, name), set())


@pytest.mark.parametrize("signer", SIGNERS)
@pytest.mark.parametrize("target", KEYS)
@pytest.mark.parametrize("who", KEYS)
def test_the_brain_accepts_where_certificate_topic_and_key_are_one_agents(
    yard: Yard, tmp_path: Path, who: str, target: str, signer: str
) -> None:
    brain = Brain(tmp_path, *KEYS.values())
    message = (TOPICS[f"{target} up"], sealed(who, target, signer))
    outcome = brain.inbox.process([one for one in yard.received["brain"] if one == message])
    brain.close()
    assert bool(outcome.answers) == (who == target == signer)


def test_nobody_takes_over_anothers_connection_by_its_client_id(yard: Yard) -> None:
    assert all((TOPICS[f"{who} down"], b"end") in yard.received[who] for who in KEYS)


@pytest.mark.parametrize("certificate", ["none", "strange", "ended", "revoked", "server"])
def test_a_wrong_certificate_is_not_let_in(yard: Yard, certificate: str) -> None:
    assert "it may not accept our certificate" in yard.refused[certificate]
    assert yard.refused["a"] == ""


async def test_what_is_revoked_later_is_out_once_the_broker_has_read_the_list(yard: Yard) -> None:
    later = yard.certify("later", "cd" * 16)
    await greet(yard.of("later"), "somebody")
    yard.revoke(later)
    yard.reload()
    async with asyncio.timeout(LONG):
        while True:
            try:
                await greet(yard.of("later"), "somebody")
            except MillgateError:
                break
    await greet(yard.of("a"), "somebody")


async def test_an_open_connection_of_a_revoked_agent_is_mute_once_the_broker_has_read_its_files(
    yard: Yard,
) -> None:
    c = Keys("mill c").address
    issued = yard.certify("c", c.agent.hex())
    async with AsyncExitStack() as stack, asyncio.timeout(LONG):
        brain, one, other = [
            await stack.enter_async_context(connection(yard.of(who), who, [topic]))
            for who, topic in (
                ("brain", "mg1/+/+/up"),
                ("a", A.topic("down")),
                ("c", c.topic("down")),
            )
        ]
        await _meet(one, A.topic("up"), brain)
        await _meet(other, c.topic("up"), brain)
        heard: set[bytes] = set()

        async def rounds() -> AsyncIterator[int]:
            """Let both write, one after the other, until what the other wrote has come."""
            for number in itertools.count():
                other.publish(c.topic("up"), b"c %d" % number)
                one.publish(A.topic("up"), b"a %d" % number)
                while b"a %d" % number not in heard:
                    message = await brain.messages.get()
                    message.acknowledge()
                    heard.add(message.payload)
                yield number

        async for number in rounds():
            if b"c %d" % number in heard:
                break
        yard.revoke(issued, c.agent)
        heard.clear()
        # Mosquitto reads the list, and does not look at the certificate of an open connection again.
        yard.reload()
        async for number in rounds():
            if number > 2 and not {b"c %d" % at for at in range(number - 2, number + 1)} & heard:
                break
        assert other.connected.is_set()
