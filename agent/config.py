"""`agent.toml`: who the agent is, whom it trusts, where it sends, what it reads."""

import hashlib
import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import Field, model_validator

from protocols.broker import BrokerConfig, read_brokers
from protocols.drivers import DeviceConfig, read_devices
from protocols.errors import ConfigError, MillgateError
from protocols.frame import SECOND
from protocols.hosts import Plain
from protocols.language import tr
from protocols.places import under
from protocols.settings import Duration, Strict, check_settings, read_toml
from protocols.status import socket_path
from protocols.topics import Address
from security.at_rest import KeyKind, from_place, is_encrypted, read_passphrase
from security.cards import (
    BrainCard,
    OpaqueId,
    SealingKeyText,
    VerifyKeyText,
    check_threshold,
    read_brain_card,
)
from security.keys import MessageSigner, load_key_file
from security.secret import Secret
from security.signers import is_token, load_signer

_MEGABYTE = 1 << 20


class Identity(Strict):
    """Who this agent is.

    Attributes:
        factory, agent: opaque ids, 32 hex digits.
        signing_key: file of the key that signs batches.
        gate_key: file of the key that encrypts gate memory.
        attestation_key: file of the key that signs attestations together with the signing key.
        passphrase: where these files are encrypted: a file of mode 0600 or `credential:NAME`.
        enrolment: the brain's HTTPS endpoint, which renews our certificate; empty: nobody does.

    Every file may be `credential:NAME`; the signing key may be in a token, `token:SOCKET`.
    """

    factory: OpaqueId
    agent: OpaqueId
    signing_key: Path
    gate_key: Path
    attestation_key: Path = Path("keys/attestation.key")
    passphrase: Path | None = None
    enrolment: Plain = Field(default="", pattern=r"(https://\S+[^/\s])?", max_length=512)

    @property
    def address(self) -> Address:
        """The agent's address on the broker."""
        return Address(self.factory, self.agent)

    def load(self, key: Path, kind: KeyKind) -> Secret[bytes]:
        """Load one of the keys.

        Raises:
            KeyFault, NoCredential: see `security.keys.load_key_file`.
        """
        return load_key_file(key, kind, from_place(self.passphrase))

    def signer(self) -> MessageSigner:
        """Load the key that signs batches, or meet the token that holds it.

        Raises:
            KeyFault, NoCredential: see `security.signers.load_signer`.
        """
        return self.signer_at(self.signing_key)

    def check_files(self) -> None:
        """Look whether the key files can be used, without their passphrase and without a token.

        Raises:
            KeyFault: when one is missing, open to others, or no key.
            NoCredential: when systemd gave no such credential.
        """
        for place in (self.signing_key, self.gate_key, self.attestation_key):
            if not is_token(place):
                is_encrypted(place)

    def words(self) -> Secret[bytes] | None:
        """Return the passphrase of these files; None where they have none.

        Raises:
            KeyFault, NoCredential: see `security.at_rest.read_passphrase`.
        """
        return None if self.passphrase is None else read_passphrase(self.passphrase)

    def signer_at(self, place: Path) -> MessageSigner:
        """Load another signing key, kept as this agent's keys are; see `signer`."""
        return load_signer(place, from_place(self.passphrase))

    def under(self, folder: Path) -> "Identity":
        """Return it with paths that count from a folder."""
        names = ("signing_key", "gate_key", "attestation_key", "passphrase")
        paths = {name: under(folder, path) for name in names if (path := getattr(self, name))}
        return self.model_copy(update=paths)


class PolicySource(Strict):
    """Where the signed policy is and who may sign it.

    Attributes:
        file: the signed policy.
        officers: the data officers' public keys.
        threshold: how many of them must sign.
        widen_threshold: how many must sign a policy that widens what leaves; unless it is given,
            two where there are two officers.
        audit_key: the firm's own key; every batch is sealed to it as well.
        max_stale: how long after its start, or an officer's newest confirmation, a policy is
            enforced; None is as long as it is valid.
        key_lifetime: so long a consumer's encryption key may be used before another takes its
            place; after twice as long nothing leaves. None is as long as policies name it.
    """

    file: Path
    officers: list[VerifyKeyText] = Field(min_length=1, max_length=16)
    threshold: int = Field(default=1, ge=1, le=16)
    widen_threshold: int | None = Field(default=None, ge=1, le=16)
    audit_key: SealingKeyText
    max_stale: Duration | None = None
    key_lifetime: Duration | None = Field(default=None, gt=0)

    @model_validator(mode="after")
    def _reachable(self) -> "PolicySource":
        check_threshold(self.officers, max(self.threshold, self.widen_threshold or 1))
        return self


class SpoolConfig(Strict):
    """Where sealed batches wait.

    Attributes:
        folder: holds the spool and the local registry.
        max_mb: how much may wait; parts of a megabyte are for trying out what happens then.
        when_full: what happens then: collecting pauses until the brain has answered, or the oldest
            is given up, which is declared to the brain.
        max_age: what has waited for longer is given up likewise; None keeps it.
        archive_mb: how much of what was acknowledged is kept.
        reserve_mb: kept free for the day the disk is full, so that delivery goes on, which frees
            it; 0 for none.
    """

    folder: Path = Path("data")
    max_mb: float = Field(default=1024, ge=1 / 32, le=1 << 20)
    when_full: Literal["pause", "drop-oldest"] = "pause"
    max_age: Duration | None = None
    archive_mb: int = Field(default=256, ge=0, le=1 << 20)
    reserve_mb: int = Field(default=4, ge=0, le=1024)

    @property
    def max_bytes(self) -> int:
        """Bound of what waits."""
        return int(self.max_mb * _MEGABYTE)

    @property
    def archive_bytes(self) -> int:
        """Bound of what is kept after it was acknowledged."""
        return self.archive_mb * _MEGABYTE

    @property
    def reserve_bytes(self) -> int:
        """Size of the reserve."""
        return self.reserve_mb * _MEGABYTE

    @property
    def max_age_s(self) -> int | None:
        """After how many seconds what waits is given up."""
        return None if self.max_age is None else self.max_age // SECOND


class DeliveryConfig(Strict):
    """How what waits is delivered.

    Attributes:
        catch_up_kb_s: at most so much of a backlog per second; 0 is as fast as receipts come.
        connect: a broker that cannot be reached for so long is left for the next.
        silence: when nothing is heard of the brain for so long although something waits, the
            connection is made anew, at the next broker where there is one.
        back: how often a preferred broker is looked at again.
    """

    catch_up_kb_s: int = Field(default=0, ge=0, le=1 << 20)
    connect: Duration = 10 * SECOND
    silence: Duration = 60 * SECOND
    back: Duration = 300 * SECOND

    @property
    def catch_up_bytes_s(self) -> int:
        """Bytes per second of backlog; 0 for no bound."""
        return self.catch_up_kb_s * 1024

    @property
    def connect_s(self) -> float:
        """Seconds until an unreachable broker is left."""
        return self.connect / SECOND

    @property
    def silent_s(self) -> float:
        """Seconds until a silent connection is left."""
        return self.silence / SECOND

    @property
    def back_s(self) -> float:
        """Seconds between two looks at a preferred broker."""
        return self.back / SECOND


class ClockConfig(Strict):
    """What is done about a wall clock that jumps; see `agent.clock`. Takes effect at a start.

    Attributes:
        steady: how long it must go evenly after a jump before anything leaves again.
    """

    steady: Duration = Field(default=300 * SECOND, ge=SECOND, le=86_400 * SECOND)


class MonitorConfig(Strict):
    """Health and metrics for this machine alone; see `agent.monitor`. Takes effect at a start.

    Attributes:
        port: on 127.0.0.1; 0 serves none.
        devices: whether metrics tell what is read from devices, and how much is withheld, to
            everybody on this machine.
    """

    port: int = Field(default=0, ge=0, le=65535)
    devices: bool = False


class ConsumerCard(Strict):
    """A brain that may be sent to; the policy decides whether it is."""

    card: Path


class _AgentFile(Strict):
    """All of agent.toml but the devices."""

    identity: Identity
    policy: PolicySource
    spool: SpoolConfig = SpoolConfig()
    delivery: DeliveryConfig = DeliveryConfig()
    monitor: MonitorConfig = MonitorConfig()
    clock: ClockConfig = ClockConfig()
    consumer: list[ConsumerCard] = Field(min_length=1, max_length=16)


@dataclass(frozen=True, slots=True)
class AgentConfig:
    """Everything in agent.toml, with absolute paths.

    Attributes:
        brokers: in order of preference, at least one.
        consumers: the brains' cards by the SHA-256 pin of their encryption key.
    """

    path: Path
    identity: Identity
    policy: PolicySource
    brokers: tuple[BrokerConfig, ...]
    spool: SpoolConfig
    consumers: dict[bytes, BrainCard]
    devices: list[DeviceConfig]
    delivery: DeliveryConfig = field(default_factory=DeliveryConfig)
    monitor: MonitorConfig = field(default_factory=MonitorConfig)
    clock: ClockConfig = field(default_factory=ClockConfig)

    @property
    def broker(self) -> BrokerConfig:
        """The preferred broker."""
        return self.brokers[0]

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
    try:
        devices = read_devices(raw.pop("device", []), path)
    except ConfigError as error:
        faults += error.faults
    try:
        config = without_devices(raw, path)
    except ConfigError as error:
        raise ConfigError(faults + error.faults) from None
    if faults:
        raise ConfigError(faults)
    return replace(config, devices=devices)


def without_devices(raw: dict[str, Any], path: Path) -> AgentConfig:
    """Check the tables of agent.toml other than the devices, and read what they name.

    Raises:
        ConfigError: with every fault, each on one line.
    """
    faults: list[MillgateError] = []
    rest = dict(raw)
    brokers: tuple[BrokerConfig, ...] = ()
    try:
        brokers = read_brokers(rest, path)
    except ConfigError as error:
        faults += error.faults
    try:
        file = check_settings(rest, _AgentFile, path)
    except ConfigError as error:
        raise ConfigError(faults + error.faults) from None
    if faults:
        raise ConfigError(faults)
    return _absolute(path, file, brokers, _read_consumers(file.consumer, path.parent))


SEALED_TABLES: Final = (
    "identity",
    "policy",
    "broker",
    "spool",
    "delivery",
    "clock",
    "consumer",
)
"""The tables of agent.toml that the sealed side is given: nothing of any device or point."""


def for_sealed_side(path: Path) -> bytes:
    """Return what the sealed side may know of agent.toml, as `read_sealed` takes it."""
    raw = read_toml(path)
    tables = {name: raw[name] for name in SEALED_TABLES if name in raw}
    return json.dumps({"path": str(path.absolute()), "tables": tables}).encode()


def read_sealed(data: bytes) -> AgentConfig:
    """Read what `for_sealed_side` gave.

    Raises:
        ConfigError: see `read_config`.
    """
    found = json.loads(data)
    return without_devices(found["tables"], Path(found["path"]))


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
    path: Path,
    file: _AgentFile,
    brokers: tuple[BrokerConfig, ...],
    consumers: dict[bytes, BrainCard],
) -> AgentConfig:
    folder = path.absolute().parent
    return AgentConfig(
        path=path,
        identity=file.identity.under(folder),
        policy=file.policy.model_copy(update={"file": folder / file.policy.file}),
        brokers=brokers,
        delivery=file.delivery,
        spool=file.spool.model_copy(update={"folder": folder / file.spool.folder}),
        consumers=consumers,
        devices=[],
        monitor=file.monitor,
        clock=file.clock,
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
