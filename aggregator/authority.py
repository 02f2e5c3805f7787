"""Who vouches for the brain's servers and for agents: the authority's files, and what it issues to us."""

import time
from pathlib import Path
from typing import Final, NamedTuple

from aggregator.config import AggregatorConfig
from aggregator.joining import NAME, Joining
from aggregator.joining_config import EnrolmentConfig
from protocols.errors import MillgateError
from protocols.language import tr
from security import admin_log
from security.ca import SERVER_DAYS, Authority, Issued, create_authority, load_authority
from security.certificate_request import life_of, make_private_key
from security.files import PUBLIC, write_whole

BRAIN: Final = "brain"
"""Common name of the aggregator's certificate at the broker; agents have ids of 32 hex digits."""

BRAIN_CERTIFICATE: Final = Path("keys/brain.pem")
BRAIN_KEY: Final = Path("keys/brain.key")
REVOKED: Final = "revoked.pem"
"""The revocation list, beside the authority's certificate."""


def enrolment_of(config: AggregatorConfig) -> EnrolmentConfig:
    """Return where factories join.

    Raises:
        MillgateError: when nothing is said about it.
    """
    if config.enrolment is None:
        raise MillgateError(
            tr("factories cannot join by code here", "此处未开启邀请码接入"),
            where=str(config.path),
            remedy=tr(
                "add [enrolment] with address = \"HOST:8751\", then 'millgate aggregator authority'",
                "请添加 [enrolment] 及 address = \"主机:8751\"，再执行 'millgate aggregator authority'",
            ),
        )
    return config.enrolment


def open_joining(config: AggregatorConfig) -> Joining:
    """Open the file of who joins."""
    return Joining(config.ledger.with_name(NAME))


def log_path(config: AggregatorConfig) -> Path:
    """Return where administrators' actions are recorded."""
    return config.ledger.with_name(admin_log.NAME)


def open_authority(config: AggregatorConfig) -> Authority:
    """Read the authority.

    Raises:
        KeyFault: when it cannot be read.
    """
    enrolment = enrolment_of(config)
    return load_authority(enrolment.authority, enrolment.authority_key)


def make_authority(config: AggregatorConfig) -> Authority:
    """Make an authority unless there is one, and certificates for our own servers and connections.

    Raises:
        KeyFault: when a file cannot be made.
    """
    enrolment = enrolment_of(config)
    if not enrolment.authority.exists() and not enrolment.authority_key.exists():
        admin_log.record_admin(log_path(config), "authority")
        create_authority(enrolment.authority, enrolment.authority_key, config.brain.name[:64])
    authority = open_authority(config)
    renew_own(config, authority)
    write_revoked(config, authority)
    return authority


def renew_own(config: AggregatorConfig, authority: Authority) -> list[Path]:
    """Renew our own certificates that are missing or past two thirds of their life.

    A certificate that another authority issued is the site's own affair and left alone.

    Returns:
        The files that were written.
    """
    enrolment = enrolment_of(config)
    names = enrolment.server_names()
    server = _Own(enrolment.certificate, enrolment.private_key)
    folder = config.path.absolute().parent
    brain = _Own(folder / BRAIN_CERTIFICATE, folder / BRAIN_KEY)
    written = []
    if server.is_due(names[0][:64]):
        server.take(authority.issue_server(make_private_key(server.key), names))
        written.append(server.certificate)
    if brain.is_due(BRAIN):
        request = make_private_key(brain.key)
        brain.take(authority.issue_client(request, BRAIN, SERVER_DAYS))
        written.append(brain.certificate)
    return written


class Revoked(NamedTuple):
    """Who is let in no more.

    Attributes:
        certificates: the revocation list, PEM.
        agents: ids of the agents whose certificates are all on it.
    """

    certificates: bytes
    agents: list[bytes]


def write_revoked(config: AggregatorConfig, authority: Authority) -> Revoked:
    """Write the revocation list beside the authority's certificate, and return what it says."""
    joining = open_joining(config)
    try:
        found = Revoked(joining.revocation_list(authority), joining.revoked_agents())
    finally:
        joining.close()
    path = enrolment_of(config).authority.with_name(REVOKED)
    write_whole(path, found.certificates, PUBLIC)
    return found


class _Own:
    """A certificate of ours, and its key."""

    def __init__(self, certificate: Path, key: Path) -> None:
        self.certificate = certificate
        self.key = key

    def is_due(self, name: str) -> bool:
        """Tell whether it is missing, or ours and due; `name` is how ours are called.

        One that is not valid yet was made by a clock that was ahead.
        """
        if not self.certificate.exists():
            return True
        life = life_of(self.certificate.read_bytes())
        return life.name == name and not life.starts_s <= time.time() < life.renew_s

    def take(self, issued: Issued) -> None:
        """Write what was issued."""
        write_whole(self.certificate, issued.certificate, PUBLIC)
