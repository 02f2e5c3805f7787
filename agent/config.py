"""`agent.toml`: who the agent is, whom it trusts, where it sends, what it reads."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field, model_validator

from protocols.drivers import DeviceConfig, read_devices
from protocols.errors import ConfigError, MillgateError
from protocols.language import tr
from protocols.mqtt import BrokerConfig
from protocols.settings import Strict, check_settings, read_toml
from protocols.status import socket_path
from protocols.topics import Address
from security.cards import (
    BrainCard,
    OpaqueId,
    SealingKeyText,
    VerifyKeyText,
    check_threshold,
    read_brain_card,
)

_MEGABYTE = 1 << 20


class Identity(Strict):
    """Who this agent is.

    Attributes:
        factory, agent: opaque ids, 32 hex digits.
        signing_key: file of the key that signs batches.
        gate_key: file of the key that encrypts gate memory.
        attestation_key: file of the key that signs attestations together with the signing key.
    """

    factory: OpaqueId
    agent: OpaqueId
    signing_key: Path
    gate_key: Path
    attestation_key: Path = Path("keys/attestation.key")

    @property
    def address(self) -> Address:
        """The agent's address on the broker."""
        return Address(self.factory, self.agent)


class PolicySource(Strict):
    """Where the signed policy is and who may sign it.

    Attributes:
        file: the signed policy.
        officers: the data officers' public keys.
        threshold: how many of them must sign.
        widen_threshold: how many must sign a policy that widens what leaves; unless it is given,
            two where there are two officers.
        audit_key: the firm's own key; every batch is sealed to it as well.
    """

    file: Path
    officers: list[VerifyKeyText] = Field(min_length=1, max_length=16)
    threshold: int = Field(default=1, ge=1, le=16)
    widen_threshold: int | None = Field(default=None, ge=1, le=16)
    audit_key: SealingKeyText

    @model_validator(mode="after")
    def _reachable(self) -> "PolicySource":
        check_threshold(self.officers, max(self.threshold, self.widen_threshold or 1))
        return self


class SpoolConfig(Strict):
    """Where sealed batches wait.

    Attributes:
        folder: holds the spool and the local registry.
        max_mb: when so much waits, collecting pauses until the brain has answered.
        archive_mb: how much of what was acknowledged is kept.
    """

    folder: Path = Path("data")
    max_mb: int = Field(default=1024, ge=8, le=1 << 20)
    archive_mb: int = Field(default=256, ge=0, le=1 << 20)

    @property
    def max_bytes(self) -> int:
        """Bound of what waits."""
        return self.max_mb * _MEGABYTE

    @property
    def archive_bytes(self) -> int:
        """Bound of what is kept after it was acknowledged."""
        return self.archive_mb * _MEGABYTE


class ConsumerCard(Strict):
    """A brain that may be sent to; the policy decides whether it is."""

    card: Path


class _AgentFile(Strict):
    """All of agent.toml but the devices."""

    identity: Identity
    policy: PolicySource
    broker: BrokerConfig = BrokerConfig()
    spool: SpoolConfig = SpoolConfig()
    consumer: list[ConsumerCard] = Field(min_length=1, max_length=16)


@dataclass(frozen=True, slots=True)
class AgentConfig:
    """Everything in agent.toml, with absolute paths.

    Attributes:
        consumers: the brains' cards by the SHA-256 pin of their encryption key.
    """

    path: Path
    identity: Identity
    policy: PolicySource
    broker: BrokerConfig
    spool: SpoolConfig
    consumers: dict[bytes, BrainCard]
    devices: list[DeviceConfig]

    @property
    def socket(self) -> Path:
        """Where `agent status` asks."""
        return socket_path(self.spool.folder)


def read_config(path: Path) -> AgentConfig:
    """Read agent.toml and all that it names except private keys.

    Raises:
        ConfigError: with every fault of every file, each on one line.
    """
    raw = read_toml(path)
    faults: list[MillgateError] = []
    devices: list[DeviceConfig] = []
    consumers: dict[bytes, BrainCard] = {}
    try:
        devices = read_devices(raw.pop("device", []), path)
    except ConfigError as error:
        faults += error.faults
    try:
        file = check_settings(raw, _AgentFile, path)
        consumers = _read_consumers(file.consumer, path.parent)
    except ConfigError as error:
        faults += error.faults
    if faults:
        raise ConfigError(faults)
    return _absolute(path, file, consumers, devices)


def _read_consumers(entries: list[ConsumerCard], folder: Path) -> dict[bytes, BrainCard]:
    faults: list[MillgateError] = []
    found: dict[bytes, BrainCard] = {}
    for entry in entries:
        try:
            card = read_brain_card(folder / entry.card)
        except ConfigError as error:
            faults += error.faults
        else:
            found[pin_of(card.encryption_key.public)] = card
    if faults:
        raise ConfigError(faults)
    return found


def _absolute(
    path: Path, file: _AgentFile, consumers: dict[bytes, BrainCard], devices: list[DeviceConfig]
) -> AgentConfig:
    folder = path.absolute().parent
    identity = file.identity.model_copy(
        update={
            "signing_key": folder / file.identity.signing_key,
            "gate_key": folder / file.identity.gate_key,
            "attestation_key": folder / file.identity.attestation_key,
        }
    )
    return AgentConfig(
        path=path,
        identity=identity,
        policy=file.policy.model_copy(update={"file": folder / file.policy.file}),
        broker=file.broker,
        spool=file.spool.model_copy(update={"folder": folder / file.spool.folder}),
        consumers=consumers,
        devices=devices,
    )


def pin_of(public: bytes) -> bytes:
    """Return the pin by which a policy names a public key."""
    return hashlib.sha256(public).digest()


def no_devices(config: AgentConfig) -> MillgateError | None:
    """Return a fault when there is nothing to read."""
    if config.devices:
        return None
    return MillgateError(
        tr("no device is configured", "未配置任何设备"),
        where=str(config.path),
        remedy=tr("add a [[device]]", "请添加 [[device]]"),
    )
