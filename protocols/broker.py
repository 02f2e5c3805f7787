"""Where the broker is, and what it may carry.

Apart from `protocols.mqtt`, so that a process that only reads the configuration cannot speak MQTT.
"""

from pathlib import Path
from typing import Any, Final, Literal, Self

from pydantic import Field, model_validator

from protocols.errors import ConfigError, MillgateError, Misfit
from protocols.hosts import Host
from protocols.language import tr
from protocols.places import under
from protocols.settings import KeyPath, Strict, check_settings, fault_at

LOOPBACK: Final = ("127.0.0.1", "::1", "localhost")
"""Hosts that only this machine can reach."""

LEAST_LIMIT: Final = 16 * 1024
"""A broker that passes less is of no use: keys alone take 4 KB of a batch."""

MAX_MESSAGE: Final = 256 * 1024
"""Largest payload that has a meaning; of a larger one only one byte more is kept."""


Protocol = Literal["mqtt311", "mqtt5"]
"""MQTT 3.1.1 or 5."""


class BrokerConfig(Strict):
    """Where the broker is, and how to show who we are.

    Attributes:
        host, port: its address; 8883 is usual with TLS.
        protocol: `mqtt311` or `mqtt5`.
        keepalive_s: seconds after which a silent connection is given up.
        tls: whether the connection is protected; the broker's certificate is always checked.
        ca_file: authorities that may vouch for the broker, PEM; without it the system's.
        certificate, private_key: ours, PEM, where the broker asks for one.
        username, password_file: where the broker asks for these; the file holds the password only.
        max_kb: the largest payload that the broker passes, where it does not say so itself; with
            MQTT 5 it does.
    """

    host: Host = "127.0.0.1"
    port: int = Field(default=1883, ge=1, le=65535)
    protocol: Protocol = "mqtt311"
    keepalive_s: int = Field(default=20, ge=2, le=3600)
    tls: bool = False
    ca_file: Path | None = None
    certificate: Path | None = None
    private_key: Path | None = None
    username: str = Field(default="", max_length=256)
    password_file: Path | None = None
    max_kb: int = Field(default=256, ge=LEAST_LIMIT // 1024, le=256)

    @property
    def place(self) -> str:
        """Host and port, as people write them."""
        return f"{self.host}:{self.port}"

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if not self.tls and (self.ca_file or self.certificate or self.private_key):
            raise ValueError(tr("certificates need tls = true", "使用证书须写 tls = true"))
        if (self.certificate is None) != (self.private_key is None):
            raise ValueError(
                tr(
                    "certificate and private_key belong together",
                    "certificate 与 private_key 须成对给出",
                )
            )
        if self.password_file is not None and not self.username:
            raise ValueError(tr("password_file needs username", "password_file 须与 username 同用"))
        if self.password_file is not None and not self.tls and self.host not in LOOPBACK:
            raise ValueError(
                tr(
                    "without tls = true everybody on the way could read the password",
                    "不写 tls = true，途中任何人都能看到口令",
                )
            )
        return self

    def under(self, folder: Path) -> "BrokerConfig":
        """Return it with paths that count from a folder."""
        names = ("ca_file", "certificate", "private_key", "password_file")
        paths = {name: under(folder, path) for name in names if (path := getattr(self, name))}
        return self.model_copy(update=paths)


MOST_BROKERS: Final = 8


def read_brokers(raw: dict[str, Any], path: Path) -> tuple[BrokerConfig, ...]:
    """Take `[broker]`, or `[[broker]]` in order of preference, out of parsed TOML.

    Raises:
        ConfigError: with every fault, each on one line.
    """
    given = raw.pop("broker", {})
    several = isinstance(given, list)
    tables = given if isinstance(given, list) else [given]
    faults: list[MillgateError] = []
    found: list[BrokerConfig] = []
    if not 0 < len(tables) <= MOST_BROKERS:
        faults.append(
            _fault(
                tr(f"from 1 to {MOST_BROKERS}", f"须为 1 至 {MOST_BROKERS} 个"),
                tr("correct the list", "请更正列表"),
                path,
            )
        )
    for at, table in enumerate(tables):
        prefix: KeyPath = ("broker", at) if several else ("broker",)
        try:
            found.append(
                check_settings(table, BrokerConfig, path, prefix).under(path.absolute().parent)
            )
        except ConfigError as error:
            faults += error.faults
    places = [one.place for one in found]
    twice = [at for at, place in enumerate(places) if place in places[:at]]
    faults += [
        _fault(
            tr(f"{places[at]} is named twice", f"{places[at]} 重复"),
            tr("remove one of them", "请删除其中之一"),
            path,
            at,
        )
        for at in twice
    ]
    if faults:
        raise ConfigError(faults)
    return tuple(found)


def _fault(what: str, remedy: str, path: Path, *at: int) -> MillgateError:
    return fault_at(path, Misfit(what, remedy, ("broker", *at)))
