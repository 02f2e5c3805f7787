"""`aggregator.toml`: who the brain is, whom it knows, where it listens and keeps."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self, cast
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, Field, model_validator

from aggregator import stores
from aggregator.joining_config import EnrolmentConfig
from aggregator.stores import StoreConfig
from protocols.broker import LOOPBACK, BrokerConfig, read_brokers
from protocols.errors import ConfigError, MillgateError
from protocols.hosts import Host, Name
from protocols.language import tr
from protocols.places import under
from protocols.settings import Strict, check_kind, check_settings, read_toml
from protocols.status import socket_path
from protocols.strict_cbor import Malformed
from protocols.topics import Address
from security.at_rest import from_place
from security.cards import AgentCard, read_agent_card
from security.key_list import MAX_KEYS, KeyList, check_next, first_list, read_keys
from security.keys import BadSignature, MessageSigner, OpeningKey, load_key_file
from security.signers import load_signer

Period = Literal["sharp", "peak", "flat", "valley", "deep"]
BUCKETS: Final = ("future_factory", "carbon_emission")
_DEFAULT_SITE: Final = "main"


def _zone(value: str) -> str:
    try:
        ZoneInfo(value)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError(
            tr(
                "there is no such time zone; write it like Asia/Shanghai",
                "没有此时区，请写作 Asia/Shanghai",
            )
        ) from None
    return value


class BrainConfig(Strict):
    """Who the brain is.

    Attributes:
        encryption_key, receipt_key: files of its two private keys.
        passphrase: where the key files are encrypted: a file of mode 0600 or `credential:NAME`.
        factories: folder of agents' cards. `NAME.card` makes enterprise NAME; `NAME.SITE.card`
            names the site as well.
    """

    name: Name
    encryption_key: Path
    receipt_key: Path
    passphrase: Path | None = None
    factories: Path = Path("factories")

    def opening(self) -> OpeningKey:
        """Load the key that opens batches.

        Raises:
            KeyFault, NoCredential: see `security.keys.load_key_file`.
        """
        return OpeningKey(load_key_file(self.encryption_key, "xwing", from_place(self.passphrase)))

    def signer(self) -> MessageSigner:
        """Load the key that signs receipts.

        Raises:
            KeyFault, NoCredential: see `security.signers.load_signer`.
        """
        return load_signer(self.receipt_key, from_place(self.passphrase))


class LedgerConfig(Strict):
    """Where the ledger is."""

    folder: Path = Path("data")


class CarbonConfig(Strict):
    """Which emission factors are used.

    Attributes:
        region: where the factories take their electricity.
        wider: regions to take a factor from where `region` has none, nearest first.
        factor_set: one set for all its media; empty takes the newest data year that is not after
            the activity's year.
        fuel_set: defaults of what is burnt; one set, never mixed.
        code_profile: how carbon efficiency is graded: a shipped method, or a .toml file beside
            aggregator.toml.
    """

    region: str = "CN-ZJ"
    wider: list[str] = Field(default=[])
    factor_set: str = ""
    fuel_set: str = "cn-fuel-a"
    code_profile: str = "zj-2021-method"


class LocalConfig(Strict):
    """Where the factories' clocks are.

    Attributes:
        zone: tells which day, hour and year a slot is in.
    """

    zone: Annotated[str, AfterValidator(_zone)] = "Asia/Shanghai"


class TariffConfig(Strict):
    """Tariff periods of electricity.

    Attributes:
        calendar: id of a shipped tariff, or a .toml file beside aggregator.toml; empty: none.
        holidays: local days on which deep valley hours hold.
        registers: which period each tariff register of the meters is, such as t1 = "sharp"; empty:
            their split is not checked.
    """

    calendar: str = ""
    holidays: list[date] = Field(default=[])
    registers: dict[Literal["t1", "t2", "t3", "t4"], Period] = Field(default={})


class DisclosureConfig(Strict):
    """What figures about several firms have to satisfy before they are shown.

    Attributes:
        least_firms: fewest firms in a sum or mean.
        p_percent: whoever knows one contribution must not bound another more narrowly than this
            part of it, percent.
        dominant_firms, dominant_percent: so many firms contribute at most this part, percent.
        least_ranked: fewest firms in a ranking (k-anonymity).
        least_coverage: a firm of which less was received is not ranked, 0 to 1.
    """

    least_firms: int = Field(default=3, ge=3, le=1000)
    p_percent: float = Field(default=10.0, gt=0, le=100, allow_inf_nan=False)
    dominant_firms: int = Field(default=2, ge=1, le=100)
    dominant_percent: float = Field(default=85.0, gt=0, le=100, allow_inf_nan=False)
    least_ranked: int = Field(default=5, ge=3, le=1000)
    least_coverage: float = Field(default=0.9, ge=0, le=1, allow_inf_nan=False)


class ApiConfig(Strict):
    """Where the API listens.

    Attributes:
        token_file: holds the token that sees everything.
        tokens: file of further tokens, each good for certain firms and series.
        certificate, private_key: for TLS, PEM; needed where other machines can reach it.
        plain_http: allows other machines without TLS, behind a proxy that has it.
    """

    host: Host = "127.0.0.1"
    port: int = Field(default=8750, ge=0, le=65535)
    token_file: Path = Path("keys/api.token")
    tokens: Path = Path("keys/api-tokens.toml")
    certificate: Path | None = None
    private_key: Path | None = None
    plain_http: bool = False

    @model_validator(mode="after")
    def _protected(self) -> Self:
        if (self.certificate is None) != (self.private_key is None):
            raise ValueError(
                tr(
                    "certificate and private_key belong together",
                    "certificate 与 private_key 须成对给出",
                )
            )
        if self.certificate is None and self.host not in LOOPBACK and not self.plain_http:
            raise ValueError(
                tr(
                    "other machines can reach this host: give certificate and private_key, or write "
                    "plain_http = true where a proxy brings TLS",
                    "其他机器可访问此地址：请给出 certificate 与 private_key；由代理提供 TLS 时写 plain_http = true",
                )
            )
        return self

    def under(self, folder: Path) -> "ApiConfig":
        """Return it with paths that count from a folder."""
        names = ("token_file", "tokens", "certificate", "private_key")
        paths = {name: under(folder, path) for name in names if (path := getattr(self, name))}
        return self.model_copy(update=paths)


class _AggregatorFile(Strict):
    """All of aggregator.toml but the store."""

    brain: BrainConfig
    ledger: LedgerConfig = LedgerConfig()
    carbon: CarbonConfig = CarbonConfig()
    local: LocalConfig = LocalConfig()
    tariff: TariffConfig = TariffConfig()
    api: ApiConfig = ApiConfig()
    disclosure: DisclosureConfig = DisclosureConfig()
    enrolment: EnrolmentConfig | None = None


@dataclass(frozen=True, slots=True)
class Factory:
    """A factory's agent, and what the brain calls it.

    Attributes:
        key_list: which keys sign for it; None before there was a list.
        keys_file: where such a list is kept.
    """

    enterprise: str
    site: str
    card: AgentCard
    key_list: KeyList | None = None
    keys_file: Path | None = None


@dataclass(frozen=True, slots=True)
class AggregatorConfig:
    """Everything in aggregator.toml, with absolute paths.

    Attributes:
        brokers: where it listens, at all of them at once; at least one.
    """

    path: Path
    brain: BrainConfig
    brokers: tuple[BrokerConfig, ...]
    ledger: Path
    store: StoreConfig
    carbon: CarbonConfig
    local: LocalConfig
    tariff: TariffConfig
    api: ApiConfig
    disclosure: DisclosureConfig
    enrolment: EnrolmentConfig | None

    @property
    def broker(self) -> BrokerConfig:
        """The preferred broker."""
        return self.brokers[0]

    @property
    def socket(self) -> Path:
        """Where `aggregator status` asks."""
        return socket_path(self.ledger.parent)

    def factories(self) -> dict[Address, Factory]:
        """Read the cards there are now.

        Raises:
            ConfigError: with every fault of every card.
        """
        return read_factories(self.brain.factories)


def read_config(path: Path) -> AggregatorConfig:
    """Read aggregator.toml.

    Raises:
        ConfigError: with every fault, each on one line.
    """
    raw = read_toml(path)
    faults: list[MillgateError] = []
    try:
        store = _read_store(raw.pop("store", {"kind": "embedded", "path": "store"}), path)
    except ConfigError as error:
        faults += error.faults
    brokers: tuple[BrokerConfig, ...] = ()
    try:
        brokers = read_brokers(raw, path)
    except ConfigError as error:
        faults += error.faults
    try:
        file = check_settings(raw, _AggregatorFile, path)
    except ConfigError as error:
        faults += error.faults
    if faults:
        raise ConfigError(faults)
    folder = path.absolute().parent
    return AggregatorConfig(
        path=path,
        brain=file.brain.model_copy(
            update={
                "encryption_key": under(folder, file.brain.encryption_key),
                "receipt_key": under(folder, file.brain.receipt_key),
                "passphrase": file.brain.passphrase and under(folder, file.brain.passphrase),
                "factories": folder / file.brain.factories,
            }
        ),
        brokers=brokers,
        ledger=folder / file.ledger.folder / "ledger.db",
        store=_absolute(store, folder),
        carbon=file.carbon,
        local=file.local,
        tariff=file.tariff,
        api=file.api.under(folder),
        disclosure=file.disclosure,
        enrolment=file.enrolment and file.enrolment.under(folder),
    )


def _read_store(table: object, path: Path) -> StoreConfig:
    kind = check_kind(table, stores.kinds(), path, ("store",))
    model: type[StoreConfig] = stores.load(kind).Config
    return check_settings(cast("Mapping[str, Any]", table), model, path, ("store",))


def _absolute(store: StoreConfig, folder: Path) -> StoreConfig:
    paths = {
        name: folder / value
        for name in type(store).model_fields
        if isinstance(value := getattr(store, name), Path)
    }
    return store.model_copy(update=paths)


def read_factories(folder: Path) -> dict[Address, Factory]:
    """Read all agents' cards in a folder.

    Raises:
        ConfigError: with every fault of every card.
    """
    found: dict[Address, Factory] = {}
    faults: list[MillgateError] = []
    for path in _cards(folder):
        name, _, site = path.name.removesuffix(".card").partition(".")
        try:
            card = read_agent_card(path)
        except ConfigError as error:
            faults += error.faults
            continue
        if card.address in found:
            faults.append(
                MillgateError(
                    tr("this agent has another card already", "此代理程序已有另一张名片"),
                    where=str(path),
                    remedy=tr("remove one of them", "请删除其中之一"),
                )
            )
        keys_file = path.with_suffix(".keys")
        try:
            key_list = _read_key_list(keys_file, card)
        except MillgateError as fault:
            faults.append(fault)
            continue
        found[card.address] = Factory(name, site or _DEFAULT_SITE, card, key_list, keys_file)
    if faults:
        raise ConfigError(faults)
    return found


def _read_key_list(path: Path, card: AgentCard) -> KeyList | None:
    try:
        with path.open("rb") as file:
            signed = file.read(MAX_KEYS + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _bad_list(path, error.strerror or "") from None
    try:
        found = read_keys(signed, card.officers, card.threshold)
        check_next(found, first_list(card.address, card.signing_key))
    except (Malformed, BadSignature) as fault:
        raise _bad_list(path, str(fault)) from None
    return found


def _bad_list(path: Path, why: str) -> MillgateError:
    return MillgateError(
        tr(f"this list of keys does not count: {why}", f"此密钥清单无效：{why}"),
        where=str(path),
        remedy=tr(
            "give the list that enough officers of this firm signed",
            "请提供由该企业足够数据官签署的清单",
        ),
    )


def _cards(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if path.name.endswith(".card"))
    except (OSError, ValueError) as error:
        fault = MillgateError(
            tr("the folder of agents' cards cannot be read", "无法读取名片目录"),
            where=str(folder),
            remedy=tr(
                f"make it, or correct brain.factories ({type(error).__name__})",
                f"请创建此目录，或更正 brain.factories（{type(error).__name__}）",
            ),
        )
        raise ConfigError([fault]) from None
