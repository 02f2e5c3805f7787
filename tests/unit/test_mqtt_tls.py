"""Protected connections to a real Mosquitto: the right ones work, the wrong ones say why."""

import asyncio
import shutil
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from protocols.broker import BrokerConfig
from protocols.errors import MillgateError
from protocols.mqtt import connection, greet
from tests.certificates import Authority
from tests.servers.mosquitto import HOST, Mosquitto, running

LONG = 40
PASSWORD = "correct horse"  # noqa: S105 - of a broker that lives as long as the test

pytestmark = [
    pytest.mark.timeout(120),
    # paho leaves a socket whose handshake failed to the garbage collector, which closes it.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


class Site:
    """A broker with TLS, and who vouches for whom."""

    def __init__(self, folder: Path, names: tuple[str, ...]) -> None:
        self.folder = folder
        self.ours, self.strange = Authority(folder, "ours"), Authority(folder, "strange")
        self.server = self.ours.vouch("server", *names)
        self.client = self.ours.vouch("client")

    def listener(self, *more: str) -> str:
        lines = (f"cafile {self.ours.file}", f"certfile {self.server}", f"keyfile {self.server}")
        return "\n".join([*lines, *more])


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path, (HOST,))


@pytest.fixture
def broker(site: Site) -> Iterator[Mosquitto]:
    """It wants no certificate, and lets everybody in."""
    with running(site.folder / "broker", site.listener("allow_anonymous true")) as started:
        yield started


def config(broker: Mosquitto, site: Site, **more: Any) -> BrokerConfig:
    settings: dict[str, Any] = {"tls": True, "ca_file": site.ours.file} | more
    return BrokerConfig(host=HOST, port=broker.port, **settings)


async def fault(settings: BrokerConfig) -> str:
    with pytest.raises(MillgateError) as caught:
        await greet(settings, "somebody")
    return str(caught.value)


def certificate_of(path: Path) -> str:
    text = path.read_text("ascii")
    return text[text.index("-----BEGIN CERTIFICATE") :]


@pytest.mark.parametrize("protocol", ["mqtt311", "mqtt5"])
async def test_messages_pass_over_tls(broker: Mosquitto, site: Site, protocol: str) -> None:
    settings = config(broker, site, protocol=protocol)
    async with connection(settings, "one", ["a/b"]) as link, asyncio.timeout(LONG):
        await link.connected.wait()
        message = None
        while message is None:
            # Until the subscription counts, what is published is for nobody.
            link.publish("a/b", b"hello")
            try:
                async with asyncio.timeout(0.5):
                    message = await link.messages.get()
            except TimeoutError:
                continue
    assert message.payload == b"hello"
    assert link.shown == ssl.PEM_cert_to_DER_cert(certificate_of(site.server))


async def test_a_broker_that_a_stranger_vouches_for_is_not_taken(
    broker: Mosquitto, site: Site
) -> None:
    said = await fault(config(broker, site, ca_file=site.strange.file))
    assert "certificate is not accepted" in said
    assert f"{HOST}:{broker.port}" in said


async def test_a_broker_with_another_name_is_not_taken(tmp_path: Path) -> None:
    site = Site(tmp_path, ("broker.example",))
    with running(tmp_path / "broker", site.listener("allow_anonymous true")) as broker:
        assert "certificate is not accepted" in await fault(config(broker, site))


async def test_a_broker_without_tls_is_told(tmp_path: Path, site: Site) -> None:
    with running(tmp_path / "plain") as broker:
        said = await fault(config(broker, site))
        assert "TLS fails" in said or "cannot be reached" in said


async def test_who_must_show_a_certificate_is_let_in_only_with_a_right_one(
    tmp_path: Path, site: Site
) -> None:
    asking = site.listener("allow_anonymous true", "require_certificate true")
    stranger = site.strange.vouch("stranger")
    with running(tmp_path / "asking", asking) as broker:
        right = config(broker, site, certificate=site.client, private_key=site.client)
        await greet(right, "client")
        for wrong in (
            config(broker, site),
            config(broker, site, certificate=stranger, private_key=stranger),
        ):
            assert await fault(wrong)


async def test_who_must_give_a_password_is_let_in_only_with_the_right_one(
    tmp_path: Path, site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    tool = shutil.which("mosquitto_passwd")
    if tool is None:
        pytest.skip("mosquitto_passwd is not installed")
    known = tmp_path / "known"
    known.touch(mode=0o600)
    made = [tool, "-b", str(known), "mill", PASSWORD]
    await asyncio.to_thread(subprocess.run, made, check=True, capture_output=True)
    with running(tmp_path / "closed", site.listener(f"password_file {known}")) as broker:
        secret = tmp_path / "secret"
        secret.touch(mode=0o600)
        secret.write_text(f"{PASSWORD}\n", "utf-8")
        named = {"username": "mill", "password_file": secret}
        await greet(config(broker, site, **named), "mill")
        secret.write_text("wrong\n", "utf-8")
        assert "refuses the connection" in await fault(config(broker, site, **named))
        assert "refuses the connection" in await fault(config(broker, site))
        secret.chmod(0o644)
        assert f"chmod 600 {secret}" in await fault(config(broker, site, **named))
        secret.unlink()
        assert str(secret) in await fault(config(broker, site, **named))
    assert PASSWORD not in caplog.text


async def test_a_key_that_others_can_read_or_a_file_that_is_none_is_told(
    broker: Mosquitto, site: Site
) -> None:
    site.client.chmod(0o640)
    open_key = config(broker, site, certificate=site.client, private_key=site.client)
    assert f"chmod 600 {site.client}" in await fault(open_key)
    for wrong in (site.folder / "missing.pem", site.folder / "broker" / "mosquitto.conf"):
        assert str(wrong) in await fault(config(broker, site, ca_file=wrong))


@pytest.mark.parametrize(
    "wrong",
    [
        {"ca_file": "ca.pem"},
        {"tls": True, "certificate": "own.pem"},
        {"tls": True, "private_key": "own.key"},
        {"tls": True, "password_file": "secret"},
        {"host": "broker.example", "username": "mill", "password_file": "secret"},
    ],
)
def test_settings_that_would_protect_less_than_they_seem_to_are_refused(
    wrong: dict[str, Any],
) -> None:
    with pytest.raises(ValidationError):
        BrokerConfig(**wrong)


def test_paths_count_from_the_folder_of_the_file(tmp_path: Path) -> None:
    settings = BrokerConfig(tls=True, ca_file=Path("keys/ca.pem")).under(tmp_path)
    assert settings.ca_file == tmp_path / "keys" / "ca.pem"
    assert settings.certificate is None
