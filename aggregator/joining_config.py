"""`[enrolment]` in aggregator.toml: where factories join, and who vouches for them."""

import ipaddress
from pathlib import Path
from typing import Final

from pydantic import Field

from protocols.broker import BrokerConfig
from protocols.hosts import Host, OptionalHost, OptionalPlace
from protocols.places import under
from protocols.settings import Strict
from security.enrolment import BrokerPlace

_LOCAL: Final = ("localhost", "127.0.0.1")


class EnrolmentConfig(Strict):
    """Where factories join, and who vouches for them.

    Attributes:
        host, port: where the endpoint listens; always with TLS.
        address: `host:port` by which factories reach it; it stands in every invitation.
        names: further names and addresses of this machine, for its certificate.
        authority, authority_key: the certificate authority's PEM files; the site's own may stand here.
        certificate, private_key: of this machine's servers; issued by the authority.
        broker_host, broker_port: how factories reach the broker, where that is not as in [broker].
        client_days: how long a factory's certificate is valid; it is renewed before.
    """

    host: Host = "127.0.0.1"
    port: int = Field(default=8751, ge=0, le=65535)
    address: OptionalPlace = Field(default="", max_length=255)
    names: list[Host] = Field(default=[], max_length=16)
    authority: Path = Path("keys/ca.pem")
    authority_key: Path = Path("keys/ca.key")
    certificate: Path = Path("keys/server.pem")
    private_key: Path = Path("keys/server.key")
    broker_host: OptionalHost = Field(default="", max_length=255)
    broker_port: int | None = Field(default=None, ge=1, le=65535)
    client_days: int = Field(default=90, ge=1, le=825)

    def under(self, folder: Path) -> "EnrolmentConfig":
        """Return it with paths that count from a folder."""
        names = ("authority", "authority_key", "certificate", "private_key")
        return self.model_copy(update={name: under(folder, getattr(self, name)) for name in names})

    @property
    def reached_at(self) -> str:
        """What stands in the code of an invitation."""
        return self.address or f"{self.host}:{self.port}"

    def server_names(self) -> list[str]:
        """Return the names and addresses that the servers' certificate is for, each once."""
        reached = self.reached_at.rpartition(":")[0].strip("[]") or self.reached_at
        return list(dict.fromkeys([reached, *self.names, *_named(self.host), *_LOCAL]))

    def broker_place(self, broker: BrokerConfig) -> BrokerPlace:
        """Return how factories reach the broker."""
        return BrokerPlace(
            host=self.broker_host or broker.host,
            port=self.broker_port or broker.port,
            protocol=broker.protocol,
            tls=broker.tls,
        )


def _named(host: str) -> list[str]:
    try:
        return [] if ipaddress.ip_address(host).is_unspecified else [host]
    except ValueError:
        return [host]
